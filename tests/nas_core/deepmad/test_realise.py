"""Structures as torch modules: timm's counts for the published ones, our counts for every other."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from nas_core.deepmad.domain import verify
from nas_core.deepmad.formulas import TINYNAS, rate
from nas_core.deepmad.realise import DepthwiseBlock, SqueezeExcite, build
from nas_core.deepmad.structure import Skeleton, Structure, SuperBlock, published
from tests.benchmarks.deepmad import problem
from tests.nas_core.deepmad.structures import random_structure

# parameters with the classifier, multiply-adds of convolutions and classifier
TIMM_COUNTS = {
    "R18": (11_826_088, 1.8116e9),
    "R34": (21_690_160, 3.6349e9),
    "R50": (25_441_144, 4.0428e9),
}


@contextmanager
def counting(net: nn.Module) -> Iterator[dict[str, int]]:
    """Counts while the network runs: ``macs`` of convolutions and linears, ``flops`` in the authors' counting.

    The latter: multiply-adds, two per BatchNorm element, one per activation
    and pooled element, one per element that a projection shortcut gives; no
    squeeze-and-excitation, no classifier.
    """
    seen = {"macs": 0, "flops": 0}
    inside_se = {id(m) for se in net.modules() if isinstance(se, SqueezeExcite) for m in se.modules()}

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            macs = output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            macs = module.weight.numel()
        else:
            macs = 0
        seen["macs"] += macs
        if id(module) in inside_se or isinstance(module, nn.Linear):
            return
        seen["flops"] += macs
        if isinstance(module, nn.BatchNorm2d):
            seen["flops"] += 2 * output[0].numel()
        elif isinstance(module, (nn.ReLU, nn.SiLU)):
            seen["flops"] += output[0].numel()
        elif isinstance(module, nn.AvgPool2d):
            seen["flops"] += inputs[0][0].numel()

    def count_projection(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen["flops"] += output[0].numel()

    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.ReLU, nn.SiLU, nn.AvgPool2d)
    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, kinds)]
    for block in net.modules():
        shortcut = getattr(block, "shortcut", None)
        if isinstance(block, DepthwiseBlock) or not isinstance(shortcut, nn.Module):
            continue
        if any(isinstance(m, nn.Conv2d) for m in shortcut.modules()):
            hooks.append(shortcut.register_forward_hook(count_projection))
    yield seen
    for hook in hooks:
        hook.remove()


def counts(structure: Structure) -> tuple[int, int, int, int]:
    """Parameters with and without the classifier, multiply-adds, FLOPs, of the module run forward."""
    net = build(structure, num_classes=1000).eval()
    side = structure.skeleton.resolution
    with torch.no_grad(), counting(net) as seen:
        assert net(torch.zeros(1, structure.skeleton.image_channels, side, side)).shape == (1, 1000)
    total = sum(p.numel() for p in net.parameters())
    classifier = sum(p.numel() for m in net.modules() if isinstance(m, nn.Linear) for p in m.parameters())
    return total, total - classifier, seen["macs"], seen["flops"]


@pytest.mark.parametrize("name", TIMM_COUNTS)
def test_timm_builds_the_published_structures(name: str) -> None:
    structure = published()[name].structure
    total, without, macs, flops = counts(structure)
    rating = rate(structure, TINYNAS)
    assert total == TIMM_COUNTS[name][0]
    assert macs == pytest.approx(TIMM_COUNTS[name][1], abs=5e4)
    assert (without, flops) == (rating.params, rating.flops)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["29M-224", "50M"])
def test_the_published_mobilenets(name: str) -> None:
    structure = published()[name].structure
    _, without, _, flops = counts(structure)
    assert (without, flops) == (rate(structure, TINYNAS).params, rate(structure, TINYNAS).flops)


def test_counts_of_random_structures_equal_the_closed_forms() -> None:
    rng = random.Random(5)
    for _ in range(6):
        big = random_structure(rng)
        blocks = tuple(
            SuperBlock(out=b.out, bottleneck=b.bottleneck, kernel=b.kernel, depth=min(b.depth, 2), stride=b.stride)
            for b in big.blocks
        )
        skeleton = Skeleton(
            family=big.skeleton.family,
            resolution=96,
            strides=big.skeleton.strides,
            head=big.skeleton.head,
            image_channels=rng.choice((1, 3, 10)),
        )
        structure = Structure(skeleton=skeleton, stem=big.stem, blocks=blocks)
        _, without, _, flops = counts(structure)
        rating = rate(structure, TINYNAS)
        assert (without, flops) == (rating.params, rating.flops)


def test_a_first_block_that_changes_nothing_still_projects() -> None:
    blocks = tuple(SuperBlock(out=16, bottleneck=8, kernel=3, depth=2, stride=stride) for stride in (1, 2))
    structure = Structure(skeleton=Skeleton(family="resnet", resolution=32, strides=(1, 2)), stem=16, blocks=blocks)
    _, without, _, flops = counts(structure)
    rating = rate(structure, TINYNAS)
    assert (without, flops) == (rating.params, rating.flops)


@pytest.mark.parametrize("name", ["R18", "R34", "R50", "29M-224"])
def test_designs_build_and_count_what_they_say(name: str) -> None:
    known = json.loads((Path(__file__).parents[2] / "golden" / "deepmad_designs.json").read_text())["designs"][name]
    structure = Structure.from_dict({"structure": known["structure"]})
    rating = rate(structure, TINYNAS)
    assert rating.score == pytest.approx(known["score"], rel=1e-12)
    assert rating.score > rate(published()[name].structure, TINYNAS).score
    assert (rating.flops, rating.params) == (known["flops"], known["params"])
    domain, limits, _ = problem(name)
    assert not verify(structure, domain, limits).broken
    _, without, _, flops = counts(structure)
    assert (without, flops) == (rating.params, rating.flops)
