"""The integer form of one table: columns, linear rows, limits.

maximise value_C . x  with one column per group, rows_KC x <= limits_K, x in {0, 1}

C = columns (block of a group), G = groups, K = rows, F = blocks of the table, flat in position order.
A group is one position, or several that an ``equal`` rule ties together. Limits
on totals come first among the rows, then the rules that concern several groups;
a rule about one group only removes columns.

Costs become integers here and nowhere else: exactly, in units of the last
decimal of their table, where that fits 62 bits; else rounded so that a row
admits every network that is within the limit (``is_relaxed``), and the answers
are checked with exact arithmetic.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nas_core.program.exact import exact
from nas_core.program.problem import Budget, Ragged, SelectionProblem, Table
from nas_core.space.genotypes import BlockId, Rule

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_TOTAL = 1 << 61  # a row's total, and so any partial sum, fits int64 with room for one subtraction
MAX_DECIMALS = 15  # decimals that a float can carry through the vectorised test


def flatten(rows: Ragged) -> Floats:
    """[F] entries of a ragged table in position order."""
    return np.fromiter((value for row in rows for value in row), dtype=np.float64, count=sum(map(len, rows)))


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which blocks can be taken: groups of tied positions, and the columns that unary rules leave.

    Args:
        groups: positions of each group.
        starts_G1: first column of each group, and the number of columns at the end.
        choice_C: choice that a column takes at every position of its group.
        member: flat block indices of every column, column after column.
        member_start_C: where a column's members start.
    """

    groups: tuple[tuple[int, ...], ...]
    starts_G1: Ints
    choice_C: Ints
    member: Ints
    member_start_C: Ints

    @property
    def num_columns(self) -> int:
        return len(self.choice_C)

    @cached_property
    def group_C(self) -> Ints:  # noqa: N802 - axes end the name
        """Group of every column."""
        return np.repeat(np.arange(len(self.groups)), np.diff(self.starts_G1))

    @cached_property
    def _index(self) -> dict[tuple[int, int], int]:
        return {(int(g), int(c)): i for i, (g, c) in enumerate(zip(self.group_C, self.choice_C, strict=True))}

    @cached_property
    def _group_of(self) -> dict[int, int]:
        return {position: g for g, positions in enumerate(self.groups) for position in positions}

    def column(self, block: BlockId) -> int | None:
        """The column that takes a block; None if no network does."""
        return self._index.get((self._group_of[block[0]], block[1]))

    def gather(self, flat: npt.NDArray[np.number]) -> npt.NDArray[np.number]:
        """[F] per block -> [C] per column, summed over tied positions."""
        if len(self.groups) == len(self._group_of):
            return flat[self.member]
        return np.add.reduceat(flat[self.member], self.member_start_C)

    def choices(self, columns_G: Sequence[int] | Ints) -> tuple[int, ...]:
        """One column per group -> one choice per position."""
        choice = {}
        for positions, column in zip(self.groups, columns_G, strict=True):
            for position in positions:
                choice[position] = int(self.choice_C[column])
        return tuple(choice[position] for position in range(len(choice)))

    def columns(self, choices: Sequence[int]) -> Ints:
        """One choice per position -> [G] the columns taken; KeyError if a tie or a rule excludes the network."""
        index = self._index
        taken = [index[g, choices[positions[0]]] for g, positions in enumerate(self.groups)]
        if self.choices(taken) != tuple(choices):
            raise KeyError(choices)  # tied positions that differ
        return np.array(taken, dtype=np.int64)

    def keep(self, kept_C: npt.NDArray[np.bool_]) -> "Columns":
        """Only the columns where ``kept_C``; a group may end up empty."""
        sizes = np.diff(np.append(self.member_start_C, len(self.member)))
        starts = np.concatenate(
            [[0], np.cumsum(np.add.reduceat(np.append(kept_C, False).astype(np.int64), self.starts_G1[:-1]))]
        )
        kept_sizes = sizes[kept_C]
        return Columns(
            groups=self.groups,
            starts_G1=starts.astype(np.int64),
            choice_C=self.choice_C[kept_C],
            member=self.member[np.repeat(kept_C, sizes)],
            member_start_C=np.cumsum(kept_sizes) - kept_sizes,
        )


