"""Halves of networks, and how two lists of them match: no limit broken, and losses + lambda . slack < g.

A price lambda on a limit bounds the slack that a match may leave by g / lambda, so the
partners of a half lie in a narrow window of cost. Few halves: the windows are found by
sorting, over two limits at once. Many: one list is laid into buckets over several limits,
and every half of the other looks into the buckets that leave it a slack worth
less than g, the least dear first (a hash join; with whole costs a bucket is one unit wide).

S = halves, N = pairs of them, K = rows, D = rows that buckets are made of, B = buckets.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nas_core.program.linear import Floats, Ints

MAX_PAIRS = 20_000_000  # pairs of halves looked at in one search for matches
MANY_PAIRS = 1_000_000  # from which buckets are worth their making
CHUNK = 1 << 19
MAX_STATES = 400_000  # combinations of one half
MAX_BUCKETS = 1 << 22
MAX_STEPS = 4_000  # slacks, in buckets, that a match may leave
FINE = 8  # buckets per window where a cost has larger numbers
CAUTION = 1e-9  # share by which what is added up in floats is lowered

Range = tuple[Ints, Ints]  # [S] from where to where


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


def half_of(
    groups: list[Ints], loss_C: Floats, change_CK: Ints, g: float, deadline: float, most: int | None = None
) -> Half:
    """The combinations of some columns, at most one of each group, that lose less than g; by loss.

    ``most``: no more are kept than these that lose least; without it, too many raise.

    Raises:
        CoreTooLargeError: for more than ``MAX_STATES``, or at the deadline.
    """
    loss_S, change_SK = np.zeros(1), np.zeros((1, change_CK.shape[1]), dtype=np.int64)
    state_S = np.zeros(1, dtype=np.int64)
    parents, columns, count = [np.zeros(1, dtype=np.int64)], [np.full(1, -1)], 1
    for group in groups:
        ends = np.searchsorted(loss_S, g - loss_C[group])
        if not ends.any():
            continue
        if most is None and len(loss_S) + ends.sum() > MAX_STATES:
            raise CoreTooLargeError
        picks = np.concatenate([np.arange(end) for end in ends])
        column_N = np.repeat(group, ends)
        parents.append(state_S[picks])
        columns.append(column_N)
        new_states = np.arange(count, count + len(picks))
        count += len(picks)
        loss_S = np.concatenate([loss_S, loss_S[picks] + loss_C[column_N]])
        order = np.argsort(loss_S, kind="stable")[:most]
        loss_S = loss_S[order]
        change_SK = np.concatenate([change_SK, change_SK[picks] + change_CK[column_N]])[order]
        state_S = np.concatenate([state_S, new_states])[order]
        if len(loss_S) == most:
            g = float(loss_S[-1])
        if time.monotonic() > deadline:
            raise CoreTooLargeError
    return Half(loss_S, change_SK, state_S, np.concatenate(parents), np.concatenate(columns))


def windows(prices: Prices, left: Half, right: Half, g: float) -> Iterator[tuple[Ints, Ints]]:
    """Chunks of (left, right) indices that contain every match."""
    keys = _narrowest(prices, right, g)
    if not keys:
        everything = np.full(len(left.loss_S), len(right.loss_S))
        yield from _chunks(np.zeros(len(left.loss_S), dtype=np.int64), everything, None)
        return
    found = _windows_2d if len(keys) == 2 else _windows_1d
    order, ranges = found(prices, left, right, g, keys)
    num_pairs = sum(int(np.maximum(ends - starts, 0).sum()) for starts, ends in ranges)
    if num_pairs > MANY_PAIRS and np.count_nonzero(prices.duals_K) > 2:
        yield from by_buckets(prices, left, right, Goal(g))
        return
    for starts, ends in ranges:
        yield from _chunks(starts, ends, order)


def _windows_1d(prices: Prices, left: Half, right: Half, g: float, keys: list[int]) -> tuple[Ints, list[Range]]:
    """Right halves by their cost in one row, and from where to where each left half's window goes."""
    k = keys[0]
    order = np.argsort(right.change_SK[:, k], kind="stable")
    sorted_change = right.change_SK[order, k]
    need_S = prices.slack_K[k] - left.change_SK[:, k]
    starts = np.searchsorted(sorted_change, need_S - _room(prices, left, g, k), side="left")
    return order, [(starts, np.searchsorted(sorted_change, need_S, side="right"))]


