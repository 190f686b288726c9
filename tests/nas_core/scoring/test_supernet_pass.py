"""Shared prefixes have the values of the plain way: one network at a time."""

import numpy as np
import pytest
import torch

from nas_core.families.shared_weights import SharedWeights
from nas_core.scoring.supernet_pass import Activations, recalibrated_logits, shared_prefix_logits
from nas_core.space.genotypes import BlockSpec, Position, SearchSpace
from nas_core.space.rules import absent_to_end
from tests.spaces import tiny


def every_kind() -> SearchSpace:
    """A space with one block of every kind, ragged, with optional depth."""
    convs = ("mbconv", "fused-mbconv", "separable", "conv", "basic", "bottleneck", "pool", "convnext", "identity")
    blocks = tuple(map(BlockSpec.of, convs))
    squeezed = (BlockSpec.of("mbconv", kernel=5, expand=2, se=0.25), BlockSpec.of("absent"))
    return SearchSpace(
        name="every-kind",
        in_channels=1,
        resolutions=(8,),
        num_classes=4,
        stem=BlockSpec.of("conv", out_channels=8),
        head=BlockSpec.of("conv-pool-linear", channels=16),
        positions=(
            Position(name="a", out_channels=16, stride=2, blocks=blocks),
            Position(name="b", out_channels=16, stride=1, blocks=(*blocks, BlockSpec.of("absent"))),
            Position(name="c", out_channels=16, stride=1, blocks=squeezed),
        ),
        rules=absent_to_end([(1, 9), (2, 1)]),
    )


def lively(space: SearchSpace) -> SharedWeights:
    """Shared weights whose norms scale and shift: a wrong statistic shows."""
    network = SharedWeights(space, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def images(side: int = 8) -> Activations:
    generator = torch.Generator().manual_seed(2)

    def batches(*sizes):
        return [torch.randn(size, 1, side, side, generator=generator) for size in sizes]

    return Activations(calibration=batches(16, 16, 8), rated=batches(12, 12, 5))


@pytest.mark.parametrize("side_by_side", [1, 3, 64])
@pytest.mark.parametrize("make_space", [tiny, every_kind])
def test_same_logits_as_network_by_network(make_space, side_by_side):
    space = make_space()
    network, data = lively(space), images()
    rng = np.random.default_rng(0)
    genotypes = list({space.sample(rng) for _ in range(25)})
    found = shared_prefix_logits(network, genotypes, data, side_by_side)
    assert set(found) == set(genotypes)
    for genotype in genotypes:
        expected = recalibrated_logits(network, genotype, data)
        assert expected.shape == (29, space.num_classes)
        assert torch.allclose(found[genotype], expected, atol=1e-5), genotype


def test_statistics_are_those_of_the_prefix_not_of_training():
    space = tiny()
    network, data = lively(space), images()
    genotype = space.parse("1-0-2")
    before = shared_prefix_logits(network, [genotype], data)[genotype]
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.fill_(7.0)
    assert torch.equal(shared_prefix_logits(network, [genotype], data)[genotype], before)


def test_calibration_averages_over_batches():
    """The statistics are the mean of the batches' statistics, as torch's own cumulative average has it."""
    space = tiny()
    network, data = lively(space), images()
    genotype = space.parse("2-1-1")
    modules = torch.nn.Sequential(*network.path(genotype))
    for layer in modules.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    with torch.no_grad():
        modules.train()
        for batch in data.calibration:
            modules(batch)
        modules.eval()
        expected = torch.cat([modules(batch) for batch in data.rated])
    assert torch.allclose(recalibrated_logits(network, genotype, data), expected, atol=1e-5)


class Refuses(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no")


@pytest.mark.parametrize("side_by_side", [1, 8])
def test_a_block_that_fails_takes_only_its_networks_along(side_by_side):
    space = tiny()
    network = lively(space)
    network.positions[1][2] = Refuses()
    found = shared_prefix_logits(network, list(space.genotypes()), images(), side_by_side)
    for genotype, outcome in found.items():
        assert isinstance(outcome, RuntimeError) == (genotype.choices[1] == 2)


@pytest.mark.parametrize("side_by_side", [1, 4])
def test_a_block_that_works_in_place_leaves_its_siblings_what_they_take(side_by_side):
    space = tiny()
    network, data = lively(space), images()
    network.positions[0][0] = torch.nn.Sequential(torch.nn.ReLU(inplace=True), network.positions[0][0])
    genotypes = [space.parse(text) for text in ("0-1-1", "1-1-1", "1-0-1")]
    found = shared_prefix_logits(network, genotypes, data, side_by_side)
    for genotype in genotypes:
        torch.testing.assert_close(found[genotype], recalibrated_logits(network, genotype, images()))