@dataclass(frozen=True, kw_only=True)
class LinearProgram:
    """See the module. ``is_relaxed``: the rows may admit networks that exact arithmetic refuses."""

    columns: Columns
    value_C: Floats
    rows_KC: Ints
    limits_K: Ints
    is_relaxed: bool

    @property
    def starts_G1(self) -> Ints:  # noqa: N802 - axes end the name
        return self.columns.starts_G1

    @property
    def num_groups(self) -> int:
        return len(self.columns.groups)

    def value_of(self, columns_G: Ints) -> float:
        """Linear value of one network."""
        return float(self.value_C[columns_G].sum())

    def keep(self, kept_C: npt.NDArray[np.bool_]) -> "LinearProgram":
        """This program without the other columns."""
        return replace(
            self, columns=self.columns.keep(kept_C), value_C=self.value_C[kept_C], rows_KC=self.rows_KC[:, kept_C]
        )


def columns_of(num_choices: Sequence[int], rules: Iterable[Rule]) -> tuple[Columns, list[Rule]] | None:
    """The columns that ``equal`` and unary rules leave, and the rules that are left; None if a group has no column."""
    groups = _groups(len(num_choices), rules)
    offsets = np.concatenate([[0], np.cumsum(num_choices)])
    counts = [min(num_choices[position] for position in group) for group in groups]
    sizes = np.repeat([len(group) for group in groups], counts)
    member = [
        offsets[position] + choice
        for group, n in zip(groups, counts, strict=True)
        for choice in range(n)
        for position in group
    ]
    columns = Columns(
        groups=groups,
        starts_G1=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        choice_C=np.concatenate([np.arange(n) for n in counts]),
        member=np.array(member, dtype=np.int64),
        member_start_C=(np.cumsum(sizes) - sizes).astype(np.int64),
    )
    rest = [rule for rule in rules if rule.kind != "equal"]
    kept = np.ones(columns.num_columns, dtype=bool)
    several = [rule for rule in rest if not _apply_unary(rule, columns, kept)]
    if not kept.all():
        columns = columns.keep(kept)
    return None if (np.diff(columns.starts_G1) == 0).any() else (columns, several)


def _groups(num_positions: int, rules: Iterable[Rule]) -> tuple[tuple[int, ...], ...]:
    """Positions joined by ``equal`` rules, in order of their first position."""
    parent = list(range(num_positions))

    def root(position: int) -> int:
        while parent[position] != position:
            position = parent[position]
        return position

    for rule in rules:
        if rule.kind == "equal":
            for position in rule.positions[1:]:
                first, second = sorted((root(rule.positions[0]), root(position)))
                parent[second] = first
    roots = [root(position) for position in range(num_positions)]
    return tuple(tuple(p for p in range(num_positions) if roots[p] == r) for r in dict.fromkeys(roots))


def _apply_unary(rule: Rule, columns: Columns, kept: npt.NDArray[np.bool_]) -> bool:
    """Remove columns where the rule concerns one group only; False if it needs a row."""
    found = [columns.column(block) for block in rule.blocks]
    present = sorted({column for column in found if column is not None})
    match rule.kind:
        case "forbid":
            if None in found:
                return True  # one of the blocks is never taken, so never all of them
            if len(present) == 1:
                kept[present] = False
            return len(present) == 1 or len({int(columns.group_C[c]) for c in present}) < len(present)
        case "require":
            groups = {int(columns.group_C[column]) for column in present}
            if len(groups) == 1:
                group = groups.pop()
                others = set(range(columns.starts_G1[group], columns.starts_G1[group + 1])) - set(present)
                kept[sorted(others)] = False
                return True
        case "at_most":
            if rule.count <= 0:
                kept[present] = False
                return rule.count == 0
        case "implies":
            return found[0] is None
    return False


def rule_row(rule: Rule, columns: Columns) -> tuple[Ints, int]:
    """A rule as ``row . x <= limit``."""
    row = np.zeros(columns.num_columns, dtype=np.int64)
    found = [columns.column(block) for block in rule.blocks]
    distinct = {column for column in found if column is not None}
    match rule.kind:
        case "forbid":
            row[sorted(distinct)] = 1
            return row, (len(distinct) - 1 if None not in found else len(distinct))
        case "require":
            row[sorted(distinct)] = -1
            return row, -1
        case "at_most":
            for column in found:  # a block named twice counts twice, as in Rule.allows
                if column is not None:
                    row[column] += 1
            return row, rule.count
        case "implies":
            needed = sorted({column for column in found[1:] if column is not None})
            if found[0] is not None and found[0] not in needed:
                row[found[0]] = 1
                row[needed] = -1
            return row, 0
        case "equal":
            raise AssertionError("equal rules join positions into groups")


