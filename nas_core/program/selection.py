"""``solve`` and ``top_k`` answer a problem; ``WhatIf`` keeps it ready for other limits."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from nas_core.program.answers import Effort
from nas_core.program.exact import selection_of
from nas_core.program.explanation import explain_infeasible, idle_limits
from nas_core.program.problem import Budget, SelectionProblem
from nas_core.program.result import Selection, SelectionResult, Status
from nas_core.program.session import Session
from nas_core.space.genotypes import Genotype

TIME_LIMIT_S = 60.0
FINISH, MOST_KEPT = 1.0, 0.2  # of what preparing took, and of the time, is kept for ending: both grow with the tables
NEARLY_OVER = 0.3  # of the time: with less left, time is what was short


def solve(
    problem: SelectionProblem, *, time_limit_s: float = TIME_LIMIT_S, workers: int = 1, seed: int = 0
) -> SelectionResult:
    """The best network of the problem, with what is proven about it.

    Infeasible problems are answered with an explanation, not an error. The limit holds for both together.
    """
    return top_k(problem, 1, time_limit_s=time_limit_s, workers=workers, seed=seed)


def top_k(
    problem: SelectionProblem,
    k: int,
    *,
    min_distance: int = 1,
    time_limit_s: float = TIME_LIMIT_S,
    workers: int = 1,
    seed: int = 0,
    tell: Callable[[int], None] | None = None,
) -> SelectionResult:
    """The best network, then the best at least ``min_distance`` places from those before it, k in all.

    A place is a position; another resolution counts as one. Networks of equal value come in the order of their
    choices, as numbers; where one is asked for, it is any of the best. Fewer than k if there are no more, which is
    then proven as well.
    ``tell`` is called now and then with the number of ranks proven so far.
    """
    effort = Effort.seconds(time_limit_s, workers, seed)
    if tell is not None:
        effort = replace(effort, tell=tell)
    return _answered(lambda: Session(problem), problem, k, min_distance, effort, time_limit_s)


class WhatIf:
    """Answers one problem under other limits; tables are read and rules applied once.

    >>> problem = SelectionProblem(score=((0.0, 1.0),), costs={"ms": ((1.0, 5.0),)})
    >>> str(WhatIf(problem).select([Budget(resource="ms", at_most=4.0)]).best.genotype)
    '0'
    """

    def __init__(self, problem: SelectionProblem) -> None:
        self.problem = problem
        self._session = Session(problem)

    def evaluate(self, genotype: Genotype) -> Selection:
        """One network's value and costs, whether or not it is within the limits.

        Raises:
            KeyError: for a resolution that the problem does not have.
        """
        return selection_of(self.problem, genotype)

    def select(
        self,
        budgets: Iterable[Budget],
        *,
        k: int = 1,
        min_distance: int = 1,
        time_limit_s: float = TIME_LIMIT_S,
        workers: int = 1,
        seed: int = 0,
    ) -> SelectionResult:
        """What ``top_k`` answers with these limits in place of the problem's."""
        problem, effort = self.problem.with_budgets(budgets), Effort.seconds(time_limit_s, workers, seed)
        return _answered(lambda: self._session.with_problem(problem), problem, k, min_distance, effort, time_limit_s)


def _answered(
    session: Callable[[], Session],
    problem: SelectionProblem,
    k: int,
    min_distance: int,
    effort: Effort,
    time_limit_s: float,
) -> SelectionResult:
    started = time.monotonic()
    prepared = session()
    kept_s = min(FINISH * (time.monotonic() - started), MOST_KEPT * time_limit_s)
    result = prepared.top_k(k, min_distance, replace(effort, deadline=effort.deadline - kept_s))
    if result.status is Status.INFEASIBLE:
        result = replace(result, explanation=explain_infeasible(problem, effort))
    notes = [*_cut_off(result, k, effort, time_limit_s), *idle_limits(problem)]
    return replace(result, solve_s=time.monotonic() - started, notes=tuple(notes))


def _cut_off(result: SelectionResult, k: int, effort: Effort, time_limit_s: float) -> list[str]:
    """Which ranks are proven, where not all are."""
    if k == 1 or result.status is not Status.FEASIBLE:
        return []
    proven = {0: "No rank", 1: "Rank 1"}.get(result.num_proven, f"Ranks 1 to {result.num_proven}")
    verb = "are" if result.num_proven > 1 else "is"
    is_late = effort.left_s < NEARLY_OVER * time_limit_s
    why = f"the time limit of {time_limit_s:g} s" if is_late else "the size of the search"
    return [f"{proven} of {k} {verb} proven; {why} cut off the rest."]
