"""Why no network is within the limits: what is attainable, which limits collide, what the cheapest way out is."""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from nas_core.program.answers import Effort
from nas_core.program.exact import evaluate, exact, is_within, row_total
from nas_core.program.limits import format_amount
from nas_core.program.problem import Budget, Objective, SelectionProblem, Table
from nas_core.program.result import Explanation, Relaxation, Status
from nas_core.program.session import Session

COLLISION_SHARE = 0.5  # of the time, for the limits that collide
MAX_SUBSETS = 2_000  # sets of limits looked at for a smaller collision


def explain(problem: SelectionProblem, *, time_limit_s: float = 60.0, is_infeasible: bool = False) -> Explanation:
    """The explanation of an infeasible problem; of a feasible one it says what is attainable.

    Least totals are over all resolutions, and exact unless the time runs out:
    then they are attained, and perhaps not the least. ``is_infeasible``: the
    caller has proven that the limits collide.
    """
    started = time.monotonic()
    finder = _Finder(problem, started + time_limit_s)
    sides = [side for budget in problem.budgets for side in budget.sides()]
    resources = list(dict.fromkeys(budget.resource for budget in problem.budgets))
    lower = [side.resource for side in sides if side.at_least is not None]
    others = {name: [side for side in sides if side.resource != name] for name in resources}
    finder.questions = 2 * len(resources) + len(lower) + len(sides)
    least = {name: _float(finder.extreme(name, 1, [])) for name in resources}
    most = {name: _float(finder.extreme(name, -1, [])) for name in lower}
    conflict, is_smallest = finder.conflict(sides, is_infeasible, started + COLLISION_SHARE * time_limit_s)
    return Explanation(
        least=least,
        least_given_others={name: _float(finder.extreme(name, 1, others[name])) for name in resources},
        most=most,
        conflict=conflict,
        is_smallest=is_smallest,
        relaxations=tuple(finder.relaxation(side, [s for s in sides if s is not side]) for side in sides),
    )


def explain_infeasible(problem: SelectionProblem, effort: Effort) -> Explanation:
    """The explanation of a problem proven infeasible, in the time that its solve left."""
    return explain(problem, time_limit_s=effort.left_s, is_infeasible=True)


def idle_limits(problem: SelectionProblem) -> list[str]:
    """A sentence for each limit that no network of the tables breaks, rules not applied."""
    notes = []
    for side in (side for budget in problem.budgets for side in budget.sides()):
        sign, pick = (1, max) if side.at_most is not None else (-1, min)
        reach = pick(_extreme_total(table, side.resource, pick) for table in problem.tables)
        bound = side.at_most if side.at_most is not None else side.at_least
        assert bound is not None, "one side is given"
        if sign * (reach - exact(float(bound))) <= 0:
            word = "most" if sign > 0 else "least"
            amount = format_amount(side.resource, float(reach))
            notes.append(f"{side} binds nothing: the {word} that any network has is {amount}.")
    return notes


def _extreme_total(table: Table, resource: str, pick: Callable[[tuple[float, ...]], float]) -> Fraction:
    best = [row.index(pick(row)) for row in table.costs[resource]]
    return row_total(table.costs[resource], best, table.base_costs.get(resource, 0.0))