def _windows_2d(prices: Prices, left: Half, right: Half, g: float, keys: list[int]) -> tuple[Ints, list[Range]]:
    """Buckets of the first row's cost, each as wide as its window; inside one, sorted by the second row's cost."""
    first, second = keys
    need_SK = prices.slack_K - left.change_SK
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
    ranges = []
    for offset in (0, 1):  # a window is at most one bucket wide, so it touches two
        bucket = own_S - offset
        inside = (bucket >= 0) & (bucket <= last) & (low <= high)
        key = np.where(inside, bucket, 0) * span
        starts = np.searchsorted(sorted_key, key + low, side="left")
        ends = np.searchsorted(sorted_key, key + high, side="right")
        ranges.append((np.where(inside, starts, 0), np.where(inside, ends, 0)))
    return order, ranges


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


def _chunks(starts: Ints, ends: Ints, order: Ints | None, most: int = MAX_PAIRS) -> Iterator[tuple[Ints, Ints]]:
    """The pairs (i, order[j]) for starts[i] <= j < ends[i], about CHUNK at a time."""
    counts = np.maximum(ends - starts, 0)
    total = np.cumsum(counts)
    if not len(total) or total[-1] == 0:
        return
    if total[-1] > most:
        raise CoreTooLargeError
    marks = np.searchsorted(total, np.arange(CHUNK, int(total[-1]), CHUNK), side="left")
    edges = np.concatenate([[0], marks, [len(counts)]])
    edges = edges[np.diff(edges, prepend=-1) > 0]
    for low, high in itertools.pairwise(edges.tolist()):
        part = counts[low:high]
        left_N = np.repeat(np.arange(low, high), part)
        within = np.arange(len(left_N)) - np.repeat(np.cumsum(part) - part, part)
        right_N = np.repeat(starts[low:high], part) + within
        yield left_N, right_N if order is None else order[right_N]


def matching(
    prices: Prices, left: Half, right: Half, left_N: Ints, right_N: Ints, g: float
) -> tuple[Ints, Ints, Floats]:
    """The pairs that break no limit and lose less than g, and what they lose."""
    loss_N = left.loss_S[left_N] + right.loss_S[right_N]
    for k, dual in enumerate(prices.duals_K.tolist()):
        slack_N = prices.slack_K[k] - left.change_SK[left_N, k] - right.change_SK[right_N, k]
        loss_N = loss_N + dual * slack_N
        keep = np.flatnonzero((slack_N >= 0) & (loss_N < g))
        left_N, right_N, loss_N = left_N[keep], right_N[keep], loss_N[keep]
    return left_N, right_N, loss_N


class Matches:
    """The best ``limit`` pairs of halves that lose less than g; g shrinks to the worst kept once there are more."""

    def __init__(self, g: float, prices: Prices, limit: int) -> None:
        self.g, self.prices, self.limit, self.is_cut = g, prices, limit, False
        self.left = self.right = np.zeros(0, dtype=np.int64)
        self.loss = np.zeros(0)

    def add(self, left: Half, right: Half, left_N: Ints, right_N: Ints) -> None:
        left_N, right_N, loss_N = matching(self.prices, left, right, left_N, right_N, self.g)
        if not len(loss_N):
            return
        pairs = np.stack([np.append(self.left, left_N), np.append(self.right, right_N)])
        loss = np.append(self.loss, loss_N)
        if len(loss) > self.limit:
            order = np.argsort(loss, kind="stable")[: self.limit]
            pairs, loss, self.is_cut = pairs[:, order], loss[order], True
            self.g = float(loss[-1])
        self.left, self.right, self.loss = pairs[0], pairs[1], loss


