"""Explains limits that nothing meets, on resources that are a maximum over blocks, such as peak memory.

The program counts the blocks that exceed such a limit (``choices.with_additive_limits``); people ask for the resource.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nas_core.program import Budget
from nas_core.program.answers import Effort
from nas_core.program.exact import exact
from nas_core.program.explanation import relaxed, sign_of
from nas_core.program.result import Explanation, Relaxation
from nas_core.program.session import Session
from nas_core.records.resources import combine_of
from nas_core.study.choices import counted_as

if TYPE_CHECKING:
    from nas_core.study.snapshot import Snapshot


def as_asked(known: "Snapshot", explanation: Explanation, budgets: Sequence[Budget]) -> Explanation:
    """The explanation in the resources that the budgets are of, not in the program's counts of them."""
    sides = [side for budget in budgets for side in budget.sides()]
    asked = {counted_as(side): side for side in sides if combine_of(side.resource) == "max"}
    if not asked:
        return explanation
    peaks = {side.resource for side in asked.values()}
    others = {name: [side for side in sides if side.resource != name] for name in peaks}
    mine = {name: _extreme(known, name, 1, []) for name in peaks}
    given = {name: _extreme(known, name, 1, others[name]) for name in peaks}
    lower = {side.resource for side in asked.values() if side.at_least is not None}
    most = {name: _extreme(known, name, -1, []) for name in lower}
    return replace(
        explanation,
        least={name: value for name, value in explanation.least.items() if name not in asked} | mine,
        least_given_others={n: value for n, value in explanation.least_given_others.items() if n not in asked} | given,
        most={name: value for name, value in explanation.most.items() if name not in asked} | most,
        conflict=tuple(asked.get(budget.resource, budget) for budget in explanation.conflict),
        relaxations=tuple(
            _relaxation(known, side, [each for each in sides if each is not side])
            if (side := asked.get(relaxation.budget.resource)) is not None
            else relaxation
            for relaxation in explanation.relaxations
        ),
    )


def _extreme(known: "Snapshot", resource: str, sign: int, others: Sequence[Budget]) -> float | None:
    """Least (sign 1) or most (sign -1) that a network is found to take within other limits; None if none is found."""
    tables = [mine[resource] for mine in known.cost_tables.values()]
    values = sorted({value for table in tables for row in (*table.block, (table.fixed,)) for value in row})
    values = values if sign > 0 else values[::-1]
    low, high = 0, len(values)
    while low < high:  # the first that some network keeps to
        middle = (low + high) // 2
        bound = {"at_most": values[middle]} if sign > 0 else {"at_least": values[middle]}
        problem = known.problem_of_most(None, (*others, Budget(resource=resource, **bound)))
        if Session(problem).top_k(1, 1, Effort.seconds(known.config.select.time_limit_s)).selections:
            high = middle
        else:
            low = middle + 1
    return values[low] if low < len(values) else None


def _relaxation(known: "Snapshot", side: Budget, others: Sequence[Budget]) -> Relaxation:
    reach = _extreme(known, side.resource, sign_of(side), others)
    return relaxed(side, None if reach is None else exact(reach))
