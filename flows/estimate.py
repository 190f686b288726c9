"""What a run will take: seconds, disk and memory, by a short trial on this machine (``flows.trial``).

Only the trial is measured; what follows is arithmetic, within a factor of two
where the run is as its settings say. Starting and ending processes, logging and
reporting is stated in starts of a worker: a machine that is slow at one is slow at the others.
"""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields

from flows.trial import Asked, Trial
from nas_core.base.errors import NasError
from nas_core.scoring import Work
from nas_core.space.genotypes import Genotype
from nas_core.study.brought import workload_of
from nas_core.study.config import StudyConfig
from nas_core.study.stages import Stage
from nas_core.study.study import Study
from nas_core.workloads.workload import Footprint

MOST_AT_ONCE = 4  # trials side by side
TRIAL_S = 300.0
THREADS_GAIN = 0.75  # n threads train n ** THREADS_GAIN times as fast
TOGETHER_GAIN = 0.85  # of each of the processes that train one network
# in starts of a worker
AROUND_STARTS = 10.0  # the driver's own modules, Ray, Prefect's server
STAGE_STARTS = 0.5
TOGETHER_STARTS = 5.0  # processes that find each other
REPORT_STARTS, LOGGED_STARTS = 4.0, 0.7  # the page and its figures; each trained network in MLflow
STUDY_BYTES = 6e6  # databases, page, figures, tables
KEPT_PROCESSES = 3  # processes alive per training: Ray keeps those of earlier ones for a while
REPORTER_BYTES = 70e6  # of a process beside each training
COPIES = 2  # of a trained network: in the study and in MLflow


class TrialError(NasError):
    """A trial did not come to its end."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """What a run does, as far as it is known before; what of it is done already is left out.

    ``workers`` evaluate at a time, ``trainings`` are of the winner and what it
    is compared with, ``trained_at_a_time`` of them with ``training_cpus`` each.
    ``size`` is what a network of the run computes, of the one that was tried.
    """

    scored: int
    verified: int
    rounds: int
    finalists: int  # that are rated once more
    rated_per_load: int  # networks for which a worker reads its data once
    workers: int
    trainings: int
    trained_at_a_time: int
    training_cpus: int
    first_cpus: int  # of what a scorer trains once
    timed: int  # networks, or blocks that come to so many, whose latency is measured
    timed_whole: int
    size: float
    stages: tuple[Stage, ...]  # that are not over


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds by stage, megabytes on disk, and of all workers' memory at the peak."""

    stages_s: dict[str, float]
    around_s: float
    disk_mb: float
    memory_mb: float
    workers: int

    @property
    def seconds(self) -> float:
        return self.around_s + sum(self.stages_s.values())


def tried(
    config: StudyConfig, genotype: Genotype, at_once: int, *, runs: bool, trains: bool, times: bool
) -> list[Trial]:
    """What as many processes measured side by side as work at a time; what is asked for as in ``Asked``.

    Raises:
        TrialError: with what stopped a trial.
    """
    asked = Asked(
        study=config.as_yaml().decode(),
        genotype=str(genotype),
        num_threads=1,
        runs=runs,
        trains=trains,
        times=times,
    )
    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        return list(pool.map(_one, [asked] * min(at_once, MOST_AT_ONCE)))


def _one(asked: Asked) -> Trial:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "flows.trial"],
            input=json.dumps(asdict(asked)),
            capture_output=True,
            text=True,
            timeout=TRIAL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TrialError("a trial", f"no end in {TRIAL_S:.0f} s", "a few steps of a training") from None
    if done.returncode:
        words = (done.stderr.strip() or "nothing said").splitlines()[-1][:200]
        raise TrialError("a trial", words, "a few steps of a training")
    return Trial(**json.loads(done.stdout.splitlines()[-1]))


def slowest(trials: Sequence[Trial]) -> Trial:
    """Of each figure the largest that any of the processes found."""
    return Trial(**{each.name: max(getattr(trial, each.name) for trial in trials) for each in fields(Trial)})


def estimated(study: Study, trial: Trial, amounts: Amounts, wall_s: float | None = None) -> Estimate | None:
    """The estimate; ``wall_s`` is what evaluations took that are stored. None where a score's time cannot be known."""
    work = study.scorer.work()
    if work is None and wall_s is None:
        return None
    return _Arithmetic(study, trial, amounts, work or Work(), wall_s).result()


