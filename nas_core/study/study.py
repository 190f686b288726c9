"""One search in its store: what is known (a snapshot), how far its stages are, what they wrote.

A stage can be run again from anywhere: whatever it needs is read from the store
through here. Nothing here imports torch: selecting from stored scores starts in
a second.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nas_core.base.errors import ConfigError, StoreError
from nas_core.costs import Additivity
from nas_core.families import Family
from nas_core.prediction import Prediction, Predictor
from nas_core.program import Budget
from nas_core.records.evaluations import Cost, CostTable, Evaluation, EvaluationTable
from nas_core.records.lease import driver
from nas_core.records.store import Store, place_of
from nas_core.scoring import Scorer
from nas_core.searchers.designs import Design
from nas_core.space.genotypes import Genotype, SearchSpace
from nas_core.study import frames
from nas_core.study.brought import family_of, scorer_of
from nas_core.study.choices import Answer, standing_of
from nas_core.study.config import StudyConfig, load_config
from nas_core.study.outcome import Outcome, outcome_of
from nas_core.study.outputs import Outputs, read_output
from nas_core.study.snapshot import Snapshot
from nas_core.study.sources import Sources, notices
from nas_core.study.stages import CONFIG, DESIGN_CONFIG, INSIDE, MOST_TOP, STAGES, TRAINING, Stage, StageStatus
from nas_core.study.status import status_of
from nas_core.study.sweep import Point, points

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


class Study:
    """A study in a store. ``open`` reads one as it was run, ``create`` makes one or changes its configuration.

    The store is read lazily; ``refresh`` shows rows that were added since.
    Space, data and code come from the store's copy, unless ``sources`` says
    what they are now.
    """

    def __init__(self, config: StudyConfig, store: Store, sources: Sources | None = None) -> None:
        self.config, self.store = config, store
        self._sources = sources
        self._snapshot: Snapshot | None = None

    def __reduce__(self) -> tuple[Callable[[StudyConfig, Store], "Study"], tuple[StudyConfig, Store]]:
        return Study, (self.config, self.store)  # what it knows is read again where it arrives

    @classmethod
    def create(cls, config: StudyConfig, root: str) -> "Study":
        """The study with this configuration under ``root``; what the store already holds is kept.

        Raises:
            StoreError: if a design of `mathnas run-design` lives there.
        """
        store = Store(root)
        study = cls(config, store, Sources.of(config, store.root))
        study.write_config()
        return study

    @classmethod
    def open(cls, root: str) -> "Study":
        """The study under ``root``; raises as ``store_of``."""
        store = cls.store_of(root)
        config = load_config(store.read_bytes(CONFIG), source=store.uri(CONFIG))
        return cls(config, store, Sources.stored_for(config, store))

    @staticmethod
    def store_of(root: str) -> Store:
        """The store of the study under ``root``, which is not read.

        Raises:
            StoreError: if there is none.
        """
        store = Store(root, create=False)
        if not store.exists(CONFIG):
            raise StoreError(
                root, f"no {CONFIG}", "the folder of a study", "`mathnas run CONFIG --root DIR` makes one."
            )
        if store.exists(f"{INSIDE}/{CONFIG}"):
            raise StoreError(root, f"the {CONFIG} of a study", f"the study's folder, {root.rstrip('/')}/{INSIDE}")
        return store

    def write_config(self) -> None:
        """Write the configuration, where the store holds another; raises as ``create``."""
        if self.store.exists(DESIGN_CONFIG):
            raise StoreError(self.store.root, f"a design ({DESIGN_CONFIG})", "a root of its own for a study")
        before, now = Sources.stored(self.store), self.sources  # a wrong space stops here, before anything is written
        if before is not None:
            for change in now.changes(before, self.store):
                log.warning("%s", change)
        self.store.write_if_changed(CONFIG, self.config.as_yaml())
        replace(now, root=place_of(self.store.root)).write(self.store)

    # identity

    @property
    def sources(self) -> Sources:
        """What of space, data and code the study goes by."""
        if self._sources is None:
            kept = Sources.stored_for(self.config, self.store)
            usable = kept is not None and kept.is_of_present_code(self.config)
            self._sources = kept if kept and usable else Sources.of(self.config, self.store.root)
        return self._sources

    def notices(self) -> list[str]:
        """What is no longer as the study knew it: a file that was edited, a study that was moved."""
        return notices(self.sources, self.config, self.store)

    @cached_property
    def family(self) -> Family:
        """The family of networks that is searched."""
        data = self.sources.data
        return family_of(self.config, data.sample if data else None)

    @property
    def space(self) -> SearchSpace:
        """The family's space, with what the scorer knows of it."""
        return self.sources.space

    @cached_property
    def scorer(self) -> Scorer:
        """What rates networks; nothing is loaded for it yet."""
        return scorer_of(self.config, self.family, self.store, known_as=self.scorer_id)

    @property
    def scorer_id(self) -> str:
        return self.sources.scorer_id

    @property
    def profiler_ids(self) -> Mapping[str, str]:
        """Resource -> id of what measures it."""
        return self.sources.profiler_ids

    # what is known

    @property
    def snapshot(self) -> Snapshot:
        """What the store held when it was read last."""
        if self._snapshot is None:
            empty = Snapshot(config=self.config, space=self.space, profiler_ids=self.profiler_ids, root=self.store.root)
            self._snapshot = self._read_into(empty)
        return self._snapshot

    def refresh(self) -> None:
        """Take note of what was stored since the store was read: of the parts, only new ones are read."""
        if self._snapshot is not None:
            self._snapshot = self._read_into(self._snapshot)

    def _read_into(self, known: Snapshot) -> Snapshot:
        mine = set(self.profiler_ids.values())
        costs = [row for row in self.store.costs(self.space.space_id) if row.profiler_id in mine]
        rows = self.store.evaluations(self.space.space_id, self.scorer_id)
        evaluations = [row for row in rows if row.seed == self.config.seed]
        held = (self.current("verify") or {}).get("held", {})
        return known.with_costs(costs).with_evaluations(evaluations).holding(held)

    def evaluations(self) -> list[Evaluation]:
        """Every known evaluation by this study's scorer and seed."""
        return list(self.snapshot.evaluations)

    def final_evaluations(self) -> list[Evaluation]:
        """How finalists were rated once more, as the store has it now; none where the scorer has no such rating."""
        final = self.scorer.final
        rows = self.store.evaluations(self.space.space_id, final.scorer_id) if final else []
        return [row for row in rows if row.seed == self.config.seed]

    def missing(self, genotypes: Sequence[Genotype]) -> list[str]:
        """Of these networks, those without an evaluation."""
        return self.snapshot.missing(genotypes)

    def costs(self, resource: str) -> list[Cost]:
        """Known costs of one resource, blocks and whole networks."""
        return list(self.snapshot.prices(resource))

    def costs_of(self, genotype: Genotype) -> dict[str, float]:
        """A network's total of every resource, in the resource's unit."""
        return self.snapshot.costs_of(genotype)

    @property
    def cost_tables(self) -> dict[int | None, dict[str, CostTable]]:
        return self.snapshot.cost_tables

    @property
    def flops(self) -> CostTable:
        return self.snapshot.flops

    @property
    def has_flops(self) -> bool:
        return self.snapshot.has_flops

    @property
    def additivity(self) -> Mapping[str, Additivity]:
        return self.snapshot.additivity

    @property
    def design(self) -> Design:
        return self.snapshot.design

    @property
    def base(self) -> Genotype:
        return self.snapshot.base

    def held_out_table(self) -> EvaluationTable | None:
        return self.snapshot.held_out_table

    def predictor(self, *, recalibrate: bool = True) -> Predictor:
        """The predictor fitted to everything evaluated but the held-out networks.

        Those only set the width of its intervals, where ``recalibrate``.
        """
        return self.snapshot.predictor if recalibrate else self.snapshot.fitted

    def budgets(self, limits: Sequence[str]) -> tuple[Budget, ...]:
        """The limits in the resources' own units; see ``Snapshot.budgets``."""
        return self.snapshot.budgets(tuple(limits))

    def within(self, genotype: Genotype, budgets: Sequence[Budget]) -> bool:
        """Whether a network satisfies the budgets; the space's rules are not looked at."""
        return self.snapshot.within(genotype, budgets)

    def select(
        self,
        limits: Sequence[str] | str,
        *,
        top: int | None = None,
        min_distance: int | None = None,
        time_limit_s: float | None = None,
        tell: Callable[[int], None] | None = None,
    ) -> Answer:
        """The ``top`` best predicted networks within the limits, and where the study's chosen network stands.

        What is not given is as the study's ``select`` section says. ``tell`` is called with the number of ranks
        proven so far.

        Raises:
            ConfigError: for a limit that cannot be read, or a ``top`` that is no number from 1 to ``MOST_TOP``.
        """
        known, config = self.snapshot, self.config.select
        top = config.top if top is None else top
        min_distance = config.min_distance if min_distance is None else min_distance
        time_limit_s = config.time_limit_s if time_limit_s is None else time_limit_s
        limits = [limits] if isinstance(limits, str) else limits
        if not 1 <= top <= MOST_TOP:
            raise ConfigError("top", top, f"a number from 1 to {MOST_TOP:,}")
        answer = known.answer(tuple(limits), top=top, min_distance=min_distance, time_limit_s=time_limit_s, tell=tell)
        if (text := self.winner) is None:
            return answer
        winner, evaluated = Genotype.parse(text), known.measured.get(text)
        within = known.within(winner, known.budgets(tuple(limits)))
        standing = standing_of(winner, answer, known.predictor, within=within, evaluated=evaluated)
        return replace(answer, winner=standing)

    def outcome(self) -> Outcome | None:
        """What is predicted best and what was chosen, as the stages last wrote it; None where nothing was selected."""
        answer, verified = self.last_answer(), self.current("verify") or {}
        if answer is None:
            return None
        again = [row["genotype"] for row in verified.get("finals", ())]
        return outcome_of(answer, verified.get("winner"), self.snapshot, verified.get("reason", ""), again)

    def last_answer(self) -> dict[str, Any] | None:
        """The program's last answer: by the fit that verification ended with, else the one that `select` wrote."""
        selected, verified = self.current("select"), self.current("verify") or {}
        return selected and (verified.get("answer") or selected)

    def points(self) -> tuple[Point, ...]:
        """The best network at each limit of the sweep, the tightest first; none where there is no sweep."""
        verified = self.current("verify")
        return points(self.snapshot, verified=verified is not None, winner=(verified or {}).get("winner"))

    # for notebooks

    def evaluations_frame(self) -> "pd.DataFrame":
        """Every evaluation as a row of a pandas frame, with its role and costs."""
        return frames.evaluations(self.snapshot)

    def costs_frame(self) -> "pd.DataFrame":
        """Every price as a row of a pandas frame."""
        return frames.costs(self.snapshot)

    def effects_frame(self) -> "pd.DataFrame":
        """Every block's effect as a row of a pandas frame."""
        return frames.effects(self.snapshot)

    def predict(self, genotypes: Sequence[Genotype | str | Sequence[int]]) -> list[Prediction]:
        """The metric expected of each network, with its 90 % interval.

        A network is a genotype, what it is written as (``2-0-1-1``), or its choices.

        Raises:
            SpaceError: for what is no network of the study's space.
        """
        genotypes = [genotypes] if isinstance(genotypes, str) else genotypes
        return list(self.snapshot.predictor.predict([self._network(each) for each in genotypes]))

    def _network(self, given: Genotype | str | Sequence[int]) -> Genotype:
        if isinstance(given, str):
            return self.space.parse(given)
        return self.space.check(given if isinstance(given, Genotype) else Genotype(tuple(map(int, given))))

    def winner_module(self) -> Any:
        """The trained winner as a torch module in eval mode, its preparation of inputs included.

        Raises:
            StoreError: if no winner was trained.
        """
        from nas_core.training.winner import load_deployed

        if self.output(TRAINING) is None:
            raise StoreError(self.store.root, "no trained winner", "a study whose stage train has run")
        return load_deployed(self.store, "winner")[0]

    # what the stages wrote

    @cached_property
    def outputs(self) -> Outputs:
        return Outputs(store=self.store, config=self.config, sources=self.sources)

    def output(self, path: str) -> dict[str, Any] | None:
        """A stage's JSON output, or None where it has not run; raises as ``read_output``."""
        return read_output(self.store, path)

    def inputs_of(self, stage: Stage) -> str:
        """Content id of all that the stage's output depends on."""
        return self.outputs.inputs_of(stage)

    def current(self, stage: Stage) -> dict[str, Any] | None:
        """What `select`, `verify` or `train` wrote, if it was made from the present inputs; else None."""
        return self.outputs.current(stage)

    def records(self) -> dict[Stage, dict[str, Any]]:
        """What every stage that ended took."""
        return self.outputs.records()

    @property
    def winner(self) -> str | None:
        """Genotype of the network chosen: verified if that ran, else the solver's first."""
        return self.outputs.winner

    def forget_failures(self) -> int:
        """Drop this study's failed evaluations and what was chosen without them; returns how many there were."""
        dropped, final = self._drop_failed(self.scorer_id), self.scorer.final
        of_finalists = self._drop_failed(final.scorer_id) if final else 0
        if dropped or of_finalists:
            self.outputs.forget("select" if dropped else "verify")
            self.refresh()
        return dropped + of_finalists

    def _drop_failed(self, scorer_id: str) -> int:
        return self.store.drop_failed(self.space.space_id, scorer_id, self.config.seed)

    # how far it is

    def stages(self, until: Stage = "report") -> tuple[Stage, ...]:
        """The stages that this study has, up to one: what is no network is not trained."""
        wanted = STAGES[: STAGES.index(until) + 1]
        return tuple(stage for stage in wanted if stage != "train" or self.family.are_networks)

    def status(self) -> dict[Stage, StageStatus]:
        """How far every stage is, and which one is being run."""
        found = {stage: self.status_of(stage) for stage in self.stages()}
        holder = driver(self.store)
        if holder is not None and holder.stage in found:
            found[holder.stage] = replace(found[holder.stage], state="running")
        return found

    def status_of(self, stage: Stage) -> StageStatus:
        """How far one stage is, whoever is at work on it."""
        return status_of(stage, self.snapshot, self.outputs)

    def is_finished(self, until: Stage) -> bool:
        """Whether running the stages up to ``until`` would change nothing; not while another driver is at work.

        Raises:
            StoreError: where the output of one of them is damaged.
        """
        try:
            is_stored = self.store.read_bytes(CONFIG) == self.config.as_yaml()
        except FileNotFoundError:
            return False
        found = [self.status_of(stage) for stage in self.stages(until)]  # all of them: what is damaged is said at once
        return is_stored and driver(self.store) is None and all(each.is_over for each in found)
