"""A trained model made faster: ours beside what others do, at equal measured latency and equal recovery.

    python -m tests.benchmarks.bring_your_own [--quick | --short] [--limits 60,40] [--seeds 3] [--json]

A teacher is trained on Fashion-MNIST (``--data cifar10``: CIFAR-10) until it
converges, once (``--teachers DIR`` keeps it). Each contestant has the limit's
latency on this machine (one thread, eager, 32 images, in turns with the teacher, unless ``--timed-on``,
``--runtime`` and ``--batch`` say otherwise; ``--resource flops``: so many multiply-adds), and the
same recovery (on a GPU where there is one, else on all cores) by distillation from the teacher, its outputs and
those of the blocks that stand in the same places; those that need no blocks distilled train longer by as
many epochs as distilling ours cost, counted in FLOPs of the teacher's training (``epochs`` says how long
each trained). What the search evaluated, its finalists included, is not counted. Accuracies are
of the test split, in percent, mean and spread over ``--seeds``. A contestant that
cannot be brought within ``OVER`` of the limit has none, and ``missing`` says how near it came.

``uniform`` narrows the inside of every block alike, ``depth`` leaves out every
second block of each stage and narrows those alike where that is not enough, ``random`` are
networks of our library within the limit, one for each seed,
``torch_pruning`` is Torch-Pruning's magnitude pruner (where it is installed).
``tau`` is Kendall's of predicted and evaluated quality of ``--judges``
assembled networks without recovery, told from a balanced design of ``--bare`` times as many networks as
blocks, each of which is rated in a moment (``design``: how many, and how long they took), and ``tau_flops`` that of
counting FLOPs; ``recovered`` has both where networks recover before they are rated, told from the design of the search.
``untrained`` is the answer at ``--untrained`` percent of weights that were only cut and fitted: all
that it takes from nothing on. With ``--quick`` networks are rated without recovery, told from that design,
and there is no answer without training.
"""

import argparse
import copy
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.stats import kendalltau
from sklearn.metrics import r2_score
from torch import nn

from flows.shrink_command import RATED_SHARE
from nas_core.base.errors import NasError, SpaceError
from nas_core.base.machine import usable_cpus
from nas_core.costs import profile, runtimes
from nas_core.costs.counting import count_module
from nas_core.costs.latency import LatencyProfiler
from nas_core.costs.measure_files import undisturbed
from nas_core.costs.timing import handed_over, in_turns, torch_device
from nas_core.families.model.pruning import narrowed, nearest, pruned, recalibrated
from nas_core.families.trained_model import TrainedModel
from nas_core.scoring.distil import DistilScorer
from nas_core.searchers.settings import DesignConfig
from nas_core.space.genotypes import Genotype
from nas_core.study.config import StudyConfig, parse_config
from nas_core.study.contestants import for_others
from nas_core.study.rounds import (
    finalists,
    leave_room,
    move_limits,
    next_round,
    record_finals,
    record_round,
    record_whole,
    to_rate_again,
    verification,
)
from nas_core.study.study import Study
from nas_core.training.loop import measure_all, train
from nas_core.training.settings import TRAINING_PASSES, Recipe, TeacherConfig
from nas_core.training.teacher import OwnModel
from nas_core.workloads import WORKLOADS, build_workload
from nas_core.workloads.images.image_classification import ImageClassification
from nas_core.workloads.workload import Sample, Splits, Workload
from tests.benchmarks import teachers
from tests.benchmarks.conditions import conditions

