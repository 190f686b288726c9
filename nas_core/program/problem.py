"""The selection program as plain data: scores and costs per block, limits, rules, an objective.

One network takes one block per position; the program asks for the allowed
network with the highest objective value. Nothing here knows a solver.

``nas_core.program.stored`` reads and writes problems as JSON.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from functools import cached_property, partial
from typing import Any, Literal, cast, get_args

import numpy as np

from nas_core.base.errors import ConfigError, IncompleteTableError
from nas_core.space.genotypes import BlockId, Genotype, Rule

Ragged = tuple[tuple[float, ...], ...]  # one number per block: [M][n_i]
Pair = tuple[BlockId, BlockId]
ObjectiveKind = Literal["additive", "fractional", "ratio"]

ROUNDING = 1e-12  # of a bound: what a total that was summed in floats may be beyond it


def format_number(number: float) -> str:
    """A number with as many digits as tell it from all others: ``11688000``, ``0.1``, ``1e+99``."""
    if float(number).is_integer() and abs(number) < 1e15:
        return str(int(number))
    return repr(float(number))


def format_measured(number: float, *, up: bool) -> str:
    """A whole number as it is; of all others six digits, rounded up or down: what is said of a limit stays true."""
    if float(number).is_integer() or not math.isfinite(number):
        return format_number(number)
    six = Context(prec=6, rounding=ROUND_CEILING if up else ROUND_FLOOR)
    return format_number(float(six.create_decimal(repr(float(number)))))


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """A bound on the total of one resource, inclusive, in the resource's own unit."""

    resource: str
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        where = f"budget on {self.resource}"
        if self.at_most is None and self.at_least is None:
            raise ConfigError(where, "no bound", "at_most, at_least or both")
        for bound in (self.at_most, self.at_least):
            if bound is not None and not math.isfinite(bound):
                raise ConfigError(where, bound, "a finite number")
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise ConfigError(where, f"at_least {self.at_least} > at_most {self.at_most}", "at_least <= at_most")

    def is_kept_by(self, total: Any) -> Any:
        """Whether a total, or each of an array of them, keeps the bounds, but for what summing floats rounds away."""
        below = True if self.at_most is None else total <= self.at_most + ROUNDING * abs(self.at_most)
        above = True if self.at_least is None else total >= self.at_least - ROUNDING * abs(self.at_least)
        return below & above

    def sides(self) -> tuple["Budget", ...]:
        """This budget as one-sided budgets, upper side first."""
        upper = () if self.at_most is None else (Budget(resource=self.resource, at_most=self.at_most),)
        lower = () if self.at_least is None else (Budget(resource=self.resource, at_least=self.at_least),)
        return upper + lower

    def __str__(self) -> str:
        return self._in_words(format_number, format_number)

    def briefly(self) -> str:
        """In six digits; what these allow is allowed, and may be a little less."""
        return self._in_words(partial(format_measured, up=False), partial(format_measured, up=True))

    def _in_words(self, most: Callable[[float], str], least: Callable[[float], str]) -> str:
        parts = [] if self.at_most is None else [f"{self.resource} <= {most(self.at_most)}"]
        lower = [] if self.at_least is None else [f"{self.resource} >= {least(self.at_least)}"]
        return " and ".join(parts + lower)


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """What is maximised. S = summed scores and pair terms, F = total of ``resource``, base constants apart.

    ``additive``: base_score + S.
    ``fractional``: base_score + S * (reference / F)^exponent, MathNAS Eq. 6 with S = -(summed losses)
    and ``reference`` = Fbar; exponent 0 is additive, 1 is the paper's.
    ``ratio``: (base_score + S) / F, such as metric per millisecond.
    """

    kind: ObjectiveKind = "additive"
    resource: str | None = None
    reference: float | None = None
    exponent: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(ObjectiveKind):
            raise ConfigError("objective.kind", repr(self.kind), f"one of {', '.join(get_args(ObjectiveKind))}")
        if self.kind != "additive" and self.resource is None:
            raise ConfigError("objective.resource", None, f"the resource that the {self.kind} objective divides by")
        if self.kind == "fractional" and not (self.reference is not None and 0 < self.reference < math.inf):
            raise ConfigError("objective.reference", self.reference, "a positive number (Fbar of MathNAS Eq. 6)")
        if not 0 <= self.exponent <= 1:
            raise ConfigError("objective.exponent", self.exponent, "a number in [0, 1]")

    @property
    def is_additive(self) -> bool:
        return self.kind == "additive" or (self.kind == "fractional" and self.exponent == 0)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Scores and costs of every block at one input resolution.

    ``score`` is [M][n_i], higher is better; every resource of ``costs`` has the
    same shape. A network's totals are the base constants plus the entries of its blocks.
    ``resolution`` is in pixels, and None where the problem has one resolution.
    """

    score: Ragged
    costs: Mapping[str, Ragged] = field(default_factory=dict)
    base_score: float = 0.0
    base_costs: Mapping[str, float] = field(default_factory=dict)
    resolution: int | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__  # the one place where a table is normalised
        set_(self, "score", _ragged(self.score, "score"))
        if not self.score or not all(self.score):
            raise ConfigError("score", "a position without blocks", "one block at least per position")
        set_(self, "costs", {name: _ragged(rows, f"costs.{name}") for name, rows in self.costs.items()})
        set_(self, "base_score", _finite(self.base_score, "base_score"))
        set_(self, "base_costs", {name: _finite(x, f"base_costs.{name}") for name, x in self.base_costs.items()})
        for name, rows in self.costs.items():
            if tuple(map(len, rows)) != self.num_choices:
                found = f"choices per position {tuple(map(len, rows))}"
                raise ConfigError(f"costs.{name}", found, f"the score's {self.num_choices}")
        for name in self.base_costs:
            if name not in self.costs:
                raise ConfigError(f"base_costs.{name}", "no such resource", f"one of {sorted(self.costs)}")

    @cached_property
    def num_choices(self) -> tuple[int, ...]:
        """n_i for every position."""
        return tuple(map(len, self.score))


@dataclass(frozen=True, kw_only=True)
class SelectionProblem:
    """What the solver is given.

    Either ``score``, ``base_score``, ``costs`` and ``base_costs`` describe the
    one table, or ``resolutions`` holds one table per input resolution, of which
    the solver chooses one as well.

    Args:
        score: [M][n_i], higher is better.
        base_score: a constant added to the summed scores.
        costs: resource -> [M][n_i], in the resource's own unit.
        base_costs: resource -> a constant added to its total (stem, head, base network).
        budgets: bounds on totals; several on one resource hold together.
        rules: linear rules between choices.
        objective: what is maximised.
        forbidden: whole networks that are excluded; one without a resolution is excluded at all of them.
        resolutions: the tables of the outer choice, each with its own ``resolution``.
        pairs: ((p, c), (q, d)) -> what taking both adds to the summed scores.
        positions: names of the positions, for people; empty or one each.
        base: the network that percentages are of, if there is one.

    Raises:
        ConfigError: for shapes that disagree, unknown resources or blocks, a total that may be <= 0 in a ratio.
        IncompleteTableError: for a score or cost that is not a finite number.
    """

    score: Ragged = ()
    base_score: float = 0.0
    costs: Mapping[str, Ragged] = field(default_factory=dict)
    base_costs: Mapping[str, float] = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()
    rules: tuple[Rule, ...] = ()
    objective: Objective = field(default_factory=Objective)
    forbidden: tuple[Genotype, ...] = ()
    resolutions: tuple[Table, ...] = ()
    pairs: Mapping[Pair, float] = field(default_factory=dict)
    positions: tuple[str, ...] = ()
    base: Genotype | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__  # the one place where a problem is normalised
        forbidden = cast(Iterable[Genotype | Sequence[int]], self.forbidden)
        set_(self, "forbidden", tuple(_genotype(item) for item in forbidden))
        set_(self, "pairs", _pairs(self.pairs))
        set_(self, "budgets", tuple(self.budgets))
        set_(self, "rules", tuple(self.rules))
        if bool(self.score) == bool(self.resolutions):
            found = "both" if self.score else "neither"
            raise ConfigError("problem", f"{found} of score and resolutions", "exactly one of them")
        self._check_tables()
        if not self.resolutions:
            set_(self, "score", self.tables[0].score)
            set_(self, "costs", self.tables[0].costs)
        self._check_names()
        for rule in self.rules:
            self._check_rule(rule)
        for genotype in self.forbidden:
            if len(genotype.choices) != self.num_positions:
                raise ConfigError("forbidden", str(genotype), f"{self.num_positions} choices")

        if self.base is not None:
            self._check_base(self.base)

    def _check_base(self, base: Genotype) -> None:
        labels = [table.resolution for table in self.tables]
        fits = base.resolution in labels and len(base.choices) == self.num_positions
        if not fits or any(not 0 <= c < n for c, n in zip(base.choices, self.num_choices, strict=True)):
            expected = f"a network with choices below {self.num_choices} at resolution {labels}"
            raise ConfigError("base", str(base), expected)

    def _check_tables(self) -> None:
        tables = self.tables
        labels = [table.resolution for table in tables]
        if self.resolutions and (None in labels or len(set(labels)) != len(labels)):
            raise ConfigError("resolutions", labels, "distinct sizes in pixels")
        for table in tables[1:]:
            if table.num_choices != tables[0].num_choices or set(table.costs) != set(tables[0].costs):
                raise ConfigError(
                    f"resolutions {table.resolution}",
                    f"choices {table.num_choices}, costs {sorted(table.costs)}",
                    f"those of the first table: {tables[0].num_choices}, {sorted(tables[0].costs)}",
                )

    def _check_names(self) -> None:
        for where, name in [*(("budgets", b.resource) for b in self.budgets), ("objective", self.objective.resource)]:
            if name is not None and name not in self.resources:
                raise ConfigError(
                    where, repr(name), f"a resource of the problem: {', '.join(self.resources) or 'none'}"
                )
        if self.positions and len(self.positions) != self.num_positions:
            raise ConfigError("positions", f"{len(self.positions)} names", f"{self.num_positions}, one per position")
        if not self.objective.is_additive:
            for table in self.tables:
                least = _least_total(table, cast(str, self.objective.resource))
                if least <= 0:
                    expected = "a total above zero in every network, since the objective divides by it"
                    raise ConfigError(f"costs.{self.objective.resource}", f"least total {least:g}", expected)
        counts = self.num_choices
        for first, second in self.pairs:
            for position, choice in (first, second):
                if not (0 <= position < len(counts) and 0 <= choice < counts[position]):
                    self._check_block((position, choice), "pairs")
            if first[0] == second[0]:
                raise ConfigError("pairs", (first, second), "blocks of two different positions")

    def _check_block(self, block: BlockId, where: str) -> None:
        position, choice = block
        if not (0 <= position < self.num_positions and 0 <= choice < self.num_choices[position]):
            raise ConfigError(where, block, f"a block (position, choice) of a problem with choices {self.num_choices}")

    def _check_rule(self, rule: Rule) -> None:
        for block in rule.blocks:
            self._check_block(block, f"rule {rule.kind}")
        if any(not 0 <= position < self.num_positions for position in rule.positions):
            raise ConfigError(f"rule {rule.kind}", rule.positions, f"positions 0 to {self.num_positions - 1}")
        if rule.kind == "implies" and not rule.blocks:
            raise ConfigError("rule implies", "no blocks", "the block that implies, then the blocks it needs")

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """One table per resolution; a single one without a label where there is no outer choice."""
        if self.resolutions:
            return self.resolutions
        table = Table(score=self.score, base_score=self.base_score, costs=self.costs, base_costs=self.base_costs)
        return (table,)

    def table(self, resolution: int | None) -> Table:
        """The table of one resolution; KeyError if there is none."""
        return {table.resolution: table for table in self.tables}[resolution]

    @property
    def num_choices(self) -> tuple[int, ...]:
        return self.tables[0].num_choices

    @property
    def num_positions(self) -> int:
        return len(self.num_choices)

    @property
    def num_networks(self) -> int:
        """prod n_i times the number of resolutions, limits and rules not applied."""
        return math.prod(self.num_choices) * len(self.tables)

    @property
    def resources(self) -> tuple[str, ...]:
        return tuple(self.tables[0].costs)

    def with_budgets(self, budgets: Iterable[Budget]) -> "SelectionProblem":
        """This problem under other limits."""
        return replace(self, budgets=tuple(budgets))


def _finite(value: float, where: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise IncompleteTableError(where, number, "a finite number")
    return number


class _Checked(tuple[tuple[float, ...], ...]):
    """Rows whose numbers are known to be finite floats: a problem under other limits does not look again."""


def _ragged(rows: Sequence[Sequence[float]], where: str) -> Ragged:
    if isinstance(rows, _Checked):
        return rows
    table = _Checked(tuple(map(float, row)) for row in rows)
    for position, row in enumerate(table):
        if not np.isfinite(row).all():
            choice = int(np.flatnonzero(~np.isfinite(row))[0])
            raise IncompleteTableError(f"{where}, position {position}, choice {choice}", row[choice], "a finite number")
    return table


def _genotype(item: Genotype | Sequence[int]) -> Genotype:
    return item if isinstance(item, Genotype) else Genotype(tuple(map(int, item)))


def _pairs(pairs: Mapping[Pair, float]) -> dict[Pair, float]:
    """Pairs in position order, numbers checked; the two orders of one pair add up."""
    ordered: dict[Pair, float] = {}
    for (first, second), value in pairs.items():
        pair = (first, second) if first <= second else (second, first)
        ordered[pair] = ordered.get(pair, 0.0) + _finite(value, f"pairs {pair}")
    return ordered


def _least_total(table: Table, resource: str) -> float:
    return table.base_costs.get(resource, 0.0) + math.fsum(min(row) for row in table.costs[resource])