class _Arithmetic:
    """Seconds and bytes of the stages."""

    def __init__(self, study: Study, trial: Trial, amounts: Amounts, work: Work, wall_s: float | None) -> None:
        self.trial, self.amounts, self.work, self.wall_s = trial, amounts, work, wall_s
        self.config, scorer = study.config, study.scorer
        self.final = scorer.final.work() if scorer.final is not None else None
        self.needs_data, self.starts_from = scorer.needs_data, scorer.starts_from
        self.footprint, self.num_examples, self.num_train, self.num_validation = Footprint(), 0, 0, 0
        if self.needs_data or amounts.trainings:
            workload = workload_of(study.config)
            channels = study.space.in_channels or workload.sample.shape[0]
            self.footprint = workload.footprint(workload.sample.shape_at(max(study.space.resolutions), channels))
            self.num_examples = sum(workload.num_examples())
            trained = workload.with_train_examples(self.config.train.train_examples)
            self.num_train, self.num_validation = trained.num_examples()

    def result(self) -> Estimate:
        stages = {"profile": self._profile(), "score": self._score(), "verify": self._verify(), "train": self._train()}
        reported = (REPORT_STARTS + LOGGED_STARTS * self.amounts.trainings) * self.trial.start_s
        stages["report"] = reported
        stages = {stage: seconds if stage in self.amounts.stages else 0.0 for stage, seconds in stages.items()}
        return Estimate(
            stages_s=stages,
            around_s=AROUND_STARTS * self.trial.start_s if self.amounts.stages else 0.0,
            disk_mb=self._disk_bytes() / 1e6,
            memory_mb=self._memory_bytes() / 1e6,
            workers=self._workers,
        )

    # seconds

    @property
    def _start_s(self) -> float:
        return STAGE_STARTS * self.trial.start_s

    def _profile(self) -> float:
        return self.trial.start_s + self._start_s + self._measured(self.amounts.timed)

    def _measured(self, count: int) -> float:
        """Seconds until the latency of so many networks is known."""
        from nas_core.costs.timing import FILES_AT_ONCE

        return count * self.trial.latency_s + math.ceil(count / FILES_AT_ONCE) * self.trial.turns_s

    def _score(self) -> float:
        amounts = self.amounts
        if not amounts.scored:
            return self._start_s
        once = self.work.first_trained * self._use_s(self.trial.scored_s) / math.pow(amounts.first_cpus, THREADS_GAIN)
        made_s = self.trial.read_s * self.num_examples if self.footprint.is_read_by == "node" else 0.0
        started_s = self.trial.start_s * (2 if once else 1)
        return self._start_s + started_s + made_s + (once + self._load_s if once else 0.0) + self._rated(amounts.scored)

    def _verify(self) -> float:
        rated_s = self.amounts.rounds * self._start_s + self._rated(self.amounts.verified)
        if self.final is not None and self.amounts.finalists:
            rated_s += self._rounds(self.amounts.finalists) * (self._each_s(self.final) + self._load_s)
        return rated_s + self._measured(self.amounts.timed_whole)

    def _rated(self, count: int) -> float:
        """Seconds until so many networks are rated, all workers busy."""
        if not count:
            return 0.0
        each_s = self._each_s(self.work) if self.wall_s is None else self.wall_s
        load_s = self._load_s if self.needs_data else 0.0
        rounds = self._rounds(count)
        return rounds * each_s + -(-rounds // self.amounts.rated_per_load) * load_s

    def _rounds(self, count: int) -> int:
        """How many networks a worker rates, one after the other."""
        return -(-count // self.amounts.workers)

    def _each_s(self, work: Work) -> float:
        return work.each_trained * self._use_s(self.trial.scored_s) + work.each_run * self._use_s(self.trial.run_s)

    def _train(self) -> float:
        amounts, recipe, processes = self.amounts, self.config.train.recipe, self.config.train.workers
        if not amounts.trainings:
            return 0.0
        learned: float = recipe.epochs * self.num_train * self._use_s(self.trial.trained_s)
        if self.starts_from and amounts.trainings > 1:  # others are trained longer for what the winner's blocks learnt
            learned += self.work.first_trained * self._use_s(self.trial.scored_s)
        measured = (recipe.epochs + 2) * self.num_validation * self._use_s(self.trial.run_s)
        together = processes * TOGETHER_GAIN if processes > 1 else 1.0
        each_s = (learned + measured) / (math.pow(amounts.training_cpus, THREADS_GAIN) * together) + self._load_s
        each_s += self._load_s if self.starts_from else 0.0  # the scorer's own, for the weights that it begins with
        each_s += self.trial.export_s + (TOGETHER_STARTS if processes > 1 else 1.0) * self.trial.start_s
        return self._start_s + -(-amounts.trainings // amounts.trained_at_a_time) * each_s

    def _use_s(self, tried_s: float) -> float:
        """Seconds of an example in a mean network of the run."""
        return self.amounts.size * tried_s + (self.trial.read_s if self.footprint.is_read_by == "use" else 0.0)

    @property
    def _load_s(self) -> float:
        """Seconds until a job has its networks and the examples at hand."""
        return (
            self.trial.made_s
            + self.trial.open_s
            + (self.trial.read_s * self.num_examples if self.footprint.is_read_by == "worker" else 0)
        )

    # bytes

    @property
    def _workers(self) -> int:
        return max(self.amounts.workers, self._training(1))

    def _training(self, kept: int) -> int:
        """Processes that train, where ``kept`` are there for each that is at work."""
        return min(self.amounts.trainings, kept * self.amounts.trained_at_a_time) * self.config.train.workers

    def _memory_bytes(self) -> float:
        """With processes that have done their work, and those that pass on what is reported."""
        at_work = self._workers * (self.trial.own_bytes + self.footprint.own_bytes)
        kept = max(self._workers, self._training(KEPT_PROCESSES)) - self._workers
        shared = self.trial.shared_bytes + self.footprint.shared_bytes + REPORTER_BYTES * self.amounts.trainings
        return at_work + kept * self.trial.idle_bytes + shared

    def _disk_bytes(self) -> float:
        network = self.amounts.size * (self.trial.weight_bytes + self.trial.program_bytes)
        return STUDY_BYTES + self.footprint.disk_bytes + COPIES * self.amounts.trainings * network
