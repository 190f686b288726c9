"""Local search that goes in and out of the limits, where many of them leave exchanges within them no room.

One group's column is replaced at a time: by what adds most to the value less the prices of what is beyond the limits.
A group that was replaced rests for a few steps (tabu search), so that the walk leaves what it has found. A limit's
price rises while it is broken and falls while it is not, so each is broken in the same share of all steps: as often as
leaves a few networks of a thousand within all limits, as if these were independent (strategic oscillation: Glover,
Decision Sciences 8 (1977); Glover and Kochenberger, in: Meta-Heuristics (1996)).

Only the columns are looked at that lose least against the relaxation. What a good network loses in columns it cannot
leave as slack, and the number of networks within K limits grows with the K-th power of the slack that is left.

C = columns that are looked at, G = groups, K = rows.
"""

import time
from collections.abc import Iterator

import numpy as np

from nas_core.program.linear import Ints, LinearProgram
from nas_core.program.relaxation import Relaxation

PER_GROUP = 2.0  # columns that are looked at, on average
WITHIN = 0.003  # of all networks met that are to be within the limits
CHEAPER = 0.995  # what a price becomes in a step that does not break its limit
FIRST_PRICE, LEAST_PRICE = 1.5, 0.7  # over the relaxation's
UNPRICED = 0.05  # of the largest price for as much of a row as columns differ by, where the relaxation has none
REST = 3  # steps, and up to as many more
STEPS, TURN_S = 256, 1.0
STALE = 100_000  # steps without a better network, after which the walk begins anew at the best


class Oscillation:
    """One walk, in turns; it begins at the first network that is given, and anew at the best where it finds nothing."""

    def __init__(self, lp: LinearProgram, relaxation: Relaxation, rng: np.random.Generator) -> None:
        self.lp, self.relaxation, self.rng = lp, relaxation, rng
        num_rows = len(lp.limits_K)
        duals_K = np.zeros(num_rows)
        duals_K[: len(relaxation.duals_K)] = relaxation.duals_K
        spread_K = np.maximum(lp.rows_KC.std(axis=1), 1e-9)
        self.usual_K = np.maximum(duals_K, UNPRICED * (duals_K * spread_K).max(initial=0.0) / spread_K)
        broken = 1 - WITHIN ** (1 / max(num_rows, 1))  # share of the steps in which each limit is
        self.dearer = CHEAPER ** ((broken - 1) / broken)
        self.step, self.begins_at = 0, 0

    def turn(self, best_G: Ints, deadline: float) -> Iterator[Ints]:
        """[G] columns of ever better networks; the next turn goes on where this one ends."""
        until, best = min(deadline, time.monotonic() + TURN_S), self.lp.value_of(best_G)
        while time.monotonic() < until:
            if self.step >= self.begins_at:
                self._begin(best_G)
            for rest in self.rng.integers(REST, 2 * REST + 1, STEPS).tolist():
                self._step(rest)
                if (self.slack_K >= 0).all() and self.value > best:
                    found_G = self.column_C[self.place_G]
                    if self.lp.value_of(found_G) > best:  # summed anew
                        best_G, best = found_G, self.lp.value_of(found_G)
                        self.begins_at = self.step + STALE
                        yield best_G

    def _begin(self, columns_G: Ints) -> None:
        lp, loss_C = self.lp, self.relaxation.loss_C
        kept_C = np.zeros(len(loss_C), dtype=bool)
        kept_C[np.argsort(loss_C, kind="stable")[: int(PER_GROUP * lp.num_groups)]] = True
        kept_C[columns_G] = kept_C[self.relaxation.best_G] = True
        self.column_C = np.flatnonzero(kept_C)
        self.group_C, self.value_C = lp.columns.group_C[self.column_C], lp.value_C[self.column_C]
        self.rows_CK = np.ascontiguousarray(lp.rows_KC[:, self.column_C].T)
        self.place_G: Ints = np.searchsorted(self.column_C, columns_G)
        self.number_C = np.arange(len(self.column_C))
        self.slack_K: Ints = lp.limits_K - self.rows_CK[self.place_G].sum(axis=0)
        self.value, self.price_K = lp.value_of(columns_G), FIRST_PRICE * self.usual_K
        self.rests_until_C, self.begins_at = np.zeros(len(self.column_C), dtype=np.int64), self.step + STALE

    def _step(self, rest: int) -> None:
        """Replace one group's column, which then rests, and let prices rise and fall."""
        self.step += 1
        own_C = self.place_G.take(self.group_C)
        slack_CK = self.rows_CK.take(own_C, axis=0)
        slack_CK += self.slack_K
        slack_CK -= self.rows_CK
        gain_C = self.value_C - self.value_C.take(own_C)
        score_C = gain_C + np.minimum(slack_CK, 0) @ self.price_K
        score_C[(self.rests_until_C > self.step) | (own_C == self.number_C)] = -np.inf
        at = int(score_C.argmax())
        group = self.group_C[at]
        self.slack_K = slack_CK[at]
        self.value += float(gain_C[at])
        self.place_G[group] = at
        self.rests_until_C[self.group_C == group] = self.step + 1 + rest
        self.price_K *= np.where(self.slack_K < 0, self.dearer, CHEAPER)
        np.maximum(self.price_K, LEAST_PRICE * self.usual_K, out=self.price_K)
