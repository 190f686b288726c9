"""All that a report shows, as frozen plain data: made from tables, written as ``report.json``.

A stage that has not run is None or empty, and the page names the command that
makes it. Units: metrics as they were measured (`Measure` says how they are
read), costs in their resource's (``records.resources.units``), times in seconds.
Genotypes are strings. Intervals are ``low``/``high``, both None when unknown.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nas_core.base.errors import ConfigError, StoreError
from nas_core.program.limits import parse_limit
from nas_core.program.problem import Budget
from nas_core.records.evaluations import CostTable
from nas_core.space.genotypes import Genotype, SearchSpace
from nas_core.study.contestants import REMADE, TrainedAs
from nas_core.study.frames import Role
from nas_core.study.outcome import Outcome
from nas_core.study.reasons import Reasons
from nas_core.study.stages import SUMMARY
from nas_core.study.sweep import Point
from nas_core.workloads.metrics import Measure

SUMMARY_VERSION = 5
Costs = Mapping[str, float]  # resource -> value of a whole network


LEAST_SHARE = 1e-9  # of a metric: what differs by less is alike


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSummary:
    """The data: how many examples in each split, and what else the workload says of them."""

    name: str
    num_train: int | None = None  # examples a network is trained on while scoring
    num_validation: int | None = None
    num_test: int | None = None
    description: str = ""  # one sentence more
    facts: Mapping[str, str] = field(default_factory=dict)  # what -> value, as the workload describes itself


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerSummary:
    """What rated the networks, and in which unit."""

    kind: str  # train, supernet, tabular, ...
    metric: Measure
    split: str  # the data the metric is measured on, such as "validation"
    num_examples: int | None = None  # of the split
    seeds: tuple[int, ...] = ()
    description: str = ""  # one sentence on how a network is rated


@dataclass(frozen=True, kw_only=True, slots=True)
class StageCost:
    """What one stage took. ``num_reused`` results came from the store and cost nothing now; of all, some failed."""

    stage: str  # score, profile, select, verify, train
    wall_s: float  # by the clock
    compute_s: float | None = None  # summed over workers
    num_evaluations: int = 0  # networks evaluated, profiled or trained
    num_failed: int = 0
    num_reused: int = 0
    device: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedNetwork:
    """One network's measured metric beside its prediction.

    ``role`` says what it was evaluated for: ``base`` and ``design`` fit the
    predictor, ``held-out`` only tests it, ``verification`` was proposed later (its
    ``predicted`` is the one made before it was evaluated).
    """

    genotype: str
    metric: float
    role: Role = "design"
    predicted: float | None = None
    low: float | None = None  # interval of the prediction
    high: float | None = None
    costs: Costs = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockEffect:
    """What taking a block instead of the position's base block does to the metric.

    Turned so that positive is better whatever the metric; 0 for the base
    block itself. In the metric's unit.
    """

    position: int
    choice: int
    effect: float
    low: float | None = None
    high: float | None = None
    num_evaluations: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockEffects:
    """The effects of all blocks, the base network they refer to, and how they were derived."""

    base: str
    effects: tuple[BlockEffect, ...]
    link: str = "identity"
    interval_level: float | None = None  # such as 0.9
    sentence: str = ""
    adds_up: bool = True  # whether several blocks do what each of them does, summed


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A bound on one resource of the whole network; ``text`` is what the user wrote."""

    resource: str
    at_most: float | None
    text: str = ""
    device: str = ""  # where the resource was measured, if that matters
    at_least: float | None = None

    def is_kept_by(self, cost: float) -> bool:
        return bool(Budget(resource=self.resource, at_most=self.at_most, at_least=self.at_least).is_kept_by(cost))


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectedNetwork:
    """A network the solver returned (``evaluated`` once the scorer has really rated it)."""

    genotype: str
    predicted: float
    low: float | None = None
    high: float | None = None
    evaluated: float | None = None
    costs: Costs = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionSummary:
    """The solver's answer and what it proved. ``networks`` is best first; empty if none was found.

    ``bound`` is in the metric's unit: no network within the limits has a better
    prediction. ``gap`` is in the objective's unit, 0 when optimality is proven.
    """

    status: str  # optimal, feasible, infeasible, unknown
    sentence: str
    networks: tuple[SelectedNetwork, ...] = ()
    bound: float | None = None
    gap: float | None = None
    solve_s: float | None = None
    route: str = ""  # which program and solver, such as "CP-SAT, linear objective"


