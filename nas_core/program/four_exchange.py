"""Local search over exchanges of up to four groups' columns at once, where many limits leave smaller ones no room.

Every exchange of one group or two among the most promising columns is listed; two of the list are an exchange of
up to four. Together they have to gain, and to take no more of any row than there is slack: a few rows of small
numbers, of which words hold four each (``packed``), so that one is tried beside thousands in a few steps. With
multipliers u no more is lost, against the relaxation, than the slack is worth that the network leaves:

    loss(exchange) < u . slack, or the exchange gains nothing

so the list is in order of losses, and each meets those before it up to what is left of that. A network that is better
than all of these is kicked: a few random groups are replaced, then repaired and improved (``exchange``).

C = columns, G = groups, K = rows, S = exchanges listed, R = rows of small numbers, W = words.
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

from nas_core.program.exchange import Exchanges
from nas_core.program.linear import Floats, Ints, LinearProgram
from nas_core.program.packed import GUARD, LARGEST, Words, fitting, packed
from nas_core.program.relaxation import Relaxation

MOST_COLUMNS = 300  # that are exchanged for: those that lose least
PER_GROUP = 2.5  # of these, on average, at least: with fewer, meetings find more
TURN_S = 1.0
STEPS = 256  # exchanges that are tried between two looks at the clock or at what was found


@dataclass(frozen=True)
class _Exchanges:
    """One or two columns each (twice the same where it is one) in place of others, those that lose least first."""

    column_S2: Ints
    group_S2: Ints
    gain_S: Ints
    change_SK: Ints
    loss_S: Floats


class FourExchanges:
    """Turns of this search from the best network known."""

    def __init__(self, lp: LinearProgram, relaxation: Relaxation, exchanges: Exchanges) -> None:
        self.lp, self.relaxation, self.exchanges = lp, relaxation, exchanges
        self.rows_CK, self.group_C = np.ascontiguousarray(lp.rows_KC.T), lp.columns.group_C
        self.duals_K = np.zeros(len(lp.limits_K))
        self.duals_K[: len(relaxation.duals_K)] = relaxation.duals_K
        self.best_G: Ints | None = None
        self.search: Iterator[Ints | None] = iter(())

    @property
    def fits(self) -> bool:
        """Whether enough columns of every group are among those looked at."""
        return self.lp.integers_C is not None and PER_GROUP * self.lp.num_groups <= MOST_COLUMNS

    def turn(self, best_G: Ints, deadline: float) -> Iterator[Ints]:
        """[G] columns of ever better networks; the next turn goes on where this one ends."""
        until = min(deadline, time.monotonic() + TURN_S)
        if self.best_G is None or (self.best_G != best_G).any():
            self.best_G, self.search = best_G, self._descent(best_G)
        while time.monotonic() < until:
            try:
                found_G = next(self.search)
            except StopIteration:
                self.search = self._descent(self.exchanges.kicked(best_G, until))
                continue
            if found_G is not None and self.lp.value_of(found_G) > self.lp.value_of(best_G):
                self.best_G = best_G = found_G
                yield best_G

    def _descent(self, columns_G: Ints | None) -> Iterator[Ints | None]:
        """[G] ever better networks, and None from time to time."""
        while columns_G is not None:
            yield columns_G
            columns_G = yield from self._better(columns_G)

    def _better(self, columns_G: Ints) -> Generator[None, None, Ints | None]:
        """[G] a better network, by the best exchange of those tried first; None if there is none."""
        slack_K: Ints = self.lp.limits_K - self.rows_CK[columns_G].sum(axis=0)
        worth = float(self.duals_K @ slack_K)
        listed = self._listed(columns_G, worth)
        room_WS, loss_WS = _rows(listed, slack_K)
        most_S = np.minimum(np.searchsorted(listed.loss_S, worth - listed.loss_S), np.arange(1, len(listed.loss_S) + 1))
        best, best_G = 0, None
        for first, most in enumerate(most_S.tolist(), 1):
            for second in fitting(room_WS[:, :most], loss_WS[:, first - 1]).tolist():
                gain = int(listed.gain_S[first - 1] + listed.gain_S[second])
                apart = not np.isin(listed.group_S2[first - 1], listed.group_S2[second]).any()
                if gain > best and apart:
                    taken = listed.column_S2[[first - 1, second]].ravel()
                    found_G = columns_G.copy()
                    found_G[self.group_C[taken]] = taken
                    if (self.rows_CK[found_G].sum(axis=0) <= self.lp.limits_K).all():
                        best, best_G = gain, found_G
            if first % STEPS == 0:
                if best_G is not None:
                    break
                yield
        return best_G

    def _listed(self, columns_G: Ints, worth: float) -> _Exchanges:
        """Those of one group and of two that may be part of a better network."""
        assert self.lp.integers_C is not None, "the caller looks"
        own_C = columns_G[self.group_C]
        loss_C = self.relaxation.loss_C - self.relaxation.loss_C[own_C]
        others = np.flatnonzero(np.arange(len(own_C)) != own_C)
        others = others[np.argsort(loss_C[others], kind="stable")][:MOST_COLUMNS]
        column_S2 = others[np.stack(np.triu_indices(len(others)), axis=1)]
        group_S2 = self.group_C[column_S2]
        is_one_S = column_S2[:, 0] == column_S2[:, 1]
        kept = np.flatnonzero(is_one_S | (group_S2[:, 0] != group_S2[:, 1]))
        is_two_S = ~is_one_S[kept]
        first, second = column_S2[kept].T
        loss_S = loss_C[first] + is_two_S * loss_C[second]
        order = np.argsort(loss_S, kind="stable")
        order = order[: np.searchsorted(loss_S[order], worth - loss_S.min(initial=0.0))]
        kept, first, second, is_two_S = kept[order], first[order], second[order], is_two_S[order]
        gain_C, change_CK = self.lp.integers_C - self.lp.integers_C[own_C], self.rows_CK - self.rows_CK[own_C]
        return _Exchanges(
            column_S2=column_S2[kept],
            group_S2=group_S2[kept],
            gain_S=gain_C[first] + is_two_S * gain_C[second],
            change_SK=change_CK[first] + is_two_S[:, None] * change_CK[second],
            loss_S=loss_S[order],
        )


def _rows(listed: _Exchanges, slack_K: Ints) -> tuple[Words, Words]:
    """([W, S] what each exchange leaves to another of the slack, and of the gain above 0; what it takes of these).

    Numbers are counted from the least that is taken, and rounded down where they are large, so a few pairs that do not
    fit seem to.
    """
    takes_RS = np.concatenate([1 - listed.gain_S[None], listed.change_SK.T])
    leaves_RS = np.concatenate([listed.gain_S[None], slack_K[:, None] - listed.change_SK.T])
    least_R1 = takes_RS.min(axis=1, initial=0, keepdims=True)
    takes_RS, leaves_RS = takes_RS - least_R1, leaves_RS - least_R1
    bits_R = [max(0, int(most).bit_length() - 14) for most in takes_RS.max(axis=1, initial=0)]
    shift_R1 = np.array(bits_R, dtype=np.int64)[:, None]
    takes_RS >>= shift_R1
    leaves_RS >>= shift_R1
    fits_none_S = (leaves_RS < 0).any(axis=0)
    room = packed([*np.where(fits_none_S, 0, np.minimum(leaves_RS, LARGEST))])
    guard_S = np.where(fits_none_S, np.uint64(0), GUARD)
    return room | guard_S, packed([*takes_RS])