def _float(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


class _Finder:
    """Solves small questions about attainable totals, each in its share of the time."""

    def __init__(self, problem: SelectionProblem, deadline: float) -> None:
        self.problem, self.deadline = problem, deadline
        self.questions = 1
        self._extremes: dict[tuple[str, int, tuple[Budget, ...]], tuple[Fraction | None, bool]] = {}
        tables = tuple(replace(table, score=_zeros(table)) for table in problem.tables)
        self._any = Session(_on_tables(problem, tables))
        self._witnesses: list[frozenset[Budget]] = []  # limits that one network meets together

    def _share(self) -> Effort:
        share = max(self.deadline - time.monotonic(), 0.0) / max(self.questions, 1)
        self.questions -= 1
        return Effort.seconds(share)

    def extreme(self, resource: str, sign: int, budgets: Iterable[Budget]) -> Fraction | None:
        """Least (sign 1) or most (sign -1) attainable total within other limits; None if there is none."""
        return self._extreme(resource, sign, tuple(budgets))[0]

    def _extreme(self, resource: str, sign: int, budgets: tuple[Budget, ...]) -> tuple[Fraction | None, bool]:
        """The total, and whether it is proven."""
        key = (resource, sign, budgets)
        effort = self._share()
        if key not in self._extremes and not budgets and not self.problem.rules and not self.problem.forbidden:
            pick: Callable[[tuple[float, ...]], float] = min if sign > 0 else max
            totals = [_extreme_total(table, resource, pick) for table in self.problem.tables]
            self._extremes[key] = (min(totals) if sign > 0 else max(totals)), True
        if key not in self._extremes and effort.left_s == 0:
            return None, False
        if key not in self._extremes:
            problem = _minimising(self.problem, resource, sign).with_budgets(budgets)
            result = Session(problem).top_k(1, 1, effort)
            total = evaluate(problem, result.best.genotype).costs[resource] if result.selections else None
            self._extremes[key] = total, result.status.is_proven
        return self._extremes[key]

    def collide(self, budgets: Sequence[Budget], deadline: float) -> bool | None:
        """Whether no network is within these limits; None if the time does not tell."""
        if any(set(budgets) <= met for met in self._witnesses):
            return False
        if time.monotonic() >= min(deadline, self.deadline):
            return None
        session = self._any.with_problem(self._any.problem.with_budgets(budgets))
        result = session.top_k(1, 1, Effort(deadline=min(deadline, self.deadline)))
        if result.status is Status.INFEASIBLE:
            return True
        if not result.selections:
            return None
        costs = evaluate(self.problem, result.best.genotype).costs
        sides = [side for budget in self.problem.budgets for side in budget.sides()]
        self._witnesses.append(frozenset(side for side in sides if is_within(side, costs[side.resource])))
        return False

    def conflict(self, sides: list[Budget], is_infeasible: bool, deadline: float) -> tuple[tuple[Budget, ...], bool]:
        """Limits that collide, and whether no smaller set of limits does; empty if none are known to."""
        if not is_infeasible and not self.collide(sides, deadline):
            return (), True
        kept, is_smallest = list(sides), True
        for i, side in enumerate(sides):  # until none can be left out
            without = [other for other in kept if other is not side]
            answer = self.collide(without, _slice(deadline, len(sides) - i))
            if answer:
                kept = without
            is_smallest &= answer is not None
        looked = 0
        for size in range(len(kept)):
            for subset in itertools.combinations(sides, size):
                if any(set(subset) <= met for met in self._witnesses):
                    continue
                if time.monotonic() > deadline or looked > MAX_SUBSETS:
                    return tuple(kept), False
                looked += 1
                answer = self.collide(subset, _slice(deadline, 4))
                if answer:
                    return subset, is_smallest
                is_smallest &= answer is not None
        return tuple(kept), is_smallest

    def relaxation(self, side: Budget, others: list[Budget]) -> Relaxation:
        reach, is_proven = self._extreme(side.resource, sign_of(side), tuple(others))
        if reach is None and not is_proven:
            return Relaxation(budget=side, by=None, text=f"{side}: the time was too short to tell")
        return relaxed(side, reach, is_proven)


def sign_of(side: Budget) -> int:
    """1 for an upper limit, which the least attainable total is held against; -1 for a lower one."""
    return 1 if side.at_most is not None else -1


def relaxed(side: Budget, reach: Fraction | None, is_proven: bool = True) -> Relaxation:
    """How far ``side`` has to move to admit ``reach``, the nearest attainable total; not proven, less may be enough."""
    if reach is None:
        return Relaxation(budget=side, by=None, text=f"{side}: no change of it alone is enough")
    bound = side.at_most if side.at_most is not None else side.at_least
    assert bound is not None, "one side is given"
    by = float(max(Fraction(0), (reach - exact(float(bound))) * sign_of(side)))
    text = format_amount(side.resource, sign_of(side) * by, sign=True)
    return Relaxation(budget=side, by=by, text=text if is_proven else f"{text} or less")


def _slice(deadline: float, parts: int) -> float:
    """The end of one of several parts of the time to a deadline."""
    now = time.monotonic()
    return now + max(deadline - now, 0.0) / parts


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
