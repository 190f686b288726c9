"""Lists of parts of networks, and how they grow: the search of ``branching``, which says what it is for.

A list's parts have chosen in the same groups and share vectors of multipliers. Room and losses are small whole
numbers, losses rounded down and rooms up: no part that leads to the goal is dropped.

G = groups left, J = columns of a group, K = rows, U = vectors of multipliers, R = U + K rows of both kinds, W = words
of four rows, S = parts, L = groups chosen since the last multipliers, V = vectors by which parts are looked up.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_core.program.endings import Endings
from nas_core.program.linear import EPSILON, Floats, Ints, LinearProgram
from nas_core.program.multipliers import Multipliers
from nas_core.program.packed import GUARD, LARGEST, NEVER, Words, fitting, lane, packed

Small = npt.NDArray[np.integer]

MOST_PARTS = 20_000  # of a list that shares its multipliers
NEAR = 5.0  # how much less a column counts that loses all that may be lost, as a power of e
LEVELS, FEW_PARTS = 4, 2_000  # groups chosen with one set of multipliers; more while so few parts were made
COUNTED = 64  # parts of a list by which the next group is chosen
LOOKED_UP_BY = 8  # vectors of a list, the first ones
OWN = 0.9  # of a part's own best multipliers, mixed with the mean: a row without a price would allow any slack
ORDERED_S = 3e-7  # that putting one ending in order takes, about
SINGLE, COARSE = 2.0**-23, 1e-3  # the rounding of floats of 32 bits, and the share of the room that it may take


@dataclass(frozen=True)
class Parts:
    """Parts that have chosen in the same groups: all but ``left``; ``taken_SG`` spells their columns by places."""

    left: tuple[int, ...]
    value_S: Ints
    cost_SK: Small
    taken_SG: Small
    prices_UK: Floats

    def pieces(self) -> "list[Parts]":
        """The same in lists of ``MOST_PARTS`` at most."""
        count = len(self.value_S)
        return [
            replace(self, value_S=self.value_S[at], cost_SK=self.cost_SK[at], taken_SG=self.taken_SG[at])
            for at in np.array_split(np.arange(count), -(-count // MOST_PARTS))
        ]


@dataclass(frozen=True)
class Grown:
    """What has come of a list: from which of its parts, and by which columns (their places) of some ``groups``.

    The last of the groups came to the parts ``last_S`` of those with these rows: ``room_WS`` before, and its
    ``loss_WJ``. One of a row is ``scale`` of the values' units.
    """

    parts: Parts
    prices_UK: Floats
    groups: tuple[int, ...]
    part_S: Ints
    place_LS: list[Small]
    room_WS: Words
    loss_WJ: Words
    last_S: Ints
    scale: float

    @property
    def left(self) -> tuple[int, ...]:
        """The groups that are left."""
        return tuple(g for g in self.parts.left if g not in self.groups)

    def at(self, index: Ints) -> "Grown":
        """Some of it."""
        places = [place_S[index] for place_S in self.place_LS]
        return replace(self, part_S=self.part_S[index], place_LS=places, last_S=self.last_S[index])


class Search:
    """Looks for networks of some columns that are worth a goal; groups are padded to the same number of columns."""

    def __init__(self, lp: LinearProgram, kept: Ints, goal: int, duals_K: Floats) -> None:
        assert lp.integers_C is not None, "it fits"
        self.lp, self.goal, self.duals_K = lp, goal, duals_K
        self.rng = np.random.default_rng(0)
        group_C = lp.columns.group_C[kept]
        starts = np.searchsorted(group_C, np.arange(lp.num_groups + 1))
        sizes = np.diff(starts)
        place = np.arange(sizes.max(initial=0))
        self.is_pad_GJ = place >= sizes[:, None]
        self.column_GJ = kept[np.minimum(starts[:-1, None] + place, starts[1:, None] - 1)]  # padded with the last
        self.value_GJ = lp.integers_C[self.column_GJ]
        self.cost_GJK = np.ascontiguousarray(np.moveaxis(lp.rows_KC[:, self.column_GJ], 0, 2))
        self.least_GK, self.most_GK = self.cost_GJK.min(axis=1), self.cost_GJK.max(axis=1)
        self.multipliers = Multipliers(self.value_GJ, self.cost_GJK, lp.limits_K, self.rng)
        top_G = (self.value_GJ - self.cost_GJK @ duals_K).max(axis=1)
        self.room = float(top_G.sum() + duals_K @ lp.limits_K - goal)  # that the relaxation leaves to be lost
        self.place_kind = smallest(len(place))
        self.value_kind = smallest(-int(self.value_GJ.min(axis=1).sum()), signed=True)
        self.cost_kind = smallest(2 * int(lp.limits_K.max(initial=0)))  # rounded rows let a little too much through
        self.small_GJK = np.minimum(self.cost_GJK, lp.limits_K).astype(self.cost_kind)

    def everything(self) -> Parts:
        """The part that has chosen nothing."""
        num_groups, num_rows = self.least_GK.shape
        return Parts(
            left=tuple(range(num_groups)),
            value_S=np.zeros(1, dtype=np.int64),
            cost_SK=np.zeros((1, num_rows), self.cost_kind),
            taken_SG=np.zeros((1, num_groups), self.place_kind),
            prices_UK=self.duals_K[None],
        )

    def children(self, parts: Parts, last: Collection[int] = ()) -> list[Parts]:
        """Each part extended by a few groups: those that can still reach the goal. Groups in ``last`` come last."""
        grown = self.grown(parts, last)
        return [] if grown is None else self.made(grown).pieces()

    def grown(self, parts: Parts, last: Collection[int] = ()) -> Grown | None:
        """The same before it is made; None if there are no such parts."""
        prices_UK = self._prices(parts)
        part_S, room_WS, loss_WGJ, scale = self._rows(parts, prices_UK)
        order = self._order(room_WS, loss_WGJ) if len(part_S) else []
        order = [i for i in order if parts.left[i] not in last] or order
        places, made = list[Small](), 0
        for level, i in enumerate(order, 1):
            found = [fitting(room_WS, loss_W) for loss_W in loss_WGJ[:, i].T]
            last_S = np.concatenate(found)
            if not len(last_S):
                return None
            place_S = np.repeat(np.arange(len(found), dtype=self.place_kind), list(map(len, found)))
            part_S, places = part_S[last_S], [*(before_S[last_S] for before_S in places), place_S]
            made += len(last_S)
            if level == len(order) or made > MOST_PARTS or (level >= LEVELS and made > FEW_PARTS):
                groups = tuple(parts.left[i] for i in order[:level])
                return Grown(parts, prices_UK, groups, part_S, places, room_WS, loss_WGJ[:, i], last_S, scale)
            room_WS = room_WS.take(last_S, axis=1)
            room_WS -= loss_WGJ[:, i].take(place_S, axis=1)
        return None

    def made(self, grown: Grown) -> Parts:
        """The list of what has come of a list."""
        taken_SG = grown.parts.taken_SG.take(grown.part_S, axis=0)
        for g, place_S in zip(grown.groups, grown.place_LS, strict=True):
            taken_SG[:, g] = place_S
        return Parts(grown.left, *self._sums(grown), taken_SG, grown.prices_UK)

    def _sums(self, grown: Grown) -> tuple[Ints, Small]:
        """What has come of a list is worth [S], and costs [S, K]."""
        value_S, cost_SK = grown.parts.value_S[grown.part_S], grown.parts.cost_SK.take(grown.part_S, axis=0)
        for g, place_S in zip(grown.groups, grown.place_LS, strict=True):
            value_S += self.value_GJ[g].take(place_S)
            cost_SK += self.small_GJK[g].take(place_S, axis=0)
        return value_S, cost_SK

    def split(self, count: int) -> tuple[int, ...]:
        """Groups for a half: of those with many columns that lose little and of those with few alike."""
        reduced_GJ = self.value_GJ - self.cost_GJK @ self.duals_K
        loss_GJ = reduced_GJ.max(axis=1, keepdims=True) - reduced_GJ
        near_GJ = np.where(self.is_pad_GJ, 0.0, np.exp(-NEAR * loss_GJ / max(self.room, 1.0)))
        order = np.argsort(near_GJ.sum(axis=1), kind="stable")
        places = np.rint(np.linspace(1, len(order) - 1, count)).astype(int)
        return tuple(sorted(order[places].tolist()))

    def count(self, groups: tuple[int, ...]) -> float:
        """About how many parts have chosen in these groups alone: of every list's children, one list is looked at."""
        rest = self._others(groups)
        lists, factor, total = [self.everything()], 1.0, 0.0
        while lists:
            total = max(total, factor * sum(len(parts.value_S) for parts in lists))
            if lists[0].left == rest:
                break
            factor *= len(lists)
            lists = self.children(lists[int(self.rng.integers(len(lists)))], rest)
        return total

    def _others(self, groups: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(g for g in range(self.lp.num_groups) if g not in groups)

    def endings(self, groups: tuple[int, ...], most: int, deadline: float) -> Endings | None:
        """What parts that have chosen elsewhere may end with; None at the deadline, or where it is too much."""
        rest, listed = self._others(groups), list(groups)
        found = [
            [np.zeros(0, self.value_kind)],
            [np.zeros((0, len(self.lp.limits_K)), self.cost_kind)],
            [np.zeros((0, len(groups)), self.place_kind)],
        ]
        count = 0
        todo = [self.everything()]
        while todo:
            if time.monotonic() + ORDERED_S * count > deadline:
                return None
            grown = self.grown(todo.pop(), rest)
            if grown is None:
                continue
            parts = self.made(grown)
            if parts.left != rest:
                todo += parts.pieces()
                continue
            for arrays, array in zip(
                found, (parts.value_S.astype(self.value_kind), parts.cost_SK, parts.taken_SG[:, listed]), strict=True
            ):
                arrays.append(array)
            count += len(parts.value_S)
            if count > most:
                return None
        top = float((self.value_GJ[listed] - self.cost_GJK[listed] @ self.duals_K).max(axis=1).sum())
        for arrays in found:  # they are large: one after the other
            arrays[:] = [np.concatenate(arrays)]
        return Endings(groups, [arrays.pop() for arrays in found], self.duals_K, top, self.room)

    def ended(self, grown: Grown, endings: Endings) -> tuple[Ints | None, Parts | None]:
        """The best completed network ([G] columns; None if none is worth the goal), and the parts with too many
        matching endings to look up.
        """
        value_S, cost_SK = self._sums(grown)
        spare_SK = self.lp.limits_K - cost_SK
        pairs = endings.partners(spare_SK, self.goal - value_S, *self._own(grown))
        roomy = self.made(grown.at(pairs.roomy_S)) if len(pairs.roomy_S) else None
        if not len(pairs.part_N):
            return None, roomy
        at = int((value_S[pairs.part_N] + endings.value_S[pairs.ending_N]).argmax())
        taken_G = self.made(grown.at(pairs.part_N[at : at + 1])).taken_SG[0]
        taken_G[list(endings.groups)] = endings.pick_SG[pairs.ending_N[at]]
        return self.column_GJ[np.arange(len(taken_G)), taken_G], roomy

    def _own(self, grown: Grown) -> tuple[Floats, Ints, Floats]:
        """(room [S], by which of some vectors [S], these vectors [V, K]): each by one that leaves it little."""
        mean, count = len(grown.prices_UK) - 1, min(LOOKED_UP_BY, len(grown.prices_UK))
        number_V = np.arange(count)
        best_S = lane(grown.room_WS, number_V[:, None], np.arange(grown.room_WS.shape[1])).argmin(axis=0)
        best_S = best_S[grown.last_S]
        place_S = grown.place_LS[-1]
        own_S, mean_S = (
            np.subtract(lane(grown.room_WS, row_S, grown.last_S), lane(grown.loss_WJ, row_S, place_S))
            for row_S in (best_S, np.full(1, mean))
        )
        prices_VK = OWN * grown.prices_UK[:count] + (1 - OWN) * grown.prices_UK[mean]
        return (OWN * own_S + (1 - OWN) * mean_S) * grown.scale, best_S, prices_VK

    def best_of(self, parts: Parts) -> Ints | None:
        """[G] columns of the best network among parts that have chosen everywhere; None if none is worth the goal."""
        is_within_S = (parts.cost_SK <= self.lp.limits_K).all(axis=1)
        value_S = np.where(is_within_S, parts.value_S, self.goal - 1)
        at = int(value_S.argmax())
        columns_G: Ints = self.column_GJ[np.arange(parts.taken_SG.shape[1]), parts.taken_SG[at]]
        return columns_G if value_S[at] >= self.goal else None

    def _order(self, room_WS: Words, loss_WGJ: Words) -> list[int]:
        """The groups (by their places), those first that would leave the fewest children."""
        sample_WN = room_WS[:, self.rng.integers(0, room_WS.shape[1], min(COUNTED, room_WS.shape[1]))]
        left_NGJ = np.bitwise_and.reduce(sample_WN[:, :, None, None] - loss_WGJ[:, None])
        counts = ((left_NGJ & GUARD) == GUARD).sum(axis=(0, 2))
        order: list[int] = np.argsort(counts, kind="stable").tolist()
        return order

    def _prices(self, parts: Parts) -> Floats:
        """[U, K] vectors of multipliers for a list, their mean last."""
        prices_UK = self.multipliers.of(
            parts.left, self.is_pad_GJ, parts.value_S, parts.cost_SK.T, parts.prices_UK, self.goal
        )
        return np.concatenate([prices_UK, prices_UK.mean(axis=0, keepdims=True)])

    def _rows(self, parts: Parts, prices_UK: Floats) -> tuple[Ints, Words, Words, float]:
        """(which parts are not past the goal already, what each of these may still take of every row, what the columns
        left take, of what unit of the values the numbers are).
        """
        left = list(parts.left)
        reduced_UGJ = self.value_GJ[left] - np.moveaxis(self.cost_GJK[left] @ prices_UK.T, 2, 0)
        top_UG = reduced_UGJ.max(axis=2)
        spare_KS = self.lp.limits_K[:, None] - np.ascontiguousarray(parts.cost_SK.T)
        room_US = self._rooms(parts.value_S - self.goal, spare_KS, prices_UK, top_UG.sum(axis=1))
        spare_KS -= self.least_GK[left].sum(axis=0)[:, None]
        part_S = np.flatnonzero((room_US.min(axis=0) >= 0) & (spare_KS.min(axis=0, initial=0) >= 0))
        if len(part_S) < len(parts.value_S):
            room_US, spare_KS = room_US.take(part_S, axis=1), spare_KS.take(part_S, axis=1)
        scale = max(float(room_US.max(initial=0.0)), 1e-9) / LARGEST
        room_US *= room_US.dtype.type(1 / scale)
        room_US += 1
        bits_K = np.array([max(0, int(most).bit_length() - 14) for most in spare_KS.max(axis=1, initial=0)])
        rooms = packed([*room_US, *(spare_KS >> bits_K[:, None])])
        cost_KGJ = np.moveaxis((self.cost_GJK[left] - self.least_GK[left][:, None]) >> bits_K, 2, 0)
        losses = np.concatenate([np.floor((top_UG[:, :, None] - reduced_UGJ) / scale), cost_KGJ])
        losses = np.minimum(losses, NEVER)
        losses[:, self.is_pad_GJ[left]] = NEVER
        return part_S, rooms | GUARD, packed(losses), scale

    def _rooms(self, over_S: Ints, spare_KS: Ints, prices_UK: Floats, top_U: Floats) -> npt.NDArray[np.floating[Any]]:
        """[U, S] what the groups left may lose, by every vector; floats of 32 bits where these tell it well enough."""
        most_K = np.maximum(spare_KS.max(axis=1, initial=0), -spare_KS.min(axis=1, initial=0))
        size_U = float(np.abs(over_S).max(initial=0)) + np.abs(top_U) + prices_UK @ most_K
        size_U += np.abs(self.value_GJ).max(axis=1).sum() + prices_UK @ self.most_GK.sum(axis=0)
        terms = 8 * (len(self.value_GJ) + len(spare_KS) + 8)
        is_single = terms * SINGLE * size_U.max() < COARSE * self.room
        kind, epsilon = (np.float32, SINGLE) if is_single else (np.float64, EPSILON)
        room_US: npt.NDArray[np.floating[Any]] = prices_UK.astype(kind) @ spare_KS.astype(kind)
        room_US += over_S.astype(kind)
        room_US += (top_U + terms * epsilon * size_U).astype(kind)[:, None]
        return room_US


def smallest(most: int, *, signed: bool = False) -> "np.dtype[Any]":
    """The smallest whole numbers up to ``most``, and down to its negative."""
    kinds = (np.int16, np.int32) if signed else (np.uint8, np.uint16, np.uint32)
    return np.dtype(next((kind for kind in kinds if most <= np.iinfo(kind).max), np.int64))