@dataclass(frozen=True, kw_only=True)
class IntegerCosts:
    """A resource's table in integers: the true entry times ``scale``, rounded down where not ``is_exact``."""

    flat: Ints
    base: Fraction
    scale: Fraction
    is_exact: bool
    num_positions: int

    def upper_limit(self, at_most: float) -> int:
        """Largest integer total of a network that is within the bound."""
        return math.floor((exact(float(at_most)) - self.base) * self.scale)

    def lower_limit(self, at_least: float) -> int:
        """Smallest integer total that a network within the bound can have."""
        least = math.ceil((exact(float(at_least)) - self.base) * self.scale)
        return least if self.is_exact else least - self.num_positions  # every entry was rounded down


def integer_costs(table: Table, resource: str) -> IntegerCosts:
    """The resource's entries as integers, exactly if their totals fit 61 bits."""
    rows = table.costs[resource]
    flat, base = flatten(rows), exact(table.base_costs.get(resource, 0.0))
    largest = float(np.abs(flat).max(initial=0.0)) * len(rows) or 1.0
    for decimals in range(MAX_DECIMALS + 1):
        power = 10.0**decimals
        if largest * power >= min(MAX_TOTAL, len(rows) << 52):
            break
        scaled = np.rint(flat * power)
        if np.array_equal(scaled / power, flat):  # division rounds correctly, so this is equality of decimals
            return IntegerCosts(
                flat=scaled.astype(np.int64),
                base=base,
                scale=Fraction(10**decimals),
                is_exact=True,
                num_positions=len(rows),
            )
    return _costs_by_decimals(flat, base, len(rows))


def _costs_by_decimals(flat: Floats, base: Fraction, num_positions: int) -> IntegerCosts:
    """Slower: entries with more digits than the vectorised test carries, or whose sum is beyond a float."""
    exponents = [-int(Decimal(repr(value)).as_tuple().exponent) for value in flat.tolist()]
    scale = Fraction(10) ** max(exponents)
    largest = (exact(float(np.abs(flat).max(initial=0.0))) or Fraction(1)) * num_positions
    is_exact = largest * scale < MAX_TOTAL
    if not is_exact:
        room = MAX_TOTAL / largest
        scale = Fraction(2) ** (room.numerator.bit_length() - room.denominator.bit_length() - 2)
    integers = np.array([math.floor(exact(value) * scale) for value in flat.tolist()], dtype=np.int64)
    return IntegerCosts(flat=integers, base=base, scale=scale, is_exact=is_exact, num_positions=num_positions)


def budget_row(budget: Budget, costs: IntegerCosts, columns: Columns) -> tuple[Ints, int]:
    """A one-sided budget as ``row . x <= limit``."""
    row = columns.gather(costs.flat).astype(np.int64)
    if budget.at_most is not None:
        return row, _clip(costs.upper_limit(budget.at_most))
    assert budget.at_least is not None, "one side is given"
    return -row, -_clip(costs.lower_limit(budget.at_least))


def _clip(limit: int) -> int:
    """A limit beyond every total is as good as one just beyond."""
    return max(-2 * MAX_TOTAL + 1, min(2 * MAX_TOTAL - 1, limit))


class TableProgram:
    """Everything about one table that does not depend on the limits or the objective, made once.

    ``columns`` is None where the rules alone leave no network.
    """

    def __init__(self, problem: SelectionProblem, table: Table) -> None:
        self.table = table
        self._costs: dict[str, IntegerCosts] = {}
        made = columns_of(table.num_choices, problem.rules)
        self.columns = None if made is None else made[0]
        self._rule_rows = [] if made is None else [rule_row(rule, made[0]) for rule in made[1]]
        self.score_F = flatten(table.score)

    def cost_F(self, resource: str) -> Floats:  # noqa: N802 - axes end the name
        """[F] entries of a resource, unscaled."""
        return flatten(self.table.costs[resource])

    def integers(self, resource: str) -> IntegerCosts:
        if resource not in self._costs:
            self._costs[resource] = integer_costs(self.table, resource)
        return self._costs[resource]

    def linear(self, value_F: Floats, budgets: Iterable[Budget]) -> LinearProgram:
        """The program that maximises ``value_F`` within the budgets and rules."""
        assert self.columns is not None, "the caller looks"
        sides = [side for budget in budgets for side in budget.sides()]
        rows = [budget_row(side, self.integers(side.resource), self.columns) for side in sides] + self._rule_rows
        count = self.columns.num_columns
        return LinearProgram(
            columns=self.columns,
            value_C=self.columns.gather(value_F).astype(np.float64),
            rows_KC=np.array([row for row, _ in rows], dtype=np.int64).reshape(len(rows), count),
            limits_K=np.array([limit for _, limit in rows], dtype=np.int64),
            is_relaxed=any(not self.integers(side.resource).is_exact for side in sides),
        )
