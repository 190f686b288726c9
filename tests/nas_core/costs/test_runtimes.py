"""Networks timed by what runs them where they are used: ONNX Runtime, torch's compiler."""

import itertools
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from nas_core.base.errors import ConfigError
from nas_core.base.machine import usable_cpus
from nas_core.base.onnx_files import WAYS
from nas_core.costs import PROFILERS, ProfileConfig, measure_files, profile, profiler_id, runtimes
from nas_core.costs import timing as timing_module
from nas_core.costs.measure_files import MOST_SESSIONS, SESSIONS, undisturbed
from nas_core.costs.runtimes import program_of, run_of
from nas_core.costs.timing import network_part, time_files
from nas_core.families import FAMILIES
from nas_core.space.genotypes import Genotype
from nas_core.training.export import deployed
from nas_core.training.handover import onnx_file
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.workload import Sample
from tests.spaces import build_family

QUICK = ProfileConfig(warmup=1, repeats=3, device="cpu", runtime="onnxruntime")
TIMED = QUICK.profilers["latency"]
ON_GPU = {"device": "cuda", "batch_size": 4}


def model_family():
    family = FAMILIES["model"]
    library = [{"kind": "skip"}]
    model = "nas_core.testing.example_model:small_network"
    return family(family.Settings(model=model, library=library, wanted=3), Sample(shape=(1, 8, 8), num_outputs=3))


@pytest.fixture
def exported(monkeypatch):
    """A list that gets an entry for every export."""
    count, real = [], runtimes.onnx_bytes
    monkeypatch.setattr(runtimes, "onnx_bytes", lambda *given, **named: count.append(1) or real(*given, **named))
    return count


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("runtime", ["eager", pytest.param("compile", marks=pytest.mark.slow), "onnxruntime"])
def test_every_runtime_runs_the_network_itself(runtime):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    inputs = torch.randn(3, 1, 8, 8)
    run = run_of(network, [inputs], TIMED.model_copy(update={"runtime": runtime}))
    with torch.inference_mode():
        np.testing.assert_allclose(run.call(*run.inputs), network(inputs), atol=1e-5)


def test_what_is_compiled_reads_no_weights_of_blocks_that_are_not_chosen():
    family = model_family()
    network, last = family.switched(), Genotype(tuple(count - 1 for count in family.space.num_choices))
    inputs = torch.randn(1, 1, 8, 8)
    reads = []
    for genotype in (Genotype((0,) * family.space.num_positions), last):
        network.choose(genotype)
        program = program_of(network, [inputs])
        torch.testing.assert_close(program(inputs), network(inputs))
        reads.append({node.target for node in program.graph.nodes if node.op == "get_attr"})
    assert reads[1] < reads[0]


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("runtime", ["eager", "compile", "cuda-graph"])
def test_a_gpu_runs_blocks_and_networks_in_every_runtime_of_torch(runtime):
    config = QUICK.model_copy(update={"profilers": {"latency": TIMED.model_copy(update=ON_GPU | {"runtime": runtime})}})
    for family in (build_family("tiny"), model_family()):
        rows = profile(family, [Genotype((0,) * family.space.num_positions)], config, ["latency_ms"])
        assert {row.status for row in rows} == {"ok"}
        suffix = "" if runtime == "eager" else f", {runtime}"
        assert {row.device for row in rows} == {torch.cuda.get_device_name() + suffix}


@pytest.mark.gpu
@NO_GPU
def test_a_graph_is_replayed_without_python():
    class Counted(nn.Linear):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Counted.calls += 1
            return super().forward(x)

    network = Counted(8, 8).eval().cuda()
    run = run_of(
        network, [torch.randn(4, 8, device="cuda")], TIMED.model_copy(update=ON_GPU | {"runtime": "cuda-graph"})
    )
    captured = Counted.calls
    run.call(*run.inputs)
    assert Counted.calls == captured > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_graphs_without_a_gpu_are_refused():
    for settings, field in (
        ({"device": "auto"}, "runtime: found cuda-graph"),
        ({"device": "cpu"}, "device: found cpu"),
    ):
        config = ProfileConfig(runtime="cuda-graph", **settings)
        profiler = PROFILERS["latency"](config.profilers["latency"])
        for call in (profiler.check, lambda config=config: profile(build_family("tiny"), [], config, ["latency_ms"])):
            with pytest.raises(ConfigError, match=rf"latency\.{field}"):
                call()


