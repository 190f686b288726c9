"""A leaf's networks that multipliers alone do not exclude, listed position by position; see ``checker``."""

import itertools
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from nas_core.program.claim import Claim

INT64 = 1 << 62

Numbers = npt.NDArray[Any]  # int64, or Python integers where they do not fit


class Listing:
    """The networks of a leaf whose left side could be above 0."""

    def __init__(
        self,
        claim: "Claim",
        weights: list[list[int]],
        constant: int,
        value: int,
        unit: int,
        prices: Mapping[int, int],
        multiples: Mapping[int, int],
        alive: list[list[int]],
    ) -> None:
        self.claim, self.alive, self.value = claim, alive, value
        self.prices = prices
        self.spare_prices = {k: price - unit * multiples.get(k, 0) for k, price in prices.items()}
        breakable = set(claim.breakable(alive))
        used = [k for k in range(len(claim.rows)) if prices.get(k) or k in breakable]
        self.side = [
            [value * unit * weights[g][c] - sum(prices.get(k, 0) * claim.rows[k][0][g][c] for k in used) for c in left]
            for g, left in enumerate(alive)
        ]
        if value and claim.pairs:
            self._add_pairs(unit)
        self.top = value * unit * constant + sum(prices.get(k, 0) * claim.rows[k][1][0][0] for k in used)
        self.top += sum(map(max, self.side))
        self.used = used
        # All of a leaf has this or more: the multiples' part is counted apart, so that ``top`` is the same without.
        self.needed = unit * self._least_above(weights, constant, multiples) if value else 0

    def _least_above(self, weights: list[list[int]], constant: int, multiples: Mapping[int, int]) -> int:
        """The least number above 0 that z can be; see the module."""
        rows = [(self.claim.rows[k], m) for k, m in multiples.items() if m]
        start = constant + sum(m * limit[0][0] for (_, limit), m in rows)
        step = math.gcd(*itertools.chain.from_iterable(self.claim.pair_weights.values())) if self.claim.pairs else 0
        for g, left in enumerate(self.alive):
            values = [weights[g][c] - sum(m * entries[g][c] for (entries, _), m in rows) for c in left]
            start += values[0]
            step = math.gcd(step, *(value - values[0] for value in values))
        if step == 0:
            return max(start, 1)
        return start % step or step

    def _add_pairs(self, unit: int) -> None:
        """A pair's terms counted at its first group, at their largest over what is left of the second."""
        for (g, h), terms in self.claim.pairs.items():
            values = dict.fromkeys(itertools.product(self.alive[g], self.alive[h]), 0)
            for (c, d, _), weight in zip(terms, self.claim.pair_weights[g, h], strict=True):
                if (c, d) in values:
                    values[c, d] += weight
            for i, c in enumerate(self.alive[g]):
                self.side[g][i] += unit * max(values[c, d] for d in self.alive[h])

    def networks(self, max_states: int, deadline: float) -> list[tuple[int, ...]] | None:
        """One choice per group; None if there are more parts than ``max_states`` at a time, or at the deadline."""
        if self.top < self.needed:
            return []
        order = sorted(range(len(self.alive)), key=lambda g: len(self._open(g)))
        rows = [self.claim.rows[k] for k in self.used]
        price_of = [self.prices.get(k, 0) for k in self.used]
        spare_of = [self.spare_prices.get(k, 0) for k in self.used]
        spread = sum(max(row) - min(row) for row in self.side) + abs(self.top)
        totals = [sum(max(abs(r[0][g][c]) for c in self.alive[g]) for g in order) + abs(r[1][0][0]) for r in rows]
        priced = sum(price * total for price, total in zip(price_of, totals, strict=True))
        kind: Any = np.int64 if 2 * (spread + 2 * priced + max(totals, default=0)) < INT64 else object
        loss = [np.array([max(self.side[g]) - x for x in self.side[g]], dtype=kind) for g in order]
        cost = [
            np.array([[r[0][g][c] for r in rows] for c in self.alive[g]], dtype=kind).reshape(
                len(self.alive[g]), len(rows)
            )
            for g in order
        ]
        limit = np.array([r[1][0][0] for r in rows], dtype=kind)
        least_after = _after([block.min(axis=0) for block in cost], len(rows), kind)
        most_after = _after([block.max(axis=0) for block in cost], len(rows), kind)
        spare_prices = np.array(spare_of, dtype=kind)
        lost, spent = np.zeros(1, dtype=kind), np.zeros((1, len(rows)), dtype=kind)
        trail: list[tuple[Numbers, Numbers]] = []
        merge = len(rows) == 1 and self._is_told_by_worth
        for i, g in enumerate(order):
            if len(lost) * len(self.alive[g]) > max_states or time.monotonic() > deadline:
                return None
            now = (lost[:, None] + loss[i][None, :]).ravel()
            then = (spent[:, None, :] + cost[i][None, :, :]).reshape(len(now), len(rows))
            spare = limit - then - most_after[i + 1]  # at least this slack is left at the end
            left = self.top - now - (np.maximum(spare, 0) * spare_prices).sum(axis=1)
            keep = (left >= self.needed) & (then + least_after[i + 1] <= limit).all(axis=1)
            kept = np.flatnonzero(keep)
            if merge and len(kept):
                kept = _best_by_cost(kept, now, then[:, 0], int(price_of[0]))
            lost, spent = now[kept], then[kept]
            trail.append((kept // len(self.alive[g]), kept % len(self.alive[g])))
            if not len(lost):
                return []
        return self._spell(order, trail, len(lost))

    @property
    def _is_told_by_worth(self) -> bool:
        """Whether the cheaper of two parts that is worth no less stands for both.

        Not where being above the bound is no matter of the worth: where the leaf leaves the value out,
        where a power makes the worth a mere limit, where networks are told apart one by one.
        """
        claim = self.claim
        is_value = claim.bound is None or (bool(self.value) and claim.table.is_exact)
        return is_value and not claim.pairs and not claim.excluded

    def _open(self, g: int) -> list[int]:
        """Choices of a group that the whole bound does not exclude by themselves."""
        best = max(self.side[g])
        return [c for c, s in zip(self.alive[g], self.side[g], strict=True) if self.top - (best - s) >= self.needed]

    def _spell(self, order: list[int], trail: list[tuple[Numbers, Numbers]], count: int) -> list[tuple[int, ...]]:
        state, chosen = np.arange(count), {}
        for g, (parent, choice) in zip(reversed(order), reversed(trail), strict=True):
            chosen[g] = [self.alive[g][c] for c in choice[state].tolist()]
            state = parent[state]
        return list(zip(*(chosen[g] for g in range(len(order))), strict=True))


def _after(blocks: list[Numbers], width: int, kind: Any) -> list[Numbers]:
    """[G + 1] sums over this and all later groups."""
    sums = [np.zeros(width, dtype=kind)]
    for block in reversed(blocks):
        sums.append(sums[-1] + block)
    return sums[::-1]


def _best_by_cost(kept: Numbers, lost: Numbers, spent: Numbers, price: int) -> Numbers:
    """One row: of two parts the cheaper one that is worth no less is enough."""
    worth = price * spent[kept] - lost[kept]  # without what slack is worth
    order = np.lexsort((-worth, spent[kept])) if worth.dtype != object else np.argsort(spent[kept], kind="stable")
    sorted_worth = worth[order]
    before = np.maximum.accumulate(sorted_worth)
    is_best = np.concatenate([[True], sorted_worth[1:] > before[:-1]])
    best: Numbers = kept[order[is_best.astype(bool)]]
    return best
