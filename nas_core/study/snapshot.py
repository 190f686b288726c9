"""What a study knew at one moment, as one frozen value, and all that follows from it.

Nothing here reads a store. What follows from the rows (the design, the tables,
the predictor, an answer) is worked out when it is first asked for, and once:
a snapshot's predictor is fitted once, whoever asks. Other rows make another
snapshot, which keeps what they do not change.
"""

import math
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from nas_core.base.errors import IncompleteTableError, SpaceError, StoreError
from nas_core.costs import Additivity, additivity, is_measured
from nas_core.costs.additivity import MIN_NETWORKS
from nas_core.families.family import FAMILIES
from nas_core.prediction import Calibration, Predictor, calibrate, fit
from nas_core.program import Budget, SelectionProblem, Status, Table, solve, top_k
from nas_core.program.limits import parse_limit
from nas_core.records.evaluations import WHOLE_NETWORK, Cost, CostTable, Evaluation, EvaluationTable
from nas_core.records.store import missing
from nas_core.scoring.scorer import SCORERS
from nas_core.searchers import Searcher
from nas_core.searchers.designs import Design
from nas_core.space.equivalence import equivalents
from nas_core.space.genotypes import Genotype, SearchSpace
from nas_core.study.brought import searcher_of
from nas_core.study.choices import Answer, answer_of, cautions_of, infeasible, with_additive_limits
from nas_core.study.config import StudyConfig
from nas_core.study.peaks import as_asked

FLOPS = "flops"
ROUNDING = 1e-6  # so little beyond a last digit is no more than that digit
AIMS_AT = 0.975  # share of a limit that a network measured whole is to take: measured again it takes more or less
# what is kept where other rows come: names of cached properties, and of what `once_for_each` keeps
FROM_COSTS = ("_prices", "additivity", "cost_tables", "_budgets", "flops", "design")
FROM_FLOPS_AND_EVALUATIONS = ("flops", "design", "table", "held_out_table", "fitted", "predictor")

Given = ParamSpec("Given")
Result = TypeVar("Result")


