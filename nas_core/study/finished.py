"""A study or a design whose winner is trained, as something to hand over. No torch at import."""

import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from nas_core.base.errors import NasError, StoreError
from nas_core.costs import profiler_of
from nas_core.costs.conditions import check_here, is_of_files
from nas_core.costs.latency import RESOURCE as LATENCY
from nas_core.costs.profiler import Measurement
from nas_core.costs.settings import ProfileConfig
from nas_core.program.limits import is_called, parse_limit
from nas_core.records.store import Store
from nas_core.study.analytic_config import AnalyticConfig
from nas_core.study.analytic_project import WINNER, DesignProject
from nas_core.study.brought import described
from nas_core.study.config import StudyConfig
from nas_core.study.stages import DESIGN_CONFIG
from nas_core.study.study import Study
from nas_core.study.sweep import limits_at
from nas_core.workloads import Workload, build_workload

if TYPE_CHECKING:
    from nas_core.base.onnx_files import Way
    from nas_core.training.export import Deployed

TIMES = 10  # that the files are measured in turns, each time with sessions of their own
DISTURBED = 1.1  # times what a file takes usually: something else took the machine, and all are measured again


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What has a trained winner: a study, or a design of `mathnas run-design`.

    ``networks`` are the rows of its training, the winner's among them. ``name``
    is the trained network to hand over: the winner, or another within limits of its own, ``held_to``.
    """

    store: Store
    networks: tuple[Mapping[str, Any], ...]
    study: Study | None = None
    design: DesignProject | None = None
    name: str = WINNER
    held_to: tuple[str, ...] | None = None

    @property
    def config(self) -> StudyConfig | AnalyticConfig:
        found = self.study or self.design
        assert found is not None, "a study or a design"
        return found.config

    @property
    def winner(self) -> Mapping[str, Any]:
        return next(row for row in self.networks if row["name"] == self.name)

    @property
    def workload(self) -> Workload:
        return build_workload(self.config.data)

    @property
    def limits(self) -> tuple[str, ...]:
        if self.held_to is not None:
            return self.held_to
        return tuple(self.study.config.select.limits) if self.study is not None else ()

    def points(self) -> "list[Finished]":
        """The trained points of the study's sweep, tightest first, without those that are the winner or the base."""
        if self.study is None:
            return []
        mine = {row["name"] for row in self.networks if row["role"] == "point"}
        return [
            replace(self, name=point.name, held_to=limits_at(self.study.snapshot, point.limit))
            for point in self.study.points()
            if point.name in mine
        ]

    def modules(self) -> "list[Deployed]":
        """The winner, and the base network that relative limits are of, with fresh weights if it was not trained."""
        from nas_core.training.export import deployed
        from nas_core.training.network import build_network
        from nas_core.training.winner import load_deployed
        from nas_core.workloads.normalisation import Normalisation

        winner, _ = load_deployed(self.store, self.winner["name"])
        if self.study is None:
            return [winner]
        base = self.study.base
        trained = next((row["name"] for row in self.networks if row["genotype"] == str(base)), None)
        if trained is not None:
            return [winner, load_deployed(self.store, trained)[0]]
        network = build_network(described(self.study.family, base), seed=0)
        return [winner, deployed(network, Normalisation(), winner.input_shape, dtype=winner.dtype)]

    @property
    def profile(self) -> ProfileConfig:
        return self.study.config.profile if self.study is not None else ProfileConfig()


def finished(root: str) -> Finished:
    """The study or design under ``root``.

    Raises:
        StoreError: if there is none, or its winner is not trained.
    """
    store, study, design = Store(root, create=False), None, None
    if store.exists(DESIGN_CONFIG):
        design = DesignProject.open(root)
        rows = [design.training] if design.training is not None else []
    else:
        study = Study.open(root)
        rows = (study.current("train") or {"networks": []})["networks"]
    if study is not None and not study.family.are_networks:
        raise StoreError(root, "plain choices", "a study of networks, which have files")
    if not any(row["role"] == "winner" for row in rows):
        advice = "`mathnas status` says how far it is; the command that made it goes on."
        raise StoreError(root, "no trained winner", "a study or a design that is finished", advice)
    return Finished(store=store, networks=tuple(rows), study=study, design=design)


@dataclass(frozen=True, kw_only=True)
class FileLatency:
    """Milliseconds per batch of the files named ``file``, measured in turns, several times.

    ``base_ms`` is empty where there is no base. ``kept`` says for each limit on
    latency in how many of the times the winner's file kept it.
    """

    file: str
    device: str
    batch_size: int
    num_threads: int
    winner_ms: tuple[float, ...]
    base_ms: tuple[float, ...]
    kept: Mapping[str, int]

    @property
    def medians(self) -> tuple[float, float | None]:
        return statistics.median(self.winner_ms), statistics.median(self.base_ms) if self.base_ms else None


