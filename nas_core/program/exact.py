"""Exact arithmetic on the unscaled tables: what a network is worth, and which limits it breaks.

A number of a table means the decimal that Python prints for it, so 0.1 + 0.2
is at most 0.3. Sums are ``Fraction``s: no rounding, no overflow. The verifier,
the oracle and every solver's answer use this module, and it knows none of them.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, localcontext
from fractions import Fraction
from functools import lru_cache

from nas_core.program.problem import Budget, Objective, Ragged, SelectionProblem
from nas_core.program.result import Selection
from nas_core.space.genotypes import Genotype

Value = Fraction | Decimal  # Decimal (60 digits) where a power with a broken exponent is irrational
_DIGITS = 60
_UNROUNDED = Context(prec=2_000, Emin=-(10**6), Emax=10**6, traps=[Inexact])  # no sum of floats has as many digits


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Exact totals of one network: its objective value and every resource, base constants included."""

    value: Value
    costs: dict[str, Fraction]


@lru_cache(maxsize=1 << 18)
def exact(number: float) -> Fraction:
    """The decimal that is printed for ``number``."""
    return Fraction(Decimal(repr(number)))


@lru_cache(maxsize=1 << 18)
def _printed(number: float) -> Decimal:
    return Decimal(repr(number))


def row_total(rows: Ragged, choices: Iterable[int], base: float) -> Fraction:
    """Sum of the chosen entries; decimals add up faster than fractions."""
    with localcontext(_UNROUNDED):
        return Fraction(sum((_printed(row[choice]) for row, choice in zip(rows, choices, strict=True)), _printed(base)))


def objective_value(objective: Objective, base: Fraction, gain: Fraction, divisor: Fraction | None) -> Value:
    """The objective of a network with summed scores ``gain`` and total ``divisor`` of the objective's resource."""
    if objective.is_additive:
        return base + gain
    assert divisor is not None, "an objective with a resource has a total of it"
    if objective.kind == "ratio":
        return (base + gain) / divisor
    assert objective.reference is not None, "Objective checks it"
    share = exact(objective.reference) / divisor
    if objective.exponent == 1:
        return base + gain * share
    with localcontext() as context:
        context.prec = _DIGITS
        power = _decimal(share) ** _decimal(exact(objective.exponent))
        return _decimal(base) + _decimal(gain) * power


def _decimal(fraction: Fraction) -> Decimal:
    return Decimal(fraction.numerator) / Decimal(fraction.denominator)


def evaluate(problem: SelectionProblem, genotype: Genotype) -> Totals:
    """Exact value and costs of one network of the problem."""
    table, choices = problem.table(genotype.resolution), genotype.choices
    costs = {name: row_total(rows, choices, table.base_costs.get(name, 0.0)) for name, rows in table.costs.items()}
    gain = row_total(table.score, choices, 0.0)
    gain += pair_total(problem, choices)
    resource = problem.objective.resource
    divisor = None if resource is None else costs[resource]
    return Totals(value=objective_value(problem.objective, exact(table.base_score), gain, divisor), costs=costs)


def pair_total(problem: SelectionProblem, choices: Sequence[int]) -> Fraction:
    """Sum of the pair terms that a network has."""
    pairs, taken = problem.pairs, tuple(enumerate(choices))
    if len(pairs) <= math.comb(len(taken), 2):
        return sum((exact(x) for (a, b), x in pairs.items() if a in taken and b in taken), Fraction(0))
    terms = (pairs.get(pair) for pair in itertools.combinations(taken, 2))
    return sum((exact(term) for term in terms if term is not None), Fraction(0))


def is_within(budget: Budget, total: Fraction) -> bool:
    if budget.at_most is not None and total > exact(float(budget.at_most)):
        return False
    return budget.at_least is None or total >= exact(float(budget.at_least))


def is_forbidden(problem: SelectionProblem, genotype: Genotype) -> bool:
    return any(
        genotype.choices == other.choices and other.resolution in (None, genotype.resolution)
        for other in problem.forbidden
    )


def violations(problem: SelectionProblem, genotype: Genotype, costs: dict[str, Fraction]) -> list[str]:
    """What the network breaks, in words; empty if it is allowed."""
    broken = [
        f"{budget} (is {float(costs[budget.resource])!r})"
        for budget in problem.budgets
        if not is_within(budget, costs[budget.resource])
    ]
    broken += [f"rule {rule.as_dict()}" for rule in problem.rules if not rule.allows(genotype.choices)]
    return broken + (["the network is forbidden"] if is_forbidden(problem, genotype) else [])


def rounded_up(value: Value | float) -> float:
    """The nearest float, or the next where the decimal that it prints is below an exact value."""
    rounded = float(value)
    is_below = math.isfinite(rounded) and exact(rounded) < value
    return math.nextafter(rounded, math.inf) if is_below else rounded


def selection_of(problem: SelectionProblem, genotype: Genotype) -> Selection:
    """The network with its value and costs, computed exactly and rounded once to floats."""
    totals = evaluate(problem, genotype)
    costs = {name: float(total) for name, total in totals.costs.items()}
    return Selection(genotype=genotype, value=float(totals.value), costs=costs)


def costs_of_base(problem: SelectionProblem) -> dict[str, float] | None:
    """Total costs of the network that percentages are of; None if the problem names none."""
    if problem.base is None:
        return None
    return {name: float(total) for name, total in evaluate(problem, problem.base).costs.items()}
