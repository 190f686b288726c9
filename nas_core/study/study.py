"""One search: its configuration, its space and its store, and what can be derived from them.

Everything a stage needs to know is read from the store through here, so a stage
can be run again from anywhere. Nothing here imports torch: selecting from
stored scores starts in a second. A stage's output names the content id of its
inputs; an output whose inputs have changed since is stale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

from nas_core.base.errors import IncompleteTableError, SpaceError, StoreError
from nas_core.base.identity import content_id
from nas_core.costs import Additivity, additivity, is_measured, profiler_id
from nas_core.families import build_space
from nas_core.prediction import Predictor, fit
from nas_core.program import Budget, Selection, SelectionProblem, SelectionResult, Status, Table, solve, top_k
from nas_core.program.limits import parse_limit
from nas_core.records.evaluations import WHOLE_NETWORK, Cost, CostTable, Evaluation, EvaluationTable
from nas_core.records.lease import driver
from nas_core.records.store import Store, missing
from nas_core.scoring import study_scorer_id
from nas_core.searchers.designs import Design, make_design
from nas_core.space.equivalence import equivalents
from nas_core.space.genotypes import Genotype, SearchSpace
from nas_core.study.choices import Answer, Choice, bound_of, infeasible, with_additive_limits, without_network
from nas_core.study.config import StudyConfig, load_config
from nas_core.study.stages import (
    BLOCK_SCORES,
    CONFIG,
    DESIGN_CONFIG,
    FIGURES,
    OUTPUTS,
    SHAPES,
    STAGES,
    TRAINING,
    TRAINING_VERSION,
    VERIFICATION,
    Stage,
    StageStatus,
    record_path,
    state_of,
    trained_files,
    wrong_with,
)

LEAST_TO_RECALIBRATE = 20  # held-out networks; of fewer, the 90 % quantile is their worst


def space_of(config: StudyConfig) -> SearchSpace:
    """The family of networks, with the data's channels and classes where the scorer sees images."""
    if config.scorer.kind == "tabular":
        return build_space(config.space)
    from nas_core.workloads.images import data_shape

    in_channels, _, num_classes = data_shape(config.data)
    return build_space(config.space, in_channels=in_channels, num_classes=num_classes)


