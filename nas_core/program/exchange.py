"""A good network without proof: rounding of the relaxation, repair, one- and two-exchange, kicks.

Every move replaces the column of one group or of two. A repair takes the
exchange that leaves the least violation (each row's as a share of its limit); an
improvement takes the most valuable exchange that fits, then two at once of
which the second pays for the first; a kick replaces a few random groups by columns
that lose little, and is kept if what follows it is better. Only integers decide what fits.

G = groups, C = columns, K = rows.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from nas_core.program import core
from nas_core.program.answers import Apart, Choices, Effort, Judge
from nas_core.program.core import CoreTooLargeError
from nas_core.program.linear import Floats, Ints, LinearProgram
from nas_core.program.relaxation import Relaxation

FIRST_SHARE = 0.1  # of the time left, for a first network
FIRST_MOST_S = 1.0
MAX_FIRST = 60  # columns tried as the first of two exchanges
MAX_REPAIRS = 400  # exchanges of one repair
KICK = 4  # groups that a kick replaces
IDLE = 20  # kicks per group without a better network, after which no more are tried


def good_network(
    lp: LinearProgram, relaxation: Relaxation, judge: Judge, apart: Sequence[Apart], effort: Effort
) -> Choices | None:
    """The best network found in a share of the time; None if none was."""
    deadline = time.monotonic() + min(FIRST_MOST_S, FIRST_SHARE * effort.left_s)
    best, best_value = None, -np.inf
    for columns_G in networks(lp, relaxation, apart, deadline, effort.seed):
        choices, value = lp.columns.choices(columns_G), lp.value_of(columns_G)
        if value > best_value and all(other.allows(choices) for other in apart) and judge(choices) is not None:
            best, best_value = choices, value
    return best


def networks(
    lp: LinearProgram, relaxation: Relaxation, apart: Sequence[Apart], deadline: float, seed: int = 0
) -> Iterator[Ints]:
    """[G] columns of networks within the rows, ever better, until the deadline (the first comes whatever it says)."""
    whole = with_apart(lp, apart)
    if not apart:
        try:
            few = core.among_few(lp, relaxation).columns_SG
            yield from few[:1]
        except CoreTooLargeError:
            pass
    yield from _Search(whole, relaxation, deadline, seed).run()


def with_apart(lp: LinearProgram, apart: Sequence[Apart]) -> LinearProgram:
    """The program with a row for every network to keep away from: how many positions agree with it."""
    if not apart:
        return lp
    rows = []
    for other in apart:
        groups = zip(lp.columns.group_C.tolist(), lp.columns.choice_C.tolist(), strict=True)
        rows.append([sum(other.choices[p] == choice for p in lp.columns.groups[g]) for g, choice in groups])
    limits = [len(other.choices) - other.distance for other in apart]
    return replace(
        lp,
        rows_KC=np.concatenate([lp.rows_KC, np.array(rows, dtype=np.int64)]),
        limits_K=np.concatenate([lp.limits_K, np.array(limits, dtype=np.int64)]),
    )


class _Search:
    def __init__(self, lp: LinearProgram, relaxation: Relaxation, deadline: float, seed: int) -> None:
        self.lp, self.deadline, self.rng = lp, deadline, np.random.default_rng(seed)
        self.group_C, self.starts = lp.columns.group_C, lp.starts_G1[:-1]
        self.rows_CK = np.ascontiguousarray(lp.rows_KC.T)
        self.weight_K = 1.0 / np.maximum(lp.limits_K.astype(np.float64), 1.0)
        self.loss_C = relaxation.loss_C
        self.relaxation = relaxation
        self.best_G: Ints | None = None
        self.best_value = -np.inf
        self.bound = relaxation.bound

    def run(self) -> Iterator[Ints]:
        for start_G in self._starts():
            yield from self._improve_from(start_G)
        idle, most_idle = 0, IDLE * len(self.starts)
        while idle < most_idle and time.monotonic() < self.deadline and self.best_value < self.bound:
            start_G = self.best_G if self.best_G is not None else self._random()
            found = list(self._improve_from(self._kicked(start_G)))
            idle = 0 if found else idle + 1
            yield from found

    def _starts(self) -> Iterator[Ints]:
        """The relaxation's network, and the one that takes the least share of the limits."""
        yield self.relaxation.best_G
        yield _least_of(self.rows_CK @ self.weight_K, self.starts, self.group_C)

    def _random(self) -> Ints:
        return _least_of(self.rng.random(len(self.group_C)), self.starts, self.group_C)

    def _kicked(self, columns_G: Ints) -> Ints:
        kicked = columns_G.copy()
        for group in self.rng.choice(len(kicked), min(KICK, len(kicked)), replace=False):
            low, high = int(self.lp.starts_G1[group]), int(self.lp.starts_G1[group + 1])
            order = low + np.argsort(self.loss_C[low:high], kind="stable")
            kicked[group] = order[min(int(self.rng.geometric(0.4)) - 1, high - low - 1)]
        return kicked

    def _improve_from(self, columns_G: Ints) -> Iterator[Ints]:
        columns_G = columns_G.copy()
        if not self._repair(columns_G):
            return
        self._improve(columns_G)
        value = self.lp.value_of(columns_G)
        if value > self.best_value:
            self.best_G, self.best_value = columns_G, value
            yield columns_G

    def _slack(self, columns_G: Ints) -> Ints:
        slack: Ints = self.lp.limits_K - self.rows_CK[columns_G].sum(axis=0)
        return slack

    def _changes(self, columns_G: Ints) -> tuple[Floats, Ints]:
        """What taking each column in place of its group's adds to the value and to the rows."""
        gain_C = self.lp.value_C - self.lp.value_C[columns_G][self.group_C]
        return gain_C, self.rows_CK - self.rows_CK[columns_G][self.group_C]

    def _repair(self, columns_G: Ints) -> bool:
        """Exchange columns until no row is broken; False if that does not come about."""
        slack_K = self._slack(columns_G)
        for _ in range(MAX_REPAIRS):
            if (slack_K >= 0).all():
                return True
            gain_C, change_CK = self._changes(columns_G)
            violation_C = (np.maximum(change_CK - slack_K, 0) * self.weight_K).sum(axis=1)
            now = float((np.maximum(-slack_K, 0) * self.weight_K).sum())
            better = np.flatnonzero(violation_C < now * (1 - 1e-12))
            if not len(better):
                return False
            price = (self.loss_C[better] - self.loss_C[columns_G][self.group_C[better]] + self._unit()) / (
                now - violation_C[better]
            )
            fixes = violation_C[better] == 0
            at = int(better[fixes][np.argmax(gain_C[better][fixes])] if fixes.any() else better[np.argmin(price)])
            slack_K = slack_K - change_CK[at]
            columns_G[self.group_C[at]] = at
        return False

    def _unit(self) -> float:
        """A loss that keeps the price of a free exchange above zero."""
        return float(self.loss_C.max()) + 1e-300

    def _improve(self, columns_G: Ints) -> None:
        slack_K = self._slack(columns_G)
        while time.monotonic() < self.deadline:
            gain_C, change_CK = self._changes(columns_G)
            fits = (change_CK <= slack_K).all(axis=1)
            one = np.flatnonzero(fits & (gain_C > 0))
            if len(one):
                moves = [int(one[np.argmax(gain_C[one])])]
            else:
                moves = self._two(gain_C, change_CK, slack_K)
                if not moves:
                    return
            for at in moves:
                slack_K = slack_K - change_CK[at]
                columns_G[self.group_C[at]] = at

    def _two(self, gain_C: Floats, change_CK: Ints, slack_K: Ints) -> list[int]:
        """The first two exchanges found that fit and gain together."""
        wanted = np.flatnonzero(gain_C > 0)
        wanted = wanted[np.argsort(self.loss_C[wanted], kind="stable")][:MAX_FIRST]
        top = float(gain_C[wanted].max(initial=0.0))
        others = np.flatnonzero((gain_C > -top) & (change_CK < 0).any(axis=1))
        gain, change, group = gain_C[others], change_CK[others], self.group_C[others]
        for first in wanted.tolist():
            second = np.flatnonzero((gain > -gain_C[first]) & (group != self.group_C[first]))
            fits = second[(change[second] <= slack_K - change_CK[first]).all(axis=1)]
            if len(fits):
                return [first, int(others[fits[np.argmax(gain[fits])]])]
        return []


def _least_of(price_C: Floats, starts: Ints, group_C: Ints) -> Ints:
    """[G] the column with the least price in each group."""
    at = np.flatnonzero(price_C == np.minimum.reduceat(price_C, starts)[group_C])
    return at[np.searchsorted(at, starts)]
