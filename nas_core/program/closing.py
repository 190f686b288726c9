"""Proves that no network is better than one that is known, where the core is too large to be kept.

All halves that lose less than g are made of quarters and go by in chunks. Of two halves of a
network that loses less than g one loses less than g / 2, and these few are kept, in buckets:

1. every right half looks for left halves that lose less than g / 2,
2. every left half that loses g / 2 or more looks for right halves that lose less.

g lies one unit of the values below the known network, so that rounding hides nothing.

G = groups, C = columns, K = rows.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nas_core.program.halves import (
    Buckets,
    CoreTooLargeError,
    Goal,
    Half,
    Prices,
    both,
    half_of,
    matching,
    pairs_between,
    spell,
)
from nas_core.program.linear import Ints, LinearProgram
from nas_core.program.relaxation import Relaxation

MOST_KEPT = 2_000_000  # halves that lose less than g / 2
MOST_PAIRS = 1 << 40  # of one chunk: only the deadline ends the search
BINS = 200  # of the losses, where halves are counted beforehand
SURE = 8  # times the float error that a unit of the values has to be


@dataclass(frozen=True)
class _Side:
    """One half of the groups, as two lists of quarters."""

    first: Half
    second: Half

    def between(self, low: float, high: float) -> Iterator[tuple[Half, tuple[Ints, Ints]]]:
        """Chunks of the halves that lose from ``low`` to less than ``high``, and what they are made of."""
        for pairs in pairs_between(self.first, self.second, low, high):
            yield both(self.first, self.second, *pairs), pairs

    def below(self, high: float) -> tuple[Half, tuple[Ints, Ints]]:
        """All of them in one list."""
        chunks = [pairs for _, pairs in self.between(-1.0, high)]
        first_N, second_N = (np.concatenate(part) for part in zip(*chunks, strict=True))
        return both(self.first, self.second, first_N, second_N), (first_N, second_N)

    def parts(self, pairs: tuple[Ints, Ints], at: int) -> list[tuple[Half, Ints]]:
        """What ``spell`` takes of one half."""
        return [(part, index_N[at : at + 1]) for part, index_N in zip((self.first, self.second), pairs, strict=True)]


class Closing:
    """What is to be looked at for networks that are better than one that is worth ``value``."""

    def __init__(self, lp: LinearProgram, relaxation: Relaxation, value: float) -> None:
        self.lp, self.relaxation = lp, relaxation
        unit = float(lp.unit)
        self.is_sure = lp.exact_C is not None and unit > SURE * relaxation.error
        self.g = relaxation.bound - value - unit / 2
        alive = np.flatnonzero(relaxation.loss_C < self.g)
        alive = alive[alive != relaxation.best_G[lp.columns.group_C[alive]]]
        least_first = alive[np.argsort(relaxation.loss_C[alive], kind="stable")]
        groups: dict[int, list[int]] = {}
        for column, group in zip(least_first.tolist(), lp.columns.group_C[least_first].tolist(), strict=True):
            groups.setdefault(group, []).append(column)
        lists = [np.array(columns) for columns in groups.values()]
        self.quarters = [lists[i::4] for i in range(4)]

    def num_halves(self) -> tuple[float, float]:
        """(halves to look at, those of them to keep), counted too high rather than too low."""
        if self.g <= 0:
            return 0.0, 0.0
        counts = [_count(self.relaxation, self.quarters[i] + self.quarters[i + 2], self.g) for i in (0, 1)]
        return sum(everything for everything, _ in counts), max(kept for _, kept in counts)

    def better(self, deadline: float) -> Ints | None:
        """[G] the best network of those that are better than the known one; None if there is none.

        Raises:
            CoreTooLargeError: at the deadline, or if too many halves are to be kept.
        """
        if self.g <= 0:  # the bound is less than a unit away
            return None
        if self.num_halves()[1] > MOST_KEPT:
            raise CoreTooLargeError
        lp, relaxation = self.lp, self.relaxation
        change_CK = lp.rows_KC.T - lp.rows_KC[:, relaxation.best_G].T[lp.columns.group_C]
        lists = [half_of(groups, relaxation.loss_C, change_CK, self.g, deadline) for groups in self.quarters]
        left, right = _Side(lists[0], lists[2]), _Side(lists[1], lists[3])
        prices, goal = Prices(slack_K=relaxation.slack_K, duals_K=relaxation.duals_K), Goal(self.g)
        best_G: Ints | None = None
        for kept, others, low in ((left, right, -1.0), (right, left, self.g / 2)):
            few, few_pairs = kept.below(self.g / 2)
            buckets: Buckets | None = None
            for chunk, chunk_pairs in others.between(low, self.g):
                if time.monotonic() > deadline:
                    raise CoreTooLargeError
                if buckets is None:
                    losses = np.append(max(low, 0.0), np.sort(chunk.loss_S))
                    buckets = Buckets(prices, few, losses, self.g)
                for pairs in buckets.pairs(chunk, goal, MOST_PAIRS):
                    chunk_N, few_N, loss_N = matching(prices, chunk, few, *pairs, goal.g)
                    if len(loss_N):
                        at = int(loss_N.argmin())
                        goal.g = float(loss_N[at])
                        parts = others.parts(chunk_pairs, int(chunk_N[at])) + kept.parts(few_pairs, int(few_N[at]))
                        best_G = spell(relaxation.best_G, lp.columns.group_C, *parts)[0]
                    if time.monotonic() > deadline:
                        raise CoreTooLargeError
        return best_G


def _count(relaxation: Relaxation, groups: list[Ints], g: float) -> tuple[float, float]:
    """(combinations that lose less than g, less than g / 2) of some groups."""
    count_B = np.zeros(BINS)
    count_B[0] = 1.0
    for group in groups:
        more_B = count_B.copy()
        for shift in (relaxation.loss_C[group] / g * BINS).astype(np.int64).tolist():
            if shift < BINS:
                more_B[shift:] += count_B[: BINS - shift]
        count_B = more_B
    return float(count_B.sum()), float(count_B[: BINS // 2].sum())
