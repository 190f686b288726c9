"""Counts: equal to the published benchmark's, to real modules', and to counting by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from nas_core.base.errors import SpaceError, UnknownNameError
from nas_core.costs import cost_tables, count_networks, extreme_genotypes, profile_blocks
from nas_core.costs.counting import count_module, count_parts
from nas_core.costs.settings import ProfileConfig
from nas_core.families.assemble import assemble
from nas_core.space.genotypes import Genotype
from tests.reference_data import reference_data
from tests.spaces import build_family

SMALL = {
    "nasbench-macro": {},
    "tiny": {},
    "resnet": {"stem_channels": 8},
    "mobile": {"width": 0.25, "resolutions": "33,64"},
}


@pytest.mark.data
def test_every_network_of_nasbench_macro_counts_as_its_table_says():
    table = pd.read_parquet(reference_data("nasbench_macro/cifar10.parquet"))
    genotypes = [Genotype(tuple(map(int, arch))) for arch in table["arch"]]
    counts = pd.DataFrame(count_networks(build_family(), genotypes, ["flops", "params"]))
    assert len(counts) == 6561
    assert (counts["flops"].to_numpy() == table["flops"].to_numpy()).all()
    assert (counts["params"].to_numpy() == table["params"].to_numpy()).all()


def counted_by_running(network: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    """Multiply-adds and parameters of a real network on a real image, written the obvious way."""
    flops = []

    def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weights_per_output = layer.weight[0].numel()
        flops.append(output.numel() * weights_per_output)

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(hook)
    with torch.inference_mode():
        network.eval()(x)
    return sum(flops), sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", list(SMALL))
def test_sums_of_blocks_are_the_counts_of_assembled_networks(name):
    family = build_family(name, **SMALL[name], num_classes=7)
    space = family.space
    rng = np.random.default_rng(0)
    genotypes = list(space.genotypes()) if name == "tiny" else [space.sample(rng) for _ in range(6)]
    for genotype, row in zip(genotypes, count_networks(family, genotypes, ["flops", "params"]), strict=True):
        size = space.resolution_of(genotype)
        network = assemble(space.architecture(genotype))
        flops, params = counted_by_running(network, torch.randn(1, space.in_channels, size, size))
        assert row == {"genotype": str(genotype), "flops": flops, "params": params}


@pytest.mark.parametrize("name", list(SMALL))
def test_the_largest_part_is_the_networks_activation_peak(name):
    """A whole network also holds the image that its caller passed in, and nothing else."""
    family = build_family(name, **SMALL[name])
    space = family.space
    rng = np.random.default_rng(1)
    genotypes = [space.sample(rng) for _ in range(4)]
    tables = cost_tables(space, profile_blocks(family, ProfileConfig(), ["activation_bytes"]), "activation_bytes")
    for genotype in genotypes:
        architecture = space.architecture(genotype)
        size = architecture.resolution
        whole = count_module(lambda a=architecture: assemble(a), (space.in_channels, size, size)).activation_bytes
        largest = tables[size].total(genotype)
        image = space.in_channels * size * size * 4
        assert largest == count_parts(family.parts(genotype)).activation_bytes
        assert whole - image <= largest <= whole


@pytest.mark.parametrize(
    ("layers", "peak_floats"),
    [
        ([nn.ReLU()], 2 * 48),
        ([nn.ReLU(inplace=True)], 48),
        ([nn.ReLU(), nn.ReLU()], 3 * 48),  # input, first, second: the first is held while the second is made
        ([nn.ReLU(), nn.ReLU(), nn.ReLU()], 3 * 48),
        ([nn.Conv2d(3, 6, 1)], 48 + 96),
        ([nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 3, 1)], 48 + 2 * 96),
        ([nn.Flatten(), nn.Linear(48, 10)], 48 + 10),  # flattening is a view, the weight is no activation
    ],
)
def test_peak_memory_by_hand(layers, peak_floats):
    assert count_module(lambda: nn.Sequential(*layers).to("meta"), (3, 4, 4)).activation_bytes == 4 * peak_floats


def test_a_residual_keeps_its_shortcut_in_memory():
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.body(x)
            return self.body(y) + y

    assert count_module(Residual, (1, 4, 4)).activation_bytes == 4 * 4 * 16


def test_attention_and_matrix_products_are_counted():
    """A multi-head attention over T tokens of width d: four projections, and two products of T x T x d."""
    tokens, width = 6, 8

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            query, key, value = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
            mixed = nn.functional.scaled_dot_product_attention(query, key, value)
            return self.out(mixed.transpose(1, 2).flatten(2))

    counted = count_module(Attention, (tokens, width))
    assert counted.flops == 4 * tokens * width * width + 2 * tokens * tokens * width


def test_a_module_that_asks_for_values_is_counted_as_others_are():
    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x / 2 if x.max() > 100 else x)

    counts = count_module(lambda: Branching(8, 4), (8,))
    assert (counts.flops, counts.params, counts.out_shape) == (32, 36, (4,))
    assert counts == count_module(lambda: nn.Linear(8, 4), (8,))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        count_module(lambda: Branching(8, 4), (9,))


def test_a_genotype_of_another_space_is_refused():
    with pytest.raises(SpaceError, match="2 choices"):
        count_networks(build_family("tiny"), [Genotype((0, 0))], ["flops"])


@pytest.mark.parametrize(("resource", "message"), [("latency_ms", "which is not counted"), ("flop", "one of: flops")])
def test_what_is_not_counted_is_refused(resource, message):
    with pytest.raises(UnknownNameError, match=message):
        count_networks(build_family("tiny"), [], [resource])


@pytest.mark.parametrize(
    ("name", "smallest", "largest"),
    [
        ("nasbench-macro", "0-0-0-0-0-0-0-0", "2-2-2-2-2-2-2-2"),
        ("tiny", "0-0-0", "2-2-2"),
        ("mobile", "0-" + "-".join(["0-0-9-9"] * 5) + "@33", "0-" + "-".join(["8"] * 20) + "@64"),
    ],
)
def test_the_extreme_networks_are_allowed_and_extreme(name, smallest, largest):
    assert tuple(map(str, extreme_genotypes(build_family(name, **SMALL[name])))) == (smallest, largest)
