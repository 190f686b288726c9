"""The linear relaxation: its duals, a proven bound, and what each column loses against it.

For any multipliers lambda >= 0, every network x within the limits satisfies

    value(x) = bound - sum of the losses of its columns - lambda . slack(x)

with bound = sum_g max_j (v_j - lambda . a_j) + lambda . limits and the loss of
column j = its group's maximum minus its own v_j - lambda . a_j (its reduced
cost). So the bound holds whatever rounding the multipliers carry, and a
column that loses more than (bound - value of a known network) is in no better
network: reduced-cost fixing.
"""

from dataclasses import dataclass, replace

import numpy as np

from nas_core.program.duals import multipliers
from nas_core.program.linear import Floats, Ints, LinearProgram

FLOAT_ERROR = 1e-12  # of the summed magnitudes: far above what the sums can round away


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
        error=FLOAT_ERROR * magnitude,
    )