def file_latency(done: Finished, winner: bytes, way: "Way", times: int = TIMES) -> FileLatency:
    """Measure the winner's ONNX file in turns with one of the base network, made in the same ``way``.

    Raises:
        NasError: if the base is no network that ONNX can hold, or more threads are asked for than there are.
    """
    from nas_core.costs.timing import time_files
    from nas_core.training.handover import ONNX, onnx_file

    config = _of_files(_latency_settings(done))
    check_here(config)
    modules = done.modules()
    files = [winner, *(onnx_file(module, way) for module in modules[1:])]
    takes = modules[0].input_shape, modules[0].dtype
    rounds = [time_files(files, *takes, config) for _ in range(times)]
    usual = [statistics.median(each.value for each in column) for column in zip(*rounds, strict=True)]
    for index, measured in enumerate(rounds):
        if any(each.value > DISTURBED * ms for each, ms in zip(measured, usual, strict=True)):
            rounds[index] = time_files(files, *takes, config)
    return _file_latency(done, ONNX, rounds, config)


def is_timed_by_torch(done: Finished) -> bool:
    """Whether torch runs the study's networks: its limits are for that, not for an ONNX file."""
    return not is_of_files(_latency_settings(done).runtime)


def is_timed_on_gpu(done: Finished) -> bool:
    """Whether it does so on a GPU."""
    from nas_core.costs.timing import torch_device

    return is_timed_by_torch(done) and torch_device(_latency_settings(done)).type == "cuda"


def weights_latency(done: Finished, times: int = TIMES) -> FileLatency:
    """Measure the winner as it is loaded from its weights, in turns with the base, on the device of the study.

    Raises:
        NasError: if a network does not run there.
    """
    from nas_core.costs.timing import time_again
    from nas_core.families.family import Part
    from nas_core.training.handover import WEIGHTS, prepared

    config = _latency_settings(done)
    parts = [
        Part(position=None, key=key, shapes=(each.input_shape,), build=partial(prepared, each), dtype=each.dtype)
        for key, each in enumerate(done.modules())
    ]
    rounds = []
    for measured in time_again(parts, config, times):
        if failed := next((each for each in measured if isinstance(each, Exception)), None):
            raise NasError("profile.profilers.latency", failed, "networks that run there")
        rounds.append([each for each in measured if isinstance(each, Measurement)])
    return _file_latency(done, WEIGHTS, rounds, config)


def _latency_settings(done: Finished) -> Any:
    profiler = profiler_of(LATENCY, done.profile)
    if not profiler.measures_here:
        root = shlex.quote(done.store.root)
        found = (
            f"latency is measured elsewhere, `mathnas measure {root} --to measure.pyz` writes what measures it there"
        )
        raise NasError("profile.profilers.latency.where", found, "another machine")
    return profiler.settings


def _file_latency(done: Finished, file: str, rounds: Sequence[Sequence[Measurement]], config: Any) -> FileLatency:
    """Of every time, what the winner took and, where there is one, the base."""
    from nas_core.costs.timing import device_name

    winner_ms, *rest = ([each.value for each in column] for column in zip(*rounds, strict=True))
    return FileLatency(
        file=file,
        device=device_name(config) + (", torch" if config.runtime == "eager" else ""),
        batch_size=config.batch_size,
        num_threads=config.num_threads,
        winner_ms=tuple(winner_ms),
        base_ms=tuple(rest[0]) if rest else (),
        kept=_kept(done.limits, winner_ms, rest[0] if rest else None),
    )


def _of_files(settings: Any) -> Any:
    """The settings with which files are measured: those of the study, where these are of files at all."""
    return settings if is_of_files(settings.runtime) else settings.model_copy(update={"runtime": "onnxruntime"})


def _kept(limits: Sequence[str], winner_ms: Sequence[float], base_ms: Sequence[float] | None) -> dict[str, int]:
    """In how many of the times each limit on latency was kept; without a base, relative ones are left out."""
    found = {}
    for text in limits:
        limit = parse_limit(text)
        if not is_called(LATENCY, limit.resource) or limit.at_most is None:
            continue
        if base_ms is None and limit.at_most.unit == "%":
            continue
        bases = base_ms or [1.0] * len(winner_ms)
        most = [limit.resolve({LATENCY: base}).at_most or 0 for base in bases]
        found[text] = sum(value <= bound for value, bound in zip(winner_ms, most, strict=True))
    return found
