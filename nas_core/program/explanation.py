"""Why no network is within the limits: what is attainable, which limits collide, what the cheapest way out is."""

import itertools
import time
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from nas_core.program.answers import Effort
from nas_core.program.exact import exact
from nas_core.program.limits import format_amount
from nas_core.program.problem import Budget, Objective, SelectionProblem, Table
from nas_core.program.result import Explanation, Relaxation, Status
from nas_core.program.session import Session

LEAST_TIME_S = 5.0  # for an explanation, whatever the solve has spent
MAX_EXHAUSTIVE = 10  # limits up to which the smallest collision is looked for among all subsets


def explain(problem: SelectionProblem, *, time_limit_s: float = 60.0, is_infeasible: bool = False) -> Explanation:
    """The explanation of an infeasible problem; of a feasible one it says what is attainable.

    Least totals are over all resolutions, and exact unless the time runs out:
    then they are attained, and perhaps not the least. ``is_infeasible``: the
    caller has proven that the limits collide.
    """
    finder = _Finder(problem, time.monotonic() + time_limit_s)
    sides = [side for budget in problem.budgets for side in budget.sides()]
    resources = list(dict.fromkeys(budget.resource for budget in problem.budgets))
    others = {name: [side for side in sides if side.resource != name] for name in resources}
    return Explanation(
        least={name: _float(finder.extreme(name, 1, [])) for name in resources},
        least_given_others={name: _float(finder.extreme(name, 1, others[name])) for name in resources},
        most={
            side.resource: _float(finder.extreme(side.resource, -1, [])) for side in sides if side.at_least is not None
        },
        conflict=finder.conflict(sides, is_infeasible),
        relaxations=tuple(finder.relaxation(side, [s for s in sides if s is not side]) for side in sides),
    )


def explain_infeasible(problem: SelectionProblem, effort: Effort) -> Explanation:
    """The explanation of a problem proven infeasible, in the time that its solve left."""
    return explain(problem, time_limit_s=max(effort.left_s, LEAST_TIME_S), is_infeasible=True)


def _float(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


class _Finder:
    """Solves small questions about attainable totals."""

    def __init__(self, problem: SelectionProblem, deadline: float) -> None:
        self.problem, self.deadline = problem, deadline

    def extreme(self, resource: str, sign: int, budgets: Iterable[Budget]) -> Fraction | None:
        """Least (sign 1) or most (sign -1) attainable total within other limits; None if there is none."""
        problem = _minimising(self.problem, resource, sign).with_budgets(budgets)
        result = Session(problem).top_k(1, 1, Effort.seconds(max(self.deadline - time.monotonic(), 0.1)))
        return None if not result.selections else exact(result.best.costs[resource])

    def is_feasible(self, budgets: Iterable[Budget]) -> bool:
        """Whether some network is within these limits; True as long as the contrary is not proven."""
        tables = tuple(replace(table, score=_zeros(table)) for table in self.problem.tables)
        problem = _on_tables(self.problem, tables).with_budgets(budgets)
        result = Session(problem).top_k(1, 1, Effort.seconds(max(self.deadline - time.monotonic(), 0.1)))
        return result.status is not Status.INFEASIBLE

    def conflict(self, sides: list[Budget], is_infeasible: bool) -> tuple[Budget, ...]:
        """A smallest set of limits that collide; of many limits, one from which none can be left out."""
        if len(sides) <= MAX_EXHAUSTIVE:
            for size in range(len(sides) + 1):
                for subset in itertools.combinations(sides, size):
                    known = is_infeasible and size == len(sides)
                    if known or not self.is_feasible(subset):
                        return subset
            return ()
        kept = list(sides)
        for side in sides:
            without = [other for other in kept if other is not side]
            if not self.is_feasible(without):
                kept = without
        return tuple(kept)

    def relaxation(self, side: Budget, others: list[Budget]) -> Relaxation:
        sign = 1 if side.at_most is not None else -1
        bound = side.at_most if side.at_most is not None else side.at_least
        assert bound is not None, "one side is given"
        reach = self.extreme(side.resource, sign, others)
        if reach is None:
            return Relaxation(budget=side, by=None, text=f"{side}: no change of it alone is enough")
        by = float(max(Fraction(0), (reach - exact(float(bound))) * sign))
        return Relaxation(budget=side, by=by, text=format_amount(side.resource, sign * by, sign=True))


def _minimising(problem: SelectionProblem, resource: str, sign: int) -> SelectionProblem:
    tables = tuple(
        replace(
            table,
            score=tuple(tuple(-sign * cost for cost in row) for row in table.costs[resource]),
            base_score=-sign * table.base_costs.get(resource, 0.0),
        )
        for table in problem.tables
    )
    return _on_tables(problem, tables)


def _zeros(table: Table) -> tuple[tuple[float, ...], ...]:
    return tuple((0.0,) * count for count in table.num_choices)


def _on_tables(problem: SelectionProblem, tables: tuple[Table, ...]) -> SelectionProblem:
    """The same limits and rules on other tables, with an additive objective and no pair terms."""
    if problem.resolutions:
        return replace(problem, resolutions=tables, objective=Objective(), pairs={})
    table = tables[0]
    return replace(
        problem,
        score=table.score,
        base_score=table.base_score,
        costs=table.costs,
        base_costs=table.base_costs,
        objective=Objective(),
        pairs={},
    )
