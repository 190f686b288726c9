"""The cheapest and the dearest network of a space that its rules allow. No torch: prices come in a table.

Exact, by branch and bound over positions: a partial network is given up as
soon as a rule is broken by the blocks it has, or its best completion is no
better than the best network found.
"""

from collections.abc import Sequence

from nas_core.base.errors import SpaceError
from nas_core.records.evaluations import CostTable
from nas_core.space.genotypes import Genotype, Rule, SearchSpace


def extreme_genotypes(space: SearchSpace, tables: Sequence[CostTable]) -> tuple[Genotype, Genotype]:
    """(smallest, largest) network by total price that the rules allow, over the resolutions of ``tables``.

    Equal prices are decided for the first choices, so the answer is a function of the space.

    Raises:
        SpaceError: if no network satisfies the rules.
    """
    assert all(table.combine == "sum" for table in tables), "prices must add up"
    several = len(space.resolutions) > 1
    found = []
    for sign in (1.0, -1.0):
        candidates = []
        for table in tables:
            choices = _cheapest([[sign * price for price in row] for row in table.block], space.rules)
            if choices is None:
                raise SpaceError(f"space {space.name}.rules", "rules that exclude every network", "rules some satisfy")
            genotype = Genotype(choices, table.resolution if several else None)
            candidates.append((sign * table.total(genotype), genotype))
        found.append(min(candidates, key=lambda pair: pair[0])[1])
    return found[0], found[1]


def _cheapest(prices: Sequence[Sequence[float]], rules: Sequence[Rule]) -> tuple[int, ...] | None:
    """The choices of least total price under the rules, or None where the rules allow none."""
    rest = [0.0]  # least price of positions p..M-1, rules ignored
    for row in reversed(prices):
        rest.insert(0, rest[0] + min(row))
    best: tuple[int, ...] | None = None
    best_price = float("inf")

    def extend(choices: tuple[int, ...], price: float) -> None:
        nonlocal best, best_price
        if price + rest[len(choices)] >= best_price or any(_broken(rule, choices) for rule in rules):
            return
        if len(choices) == len(prices):
            best, best_price = choices, price
            return
        row = prices[len(choices)]
        for choice in sorted(range(len(row)), key=row.__getitem__):
            extend((*choices, choice), price + row[choice])

    extend((), 0.0)
    return best


def _broken(rule: Rule, choices: Sequence[int]) -> bool:
    """Whether no completion of the first ``len(choices)`` positions can satisfy the rule."""
    decided = [position < len(choices) for position, _ in rule.blocks]
    taken = [known and choices[p] == c for known, (p, c) in zip(decided, rule.blocks, strict=True)]
    match rule.kind:
        case "forbid":
            return all(taken)
        case "require":
            return all(decided) and not any(taken)
        case "implies":
            return taken[0] and all(decided[1:]) and not any(taken[1:])
        case "at_most":
            return sum(taken) > rule.count
        case "equal":
            return len({choices[p] for p in rule.positions if p < len(choices)}) > 1
