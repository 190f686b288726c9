"""Solves one table's program with a quotient for its objective, exactly.

Maximise q(x) = N(x) / F(x)^p, with N linear (and pair terms), F > 0 a resource's total and 0 <= p <= 1.
MathNAS Eq. 6 is base - q'(x) Fbar^p with N = -(summed losses); the ratio of two totals is p = 1.

With q* the best value known, a better network has N - q* F^p > 0. On an
interval of F, the curved term has a linear upper bound: its chord where
q* >= 0 (then -q* F^p is convex), a tangent where q* < 0 (then it is concave). If the linear
program with that bound has no positive value, the interval holds nothing better.
Else its network either improves q*, or splits the interval at its own F, where
both bounds are tight. For p = 1 the bound is exact, nothing is ever split, and this is
Dinkelbach's method. The printed Charnes-Cooper form (Eq. 10-11) is not linear and not used.

q* is compared as exact fractions, and lambda reaches the linear program as floats whose
rounding is covered by its relaxation's ``error``: no coefficient can overflow.
"""

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from nas_core.program.answers import Answer, Choices, Effort, Judge
from nas_core.program.halves import CoreTooLargeError
from nas_core.program.linear import EPSILON, Floats, Ints, LinearProgram
from nas_core.program.ranking import LOWEST, Ranker
from nas_core.program.relaxation import FLOAT_ERROR, relax, shows_infeasible
from nas_core.program.result import Status

MAX_INTERVALS = 10_000
CAUTION = 1e-9  # share by which bounds on quotients are widened
ROUNDINGS = 16  # of the numbers that an interval's bound adds up
PARTS = 16  # intervals in which networks are listed where the exponent is broken
ENOUGH = 3  # times as many networks as wanted are listed at most before q is raised
MAX_STEPS, CLOSE = 8, 1e-4  # towards a good q, and by what share of it the last step has to go
Maximise = Callable[[LinearProgram, Judge], Answer]  # of the program's linear value (and pair terms)


@dataclass(frozen=True, kw_only=True)
class Quotient:
    """N = ``offset`` + the program's linear value (and pairs); F = ``base`` + ``divisor_C`` . x; exponent p.

    ``divisor_int_C`` is ``divisor_C`` in integers, ``scale`` integer units per unit of F.
    """

    offset: float
    base: float
    divisor_C: Floats
    divisor_int_C: Ints
    scale: float
    inexact: int  # units by which a network's integer total may fall short
    exponent: float

    def divisor(self, integer: int) -> float:
        """F of a network whose integer total is ``integer``."""
        return self.base + integer / self.scale


@dataclass(frozen=True)
class _Interval:
    low: int
    high: int


def best(
    lp: LinearProgram,
    quotient: Quotient,
    judge: Judge,
    q_of: Callable[[Choices], float],
    maximise: Maximise,
    deadline: float = math.inf,
    *,
    may_shrink: bool = True,
) -> Answer:
    """The network with the highest quotient. ``judge`` orders by the exact quotient, ``q_of`` gives it as a float.

    The answer's bound is of q. ``may_shrink``: columns and nothing else make up N, so those that no better
    network takes may leave.
    """
    answer = maximise(lp, judge)  # q* = 0
    if answer.choices is None:
        return answer
    if may_shrink:
        kept = _may_win(lp, quotient, q_of(answer.choices))
        lp = lp.keep(kept)
        quotient = replace(quotient, divisor_C=quotient.divisor_C[kept], divisor_int_C=quotient.divisor_int_C[kept])
    search = _Search(lp, quotient, judge, q_of, maximise)
    search.improve(answer)
    return search.run(_intervals(lp, quotient, 1), deadline)


