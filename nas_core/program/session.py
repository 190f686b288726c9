"""A problem prepared once, answering any number of questions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from nas_core.program.answers import Answer, Effort
from nas_core.program.checker import verify
from nas_core.program.exact import selection_of
from nas_core.program.problem import SelectionProblem
from nas_core.program.result import Selection, SelectionResult, Status
from nas_core.program.routes import TableSolver
from nas_core.space import Genotype


@dataclass
class _Candidate:
    """The best network left of one table."""

    answer: Answer
    selection: Selection | None
    key: object


class Session:
    """A problem prepared once, answering any number of questions."""

    def __init__(self, problem: SelectionProblem) -> None:
        self.problem = problem
        self.solvers = [TableSolver(problem, table) for table in problem.tables]

    def with_problem(self, problem: SelectionProblem) -> "Session":
        """The same tables and rules under other limits; nothing is prepared again."""
        session = object.__new__(Session)
        session.problem = problem
        session.solvers = [solver.with_problem(problem) for solver in self.solvers]
        return session

    def top_k(self, k: int, min_distance: int, effort: Effort) -> SelectionResult:
        started = time.monotonic()
        chosen: list[Selection] = []
        candidates: dict[int, _Candidate] = {}
        routes: dict[str, None] = {}
        while True:
            self._refresh(candidates, chosen, min_distance, effort)
            best, status, bound = self._best(candidates)
            if best is None:
                break
            chosen.append(verify(self.problem, best))
            routes |= {candidate.answer.route: None for candidate in candidates.values()}
            if len(chosen) == k or status is not Status.OPTIMAL:
                break
        if chosen and best is None and status is Status.INFEASIBLE:  # fewer than k exist, and that is proven
            status, bound = Status.OPTIMAL, chosen[-1].value
        if chosen and status is Status.STOPPED:
            status = Status.FEASIBLE
        value = chosen[-1].value if chosen else -float("inf")
        gap = max(0.0, bound - value) if chosen else (0.0 if status is Status.INFEASIBLE else float("inf"))
        return SelectionResult(
            status=status,
            selections=tuple(chosen),
            bound=bound,
            gap=gap,
            solve_s=time.monotonic() - started,
            route="; ".join(routes) or "relaxation",
        )

    def _refresh(
        self, candidates: dict[int, _Candidate], chosen: Sequence[Selection], min_distance: int, effort: Effort
    ) -> None:
        """Solve the tables whose best network is unknown or too near to the last chosen one.

        Tables come by the bound of their relaxation; those whose bound is below the best network are left.
        """
        order = sorted(range(len(self.solvers)), key=lambda i: -self.solvers[i].bound())
        for i in order:
            candidate, solver = candidates.get(i), self.solvers[i]
            if candidate is not None and not self._is_stale(candidate, chosen, min_distance):
                continue
            incumbent = max(
                (
                    c.selection.value
                    for c in candidates.values()
                    if c.selection is not None and not self._is_stale(c, chosen, min_distance)
                ),
                default=-float("inf"),
            )
            if solver.bound() < incumbent:
                candidates.pop(i, None)
                continue
            answer = solver.best([s.genotype for s in chosen], min_distance, effort)
            if answer.choices is None:
                candidates[i] = _Candidate(answer, None, None)
                continue
            genotype = Genotype(answer.choices, solver.table.resolution)
            candidates[i] = _Candidate(answer, selection_of(self.problem, genotype), solver.key(answer.choices))

    @staticmethod
    def _is_stale(candidate: _Candidate, chosen: Sequence[Selection], min_distance: int) -> bool:
        if candidate.selection is None or not chosen:
            return False
        return not is_apart(candidate.selection.genotype, chosen[-1].genotype, min_distance)

    def _best(self, candidates: dict[int, _Candidate]) -> tuple[Selection | None, Status, float]:
        """The best candidate, what is proven about it, and a bound on every network left."""
        found = [c for c in candidates.values() if c.selection is not None]
        open_bounds = [c.answer.bound for c in candidates.values() if not c.answer.status.is_proven]
        if not found:
            status = Status.STOPPED if open_bounds else Status.INFEASIBLE
            return None, status, max(open_bounds, default=-float("inf"))
        top = max(found, key=lambda c: (c.key,))
        assert top.selection is not None
        bound = max([top.selection.value, *open_bounds])
        status = Status.OPTIMAL if bound <= top.selection.value else Status.FEASIBLE
        return top.selection, status, bound


def is_apart(genotype: Genotype, other: Genotype, min_distance: int) -> bool:
    """Whether two networks differ in ``min_distance`` places; another resolution counts as one place."""
    differs = genotype.resolution != other.resolution
    return genotype.distance(other) + differs >= min_distance