def test_blocks_and_networks_of_a_chain_are_measured_in_the_runtime():
    family = build_family("tiny")
    rows = profile(family, [family.space.parse("0-1-2")], QUICK, ["latency_ms"])
    assert {row.status for row in rows} == {"ok"}
    assert all(row.device.endswith(", onnxruntime") for row in rows)
    assert {row.profiler_id for row in rows} != {profiler_id(ProfileConfig(warmup=1, repeats=3), "latency_ms")}


def test_networks_of_a_model_are_files_of_their_own_each_made_once(monkeypatch, exported):
    monkeypatch.setattr(timing_module, "FILES_AT_ONCE", 2)
    family = model_family()
    space = family.space
    rows = profile(family, [Genotype((1,) * space.num_positions)], QUICK, ["latency_ms"])
    assert [row.message for row in rows if row.status != "ok"] == []
    assert len(rows) == 1 + sum(space.num_choices) + 1
    made = len(exported)
    assert 2 <= made <= space.num_networks
    (row,) = profile(family, [Genotype((0,) * space.num_positions)], QUICK, ["latency_ms"], blocks=False)
    assert row.value > 0
    assert len(exported) == made  # the base's file is kept


@pytest.mark.parametrize("build", [model_family, lambda: build_family("tiny")])
def test_the_file_that_is_timed_is_the_one_that_is_handed_over(monkeypatch, build):
    family, files, real = build(), [], runtimes.exported
    base = Genotype((0,) * family.space.num_positions)
    monkeypatch.setattr(runtimes, "exported", lambda *given: files.append(real(*given)) or files[-1])
    monkeypatch.setattr(runtimes, "_KEPT", runtimes._Kept())
    profile(family, [base], QUICK, ["latency_ms"], blocks=False)
    shape = network_part(family, base).shapes[0]
    handed_over = onnx_file(deployed(family.module(base), Normalisation(mean=(0.2,), std=(0.3,)), shape), WAYS[0])
    assert len(files) == 1
    assert operators(files[0]) == operators(handed_over)


def operators(data):
    return [node.op_type for node in onnx.load_model_from_string(data).graph.node]


def test_a_machine_that_slows_down_does_not_make_later_files_slower(monkeypatch):
    """Some files at a time: how much faster than the first each is, is taken from the rounds that both were in."""
    family, drift = model_family(), iter((1.0, 1.02, 1.04) * TIMED.repeats)
    base = Genotype((0,) * family.space.num_positions)
    share = {base: 1.0, base.swap(0, 1): 0.75, base.swap(1, 1): 0.5, base.swap(2, 1): 0.25}
    monkeypatch.setattr(timing_module, "FILES_AT_ONCE", 1)
    monkeypatch.setattr(measure_files, "SPAN_S", 0.0)
    monkeypatch.setattr(timing_module, "_takes_long", lambda run: False)
    monkeypatch.setattr(timing_module, "_switched_run", lambda family, network, placed, genotype, *_: genotype)

    def in_turns(runs, config, _):
        now = next(drift)
        return [np.full(config.repeats, now * share[run]) for run in runs]

    monkeypatch.setattr(timing_module, "in_turns", in_turns)
    found = timing_module._time_switched(family, family.switched(), list(share), TIMED)
    assert [timing.tolist() for timing in found] == [[each] for each in share.values()]


def test_files_are_timed_beside_each_other():
    files = [runtimes.onnx_bytes(nn.Linear(4, width), [torch.randn(2, 4)], "trace") for width in (2, 3)]
    measured = time_files(files, (4,), "float32", TIMED)
    assert [each.num_repeats for each in measured] == [1, 1]  # of the fastest of three sessions
    assert all(each.value > 0 for each in measured)


