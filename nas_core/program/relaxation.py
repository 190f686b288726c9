"""The linear relaxation: its multipliers, a proven bound, and what each column loses against it.

For any multipliers lambda >= 0, every network x within the limits satisfies

    value(x) = bound - sum of the losses of its columns - lambda . slack(x)

with bound = sum_g max_j (v_j - lambda . a_j) + lambda . limits and the loss of
column j = its group's maximum minus its own v_j - lambda . a_j (its reduced
cost). So the bound holds whatever rounding the multipliers carry, and a
column that loses more than (bound - value of a known network) is in no better
network: reduced-cost fixing.

The bound as a function of the multipliers, the Lagrangian dual, is convex and
piecewise linear, and its subgradient is the slack of the columns that attain the
maxima. Over one multiplier its minimum is found by intersecting the two
supporting lines that bracket it, again and again (finite, about eight rounds);
over several by nesting: the minimum over the first multipliers is itself such a
function of the next, and the mix of slacks that is zero in the first gives its
subgradient. For up to ``MAX_NESTED`` limits with a price this costs a fraction of
the LP, which is solved (HiGHS, through scipy) for more.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import numpy as np

from nas_core.program.linear import EPSILON, Floats, Ints, LinearProgram

MAX_NESTED = 3
MAX_ROUNDS = 60
TOLERANCE = 1e-13  # of the dual's magnitude
FLOAT_ERROR = 1e-12  # of summed magnitudes, where a sum has few thousand terms: far above what it can round away
PRICE_BITS = 40  # of a multiplier in an exact bound
LEAST_MULTIPLIER = 1e-290  # of smaller ones, products lose more digits than ``FLOAT_ERROR`` and ``EPSILON`` say


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """``best_G``: the column of each group that loses nothing. ``error``: what float rounding can hide in a loss.

    ``seems_infeasible``: the linear relaxation has no solution, as far as floats can tell.
    """

    duals_K: Floats
    bound: float
    loss_C: Floats
    best_G: Ints
    slack_K: Ints  # limits minus the total of the best columns; negative where these break a limit
    error: float
    seems_infeasible: bool = False


def relax(lp: LinearProgram) -> Relaxation | None:
    """The relaxation of a program; None if one row alone shows that no network is within the limits."""
    least_K = np.minimum.reduceat(lp.rows_KC, lp.starts_G1[:-1], axis=1).sum(axis=1)
    if (least_K > lp.limits_K).any():
        return None
    free = with_duals(lp, np.zeros(len(lp.limits_K)))
    if (free.slack_K >= 0).all():
        return free
    most_K = np.maximum.reduceat(lp.rows_KC, lp.starts_G1[:-1], axis=1).sum(axis=1)
    duals_K = multipliers(lp, np.flatnonzero(most_K > lp.limits_K))
    return replace(free, seems_infeasible=True) if duals_K is None else with_duals(lp, duals_K)


def with_duals(lp: LinearProgram, duals_K: Floats) -> Relaxation:
    """The bound and losses that the given multipliers prove."""
    reduced_C = lp.value_C - duals_K @ lp.rows_KC
    starts = lp.starts_G1[:-1]
    top_G = np.maximum.reduceat(reduced_C, starts)
    loss_C = np.repeat(top_G, np.diff(lp.starts_G1)) - reduced_C
    zero = np.flatnonzero(loss_C == 0)
    best_G = zero[np.searchsorted(zero, starts)]
    slack_K = lp.limits_K - lp.rows_KC[:, best_G].sum(axis=1)
    magnitude_C = np.abs(lp.value_C) + duals_K @ np.abs(lp.rows_KC)
    magnitude = float(np.maximum.reduceat(magnitude_C, starts).sum() + duals_K @ np.abs(lp.limits_K))
    return Relaxation(
        duals_K=duals_K,
        bound=float(top_G.sum() + duals_K @ lp.limits_K),
        loss_C=loss_C,
        best_G=best_G,
        slack_K=slack_K,
        error=(lp.num_groups + len(lp.limits_K) + 8) * EPSILON * magnitude + lp.rounding,
    )


def exact_bound(lp: LinearProgram, duals_K: Floats) -> int | None:
    """No network has a higher value, in the program's integers: the bound of rounded multipliers, without rounding.

    None where the program's values are floats.
    """
    if lp.exact_C is None:
        return None
    prices = [round(Fraction(dual) / lp.unit * (1 << PRICE_BITS)) for dual in duals_K.tolist()]
    used = [k for k, price in enumerate(prices) if price > 0]
    reduced_C = lp.exact_C.astype(object) * (1 << PRICE_BITS)
    for k in used:
        reduced_C = reduced_C - lp.rows_KC[k].astype(object) * prices[k]
    total = sum(np.maximum.reduceat(reduced_C, lp.starts_G1[:-1]).tolist())
    total += sum(prices[k] * int(lp.limits_K[k]) for k in used)
    return math.floor(Fraction(total, 1 << PRICE_BITS))


def multipliers(lp: LinearProgram, priced: Ints) -> Floats | None:
    """[K] multipliers that minimise the dual, zero for rows not in ``priced``; None if it seems to have no minimum."""
    duals_K = np.zeros(len(lp.limits_K))
    found = _nested(lp, priced) if len(priced) <= MAX_NESTED else _by_linear_program(lp, priced)
    if found is None:
        return None
    duals_K[priced] = found
    return without_smallest(duals_K)


def without_smallest(lambda_K: Floats) -> Floats:
    """The multipliers, those that are negative or too small for sums with a known error as zero; bounds hold by any."""
    return np.where(lambda_K >= LEAST_MULTIPLIER, lambda_K, 0.0)


class Dual(Protocol):
    """A convex function of the multipliers.

    ``step``: order of magnitude of a multiplier; ``magnitude``: of the function.
    """

    step: float
    magnitude: float

    def at(self, lambda_K: Floats) -> tuple[float, Floats]:
        """Its value and a subgradient."""


class _Dual:
    """The dual on padded arrays [G][n]; costs scaled so that all multipliers are of the values' order."""

    def __init__(self, lp: LinearProgram, priced: Ints) -> None:
        starts, sizes = lp.starts_G1[:-1], np.diff(lp.starts_G1)
        width = int(sizes.max())
        index_GN = np.minimum(starts[:, None] + np.arange(width), (starts + sizes - 1)[:, None])  # pad with the last
        rows = lp.rows_KC[priced].astype(np.float64)
        self.scale_K = np.maximum(np.abs(rows).max(axis=1), 1.0)
        self.value_GN = lp.value_C[index_GN]
        self.rows_KGN = (rows / self.scale_K[:, None])[:, index_GN]
        self.limits_K = lp.limits_K[priced] / self.scale_K
        self.magnitude = float(np.abs(self.value_GN).max(axis=1).sum()) or 1.0
        self.step = max(float(np.ptp(lp.value_C)), 1e-300)
        self.groups = np.arange(len(starts))

    def at(self, lambda_K: Floats) -> tuple[float, Floats]:
        """L and its subgradient."""
        reduced_GN = self.value_GN - np.tensordot(lambda_K, self.rows_KGN, axes=1)
        best_G = reduced_GN.argmax(axis=1)
        slack_K = self.limits_K - self.rows_KGN[:, self.groups, best_G].sum(axis=1)
        return float(reduced_GN[self.groups, best_G].sum() + lambda_K @ self.limits_K), slack_K