def plausible(networks: Sequence[EvaluatedNetwork]) -> tuple[float, float]:
    """Between which values a prediction is one: what was evaluated, and as far again on both sides."""
    low, high = min(row.metric for row in networks), max(row.metric for row in networks)
    reach = high - low or float("inf")
    return low - reach, high + reach


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationSummary:
    """How well predictions agree with evaluations on networks not used to fit.

    The pairs themselves are the ``held-out`` rows of ``StudySummary.networks``.
    """

    num_networks: int
    kendall: float | None = None
    spearman: float | None = None
    coverage: float | None = None  # share of pairs inside the interval
    interval_level: float | None = None  # share that should be inside
    baseline_name: str = "parameters"  # counting this instead of predicting
    baseline_kendall: float | None = None
    sentence: str = ""  # the verdict, compared with the baseline


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationRound:
    """One round of solve, evaluate the best for real, refit."""

    index: int  # from 1
    genotypes: tuple[str, ...]  # evaluated in this round
    best_genotype: str  # best evaluated network within the limits after the round
    best_metric: float
    predicted_metric: float | None = None  # predicted of the solver's first choice, before evaluation
    num_evaluations: int = 0  # in all stages until the end of the round


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationSummary:
    """The record of rounds, the network that stands, and why it ended."""

    rounds: tuple[VerificationRound, ...]
    winner: str
    stands: bool
    sentence: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontierPoint:
    """The best predicted network at one amount of a resource: proven, every one."""

    cost: float
    predicted: float
    genotype: str
    evaluated: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontierSummary:
    """The best predicted metric over a range of limits of one resource; not ``complete`` where the time ran out."""

    resource: str
    points: tuple[FrontierPoint, ...]
    complete: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepSummary:
    """The best network at each of several limits of one resource, the tightest first, and the base network."""

    resource: str
    text: str  # the range, as the user wrote it
    points: tuple[Point, ...]
    base: Point


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeNetwork:
    """A resource of a whole network, as the sum of its blocks' and as measured, in the resource's unit."""

    genotype: str
    summed: float
    measured: float
    spread: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceAdditivity:
    """How far the sum over blocks of a measured resource is from the network's own."""

    resource: str
    unit: str
    pairs: tuple[WholeNetwork, ...]
    device: str
    batch_size: int
    num_threads: int
    num_repeats: int
    r2: float | None = None
    kendall: float | None = None
    worst_relative_error: float | None = None  # fraction
    correction: str = ""  # such as "measured = 0.93 x sum + 0.2 ms"
    is_corrected: bool = False  # whether the program goes by corrected sums


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredWhole:
    """The chosen network and the base, measured whole and in turns, beside the sums that the program goes by."""

    resource: str
    networks: tuple[WholeNetwork, ...]
    device: str
    batch_size: int
    num_threads: int
    num_repeats: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """State of a training at the end of an epoch."""

    epoch: float
    train_loss: float | None = None
    validation: float | None = None  # the metric


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedValue:
    """The metric of one of several trainings."""

    seed: int
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedNetwork:
    """A fully trained network: its metric on both splits; test was touched once, at the end.

    Trained from several seeds, ``test`` and ``validation`` are means; ``tests``
    holds each one's, ``curves`` those of the others than the first.
    """

    role: TrainedAs
    genotype: str
    test: float | None
    validation: float | None = None
    costs: Costs = field(default_factory=dict)
    measured: Costs = field(default_factory=dict)  # whole, in turns with the others
    curve: tuple[CurvePoint, ...] = ()
    wall_s: float | None = None
    seed: int | None = None
    tests: tuple[SeedValue, ...] = ()
    curves: tuple[tuple[CurvePoint, ...], ...] = ()
    num_epochs: float | None = None
    more_epochs: float = 0.0  # of these, beyond the recipe's
    examples_per_s: float | None = None  # of the steps alone
    confusion: tuple[tuple[int, ...], ...] = ()  # test examples of each class (rows) by what they were taken for
    outputs: "OutputsTable | None" = None  # output by output, in the workload's words
    scatter: tuple["Scatter", ...] = ()
    shown: tuple["Shown", ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputsTable:
    """A row for each output of a network: a label, a number, a class of pixels."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scatter:
    """A number of test examples as it is and as it was predicted, in its unit."""

    name: str
    true: tuple[float, ...]
    predicted: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A test example: what is said of it, its pictures (name, PNG file in base64), or its cells (column, text)."""

    words: str
    pictures: tuple[tuple[str, str], ...] = ()
    cells: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSummary:
    """The winner and what it is compared with, all trained alike."""

    networks: tuple[TrainedNetwork, ...]
    metric: Measure
    num_test_examples: int | None = None
    output_names: tuple[str, ...] = ()
    recipe: str = ""  # one sentence
    device: str = ""
    diverged: tuple[str, ...] = ()  # networks that could not be compared, and why
    remarks: tuple[str, ...] = ()  # what has to be said of those that were to be compared with
    as_given: float | None = None  # test metric of the trained model that networks are made of, as it was brought

    def names_of(self, num_outputs: int) -> tuple[str, ...]:
        """A name for each output: those of the data, which may have fewer classes than the networks; else numbers."""
        return (*self.output_names[:num_outputs], *map(str, range(len(self.output_names), num_outputs)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where the numbers come from, and how to get them again. Holds no host or user name."""

    code_version: str
    space_id: str
    scorer_id: str
    profiler_id: str = ""
    created: str = ""  # when the report was made: ISO 8601, UTC
    versions: Mapping[str, str] = field(default_factory=dict)  # package -> version
    devices: Mapping[str, str] = field(default_factory=dict)  # stage -> description
    commands: tuple[str, ...] = ()  # that reproduce the study
    tracking: Mapping[str, str] = field(default_factory=dict)  # label -> run id, model URI, ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySummary:
    """One study as its report shows it."""

    name: str
    seed: int
    space: SearchSpace
    base: str  # genotype
    data: DataSummary
    scorer: ScorerSummary
    device: str
    provenance: Provenance
    stages: tuple[StageCost, ...] = ()
    networks: tuple[EvaluatedNetwork, ...] = ()
    num_evaluated: int = 0  # distinct networks with a metric; may exceed ``networks``
    num_failed: int = 0
    first_failure: str = ""  # "GENOTYPE: message" of a network that failed
    cost_tables: tuple[CostTable, ...] = ()
    base_costs: Costs = field(default_factory=dict)
    block_effects: BlockEffects | None = None
    limits: tuple[Limit, ...] = ()
    selection: SelectionSummary | None = None
    outcome: Outcome | None = None
    calibration: CalibrationSummary | None = None
    verification: VerificationSummary | None = None
    frontiers: tuple[FrontierSummary, ...] = ()
    reasons: Reasons | None = None
    sweep: SweepSummary | None = None
    additivity: tuple[ResourceAdditivity, ...] = ()
    whole: tuple[MeasuredWhole, ...] = ()
    training: TrainingSummary | None = None
    are_networks: bool = True  # else choices, which no one trains or times

    @property
    def winner(self) -> str | None:
        """Genotype of the network chosen: verified if that ran, else the solver's first."""
        if self.verification is not None:
            return self.verification.winner
        if self.selection is not None and self.selection.networks:
            return self.selection.networks[0].genotype
        return None

    @property
    def metric(self) -> Measure:
        """What the chosen network is looked at by: the trained networks' metric, else the scorer's."""
        return self.training.metric if self.training is not None else self.scorer.metric

    @property
    def least_change(self) -> float:
        """What a difference of the scorer's metric has to exceed: less than a billionth of its values is arithmetic."""
        return LEAST_SHARE * max((abs(row.metric) for row in self.networks if row.metric is not None), default=1.0)

    def evaluated(self, genotype: str) -> EvaluatedNetwork | None:
        """The measured row of a network, if it is among ``networks``."""
        return next((row for row in self.networks if row.genotype == genotype), None)

    def selected(self, genotype: str) -> SelectedNetwork | None:
        """The solver's row of a network, if it returned it."""
        rows = self.selection.networks if self.selection is not None else ()
        return next((row for row in rows if row.genotype == genotype), None)

    def trained(self, role: str) -> tuple[TrainedNetwork, ...]:
        """The trained networks of one role."""
        rows = self.training.networks if self.training is not None else ()
        return tuple(row for row in rows if row.role == role)

    def measured_whole(self, genotype: str, resource: str) -> float | None:
        """What a network takes of a resource, measured whole when the choice was made; None where it was not."""
        networks = (row for each in self.whole if each.resource == resource for row in each.networks)
        return next((row.measured for row in networks if row.genotype == genotype), None)

    def limit_whole(self, limit: Limit, base: float | None = None) -> Limit:
        """The limit on a network that is measured whole: a percentage is of the ``base`` measured with it.

        That is, unless given, what verification measured.
        """
        base = self.measured_whole(self.base, limit.resource) if base is None else base
        known = {} if base is None else {limit.resource: base}
        try:
            asked = parse_limit(limit.text).resolve(known, resources=(limit.resource,))
        except ConfigError:  # a percentage of what was not measured whole, or words
            return limit
        return replace(limit, at_most=asked.at_most, at_least=asked.at_least)

    def keeps_whole(self, genotype: str, limit: Limit) -> bool:
        """Whether a network that was measured whole keeps the limit then."""
        whole = self.measured_whole(genotype, limit.resource)
        assert whole is not None, "it was measured whole"
        return self.limit_whole(limit).is_kept_by(whole)

    def summed_costs(self, genotype: str) -> dict[str, float]:
        """Costs of a network as sums over the cost tables."""
        known = Genotype.parse(genotype)
        tables = [table for table in self.cost_tables if known.resolution in (None, table.resolution)]
        return {table.resource: table.total(known) for table in tables}

    def costs_of(self, genotype: str) -> dict[str, float]:
        """All known costs of a network: what was recorded for it, else sums of the cost tables."""
        remade = [row for role in REMADE for row in self.trained(role) if row.genotype == genotype]
        if remade:  # no network of the space
            return dict(remade[0].costs)
        costs = self.summed_costs(genotype)
        if genotype == self.base:
            costs |= self.base_costs
        trained = self.training.networks if self.training is not None else ()
        for row in (self.evaluated(genotype), self.selected(genotype), *trained):
            if row is not None and row.genotype == genotype:
                costs |= row.costs
        return costs

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; ``from_dict`` gives an equal summary back."""
        return {"summary_version": SUMMARY_VERSION, **_encode(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "StudySummary":
        """The summary written by ``to_dict``.

        Raises:
            StoreError: if it is of another version, or not a summary.
        """
        version = data.get("summary_version")
        if version != SUMMARY_VERSION:
            raise StoreError("report.json: summary_version", version, str(SUMMARY_VERSION), "Run `mathnas report`.")
        try:
            summary = _decode(cls, {key: value for key, value in data.items() if key != "summary_version"})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(SUMMARY, error, "a study's summary", "Run `mathnas report`.") from None
        assert isinstance(summary, cls)
        return summary


def _encode(value: Any) -> Any:
    """Plain JSON of frozen data; infinities and NaN become strings, which JSON has no numbers for."""
    if isinstance(value, SearchSpace):
        return value.as_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    if hasattr(value, "item"):  # a numpy scalar
        return _encode(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _decode(hint: Any, value: Any) -> Any:
    """The value of type ``hint`` that ``_encode`` wrote."""
    if hint is SearchSpace:
        return SearchSpace.from_dict(value)
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        unknown = set(value) - set(hints)
        if unknown:
            raise KeyError(f"unknown fields {sorted(unknown)}")
        return hint(**{name: _decode(hints[name], item) for name, item in value.items()})  # type: ignore[operator]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        inner = next(argument for argument in arguments if argument is not NoneType)
        return None if value is None else _decode(inner, value)
    if origin is tuple:
        return tuple(_decode(arguments[0], item) for item in value)
    if origin is not None and origin is not Literal:  # Mapping
        return {key: _decode(arguments[1], item) for key, item in value.items()}
    return float(value) if hint is float else value