WHERE = teachers.__name__  # importable, so that networks travel to other processes
REPEATS = 100  # runs of each whole network while it is compared with the teacher
REPEATS_ON_THE_WAY = 25  # while a width is sought
TEACHERS = ("resnet", "mobilenet", "convnext", "vit", "resnet20", "resnet56", "wide")
CONTESTANTS = ("ours", "random", "uniform", "depth", "torch_pruning", "teacher")
VALIDATED = 5000  # examples of validation
OVER = 1.05  # times the limit that a contestant may take
LATENCY = "latency_ms"
FEATURES = 1.0  # weight of what blocks give in the recovery
RECOVERY: dict[str, Any] = {
    "batch_size": 64,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.0,
    "augment": "crop-flip",
}


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much of everything; ``--short`` takes less, ``--quick`` least."""

    teacher_epochs: float
    examples: int
    distil_epochs: float
    recovery_epochs: float
    limits: Sequence[int]
    seeds: int
    judges: int
    bare: int  # networks of the design where none recovers before it is rated, for each block of the library
    evaluations: int  # of verification, more where a limit moves
    recovers: bool  # networks recover before they are rated
    untrained: int


FULL = Effort(
    teacher_epochs=12,
    examples=55_000,
    distil_epochs=0.1,
    recovery_epochs=3,
    limits=(60, 40),
    seeds=3,
    judges=50,
    bare=4,
    evaluations=32,
    recovers=True,
    untrained=80,
)
SHORT = replace(
    FULL,
    teacher_epochs=6,
    examples=10_000,
    distil_epochs=0.25,
    recovery_epochs=2,
    limits=(60,),
    seeds=1,
    judges=20,
)
QUICK = replace(SHORT, teacher_epochs=4, recovery_epochs=1.5, recovers=False, untrained=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--quick", action="store_true", help="least of everything: about twelve minutes")
    much.add_argument("--short", action="store_true", help="less of everything: about 25 minutes")
    parser.add_argument(
        "--limits", type=percents, help="percent of the teacher's latency, separated by commas; default 60,40, less: 60"
    )
    parser.add_argument("--seeds", type=at_least_one, help="seeds of the recoveries; default 3, less: 1")
    parser.add_argument("--data", default="fashion-mnist", choices=["fashion-mnist", "cifar10"])
    parser.add_argument("--path", default=None, help="where the images are, if not at their usual place")
    parser.add_argument("--teacher", default="resnet", choices=TEACHERS, help="function of teachers.py that makes it")
    parser.add_argument("--teachers", type=folder_of_ours, default=None, help="folder that keeps trained teachers")
    parser.add_argument(
        "--teacher-epochs", type=epochs, help="of its training; default: 12, short 6, quick 4, or as in teachers.py"
    )
    parser.add_argument("--recovery-epochs", type=epochs, help="of each contestant; default: 3, short 2, quick 1.5")
    parser.add_argument("--distil-epochs", type=epochs, help="of the library; default: 0.1, less: 0.25")
    parser.add_argument(
        "--bare", type=at_least_one, help="networks of the design without recovery, a block; default: 4"
    )
    parser.add_argument("--resource", default=LATENCY, choices=[LATENCY, "flops"], help="what is limited")
    parser.add_argument("--workers", type=at_least_one, default=1, help="recoveries at a time, each in a process")
    parser.add_argument("--batch", type=at_least_one, default=32, help="images at a time while latency is measured")
    parser.add_argument("--timed-on", default="cpu", choices=["cpu", "cuda"], help="device whose latency is limited")
    parser.add_argument(
        "--runtime", default="eager", choices=["eager", "compile", "cuda-graph"], help="of what is timed"
    )
    parser.add_argument(
        "--recovery-steps",
        type=steps,
        help="of every network before it is rated; default: a fifth of the finalists', quick 0",
    )
    parser.add_argument(
        "--final-steps", type=steps, help="of the finalists; default: the recovery's, 1000 at most; 0: none"
    )
    parser.add_argument("--only", type=contestants, help="contestants, separated by commas; default: all")
    parser.add_argument(
        "--judges", type=judges, help="assembled networks that predictions are held against; default 50, less: 20"
    )
    parser.add_argument(
        "--untrained", type=percent_or_none, help="limit of the answer without any training; 0: none, as in quick"
    )
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    given = parser.parse_args()
    effort = QUICK if given.quick else SHORT if given.short else FULL
    named = ("recovery_epochs", "distil_epochs", "limits", "seeds", "judges", "bare", "untrained")
    asked = {name: value for name in named if (value := getattr(given, name)) is not None}
    effort = replace(effort, **asked)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(given, effort, Path(folder))
        told = vars(given) | asdict(effort) | {"teacher_epochs": run.teacher_recipe.epochs}
        try:
            torch_device(LatencyProfiler.Settings(runtime=given.runtime, device=given.timed_on))
            run.workload(None).check()
        except NasError as error:
            parser.error(str(error))
        found = run.found()
    print(json.dumps({**found, "conditions": conditions(**told, threads=1)}, default=str))


def percents(text: str) -> list[int]:
    """``60,40``; raises ArgumentTypeError for what is no percent."""
    found = text.split(",")
    if not all(each.isdecimal() and 0 < int(each) < 100 for each in found):
        raise argparse.ArgumentTypeError(f"{text!r}, expected whole numbers from 1 to 99 and commas")
    return [int(each) for each in found]


def whole(text: str, least: int, most: int) -> int:
    """``32``; raises ArgumentTypeError for what is no whole number in this range."""
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number from {least} to {most}")
    return int(text)


at_least_one = partial(whole, least=1, most=65_536)
steps = partial(whole, least=0, most=1_000_000)
judges = partial(whole, least=2, most=10_000)  # one cannot be in order
percent_or_none = partial(whole, least=0, most=99)


def contestants(text: str) -> list[str]:
    """``ours,depth``; raises ArgumentTypeError for a name that is none."""
    found = text.split(",")
    if unknown := [name for name in found if name not in CONTESTANTS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}, expected some of {', '.join(CONTESTANTS)}")
    return found


def folder_of_ours(text: str) -> Path:
    """The folder, made where it is not there; raises ArgumentTypeError where it cannot be."""
    try:
        Path(text).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error.strerror}, expected a folder to write in") from None
    return Path(text)


def epochs(text: str) -> float:
    """``12``; raises ArgumentTypeError for what is no number above 0."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number of epochs above 0")
    return found