def _nested(lp: LinearProgram, priced: Ints) -> Floats | None:
    dual = _Dual(lp, priced)
    found = minimise(dual, len(priced))
    return None if found is None else found / dual.scale_K


def minimise(dual: Dual, count: int) -> Floats | None:
    """The ``count`` multipliers >= 0 at which a dual is least; None if it seems to have no minimum."""
    lambda_K = np.zeros(count)
    return None if _minimise(dual, lambda_K, count - 1) is None else lambda_K


def _minimise(dual: Dual, lambda_K: Floats, k: int) -> tuple[float, Floats] | None:
    """Minimise over the multipliers 0 to k, in place.

    Returns L there, and a subgradient that is zero for those that are positive.
    """
    if k < 0:
        return dual.at(lambda_K)
    guess = lambda_K[k] if lambda_K[k] > 0 else dual.step
    low = _point(dual, lambda_K, k, 0.0)
    if low is None or low[2][k] >= 0:
        return None if low is None else low[1:]
    at = guess
    while (high := _point(dual, lambda_K, k, at)) is not None and high[2][k] < 0:
        low, at = high, at * 4
        if at > 1e12 * dual.step:
            return None  # no multiplier makes the limit hold: the relaxation has no solution
    if high is None:
        return None
    lowest = high[1]
    for _ in range(MAX_ROUNDS):
        crossing = _crossing(low, high, k)
        middle = _point(dual, lambda_K, k, crossing)
        if middle is None:
            return None
        lowest = middle[1]
        expected = low[1] + low[2][k] * (crossing - low[0])
        if lowest <= expected + TOLERANCE * dual.magnitude * (k + 1) or not low[0] < crossing < high[0]:
            break
        low, high = (middle, high) if middle[2][k] < 0 else (low, middle)
    share = high[2][k] / (high[2][k] - low[2][k])
    return lowest, share * low[2] + (1 - share) * high[2]


