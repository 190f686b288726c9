"""A problem kept ready: other limits are answered in milliseconds, in one process."""

import time
from collections.abc import Iterable
from dataclasses import replace

from nas_core.program.additive import Effort
from nas_core.program.explanation import explain_infeasible
from nas_core.program.problem import Budget, SelectionProblem
from nas_core.program.result import Selection, SelectionResult, Status
from nas_core.program.selection import TIME_LIMIT_S, Session
from nas_core.program.verification import selection_of
from nas_core.space.genotypes import Genotype


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
        started = time.monotonic()
        problem = self.problem.with_budgets(budgets)
        effort = Effort.seconds(time_limit_s, workers, seed)
        result = self._session.with_problem(problem).top_k(k, min_distance, effort)
        if result.status is Status.INFEASIBLE:
            result = replace(result, explanation=explain_infeasible(problem, effort))
        return replace(result, solve_s=time.monotonic() - started)
