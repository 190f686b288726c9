"""Every block kind keeps its shape contract; every network of the tiny space runs."""

import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from nas_core.base.errors import SpaceError
from nas_core.families.assemble import assemble, build_block, build_head, build_stem
from nas_core.families.blocks import BLOCKS, IMAGES, ROWS, STEMS, kind_of
from nas_core.families.shared_weights import SharedWeights
from nas_core.space.genotypes import BlockSpec, Genotype, PlacedBlock, Position, SearchSpace
from tests.spaces import build_space, tiny

OF_IMAGES = [kind for kind in BLOCKS if IMAGES in BLOCKS[kind].takes]
OF_ROWS = [kind for kind in BLOCKS if ROWS in BLOCKS[kind].takes]
SHAPES = [(8, 8, 1), (8, 16, 1), (8, 8, 2), (8, 16, 2)]  # channels in, out, stride


@pytest.mark.parametrize(("kind", "shape"), list(product(OF_IMAGES, SHAPES)))
@pytest.mark.parametrize("side", [8, 7, 1])
def test_a_block_makes_the_change_of_shape_its_position_says(kind, shape, side):
    in_channels, out_channels, stride = shape
    placed = PlacedBlock(block=BlockSpec.of(kind), in_channels=in_channels, out_channels=out_channels, stride=stride)
    if kind == "absent" and shape != (8, 8, 1):
        with pytest.raises(SpaceError):
            build_block(placed)
        return
    block = build_block(placed)
    x = torch.randn(2, in_channels, side, side, requires_grad=True)
    before = x.detach().clone()
    out_side = -(-side // stride)
    assert block.eval()(x).shape == (2, out_channels, out_side, out_side)
    assert torch.equal(x, before), "a block must leave its input alone: others may read it"
    assert sum(p.numel() for p in block.parameters()) == 0 or not placed.is_no_op
    if side == 8:
        block.train()(x).square().mean().backward()
        assert all(p.grad is not None for p in block.parameters())


@pytest.mark.parametrize(("kind", "out_channels"), list(product(OF_ROWS, (8, 16))))
def test_a_block_of_rows_gives_the_width_that_its_position_says(kind, out_channels):
    """Where it can: what keeps the width is refused elsewhere, as is a stride."""
    placed = PlacedBlock(block=BlockSpec.of(kind), in_channels=8, out_channels=out_channels, stride=1)
    if kind != "linear" and out_channels != 8:
        with pytest.raises(SpaceError):
            build_block(placed)
        return
    block, x = build_block(placed), torch.randn(4, 8)
    before = x.clone()
    assert block.eval()(x).shape == (4, out_channels)
    assert torch.equal(x, before)
    if kind == "linear":
        with pytest.raises(SpaceError, match="stride 1, as rows have"):
            build_block(PlacedBlock(block=BlockSpec.of(kind), in_channels=8, out_channels=8, stride=2))


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("mbconv", {"kernel": 5, "expand": 1, "se": 0.25, "gate": "hard_sigmoid", "act": "hard_swish"}),
        ("mbconv", {"se": 0.001}),
        ("fused-mbconv", {"expand": 2, "se": 0.5, "act": "silu"}),
        ("separable", {"kernel": 5, "se": 0.25, "act": "relu6"}),
        ("conv", {"kernel": 1, "act": "gelu"}),
        ("basic", {"reduce": 2, "act": "silu"}),
        ("bottleneck", {"ratio": 0.5, "act": "relu6"}),
        ("pool", {"kernel": 5, "mode": "avg"}),
        ("convnext", {"kernel": 3, "expand": 2.5, "layer_scale": 0.1}),
    ],
)
def test_parameters_reach_the_module(kind, params):
    placed = PlacedBlock(block=BlockSpec.of(kind, **params), in_channels=8, out_channels=16, stride=2)
    assert build_block(placed)(torch.randn(2, 8, 8, 8)).shape == (2, 16, 4, 4)


def test_a_bottleneck_has_the_inner_width_its_ratio_says():
    placed = PlacedBlock(block=BlockSpec.of("bottleneck", ratio=0.5), in_channels=32, out_channels=32, stride=1)
    assert [m.out_channels for m in build_block(placed).modules() if isinstance(m, nn.Conv2d)] == [16, 16, 32]


