"""The smallest and the largest network of a space that its rules allow. No torch: prices come in a table.

By branch and bound over positions: a partial network is given up as soon as
the blocks it has break a rule, or its best completion is no better than the
best network found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nas_core.base.errors import SpaceError
from nas_core.space.genotypes import Genotype, SearchSpace

MOST_STEPS = 200_000  # partial networks looked at: a proof under many rules could take for ever
DRAWS = 1_000  # random networks looked at where the search met none by then

Ragged = tuple[tuple[float, ...], ...]  # a price per choice, per position


class Prices(Protocol):
    """What every block, and what stays the same in every network, costs at one resolution; prices add up."""

    @property
    def resolution(self) -> int: ...
    @property
    def fixed(self) -> float: ...
    @property
    def block(self) -> Ragged: ...


@dataclass(frozen=True)
class _AnySize:
    """One table for all resolutions; the larger input makes the larger network."""

    resolution: int
    fixed: float
    block: Ragged


def extreme_genotypes(space: SearchSpace, tables: Sequence[Prices] = ()) -> tuple[Genotype, Genotype]:
    """(smallest, largest) network by total price that the rules allow; ``tables`` has one per resolution.

    One table for several resolutions says nothing of their prices: the larger
    is the dearer. Without tables a block's price is its choice index. Equal
    prices are decided for the first choices, so the answer is a function of the
    space. It is exact where MOST_STEPS partial networks settle it, as they do
    without rules; else the best network found.

    Raises:
        SpaceError: if no network satisfies the rules.
    """
    if len(tables) < len(space.resolutions):
        indices = tuple(tuple(map(float, range(count))) for count in space.num_choices)
        block = tables[0].block if tables else indices
        tables = [_AnySize(size, float(size), block) for size in space.resolutions]
    several = len(space.resolutions) > 1
    found = []
    for sign in (1.0, -1.0):
        candidates = []
        for table in tables:
            prices = [[sign * price for price in row] for row in table.block]
            choices = _cheapest(prices, space)
            genotype = Genotype(choices, table.resolution if several else None)
            candidates.append((sign * table.fixed + _price(prices, choices), genotype))
        found.append(min(candidates, key=lambda pair: pair[0])[1])
    return found[0], found[1]


def _price(prices: Sequence[Sequence[float]], choices: Sequence[int]) -> float:
    return sum(row[choice] for row, choice in zip(prices, choices, strict=True))


def _cheapest(prices: Sequence[Sequence[float]], space: SearchSpace) -> tuple[int, ...]:
    """The choices of least total price under the space's rules; raises SpaceError if they allow none."""
    rest = [0.0]  # least price of positions p..M-1, rules ignored
    for row in reversed(prices):
        rest.insert(0, rest[0] + min(row))
    best: tuple[int, ...] | None = None
    best_price = float("inf")
    partial: list[tuple[tuple[int, ...], float]] = [((), 0.0)]  # the next to look at is the last
    for _ in range(MOST_STEPS):
        if not partial:
            break
        choices, price = partial.pop()
        if price + rest[len(choices)] >= best_price or not all(rule.allows(choices) for rule in space.rules):
            continue
        if len(choices) == len(prices):
            best, best_price = choices, price
            continue
        row = prices[len(choices)]
        dearest_first = sorted(range(len(row)), key=row.__getitem__)[::-1]
        partial += [((*choices, choice), price + row[choice]) for choice in dearest_first]
    if best is None and partial:
        rng = np.random.default_rng(0)
        return min((space.sample(rng).choices for _ in range(DRAWS)), key=lambda drawn: _price(prices, drawn))
    if best is None:
        raise SpaceError(f"space {space.name}.rules", "rules that exclude every network", "rules some satisfy")
    return best
