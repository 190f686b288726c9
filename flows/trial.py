"""A short trial of a study's networks, in a process as its workers are: what an example takes, what a process takes.

    python -m flows.trial < ASKED.json

Started by ``flows.estimate``, as many side by side as there are workers, since
they share the machine's caches and its memory's bandwidth. It runs the real
training loop on a few of the real examples, for a few steps.
"""

import gc
import itertools
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import psutil

from nas_core.base.allocator import give_back_memory
from nas_core.base.errors import NasError

if TYPE_CHECKING:
    from torch import nn

    from nas_core.families.family import Family
    from nas_core.space.genotypes import Genotype
    from nas_core.study.config import StudyConfig
    from nas_core.training.export import Deployed
    from nas_core.training.settings import Recipe
    from nas_core.workloads.workload import Splits, Workload

MOST_EXAMPLES = 1024  # that are read
FEWEST_EXAMPLES = 16  # read first, with which what is done once is told from what each example takes
ENOUGH_S, MOST_STEPS = 2.0, 12  # of a training
RUN_EXAMPLES = 256
SAMPLED_S = 0.05
MORE_TIMED = 2  # networks, by which what one takes is told from what all take together


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be tried: the study's YAML, a network, and the parts of the work that it has."""

    study: str
    genotype: str
    num_threads: int
    runs: bool  # networks are trained or run; else only starting is measured
    trains: bool  # the winner is trained
    times: bool  # latency is measured


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What was measured of one network, in one process; zeros where that was not asked for.

    ``start_s`` is from the start of the process until its modules are imported.
    The other seconds are of one example, but for ``made_s`` and ``open_s`` of
    a job, ``export_s`` of the program that is handed over, ``latency_s`` of
    measuring one whole network, and ``turns_s`` of what some take turns in.
    """

    start_s: float = 0.0
    made_s: float = 0.0  # until the family of networks is known, which every job makes anew
    open_s: float = 0.0  # before the first example is read
    read_s: float = 0.0
    scored_s: float = 0.0  # by the scorer's recipe: forward, backward, update
    trained_s: float = 0.0  # by the winner's recipe
    run_s: float = 0.0  # forward
    export_s: float = 0.0
    latency_s: float = 0.0
    turns_s: float = 0.0
    program_bytes: int = 0
    weight_bytes: int = 0
    own_bytes: int = 0  # largest memory that this process had of its own
    idle_bytes: int = 0  # what it has of its own when its work is done
    shared_bytes: int = 0  # of libraries, once for all processes


class Enough(BaseException):
    """A training has been tried for long enough."""


def main() -> None:
    asked = Asked(**json.load(sys.stdin))
    with Memory() as memory:
        found = tried(asked)
    gc.collect()
    give_back_memory()
    idle_bytes, _ = _own_and_shared(psutil.Process())
    of_memory = {"own_bytes": memory.own_bytes, "idle_bytes": idle_bytes, "shared_bytes": memory.shared_bytes}
    print(json.dumps({**asdict(found), **of_memory}))


def tried(asked: Asked) -> Trial:
    import torch

    import tasks.worker  # noqa: F401 (knows how to fetch a model of MLflow's)
    from nas_core.space.genotypes import Genotype
    from nas_core.study.brought import scorer_of, workload_of
    from nas_core.study.config import load_config

    torch.set_num_threads(asked.num_threads)
    config = load_config(asked.study.encode(), source="the study")
    start_s = time.time() - psutil.Process(os.getpid()).create_time()
    family, made_s = _timed(lambda: _family(config))
    if not asked.runs:
        return Trial(start_s=start_s, made_s=made_s)
    genotype, workload = Genotype.parse(asked.genotype), workload_of(config)
    splits, open_s, read_s = _read(family, workload, genotype)
    known: dict[str, Any] = {"start_s": start_s, "made_s": made_s, "open_s": open_s, "read_s": read_s}
    recipe = getattr(scorer_of(config, family, None).settings, "recipe", None)
    if recipe is not None:
        known["scored_s"] = _step_s(config, family, genotype, recipe, splits, workload)
    if asked.trains:
        known["trained_s"] = _step_s(config, family, genotype, config.train.recipe, splits, workload)
        known |= _handed_over(family.module(genotype), splits, workload)
    known["run_s"] = _run_s(family.module(genotype), splits)
    if asked.times:
        known["latency_s"], known["turns_s"] = _measuring_s(config, family, genotype)
    return Trial(**known)


def _family(config: "StudyConfig") -> "Family":
    from nas_core.study.brought import family_of

    family = family_of(config)
    family.space.space_id  # of a trained model, its positions are found for it  # noqa: B018
    return family


def _read(family: "Family", workload: "Workload", genotype: "Genotype") -> "tuple[Splits, float, float]":
    """Some examples, the seconds before the first of them and those of each."""
    space = family.space
    shape = workload.sample.shape_at(space.resolution_of(genotype), space.in_channels or workload.sample.shape[0])
    first, first_s = _timed(lambda: workload.few(FEWEST_EXAMPLES, shape))
    splits, splits_s = _timed(lambda: workload.few(MOST_EXAMPLES, shape))
    more = sum(len(pair[1]) for pair in (splits.train, splits.validation)) - sum(
        len(pair[1]) for pair in (first.train, first.validation)
    )
    read_s = max(0.0, splits_s - first_s) / more if more else 0.0
    return splits, max(0.0, splits_s - read_s * more), read_s


def _step_s(
    config: "StudyConfig",
    family: "Family",
    genotype: "Genotype",
    recipe: "Recipe",
    splits: "Splits",
    workload: "Workload",
) -> float:
    """Seconds of a training example: of the median step, the first left out where there are others."""
    from nas_core.study.brought import described
    from nas_core.training.loop import train
    from nas_core.training.network import teacher_of

    times = [time.perf_counter()]

    def on_step(done: int, total: int) -> None:
        times.append(time.perf_counter())
        if times[-1] - times[0] > ENOUGH_S:
            raise Enough

    count = min(recipe.batch_size, len(splits.train[1]))
    few = replace(splits, train=(splits.train[0][:count], splits.train[1][:count]))
    with suppress(Enough):
        train(
            family.module(genotype),
            recipe.model_copy(update={"epochs": MOST_STEPS, "stop_after_epochs": None}),
            few,
            workload,
            seed=config.seed,
            on_step=on_step,
            own_teacher=teacher_of(described(family, genotype)),
        )
    steps = [after - before for before, after in itertools.pairwise(times)]
    return statistics.median(steps[1:] or steps) / count


def _run_s(network: "nn.Module", splits: "Splits") -> float:
    from nas_core.training.loop import outputs_of

    inputs = splits.validation[0][:RUN_EXAMPLES]
    times = [_timed(lambda: outputs_of(network, inputs, splits.prepare))[1] for _ in range(2)]
    return times[-1] / len(inputs)


def _handed_over(network: "nn.Module", splits: "Splits", workload: "Workload") -> dict[str, Any]:
    from nas_core.training.export import deployed_for

    module = deployed_for(workload, network, splits, tuple(splits.train[0].shape[1:]))
    program, export_s = _timed(lambda: _program(module))
    weight_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
    return {"export_s": export_s, "program_bytes": len(program), "weight_bytes": weight_bytes}


def _program(module: "Deployed") -> bytes:
    from nas_core.training.export import exported_bytes

    try:
        return exported_bytes(module)
    except NasError:  # there will be none, which no training is lost for
        return b""


def _measuring_s(config: "StudyConfig", family: "Family", genotype: "Genotype") -> tuple[float, float]:
    """Seconds of one more network, and those that pass however few there are."""
    import numpy as np

    from nas_core.costs.timing import time_family

    settings, rng = config.profile.profilers["latency"], np.random.default_rng(0)
    drawn = [replace(family.space.sample(rng), resolution=genotype.resolution) for _ in range(MORE_TIMED)]
    others = [each for each in dict.fromkeys(drawn) if each != genotype]

    def seconds(genotypes: "list[Genotype]") -> float:
        return _timed(lambda: time_family(family, genotype, genotypes, settings, blocks=False))[1]

    seconds([genotype])  # exporters are imported once
    one_s, all_s = seconds([genotype]), seconds([genotype, *others])
    each_s = max(0.0, all_s - one_s) / len(others) if others else one_s
    return each_s, max(0.0, one_s - each_s)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


class Memory:
    """The largest memory of this process's own meanwhile, and what it shares with others."""

    def __enter__(self) -> "Memory":
        self.own_bytes = self.shared_bytes = 0
        self.over, self.thread = threading.Event(), threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        process = psutil.Process()
        while not self.over.wait(SAMPLED_S):
            own, shared = _own_and_shared(process)
            self.own_bytes = max(self.own_bytes, own)
            self.shared_bytes = max(self.shared_bytes, shared)

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def _own_and_shared(process: psutil.Process) -> tuple[int, int]:
    known = process.memory_info()
    shared = getattr(known, "shared", 0)
    return known.rss - shared, shared


if __name__ == "__main__":
    main()