def opened_sessions(monkeypatch, paces, repeats=30, span_s=0.0):
    """Two small files timed in sessions at these paces, the second always in 2 ms; returns both, and the sessions."""
    files = [runtimes.onnx_bytes(nn.Linear(4, width), [torch.randn(2, 4)], "trace") for width in (2, 3)]
    opened, pace = [], iter(paces)

    def in_turns(runs, config, _):
        opened.append(runs)
        return [np.full(config.repeats, next(pace)), np.full(config.repeats, 2.0)]

    monkeypatch.setattr(timing_module, "in_turns", in_turns)
    monkeypatch.setattr(measure_files, "SPAN_S", span_s)
    return time_files(files, (4,), "float32", TIMED.model_copy(update={"repeats": repeats})), opened


def test_a_session_whose_memory_lies_badly_does_not_make_its_file_slower(monkeypatch):
    """The repeats are shared out among sessions; the fastest counts."""
    (first, second), opened = opened_sessions(monkeypatch, (9.0, 1.0, 1.02, 1.01, 9.0))
    assert (first.value, second.value, first.num_repeats) == (1.0, 2.0, 30 / SESSIONS)
    assert len({id(run) for runs in opened for run in runs}) == 2 * SESSIONS


@pytest.mark.parametrize(("paces", "sessions"), [
    ((9.0, 9.0, 9.0, 9.0, 1.0, 9.0, 1.0, 9.0, 1.0), 9),  # until three of them are calm
    ((1.0, *range(2, 99)), MOST_SESSIONS),
])  # fmt: skip
def test_a_disturbed_machine_is_measured_longer(monkeypatch, paces, sessions):
    (first, _), opened = opened_sessions(monkeypatch, map(float, paces))
    assert (first.value, len(opened)) == (1.0, sessions)


def test_what_is_soon_measured_is_measured_for_a_while(monkeypatch):
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0], sleep=lambda seconds: now.append(now.pop() + seconds))
    monkeypatch.setattr(measure_files, "time", clock)
    _, opened = opened_sessions(monkeypatch, itertools.repeat(1.0), span_s=60.0)
    assert len(opened) == MOST_SESSIONS
    assert now[0] == pytest.approx(60.0 * (1 - 1 / MOST_SESSIONS))  # when the last began


def test_files_that_take_long_are_opened_once(monkeypatch):
    monkeypatch.setattr(timing_module, "LONG_MS", 0.0)
    (first, _), opened = opened_sessions(monkeypatch, (9.0, 1.0))
    assert (first.value, first.num_repeats, len(opened)) == (9.0, 30, 1)


def test_kept_files_stay_within_a_number_of_bytes(monkeypatch):
    monkeypatch.setattr(runtimes, "MAX_KEPT_BYTES", 10)
    kept = runtimes._Kept()
    for key in "abc":
        kept.keep(key, b"1234")
        kept.get("a")
    assert [kept.get(key) is not None for key in "abc"] == [True, False, True]


def test_more_threads_than_this_process_may_use_are_refused():
    config = ProfileConfig(num_threads=usable_cpus() + 1)
    profiler = PROFILERS["latency"](config.profilers["latency"])
    for call in (profiler.check, lambda: profile(build_family("tiny"), [], config, ["latency_ms"])):
        with pytest.raises(
            ConfigError, match=r"latency\.num_threads: found \d+, expected at most \d+, as this process"
        ):
            call()


@pytest.mark.skipif(find_spec("openvino") is not None, reason="OpenVINO is installed")
def test_a_runtime_that_is_not_installed_is_named():
    profiler = PROFILERS["latency"](ProfileConfig(runtime="openvino").profilers["latency"])
    with pytest.raises(
        ConfigError, match=r"latency\.runtime: found openvino, without openvino, .* pip install openvino"
    ):
        profiler.check()


def test_what_other_work_adds_to_some_runs_does_not_count():
    """Up to half of the runs may be slower by anything."""
    assert undisturbed(np.array([9.0, 1.0, 50.0, 1.0])) == 1.0
    assert undisturbed(np.array([3.0, 1.0, 2.0])) == 1.5