class Study:
    """A study in a store. ``open`` reads one, ``create`` makes one or changes its configuration."""

    def __init__(self, config: StudyConfig, store: Store) -> None:
        self.config, self.store = config, store

    @classmethod
    def create(cls, config: StudyConfig, root: str) -> "Study":
        """The study with this configuration under ``root``; what the store already holds is kept.

        Raises:
            StoreError: if a design of `mathnas run-design` lives there.
        """
        study = cls(config, Store(root))
        if study.store.exists(DESIGN_CONFIG):
            raise StoreError(root, f"a design ({DESIGN_CONFIG})", "a root of its own for a study")
        study.space  # a wrong space stops here, before anything is written  # noqa: B018
        study.store.write_if_changed(CONFIG, config.as_yaml())
        return study

    @classmethod
    def open(cls, root: str) -> "Study":
        """The study under ``root``.

        Raises:
            StoreError: if there is none.
        """
        store = Store(root, create=False)
        if not store.exists(CONFIG):
            raise StoreError(
                root, f"no {CONFIG}", "the folder of a study", "`mathnas run CONFIG --root DIR` makes one."
            )
        return cls(load_config(store.read_bytes(CONFIG), source=store.uri(CONFIG)), store)

    # identity

    @cached_property
    def space(self) -> SearchSpace:
        return space_of(self.config)

    @cached_property
    def scorer_id(self) -> str:
        return study_scorer_id(self.config)

    @cached_property
    def profiler_ids(self) -> dict[str, str]:
        """Resource -> id of what measures it; FLOPs are always counted, since designs need them."""
        resources = dict.fromkeys(("flops", *self.config.profile.resources))
        return {resource: self._profiler_id(resource) for resource in resources}

    def _profiler_id(self, resource: str) -> str:
        """The profiler's own id, and for what is measured the node that `cluster.profile_resources` asks for."""
        known, node = profiler_id(self.config.profile, resource), self.config.cluster.profile_resources
        return content_id({"profiler": known, "node": node}) if node and is_measured(resource) else known

    @property
    def resolutions(self) -> dict[int | None, int]:
        """A genotype's resolution -> the input size in pixels."""
        if len(self.space.resolutions) == 1:
            return {None: self.space.resolutions[0]}
        return {size: size for size in self.space.resolutions}

    def inputs_of(self, stage: Stage) -> str:
        """Content id of all that the stage's output depends on: what it reads, and what those before it read."""
        known: dict[str, Any] = {}
        for each in STAGES[: STAGES.index(stage) + 1]:
            known |= self._inputs_read_by(each)
        if stage == "select":  # how many are listed: the first, which is all that later stages see, is the same
            known["listed"] = (self.config.select.top, self.config.select.min_distance)
        return content_id(known)

    def _inputs_read_by(self, stage: Stage) -> dict[str, Any]:
        config = self.config
        match stage:
            case "profile":
                known = {"space": self.space.space_id, "profilers": self.profiler_ids, "seed": config.seed}
                return {**known, "networks": config.profile.networks}
            case "score":
                return {"scorer": self.scorer_id, "design": config.design.model_dump(mode="json")}
            case "select":
                program = config.select.model_dump(mode="json", include={"limits", "time_limit_s"})
                return {"predict": config.predict.model_dump(mode="json"), "program": program}
            case "verify":
                return {"verify": config.verify.model_dump(mode="json")}
            case "train":
                how = {"train": config.train.model_dump(mode="json"), "version": TRAINING_VERSION}
                return {**how, "data": config.data.identity, "winner": self.winner}
            case "report":
                return {"tracking": config.tracking.model_dump(mode="json"), "name": config.name}

    # what is stored

    def evaluations(self) -> list[Evaluation]:
        """Every stored evaluation by this study's scorer and seed."""
        rows = self.store.evaluations(self.space.space_id, self.scorer_id)
        return [row for row in rows if row.seed == self.config.seed]

    def missing(self, genotypes: Sequence[Genotype]) -> list[str]:
        """Of these networks, those without an evaluation."""
        return missing(map(str, genotypes), self.evaluations())

    @cached_property
    def _costs(self) -> list[Cost]:
        mine = set(self.profiler_ids.values())
        return [row for row in self.store.costs(self.space.space_id) if row.profiler_id in mine]

    def forget_costs(self) -> None:
        """Read the costs again: some were added."""
        for name in ("_costs", "cost_tables", "design", "additivity"):
            self.__dict__.pop(name, None)

    def costs(self, resource: str) -> list[Cost]:
        """Stored costs of one resource, blocks and whole networks."""
        return [
            row for row in self._costs if row.resource == resource and row.profiler_id == self.profiler_ids[resource]
        ]

    @cached_property
    def cost_tables(self) -> dict[int | None, dict[str, CostTable]]:
        """Per resolution and resource, the price of every block (latency corrected for what is not additive).

        Raises:
            IncompleteTableError: naming the first block without a price.
        """
        tables: dict[int | None, dict[str, CostTable]] = {}
        for label, pixels in self.resolutions.items():
            tables[label] = {
                resource: CostTable.from_rows(self.costs(resource), resource, self.space.num_choices, pixels)
                for resource in self.profiler_ids
            }
        if self.additivity is not None:
            for mine in tables.values():
                mine["latency_ms"] = self.additivity.corrected(mine["latency_ms"])
        return tables

    @cached_property
    def flops(self) -> CostTable:
        """FLOPs of the blocks at the first resolution."""
        return CostTable.from_rows(self.costs("flops"), "flops", self.space.num_choices, self.space.resolutions[0])

    @cached_property
    def additivity(self) -> Additivity | None:
        """How the sum of block latencies agrees with measured networks; None where too few were measured."""
        if "latency_ms" not in self.profiler_ids:
            return None
        rows = [row for row in self.costs("latency_ms") if row.position == WHOLE_NETWORK and row.status == "ok"]
        rows = [row for row in rows if row.resolution == self.space.resolutions[0]]
        if len(rows) < 3:
            return None
        table = CostTable.from_rows(
            self.costs("latency_ms"), "latency_ms", self.space.num_choices, self.space.resolutions[0]
        )
        return additivity(table, rows)

    def costs_of(self, genotype: Genotype) -> dict[str, float]:
        """A network's total of every resource, in the resource's unit."""
        return {resource: table.total(genotype) for resource, table in self.cost_tables[genotype.resolution].items()}

    # what is derived

    @cached_property
    def design(self) -> Design:
        """The networks to evaluate before the first selection; needs the FLOPs of the blocks."""
        return make_design(self.space, self.config.design, self.config.seed, self.flops)

    @property
    def base(self) -> Genotype:
        return self.design.base

    def table(self) -> EvaluationTable:
        """The evaluated networks a predictor is fitted to: all but those held out.

        Raises:
            IncompleteTableError: if none succeeded, or naming a position whose alternatives all failed.
        """
        held_out = {str(genotype) for genotype in self.design.held_out}
        rows = [row for row in self.evaluations() if row.genotype not in held_out]
        table = EvaluationTable.from_rows(rows)
        for genotype in table.genotypes:
            try:
                self.space.check_choices(genotype)  # a measured network is data, whatever the rules say
            except SpaceError as error:
                where, advice = f"{self.store.root}/evaluations: {error.where}", "Delete the part with it."
                raise StoreError(where, error.found, error.expected, advice) from None
        self._check_every_position(table, [row for row in rows if row.status == "failed"])
        return table

    def _check_every_position(self, table: EvaluationTable, failed: Sequence[Evaluation]) -> None:
        """A position whose alternatives all failed has no score to choose by."""
        covered = {
            (p, c) for g in table.genotypes for alike in equivalents(self.space, g) for p, c in enumerate(alike.choices)
        }
        for position, name in enumerate(place.name for place in self.space.positions):
            scored = sum((position, choice) in covered for choice in range(self.space.num_choices[position]))
            lost = [row for row in failed if (position, Genotype.parse(row.genotype).choices[position]) not in covered]
            if scored < 2 and lost:
                raise IncompleteTableError(
                    f"position {position} ({name})",
                    f"{len(lost)} failed evaluations, {lost[0].genotype}: {lost[0].message}",
                    "a score for one of its alternatives at least",
                    "Mend the cause, then run `mathnas score --retry-failed`.",
                )

    def held_out_table(self) -> EvaluationTable | None:
        """The held-out networks that were evaluated, for calibration; None if there are none."""
        held_out = {str(genotype) for genotype in self.design.held_out}
        rows = [row for row in self.evaluations() if row.genotype in held_out and row.status == "ok"]
        return EvaluationTable.from_rows(rows) if rows else None

    def predictor(self, *, recalibrate: bool = True) -> Predictor:
        """The predictor fitted to everything evaluated but the held-out networks.

        Those only set the width of its intervals, where ``recalibrate``.
        """
        flops = self.flops if len(self.space.resolutions) == 1 else None
        fitted = fit(self.space, self.table(), self.config.predict, base=self.base, flops=flops, seed=self.config.seed)
        held_out = self.held_out_table() if recalibrate else None
        return fitted if held_out is None or len(held_out) < LEAST_TO_RECALIBRATE else fitted.recalibrated(held_out)

    def write_block_scores(self) -> None:
        """Write ``block_scores.parquet``: each block's effect, and the evaluations it came from."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        predictor = self.predictor(recalibrate=False)
        held_by: dict[tuple[int, int], list[str]] = {}
        for genotype in predictor.table.genotypes:
            for block in enumerate(genotype.choices):
                held_by.setdefault(block, []).append(str(genotype))
        rows = [
            {
                "space_id": self.space.space_id,
                "scorer_id": self.scorer_id,
                "seed": self.config.seed,
                **asdict(effect),
                "block": str(self.space.positions[effect.position].blocks[effect.choice]),
                "evaluations": held_by.get((effect.position, effect.choice), []),
            }
            for effect in predictor.effects()
        ]
        metadata = {"metric": predictor.table.metric_name, "link": predictor.chosen.link, "schema_version": "1"}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(metadata), sink)
        self.store.write_bytes(BLOCK_SCORES, bytes(sink.getvalue()))

    # selection

    def budgets(self, limits: Sequence[str]) -> tuple[Budget, ...]:
        """The limits in the resources' own units; percentages are of the base network.

        Raises:
            ConfigError: for a limit that cannot be read or names an unmeasured resource.
        """
        return tuple(parse_limit(text).resolve(self.costs_of(self.base)) for text in limits)

    def problem(
        self, predictor: Predictor, budgets: Sequence[Budget], forbidden: Sequence[Genotype] = ()
    ) -> SelectionProblem:
        """The program whose optimum is the best predicted network within the budgets."""
        tables, budgets = with_additive_limits(self.cost_tables, budgets)
        return predictor.problem([table for mine in tables.values() for table in mine.values()], budgets, forbidden)

    def check_limits(self) -> None:
        """Whether any network is within the configured limits; needs costs, no evaluation.

        Raises:
            InfeasibleError: if none is, with what is attainable and which limits collide.
        """
        limits = self.config.select.limits
        tables, budgets = with_additive_limits(self.cost_tables, self.budgets(limits))
        zeros = tuple((0.0,) * count for count in self.space.num_choices)
        rows = [
            Table(
                score=zeros,
                costs={name: table.block for name, table in mine.items()},
                base_costs={name: table.fixed for name, table in mine.items()},
                resolution=label,
            )
            for label, mine in tables.items()
        ]
        first = {"score": rows[0].score, "costs": rows[0].costs, "base_costs": rows[0].base_costs}
        tables_of_problem: dict[str, Any] = first if len(rows) == 1 else {"resolutions": tuple(rows)}
        result = solve(SelectionProblem(**tables_of_problem, budgets=budgets, rules=self.space.rules))
        if result.status is Status.INFEASIBLE:
            raise infeasible(limits, str(result.explanation))

    def within(self, genotype: Genotype, budgets: Sequence[Budget]) -> bool:
        """Whether a network satisfies the budgets and the space's rules."""
        costs = self.costs_of(genotype)
        upper = all(b.at_most is None or costs[b.resource] <= b.at_most for b in budgets)
        return upper and all(b.at_least is None or costs[b.resource] >= b.at_least for b in budgets)

    def select(self, limits: Sequence[str], *, top: int, min_distance: int = 1, time_limit_s: float = 60.0) -> Answer:
        """The ``top`` best predicted networks within the limits."""
        budgets = self.budgets(limits)
        predictor = self.predictor()
        problem = self.problem(predictor, budgets)
        result = top_k(problem, top, min_distance=min_distance, time_limit_s=time_limit_s)
        return self._answer(predictor, result, tuple(limits))

    def _answer(self, predictor: Predictor, result: SelectionResult, limits: tuple[str, ...]) -> Answer:
        evaluated = {row.genotype: row.metric for row in self.evaluations() if row.status == "ok"}
        found = result.status in (Status.OPTIMAL, Status.FEASIBLE)
        return Answer(
            status=result.status.name.lower(),
            message=result.status.value,
            bound=bound_of(predictor, result) if found else None,
            gap=result.gap if found and abs(result.gap) < float("inf") else None,
            solve_s=result.solve_s,
            route=result.route,
            limits=limits,
            selections=tuple(self._choices(predictor, result.selections, evaluated)),
            explanation=result.explanation.as_dict() if result.explanation else None,
            notes=result.notes,
        )

    def _choices(
        self, predictor: Predictor, selections: Sequence[Selection], evaluated: Mapping[str, float | None]
    ) -> list[Choice]:
        genotypes = [selection.genotype for selection in selections]
        return [
            Choice(
                genotype=str(genotype),
                predicted=prediction.metric,
                interval=(prediction.low, prediction.high),
                costs=self.costs_of(genotype),
                evaluated=evaluated.get(str(genotype)),
            )
            for genotype, prediction in zip(genotypes, predictor.predict(genotypes), strict=True)
        ]

    # stages

    def output(self, path: str) -> dict[str, Any] | None:
        """A stage's JSON output, or None where it has not run.

        Raises:
            StoreError: if it is not what the stage writes.
        """
        if not self.store.exists(path):
            return None
        data = self.store.read_json(path)
        wrong = wrong_with(data, *SHAPES.get("stages" if path.startswith("stages/") else path, ({}, {})))
        if wrong:
            advice = "Delete the file and run the stage again."
            raise StoreError(self.store.uri(path), wrong, "what the stage writes", advice)
        return dict(data)

    def record(
        self,
        stage: Stage,
        *,
        wall_s: float,
        compute_s: float,
        num_new: int,
        num_reused: int,
        num_failed: int,
        device: str,
    ) -> None:
        """Note that a stage has ended: what it was made from, what it took.

        ``wall_s`` is by the clock, ``compute_s`` the seconds all workers were
        busy. Seconds and counts add up over the runs that had the same inputs.
        """
        inputs = self.inputs_of(stage)
        before = self.output(record_path(stage)) or {}
        again = before.get("inputs") == inputs
        data = {
            "inputs": inputs,
            "wall_s": wall_s + (before["wall_s"] if again else 0.0),
            "compute_s": compute_s + (before["compute_s"] if again else 0.0),
            "num_new": num_new + (before["num_new"] if again else 0),
            "num_reused": before["num_reused"] if again else num_reused,
            "num_failed": num_failed,
            "device": device or (before["device"] if again else ""),
        }
        self.store.write_json(record_path(stage), data)

    def records(self) -> dict[Stage, dict[str, Any]]:
        """What every stage that ended took."""
        found = {stage: self.output(record_path(stage)) for stage in STAGES}
        return {stage: record for stage, record in found.items() if record is not None}

    def current(self, stage: Stage) -> dict[str, Any] | None:
        """What `select`, `verify` or `train` wrote, if it was made from the present inputs; else None."""
        data = self.output(OUTPUTS[stage][0])
        return data if data is not None and data["inputs"] == self.inputs_of(stage) else None

    @property
    def winner(self) -> str | None:
        """Genotype of the network chosen: verified if that ran, else the solver's first."""
        verified = self.current("verify")
        if verified is not None and verified.get("winner"):
            return str(verified["winner"])
        selected = self.current("select")
        if selected is not None and selected["selections"]:
            return str(selected["selections"][0]["genotype"])
        return None

    def begin(self, stage: Stage) -> None:
        """Drop the record of other inputs: cut short now, the stage must not look done when those come back."""
        record = self.output(record_path(stage))
        if record is not None and record["inputs"] != self.inputs_of(stage):
            self.store.delete(record_path(stage))

    def forget(self, stage: Stage) -> None:
        """Delete the outputs of a stage and of those after it; evaluations and costs stay."""
        for later in STAGES[STAGES.index(stage) :]:
            for path in (*OUTPUTS[later], record_path(later)):
                self.store.delete(path)
        self.store.delete(FIGURES)

    def forget_failures(self) -> int:
        """Drop this study's failed evaluations and what was selected without them; returns how many there were."""
        dropped = self.store.drop_failed(self.space.space_id, self.scorer_id, self.config.seed)
        if dropped:
            self.forget("select")
        return dropped

    def status(self) -> dict[Stage, StageStatus]:
        """How far every stage is."""
        found = {stage: self.status_of(stage) for stage in STAGES}
        holder = driver(self.store)
        if holder is not None and holder.stage in found:
            found[holder.stage] = replace(found[holder.stage], state="running")
        return found

    def status_of(self, stage: Stage) -> StageStatus:
        """How far one stage is, whoever is at work on it."""
        match stage:
            case "profile":
                return self._profile_status()
            case "score":
                return self._score_status()
            case _:
                return self._output_status(stage)

    @property
    def has_flops(self) -> bool:
        """Whether the blocks' FLOPs are in the store, so that the design can be named."""
        try:
            return bool(self.flops)
        except IncompleteTableError:
            return False

    def _profile_status(self) -> StageStatus:
        blocks = sum(self.space.num_choices) + 1
        total = blocks * len(self.profiler_ids) * len(self.space.resolutions)
        rows = [row for row in self._costs if row.position != WHOLE_NETWORK]
        failed = sum(row.status == "failed" for row in rows)
        return StageStatus(state=state_of(len(rows), total, failed), done=len(rows), total=total, failed=failed)

    def _score_status(self) -> StageStatus:
        if not self.has_flops:  # the design cannot be named yet
            return StageStatus(state="missing", done=0, total=0)
        wanted = {str(genotype) for genotype in self.design.genotypes}
        rows = [row for row in self.evaluations() if row.genotype in wanted]
        failed = sum(row.status == "failed" for row in rows)
        return StageStatus(
            state=state_of(len(rows), len(wanted), failed), done=len(rows), total=len(wanted), failed=failed
        )

    def _output_status(self, stage: Stage) -> StageStatus:
        record = self.output(record_path(stage))
        if record is None or not all(self.store.exists(path) for path in OUTPUTS[stage]):
            begun = any(self.store.exists(path) for path in OUTPUTS[stage])
            return StageStatus(state="partial" if begun else "missing", done=0, total=1)
        if stage == "verify" and self._lost_of_verification():
            return StageStatus(state="partial", done=0, total=1)
        if stage == "train" and self._lost_of_training():
            return StageStatus(state="partial", done=0, total=1)
        stale = record["inputs"] != self.inputs_of(stage)
        return StageStatus(state="stale" if stale else "done", done=0 if stale else 1, total=1)

    def _lost_of_verification(self) -> list[str]:
        """Networks of recorded rounds whose evaluations are gone, such as those of a damaged part."""
        rounds = (self.output(VERIFICATION) or {"rounds": []})["rounds"]
        return missing((genotype for row in rounds for genotype in row["proposed"]), self.evaluations())

    def _lost_of_training(self) -> list[str]:
        """Files of trained networks that are gone."""
        networks = (self.output(TRAINING) or {"networks": []})["networks"]
        return [path for row in networks for path in trained_files(row) if not self.store.exists(path)]

    def require(self, answer: Answer) -> Choice:
        """The first selection.

        Raises:
            InfeasibleError: if there is none, with what is attainable.
        """
        if answer.selections:
            return answer.selections[0]
        raise without_network(answer.status, answer.limits, (answer.explanation or {}).get("text", ""))
