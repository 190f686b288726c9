"""The best k networks of an additive program in order: best-first search over batches of parts of networks.

A part has a column in each of the first groups of some order. Whatever completes it is, for any
multipliers lambda >= 0, worth at most

    value so far + lambda . room left + sum over the groups to come of max_j (v_j - lambda . a_j)

and the least of these over some multipliers is the part's bound: nearly the linear relaxation's, at the cost
of one matrix product for a hundred thousand parts. Two passes:

1. A beam, the best parts of every depth alone, finds k networks at once: what is worth less than the k-th
   of them is not among the best k. Its parts also say which multipliers fit which depth.
2. The search: the batch with the highest bound grows by one group, again and again, and what cannot
   reach the k-th network found leaves. It ends when no bound does. Stopped before, the networks
   above the highest bound left are the best, in order; ``floor`` is that bound.

Unlike k solves, nothing is looked at twice (Lawler 1972 is the k solves; Hamacher and Queyranne 1985 on ranking).

Values are integers, rows too; floats are in bounds only, rounded up. Of networks worth the same the
lexicographically first come first. Where millions are worth what the k-th is, the search is done
again in the order of the groups, so that what comes later in that order leaves as well.

S = parts, G = groups, K = rows, L = multipliers, D = depths (groups that have a column).
"""

import contextlib
import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from nas_core.program.answers import Effort
from nas_core.program.linear import EPSILON, Floats, Ints, LinearProgram
from nas_core.program.relaxation import Relaxation, multipliers, without_smallest

Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.uint16]  # of a column within its group

