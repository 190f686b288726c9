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
relaxation's bound towards the known network's value, about three times as much work at a time:
where the time ends first, the last goal that nothing reached is the bound.
Where a network far above the goal is found, the search begins anew with what is above it.
"""

import math
import time

import numpy as np

from nas_core.program.endings import Endings
from nas_core.program.linear import Ints, LinearProgram
from nas_core.program.lists import Search
from nas_core.program.multipliers import MOST_MATRIX
from nas_core.program.relaxation import Relaxation, exact_bound

MOST_ENDINGS = 16_000_000  # parts of the half that is looked up
FEW_IN_ALL = 1_000_000  # parts, below which no half is looked up
FEWEST_GROUPS, DIVES = 4, 12  # of that half; and how often it is counted
MOST_ALIKE = 100  # endings at one place
SURE = 8  # times the float error that a unit of the values has to be
FIRST, FURTHER = 0.1, 1.12  # of the way from bound to value: the first goal, and every next one
WORK_GROWS_BY = 10  # the power of the way that the work of a goal grows by, about
LESS = 0.5  # of a goal's work, that what is left for a better network found takes at most where it is begun anew
SHORTEST_S = 1e-3  # that a goal counts as


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
            self.top = self.bound

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
        way = max(FIRST * (self.bound - self.best), 1.0)
        while not self.is_proven:
            began = time.monotonic()
            goal = max(self.best + 1, self.top - int(way))
            is_through = self._is_looked_through(goal)
            if is_through is None:
                continue
            if not is_through:
                return
            self.bound = max(goal - 1, self.best)
            spent_s, left_s = time.monotonic() - began, max(self.deadline - time.monotonic(), 0.0)
            fitting = way * (left_s / max(spent_s, SHORTEST_S)) ** (1 / WORK_GROWS_BY)
            if fitting < min(
                way + 1, FURTHER * way
            ):  # of a short way the law is not sure: a unit is a step like others
                return
            way = max(min(fitting, FURTHER * way), way + 1)

    def _is_looked_through(self, goal: int) -> bool | None:
        """Look for networks that are worth the goal or more; False if the deadline came first, None if a network was
        found that leaves far less to look through.
        """
        most = self.relaxation.bound - goal * float(self.lp.unit) + 2 * self.relaxation.error
        search = Search(self.lp, np.flatnonzero(self.relaxation.loss_C <= most), goal, self.duals_K)
        endings = self._endings(search)
        todo = [search.everything()]
        if endings is not None and not len(endings.value_S):
            return True
        while todo:
            if time.monotonic() > self.deadline:
                return False
            if self.top - search.goal < LESS ** (1 / WORK_GROWS_BY) * (self.top - goal):
                return None
            parts = todo.pop()
            if not parts.left:
                self._note(search, search.best_of(parts))
                continue
            grown = search.grown(parts, () if endings is None else endings.groups)
            if grown is None:
                continue
            if endings is not None and grown.left == endings.groups:
                columns_G, roomy = search.ended(grown, endings)
                self._note(search, columns_G)
                todo += [] if roomy is None else roomy.pieces()
            else:
                todo += search.made(grown).pieces()
        return True

    def _note(self, search: "Search", columns_G: Ints | None) -> None:
        if columns_G is not None:
            self.best_G, self.best = columns_G, self.worth(columns_G)
            search.goal = max(search.goal, self.best + 1)

    def _endings(self, search: "Search") -> Endings | None:
        """Of as many groups as fit; None where there is little to look through, or nothing fits."""
        everything = tuple(range(self.lp.num_groups))
        self.in_all = max(self.in_all, search.count(everything))  # it is a guess, and grows as the goal falls
        if self.in_all < FEW_IN_ALL:
            return None
        while self.num_ending >= FEWEST_GROUPS:
            groups = search.split(self.num_ending)
            counts = list[float]()
            while len(counts) < DIVES:
                if time.monotonic() > self.deadline:
                    return None
                counts.append(search.count(groups))
            count, fitting = np.mean(counts), self.num_ending - 1
            if count > MOST_ENDINGS:
                fitting = int(self.num_ending * math.log(MOST_ENDINGS) / math.log(count))
            else:
                endings = search.endings(groups, MOST_ENDINGS, self.deadline)
                if endings is not None:
                    return endings if endings.alike < MOST_ALIKE else None
                if time.monotonic() > self.deadline:
                    return None
            self.num_ending = min(fitting, self.num_ending - 1)
        return None