@dataclass(frozen=True, kw_only=True)
class Stopwatch:
    """Latency of networks relative to the teacher's, in turns with it, as ``timed`` says."""

    teacher: nn.Module
    example: torch.Tensor
    timed: Any

    def share(self, network: nn.Module) -> float:
        runs = [self._run(copy.deepcopy(each).eval()) for each in (self.teacher, network)]
        own, other = (self._taken(timing) for timing in in_turns(runs, self.timed, torch_device(self.timed)))
        return other / own

    @property
    def on_the_way(self) -> "Stopwatch":
        """For what is not the answer yet."""
        return replace(self, timed=self.timed.model_copy(update={"repeats": REPEATS_ON_THE_WAY}))

    def _run(self, network: nn.Module) -> runtimes.Run | Exception:
        place, whole = torch_device(self.timed), handed_over(network, self.example.shape[1:], "float32")
        return runtimes.settled(runtimes.run_of(whole.to(place), [self.example.to(place)], self.timed))

    def _taken(self, timing: np.ndarray | Exception) -> float:
        if isinstance(timing, Exception):
            raise timing
        return undisturbed(timing)


@dataclass(frozen=True, kw_only=True)
class FlopCount:
    """Multiply-adds of networks relative to the teacher's."""

    teacher: nn.Module
    sample: Sample

    def share(self, network: nn.Module) -> float:
        return self._count(network) / self._count(self.teacher)

    @property
    def on_the_way(self) -> "FlopCount":
        return self

    def _count(self, network: nn.Module) -> int:
        return count_module(lambda: copy.deepcopy(network), self.sample.shape, dtype=self.sample.dtype).flops


class OverLimitError(Exception):
    """No network of a contestant reaches the goal; says how near the nearest comes."""


Measure = Stopwatch | FlopCount