MAX_TOTAL_BITS = 60
FLOAT_UNITS = 1 << 50  # a network's summed losses in units, where values are floats
BEAM = 1_000  # parts kept of each depth at least
WIDER = 1.5  # than k, so that k of the beam's networks are near the best
BATCH = 20_000  # parts that grow together at most
BATCH_NUMBERS = 4_000_000  # that their extensions take
MAX_NUMBERS = 100_000_000  # that waiting parts take; more are forgotten, the lowest bounds first
MAX_TIES = 100_000  # networks worth what the k-th is that are kept
LEARNT_DEPTHS = 12  # depths for whose parts multipliers are worked out
TELL_EVERY_S = 0.2
HOPE_SHARE = 0.8  # of the time left, after which a search that has proven nothing ends
LOWEST = -(1 << 62)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """``columns_SG``: networks, best first, and their values in units. ``floor``: no other is worth more units.

    ``floor`` is ``LOWEST`` where they are as many as were asked for, or all, and in order.
    """

    columns_SG: Ints
    value_S: Ints
    floor: int


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Values of columns in whole ``unit``s. A network is worth their sum, or up to ``slack`` units more."""

    value_C: Ints
    unit: Fraction
    slack: int

    @classmethod
    def of(cls, lp: LinearProgram) -> "Whole":
        if lp.integers_C is not None:
            return cls(value_C=lp.integers_C, unit=lp.unit, slack=0)
        starts = lp.starts_G1[:-1]
        if lp.exact_C is not None:
            total = -sum(np.minimum.reduceat(lp.exact_C, starts).tolist())
            bits = max(0, total.bit_length() - MAX_TOTAL_BITS)
            return cls(value_C=(lp.exact_C >> bits).astype(np.int64), unit=lp.unit * (1 << bits), slack=lp.num_groups)
        unit = -float(np.minimum.reduceat(lp.value_C, starts).sum()) / FLOAT_UNITS or 1.0
        low_C = np.floor((lp.value_C - lp.error_C) / unit)
        slack = lp.num_groups + 2 + math.ceil(2 * lp.rounding / unit)
        return cls(value_C=low_C.astype(np.int64), unit=Fraction(unit), slack=slack)


class _OutOfTimeError(Exception):
    """The deadline has come."""


class _ManyTiesError(Exception):
    """Too many networks are worth as much as the last one wanted."""


@dataclass(frozen=True)
class _Parts:
    """Parts of networks, all of one depth.

    ``place_SG``: of each column within its group, by depth. ``price_S``: the multipliers that give ``bound_S``.
    """

    depth: int
    value_S: Ints
    room_SK: Ints
    place_SG: Places
    bound_S: Floats
    price_S: Ints

    def __len__(self) -> int:
        return len(self.value_S)

    def at(self, index: "Ints | Bools | slice") -> "_Parts":
        return _Parts(
            self.depth,
            self.value_S[index],
            self.room_SK[index],
            self.place_SG[index],
            self.bound_S[index],
            self.price_S[index],
        )

    @property
    def numbers(self) -> int:
        return len(self) * (int(self.room_SK.shape[1]) + int(self.place_SG.shape[1]) // 4 + 3)

    @property
    def top(self) -> int:
        """No completion is worth more units."""
        return math.floor(float(self.bound_S.max())) if len(self) else LOWEST


def _joined(parts: list[_Parts]) -> _Parts:
    columns = zip(*((p.value_S, p.room_SK, p.place_SG, p.bound_S, p.price_S) for p in parts), strict=True)
    return _Parts(parts[0].depth, *map(np.concatenate, columns))


class _Prices:
    """Multipliers, and what they say of the groups to come."""

    def __init__(self, whole: Whole, lp: LinearProgram, order: Ints) -> None:
        self.whole, self.lp, self.order = whole, lp, order
        starts = lp.starts_G1[:-1]
        self.value_size = float(np.maximum.reduceat(np.abs(whole.value_C), starts).astype(np.float64).sum())
        most_K = np.maximum.reduceat(np.abs(lp.rows_KC), starts, axis=1).astype(np.float64).sum(axis=1)
        self.row_size_K = most_K + np.abs(lp.limits_K)
        self.lambda_LK = np.zeros((0, len(lp.limits_K)))
        self.loss_LC = np.zeros((0, len(whole.value_C)))
        self.ahead_LD = np.zeros((0, lp.num_groups + 1))
        self.useful: dict[int, Ints] = {}  # of a depth: the multipliers that bound some part there

    def add(self, lambda_K: Floats) -> None:
        lambda_K = without_smallest(lambda_K)
        if any(np.allclose(lambda_K, other, rtol=1e-6, atol=0) for other in self.lambda_LK):
            return
        reduced_C = self.whole.value_C - lambda_K @ self.lp.rows_KC
        best_G = np.maximum.reduceat(reduced_C, self.lp.starts_G1[:-1])
        best_D = best_G[self.order]
        ahead_D = np.append(np.cumsum(best_D[::-1])[::-1], 0.0)
        size = self.value_size + float(lambda_K @ self.row_size_K)
        rounding = 4 * (self.lp.num_groups + len(lambda_K) + 8) * EPSILON * size
        self.lambda_LK = np.append(self.lambda_LK, lambda_K[None], axis=0)
        self.loss_LC = np.append(self.loss_LC, (best_G[self.lp.columns.group_C] - reduced_C)[None], axis=0)
        self.ahead_LD = np.append(self.ahead_LD, (ahead_D + rounding)[None], axis=0)

    def bounds(self, depth: int, value_S: Ints, room_SK: Ints) -> tuple[Floats, Ints]:
        """What completions are worth at most, rounded up, and which multipliers say so."""
        used = self.useful.get(depth, np.arange(len(self.lambda_LK)))
        total_SL = room_SK.astype(np.float64) @ self.lambda_LK[used].T + self.ahead_LD[used, depth]
        at_S = total_SL.argmin(axis=1)
        return value_S + total_SL[np.arange(len(at_S)), at_S], used[at_S]


class _Found:
    """The best ``count`` networks found, and those worth the same as the last of them."""

    def __init__(self, num_groups: int, count: int, least: int, slack: int, is_ordered: bool) -> None:
        self.count, self.least, self.slack, self.is_ordered = count, least, slack, is_ordered
        self.value_S: Ints = np.zeros(0, dtype=np.int64)
        self.place_SG: Places = np.zeros((0, num_groups), dtype=np.uint16)

    def add(self, value_S: Ints, place_SG: Places) -> None:
        self.value_S = np.append(self.value_S, value_S)
        self.place_SG = np.append(self.place_SG, place_SG, axis=0)
        if len(self.value_S) >= self.count:
            last = len(self.value_S) - self.count
            self.least = max(self.least, int(np.partition(self.value_S, last)[last]))
        if self.is_ordered:
            self._keep(_by_value(self.value_S, self.place_SG)[: self.count])
            return
        self._keep(np.flatnonzero(self.value_S >= self.least - self.slack))

    @property
    def has_many_ties(self) -> bool:
        return len(self.value_S) > self.count + MAX_TIES

    def _keep(self, index: Ints) -> None:
        self.value_S, self.place_SG = self.value_S[index], self.place_SG[index]

    def may_enter(self, parts: _Parts) -> Bools:
        """Whether completions of parts may be among the best: the first of those that are worth the same are."""
        top_S = np.floor(parts.bound_S)
        alive: Bools = top_S >= self.least - self.slack
        if not self.is_ordered or len(self.value_S) < self.count:
            return alive
        last_G = self.place_SG[-1, : parts.depth].astype(np.int64)
        more_SG = parts.place_SG[:, : parts.depth] - last_G
        first_S = (more_SG != 0).argmax(axis=1)
        is_before: Bools = more_SG[np.arange(len(first_S)), first_S] <= 0
        return alive & ((top_S > self.least) | is_before)

    def add_new(self, other: "_Found") -> None:
        """Add the networks of another search that this one did not find."""
        mine = set(map(bytes, self.place_SG))
        new = [i for i, place_G in enumerate(other.place_SG) if bytes(place_G) not in mine]
        self.add(other.value_S[new], other.place_SG[new])

    def num_above(self, floor: int) -> int:
        return int(np.count_nonzero(self.value_S > floor + self.slack))


class Ranker:
    """Lists the best networks of a program.

    ``refuses``: whether a network, by its columns, is not allowed though it is within the rows.
    """

    def __init__(
        self,
        lp: LinearProgram,
        relaxation: Relaxation,
        effort: Effort,
        refuses: Callable[[Ints], bool] | None = None,
        *,
        by_position: bool = False,
    ) -> None:
        self.lp, self.relaxation, self.effort, self.refuses = lp, relaxation, effort, refuses
        self.hopeless_at = time.monotonic() + HOPE_SHARE * effort.left_s
        self.whole, self.by_position = Whole.of(lp), by_position
        self.order = np.arange(lp.num_groups) if by_position else _by_second_loss(lp, relaxation)
        starts, ends = lp.starts_G1[:-1][self.order].tolist(), lp.starts_G1[1:][self.order].tolist()
        self.columns_D = [np.arange(low, high) for low, high in zip(starts, ends, strict=True)]
        least_DK = np.minimum.reduceat(lp.rows_KC, lp.starts_G1[:-1], axis=1)[:, self.order].T
        nothing = np.zeros((1, len(lp.limits_K)), dtype=np.int64)
        self.least_DK = np.append(np.cumsum(least_DK[::-1], axis=0)[::-1], nothing, axis=0)
        self.prices = _Prices(self.whole, lp, self.order)
        self.prices.add(relaxation.duals_K / float(self.whole.unit))

    def best(self, count: int, least: int = LOWEST) -> Listing:
        """The best ``count`` networks, or all that are worth ``least`` units where these are fewer."""
        root, found = self._root(), self._new_found(count, least)
        if root.top < least - self.whole.slack:
            return self._listing(found, LOWEST)
        try:
            is_everything = self._beam(root, found, BEAM, learns=True)
            if not is_everything:
                wider = self._new_found(count, found.least)
                is_everything = self._beam(root, wider, max(BEAM, int(WIDER * count)), learns=False)
                found = wider
            if is_everything:
                return self._listing(found, LOWEST)
        except _OutOfTimeError:
            return self._listing(found, root.top)
        self._leave_columns(found.least)
        searched = self._new_found(count, found.least)
        try:
            floor = self._search(root, searched)
        except _ManyTiesError:
            again = Ranker(self.lp, self.relaxation, self.effort, self.refuses, by_position=True)
            return again.best(count, searched.least)
        if floor > LOWEST:
            searched.add_new(found)
        return self._listing(searched, floor)

    def good(self, count: int) -> Listing:
        """Some good networks, which need not be the best: those of beams alone."""
        root, found = self._root(), self._new_found(count, LOWEST)
        with contextlib.suppress(_OutOfTimeError):
            if not self._beam(root, found, BEAM, learns=True) and count > BEAM:
                found = self._new_found(count, found.least)
                self._beam(root, found, int(WIDER * count), learns=False)
        return self._listing(found, root.top)

    def _new_found(self, count: int, least: int) -> _Found:
        return _Found(self.lp.num_groups, count, least, self.whole.slack, self.by_position)

    def _root(self) -> _Parts:
        value_S, room_SK = np.zeros(1, dtype=np.int64), self.lp.limits_K[None]
        place_SG = np.zeros((1, self.lp.num_groups), dtype=np.uint16)
        return _Parts(0, value_S, room_SK, place_SG, *self.prices.bounds(0, value_S, room_SK))

    def _listing(self, found: _Found, floor: int) -> Listing:
        place_SG = np.empty_like(found.place_SG)
        place_SG[:, self.order] = found.place_SG
        best = _by_value(found.value_S, place_SG)
        if not found.slack:
            best = best[: found.count]
        columns_SG = self.lp.starts_G1[:-1] + place_SG[best]
        return Listing(columns_SG=columns_SG, value_S=found.value_S[best], floor=floor)

    def _leave_columns(self, least: int) -> None:
        """Drop the columns of which one alone loses more than a network worth ``least`` does."""
        relaxation, most = self.relaxation, np.inf
        if least > LOWEST:
            most = relaxation.bound + 2 * relaxation.error - float(self.whole.unit) * (least - self.whole.slack - 1)
        self.columns_D = [columns[relaxation.loss_C[columns] <= most] for columns in self.columns_D]

    def _beam(self, root: _Parts, found: _Found, width: int, *, learns: bool) -> bool:
        """Find good networks: of every depth the best ``width`` parts grow. Returns whether that was all of them."""
        parts, is_everything, learnt = root, True, max(1, self.lp.num_groups // LEARNT_DEPTHS)
        for depth in range(1, self.lp.num_groups + 1):
            parts = self._grown(parts, found, notes=not learns)
            if not len(parts):
                return is_everything
            order = np.argsort(-parts.bound_S, kind="stable")
            is_everything &= len(order) <= width
            parts = parts.at(order[:width])
            if learns and depth < self.lp.num_groups and depth % learnt == 0:
                self._learn(parts)
        self._take(parts, found)
        return is_everything

    def _learn(self, parts: _Parts) -> None:
        """The multipliers that bound the best of some parts closest, and a middling one."""
        for part in {0, len(parts) // 2}:
            self._check_time()
            kept_C = np.zeros(self.lp.columns.num_columns, dtype=bool)
            for columns in self.columns_D[parts.depth :]:
                kept_C[columns] = True
            first = self.lp.starts_G1[:-1][self.order[: parts.depth]]
            kept_C[first + parts.place_SG[part, : parts.depth]] = True
            rest = self.lp.keep(kept_C)
            most_K = np.maximum.reduceat(rest.rows_KC, rest.starts_G1[:-1], axis=1).sum(axis=1)
            duals_K = multipliers(rest, np.flatnonzero(most_K > rest.limits_K))
            if duals_K is not None:
                self.prices.add(duals_K / float(self.whole.unit))

    def _search(self, root: _Parts, found: _Found) -> int:
        """Find the best networks. Returns what all others are worth at most: ``LOWEST`` where none could be among them.

        Raises:
            _ManyTiesError: if too many are worth the same, and another order of groups would help.
        """
        waiting = _Waiting()
        waiting.add(root)
        told = time.monotonic()
        while waiting.top >= found.least - found.slack and waiting.top > waiting.forgotten:
            if time.monotonic() > told + TELL_EVERY_S:
                told, num_proven = time.monotonic(), found.num_above(waiting.top)
                self.effort.tell(num_proven)
                if not num_proven and told > self.hopeless_at:
                    return max(waiting.top, waiting.forgotten)
            parts = waiting.pop(self._batch(waiting.depth))
            try:
                grown = self._grown(parts.at(found.may_enter(parts)), found)
            except _OutOfTimeError:
                return max(parts.top, waiting.top, waiting.forgotten)
            if grown.depth == self.lp.num_groups:
                self._take(grown, found)
                if found.has_many_ties:
                    if not (found.slack or self.by_position):
                        raise _ManyTiesError
                    return max(waiting.top, waiting.forgotten)
            elif len(grown):
                waiting.add(grown.at(self._urgent(grown)))
        return waiting.forgotten

    def _urgent(self, parts: _Parts) -> Ints:
        """The order in which parts grow."""
        if self.by_position:
            return _by_value(np.floor(parts.bound_S), parts.place_SG[:, : parts.depth])
        return np.argsort(-parts.bound_S, kind="stable")

    def _batch(self, depth: int) -> int:
        per_part = len(self.columns_D[depth]) * (len(self.lp.limits_K) + 8)
        return max(1, min(BATCH, BATCH_NUMBERS // per_part))

    def _grown(self, parts: _Parts, found: _Found, *, notes: bool = False) -> _Parts:
        """Parts with a column of the next group each, those that may still enter.

        ``notes``: use the multipliers that bound some of them closest, and no others from now on.
        """
        size, grown = self._batch(parts.depth), []
        for low in range(0, max(len(parts), 1), size):
            self._check_time()
            some = self._extended(parts.at(slice(low, low + size)), found)
            grown.append(some.at(found.may_enter(some)))
        all_grown = grown[0] if len(grown) == 1 else _joined(grown)
        if notes:
            self.prices.useful[all_grown.depth] = np.unique(np.append(all_grown.price_S, 0))
        return all_grown

    def _extended(self, parts: _Parts, found: _Found) -> _Parts:
        """Parts with one more column each, less those that the multipliers of the shorter part rule out."""
        depth, columns = parts.depth, self.columns_D[parts.depth]
        loss_SN = self.prices.loss_LC[:, columns][parts.price_S]
        parent_S, pick_S = np.nonzero(parts.bound_S[:, None] - loss_SN >= found.least - found.slack)
        room_SK = parts.room_SK[parent_S] - self.lp.rows_KC.T[columns[pick_S]]
        fits_S = (room_SK >= self.least_DK[depth + 1]).all(axis=1)
        parent_S, pick_S, room_SK = parent_S[fits_S], pick_S[fits_S], room_SK[fits_S]
        value_S = parts.value_S[parent_S] + self.whole.value_C[columns[pick_S]]
        place_SG = parts.place_SG[parent_S]
        place_SG[:, depth] = columns[pick_S] - self.lp.starts_G1[self.order[depth]]
        return _Parts(depth + 1, value_S, room_SK, place_SG, *self.prices.bounds(depth + 1, value_S, room_SK))

    def _take(self, parts: _Parts, found: _Found) -> None:
        if self.refuses is not None and len(parts):
            place_SG = np.empty_like(parts.place_SG)
            place_SG[:, self.order] = parts.place_SG
            columns_SG = self.lp.starts_G1[:-1] + place_SG
            parts = parts.at(np.array([not self.refuses(columns_G) for columns_G in columns_SG]))
        found.add(parts.value_S, parts.place_SG)

    def _check_time(self) -> None:
        if self.effort.left_s == 0:
            raise _OutOfTimeError


class _Waiting:
    """Batches of parts by their highest bound, deeper ones first; the parts of a batch in the order they grow in."""

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, int, _Parts]] = []
        self.numbers, self.count, self.forgotten = 0, 0, LOWEST

    @property
    def top(self) -> int:
        return -self.heap[0][0] if self.heap else LOWEST

    @property
    def depth(self) -> int:
        return self.heap[0][3].depth

    def add(self, parts: _Parts) -> None:
        self.count += 1
        self.numbers += parts.numbers
        heapq.heappush(self.heap, (-parts.top, -parts.depth, self.count, parts))
        if self.numbers > MAX_NUMBERS:
            self._forget()

    def pop(self, size: int) -> _Parts:
        """The next parts to grow."""
        parts = heapq.heappop(self.heap)[3]
        self.numbers -= parts.numbers
        if len(parts) > size:
            self.add(parts.at(slice(size, None)))
        return parts.at(slice(size))

    def _forget(self) -> None:
        self.heap.sort(key=lambda item: item[:3])
        while self.numbers > MAX_NUMBERS / 2 and len(self.heap) > 1:
            parts = self.heap.pop()[3]
            self.numbers -= parts.numbers
            self.forgotten = max(self.forgotten, parts.top)


def _by_second_loss(lp: LinearProgram, relaxation: Relaxation) -> Ints:
    """Groups by what their second best column loses, most first: undecided ones come last, when bounds are closest."""
    order = np.lexsort((relaxation.loss_C, lp.columns.group_C))
    sizes = np.diff(lp.starts_G1)
    second_G = relaxation.loss_C[order][lp.starts_G1[:-1] + np.minimum(1, sizes - 1)]
    return np.argsort(-np.where(sizes > 1, second_G, np.inf), kind="stable")


def _by_value(value_S: "Ints | Floats", place_SG: Places) -> Ints:
    """Networks by value, the highest first; equal ones by their places, the first first."""
    order: Ints = np.lexsort((*place_SG.T[::-1], -value_S))
    return order
