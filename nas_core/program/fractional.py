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

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nas_core.program.answers import Answer, Choices, Judge
from nas_core.program.linear import EPSILON, Floats, Ints, LinearProgram
from nas_core.program.result import Status

MAX_INTERVALS = 10_000
CAUTION = 1e-9  # share by which bounds on quotients are widened
ROUNDINGS = 16  # of the numbers that an interval's bound adds up
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
    starts = lp.starts_G1[:-1]
    everything = _Interval(
        int(np.minimum.reduceat(quotient.divisor_int_C, starts).sum()),
        int(np.maximum.reduceat(quotient.divisor_int_C, starts).sum()),
    )
    search = _Search(lp, quotient, judge, q_of, maximise)
    search.improve(answer)
    return search.run([everything])


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

    def run(self, intervals: list[_Interval]) -> Answer:
        excess, is_open = 0.0, False
        for _ in range(MAX_INTERVALS):
            if not intervals:
                break
            interval = intervals.pop()
            lp, constant, rounding = self._bounded(interval)
            answer = self.maximise(lp, self.judge)
            if answer.status is Status.INFEASIBLE:
                continue
            least_power = self.quotient.divisor(interval.low) ** self.quotient.exponent
            if answer.choices is None or answer.status is not Status.OPTIMAL:  # not proven, or out of time
                if answer.choices is not None and self.improve(answer):
                    intervals.append(interval)
                else:
                    is_open = True
                    excess = max(excess, (answer.bound + constant + rounding) / least_power)
                continue
            if self.improve(answer):
                intervals.append(interval)
            elif self.quotient.exponent < 1 and answer.bound + constant > rounding:
                intervals += self._split(interval, answer.choices)
        if intervals:
            excess, is_open = math.inf, True
        status = Status.FEASIBLE if is_open else Status.OPTIMAL
        return Answer(status=status, choices=self.choices, bound=self.q + excess, route=self.route)

    def _bounded(self, interval: _Interval) -> tuple[LinearProgram, float, float]:
        """The program of the linear upper bound of N - q* F^p over an interval, what it leaves out, its rounding.

        The program's error covers twice that rounding, so that networks it could hide are compared exactly.
        """
        quotient, q = self.quotient, self.q
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
        error_C = self.lp.error_C + EPSILON * (np.abs(self.lp.value_C) + 4 * np.abs(priced_C))
        lp = self.lp.with_floats(self.lp.value_C - priced_C, error_C)
        left_out = (quotient.offset, float(lp.offset), q * slope * quotient.base, q * at, q * slope * high)
        rounding = ROUNDINGS * EPSILON * sum(map(abs, left_out))
        lp.error_C[: lp.starts_G1[1]] += 2 * rounding
        constant = quotient.offset + float(lp.offset) - q * (slope * quotient.base + at)
        return (lp if quotient.exponent == 1 else self._within(lp, interval)), constant, rounding

    def _within(self, lp: LinearProgram, interval: _Interval) -> LinearProgram:
        rows = np.stack([self.quotient.divisor_int_C, -self.quotient.divisor_int_C])
        return replace(
            lp,
            rows_KC=np.concatenate([lp.rows_KC, rows]),
            limits_K=np.concatenate([lp.limits_K, [interval.high, -interval.low]]),
        )

    def _split(self, interval: _Interval, choices: Choices) -> list[_Interval]:
        """Two parts that meet at the network's F, or at the middle where that is an end already."""
        columns = self.lp.columns
        at = int(self.quotient.divisor_int_C[columns.columns(choices)].sum())
        if interval.low == interval.high:
            return []  # the bound is exact here, so this is rounding
        if not interval.low < at < interval.high or self.q < 0:
            at = (interval.low + interval.high) // 2
        return [_Interval(interval.low, at), _Interval(at + 1, interval.high)]
