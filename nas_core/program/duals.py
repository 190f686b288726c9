"""Multipliers of the limits: the minimum of the Lagrangian dual, without a simplex.

L(lambda) = lambda . limits + sum_g max_j (v_j - lambda . a_j)

is convex and piecewise linear, and its subgradient is the slack of the columns
that attain the maxima. Over one multiplier its minimum is found by intersecting
the two supporting lines that bracket it, again and again (finite, about eight
rounds); over several by nesting: the minimum over the first multipliers is
itself such a function of the next, and the mix of slacks that is zero in the
first gives its subgradient. For up to ``MAX_NESTED`` limits with a price this
costs a fraction of the LP, which is solved (HiGHS, through scipy) for more.
Either way the multipliers may be off by rounding: every lambda >= 0 gives a valid bound.
"""

from typing import Protocol

import numpy as np

from nas_core.program.linear import Floats, Ints, LinearProgram

MAX_NESTED = 3
MAX_ROUNDS = 60
TOLERANCE = 1e-13  # of the dual's magnitude


def multipliers(lp: LinearProgram, priced: Ints) -> Floats | None:
    """[K] multipliers that minimise the dual, zero for rows not in ``priced``; None if it seems to have no minimum."""
    duals_K = np.zeros(len(lp.limits_K))
    found = _nested(lp, priced) if len(priced) <= MAX_NESTED else _by_linear_program(lp, priced)
    if found is None:
        return None
    duals_K[priced] = found
    return duals_K


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
