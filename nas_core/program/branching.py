"""Shows how much better than a known network others can be: branch and bound over lists of parts of networks.

A part has chosen in some groups. For any multipliers u >= 0, what a part's value and the best of the
groups left, both less u times their costs, fall short of a goal is room that the groups left may lose:

    value(part) + sum_g max_j (v_j - u . a_j) + u . (limits - cost(part)) - goal >= sum of later losses

So every vector of multipliers is one more row to stay within, like the limits themselves, and a part is
dropped as soon as its next column takes more of some row than is left. Many vectors are needed:
each part has its own best one, and one vector for all lets ten times as many parts through. A
list of parts that have chosen in the same groups shares a few (``multipliers``).

With few groups left nearly every part that the bounds let through leads nowhere: they bound mixtures of columns. So the
groups are split in two, both halves are searched, and those of one are looked up beside those of the other
(``endings``); parts with too much room for that are branched to the end.

The lists are looked at depth first, so that memory stays small. The goal falls from the
relaxation's bound towards the known network's value, about ten times as much work at a time:
where the time ends first, the last goal that nothing reached is the bound.

Rooms and losses are small whole numbers, losses rounded down and rooms up: no part that leads to the goal is
dropped.

G = groups left, J = columns of a group, K = rows, U = vectors of multipliers, R = K + U rows of both kinds,
S = parts, N = parts of a sample, L = groups chosen since the last multipliers.
"""

import math
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_core.program.endings import Endings
from nas_core.program.linear import EPSILON, Floats, Ints, LinearProgram
from nas_core.program.multipliers import MOST_MATRIX, Multipliers
from nas_core.program.relaxation import Relaxation, exact_bound

Small = npt.NDArray[np.int16]

MOST_PARTS = 20_000  # of a list that shares its multipliers
MOST_ENDINGS = 8_000_000  # parts of the half that is looked up
FEW_IN_ALL = 1_000_000  # parts, below which no half is looked up
FEWEST_GROUPS, DIVES = 4, 5  # of that half; and how often it is counted
NEAR = 5.0  # how much less a column counts that loses all that may be lost, as a power of e
MOST_SPELLED = 1 << 62  # choices of that half
MOST_ALIKE = 100  # endings at one place
FEW_ROWS = 8  # by which most parts are dropped: the first vectors
LEVELS, FEW_PARTS = 4, 2_000  # groups chosen with one set of multipliers; more while so few parts were made
COUNTED = 64  # parts of a list by which the next group is chosen
SURE = 8  # times the float error that a unit of the values has to be
FIRST, FURTHER = 0.1, 1.25  # of the way from bound to value: the first goal, and every next one
LARGEST, NEVER = 16_000, 32_767  # room in a row, and a loss that fits in none
WORK_GROWS_BY = 10  # the power of the way that the work of a goal grows by, about
SHORTEST_S = 1e-3  # that a goal counts as


