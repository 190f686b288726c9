"""Shows how much better than a known network others can be: branch and bound over lists of parts of networks.

A part has chosen in some groups. For any multipliers u >= 0, what a part's value and the best of the
groups left, both less u times their costs, fall short of a goal is room that the groups left may lose:

    value(part) + sum_g max_j (v_j - u . a_j) + u . (limits - cost(part)) - goal >= sum of later losses

So every vector of multipliers is one more row to stay within, like the limits themselves, and a part is
dropped as soon as its next column takes more of some row than is left. Many vectors are needed:
each part has its own best one, and one vector for all lets ten times as many parts through. A
list of parts that have chosen in the same groups shares a few (``multipliers``).

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
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas_core.program.linear import EPSILON, Floats, Ints, LinearProgram
from nas_core.program.multipliers import MOST_MATRIX, Multipliers
from nas_core.program.relaxation import Relaxation, exact_bound

Small = npt.NDArray[np.int16]

MOST_PARTS = 20_000  # of a list that shares its multipliers
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

    def pieces(self) -> "Iterator[_Parts]":
        """The same in lists of ``MOST_PARTS`` at most."""
        count = len(self.value_S)
        for part in np.array_split(np.arange(count), -(-count // MOST_PARTS)):
            origin = self.origin.at(part) if self.origin is not None else None
            yield _Parts(self.left, self.value_S[part], self.cost_KS[:, part], self.prices_UK, origin)


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
        search = _Search(self.lp, np.flatnonzero(self.relaxation.loss_C <= most), goal)
        todo = [search.everything(self.duals_K)]
        while todo:
            if time.monotonic() > self.deadline:
                return False
            children = search.children(todo.pop())
            if children is None:
                continue
            if not children.left:
                columns_G = search.best_of(children)
                if columns_G is not None:
                    self.best_G, self.best = columns_G, self.worth(columns_G)
                    search.goal = max(search.goal, self.best + 1)
                continue
            todo += children.pieces()
        return True


class _Search:
    """Looks for networks of some columns that are worth a goal; groups are padded to the same number of columns."""

    def __init__(self, lp: LinearProgram, kept: Ints, goal: int) -> None:
        assert lp.integers_C is not None, "it fits"
        self.lp, self.goal, self.value_C = lp, goal, lp.integers_C
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

    def everything(self, duals_K: Floats) -> _Parts:
        """The part that has chosen nothing."""
        none = np.zeros(len(self.lp.limits_K), dtype=np.int64)
        return _Parts(tuple(range(self.lp.num_groups)), none[:1], none[:, None], duals_K[None])

    def children(self, parts: _Parts) -> _Parts | None:
        """The parts that have chosen in a few groups more and may lead to the goal; None if there are none."""
        prices_UK = self.multipliers.of(
            parts.left, self.is_pad_GJ, parts.value_S, parts.cost_KS, parts.prices_UK, self.goal
        )
        room_RS, loss_RGJ = self._rows(parts, prices_UK)
        part_S = np.flatnonzero((room_RS >= 0).all(axis=0))
        room_RS, made = room_RS[:, part_S], 0
        columns: list[Ints] = []
        order = self._order(room_RS, loss_RGJ)
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
                return None
            parent_S = np.concatenate(parents)
            room_RS, part_S = np.concatenate(rooms, axis=1), part_S[parent_S]
            columns = [*(column_S[parent_S] for column_S in columns), np.concatenate(picks)]
            made += len(parent_S)
        column_LS = np.array(columns)
        value_S = parts.value_S[part_S] + self.value_C[column_LS].sum(axis=0)
        cost_KS = parts.cost_KS[:, part_S] + self.lp.rows_KC[:, column_LS].sum(axis=1)
        left = tuple(g for i, g in enumerate(parts.left) if i not in set(order))
        return _Parts(left, value_S, cost_KS, prices_UK, _Origin(parts, part_S, column_LS))

    def best_of(self, parts: _Parts) -> Ints | None:
        """[G] columns of the best network among parts that have chosen everywhere; None if none is worth the goal."""
        is_within_S = (parts.cost_KS <= self.lp.limits_K[:, None]).all(axis=0)
        value_S = np.where(is_within_S, parts.value_S, self.goal - 1)
        at = int(value_S.argmax())
        if value_S[at] < self.goal:
            return None
        taken: list[int] = []
        origin = parts.origin
        while origin is not None:
            taken += origin.column_LS[:, at].tolist()
            at, origin = int(origin.part_S[at]), origin.parts.origin
        return np.sort(np.array(taken))  # columns stand group by group

    def _order(self, room_RS: Small, loss_RGJ: Small) -> list[int]:
        """The groups (by their places), those first that would leave the fewest children."""
        count = room_RS.shape[1]
        sample_RN = room_RS[:, self.rng.integers(0, count, min(COUNTED, count))] if count else room_RS
        counts = [
            int((sample_RN[:, None] >= loss_RJ[:, :, None]).all(axis=0).sum()) for loss_RJ in loss_RGJ.swapaxes(0, 1)
        ]
        order: list[int] = np.argsort(counts, kind="stable").tolist()
        return order

    def _rows(self, parts: _Parts, prices_UK: Floats) -> tuple[Small, Small]:
        """What every part may still take of every row, and what the columns left take."""
        left = list(parts.left)
        value_GJ, cost_GJK, least_GK = self.value_GJ[left], self.cost_GJK[left], self.least_GK[left]
        reduced_UGJ = value_GJ - np.moveaxis(cost_GJK @ prices_UK.T, 2, 0)
        top_UG = reduced_UGJ.max(axis=2)
        spare_KS = self.lp.limits_K[:, None] - parts.cost_KS
        room_US = prices_UK @ spare_KS.astype(np.float64)
        room_US += parts.value_S
        size_U = np.abs(self.value_GJ).max(axis=1).sum() + prices_UK @ (self.most_GK.sum(axis=0) + self.lp.limits_K)
        rounding_U = 8 * (len(self.value_GJ) + len(spare_KS) + 8) * EPSILON * (size_U + abs(self.goal))
        room_US += (top_UG.sum(axis=1) - self.goal + rounding_U)[:, None]
        is_none_US = room_US < 0
        scale_U = LARGEST / np.maximum(room_US.max(axis=1), 1e-9)
        room_US *= scale_U[:, None]
        np.floor(room_US, out=room_US)
        room_US += 1
        room_US[is_none_US] = -1
        losses = [np.floor((top_UG[:, :, None] - reduced_UGJ) * scale_U[:, None, None])]
        spare_KS -= least_GK.sum(axis=0)[:, None]
        bits_K = np.array([max(0, int(most).bit_length() - LARGEST.bit_length() + 1) for most in spare_KS.max(axis=1)])
        room_RS = np.empty((len(room_US) + len(spare_KS), len(parts.value_S)), dtype=np.int16)
        room_RS[: len(room_US)] = room_US
        room_RS[len(room_US) :] = np.maximum(spare_KS >> bits_K[:, None], -1)
        losses.append(np.moveaxis((cost_GJK - least_GK[:, None]) >> bits_K, 2, 0))
        loss_RGJ = np.minimum(np.concatenate(losses), NEVER).astype(np.int16)
        loss_RGJ[:, self.is_pad_GJ[left]] = NEVER
        return room_RS, loss_RGJ