@pytest.mark.parametrize(
    ("spec", "side"),
    [
        (BlockSpec.of("conv", out_channels=8, kernel=5, stride=2), 8),
        (BlockSpec.of("conv-pool", out_channels=8), 4),
        (BlockSpec.of("patchify", out_channels=8, patch=2), 8),
    ],
)
def test_stems(spec, side):
    assert build_stem(spec, 3)(torch.randn(2, 3, 16, 16)).shape == (2, 8, side, side)
    assert 16 // kind_of(STEMS, spec).stride == side


@pytest.mark.parametrize(
    "spec",
    [
        BlockSpec.of("pool-linear", dropout=0.5),
        BlockSpec.of("conv-pool-linear", channels=16),
        BlockSpec.of("conv-pool-linear", channels=16, hidden=12, act="hard_swish", dropout=0.1),
    ],
)
def test_heads(spec):
    assert build_head(spec, 3, 8, 5)(torch.randn(2, 8, 3, 3)).shape == (2, 5)


@pytest.mark.parametrize("genotype", [str(genotype) for genotype in tiny().genotypes()])
def test_every_network_of_the_tiny_space_runs_and_learns(genotype):
    space = tiny()
    network = assemble(space.architecture(space.parse(genotype)))
    assert len(network.blocks) == space.num_positions
    logits = network(torch.randn(4, 1, 8, 8))
    assert logits.shape == (4, 10)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", ["nasbench-macro", "resnet", "mobile"])
def test_random_networks_of_the_other_spaces_run(name):
    params = {"mobile": {"width": 0.25, "resolutions": "64,96"}, "resnet": {"stem_channels": 8}}.get(name, {})
    space = build_space(name, **params, num_classes=7)
    rng = np.random.default_rng(0)
    for _ in range(3):
        architecture = space.architecture(space.sample(rng))
        x = torch.randn(2, architecture.in_channels, architecture.resolution, architecture.resolution)
        assert assemble(architecture)(x).shape == (2, 7)


def test_weights_are_a_function_of_the_seed():
    architecture = tiny().architecture(tiny().parse("1-2-1"))

    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in assemble(architecture).parameters()])

    def from_generator(seed: int) -> torch.Tensor:
        network = assemble(architecture, torch.Generator().manual_seed(seed))
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    first = from_generator(1)
    torch.manual_seed(99)
    assert torch.equal(first, from_generator(1)), "with a generator, the global state must not matter"


def test_fresh_weights_keep_the_scale_of_activations():
    """A deep network of depthwise blocks neither dies nor blows up before normalisation has any statistics."""
    space = build_space()
    network = assemble(space.architecture(space.parse("2-2-2-2-2-2-2-2")), torch.Generator().manual_seed(0))
    logits = network(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    assert 1e-3 < float(logits.detach().std()) < 10


def test_timm_is_importable_whatever_torchvision_there_is():
    code = "import nas_core.families.timm_compat, torchvision, timm"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("outputs", [2, 3])
def test_a_residual_network_begins_with_its_input(outputs):
    """Alone and as a path through shared weights; gradients reach all that can move it from there."""
    head = BlockSpec.of("conv-upsample", channels=4, scale=2, residual=True)
    position = Position(name="a", out_channels=4, stride=2, blocks=(BlockSpec.of("conv"), BlockSpec.of("mbconv")))
    space = SearchSpace(
        name="r", in_channels=3, resolutions=(8,), num_classes=outputs, stem=BlockSpec.of("conv", out_channels=4),
        head=head, positions=(position,),
    )  # fmt: skip
    images = torch.randn(2, 3, 8, 8)
    expected = images if outputs == 3 else images.mean(1, keepdim=True).expand(-1, outputs, -1, -1)
    network, shared = assemble(space.architecture(Genotype((1,)))), SharedWeights(space, 0)
    for found in (network(images), shared(images, Genotype((1,)))):
        assert torch.allclose(found, expected, atol=1e-6)
    (network(images) - 1).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    too_small = replace(space, head=BlockSpec.of("conv-upsample", channels=4, residual=True))
    with pytest.raises(SpaceError, match=r"head.residual: found outputs of 4 x 4 for inputs of 8 x 8"):
        assemble(too_small.architecture(Genotype((1,))))(images)
