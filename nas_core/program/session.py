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
from nas_core.space.genotypes import Genotype

PER_APART = 20  # networks listed for each one wanted, where they must be apart
MAX_LISTED = 5_000


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
        chosen, is_all, route = self._listed(k, min_distance, effort) if k > 1 else ([], False, "")
        candidates: dict[int, _Candidate] = {}
        routes: dict[str, None] = {route: None} if chosen else {}
        best: Selection | None = None
        status, bound = (Status.OPTIMAL, chosen[-1].value) if chosen else (Status.INFEASIBLE, -float("inf"))
        while len(chosen) < k and not is_all:
            if chosen and effort.left_s == 0:  # those found are proven, further ones were not looked for
                status, routes = Status.FEASIBLE, routes | {f"stopped after {len(chosen)} of {k}": None}
                break
            self._refresh(candidates, chosen, min_distance, effort)
            best, status, bound = self._best(candidates)
            if best is None:
                break
            chosen.append(verify(self.problem, best))
            routes |= {candidate.answer.route: None for candidate in candidates.values()}
            if status is not Status.OPTIMAL:
                break
        if chosen and status is Status.INFEASIBLE:  # fewer than k exist, and that is proven
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
            route="; ".join(routes) or "limits and rules",
        )

    def _listed(self, k: int, min_distance: int, effort: Effort) -> tuple[list[Selection], bool, str]:
        """The first networks of the answer where they can be listed in order, whether there are no others, and how."""
        wanted = k if min_distance == 1 else min(k * PER_APART, MAX_LISTED)
        rankings = []
        for solver in self.solvers:
            ranking = solver.ranking(max(k, wanted), effort)
            if ranking is None:
                return [], False, ""
            rankings.append((solver.table.resolution, ranking))
        floor = max(ranking.floor for _, ranking in rankings)
        rows = [(key, Genotype(choices, label)) for label, ranking in rankings for key, choices in ranking.networks]
        rows.sort(key=lambda row: row[1])
        chosen: list[Selection] = []
        for key, genotype in sorted(rows, key=lambda row: row[0], reverse=True):
            if key < floor:  # an unlisted network may be better
                break
            if min_distance == 1 or all(is_apart(genotype, other.genotype, min_distance) for other in chosen):
                chosen.append(verify(self.problem, selection_of(self.problem, genotype)))
                if len(chosen) == k:
                    break
        return chosen, floor == -float("inf"), rankings[0][1].route

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
        # a bound that equals the value says nothing: it may round a better network away
        is_proven = top.answer.status.is_proven and all(bound < top.selection.value for bound in open_bounds)
        status = Status.OPTIMAL if is_proven else Status.FEASIBLE
        return top.selection, status, max([top.selection.value, *open_bounds])


def is_apart(genotype: Genotype, other: Genotype, min_distance: int) -> bool:
    """Whether two networks differ in ``min_distance`` places; another resolution counts as one place."""
    differs = genotype.resolution != other.resolution
    return genotype.distance(other) + differs >= min_distance