def _intervals(lp: LinearProgram, quotient: Quotient, parts: int) -> list[_Interval]:
    """All totals that the divisor's integers may have, in about equal parts."""
    starts = lp.starts_G1[:-1]
    low = int(np.minimum.reduceat(quotient.divisor_int_C, starts).sum())
    high = int(np.maximum.reduceat(quotient.divisor_int_C, starts).sum())
    edges = [low + (high + 1 - low) * i // parts for i in range(parts + 1)]
    return [_Interval(a, b - 1) for a, b in itertools.pairwise(edges) if a < b]


def _may_win(lp: LinearProgram, quotient: Quotient, q: float) -> "np.typing.NDArray[np.bool_]":
    """Columns that could be in a network with a quotient above q, all others being at their best."""
    starts = lp.starts_G1[:-1]
    low = quotient.base + float(np.minimum.reduceat(quotient.divisor_C, starts).sum()) * (1 - CAUTION)
    high = quotient.base + float(np.maximum.reduceat(quotient.divisor_C, starts).sum()) * (1 + CAUTION)
    if not low > 0:
        return np.ones(len(lp.value_C), dtype=bool)
    gain_C = quotient.offset + lp.value_C
    gain_C += CAUTION * (abs(quotient.offset) + np.abs(lp.value_C))
    most_C = np.where(gain_C >= 0, gain_C / low**quotient.exponent, gain_C / high**quotient.exponent)
    kept = most_C * np.where(most_C > 0, 1 + CAUTION, 1 - CAUTION) >= q - CAUTION * abs(q)
    kept[np.flatnonzero(lp.value_C == 0)] = True
    return np.asarray(kept, dtype=bool)


class _Search:
    def __init__(
        self,
        lp: LinearProgram,
        quotient: Quotient,
        judge: Judge,
        q_of: Callable[[Choices], float],
        maximise: Maximise,
    ) -> None:
        self.lp, self.quotient, self.judge, self.q_of, self.maximise = lp, quotient, judge, q_of, maximise
        self.choices: Choices | None = None
        self.key: object = None
        self.q = -math.inf
        self.route = ""

    def improve(self, answer: Answer) -> bool:
        """Whether the answer's network is better than the best so far, which it then becomes."""
        assert answer.choices is not None, "the caller looks"
        key = self.judge(answer.choices)
        if self.choices is not None and not key > self.key:  # type: ignore[operator]  # keys of one judge compare
            return False
        self.choices, self.key, self.q = answer.choices, key, self.q_of(answer.choices)
        self.route = f"parametric, {answer.route}"
        return True

    def run(self, intervals: list[_Interval], deadline: float) -> Answer:
        most, is_open = -math.inf, False  # what the quotients of intervals left open are at most
        for _ in range(MAX_INTERVALS):
            if not intervals or time.monotonic() >= deadline:
                break
            interval, q = intervals.pop(), self.q
            lp, constant, rounding = _bounded(self.lp, self.quotient, q, interval)
            answer = self.maximise(lp, self.judge)
            if answer.status is Status.INFEASIBLE:
                continue
            if answer.choices is not None and self.improve(answer):
                intervals.append(interval)
            elif answer.status is not Status.OPTIMAL:
                is_open = True
                most = max(most, self._at_most(interval, answer.bound + constant + rounding))
            elif self.quotient.exponent < 1 and answer.bound + constant > rounding:
                assert answer.choices is not None, "it is optimal"
                intervals += self._split(interval, answer.choices)
        if intervals:
            most, is_open = max(most, self._bound_of(intervals)), True
        status = Status.FEASIBLE if is_open else Status.OPTIMAL
        return Answer(status=status, choices=self.choices, bound=max(self.q, most), route=self.route)

    def _at_most(self, interval: _Interval, excess: float) -> float:
        """What quotients of an interval are at most, where N - q* F^p is at most the excess."""
        return float(self.q + max(excess, 0.0) / self.quotient.divisor(interval.low) ** self.quotient.exponent)

    def _bound_of(self, intervals: list[_Interval]) -> float:
        """What quotients of intervals that were not looked at are at most: by one relaxation."""
        low, high = min(interval.low for interval in intervals), max(interval.high for interval in intervals)
        whole = _Interval(low, high)
        lp, constant, rounding = _bounded(self.lp, self.quotient, self.q, whole)
        relaxation = relax(lp)
        if relaxation is None:
            return -math.inf
        return self._at_most(whole, relaxation.bound + relaxation.error + constant + rounding)

    def _split(self, interval: _Interval, choices: Choices) -> list[_Interval]:
        """Two parts that meet at the network's F, or at the middle where that is an end already."""
        columns = self.lp.columns
        at = int(self.quotient.divisor_int_C[columns.columns(choices)].sum())
        if interval.low == interval.high:
            return []  # the bound is exact here, so this is rounding
        if not interval.low < at < interval.high or self.q < 0:
            at = (interval.low + interval.high) // 2
        return [_Interval(interval.low, at), _Interval(at + 1, interval.high)]


def _bounded(
    lp: LinearProgram, quotient: Quotient, q: float, interval: _Interval
) -> tuple[LinearProgram, float, float]:
    """The program of the linear upper bound of N - q F^p over an interval, what it leaves out, its rounding.

    The program's error covers twice that rounding, so that networks it could hide are compared exactly.
    """
    low, high = quotient.divisor(interval.low), quotient.divisor(interval.high + quotient.inexact)
    if quotient.exponent == 1:
        slope, at = 1.0, 0.0
    elif q >= 0 and high > low:
        slope = (high**quotient.exponent - low**quotient.exponent) / (high - low)
        at = low**quotient.exponent - slope * low
    else:
        middle = (low + high) / 2
        slope = quotient.exponent * middle ** (quotient.exponent - 1)
        at = middle**quotient.exponent - slope * middle
    priced_C = q * slope * quotient.divisor_C
    error_C = lp.error_C + EPSILON * (np.abs(lp.value_C) + 4 * np.abs(priced_C))
    priced = lp.with_floats(lp.value_C - priced_C, error_C)
    left_out = (quotient.offset, float(priced.offset), q * slope * quotient.base, q * at, q * slope * high)
    rounding = ROUNDINGS * EPSILON * sum(map(abs, left_out))
    priced.error_C[: lp.starts_G1[1]] += 2 * rounding
    constant = quotient.offset + float(priced.offset) - q * (slope * quotient.base + at)
    return (priced if quotient.exponent == 1 else _within(priced, quotient, interval)), constant, rounding


def _within(lp: LinearProgram, quotient: Quotient, interval: _Interval) -> LinearProgram:
    rows = np.stack([quotient.divisor_int_C, -quotient.divisor_int_C])
    return replace(
        lp,
        rows_KC=np.concatenate([lp.rows_KC, rows]),
        limits_K=np.concatenate([lp.limits_K, [interval.high, -interval.low]]),
    )


class Lister:
    """Lists the networks with the best quotients: with q the k-th best found, all that may be above q.

    Networks above q have N - q F^p > 0. Linear upper bounds of that over a few intervals of F are programs
    whose networks are listed down to 0; for p = 1 it is one program, of no other networks. Good networks, found
    without proof, say what q to take: the k-th best of them, again and again (Newton's steps, as Dinkelbach's).

    ``refuses``: single networks, by their columns, that are not allowed.
    """

    def __init__(
        self, lp: LinearProgram, quotient: Quotient, refuses: Callable[[Ints], bool] | None, effort: Effort
    ) -> None:
        self.lp, self.quotient, self.refuses, self.effort = lp, quotient, refuses, effort
        is_linear = quotient.exponent == 1
        self.wide = _intervals(lp, quotient, 1 if is_linear else 2)
        self.narrow = _intervals(lp, quotient, 1 if is_linear else PARTS)
        self.columns_SG: Ints = np.zeros((0, lp.num_groups), dtype=np.int64)

    def run(self, count: int) -> float:
        """Fill ``columns_SG``, in no order, with the best ``count``; what the quotient of any other is at most.

        That is minus infinity where as many were found as were asked for, or all.

        Raises:
            CoreTooLargeError: if a program may have no network at all.
        """
        q = self._good_quotient(count)
        while True:
            most = max(self._list_above(q, interval, count) for interval in self.narrow)
            better = self._least_of_best(count)
            if most == -math.inf or self.effort.left_s == 0 or not better > q:
                return most
            q = better

    def quotients(self) -> Floats:
        """[S] of the networks listed."""
        columns_SG, quotient = self.columns_SG, self.quotient
        gain_S = quotient.offset + self.lp.value_C[columns_SG].sum(axis=1)
        divisor_S = quotient.base + quotient.divisor_C[columns_SG].sum(axis=1)
        return np.asarray(gain_S / divisor_S**quotient.exponent)

    @cached_property
    def error(self) -> float:
        """What rounding can hide in a quotient."""
        size = abs(self.quotient.offset) + float(-np.minimum.reduceat(self.lp.value_C, self.lp.starts_G1[:-1]).sum())
        return float(FLOAT_ERROR * size / self.quotient.divisor(self.wide[0].low) ** self.quotient.exponent)

    def _least_of_best(self, count: int) -> float:
        """A quotient that ``count`` networks have at least; minus infinity where fewer are known."""
        values = self.quotients()
        if len(values) < count:
            return -math.inf
        return float(np.partition(values, len(values) - count)[len(values) - count]) - self.error

    def _good_quotient(self, count: int) -> float:
        """A quotient that ``count`` networks have at least, good ones though perhaps not the best."""
        q = 0.0
        for step in range(MAX_STEPS):
            for interval in self.wide:
                if step and self.effort.left_s == 0:
                    break
                ranker, _ = self._ranker(q, interval)
                if ranker is not None:
                    self._add(ranker.good(count).columns_SG)
            better = self._least_of_best(count)
            if step and not better > q + CLOSE * abs(q):
                return max(q, better)
            q = better
            if not math.isfinite(q) or self.effort.left_s == 0:
                break
        return q

    def _list_above(self, q: float, interval: _Interval, count: int) -> float:
        """Add the networks of an interval above q; what the quotients of its others are at most, if above q."""
        if self.effort.left_s == 0:
            return math.inf
        is_known = math.isfinite(q)
        q = q if is_known else 0.0
        ranker, constant = self._ranker(q, interval)
        if ranker is None:
            return -math.inf
        unit, wanted = float(ranker.whole.unit), ENOUGH * count
        listing = ranker.best(wanted, math.floor(-constant / unit) - 1 if is_known else LOWEST)
        self._add(listing.columns_SG)
        is_full = len(listing.value_S) >= wanted
        if listing.floor == LOWEST and not is_full:
            return -math.inf
        most = max(listing.floor, int(listing.value_S[wanted - 1]) if is_full else LOWEST) + ranker.whole.slack
        excess = max(most * unit + constant, 0.0)
        power = self.quotient.divisor(interval.low) ** self.quotient.exponent
        return float(q + excess / power * (1 + CAUTION) + self.error)

    def _ranker(self, q: float, interval: _Interval) -> tuple[Ranker | None, float]:
        """What lists an interval's networks by an upper bound on N - q F^p, and what that leaves out."""
        lp, constant, rounding = _bounded(self.lp, self.quotient, q, interval)
        relaxation = relax(lp)
        if relaxation is None or (relaxation.seems_infeasible and shows_infeasible(lp)):
            return None, 0.0
        if relaxation.seems_infeasible:
            raise CoreTooLargeError
        return Ranker(lp, relaxation, self.effort, self.refuses), constant + rounding

    def _add(self, columns_SG: Ints) -> None:
        self.columns_SG = np.unique(np.concatenate([self.columns_SG, columns_SG]), axis=0)