def once_for_each(
    method: Callable[Concatenate["Snapshot", Given], Result],
) -> Callable[Concatenate["Snapshot", Given], Result]:
    """A method whose results are kept with the snapshot, one for each of its (hashable) arguments."""

    @wraps(method)
    def kept(self: "Snapshot", /, *given: Given.args, **named: Given.kwargs) -> Result:
        results: dict[Any, Result] = self.__dict__.setdefault(f"_{method.__name__}", {})
        key = (given, tuple(sorted(named.items())))
        if key not in results:
            results[key] = method(self, *given, **named)
        return results[key]

    return kept


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """A configuration, its space, and the evaluations and costs that its store held at one moment.

    ``evaluations`` are those by the study's scorer and seed, ``costs`` those by
    its profilers, each once and in one order. ``held`` are shares of a measured
    resource's limits that the program goes by, where whole networks were
    measured to take more than their blocks. ``root`` is only for messages.
    """

    config: StudyConfig
    space: SearchSpace
    profiler_ids: Mapping[str, str]  # resource -> id of what measures it
    evaluations: tuple[Evaluation, ...] = ()
    costs: tuple[Cost, ...] = ()
    held: tuple[tuple[str, float], ...] = ()
    root: str = "study"

    def with_evaluations(self, rows: Sequence[Evaluation]) -> "Snapshot":
        """The snapshot in which these are the evaluations; the design and all prices are kept."""
        return self if (found := tuple(rows)) == self.evaluations else self._with(FROM_COSTS, evaluations=found)

    def with_costs(self, rows: Sequence[Cost]) -> "Snapshot":
        """The snapshot in which these are the costs; where the FLOPs are the same, so are design and predictor."""
        if (found := tuple(rows)) == self.costs:
            return self
        new = self._with((), costs=found)
        return (
            self._with(FROM_FLOPS_AND_EVALUATIONS, costs=found) if new.prices("flops") == self.prices("flops") else new
        )

    def holding(self, held: Mapping[str, float]) -> "Snapshot":
        """The snapshot in which the program holds these shares of measured resources' limits."""
        if (found := tuple(sorted(held.items()))) == self.held:
            return self
        kept = ("_prices", "additivity", "cost_tables", *FROM_FLOPS_AND_EVALUATIONS)
        return self._with(kept, held=found)

    def _with(self, kept: Sequence[str], **changes: Any) -> "Snapshot":
        new = replace(self, **changes)
        new.__dict__.update({name: self.__dict__[name] for name in kept if name in self.__dict__})
        return new

    # what blocks and networks cost

    @property
    def resolutions(self) -> dict[int | None, int]:
        """A genotype's resolution -> the input size in pixels."""
        if len(self.space.resolutions) == 1:
            return {None: self.space.resolutions[0]}
        return {size: size for size in self.space.resolutions}

    @once_for_each
    def prices(self, resource: str) -> tuple[Cost, ...]:
        """Costs of one resource, blocks and whole networks."""
        mine = self.profiler_ids[resource]
        return tuple(row for row in self.costs if row.resource == resource and row.profiler_id == mine)

    def _table_of(self, resource: str, pixels: int) -> CostTable:
        return CostTable.from_rows(self.prices(resource), resource, self.space.num_choices, pixels)

    @cached_property
    def flops(self) -> CostTable:
        """FLOPs of the blocks at the first resolution."""
        return self._table_of("flops", self.space.resolutions[0])

    @property
    def has_flops(self) -> bool:
        """Whether the blocks' FLOPs are known, so that the design can be named."""
        try:
            return bool(self.flops)
        except IncompleteTableError:
            return False

    @cached_property
    def additivity(self) -> dict[str, Additivity]:
        """By measured resource, how sums of blocks agree with measured networks, where enough of them were measured."""
        found = {resource: self._additivity_of(resource) for resource in self.profiler_ids if is_measured(resource)}
        return {resource: agreement for resource, agreement in found.items() if agreement is not None}

    def _additivity_of(self, resource: str) -> Additivity | None:
        first = self.space.resolutions[0]
        rows = [row for row in self.prices(resource) if row.position == WHOLE_NETWORK and row.status == "ok"]
        rows = [row for row in rows if row.resolution == first]
        return additivity(self._table_of(resource, first), rows) if len(rows) >= MIN_NETWORKS else None

    @cached_property
    def cost_tables(self) -> dict[int | None, dict[str, CostTable]]:
        """Per resolution and resource, the price of every block (what is measured, corrected for what is not additive).

        Raises:
            IncompleteTableError: naming the first block without a price.
        """
        tables = {
            label: {resource: self._table_of(resource, pixels) for resource in self.profiler_ids}
            for label, pixels in self.resolutions.items()
        }
        for resource, agreement in self.additivity.items():
            for mine in tables.values():
                mine[resource] = agreement.corrected(mine[resource])
        return tables

    def costs_of(self, genotype: Genotype) -> dict[str, float]:
        """A network's total of every resource, in the resource's unit."""
        tables = self.cost_tables[genotype.resolution]
        return {name: table.total(genotype) for name, table in tables.items() if self.are_networks or name != FLOPS}

    @property
    def are_networks(self) -> bool:
        """Whether what is chosen can be built, timed and trained; plain choices have no FLOPs to speak of."""
        return FAMILIES[self.config.space.kind].are_networks

    @cached_property
    def searcher(self) -> Searcher:
        """What names the networks to evaluate."""
        return searcher_of(self.config)

    @cached_property
    def design(self) -> Design:
        """The networks to evaluate before the first selection; needs the FLOPs of the blocks."""
        return self.searcher.first(self.space, self.config.design, self.config.seed, self.flops)

    @property
    def base(self) -> Genotype:
        return self.design.base

    # what is predicted

    def missing(self, genotypes: Sequence[Genotype]) -> list[str]:
        """Of these networks, those without an evaluation."""
        return missing(map(str, genotypes), self.evaluations)

    @cached_property
    def measured(self) -> dict[str, float | None]:
        """The metric of every network whose evaluation succeeded, by genotype."""
        return {row.genotype: row.metric for row in self.evaluations if row.status == "ok"}

    @cached_property
    def table(self) -> EvaluationTable:
        """The evaluated networks a predictor is fitted to: all but those held out.

        Raises:
            IncompleteTableError: if none succeeded, or naming a position whose alternatives all failed.
        """
        held_out = {str(genotype) for genotype in self.design.held_out}
        return self._table_without(held_out)

    @cached_property
    def whole_table(self) -> EvaluationTable:
        """Every evaluated network, held-out ones too: they may say where to look next. Raises as ``table``."""
        return self._table_without(frozenset())

    def _table_without(self, left_out: Collection[str]) -> EvaluationTable:
        rows = [row for row in self.evaluations if row.genotype not in left_out]
        table = self._evaluated(rows)
        for genotype in table.genotypes:
            try:
                self.space.check_choices(genotype)  # a measured network is data, whatever the rules say
            except SpaceError as error:
                where, advice = f"{self.root}/evaluations: {error.where}", "Delete the part with it."
                raise StoreError(where, error.found, error.expected, advice) from None
        self._check_every_position(table, [row for row in rows if row.status == "failed"])
        return table

    def _evaluated(self, rows: Sequence[Evaluation]) -> EvaluationTable:
        if not any(row.status == "ok" for row in self.evaluations):
            rows = self.evaluations  # all that failed are counted, as they were when they did
        try:
            return EvaluationTable.from_rows(rows)
        except IncompleteTableError as error:
            advice = self._when_failed if rows else ""
            raise IncompleteTableError(error.where, error.found, error.expected, advice) from None

    @property
    def _when_failed(self) -> str:
        """The scorer's advice, the command in it as it can be pasted."""
        return SCORERS[self.config.scorer.kind].when_failed.replace("DIR", shlex.quote(self.root))

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
                    self._when_failed,
                )

    @cached_property
    def held_out_table(self) -> EvaluationTable | None:
        """The held-out networks that were evaluated, for calibration; None if there are none."""
        held_out = {str(genotype) for genotype in self.design.held_out}
        rows = [row for row in self.evaluations if row.genotype in held_out and row.status == "ok"]
        return EvaluationTable.from_rows(rows) if rows else None

    @cached_property
    def fitted(self) -> Predictor:
        """The predictor fitted to all evaluated networks but those held out; they may help to choose its settings."""
        flops = self.flops if len(self.space.resolutions) == 1 else None
        return fit(
            self.space,
            self.table,
            self.config.predict,
            base=self.base,
            flops=flops,
            seed=self.config.seed,
            held_out=self.held_out_table,
        )

    @cached_property
    def predictor(self) -> Predictor:
        """``fitted``, its intervals as wide as the held-out networks say."""
        return self.fitted if self.held_out_table is None else self.fitted.recalibrated(self.held_out_table)

    @cached_property
    def calibration(self) -> Calibration | None:
        """How the predictor agrees with the held-out networks, judged before these very networks widened its intervals.

        None where no held-out network was evaluated.

        Raises:
            IncompleteTableError: where too few were.
        """
        held_out = self.held_out_table
        return None if held_out is None else calibrate(self.fitted, held_out, self.costs_of)

    # what is selected

    @once_for_each
    def budgets(self, limits: tuple[str, ...]) -> tuple[Budget, ...]:
        """The limits in the resources' own units; percentages are of the base network.

        Raises:
            ConfigError: for a limit that cannot be read or names an unmeasured resource.
        """
        held = dict(self.held)
        budgets = (parse_limit(text).resolve(self.costs_of(self.base)) for text in limits)
        return tuple(
            budget if budget.at_most is None else replace(budget, at_most=budget.at_most * held.get(budget.resource, 1))
            for budget in budgets
        )

    @property
    def limits(self) -> tuple[Budget, ...]:
        """The budgets of the configured limits."""
        return self.budgets(tuple(self.config.select.limits))

    def within(self, genotype: Genotype, budgets: Sequence[Budget]) -> bool:
        """Whether a network satisfies the budgets; the space's rules are not looked at."""
        costs = self.costs_of(genotype)
        return all(budget.is_kept_by(costs[budget.resource]) for budget in budgets)

    def best_evaluated(self, budgets: Sequence[Budget]) -> tuple[Genotype, float] | None:
        """The best network that was really evaluated within the budgets, with its metric; None where there is none."""
        rows = [row for row in self.evaluations if row.status == "ok"]
        rows = [row for row in rows if self.within(Genotype.parse(row.genotype), budgets)]
        if not rows:
            return None
        table = EvaluationTable.from_rows(rows)
        best = int(table.metric_K.argmax())
        return table.genotypes[best], table.sign * float(table.metric_K[best])

    @once_for_each
    def problem(self, budgets: tuple[Budget, ...]) -> SelectionProblem:
        """The program whose optimum is the best predicted network within the budgets."""
        tables, budgets = with_additive_limits(self.cost_tables, budgets)
        return self.predictor.problem([table for mine in tables.values() for table in mine.values()], budgets)

    @once_for_each
    def answer(
        self,
        limits: tuple[str, ...],
        *,
        top: int,
        min_distance: int = 1,
        time_limit_s: float = 60.0,
        tell: Callable[[int], None] | None = None,
    ) -> Answer:
        """The ``top`` best predicted networks within the limits; ``tell`` is called with the number proven so far."""
        budgets = self.budgets(limits)
        problem = self.problem(budgets)
        result = top_k(problem, top, min_distance=min_distance, time_limit_s=time_limit_s, tell=tell)
        if result.explanation is not None:
            result = replace(result, explanation=as_asked(self, result.explanation, budgets))
        return answer_of(self.predictor, result, limits, self.costs_of, self.measured, self.cautions(budgets))

    def cautions(self, budgets: Sequence[Budget]) -> tuple[str, ...]:
        """What has to be said beside whatever the predictor calls best within these budgets."""
        held_out, limited = self.held_out_table, {budget.resource for budget in budgets}
        held = (_held_in_words(resource, share) for resource, share in self.held if resource in limited)
        return (*cautions_of(self.fitted, 0 if held_out is None else len(held_out)), *held)

    def problem_of_most(self, resource: str | None, limits: Sequence[Budget] | None = None) -> SelectionProblem:
        """The program whose optimum takes most of a resource within limits, or any network; needs costs only.

        ``limits`` are those of the configuration where none are given.
        """
        tables, budgets = with_additive_limits(self.cost_tables, self.limits if limits is None else limits)
        zeros = tuple((0.0,) * count for count in self.space.num_choices)
        rows = [
            Table(
                score=zeros if resource is None else mine[resource].block,
                base_score=0.0 if resource is None else mine[resource].fixed,
                costs={name: table.block for name, table in mine.items()},
                base_costs={name: table.fixed for name, table in mine.items()},
                resolution=label,
            )
            for label, mine in tables.items()
        ]
        only = rows[0]
        first = {"score": only.score, "base_score": only.base_score, "costs": only.costs, "base_costs": only.base_costs}
        tables_of_problem: dict[str, Any] = first if len(rows) == 1 else {"resolutions": tuple(rows)}
        return SelectionProblem(**tables_of_problem, budgets=budgets, rules=self.space.rules)

    def check_limits(self) -> None:
        """Whether any network is within the configured limits; needs costs, no evaluation.

        Raises:
            InfeasibleError: if none is, with what is attainable and which limits collide.
        """
        result = solve(self.problem_of_most(None))
        if result.status is Status.INFEASIBLE:
            held = [_held_in_words(resource, share) for resource, share in self.held]
            advice = ["`mathnas run --from verify` chooses without that, and measures anew."] if held else []
            assert result.explanation is not None, "a program that is proven infeasible is explained"
            explanation = as_asked(self, result.explanation, self.limits)
            shares = self._in_percent(explanation.least)
            raise infeasible(self.config.select.limits, " ".join((str(explanation), *shares, *held, *advice)))

    def _in_percent(self, least: Mapping[str, float | None]) -> list[str]:
        """What is attainable of resources whose limits are shares of the base network's."""
        asked = (parse_limit(text) for text in self.config.select.limits)
        base, found = self.costs_of(self.base), []
        for limit in asked:
            name = limit.resolve(base).resource
            value = least.get(name)
            if limit.at_most is not None and limit.at_most.unit == "%" and value is not None and base[name]:
                found.append(f"The least {name} is {_rounded_up(100 * value / base[name])} % of the base network's.")
        return found


def _rounded_up(percent: float) -> str:
    """A percentage as a limit that can be met states it."""
    digits = 2 - math.floor(math.log10(percent)) if percent > 0 else 0  # three significant ones
    return f"{math.ceil(percent * 10**digits - ROUNDING) / 10**digits:.{max(0, digits)}f}"


def _held_in_words(resource: str, share: float) -> str:
    if share < 1:
        held = f"{100 * (1 - share):.1f} % lower, as room for what the whole network takes"
    else:
        way = f"{100 * (share - 1):.1f} % higher"
        held = f"{way}, since networks that were measured whole took less than the sums over their blocks"
    return f"The limit on {resource} is held {held}."