@dataclass(frozen=True, kw_only=True)
class Brought:
    """A contestant's networks within the limit, and their mean share of what is limited."""

    networks: Sequence[nn.Module]
    share: float


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Who stands at one limit, who cannot and why, and how latency was told."""

    brought: Mapping[str, Brought]
    missing: dict[str, Any]
    errors: dict[str, Any]


class Run:
    """One teacher, one library, several limits."""

    def __init__(self, given: argparse.Namespace, effort: Effort, folder: Path) -> None:
        self.given, self.effort, self.folder = given, effort, folder
        self.began = time.perf_counter()
        self.design: dict[str, Any] = {"kind": "one-swap"}

    def say(self, *words: object) -> None:
        if not self.given.json:
            print(f"{time.perf_counter() - self.began:5.0f} s:", *words, flush=True)

    # teacher and library

    def config(self, limit: int = 60, **scorer: Any) -> StudyConfig:
        effort = self.effort
        return parse_config(
            {
                "space": {"kind": "model", "model": f"{WHERE}:{self.given.teacher}", "checkpoint": str(self.weights)},
                "data": self.data(self.examples),
                "scorer": {
                    "kind": "distil",
                    "recovery_steps": self.recovery_steps,
                    "final_steps": self.final_steps,
                    "recipe": {**RECOVERY, "epochs": effort.distil_epochs, "clip_norm": None},
                    **scorer,
                },
                "design": self.design,
                "profile": {"resources": self.resources, **({"repeats": 20, **self.timed} if self.is_timed else {})},
                "select": {"limits": [f"{self.given.resource}<={limit}%"]},
                "verify": {"evaluations": effort.evaluations, "patience": 5},
            },
            "bring_your_own",
        )

    @property
    def is_timed(self) -> bool:
        return bool(self.given.resource == LATENCY)

    @property
    def limited(self) -> str:
        """What a share of what is limited is called."""
        return "latency" if self.is_timed else str(self.given.resource)

    @property
    def resources(self) -> list[str]:
        return ["flops", "params", *([LATENCY] if self.is_timed else [])]

    @cached_property
    def examples(self) -> int:
        """To train on: CIFAR-10 has fewer than Fashion-MNIST."""
        workload = cast(ImageClassification, self.workload(None))
        return min(self.effort.examples, workload.num_images() - VALIDATED)

    def data(self, examples: int | None) -> dict[str, Any]:
        path = {"path": self.given.path} if self.given.path else {}
        return {"kind": self.given.data, "train_examples": examples, "validation_examples": VALIDATED, **path}

    @property
    def weights(self) -> Path:
        kept = self.given.teachers or self.folder
        return kept / f"{self.given.data}-{self.given.teacher}-{self.teacher_recipe.epochs:g}.safetensors"

    @property
    def teacher_recipe(self) -> Recipe:
        plain: dict[str, Any] = {"epochs": self.effort.teacher_epochs, "weight_decay": 5e-4, "augment": "crop-flip"}
        given = {"epochs": self.given.teacher_epochs} if self.given.teacher_epochs else {}
        return Recipe(**plain | teachers.RECIPES.get(self.given.teacher, {}) | given)

    def workload(self, examples: int | None) -> Workload:
        return workload_of(self.data(examples))

    def train_teacher(self) -> None:
        from nas_core.families.model.rebuild import factory_of

        if self.weights.is_file():
            return
        workload = self.workload(None)
        splits = workload.load()
        torch.manual_seed(0)
        shape, outputs = workload.sample.shape, workload.sample.num_outputs
        network = factory_of(f"{WHERE}:{self.given.teacher}")(shape[0], outputs)
        with all_cores():
            train(network, self.teacher_recipe, splits, workload, seed=0)
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, self.weights)

    def found(self) -> dict[str, Any]:
        self.train_teacher()
        self.say("the model is trained")
        study = Study.create(self.config(), str(self.folder / "study"))
        balanced = {"kind": "balanced", "networks": self.effort.bare * sum(study.space.num_choices)}
        if not self.recovery_steps:  # networks are rated in a moment each
            self.design = balanced
            study = Study.create(self.config(), study.store.root)
        scorer = cast(DistilScorer, study.scorer)
        began = time.process_time()
        scorer.prepare(lambda *_: None)
        distil_cpu_s = time.process_time() - began
        per_example_s = self.seconds_per_example(cast(TrainedModel, study.family))  # now: the machine's pace changes
        self.splits = loaded(**self.data(self.examples))
        measure_latency(study)
        evaluated(study, study.design.genotypes)
        self.say(f"library of {sum(study.space.num_choices)} blocks: distilled in {distil_cpu_s:.0f} CPU s")
        self.teacher = cast(TrainedModel, study.family).teacher
        self.places = study.family.teacher_places
        answers: dict[str, Any] = {"distil": self.distil_cost(study, distil_cpu_s, per_example_s)}
        self.extra = answers["distil"]["flops_ratio"] * self.effort.distil_epochs
        answers |= self.agreements(study, balanced)
        if limit := self.effort.untrained:
            answers["untrained"] = self.untrained(limit)
            self.say(f"{limit} % without training: {answers['untrained']}")
        contests = {limit: self.contest(limit, study) for limit in self.effort.limits}
        answers["latency"] = {str(limit): contest.errors for limit, contest in contests.items()}
        answers["limits"] = {str(limit): contest.missing for limit, contest in contests.items()}
        for limit, name, row in self.rows(contests):
            answers["limits"][str(limit)][name] = row
            self.say(f"{limit} %: {name} {row}")
        return answers

    def untrained(self, limit: int) -> dict[str, Any]:
        """The answer of weights that were only cut and fitted: what it takes from nothing on, and its accuracy."""
        began, began_cpu = time.perf_counter(), time.process_time()
        config = self.config(limit, train=False, recovery_steps=0, final_steps=0)
        study = Study.create(config, str(self.folder / "untrained"))
        study.scorer.prepare(lambda *_: None)
        measure_latency(study)
        network = assembled(study, Genotype.parse(searched(study)))
        took = {"wall_s": round(time.perf_counter() - began), "cpu_s": round(time.process_time() - began_cpu)}
        share = self.measure.share(network)
        return {
            **took,
            "accuracy": round(100 * self.tested(network), 2),
            "teacher": round(100 * self.tested(self.teacher), 2),
            self.limited: round(100 * share, 1),
        }

    def distil_cost(self, study: Study, cpu_s: float, per_example_s: float) -> dict[str, float]:
        """Relative to the teacher's training on as many examples: FLOPs, and CPU seconds."""
        examples = self.examples * self.effort.distil_epochs
        base = Genotype((0,) * study.space.num_positions)
        own = study.flops.total(base)
        ratio = study.scorer.head_start(study.flops) / (examples * TRAINING_PASSES * own)
        return {
            "flops_ratio": round(ratio, 3),
            "cpu_s": round(cpu_s, 1),
            "cpu_ratio": round(cpu_s / examples / per_example_s, 3),
        }

    def seconds_per_example(self, family: TrainedModel) -> float:
        """CPU seconds of the teacher's own training per example, on a part of an epoch."""
        workload = self.workload(2560)
        network = copy.deepcopy(family.teacher).requires_grad_(True)
        began = time.process_time()
        recipe = Recipe(epochs=1, batch_size=64, augment="crop-flip")
        train(network, recipe, workload.load(), workload, seed=0)
        return (time.process_time() - began) / 2560

    def agreements(self, study: Study, balanced: Mapping[str, Any]) -> dict[str, Any]:
        """Agreement before recovery, by the same weights and the balanced design, and after it."""
        if not self.recovery_steps:
            return {**self.agreement(study), "design": {"networks": len(study.design.genotypes)}}
        design = DesignConfig.model_validate(balanced)
        config = self.config(recovery_steps=0).model_copy(update={"design": design})
        bare = Study.create(config, str(self.folder / "bare"))
        scorer, weights = cast(DistilScorer, bare.scorer), cast(DistilScorer, study.scorer)
        for position in range(study.space.num_positions):
            bare.store.write_bytes(
                scorer.weights_path(position), study.store.read_bytes(weights.weights_path(position))
            )
        measure_latency(bare)
        began = time.perf_counter()
        evaluated(bare, bare.design.genotypes)
        took = {"networks": len(bare.design.genotypes), "wall_s": round(time.perf_counter() - began)}
        return {**self.agreement(bare), "design": took, "recovered": self.agreement(study)}

    def agreement(self, study: Study) -> dict[str, Any]:
        """Kendall's tau of predicted and evaluated quality, and of counting FLOPs."""
        rng = np.random.default_rng(1)
        tried = set(map(str, study.design.genotypes))
        judges = [
            g for g in dict.fromkeys(study.space.sample(rng) for _ in range(self.effort.judges)) if str(g) not in tried
        ]
        predicted = [prediction.metric for prediction in study.predict(judges)]
        with all_cores():
            rows = {row.genotype: row.metric for row in study.scorer.evaluate(judges)}
        truth = [rows[str(genotype)] for genotype in judges]
        flops = [-study.flops.total(genotype) for genotype in judges]  # the loss falls as they grow
        taus = [float(kendalltau(each, truth).statistic) for each in (predicted, flops)]
        return {"tau": round(taus[0], 3), "tau_flops": round(taus[1], 3), "judges": len(judges)}

    # contestants at one limit

    def contest(self, limit: int, library: Study) -> Contest:
        """What stands against each other at one limit, before any recovery: nothing is timed beside one."""
        study = Study.create(self.config(limit), library.store.root)
        winner = Genotype.parse(searched(study))
        self.say(
            f"{limit} %: {winner}, predicted {study.predict([winner])[0].metric:.4f}",
            verification(study.outputs)["reason"],
        )
        whole = self.measure
        goal = limit / 100
        networks: dict[str, Callable[[], list[nn.Module]]] = {
            "ours": lambda: [assembled(study, winner)],
            "random": lambda: [assembled(study, self.random(study, seed)) for seed in range(self.effort.seeds)],
            "uniform": lambda: [self.uniform(study, whole, goal)],
            "depth": lambda: [self.depth(study, whole, goal)],
            "torch_pruning": lambda: [self.torch_pruning(whole, goal)],
            "teacher": lambda: [copy.deepcopy(self.teacher)],
        }
        brought, missing = dict[str, Brought](), dict[str, Any]()
        for name in self.given.only or CONTESTANTS:
            try:
                brought[name] = self.brought(networks[name](), whole, 1.0 if name == "teacher" else goal)
            except (ImportError, SpaceError, OverLimitError) as error:
                missing[name] = {"missing": str(error)}
                self.say(f"{limit} %: {name} {missing[name]}")
        resource = self.given.resource
        predicted = study.costs_of(winner)[resource] / study.costs_of(study.base)[resource]
        errors = self.latency_errors(study, whole, winner, predicted) if self.is_timed else {}
        return Contest(brought=brought, missing=missing, errors=errors)

    def rows(self, contests: Mapping[int, Contest]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Limit, contestant, and its row, one recovery after another, or as many at a time as there are workers."""
        places = [(limit, name, each) for limit, of in contests.items() for name, each in of.brought.items()]
        seeds = range(self.effort.seeds)
        accuracies = self.recovered(
            (each.networks[seed % len(each.networks)], seed, self.extra_epochs(name))
            for _, name, each in places
            for seed in seeds
        )
        for limit, name, each in places:
            yield limit, name, self.row(each, [next(accuracies) for _ in seeds], self.extra_epochs(name))

    def brought(self, networks: Sequence[nn.Module], whole: Measure, goal: float) -> Brought:
        """Those of a contestant's networks that reach the goal; raises OverLimitError if none does."""
        shares = [whole.share(network) for network in networks]
        fitting = [index for index, share in enumerate(shares) if share <= OVER * goal]
        if not fitting:
            raise OverLimitError(f"over the limit: {100 * min(shares):.1f} % of it")
        share = float(np.mean([shares[index] for index in fitting]))
        return Brought(networks=[networks[index] for index in fitting], share=share)

    def row(self, brought: Brought, accuracies: Sequence[float], extra: float) -> dict[str, Any]:
        """Accuracies after recovery by several seeds, and what they were before."""
        return {
            "accuracies": [round(accuracy, 2) for accuracy in accuracies],
            "accuracy": round(float(np.mean(accuracies)), 2),
            "spread": round(float(np.std(accuracies)), 2),
            "before": round(100 * float(np.mean([self.tested(each) for each in brought.networks])), 2),
            self.limited: round(100 * brought.share, 1),
            "epochs": round(self.effort.recovery_epochs + extra, 1),
        }

    @property
    def final_steps(self) -> int:
        """Of a finalist's recovery before one is chosen."""
        if self.given.final_steps is not None:
            return int(self.given.final_steps)
        return min(1000, round(self.effort.recovery_epochs * self.examples / RECOVERY["batch_size"]))

    @property
    def recovery_steps(self) -> int:
        """Of every network before it is rated; by default as `mathnas shrink` has it."""
        if self.given.recovery_steps is not None:
            return int(self.given.recovery_steps)
        return self.final_steps // RATED_SHARE if self.effort.recovers else 0

    def extra_epochs(self, name: str) -> float:
        """Epochs that a contestant trains longer: what ours spent on the library."""
        return 0.0 if name in ("ours", "random") else self.extra

    def latency_errors(self, study: Study, whole: Measure, winner: Genotype, predicted: float) -> dict[str, Any]:
        """Predicted against measured latency, relative to the teacher's, of random networks and of selected ones."""
        rng = np.random.default_rng(2)
        base = study.costs_of(study.base)[LATENCY]
        drawn = list({study.space.sample(rng) for _ in range(20)})
        selected = [
            Genotype.parse(choice.genotype) for choice in study.select(study.config.select.limits, top=10).selections
        ]
        shares = {str(g): whole.share(assembled(study, g)) for g in dict.fromkeys((*drawn, *selected))}
        guess = {text: study.costs_of(Genotype.parse(text))[LATENCY] / base for text in shares}
        errors = {text: abs(guess[text] / shares[text] - 1) for text in shares}
        mine = [str(g) for g in drawn]
        return {
            "r2": round(float(r2_score([shares[t] for t in mine], [guess[t] for t in mine])), 3),
            "worst": round(max(errors[t] for t in mine), 3),
            "worst_selected": round(max(errors[str(g)] for g in selected), 3),
            "winner": {
                "genotype": str(winner),
                "predicted": round(predicted, 3),
                "measured": round(shares.get(str(winner), whole.share(assembled(study, winner))), 3),
            },
        }

    def random(self, study: Study, seed: int) -> Genotype:
        """A network of the library that uses the limit: the most expensive of some random ones within it."""
        rng, budgets = np.random.default_rng(seed), for_others(study.snapshot).limits
        drawn = (study.space.sample(rng) for _ in range(20_000))
        fitting = [genotype for genotype in drawn if study.within(genotype, budgets)][:20]
        return max(fitting, key=lambda genotype: study.costs_of(genotype)[self.given.resource])

    def uniform(self, study: Study, whole: Measure, goal: float) -> nn.Module:
        return self.narrower(self.teacher, study.family.teacher_places, whole, goal)

    def depth(self, study: Study, whole: Measure, goal: float) -> nn.Module:
        half = halved(study)
        network = assembled(study, half)
        if whole.share(network) <= goal:
            return network
        places = study.family.structure.split.places
        kept = dict.fromkeys(place.block for place, choice in zip(places, half.choices, strict=True) if not choice)
        return self.narrower(network, list(kept), whole, goal)

    def narrower(self, model: nn.Module, paths: Sequence[str], whole: Measure, goal: float) -> nn.Module:
        """The model with the same share of the inside of these blocks, so that it is as fast as the goal."""
        samples = self.splits.prepare(self.splits.train[0][:256])

        def build(share: float, fitted: bool = False) -> nn.Module:
            return narrowed(model, paths, share, samples, fitted=fitted).network

        share = nearest(build, lambda network: whole.on_the_way.share(network) / goal)
        return recalibrated(build(share, fitted=True), self.batches)

    def torch_pruning(self, whole: Measure, goal: float) -> nn.Module:
        def build(share: float) -> nn.Module:
            return pruned(self.teacher, share, self.example).network

        share = nearest(build, lambda network: whole.on_the_way.share(network) / goal)
        return recalibrated(build(share), self.batches)

    @property
    def batches(self) -> list[torch.Tensor]:
        """Training images that normalisation statistics are of."""
        return [self.splits.prepare(self.splits.train[0][128 * index : 128 * (index + 1)]) for index in range(4)]

    @property
    def measure(self) -> Measure:
        if not self.is_timed:
            return FlopCount(teacher=self.teacher, sample=self.workload(None).sample)
        timed = LatencyProfiler.Settings(**self.timed, warmup=5, repeats=REPEATS)
        return Stopwatch(teacher=self.teacher, example=self.example, timed=timed)

    @property
    def timed(self) -> dict[str, Any]:
        """What is timed how: settings of the latency profiler."""
        return {"batch_size": self.given.batch, "runtime": self.given.runtime, "device": self.given.timed_on}

    @property
    def example(self) -> torch.Tensor:
        return cast(torch.Tensor, self.splits.prepare(self.splits.train[0][: self.given.batch]))

    # recovery

    def recovered(self, jobs: Iterable[tuple[nn.Module, int, float]]) -> Iterator[float]:
        """Test accuracies in percent, by network, seed and epochs more than others; ``--workers`` of them at a time."""
        teacher = copy.deepcopy(self.teacher)
        recovery = Recovery(data=self.data(self.examples), teacher=teacher, places=tuple(self.places))
        epochs = self.effort.recovery_epochs
        if self.given.workers == 1:
            for network, seed, more in jobs:
                with all_cores():
                    accuracy = recovery.accuracy(copy.deepcopy(network), seed, epochs + more)
                yield accuracy
            return
        with ProcessPoolExecutor(self.given.workers, get_context("spawn")) as pool:
            begun = [pool.submit(recovery.accuracy, each, seed, epochs + more) for each, seed, more in jobs]
            self.say(f"{len(begun)} recoveries, {self.given.workers} at a time")
            yield from (each.result() for each in begun)

    def tested(self, network: nn.Module) -> float:
        return tested(network, self.data(self.examples))


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """What all networks' recoveries have in common; another process can do one."""

    data: dict[str, Any]
    teacher: nn.Module  # one and the same for all; the one that is timed stays where it is
    places: Sequence[str]

    def accuracy(self, network: nn.Module, seed: int, epochs: float) -> float:
        """Of the test split, in percent."""
        recipe = Recipe(
            **{**RECOVERY, "epochs": epochs},
            teacher=TeacherConfig(model="own", weight=0.9, temperature=2.0, features=FEATURES),
        )
        own = OwnModel(network=lambda: self.teacher, places=self.places)
        network = network.requires_grad_(True)
        train(network, recipe, loaded(**self.data), workload_of(self.data), seed=seed, own_teacher=own)
        return 100 * tested(network, self.data)


def workload_of(data: dict[str, Any]) -> Workload:
    return build_workload(WORKLOADS.section(data["kind"]).model_validate(data))


@cache
def loaded(**data: Any) -> Splits:
    """Read once by each process."""
    return workload_of(data).load()


@cache
def loaded_test(**data: Any) -> Any:
    return loaded(**data).load_test()


def tested(network: nn.Module, data: dict[str, Any]) -> float:
    """Accuracy on the test split."""
    splits, metrics = loaded(**data), workload_of(data).metrics
    return measure_all(network.eval(), metrics, loaded_test(**data), splits.prepare)["accuracy"]


def measure_latency(study: Study) -> None:
    """What blocks take here, where latency is limited."""
    rows = profile(study.family, [], study.config.profile, list(study.profiler_ids))
    study.store.add_costs(rows)
    study.refresh()


@contextmanager
def all_cores() -> Iterator[None]:
    """Where nothing is timed."""
    before = torch.get_num_threads()
    torch.set_num_threads(usable_cpus())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def evaluated(study: Study, genotypes: Sequence[Genotype]) -> None:
    missing = [Genotype.parse(text) for text in study.missing(genotypes)]
    if missing:
        with all_cores():
            study.store.add_evaluations(study.scorer.evaluate(missing))
        study.refresh()


def searched(study: Study) -> str:
    """The winner of the verification, in this process; chosen again where a limit had to move."""
    evaluated(study, study.design.genotypes)
    if leave_room(study.snapshot, study.outputs):
        study.refresh()
    index, has_moved = 0, True
    while has_moved:
        while proposed := next_round(study.snapshot, study.outputs, index):
            evaluated(study, [Genotype.parse(text) for text in proposed])
            record_round(study.snapshot, study.outputs, index)
            index += 1
        whole = list(dict.fromkeys((*finalists(study.snapshot), study.base)))
        timed = [name for name in study.config.profile.resources if name == LATENCY]
        rows = profile(study.family, whole, study.config.profile, timed, blocks=False) if timed else []
        record_whole(study.outputs, [asdict(row) for row in rows])
        has_moved = move_limits(study.snapshot, study.outputs)
        study.refresh()
    rate_finalists(study)
    return str(verification(study.outputs)["winner"])


def rate_finalists(study: Study) -> None:
    """Those that were found, rated once more by a longer recovery: the best of them is the winner."""
    wanted, final = to_rate_again(study.snapshot, study.outputs), study.scorer.final
    if final is None or not wanted:
        return
    known = {row.genotype for row in study.final_evaluations()}
    with all_cores():
        study.store.add_evaluations(final.evaluate([each for each in wanted if str(each) not in known]))
    rows = {row.genotype: row for row in study.final_evaluations()}
    record_finals(study.snapshot, study.outputs, [rows[str(each)] for each in wanted])


def assembled(study: Study, genotype: Genotype) -> nn.Module:
    network = study.family.module(genotype)
    network.load_state_dict(study.scorer.start(genotype) or {})
    return network.eval()


def halved(study: Study) -> Genotype:
    """Of a stage's blocks of one class every second left out, where it can be: halved depth at full width."""
    family = cast(TrainedModel, study.family)
    numbers, stages = dict[str, int](), Counter[tuple[str, str]]()
    for path in family.teacher_places:
        stage = (path.rpartition(".")[0], type(family.teacher.get_submodule(path)).__name__)
        numbers[path] = stages[stage]
        stages[stage] += 1
    choices = []
    for position, place in zip(study.space.positions, family.structure.split.places, strict=True):
        skip = next((index for index, block in enumerate(position.blocks) if block.kind == "skip"), 0)
        choices.append(skip if numbers[place.block] % 2 else 0)
    return Genotype(tuple(choices))


if __name__ == "__main__":
    main()