def spell(best_G: Ints, group_C: Ints, *parts: tuple[Half, Ints]) -> Ints:
    """[N][G] columns of networks that are made of parts: (part, which of its combinations [N])."""
    columns_NG = np.tile(best_G, (len(parts[0][1]), 1))
    for half, index_N in parts:
        state_N = half.state_S[index_N]
        while (state_N > 0).any():
            rows = np.flatnonzero(state_N)
            changed = half.column_T[state_N[rows]]
            columns_NG[rows, group_C[changed]] = changed
            state_N = half.parent_T[state_N]
    return columns_NG


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Buckets over some rows, and the slacks in buckets that a match may leave with what they cost at least."""

    row_D: Ints
    width_D: Ints
    low_D: Ints
    span_D: Ints
    step_BD: Ints
    price_B: Floats

    def codes(self, at_SD: Ints) -> Ints:
        """One number for each bucket."""
        code_S: Ints = at_SD @ np.concatenate([[1], np.cumprod(self.span_D[:-1])])
        return code_S


@dataclass
class Goal:
    """What a match has to lose less than; it may fall while matches are looked for."""

    g: float


def by_buckets(
    prices: Prices, left: Half, right: Half, goal: Goal, most_pairs: int = MAX_PAIRS
) -> Iterator[tuple[Ints, Ints]]:
    """Chunks of (left, right) indices that contain every match.

    Raises:
        CoreTooLargeError: after ``most_pairs``.
    """
    by_loss = np.argsort(left.loss_S, kind="stable")
    loss_S, least = left.loss_S[by_loss], float(right.loss_S.min())
    grid = _cheapest_grid(prices, loss_S, right, goal.g)
    if grid is None:
        everything = np.full(len(loss_S), len(right.loss_S))
        yield from _chunks(np.zeros(len(loss_S), dtype=np.int64), everything, None, most_pairs)
        return
    if not len(grid.price_B):  # the least of both lists lose too much together
        return
    order, first_B = _laid_out(grid.codes((right.change_SK[:, grid.row_D] - grid.low_D) // grid.width_D), grid.span_D)
    need_SD = prices.slack_K[grid.row_D] - left.change_SK[by_loss][:, grid.row_D]
    at_SD, most_D = (need_SD - grid.low_D) // grid.width_D, grid.span_D + grid.step_BD.max(axis=0)
    near = np.flatnonzero(((at_SD >= 0) & (at_SD < most_D)).all(axis=1))  # the others find nothing
    by_loss, loss_S, at_DS = by_loss[near], loss_S[near], np.ascontiguousarray(at_SD[near].T.astype(np.int32))
    code_S, looked = grid.codes(at_SD[near]), 0
    for step_D, price in zip(grid.step_BD, grid.price_B.tolist(), strict=True):
        count = int(np.searchsorted(loss_S, goal.g - least - price))
        fits_S = np.ones(count, dtype=bool)
        for at_S, step, span in zip(at_DS, step_D.tolist(), grid.span_D.tolist(), strict=True):
            fits_S &= (at_S[:count] >= step) & (at_S[:count] < step + span)
        inside = np.flatnonzero(fits_S)
        code = code_S[inside] - int(grid.codes(step_D))
        starts, ends = first_B[code], first_B[code + 1]
        some = np.flatnonzero(ends > starts)
        looked += int((ends - starts).sum())
        if looked > most_pairs:
            raise CoreTooLargeError
        for left_N, right_N in _chunks(starts[some], ends[some], order, most_pairs):
            yield by_loss[inside[some[left_N]]], right_N


def _laid_out(code_S: Ints, span_D: Ints) -> tuple[Ints, Ints]:
    """Halves in order of their buckets, and where each bucket starts."""
    counts = np.bincount(code_S, minlength=int(span_D.prod()))
    return np.argsort(code_S, kind="stable"), np.concatenate([[0], np.cumsum(counts)])


def both(first: Half, second: Half, first_N: Ints, second_N: Ints) -> Half:
    """Pairs of parts as a list of their own; the parts spell them."""
    none = np.zeros(0, dtype=np.int64)
    loss_N = first.loss_S[first_N] + second.loss_S[second_N]
    return Half(loss_N, first.change_SK[first_N] + second.change_SK[second_N], none, none, none)


def sums_near(first: Half, second: Half, row_D: Ints, width_D: Ints, target_D: Ints) -> tuple[Ints, Ints]:
    """Pairs whose change in some rows is ``target_D``, or less than a width from it."""
    low_D = second.change_SK[:, row_D].min(axis=0)
    bucket_SD = (second.change_SK[:, row_D] - low_D) // width_D
    span_D = bucket_SD.max(axis=0) + 1
    if float(np.prod(span_D.astype(np.float64))) > MAX_BUCKETS:
        raise CoreTooLargeError
    stride_D = np.concatenate([[1], np.cumprod(span_D[:-1])])
    code_S = bucket_SD @ stride_D
    order, first_B = _laid_out(code_S, span_D)
    wanted_SD = (target_D - first.change_SK[:, row_D] - low_D) // width_D
    inside = np.flatnonzero(((wanted_SD >= 0) & (wanted_SD < span_D)).all(axis=1))
    code = wanted_SD[inside] @ stride_D
    chunks = list(_chunks(first_B[code], first_B[code + 1], order))
    if not chunks:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return inside[np.concatenate([left for left, _ in chunks])], np.concatenate([right for _, right in chunks])


def _cheapest_grid(prices: Prices, loss_S: Floats, right: Half, g: float) -> _Grid | None:
    """The buckets that take the fewest steps; None if looking at all pairs takes fewer."""
    priced = np.flatnonzero(prices.duals_K > 0)
    room = g - float(loss_S[0]) - float(right.loss_S.min())
    low_K, high_K = right.change_SK.min(axis=0), right.change_SK.max(axis=0)
    spread_K = 2.5 * right.change_SK.std(axis=0) + 1.0
    window_K = room / prices.duals_K[priced]
    row_D = priced[np.argsort(window_K / spread_K[priced], kind="stable")]
    width_D = np.maximum(np.minimum(room / prices.duals_K[row_D], 2.0**60) / FINE, 1.0).astype(np.int64)
    least, best = float(len(loss_S)) * len(right.loss_S), None
    step_BD, price_B = np.zeros((1, 0), dtype=np.int64), np.zeros(1)
    for depth in range(1, len(row_D) + 1):
        rows, width = row_D[:depth], width_D[:depth]
        step_BD, price_B = _deeper(step_BD, price_B, int(width[-1]), float(prices.duals_K[rows[-1]]), room)
        span_D = (high_K[rows] - low_K[rows]) // width + 1
        if len(price_B) > MAX_STEPS or float(np.prod(span_D.astype(np.float64))) > MAX_BUCKETS:
            break
        filled = float(np.prod(np.minimum(spread_K[rows] / width + 1.0, span_D)))
        looks = float(np.searchsorted(loss_S, room + loss_S[0] - price_B).sum())
        steps = looks * (1.0 + 3.0 * len(right.loss_S) / filled) + 2_000.0 * len(price_B) + float(span_D.prod())
        if steps < least:
            least = steps
            best = _Grid(row_D=rows, width_D=width, low_D=low_K[rows], span_D=span_D, step_BD=step_BD, price_B=price_B)
    return best


def _deeper(step_BD: Ints, price_B: Floats, width: int, dual: float, room: float) -> tuple[Ints, Floats]:
    """The slacks with one row more, those below ``room``, the least dear first."""
    most = int(min(room / dual / width, 2 * FINE)) + 2
    number = np.arange(most + 1)
    slack = np.where(number > 0, (number - 1) * width + 1, 0)  # a bucket further is at least one unit further
    total = price_B[:, None] + dual * slack * (1 - CAUTION)
    before, step = np.nonzero(total < room)
    price = total[before, step]
    order = np.argsort(price, kind="stable")
    return np.column_stack([step_BD[before], number[step]])[order], price[order]
