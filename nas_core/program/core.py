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

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nas_core.program.halves import CoreTooLargeError, Matches, Prices, half_of, spell, windows
from nas_core.program.linear import Floats, Ints, LinearProgram
from nas_core.program.relaxation import Relaxation

FEW_COLUMNS = 20  # at most 2^10 combinations a half
FIRST_COLUMNS = 24  # that lose anything, in the first level
GROWTH = 1.3  # of g from level to level; a level costs about the square of the one before
KEEP = 1_024  # networks kept of one level: the best ones; eight times more if the caller refuses them all
MAX_KEEP = 1 << 16


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
        left, right = (
            half_of(groups, self.relaxation.loss_C, self.change_CK, g, self.deadline) for groups in self._split(alive)
        )
        prices = Prices(slack_K=self.relaxation.slack_K, duals_K=self.relaxation.duals_K)
        found = Matches(g, prices, keep)
        for pairs in windows(prices, left, right, g):
            self._check_time()
            found.add(left, right, *pairs)
        columns = spell(self.relaxation.best_G, self.group_C, (left, found.left), (right, found.right))
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
