"""The integer form of one table: columns, linear rows, limits.

maximise value_C . x  with one column per group, rows_KC x <= limits_K, x in {0, 1}

C = columns (block of a group), G = groups, K = rows, F = blocks of the table, flat in position order.
A group is one position, or several that an ``equal`` rule ties together. Limits
on totals come first among the rows, then the rules that concern several groups;
a rule about one group only removes columns.

Numbers become integers here and nowhere else, in units of the last decimal of
their table: exactly, however large. Blocks that fit beside no others leave
first. What remains is counted from each group's least cost and best value, so a
mask or an offset weighs only where it decides something. Where a row then does not
fit 61 bits it is rounded so that it admits every network that is within the
limit (``is_relaxed``), and the answers are checked with exact arithmetic.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_core.program.answers import Apart
from nas_core.program.exact import exact
from nas_core.program.problem import Budget, Ragged, SelectionProblem, Table
from nas_core.space.genotypes import BlockId, Rule

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Exact = npt.NDArray[Any]  # int64, or Python integers (dtype object)

MAX_TOTAL = 1 << 61  # a row's total, and so any partial sum, fits int64 with room for one subtraction
EPSILON = 2.0**-52
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

    def gather(self, flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
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

    def apart_row(self, apart: Apart) -> tuple[Ints, int]:
        """``row . x <= limit``: at most M - distance positions agree with the other network."""
        agree_C = np.zeros(self.num_columns, dtype=np.int64)
        for positions, low, high in zip(self.groups, self.starts_G1[:-1], self.starts_G1[1:], strict=True):
            for position in positions:  # of tied positions each counts
                agree_C[low:high] += self.choice_C[low:high] == apart.choices[position]
        return agree_C, len(apart.choices) - apart.distance

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
    """See the module.

    Args:
        value_C: value of a column less its group's best at the start, so at most 0; each rounded once.
        exact_C: the same without rounding, integers in ``unit`` (int64, or Python's where they do not fit);
            None where the values are floats by themselves (a quotient's bound).
        offset: the groups' bests at the start, summed: what value_C leaves out.
        error_C: what rounding can hide in each value.
        rows_KC, limits_K: >= 0, each row less its least entry of every group.
        is_relaxed: the rows may admit networks that exact arithmetic refuses.
    """

    columns: Columns
    value_C: Floats
    exact_C: Exact | None
    unit: Fraction
    offset: Fraction
    error_C: Floats
    rows_KC: Ints
    limits_K: Ints
    is_relaxed: bool

    @property
    def starts_G1(self) -> Ints:  # noqa: N802 - axes end the name
        return self.columns.starts_G1

    @property
    def num_groups(self) -> int:
        return len(self.columns.groups)

    @cached_property
    def integers_C(self) -> Ints | None:  # noqa: N802 - axes end the name
        """Values in ``unit``, exactly, whose totals fit int64; None if they do not."""
        if self.exact_C is None:
            return None
        if self.exact_C.dtype != object:
            return self.exact_C
        total = sum(np.minimum.reduceat(self.exact_C, self.starts_G1[:-1]).tolist())
        return self.exact_C.astype(np.int64) if -total < MAX_TOTAL else None

    @cached_property
    def rounding(self) -> float:
        """What rounding can hide in a network's summed values, the sum's own rounding left out."""
        return float(np.maximum.reduceat(self.error_C, self.starts_G1[:-1]).sum())

    def value_of(self, columns_G: Ints) -> float:
        """Linear value of one network, the offset left out."""
        return float(self.value_C[columns_G].sum())

    def keep(self, kept_C: npt.NDArray[np.bool_]) -> "LinearProgram":
        """This program without the other columns."""
        return replace(
            self,
            columns=self.columns.keep(kept_C),
            value_C=self.value_C[kept_C],
            exact_C=None if self.exact_C is None else self.exact_C[kept_C],
            error_C=self.error_C[kept_C],
            rows_KC=self.rows_KC[:, kept_C],
        )

    def with_apart(self, apart: Sequence[Apart]) -> "LinearProgram":
        """This program with a row for every network to keep away from."""
        if not apart:
            return self
        rows, limits = zip(*map(self.columns.apart_row, apart), strict=True)
        return replace(
            self,
            rows_KC=np.concatenate([self.rows_KC, np.array(rows)]),
            limits_K=np.concatenate([self.limits_K, np.array(limits)]),
        )

    def with_floats(self, value_C: Floats, error_C: Floats) -> "LinearProgram":
        """This program with other values, known up to ``error_C``; shifted to be at most 0."""
        top_G = np.maximum.reduceat(value_C, self.starts_G1[:-1])
        top_C = np.repeat(top_G, np.diff(self.starts_G1))
        return replace(
            self,
            value_C=value_C - top_C,
            exact_C=None,
            error_C=error_C + EPSILON * (np.abs(value_C) + np.abs(top_C)),
            offset=sum(map(Fraction, top_G.tolist()), Fraction(0)),
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
    groups: dict[int, list[int]] = {}
    for position in range(num_positions):
        groups.setdefault(root(position), []).append(position)
    return tuple(map(tuple, groups.values()))


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
class Decimals:
    """[F] numbers of a table without rounding: ``integers`` / 10^``decimals``.

    int64 where a network's total fits 61 bits, else Python's integers (dtype object).
    """

    integers: Exact
    decimals: int

    @property
    def is_int64(self) -> bool:
        return self.integers.dtype != object

    @property
    def scale(self) -> Fraction:
        return Fraction(10**self.decimals)

    def part(self, begin: int, end: int) -> "Decimals":
        return replace(self, integers=self.integers[begin:end])


def decimals_of(flat: Floats, count: int) -> Decimals:
    """The decimals that are printed for the numbers, of which ``count`` may be added up."""
    largest = float(np.abs(flat).max(initial=0.0)) * count or 1.0
    for decimals in range(MAX_DECIMALS + 1):
        power = 10.0**decimals
        if largest * power >= min(MAX_TOTAL, count << 52):
            break
        scaled = np.rint(flat * power)
        if np.array_equal(scaled / power, flat):  # division rounds correctly, so this is equality of decimals
            return Decimals(integers=scaled.astype(np.int64), decimals=decimals)
    return _by_digits(flat, count)


def _by_digits(flat: Floats, count: int) -> Decimals:
    """Slower: numbers with more digits than the vectorised test carries."""
    digits = [_digits(repr(value)) for value in flat.tolist()]
    decimals = max(0, max(-exponent for _, exponent in digits))
    integers = [number * 10 ** (exponent + decimals) for number, exponent in digits]
    fits = max(map(abs, integers)) * count < MAX_TOTAL
    return Decimals(integers=np.array(integers, dtype=np.int64 if fits else object), decimals=decimals)


def _digits(text: str) -> tuple[int, int]:
    """(n, e) of a printed float, which is n * 10^e."""
    mantissa, _, exponent = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    return int(whole + fraction), int(exponent or 0) - len(fraction)


def budget_row(budget: Budget, costs: Decimals, base: Fraction, columns: Columns) -> tuple[Exact, int]:
    """A one-sided budget as ``row . x <= limit``, exactly."""
    row = columns.gather(costs.integers)
    if budget.at_most is not None:
        return row, math.floor((exact(float(budget.at_most)) - base) * costs.scale)
    assert budget.at_least is not None, "one side is given"
    return -row, -math.ceil((exact(float(budget.at_least)) - base) * costs.scale)


def _possible(columns: Columns, rows_KC: Exact, limits_K: Exact) -> tuple[Ints, Exact, Exact] | None:
    """Columns that fit beside the cheapest of all other groups, and rows and limits less each group's least entry.

    Exact, and repeated until nothing leaves. None if no network is within one of the rows.
    """
    alive, starts = np.arange(columns.num_columns), columns.starts_G1[:-1]
    group_C = columns.group_C
    while True:
        least_KG = np.minimum.reduceat(rows_KC, starts, axis=1)
        room_K = limits_K - least_KG.sum(axis=1)
        if (room_K < 0).any():
            return None
        shifted_KC = rows_KC - least_KG[:, group_C]
        kept_C = (shifted_KC <= room_K[:, None]).all(axis=0)
        if kept_C.all():
            return alive, shifted_KC, room_K
        alive, rows_KC, group_C = alive[kept_C], rows_KC[:, kept_C], group_C[kept_C]
        starts = np.searchsorted(group_C, np.arange(len(columns.groups)))
        if not np.bincount(group_C, minlength=len(columns.groups)).all():
            return None


def _to_int64(starts: Ints, rows_KC: Exact, room_K: Exact) -> tuple[Ints, Ints, bool]:
    """Only the rows that some network breaks, in the largest common unit; rounded down if they do not fit 61 bits.

    Rounded down, a row admits every network that is within the limit. Returns whether one was.
    """
    worst_K = np.maximum.reduceat(rows_KC, starts, axis=1).sum(axis=1)
    binding_K = worst_K > room_K
    rows, rooms, is_relaxed = [], [], False
    for row_C, room, worst in zip(rows_KC[binding_K], room_K[binding_K].tolist(), worst_K[binding_K], strict=True):
        unit = int(np.gcd.reduce(row_C))
        row_C, room, worst = row_C // unit, room // unit, int(worst) // unit
        bits = max(0, worst.bit_length() - 61)
        is_relaxed |= bits > 0
        rows.append((row_C >> bits).astype(np.int64))
        rooms.append(room >> bits)
    return (
        np.array(rows, dtype=np.int64).reshape(len(rows), rows_KC.shape[1]),
        np.array(rooms, dtype=np.int64),
        is_relaxed,
    )


class TableProgram:
    """Everything about one table that does not depend on the limits or the objective, made once.

    ``columns`` is None where the rules alone leave no network.
    """

    def __init__(self, problem: SelectionProblem, table: Table) -> None:
        self.table = table
        self._costs: dict[str, Decimals] = {}
        made = columns_of(table.num_choices, problem.rules)
        self.columns = None if made is None else made[0]
        self._rule_rows = [] if made is None else [rule_row(rule, made[0]) for rule in made[1]]
        score_F, pair_values = flatten(table.score), [float(value) for value in problem.pairs.values()]
        pairs_of_positions = math.comb(len(table.score), 2) if pair_values else 0
        terms = decimals_of(np.append(score_F, pair_values), len(table.score) + pairs_of_positions)
        self.scores, self.pair_values = terms.part(0, len(score_F)), terms.part(len(score_F), len(terms.integers))

    def cost_F(self, resource: str) -> Floats:  # noqa: N802 - axes end the name
        """[F] entries of a resource, unscaled."""
        return flatten(self.table.costs[resource])

    def decimals(self, resource: str) -> Decimals:
        if resource not in self._costs:
            self._costs[resource] = decimals_of(self.cost_F(resource), len(self.table.score))
        return self._costs[resource]

    def linear(self, budgets: Iterable[Budget], own_C: Exact | None = None) -> LinearProgram | None:
        """The program that maximises the scores within budgets and rules; None if a row alone excludes all networks.

        Blocks that no network within the limits can take leave before anything is scaled.
        ``own_C``: what columns add to their scores, in the scores' unit.
        """
        assert self.columns is not None, "the caller looks"
        columns, value_C = self.columns, self.columns.gather(self.scores.integers)
        value_C = value_C if own_C is None else value_C + own_C
        bases = {name: exact(self.table.base_costs.get(name, 0.0)) for name in self.table.costs}
        sides = [side for budget in budgets for side in budget.sides()]
        rows = [budget_row(s, self.decimals(s.resource), bases[s.resource], columns) for s in sides] + self._rule_rows
        fits = all(row.dtype != object for row, _ in rows)
        kind = np.int64 if fits else object
        rows_KC = np.array([row for row, _ in rows], dtype=kind).reshape(len(rows), columns.num_columns)
        limits_K = np.array([_clip(limit) if fits else limit for _, limit in rows], dtype=kind)
        possible = _possible(columns, rows_KC, limits_K)
        if possible is None:
            return None
        alive, shifted_KC, room_K = possible
        if len(alive) < columns.num_columns:
            kept_C = np.zeros(columns.num_columns, dtype=bool)
            kept_C[alive] = True
            columns, value_C = columns.keep(kept_C), value_C[alive]
        rows_KC, limits_K, is_relaxed = _to_int64(columns.starts_G1[:-1], shifted_KC, room_K)
        top_G = np.maximum.reduceat(value_C, columns.starts_G1[:-1])
        loss_C = np.repeat(top_G, np.diff(columns.starts_G1)) - value_C
        unit = int(np.gcd.reduce(loss_C)) or 1
        floats_C = -quotients(loss_C, 10**self.scores.decimals)
        return LinearProgram(
            columns=columns,
            value_C=floats_C,
            exact_C=-(loss_C // unit),
            unit=Fraction(unit, 10**self.scores.decimals),
            offset=Fraction(sum(top_G.tolist()), 10**self.scores.decimals),
            error_C=-2 * EPSILON * floats_C,
            rows_KC=rows_KC,
            limits_K=limits_K,
            is_relaxed=is_relaxed,
        )


def _clip(limit: int) -> int:
    """A limit beyond every total is as good as one just beyond."""
    return max(-2 * MAX_TOTAL + 1, min(2 * MAX_TOTAL - 1, limit))


def float_program(starts: Ints, value_C: Floats, rows_KC: Floats | Ints, limits_K: Floats | Ints) -> LinearProgram:
    """A program for the relaxation alone: any numbers, columns from ``starts`` on for each group."""
    count = len(value_C)
    columns = Columns(
        groups=tuple((g,) for g in range(len(starts) - 1)),
        starts_G1=starts,
        choice_C=np.arange(count),
        member=np.arange(count),
        member_start_C=np.arange(count),
    )
    return LinearProgram(
        columns=columns,
        value_C=value_C,
        exact_C=None,
        unit=Fraction(1),
        offset=Fraction(0),
        error_C=np.zeros(count),
        rows_KC=rows_KC,  # type: ignore[arg-type]  # the relaxation takes any numbers
        limits_K=limits_K,  # type: ignore[arg-type]
        is_relaxed=True,
    )


def quotients(integers: Exact, divisor: int) -> Floats:
    """The integers over the divisor, as floats that are off by two roundings at most."""
    if integers.dtype != object and divisor <= 10**22:  # exact as a float
        return integers.astype(np.float64) / float(divisor)
    return np.array([integer / divisor for integer in integers.tolist()], dtype=np.float64)
