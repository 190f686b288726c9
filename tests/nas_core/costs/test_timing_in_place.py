"""Blocks timed where they stand: whole networks take turns, and what each block costs is fitted to their times."""

import platform
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nas_core.costs import PROFILERS, timing
from nas_core.costs.profiler import Measurement
from nas_core.costs.timing import time_in_place
from nas_core.families import FAMILIES, Family
from nas_core.space.genotypes import Genotype
from nas_core.workloads.workload import Sample

BLOCK_MS = ((3.0, 1.0, 0.0), (2.0, 0.5), (4.0, 4.0, 0.5))
FIXED_MS = 5.0


class _Clockwork(nn.Module):
    """A network that takes a known time: what its blocks take together, each run longer by what else a machine does."""

    def __init__(self, fails: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.fails, self.rng, self.ms = fails, np.random.default_rng(0), 0.0

    def choose(self, genotype: Genotype) -> None:
        if self.fails is not None and genotype.choices[self.fails[0]] == self.fails[1]:
            raise RuntimeError("this block cannot run")
        total = FIXED_MS + sum(row[choice] for row, choice in zip(BLOCK_MS, genotype.choices, strict=True))
        self.ms = total * (1 + abs(self.rng.normal(0, 0.03)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture
def family() -> Family:
    names = {f"p{index}": [f"b{choice}" for choice in range(len(row))] for index, row in enumerate(BLOCK_MS)}
    kind = FAMILIES["choices"]
    return kind(kind.Settings(positions=names), Sample(shape=(3, 4, 4), num_outputs=2))


@pytest.fixture(autouse=True)
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real" not in request.node.name:
        monkeypatch.setattr(timing, "_clock", lambda device, threads: lambda prepared, inputs: prepared.network.ms)


def _settings() -> Any:
    return PROFILERS["latency"].Settings(repeats=9, warmup=0, device="cpu")


def test_blocks_cost_what_they_add_to_whole_networks(family: Family) -> None:
    found = time_in_place(family, _Clockwork(), Genotype((0, 0, 0)), [Genotype((1, 1, 1))], _settings(), blocks=True)
    assert isinstance(found.fixed_part, Measurement)
    for genotype in (Genotype((0, 0, 0)), Genotype((1, 0, 2)), Genotype((2, 1, 2)), Genotype((0, 1, 1))):
        costs = [found.blocks[block] for block in enumerate(genotype.choices)]
        total = found.fixed_part.value + sum(cost.value for cost in costs if isinstance(cost, Measurement))
        true = FIXED_MS + sum(row[choice] for row, choice in zip(BLOCK_MS, genotype.choices, strict=True))
        assert total == pytest.approx(true, rel=0.02)
    assert min(found.blocks[0, choice].value for choice in range(3)) == 0.0  # type: ignore[union-attr]
    assert set(found.networks) == {Genotype((1, 1, 1))}


def test_where_no_network_runs_every_block_says_why(family: Family) -> None:
    network = _Clockwork()
    network.choose = lambda _: _raise()  # type: ignore[method-assign]
    found = time_in_place(family, network, Genotype((0, 0, 0)), [Genotype((1, 1, 1))], _settings(), blocks=True)
    assert all("no such kernel" in str(each) for each in (found.fixed_part, *found.blocks.values()))
    assert len(found.blocks) == sum(map(len, BLOCK_MS))


def _raise() -> None:
    raise RuntimeError("no such kernel")


def test_a_block_that_cannot_run_has_no_time_and_spoils_no_other(family: Family) -> None:
    network = _Clockwork(fails=(0, 1))
    found = time_in_place(family, network, Genotype((0, 0, 0)), [], _settings(), blocks=True)
    assert isinstance(found.blocks[0, 1], Exception)
    assert isinstance(found.blocks[0, 2], Measurement)
    assert found.blocks[1, 0].value == pytest.approx(1.5, abs=0.3)  # type: ignore[union-attr]


def test_a_trained_models_networks_are_timed_for_real() -> None:
    kind = FAMILIES["model"]
    family = kind(kind.Settings.model_validate(kind.example), Sample(shape=(1, 16, 16), num_outputs=10))
    found = timing.time_family(family, Genotype((0,) * family.space.num_positions), [], _settings(), blocks=True)
    assert set(found.blocks) == {
        (position, choice) for position, count in enumerate(family.space.num_choices) for choice in range(count)
    }


def test_a_whole_network_is_timed_as_it_is_handed_over(family: Family) -> None:
    """Floats are prepared in it, whole numbers have no preparation."""
    images, network = torch.rand(2, 3, 4, 4), nn.Identity()
    prepared = timing.whole_part("key", (3, 4, 4), "float32", lambda: network).build()(images)
    mean, std = timing.AS_PREPARED
    assert torch.allclose(prepared, (images - mean) / std)
    assert timing.whole_part("key", (7,), "int64", lambda: network).build() is network


TIMES = """
import resource
import torch
from nas_core.costs import PROFILERS
from nas_core.costs.timing import time_networks, whole_part

class Branches(torch.nn.Module):
    def forward(self, x):
        return sum(branch.relu() for branch in [x + number for number in range(8)])  # 16 MB of them

part = whole_part("key", (8, 64, 64), "float32", Branches)
settings = PROFILERS["latency"].Settings(batch_size=16, repeats=100, device="cpu")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
assert time_networks([part], settings)[0].value > 0
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert faults < 100_000, faults  # 370,000 otherwise
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_a_timed_run_does_not_wait_for_memory() -> None:
    subprocess.run([sys.executable, "-c", TIMES], check=True)
