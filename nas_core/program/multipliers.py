"""A few vectors of multipliers that suit a list of parts of networks.

A part has chosen in some groups. Every vector u >= 0 bounds what the groups left can add to it; each part has its
own best vector, and a list shares a few: the best ones of a sample (the smoothed dual, minimised by Newton's method
for all of the sample at once), of these those that together leave least of the sample. Any vector is right, so
floats are good enough.

G = groups left, J = columns of a group, K = rows, U = vectors, S = parts, N = parts of a sample.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from nas_core.program.linear import Floats, Ints

Bools = npt.NDArray[np.bool_]

SAMPLE, VECTORS = 96, 48  # parts whose multipliers are worked out for a list, and vectors that it may have
SMOOTH, STEPS = (0.4, 0.1), 2  # shares of what is left to lose, and Newton's steps for each
LONGEST_STEP = 0.75  # of one multiplier, in what is left to lose
RIDGE = 1e-3
PARTS_GROW_BY = 3  # the power of what is left to lose that a part's descendants grow by, about
WORTH_IT = 0.998  # of the sample's descendants, that one vector more has to get below
MOST_MATRIX = 300_000  # columns times rows squared, beyond which Newton's steps are too dear


class Multipliers:
    """Vectors for lists of one program: values [G, J], costs [G, J, K] and limits [K]."""

    def __init__(
        self, value_GJ: "Ints | Floats", cost_GJK: "Ints | Floats", limits_K: "Ints | Floats", rng: np.random.Generator
    ) -> None:
        self.value_GJ, self.limits_K, self.rng = value_GJ.astype(np.float64), limits_K.astype(np.float64), rng
        spread_K = cost_GJK.std(axis=(0, 1))
        self.scale_K: Floats = np.where(spread_K > 0, spread_K, 1.0)
        self.cost_GJK = cost_GJK / self.scale_K

    def of(
        self,
        left: tuple[int, ...],
        gone_GJ: Bools,
        value_S: npt.NDArray[np.integer[Any]],
        cost_KS: npt.NDArray[np.integer[Any]],
        known_UK: Floats,
        goal: float,
    ) -> Floats:
        """[U, K] vectors for parts that have chosen everywhere but in ``left`` and are to be worth the goal.

        ``gone_GJ``: columns that none of them takes. ``known_UK``: vectors that may suit them, of which there is one.
        """
        sample = self.rng.permutation(len(value_S))[:SAMPLE]
        value_N = value_S[sample] - float(goal)
        spare_NK = ((self.limits_K[:, None] - cost_KS[:, sample]) / self.scale_K[:, None]).T.astype(np.float64)
        value_GJ = np.where(gone_GJ, -np.inf, self.value_GJ)[list(left)]
        cost_GJK, known_UK = self.cost_GJK[list(left)], known_UK * self.scale_K
        room_UN = _room(value_GJ, cost_GJK, known_UK, value_N, spare_NK)
        gap = max(float(np.median(room_UN.min(axis=0))), 1.0)
        own_NK = _own(value_GJ, cost_GJK, spare_NK, known_UK[room_UN.argmin(axis=0)], gap)
        candidates = np.concatenate([known_UK, own_NK])
        rooms = np.concatenate([room_UN, _room(value_GJ, cost_GJK, own_NK, value_N, spare_NK)])
        work = np.maximum(rooms + 1, 0.0) ** PARTS_GROW_BY
        least_N, chosen = np.full(len(sample), np.inf), list[int]()
        while len(chosen) < VECTORS:
            total = np.minimum(work, least_N).sum(axis=1)
            best = int(total.argmin())
            if chosen and total[best] >= WORTH_IT * least_N.sum():
                break
            chosen.append(best)
            least_N = np.minimum(least_N, work[best])
        vectors_UK: Floats = candidates[chosen] / self.scale_K
        return vectors_UK


def _room(
    value_GJ: Floats, cost_GJK: Floats, prices_UK: Floats, value_N: npt.NDArray[np.floating], spare_NK: Floats
) -> Floats:
    """[U, N] what parts may lose."""
    top_U = (value_GJ[:, :, None] - cost_GJK @ prices_UK.T).max(axis=1).sum(axis=0)
    room_UN: Floats = value_N + top_U[:, None] + prices_UK @ spare_NK.T
    return room_UN


def _own(value_GJ: Floats, cost_GJK: Floats, spare_NK: Floats, first_NK: Floats, gap: float) -> Floats:
    """[N, K] multipliers near each part's best: the maxima smoothed, ever less, and Newton's method."""
    num_parts, num_rows = spare_NK.shape
    flat_CK, value_C = cost_GJK.reshape(-1, num_rows), value_GJ.ravel()
    squares_CKK = (flat_CK[:, :, None] * flat_CK[:, None, :]).reshape(len(flat_CK), -1)
    prices_NK = first_NK
    diagonal = np.arange(num_rows)
    for smooth in np.repeat(SMOOTH, STEPS) * gap:
        reduced_NGJ = (value_C - prices_NK @ flat_CK.T).reshape(num_parts, *cost_GJK.shape[:2])
        share_NGJ = np.exp((reduced_NGJ - reduced_NGJ.max(axis=2, keepdims=True)) / smooth)
        share_NGJ /= share_NGJ.sum(axis=2, keepdims=True)
        mean_GNK = share_NGJ.swapaxes(0, 1) @ cost_GJK
        slope_NK = spare_NK - mean_GNK.sum(axis=0)
        mean_NKG = np.moveaxis(mean_GNK, 0, 2)
        curve_NKK = (share_NGJ.reshape(num_parts, -1) @ squares_CKK).reshape(num_parts, num_rows, num_rows)
        curve_NKK = (curve_NKK - mean_NKG @ mean_NKG.swapaxes(1, 2)) / smooth
        is_free_NK: Bools = ~((prices_NK <= 0) & (slope_NK > 0))  # the others stay 0
        curve_NKK *= is_free_NK[:, :, None] & is_free_NK[:, None, :]
        ridge_N = RIDGE * curve_NKK.trace(axis1=1, axis2=2) / num_rows
        curve_NKK[:, diagonal, diagonal] += ridge_N[:, None] + 1e-6 + ~is_free_NK
        step_NK = np.linalg.solve(curve_NKK, (is_free_NK * slope_NK)[:, :, None])[:, :, 0]
        length_N = np.abs(step_NK).max(axis=1)
        step_NK *= np.minimum(1.0, LONGEST_STEP * gap / np.maximum(length_N, 1e-9))[:, None]
        prices_NK = np.maximum(prices_NK - step_NK, 0.0)
    # any multipliers are right, if they are numbers
    is_sound_N1 = np.isfinite(prices_NK).all(axis=1, keepdims=True)
    return np.where(is_sound_N1, prices_NK, first_NK)
