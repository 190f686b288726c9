"""Exact search of the core: every network that loses less than g against the relaxation's bound.

The optimum lies a little below the bound, so it takes few columns that lose
anything, and it nearly exhausts every limit that has a price. Both facts prune:

1. Columns that lose g or more are out (reduced-cost fixing).
2. The groups are split into two halves; each half's combinations that lose less
   than g are listed (vectorised, as sparse changes of the best columns).
3. Two halves match if no limit is broken and losses + lambda . slack < g. A price on a limit
   bounds its slack by g / lambda, so the partners of a half lie in a narrow
   window of cost: found by sorting, in two dimensions at once.
4. g grows until enough networks are found. All networks that lose less than g are then known,
   so the best of them is the optimum, with no incumbent and no branching.

The number of combinations grows fast with g and with the number of limits, and
g shrinks as positions are added: this is quickest just where branch and bound
is slow. Where it does not fit (many limits with a price, strong rules) it
stops at once, and CP-SAT takes over on the same columns.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nas_core.program.linear import Floats, Ints, LinearProgram
from nas_core.program.relaxation import Relaxation

MAX_PAIRS = 20_000_000  # pairs of halves looked at in one search for matches
CHUNK = 1 << 19
MAX_STATES = 400_000  # combinations of one half
FEW_COLUMNS = 20  # at most 2^10 combinations a half
FIRST_COLUMNS = 24  # that lose anything, in the first level
GROWTH = 1.3  # of g from level to level; a level costs about the square of the one before
KEEP = 1_024  # networks kept of one level: the best ones; eight times more if the caller refuses them all
MAX_KEEP = 1 << 16


# Matching two lists of half networks: no limit broken, and losses + lambda . slack < g. A price on a limit bounds
# its slack by g / lambda, so the partners of a half lie in a narrow window of cost, found by sorting over two limits.


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
    edges = np.concatenate([[0], marks, [len(counts)]])
    edges = edges[np.diff(edges, prepend=-1) > 0]
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


@dataclass(frozen=True, kw_only=True)
class Level:
    """All networks that lose less than ``complete_to``, by loss.

    ``is_everything``: there are no other networks within the limits.
    """

    columns_SG: Ints
    loss_S: Floats
    complete_to: float
    is_everything: bool


def levels(lp: LinearProgram, relaxation: Relaxation, *, deadline: float, keep: int = KEEP) -> Iterator[Level]:
    """Ever larger levels, until one is everything.

    Args:
        deadline: ``time.monotonic()`` at which to give up.
        keep: networks kept of one level at first.

    Raises:
        CoreTooLargeError: if a level exceeds the limits above or the deadline.
    """
    search = _Search(lp, relaxation, deadline)
    g, most = search.first_loss(), max(MAX_KEEP, 8 * keep)
    while keep <= most:
        level = search.level(g, keep)
        yield level
        if level.is_everything:
            return
        if level.complete_to < g:  # more networks than kept, and the caller refused these
            keep *= 8
        else:
            g *= GROWTH
    raise CoreTooLargeError


def among_few(lp: LinearProgram, relaxation: Relaxation) -> Level:
    """The best networks made of the columns that lose least: an incumbent, not a proof (``complete_to`` is 0)."""
    search = _Search(lp, relaxation, deadline=float("inf"))
    level = search.level(search.everything, KEEP, search.order[:FEW_COLUMNS])
    return replace(level, complete_to=0.0, is_everything=False)


class _Search:
    def __init__(self, lp: LinearProgram, relaxation: Relaxation, deadline: float) -> None:
        self.lp, self.relaxation, self.deadline = lp, relaxation, deadline
        self.group_C = lp.columns.group_C
        best_CK = lp.rows_KC[:, relaxation.best_G].T[self.group_C]
        self.change_CK: Ints = lp.rows_KC.T - best_CK
        is_best = np.zeros(len(self.group_C), dtype=bool)
        is_best[relaxation.best_G] = True
        others = np.flatnonzero(~is_best)
        self.order = others[np.argsort(relaxation.loss_C[others], kind="stable")]
        self.sorted_loss = relaxation.loss_C[self.order]
        worst_K = (lp.limits_K - np.minimum.reduceat(lp.rows_KC, lp.starts_G1[:-1], axis=1).sum(axis=1)).astype(float)
        worst = np.maximum.reduceat(relaxation.loss_C, lp.starts_G1[:-1]).sum() + relaxation.duals_K @ worst_K
        self.everything = float(worst) * (1 + 1e-9) + 2 * relaxation.error + 1e-300

    def first_loss(self) -> float:
        """A loss that a handful of columns stay below."""
        if not len(self.order):
            return self.everything
        index = min(FIRST_COLUMNS, len(self.order) - 1)
        return max(float(self.sorted_loss[index]), self.everything * 1e-9)

    def level(self, g: float, keep: int, alive: Ints | None = None) -> Level:
        is_everything = g >= self.everything
        if alive is None:
            alive = self.order[: np.searchsorted(self.sorted_loss, g)]
        left, right = (self._half(columns, g) for columns in self._split(alive))
        prices = Prices(slack_K=self.relaxation.slack_K, duals_K=self.relaxation.duals_K)
        found = Matches(g, prices, keep)
        for pairs in windows(prices, left, right, g):
            self._check_time()
            found.add(left, right, *pairs)
        columns = spell(self.relaxation.best_G, self.group_C, left, right, found.left, found.right)
        order = np.argsort(found.loss, kind="stable")
        complete = not found.is_cut
        return Level(
            columns_SG=columns[order],
            loss_S=found.loss[order],
            complete_to=g if complete else found.g,
            is_everything=is_everything and complete,
        )

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise CoreTooLargeError

    def _split(self, alive: Ints) -> tuple[list[Ints], list[Ints]]:
        """Two halves of about equal size: columns per group, dealt out in turn by the group's cheapest change."""
        groups: dict[int, list[int]] = {}
        for column, group in zip(alive.tolist(), self.group_C[alive].tolist(), strict=True):
            groups.setdefault(group, []).append(column)
        lists = [np.array(columns) for columns in groups.values()]
        return lists[::2], lists[1::2]

    def _half(self, groups: list[Ints], g: float) -> Half:
        loss_S = np.zeros(1)
        change_SK = np.zeros((1, len(self.lp.limits_K)), dtype=np.int64)
        state_S = np.zeros(1, dtype=np.int64)
        parents, columns, count = [np.zeros(1, dtype=np.int64)], [np.full(1, -1)], 1
        for group in groups:
            ends = np.searchsorted(loss_S, g - self.relaxation.loss_C[group])
            if len(loss_S) + ends.sum() > MAX_STATES:
                raise CoreTooLargeError
            picks = np.concatenate([np.arange(end) for end in ends])
            column_N = np.repeat(group, ends)
            parents.append(state_S[picks])
            columns.append(column_N)
            new_states = np.arange(count, count + len(picks))
            count += len(picks)
            loss_S = np.concatenate([loss_S, loss_S[picks] + self.relaxation.loss_C[column_N]])
            order = np.argsort(loss_S, kind="stable")
            loss_S = loss_S[order]
            change_SK = np.concatenate([change_SK, change_SK[picks] + self.change_CK[column_N]])[order]
            state_S = np.concatenate([state_S, new_states])[order]
            self._check_time()
        return Half(loss_S, change_SK, state_S, np.concatenate(parents), np.concatenate(columns))
