"""Matches two lists of half networks: no limit broken, and losses + lambda . slack < g.

A price on a limit bounds its slack by g / lambda, so the partners of a half lie
in a narrow window of cost; they are found by sorting, over two limits at once.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas_core.program.linear import Floats, Ints

MAX_PAIRS = 20_000_000  # pairs of halves looked at in one search for matches
CHUNK = 1 << 19


class CoreTooLargeError(Exception):
    """The search does not fit its limits; another method has to prove the optimum."""


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What the two halves share: the slack that the limits leave to their changes, and the limits' multipliers."""

    slack_K: Ints
    duals_K: Floats


@dataclass(frozen=True)
class Half:
    """Combinations of one half's columns, and what they change in every row.

    ``parent_T`` and ``column_T`` spell state t: its last changed column, then its parent's; state 0 changes nothing.
    """

    loss_S: Floats
    change_SK: Ints
    state_S: Ints
    parent_T: Ints
    column_T: Ints


def windows(prices: Prices, left: Half, right: Half, g: float) -> Iterator[tuple[Ints, Ints]]:
    """Chunks of (left, right) indices that contain every match."""
    need_SK = prices.slack_K - left.change_SK
    keys = _narrowest(prices, right, g)
    if not keys:
        yield from _chunks(
            np.zeros(len(left.loss_S), dtype=np.int64), np.full(len(left.loss_S), len(right.loss_S)), None
        )
        return
    if len(keys) == 2:
        yield from _windows_2d(prices, left, right, g, need_SK, keys)
        return
    k = keys[0]
    order = np.argsort(right.change_SK[:, k], kind="stable")
    sorted_change = right.change_SK[order, k]
    lows = need_SK[:, k] - _room(prices, left, g, k)
    starts = np.searchsorted(sorted_change, lows, side="left")
    ends = np.searchsorted(sorted_change, need_SK[:, k], side="right")
    yield from _chunks(starts, ends, order)


def _windows_2d(
    prices: Prices, left: Half, right: Half, g: float, need_SK: Ints, keys: list[int]
) -> Iterator[tuple[Ints, Ints]]:
    """Buckets of the first row's cost, each as wide as its window; inside one, sorted by the second row's cost."""
    first, second = keys
    width = int(min(g / prices.duals_K[first], 2.0**60)) + 1
    low_1, low_2 = int(right.change_SK[:, first].min()), int(right.change_SK[:, second].min())
    span = int(right.change_SK[:, second].max()) - low_2 + 1
    bucket_S = (right.change_SK[:, first] - low_1) // width
    last = int(bucket_S.max())
    key_S = bucket_S * span + (right.change_SK[:, second] - low_2)
    order = np.argsort(key_S, kind="stable")
    sorted_key = key_S[order]
    own_S = (need_SK[:, first] - low_1) // width
    high = np.minimum(need_SK[:, second] - low_2, span - 1)
    low = np.maximum(need_SK[:, second] - _room(prices, left, g, second) - low_2, 0)
    for offset in (0, 1):  # a window is at most one bucket wide, so it touches two
        bucket = own_S - offset
        inside = (bucket >= 0) & (bucket <= last) & (low <= high)
        key = np.where(inside, bucket, 0) * span
        starts = np.searchsorted(sorted_key, key + low, side="left")
        ends = np.searchsorted(sorted_key, key + high, side="right")
        yield from _chunks(np.where(inside, starts, 0), np.where(inside, ends, 0), order)


def _room(prices: Prices, left: Half, g: float, k: int) -> Ints:
    """How much slack row k may keep beside each left state."""
    room = (g - left.loss_S) / prices.duals_K[k] * (1 + 1e-9)
    whole: Ints = np.minimum(room, 2.0**60).astype(np.int64) + 1
    return whole


def _narrowest(prices: Prices, right: Half, g: float) -> list[int]:
    """The one or two rows whose window is the smallest share of the right half's range."""
    shares = []
    for k in np.flatnonzero(prices.duals_K > 0):
        spread = float(right.change_SK[:, k].max() - right.change_SK[:, k].min()) + 1.0
        shares.append((g / prices.duals_K[k] / spread, int(k), spread))
    shares = [share for share in sorted(shares) if share[0] < 1]
    if len(shares) >= 2 and shares[1][2] / shares[0][0] < 2.0**60:  # the joint key fits int64
        return [shares[0][1], shares[1][1]]
    return [shares[0][1]] if shares else []


def _chunks(starts: Ints, ends: Ints, order: Ints | None) -> Iterator[tuple[Ints, Ints]]:
    """The pairs (i, order[j]) for starts[i] <= j < ends[i], about CHUNK at a time."""
    counts = np.maximum(ends - starts, 0)
    total = np.cumsum(counts)
    if not len(total) or total[-1] == 0:
        return
    if total[-1] > MAX_PAIRS:
        raise CoreTooLargeError
    marks = np.searchsorted(total, np.arange(CHUNK, int(total[-1]), CHUNK), side="left")
    edges = np.unique(np.concatenate([[0], marks, [len(counts)]]))
    for low, high in itertools.pairwise(edges.tolist()):
        part = counts[low:high]
        left_N = np.repeat(np.arange(low, high), part)
        within = np.arange(len(left_N)) - np.repeat(np.cumsum(part) - part, part)
        right_N = np.repeat(starts[low:high], part) + within
        yield left_N, right_N if order is None else order[right_N]


class Matches:
    """The best ``limit`` pairs of halves that lose less than g; g shrinks to the worst kept once there are more."""

    def __init__(self, g: float, prices: Prices, limit: int) -> None:
        self.g, self.prices, self.limit, self.is_cut = g, prices, limit, False
        self.left = self.right = np.zeros(0, dtype=np.int64)
        self.loss = np.zeros(0)

    def add(self, left: Half, right: Half, left_N: Ints, right_N: Ints) -> None:
        keep: npt.NDArray[np.bool_] = np.ones(len(left_N), dtype=bool)
        loss_N = left.loss_S[left_N] + right.loss_S[right_N]
        for k, dual in enumerate(self.prices.duals_K):
            slack_N = self.prices.slack_K[k] - left.change_SK[left_N, k] - right.change_SK[right_N, k]
            keep &= slack_N >= 0
            if dual > 0:
                loss_N += dual * slack_N
        keep &= loss_N < self.g
        if not keep.any():
            return
        pairs = np.stack([np.append(self.left, left_N[keep]), np.append(self.right, right_N[keep])])
        loss = np.append(self.loss, loss_N[keep])
        if len(loss) > self.limit:
            order = np.argsort(loss, kind="stable")[: self.limit]
            pairs, loss, self.is_cut = pairs[:, order], loss[order], True
            self.g = float(loss[-1])
        self.left, self.right, self.loss = pairs[0], pairs[1], loss


def spell(best_G: Ints, group_C: Ints, left: Half, right: Half, left_N: Ints, right_N: Ints) -> Ints:
    """[S][G] columns of the matched networks."""
    columns_SG = np.tile(best_G, (len(left_N), 1))
    for half, index_N in ((left, left_N), (right, right_N)):
        state_N = half.state_S[index_N]
        while (state_N > 0).any():
            rows = np.flatnonzero(state_N)
            changed = half.column_T[state_N[rows]]
            columns_SG[rows, group_C[changed]] = changed
            state_N = half.parent_T[state_N]
    return columns_SG
