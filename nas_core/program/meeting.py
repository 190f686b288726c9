"""A better network without proof: the halves of a random split meet in the middle.

The groups are split at random in two; of each half the combinations that lose least against
the relaxation are listed, and pairs of them are looked for that are within all rows and
better than the best network. Lists of S stand for S^2 networks that may differ
from the best one anywhere, where exchanges see two or three changes: with many
limits nearly every good network exhausts them all, and only so many networks hold
one that does (as in subset-sum problems: Horowitz and Sahni, JACM 21 (1974)).

With quarters, each half is itself made of two lists: of their pairs only those whose cost in a few
rows is a number drawn for this try, so that the halves fit in these rows already
(Schroeppel and Shamir 1981; Wagner's k-tree 2002). The lists of halves are then a small
part of far longer ones, and that part of the networks is searched deeply.

G = groups, C = columns, K = rows, S = halves, N = pairs of them, D = rows that are drawn for.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nas_core.program.halves import (
    CoreTooLargeError,
    Goal,
    Half,
    Prices,
    both,
    by_buckets,
    half_of,
    matching,
    spell,
    sums_near,
)
from nas_core.program.linear import Ints, LinearProgram
from nas_core.program.relaxation import Relaxation

MOST_FREE = 400  # groups that are free at a time; the others keep the best network's columns
FIRST_HALVES, MOST_HALVES = 5_000, 200_000  # combinations listed of each half
MORE = 1.3  # times as many after a split in which nothing is found
MOST_PAIRS = 50_000_000
QUARTERS, OF_QUARTERS = 20_000, 30_000  # combinations listed of each quarter, and of the halves made of them
DRAWN, OF_ROWS = 3, 6  # rows that halves of quarters have to fit, drawn from these that matter most
TARGETS = 3  # numbers drawn for one split


@dataclass(frozen=True)
class _Split:
    """What is free, the columns of the others, and how much more a better network may lose."""

    base_G: Ints  # of the free groups what loses nothing
    free: Ints
    prices: Prices
    goal: float


@dataclass(frozen=True)
class _Side:
    """A list of halves, and of which parts each is made: (part, index of its combination [S])."""

    half: Half
    parts: tuple[tuple[Half, Ints], ...]


class Meetings:
    """Tries ever other splits; the program's rows beyond the relaxation's have no price."""

    def __init__(self, lp: LinearProgram, relaxation: Relaxation, rng: np.random.Generator) -> None:
        self.lp, self.relaxation, self.rng = lp, relaxation, rng
        self.num_halves = FIRST_HALVES
        self.duals_K = np.zeros(len(lp.limits_K))
        self.duals_K[: len(relaxation.duals_K)] = relaxation.duals_K
        self.several = np.flatnonzero(np.diff(lp.starts_G1) > 1)  # groups with a choice
        self.rows_CK = np.ascontiguousarray(lp.rows_KC.T)
        self.change_CK: Ints = self.rows_CK - self.rows_CK[relaxation.best_G][lp.columns.group_C]

    @property
    def has_quarters(self) -> bool:
        """Whether there are rows enough to draw some."""
        return len(self.several) >= 4 and int(np.count_nonzero(self.duals_K)) > DRAWN

    def by_halves(self, columns_G: Ints, deadline: float) -> Ints | None:
        """[G] the best network found of one split; None if none is better than the given one."""
        split = self._split(columns_G)
        try:
            sides = [
                self._listed(split, part, self.num_halves, deadline) for part in (split.free[::2], split.free[1::2])
            ]
            found_G = self._meet(split, sides[0], sides[1], deadline)
        except CoreTooLargeError:
            self.num_halves = max(self.num_halves // 2, FIRST_HALVES // 2)
            return None
        if found_G is None:
            self.num_halves = min(int(MORE * self.num_halves), MOST_HALVES)
        return found_G

    def by_quarters(self, columns_G: Ints, deadline: float) -> Ints | None:
        """[G] the best network found of one split and a few draws; None if none is better than the given one."""
        split = self._split(columns_G)
        try:
            quarters = [self._listed(split, split.free[i::4], QUARTERS, deadline).half for i in range(4)]
            for left, right in self._drawn(split, quarters):
                found_G = self._meet(split, left, right, deadline)
                if found_G is not None:
                    return found_G
        except CoreTooLargeError:
            pass
        return None

    def _split(self, columns_G: Ints) -> _Split:
        groups = self.rng.permutation(self.several)
        base_G, kept = self.relaxation.best_G.copy(), groups[MOST_FREE:]
        base_G[kept] = columns_G[kept]
        lost = float(self.relaxation.loss_C[base_G[kept]].sum())
        goal = self.relaxation.bound - self.lp.value_of(columns_G) - lost - 2 * self.relaxation.error
        slack_K = self.lp.limits_K - self.rows_CK[base_G].sum(axis=0)
        return _Split(base_G, groups[:MOST_FREE], Prices(slack_K=slack_K, duals_K=self.duals_K), goal)

    def _listed(self, split: _Split, groups: Ints, most: int, deadline: float) -> _Side:
        """The combinations of some groups that lose least; the columns that lose nothing are there already."""
        starts, best_G = self.lp.starts_G1, self.relaxation.best_G
        parts = [np.arange(starts[g], starts[g + 1]) for g in groups.tolist()]
        others = [part[part != best_G[g]] for g, part in zip(groups.tolist(), parts, strict=True)]
        half = half_of(others, self.relaxation.loss_C, self.change_CK, split.goal, deadline, most)
        return _Side(half, ((half, np.arange(len(half.loss_S))),))

    def _drawn(self, split: _Split, quarters: list[Half]) -> Iterator[tuple[_Side, _Side]]:
        """Both halves of quarters whose costs in a few rows add up to the slack."""
        mean_QK = np.array([quarter.change_SK.mean(axis=0) for quarter in quarters])
        deviation_K = np.sqrt(sum(quarter.change_SK.var(axis=0) for quarter in quarters) / 2)  # of a half
        matters = np.argsort(-self.duals_K * deviation_K)[:OF_ROWS]
        for _ in range(TARGETS):
            row_D = self.rng.permutation(matters[self.duals_K[matters] > 0])[:DRAWN]
            slack_D, of_left_D = split.prices.slack_K[row_D], mean_QK[:2, row_D].sum(axis=0)
            middle_D = of_left_D + (slack_D - mean_QK[:, row_D].sum(axis=0)) / 2
            drawn_D = self.rng.normal(middle_D, deviation_K[row_D] / np.sqrt(2) + 1e-9)
            target_D = np.rint(drawn_D).astype(np.int64)
            fineness = (QUARTERS**2 / OF_QUARTERS) ** (1 / DRAWN)
            width_D = np.maximum(2.5 * deviation_K[row_D] / fineness, 1).astype(np.int64)
            sides = [
                self._fitting(split, first, second, sums_near(first, second, row_D, width_D, target))
                for first, second, target in (
                    (*quarters[:2], target_D),
                    (*quarters[2:], slack_D - target_D),
                )
            ]
            if all(len(side.half.loss_S) for side in sides):
                yield sides[0], sides[1]

    @staticmethod
    def _fitting(split: _Split, first: Half, second: Half, pairs: tuple[Ints, Ints]) -> _Side:
        """The pairs of quarters that lose least."""
        first_N, second_N = pairs
        loss_N = first.loss_S[first_N] + second.loss_S[second_N]
        kept = np.argsort(loss_N, kind="stable")[:OF_QUARTERS]
        kept = kept[loss_N[kept] < split.goal]
        first_S, second_S = first_N[kept], second_N[kept]
        return _Side(both(first, second, first_S, second_S), ((first, first_S), (second, second_S)))

    def _meet(self, split: _Split, left: _Side, right: _Side, deadline: float) -> Ints | None:
        """The best pair below the goal."""
        goal, best = Goal(split.goal), None
        for left_N, right_N in by_buckets(split.prices, left.half, right.half, goal, MOST_PAIRS):
            left_N, right_N, loss_N = matching(split.prices, left.half, right.half, left_N, right_N, goal.g)
            if len(loss_N):
                at = int(loss_N.argmin())
                goal.g, best = float(loss_N[at]), (left_N[at], right_N[at])
            if time.monotonic() > deadline:
                break
        if best is None:
            return None
        parts = [
            (part, index_S[at : at + 1])
            for side, at in zip((left, right), best, strict=True)
            for part, index_S in side.parts
        ]
        columns_G: Ints = spell(split.base_G, self.lp.columns.group_C, *parts)[0]
        return columns_G