def _point(dual: Dual, lambda_K: Floats, k: int, at: float) -> tuple[float, float, Floats] | None:
    """(lambda_k, minimum over the multipliers before k, subgradient) at one value of multiplier k."""
    lambda_K[k] = at
    below = _minimise(dual, lambda_K, k - 1)
    return None if below is None else (at, *below)


def _crossing(low: tuple[float, float, Floats], high: tuple[float, float, Floats], k: int) -> float:
    """Where the supporting lines of two points meet."""
    slope_low, slope_high = low[2][k], high[2][k]
    if slope_high <= slope_low:
        return (low[0] + high[0]) / 2
    return float((low[1] - high[1] + slope_high * high[0] - slope_low * low[0]) / (slope_high - slope_low))


def _by_linear_program(lp: LinearProgram, priced: Ints) -> Floats | None:
    """The LP's duals; None if it has no solution."""
    from scipy import sparse
    from scipy.optimize import linprog

    count = lp.columns.num_columns
    rows, limits = lp.rows_KC[priced].astype(np.float64), lp.limits_K[priced].astype(np.float64)
    scale = np.maximum(np.abs(rows).max(axis=1), 1.0)
    value_scale = max(float(np.abs(lp.value_C).max()), 1e-300)
    choose_one = sparse.csr_matrix((np.ones(count), np.arange(count), lp.starts_G1), shape=(lp.num_groups, count))
    answer = linprog(  # type: ignore[call-overload]  # the stubs know no sparse A_eq
        -lp.value_C / value_scale,
        A_ub=rows / scale[:, None],
        b_ub=limits / scale,
        A_eq=choose_one,
        b_eq=np.ones(lp.num_groups),
        bounds=(0, None),
        method="highs",
    )
    if answer.status == 2:
        return None
    if answer.status != 0:  # no multipliers: the bound is weaker, and holds
        return np.zeros(len(priced))
    duals: Floats = np.maximum(-answer.ineqlin.marginals, 0.0) * value_scale / scale
    return duals


def shows_infeasible(lp: LinearProgram) -> bool:
    """Whether weights of the rows show, without rounding, that no network satisfies all of them (Farkas)."""
    weights = infeasible_weights(lp)
    if weights is None:
        return False
    total_C = sum(
        (lp.rows_KC[k].astype(object) * weight for k, weight in weights), np.zeros(lp.columns.num_columns, object)
    )
    least = sum(np.minimum.reduceat(total_C, lp.starts_G1[:-1]).tolist())
    return bool(least > sum(int(lp.limits_K[k]) * weight for k, weight in weights))


def infeasible_weights(lp: LinearProgram) -> list[tuple[int, int]] | None:
    """(row, weight > 0) of the rows that collide in the relaxation; None if floats see no collision."""
    from scipy import sparse
    from scipy.optimize import linprog

    count, num_rows = lp.columns.num_columns, len(lp.limits_K)
    scale_K = np.maximum(lp.limits_K.astype(np.float64), 1.0)
    choose_one = sparse.csr_matrix((np.ones(count), np.arange(count), lp.starts_G1), shape=(lp.num_groups, count))
    answer = linprog(  # type: ignore[call-overload]  # least summed violation, as shares of the limits
        np.append(np.zeros(count), np.ones(num_rows)),
        A_ub=sparse.hstack([sparse.csr_matrix(lp.rows_KC / scale_K[:, None]), -sparse.identity(num_rows)]),
        b_ub=lp.limits_K / scale_K,
        A_eq=sparse.hstack([choose_one, sparse.csr_matrix((lp.num_groups, num_rows))]),
        b_eq=np.ones(lp.num_groups),
        bounds=(0, None),
        method="highs",
    )
    if answer.status != 0 or answer.fun <= 0:
        return None
    shares = np.maximum(-answer.ineqlin.marginals, 0.0)
    largest = float(scale_K.max())
    weights = [
        (k, round(Fraction(float(share)) * (1 << PRICE_BITS) * Fraction(largest) / Fraction(float(scale_K[k]))))
        for k, share in enumerate(shares)
    ]
    return [(k, weight) for k, weight in weights if weight > 0]
