"""Endings of networks, looked up by what they cost: how the checker joins the parts of both halves of a network.

Every network above the bound is a part that has chosen in all groups but some, and an ending: choices in these. Both
were listed (``replay``), so what is left is to find all pairs that are within the rows and above the bound. For any
multipliers u >= 0 of unit D, such a pair's slack in the rows costs no more than the room that is left to the part:

    u . slack <= D (room - loss(part)) + u . (limits - cost(part)) - the least of D loss + u . cost over the endings

So in rows with a price few slacks are possible. An ending's costs in a few rows, in cells, are its place in a table,
and a part looks at a place for every slack in cells that costs no more than its room. Which rows, cells and vectors
these are decides how long it takes, not what is found: slacks are listed completely, or the part is not looked up but
goes on in the search. Cells are whole numbers; of places that two cells share, both are seen.

One more vector says what an ending loses. The endings at a place stand in order of that, and only those are looked at
that lose no more than is left to the part, less the price of the slack. Both are rounded down to steps.

S = parts or endings, K = rows, D = rows that places are made of, V = vectors, T = slacks in cells, L = groups of
endings, P = places, B = classes of all places, N = looks, then pairs.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_core.program.replay import Ints, Parts, Search, Small, TooLargeError

Codes = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.uint64]
Steps = npt.NDArray[np.int32]

MOST_ENDINGS, MOST_BYTES = 16_000_000, 700_000_000
MOST_SLACKS = 4_000  # that are looked for beside one part
HALVINGS = 12  # of the room, for parts with fewer slacks
MOST_TRIED = 1 << 32  # pairs, in all
CHUNK, PAIRS = 1 << 18, 1 << 21  # looks, or endings, at a time; and pairs
ALIKE, FEW_LOOKS = 0.8, 64  # numbers of looks that are rounded up to the largest of them; and any so small
CLASS_BITS, STEP_BITS = 4, 12  # of the classes of losses, and of the steps that these are made of
WIDEST = 1 << 30  # cell
ALL_LOST = 1 << STEP_BITS  # steps: more than any ending loses


@dataclass(frozen=True)
class Direction:
    """How endings are laid out: by the rows ``row_D`` in cells of ``width_D``, then by what they lose by a vector."""

    row_D: tuple[int, ...]
    width_D: tuple[int, ...]
    unit: Ints  # [1]
    prices_1K: Ints


class Listed:
    """Lists of parts that have chosen in some groups and nowhere else, as they come."""

    def __init__(self, search: Search, groups: tuple[int, ...]) -> None:
        self.groups, self.left = groups, tuple(g for g in range(len(search.alive)) if g not in groups)
        one = search.everything()
        self.lists = [Parts(self.left, one.loss_S[:0], one.cost_SK[:0], one.taken_SG[:0, list(groups)])]
        one_bytes = one.loss_S.nbytes + one.cost_SK.nbytes + len(groups) * one.taken_SG.itemsize
        self.count, self.most = 0, min(MOST_ENDINGS, MOST_BYTES // one_bytes)

    def add(self, parts: Parts) -> None:
        """One list more.

        Raises:
            TooLargeError: if they are too many.
        """
        self.lists.append(replace(parts, taken_SG=parts.taken_SG[:, list(self.groups)]))
        self.count += len(parts)
        if self.count > self.most:
            raise TooLargeError


class Endings:
    """What was listed, which is emptied, to be looked up."""

    def __init__(self, search: Search, listed: Listed, direction: Direction) -> None:
        self.search, self.groups, self.direction = search, listed.groups, direction
        lists, count = listed.lists, listed.count
        widest = int(np.iinfo(search.cost_kind).max)
        self.row_D, self.width_D = list(direction.row_D), [min(width, widest) for width in direction.width_D]
        factor_D = np.random.default_rng(0).integers(1 << 31, size=len(self.row_D))
        self.factor_D: Codes = (2 * factor_D + 1).astype(np.uint32)
        self.num_tried = 0
        self.place_bits = min(max(count.bit_length() + 1 - CLASS_BITS, 1), 32 - STEP_BITS)
        self.room = int(search.rooms(search.everything(), direction.unit, direction.prices_1K)[0, 0])
        self.step_bits = max(0, self.room.bit_length() - STEP_BITS)
        key_S = np.concatenate([self._keys(parts) for parts in lists])
        key_S <<= np.uint64(32)
        key_S |= np.arange(count, dtype=np.uint64)
        key_S.sort()
        order = key_S.astype(np.uint32)
        key_S >>= np.uint64(32)
        self._lay_out(key_S)
        del key_S
        loss_of, cost_of, taken_of = zip(
            *((parts.loss_S, parts.cost_SK, parts.taken_SG) for parts in lists), strict=True
        )
        lists.clear()
        self.loss_S = np.concatenate(loss_of).take(order)  # they are large: one after the other
        del loss_of
        self.cost_SK = np.concatenate(cost_of).take(order, axis=0)
        del cost_of
        self.taken_SL = np.concatenate(taken_of).take(order, axis=0)
        self.least_D = self.cost_SK[:, self.row_D].min(axis=0, initial=np.iinfo(self.cost_SK.dtype).max).tolist()

    def _lay_out(self, key_S: Keys) -> None:
        """Where each class of each place begins, and what an ending there loses at least, in steps."""
        self.first_B = np.zeros((1 << (self.place_bits + CLASS_BITS)) + 1, dtype=np.uint32)
        for low in range(0, len(key_S), CHUNK):
            class_S = (key_S[low : low + CHUNK] >> np.uint64(STEP_BITS - CLASS_BITS)).astype(np.int64)
            counts = np.bincount(class_S - class_S[0])
            self.first_B[class_S[0] + 1 : class_S[0] + 1 + len(counts)] += counts.astype(np.uint32)
        np.cumsum(self.first_B, out=self.first_B)
        first_P = self.first_B[:: 1 << CLASS_BITS]
        is_met_P = first_P[:-1] < first_P[1:]
        self.least_P = np.full(1 << self.place_bits, ALL_LOST, dtype=np.int32)
        self.least_P[is_met_P] = key_S[first_P[:-1][is_met_P]] & np.uint64(ALL_LOST - 1)

    def _keys(self, parts: Parts) -> Keys:
        """Places of endings, and what they lose in steps."""
        left_S = self.search.rooms(parts, self.direction.unit, self.direction.prices_1K)[0]
        step_S = np.minimum((self.room - left_S) >> self.step_bits, ALL_LOST - 1).astype(np.uint64)
        key_S: Keys = self._places(self._codes(parts.cost_SK)).astype(np.uint64) << np.uint64(STEP_BITS)
        key_S |= step_S
        return key_S

    def _steps(self, loss_X: Ints) -> Steps:
        """Losses, rounded down; none is above the room of all."""
        return (np.minimum(loss_X, self.room) >> self.step_bits).astype(np.int32)

    def _places(self, code_S: Codes) -> Codes:
        return code_S >> np.uint32(32 - self.place_bits)

    def _codes(self, cost_SK: Small) -> Codes:
        """One number for the cells of each, of which sums and differences are those of the cells (modulo 2^32)."""
        code_S = np.zeros(len(cost_SK), dtype=np.uint32)
        for row, width, factor in zip(self.row_D, self.width_D, self.factor_D, strict=True):
            code_S += (cost_SK[:, row] // width).astype(np.uint32) * factor
        return code_S

    def looked_up(self, parts: Parts, unit_V: Ints, prices_VK: Ints) -> tuple[list[list[int]], Parts]:
        """The networks of parts and endings that may be within the rows and above the bound; and the parts that have
        too many slacks to be looked up.

        The parts have chosen in all groups but those of the endings; each is bounded by the vector that leaves it
        least.

        Raises:
            TooLargeError: if the direction tells too few endings apart.
        """
        search = self.search
        left_S = search.rooms(parts, self.direction.unit, self.direction.prices_1K)[0]
        room_VS = search.rooms(parts, unit_V, prices_VK)
        spare_SK = search.limit_K - parts.cost_SK
        is_open_S = (left_S >= 0) & (room_VS.min(axis=0) >= 0) & (spare_SK.min(axis=1, initial=0) >= 0)
        best_S = (room_VS / unit_V[:, None]).argmin(axis=0)
        step_S = self._steps(left_S)
        spare_SK = np.maximum(spare_SK, 0).astype(self.cost_SK.dtype)
        code_S = self._codes(spare_SK)
        found, roomy = [], [np.zeros(0, dtype=np.int64)]
        for v, price_K in enumerate(prices_VK):
            own_S = np.flatnonzero(is_open_S & (best_S == v))
            if not len(own_S):
                continue
            falling_S = -room_VS[v, own_S]
            order = np.argsort(falling_S, kind="stable")
            own_S, falling_S = own_S[order], falling_S[order]
            most, slack_TD, price_T = self._slacks(price_K, spare_SK[own_S], -int(falling_S[0]))
            few = int(np.searchsorted(falling_S, -most))  # from here on all possible slacks are listed
            roomy.append(own_S[:few])
            own_S, falling_S = own_S[few:], falling_S[few:]
            looking_T = np.searchsorted(falling_S, -price_T, side="right")
            for part_N, place_N, step_N in self._looks(code_S[own_S], step_S[own_S], slack_TD, looking_T):
                for look_N, ending_N in self._at(place_N, step_N):
                    found += self._within(parts, spare_SK, own_S[part_N[look_N]], ending_N)
        return found, parts.at(np.sort(np.concatenate(roomy)))

    def _slacks(self, price_K: Ints, spare_SK: Small, room: int) -> tuple[int, Ints, Ints]:
        """(room, slacks in cells, what they cost at least): all that cost no more than the room, the least dear first.

        The room is lowered where that would be too many, and -1 where it does not help.
        """
        most_D = spare_SK[:, self.row_D].max(axis=0, initial=0).tolist()
        for _ in range(HALVINGS):
            slack_TD, price_T = np.zeros((1, 0), dtype=np.int64), np.zeros(1, dtype=np.int64)
            for row, width, least, most in zip(self.row_D, self.width_D, self.least_D, most_D, strict=True):
                number = np.arange(min(most // width - least // width, MOST_SLACKS) + 1)
                total_TN = price_T[:, None] + price_K[row] * _least_slack(number, width)
                before, step = np.nonzero(total_TN <= room)
                slack_TD, price_T = np.column_stack([slack_TD[before], number[step]]), total_TN[before, step]
                if len(price_T) > MOST_SLACKS:
                    break
            else:
                order = np.argsort(price_T, kind="stable")
                return room, slack_TD[order], price_T[order]
            room //= 2
        return -1, np.zeros((0, len(self.row_D)), dtype=np.int64), price_T[:0]

    def _looks(
        self, code_S: Codes, step_S: Steps, slack_TD: Ints, looking_T: Ints
    ) -> Iterator[tuple[Ints, Codes, Steps]]:
        """(part, place, steps that an ending may lose there) where one may be, for the first ``looking_T`` parts of
        every slack, or some more.
        """
        code_T = (slack_TD.astype(np.uint32) * self.factor_D).sum(axis=1, dtype=np.uint32)
        price_T = np.zeros(len(slack_TD), dtype=np.int64)
        for d, (row, width) in enumerate(zip(self.row_D, self.width_D, strict=True)):
            price_T += self.direction.prices_1K[0, row] * _least_slack(slack_TD[:, d], width)
        paid_T = self._steps(price_T)
        for low, high, count in _blocks(looking_T):
            place_TS = self._places(code_S[:count] - code_T[low:high, None])
            step_TS = step_S[:count] - paid_T[low:high, None]
            look_N = np.flatnonzero(self.least_P.take(place_TS) <= step_TS)
            yield look_N % count, place_TS.ravel()[look_N], step_TS.ravel()[look_N]

    def _at(self, place_N: Codes, step_N: Steps) -> Iterator[tuple[Ints, Ints]]:
        """Pairs of looks and the endings there, up to the class of what they may lose."""
        key_N = place_N.astype(np.int64) << CLASS_BITS
        first_N = self.first_B[key_N].astype(np.int64)
        key_N += np.minimum(step_N, ALL_LOST - 1) >> (STEP_BITS - CLASS_BITS)
        count_N = self.first_B[key_N + 1] - first_N
        total = int(count_N.sum())
        self.num_tried += total
        if self.num_tried > MOST_TRIED:
            raise TooLargeError
        edges = np.searchsorted(np.cumsum(count_N), np.arange(0, total, PAIRS), side="right")
        for low, high in itertools.pairwise([*edges.tolist(), len(count_N)]):
            some = count_N[low:high]
            within = np.arange(int(some.sum())) - np.repeat(np.cumsum(some) - some, some)
            yield np.repeat(np.arange(low, high), some), np.repeat(first_N[low:high], some) + within

    def _within(self, parts: Parts, spare_SK: Small, part_N: Ints, ending_N: Ints) -> list[list[int]]:
        """The networks of pairs that are within the rows and above the bound, both rounded as in the search."""
        kept = np.flatnonzero(self.loss_S.take(ending_N) <= self.search.room - parts.loss_S.take(part_N))
        part_N, ending_N = part_N[kept], ending_N[kept]
        kept = np.flatnonzero((self.cost_SK.take(ending_N, axis=0) <= spare_SK.take(part_N, axis=0)).all(axis=1))
        taken_NG = parts.taken_SG[part_N[kept]]
        taken_NG[:, list(self.groups)] = self.taken_SL[ending_N[kept]]
        return self.search.spelled(taken_NG)


def _least_slack(slack_X: Any, width: int) -> Any:
    """What slacks in cells are at least: the next cell is a unit away at least."""
    return np.where(slack_X > 0, (slack_X - 1) * width + 1, 0)


def _blocks(looking_T: Ints) -> Iterator[tuple[int, int, int]]:
    """(first slack, last but one, parts) of slacks that about as many parts look for."""
    low, falling_T = 0, -looking_T
    end = int(np.searchsorted(falling_T, 0))  # from here on no part looks
    while low < end:
        count = int(looking_T[low])
        high = int(np.searchsorted(falling_T, -int(ALIKE * count), side="right")) if count > FEW_LOOKS else end
        high = min(high, low + max(CHUNK // count, 1), end)
        yield low, high, count
        low = high