@dataclass(frozen=True)
class _Parts:
    """Parts that have chosen in the same groups; ``origin`` says from which parts they came, and by which columns."""

    left: tuple[int, ...]
    value_S: Ints
    cost_KS: Ints
    prices_UK: Floats
    origin: "_Origin | None" = None

    def at(self, index: Ints) -> "_Parts":
        """Some of them."""
        origin = self.origin.at(index) if self.origin is not None else None
        return replace(self, value_S=self.value_S[index], cost_KS=self.cost_KS[:, index], origin=origin)

    def pieces(self) -> "list[_Parts]":
        """The same in lists of ``MOST_PARTS`` at most."""
        count = len(self.value_S)
        return [self.at(index) for index in np.array_split(np.arange(count), -(-count // MOST_PARTS))]

    def columns(self) -> Ints:
        """[groups chosen, S] what they have taken, in order of the groups."""
        taken, at, origin = [], np.arange(len(self.value_S)), self.origin
        while origin is not None:
            taken.append(origin.column_LS[:, at])
            at, origin = origin.part_S[at], origin.parts.origin
        return np.sort(np.concatenate(taken), axis=0)  # columns stand group by group


@dataclass(frozen=True)
class _Origin:
    parts: _Parts
    part_S: Ints
    column_LS: Ints

    def at(self, index: Ints) -> "_Origin":
        return _Origin(self.parts, self.part_S[index], self.column_LS[:, index])


class Branching:
    """Networks worth more than one that is known, as far as the time goes.

    ``best_G``, worth ``best``, is the best network found; no network is worth more than ``bound`` (both in whole units
    of the program). ``fits``: whether all this can be looked for.
    """

    def __init__(self, lp: LinearProgram, relaxation: Relaxation, known_G: Ints, deadline: float) -> None:
        self.lp, self.relaxation, self.deadline = lp, relaxation, deadline
        self.best_G = known_G if len(lp.limits_K) else relaxation.best_G  # without rows nothing is better than that
        duals_K = np.zeros(len(lp.limits_K))  # rows that the relaxation does not know have no price
        duals_K[: len(relaxation.duals_K)] = relaxation.duals_K
        self.duals_K = duals_K / float(lp.unit)
        self.num_ending, self.in_all = lp.num_groups // 2, 0.0
        bound, is_sure = exact_bound(lp, duals_K), float(lp.unit) > SURE * relaxation.error
        is_small = lp.columns.num_columns * len(lp.limits_K) ** 2 <= MOST_MATRIX
        self.fits = bound is not None and lp.integers_C is not None and is_sure and is_small and not lp.is_relaxed
        if self.fits:
            in_floats = math.floor((relaxation.bound + relaxation.error) / float(lp.unit))
            self.best, self.bound = self.worth(self.best_G), min(bound or 0, in_floats)

    def worth(self, columns_G: Ints) -> int:
        """The value of a network in whole units."""
        assert self.lp.integers_C is not None, "it fits"
        return int(self.lp.integers_C[columns_G].sum())

    @property
    def is_proven(self) -> bool:
        """Whether no network is better than the best one found."""
        return self.bound <= self.best

    def run(self) -> None:
        """Lower the bound and raise the best network until they meet, or the time is too short for more."""
        top, way = self.bound, max(FIRST * (self.bound - self.best), 1.0)
        while not self.is_proven:
            began = time.monotonic()
            goal = max(self.best + 1, top - int(way))
            if not self._is_looked_through(goal):
                return
            self.bound = max(goal - 1, self.best)
            spent_s, left_s = time.monotonic() - began, max(self.deadline - time.monotonic(), 0.0)
            fitting = way * (left_s / max(spent_s, SHORTEST_S)) ** (1 / WORK_GROWS_BY)
            if fitting < min(
                way + 1, FURTHER * way
            ):  # of a short way the law is not sure: a unit is a step like others
                return
            way = max(min(fitting, FURTHER * way), way + 1)

    def _is_looked_through(self, goal: int) -> bool:
        """Look for networks that are worth the goal or more; False if the deadline came first."""
        most = self.relaxation.bound - goal * float(self.lp.unit) + 2 * self.relaxation.error
        search = _Search(self.lp, np.flatnonzero(self.relaxation.loss_C <= most), goal, self.duals_K)
        endings = self._endings(search)
        todo = [search.everything()]
        if endings is not None and not len(endings.value_S):
            return True
        while todo:
            if time.monotonic() > self.deadline:
                return False
            parts = todo.pop()
            if not parts.left:
                self._note(search, search.best_of(parts))
            elif endings is not None and parts.left == endings.groups:
                columns_G, roomy = search.ended(parts, endings)
                self._note(search, columns_G)
                if len(roomy.value_S):
                    todo += search.children(roomy)
            else:
                todo += search.children(parts, () if endings is None else endings.groups)
        return True

    def _note(self, search: "_Search", columns_G: Ints | None) -> None:
        if columns_G is not None:
            self.best_G, self.best = columns_G, self.worth(columns_G)
            search.goal = max(search.goal, self.best + 1)

    def _endings(self, search: "_Search") -> Endings | None:
        """Of as many groups as fit; None where there is little to look through, or nothing fits."""
        everything = tuple(range(self.lp.num_groups))
        self.in_all = max(self.in_all, search.count(everything))  # it is a guess, and grows as the goal falls
        if self.in_all < FEW_IN_ALL:
            return None
        while self.num_ending >= FEWEST_GROUPS:
            groups = search.split(self.num_ending)
            count, fitting = np.mean([search.count(groups) for _ in range(DIVES)]), self.num_ending - 1
            if count > MOST_ENDINGS:
                fitting = int(self.num_ending * math.log(MOST_ENDINGS) / math.log(count))
            else:
                endings = search.endings(groups, self.deadline)
                if endings is not None:
                    return endings if endings.alike < MOST_ALIKE else None
                if time.monotonic() > self.deadline:
                    return None
            self.num_ending = min(fitting, self.num_ending - 1)
        return None


class _Search:
    """Looks for networks of some columns that are worth a goal; groups are padded to the same number of columns."""

    def __init__(self, lp: LinearProgram, kept: Ints, goal: int, duals_K: Floats) -> None:
        assert lp.integers_C is not None, "it fits"
        self.lp, self.goal, self.duals_K, self.value_C = lp, goal, duals_K, lp.integers_C
        self.rng = np.random.default_rng(0)
        group_C = lp.columns.group_C[kept]
        starts = np.searchsorted(group_C, np.arange(lp.num_groups + 1))
        sizes = np.diff(starts)
        place = np.arange(sizes.max(initial=0))
        self.is_pad_GJ = place >= sizes[:, None]
        self.column_GJ = kept[np.minimum(starts[:-1, None] + place, starts[1:, None] - 1)]  # padded with the last
        self.value_GJ = self.value_C[self.column_GJ]
        self.cost_GJK = np.ascontiguousarray(np.moveaxis(lp.rows_KC[:, self.column_GJ], 0, 2))
        self.least_GK, self.most_GK = self.cost_GJK.min(axis=1), self.cost_GJK.max(axis=1)
        self.multipliers = Multipliers(self.value_GJ, self.cost_GJK, lp.limits_K, self.rng)
        top_G = (self.value_GJ - self.cost_GJK @ duals_K).max(axis=1)
        self.room = float(top_G.sum() + duals_K @ lp.limits_K - goal)  # that the relaxation leaves to be lost

    def everything(self) -> _Parts:
        """The part that has chosen nothing."""
        none = np.zeros(len(self.lp.limits_K), dtype=np.int64)
        return _Parts(tuple(range(self.lp.num_groups)), none[:1], none[:, None], self.duals_K[None])

    def children(self, parts: _Parts, last: Collection[int] = ()) -> list[_Parts]:
        """The parts that have chosen in a few groups more and may lead to the goal, in lists; groups of ``last`` wait
        until no other is left.
        """
        prices_UK = self._prices(parts)
        room_RS, loss_RGJ = self._rows(parts, prices_UK)
        part_S = np.flatnonzero((room_RS >= 0).all(axis=0))
        if not len(part_S):
            return []
        room_RS, made = room_RS[:, part_S], 0
        columns: list[Ints] = []
        order = self._order(room_RS, loss_RGJ)
        order = [i for i in order if parts.left[i] not in last] or order
        for level, g in enumerate(order):
            if made > MOST_PARTS or (level >= LEVELS and made > FEW_PARTS):
                order = order[:level]
                break
            rooms, parents, picks = [], [], []
            most_R = room_RS.max(axis=1, initial=-1)
            for loss_R, column in zip(loss_RGJ[:, g].T, self.column_GJ[parts.left[g]].tolist(), strict=True):
                if (loss_R <= most_R).all():
                    kept = np.flatnonzero((room_RS[:FEW_ROWS] >= loss_R[:FEW_ROWS, None]).all(axis=0))
                    kept = kept[(room_RS[FEW_ROWS:].take(kept, axis=1) >= loss_R[FEW_ROWS:, None]).all(axis=0)]
                    rooms.append(room_RS[:, kept] - loss_R[:, None])
                    parents.append(kept)
                    picks.append(np.full(len(kept), column))
            if not sum(map(len, parents)):
                return []
            parent_S = np.concatenate(parents)
            room_RS, part_S = np.concatenate(rooms, axis=1), part_S[parent_S]
            columns = [*(column_S[parent_S] for column_S in columns), np.concatenate(picks)]
            made += len(parent_S)
        column_LS = np.array(columns)
        value_S = parts.value_S[part_S] + self.value_C[column_LS].sum(axis=0)
        cost_KS = parts.cost_KS[:, part_S] + self.lp.rows_KC[:, column_LS].sum(axis=1)
        left = tuple(g for i, g in enumerate(parts.left) if i not in set(order))
        return _Parts(left, value_S, cost_KS, prices_UK, _Origin(parts, part_S, column_LS)).pieces()

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
        rest = tuple(g for g in range(self.lp.num_groups) if g not in groups)
        lists, factor, total = [self.everything()], 1.0, 0.0
        while lists:
            total = max(total, factor * sum(len(parts.value_S) for parts in lists))
            if lists[0].left == rest:
                break
            factor *= len(lists)
            lists = self.children(lists[int(self.rng.integers(len(lists)))], rest)
        return total

    def endings(self, groups: tuple[int, ...], deadline: float) -> Endings | None:
        """What parts that have chosen elsewhere may end with; None at the deadline, or where it is too much."""
        rest = tuple(g for g in range(self.lp.num_groups) if g not in groups)
        first_G = self.lp.starts_G1[:-1][list(groups)]
        size_G = np.diff(self.lp.starts_G1)[list(groups)].tolist()
        if math.prod(size_G) > MOST_SPELLED:
            return None
        kinds = [
            _smallest(-self.goal, signed=True),
            _smallest(int(self.lp.limits_K.max())),
            _smallest(math.prod(size_G)),
        ]
        found = [[np.zeros(0, kinds[0])], [np.zeros((0, len(self.lp.limits_K)), kinds[1])], [np.zeros(0, kinds[2])]]
        todo, count = [self.everything()], 0
        while todo:
            if time.monotonic() > deadline:
                return None
            parts = todo.pop()
            if parts.left != rest:
                todo += self.children(parts, rest)
                continue
            parts = self._alive(parts)[0]
            picks = np.ravel_multi_index(tuple(parts.columns() - first_G[:, None]), tuple(size_G))
            for arrays, array, kind in zip(found, (parts.value_S, parts.cost_KS.T, picks), kinds, strict=True):
                arrays.append(array.astype(kind))
            count += len(picks)
            if count > MOST_ENDINGS:
                return None
        value_S, cost_SK, pick_S = (np.concatenate(found.pop(0)) for _ in kinds)  # one after the other: they are large
        return Endings(groups, value_S, cost_SK, pick_S, self.duals_K, self.room)

    def ended(self, parts: _Parts, endings: Endings) -> tuple[Ints | None, _Parts]:
        """[G] columns of the best network of these parts and endings, if one is worth the goal; and the parts that have
        too much room for the endings beside them to be looked up.
        """
        parts, room_US = self._alive(parts)
        spare_SK = (self.lp.limits_K[:, None] - parts.cost_KS).T
        pairs = endings.partners(spare_SK, self.goal - parts.value_S, room_US, parts.prices_UK)
        roomy = parts.at(pairs.roomy_S)
        if not len(pairs.part_N):
            return None, roomy
        at = int((parts.value_S[pairs.part_N] + endings.value_S[pairs.ending_N]).argmax())
        groups = list(endings.groups)
        places = np.unravel_index(endings.pick_S[pairs.ending_N[at]], tuple(np.diff(self.lp.starts_G1)[groups]))
        ending_G = self.lp.starts_G1[groups] + np.array(places)
        return np.sort(np.append(parts.at(pairs.part_N[at : at + 1]).columns(), ending_G)), roomy

    def best_of(self, parts: _Parts) -> Ints | None:
        """[G] columns of the best network among parts that have chosen everywhere; None if none is worth the goal."""
        is_within_S = (parts.cost_KS <= self.lp.limits_K[:, None]).all(axis=0)
        value_S = np.where(is_within_S, parts.value_S, self.goal - 1)
        at = int(value_S.argmax())
        return parts.at(np.array([at])).columns()[:, 0] if value_S[at] >= self.goal else None

    def _order(self, room_RS: Small, loss_RGJ: Small) -> list[int]:
        """The groups (by their places), those first that would leave the fewest children."""
        count = room_RS.shape[1]
        sample_RN = room_RS[:, self.rng.integers(0, count, min(COUNTED, count))] if count else room_RS
        counts = [
            int((sample_RN[:, None] >= loss_RJ[:, :, None]).all(axis=0).sum()) for loss_RJ in loss_RGJ.swapaxes(0, 1)
        ]
        order: list[int] = np.argsort(counts, kind="stable").tolist()
        return order

    def _prices(self, parts: _Parts) -> Floats:
        """[U, K] vectors of multipliers for a list."""
        return self.multipliers.of(parts.left, self.is_pad_GJ, parts.value_S, parts.cost_KS, parts.prices_UK, self.goal)

    def _alive(self, parts: _Parts) -> tuple[_Parts, Floats]:
        """The parts that may lead to the goal by multipliers of their own, and [U, S] what they may lose."""
        parts = replace(parts, prices_UK=self._prices(parts))
        room_US, spare_KS, _ = self._rooms(parts, parts.prices_UK)
        alive = np.flatnonzero((room_US >= 0).all(axis=0) & (spare_KS >= 0).all(axis=0))
        return parts.at(alive), room_US[:, alive]

    def _rooms(self, parts: _Parts, prices_UK: Floats) -> tuple[Floats, Ints, Floats]:
        """What the groups left may lose [U, S], what every part may still take of every row [K, S] beyond the least
        that these groups take, and what the columns left lose [U, G, J].
        """
        left = list(parts.left)
        reduced_UGJ = self.value_GJ[left] - np.moveaxis(self.cost_GJK[left] @ prices_UK.T, 2, 0)
        top_UG = reduced_UGJ.max(axis=2)
        spare_KS = self.lp.limits_K[:, None] - parts.cost_KS
        room_US: Floats = prices_UK @ spare_KS.astype(np.float64)
        room_US += parts.value_S
        size_U = np.abs(self.value_GJ).max(axis=1).sum() + prices_UK @ (self.most_GK.sum(axis=0) + self.lp.limits_K)
        rounding_U = 8 * (len(self.value_GJ) + len(spare_KS) + 8) * EPSILON * (size_U + abs(self.goal))
        room_US += (top_UG.sum(axis=1) - self.goal + rounding_U)[:, None]
        spare_KS -= self.least_GK[left].sum(axis=0)[:, None]
        return room_US, spare_KS, top_UG[:, :, None] - reduced_UGJ

    def _rows(self, parts: _Parts, prices_UK: Floats) -> tuple[Small, Small]:
        """What every part may still take of every row, and what the columns left take."""
        left = list(parts.left)
        room_US, spare_KS, loss_UGJ = self._rooms(parts, prices_UK)
        is_none_US = room_US < 0
        scale_U = LARGEST / np.maximum(room_US.max(axis=1), 1e-9)
        room_US *= scale_U[:, None]
        np.floor(room_US, out=room_US)
        room_US += 1
        room_US[is_none_US] = -1
        losses = [np.floor(loss_UGJ * scale_U[:, None, None])]
        bits_K = np.array([max(0, int(most).bit_length() - LARGEST.bit_length() + 1) for most in spare_KS.max(axis=1)])
        room_RS = np.empty((len(room_US) + len(spare_KS), len(parts.value_S)), dtype=np.int16)
        room_RS[: len(room_US)] = room_US
        room_RS[len(room_US) :] = np.maximum(spare_KS >> bits_K[:, None], -1)
        losses.append(np.moveaxis((self.cost_GJK[left] - self.least_GK[left][:, None]) >> bits_K, 2, 0))
        loss_RGJ = np.minimum(np.concatenate(losses), NEVER).astype(np.int16)
        loss_RGJ[:, self.is_pad_GJ[left]] = NEVER
        return room_RS, loss_RGJ


def _smallest(most: int, *, signed: bool = False) -> "np.dtype[Any]":
    """The smallest whole numbers up to ``most``, and down to its negative."""
    kinds = (np.int16, np.int32) if signed else (np.uint8, np.uint16, np.uint32)
    return np.dtype(next((kind for kind in kinds if most <= np.iinfo(kind).max), np.int64))
