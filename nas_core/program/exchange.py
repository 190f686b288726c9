"""Local search for a good network: rounding of the relaxation, repair, one- and two-exchange, kicks.

Every move replaces the column of one group or of two. A repair takes the
exchange that leaves the least violation (each row's as a share of its limit); an
improvement takes the most valuable exchange that fits, then two at once of
which the second pays for the first; a kick replaces a few random groups by columns
that lose little. Turns look at few columns and at more by turns. Only integers decide what fits.

G = groups, C = columns, K = rows.
"""

import itertools
import time
from collections.abc import Iterator

import numpy as np

from nas_core.program.linear import Floats, Ints, LinearProgram
from nas_core.program.relaxation import Relaxation

WIDTHS = (
    1.5,
    2.0,
    3.0,
    float("inf"),
)  # columns per group that a turn looks at: few of those that lose much are ever taken
START = 0.0  # the first turn: all columns, no kicks
TURN_S = 1.0
WORSE = 0.03  # of the gap: by how much worse a network may be to go on from, on average
MAX_FIRST = 60  # columns tried as the first of two exchanges
MAX_REPAIRS = 400  # exchanges of one repair
KICK = 4  # groups that a kick replaces
IDLE = 20  # kicks per group without a better network, after which no more are tried


class Exchanges:
    """Turns of local search, among few columns and among more."""

    def __init__(self, lp: LinearProgram, relaxation: Relaxation, rng: np.random.Generator) -> None:
        self.lp, self.relaxation, self.rng = lp, relaxation, rng
        self.widths = itertools.chain([START], itertools.cycle(WIDTHS))
        self.width = START

    def turn(self, best_G: Ints | None, deadline: float) -> Iterator[Ints]:
        """[G] columns of networks within the rows, from the best one known."""
        self.width = next(self.widths)
        if self.width == START and best_G is not None:  # no start of its own is needed
            self.width = next(self.widths)
        kept = _narrow(self.lp, self.relaxation, float("inf") if self.width == START else self.width, best_G)
        search = _Search(self.lp.keep(kept), self.relaxation, kept, self.rng, deadline)
        place = np.flatnonzero(kept)
        start_G = None if best_G is None else np.searchsorted(place, best_G)
        for found_G in search.run(start_G, kicks=self.width != START):
            yield place[found_G]

    @property
    def was_wide(self) -> bool:
        """Whether the last turn looked at all columns, with kicks."""
        return self.width == WIDTHS[-1]


def _narrow(
    lp: LinearProgram, relaxation: Relaxation, width: float, best_G: Ints | None
) -> "np.typing.NDArray[np.bool_]":
    """The columns that lose least, ``width`` per group, and those of the best network."""
    loss_C, count = relaxation.loss_C, int(min(width * lp.num_groups, lp.columns.num_columns))
    if count >= len(loss_C):
        return np.ones(len(loss_C), dtype=bool)
    kept: np.typing.NDArray[np.bool_] = loss_C <= np.partition(loss_C, count)[count]
    kept[relaxation.best_G if best_G is None else best_G] = True
    return kept


class _Search:
    """Local search among some columns; ``kept_C`` says which of the relaxation's they are."""

    def __init__(
        self,
        lp: LinearProgram,
        relaxation: Relaxation,
        kept_C: "np.typing.NDArray[np.bool_]",
        rng: np.random.Generator,
        deadline: float,
    ) -> None:
        self.lp, self.rng = lp, rng
        self.deadline = min(deadline, time.monotonic() + TURN_S)
        self.group_C, self.starts = lp.columns.group_C, lp.starts_G1[:-1]
        self.rows_CK = np.ascontiguousarray(lp.rows_KC.T)
        self.weight_K = 1.0 / np.maximum(lp.limits_K.astype(np.float64), 1.0)
        self.loss_C, self.bound = relaxation.loss_C[kept_C], relaxation.bound
        order = np.lexsort((self.loss_C, self.group_C))
        self.by_loss = [order[low:high] for low, high in itertools.pairwise(lp.starts_G1.tolist())]
        self.several = np.flatnonzero(np.diff(lp.starts_G1) > 1)
        self.unit = float(self.loss_C.max()) + 1e-300

    def run(self, start_G: Ints | None, *, kicks: bool) -> Iterator[Ints]:
        """Networks within the rows, each better than those before or a start of its own."""
        if start_G is None:
            least_G = _least_of(self.rows_CK @ self.weight_K, self.starts, self.group_C)
            begun = [self.improved(columns_G) for columns_G in (self._cheapest_loss(), least_G)]
            found = [columns_G for columns_G in begun if columns_G is not None]
            yield from found
            start_G = max(found, key=self.lp.value_of, default=None)
        now_G, now = start_G, -np.inf if start_G is None else self.lp.value_of(start_G)
        best, idle, patience = now, 0, IDLE * len(self.starts) if kicks else 0
        while idle < patience and time.monotonic() < self.deadline and best < self.bound:
            idle += 1
            found_G = self.improved(self.kicked(now_G) if now_G is not None else self._random())
            if found_G is None:
                continue
            value = self.lp.value_of(found_G)
            if value > best:
                best, idle = value, 0
                yield found_G
            # a little worse is taken too: from there, other kicks help
            if value >= now - self.rng.exponential(WORSE) * max(self.bound - best, 0.0):
                now_G, now = found_G, value

    def _cheapest_loss(self) -> Ints:
        return _least_of(self.loss_C, self.starts, self.group_C)

    def _random(self) -> Ints:
        return _least_of(self.rng.random(len(self.group_C)), self.starts, self.group_C)

    def kicked(self, columns_G: Ints) -> Ints:
        """A few random groups' columns replaced by such as lose little."""
        kicked = columns_G.copy()
        if not len(self.several):
            return kicked
        for group in self.rng.choice(self.several, min(KICK, len(self.several)), replace=False):
            order = self.by_loss[group]
            kicked[group] = order[min(int(self.rng.geometric(0.4)) - 1, len(order) - 1)]
        return kicked

    def improved(self, columns_G: Ints) -> Ints | None:
        """The local optimum that a network leads to; None if it could not be repaired."""
        columns_G = columns_G.copy()
        if not self._repair(columns_G):
            return None
        self._improve(columns_G)
        return columns_G

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
            more = self.loss_C[better] - self.loss_C[columns_G][self.group_C[better]]
            price = (more + self.unit) / (now - violation_C[better])
            fixes = violation_C[better] == 0
            at = int(better[fixes][np.argmax(gain_C[better][fixes])] if fixes.any() else better[np.argmin(price)])
            slack_K = slack_K - change_CK[at]
            columns_G[self.group_C[at]] = at
        return False

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
