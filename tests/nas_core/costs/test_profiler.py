"""One contract for every profiler, and what the latency profiler adds to it."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from nas_core.base.errors import ConfigError, UnknownNameError
from nas_core.costs import (
    PROFILERS,
    ProfileConfig,
    Profiler,
    cost_tables,
    profile,
    profile_blocks,
    profiler_id,
    profiler_of,
)
from nas_core.costs import timing as timing_module
from nas_core.costs.function_resource import FunctionProfiler
from nas_core.costs.timing import time_parts
from nas_core.families.blocks import MBConv
from nas_core.families.family import Part
from nas_core.records.evaluations import FIXED_PART, WHOLE_NETWORK, from_table, to_table
from nas_core.records.resources import Resource
from nas_core.space.genotypes import Genotype
from tests.spaces import build_family

QUICK = ProfileConfig(warmup=1, repeats=3, device="cpu")
TIMED = QUICK.profilers["latency"]
RESOURCES = [resource.name for name in PROFILERS for resource in PROFILERS[name].resources]


def made(name: str) -> Profiler:
    return PROFILERS[name](QUICK.profilers[name])


def part(build, *shape: int) -> Part:
    return Part(position=None, key=(id(build), shape), shapes=(shape,), build=build)


@pytest.mark.parametrize("name", list(PROFILERS))
def test_profiler_contract(name):
    """Every block and network has one row; rows say how they were measured and survive storage."""
    profiler = made(name)
    family = build_family("mobile", width=0.25, resolutions="32,48")
    space, resources = family.space, [resource.name for resource in profiler.resources]
    genotypes = [space.parse("0-" + "-".join(["0"] * 20) + f"@{size}") for size in space.resolutions]
    rows = profiler.measure(family, genotypes, resources, blocks=True)

    blocks = {(p, c) for p, count in enumerate(space.num_choices) for c in range(count)} | {(FIXED_PART, 0)}
    wanted = {(p, c, size, "") for p, c in blocks for size in space.resolutions}
    wanted |= {(WHOLE_NETWORK, 0, space.resolution_of(g), str(g)) for g in genotypes}
    for resource in resources:
        mine = [row for row in rows if row.resource == resource]
        assert len(mine) == len(wanted)
        assert {(row.position, row.choice, row.resolution, row.genotype) for row in mine} == wanted
    for row in rows:
        assert (row.status, row.message) == ("ok", "")
        assert row.value is not None
        assert row.value >= 0
        assert row.spread >= 0
        assert row.num_repeats >= 1
        assert row.space_id == space.space_id
        assert row.profiler_id == profiler_id(QUICK, row.resource)
        assert row.device == profiler_of(row.resource, QUICK).device
        place = (row.position, row.choice)
        absent = row.position >= 0 and space.positions[row.position].blocks[row.choice].kind == "absent"
        assert row.resource == "activation_bytes" or (row.value == 0) == absent, place
    assert from_table(to_table(rows), type(rows[0])) == rows
    for resource in resources:
        assert set(cost_tables(space, rows, resource)) == {32, 48}

    only_networks = profiler.measure(family, genotypes, resources, blocks=False)
    assert {row.position for row in only_networks} == {WHOLE_NETWORK}


@pytest.mark.parametrize("name", list(PROFILERS))
def test_a_measurement_that_fails_is_a_row_with_its_message(name, monkeypatch):
    def broken(*_: object, **__: object) -> torch.nn.Module:
        raise RuntimeError("CUDA out of memory")

    family = build_family("tiny", num_classes=13)  # a space no other test counts, since counts are cached
    monkeypatch.setattr(MBConv, "build", broken)
    from nas_core.costs import counting

    counting.count_part.cache_clear()
    profiler, space = made(name), family.space
    genotypes = [space.parse("0-0-0"), space.parse("0-2-0")]
    rows = profiler.measure(family, genotypes, [resource.name for resource in profiler.resources], blocks=True)
    counting.count_part.cache_clear()
    for row in rows:
        fails = row.choice > 0 or row.genotype == "0-2-0"
        assert row.status == ("failed" if fails else "ok")
        assert row.message == ("RuntimeError: CUDA out of memory" if fails else "")
        assert (row.value is None) == fails


@pytest.mark.parametrize("combine", ["sum", "max"])
def test_a_part_without_a_price_leaves_its_block_without_one(combine):
    """The largest of 1.0 and NaN is 1.0 or NaN, as they come."""

    class Scale(FunctionProfiler):
        """The number that a module holds."""

        name, version, fixed = "scale", 1, 0.0
        resources = (Resource(name=f"scale_{combine}", unit="ones", combine=combine),)
        function = staticmethod(lambda module: module.weight.item())
        wanted = ("module",)

    def scaled(weight: float) -> Part:
        return part(lambda: torch.nn.PReLU(init=weight), 1)

    profiler = Scale(Scale.Settings())
    assert profiler._parts([scaled(1.0)]) == 1.0
    for parts in ([scaled(1.0), scaled(float("nan"))], [scaled(float("nan")), scaled(1.0)]):
        with pytest.raises(ValueError, match="is nan"):
            profiler._parts(parts)


def test_a_part_that_fails_while_it_is_timed_does_not_stop_the_others():
    class FailsLater(torch.nn.Module):
        def __init__(self, after: int) -> None:
            super().__init__()
            self.runs, self.after = 0, after

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.runs += 1
            if self.runs > self.after:
                raise MemoryError(f"run {self.runs}")
            return x

    parts = [part(lambda after=after: FailsLater(after), 1, 2, 2) for after in (0, 2, 99)]
    first, second, third = time_parts(parts, TIMED)
    assert str(first) == "run 1"
    assert str(second) == "run 3"
    assert third.shape == (3,)


def test_the_parts_take_turns():
    """A machine that slows down meanwhile slows all parts alike; a whole network runs untimed before."""
    runs: list[int] = []

    class Recorder(torch.nn.Module):
        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            runs.append(self.index)
            return x

    time_parts([part(lambda index=index: Recorder(index), 1, 1, 1) for index in range(3)], TIMED)
    assert runs == [0, 1, 2] * (TIMED.warmup + TIMED.repeats)

    runs.clear()
    whole = replace(part(lambda: Recorder(3), 1, 1, 1), key=Genotype((0,)))
    time_parts([part(lambda: Recorder(0), 1, 1, 1), whole], TIMED)
    assert runs == [0, 3, 3] * (TIMED.warmup + TIMED.repeats)


def test_a_measurement_is_taken_as_configured(monkeypatch):
    seen = {}

    class Probe(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.update(
                shape=tuple(x.shape),
                threads=torch.get_num_threads(),
                inference=torch.is_inference_mode_enabled(),
                training=self.training,
                channels_last=x.is_contiguous(memory_format=torch.channels_last),
            )
            return x

    threads, state = torch.get_num_threads(), torch.get_rng_state()
    timed = TIMED.model_copy(update={"batch_size": 5, "num_threads": 2, "channels_last": True})
    time_parts([part(Probe, 3, 4, 4)], timed)
    assert seen == {
        "shape": (5, 3, 4, 4),
        "threads": 2,
        "inference": True,
        "training": False,
        "channels_last": True,
    }
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_a_larger_block_takes_longer():
    family = build_family()
    space = family.space
    rows = profile_blocks(family, ProfileConfig(warmup=2, repeats=7, device="cpu"), ["latency_ms"])
    table = cost_tables(space, rows, "latency_ms")[32]
    assert all(identity < small < large for identity, small, large in table.block)
    assert table.fixed > 0
    assert {(row.batch_size, row.num_threads) for row in rows} == {(1, 1)}


def test_more_networks_than_fit_at_a_time_are_all_measured(monkeypatch):
    monkeypatch.setattr(timing_module, "NETWORKS_AT_ONCE", 4)
    family = build_family("tiny")
    genotypes = list(family.space.genotypes())[:10]
    rows = profile(family, genotypes, QUICK, ["latency_ms"])
    assert [row.genotype for row in rows if row.genotype] == [str(g) for g in genotypes]
    assert len(rows) == 10 + 9 + 1


def test_ids_change_with_what_a_value_depends_on():
    other = ProfileConfig(warmup=1, repeats=3, device="cpu", batch_size=8, networks=99)
    for resource in ("flops", "params", "activation_bytes"):
        assert profiler_id(QUICK, resource) == profiler_id(other, resource)
    assert profiler_id(QUICK, "latency_ms") != profiler_id(other, "latency_ms")
    assert profiler_id(other, "latency_ms") == profiler_id(other.model_copy(update={"networks": 1}), "latency_ms")
    assert len({profiler_id(QUICK, resource) for resource in RESOURCES}) == len(RESOURCES)


def test_ids_need_no_torch():
    code = (
        "import sys; from nas_core.costs import ProfileConfig, profiler_id;"
        "[profiler_id(ProfileConfig(), r) for r in ('flops', 'latency_ms')]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_resource_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="flops, params, activation_bytes, latency_ms"):
        profiler_of("watts")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match=r"latency.device: found cuda.*sees no GPU"):
        profile(build_family("tiny"), [], ProfileConfig(device="cuda"), ["latency_ms"], blocks=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_latency_on_a_gpu():
    family = build_family()
    space = family.space
    config = ProfileConfig(warmup=5, repeats=20, device="cuda", batch_size=64, channels_last=True)
    rows = profile(family, [space.parse("2-1-2-1-2-1-2-1")], config, ["latency_ms"])
    assert {row.status for row in rows} == {"ok"}
    assert {row.device for row in rows} == {torch.cuda.get_device_name()}
    network = next(row for row in rows if row.genotype)
    predicted = cost_tables(space, rows, "latency_ms")[32].total(space.parse(network.genotype))
    assert predicted == pytest.approx(network.value, rel=0.5)
