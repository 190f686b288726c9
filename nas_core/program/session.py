"""A problem prepared once, answering any number of questions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nas_core.program.answers import Answer, Effort
from nas_core.program.checker import verifier
from nas_core.program.exact import evaluate, rounded_up, selection_of
from nas_core.program.problem import SelectionProblem
from nas_core.program.result import Selection, SelectionResult, Status
from nas_core.program.routes import TableSolver
from nas_core.space.genotypes import Genotype

PER_APART = 20  # networks listed for each one wanted, where they must be apart
MAX_LISTED = 20_000
EVALUATIONS = 4  # that a network listed costs: it is judged, evaluated and verified
MOST_RESERVED = 0.5  # of the time, for evaluating what is listed


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """What a listing gave of an answer.

    ``proven``: its first networks. ``rest``: good ones, of which others may come before. ``bound``: no network
    but the proven ones is worth more. ``is_all``: no other network belongs to the answer.
    """

    proven: tuple[Selection, ...] = ()
    rest: tuple[Selection, ...] = ()
    bound: float = float("inf")
    is_all: bool = False
    route: str = ""


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
        self._verified = verifier(problem)

    def with_problem(self, problem: SelectionProblem) -> "Session":
        """The same tables and rules under other limits; nothing is prepared again."""
        session = object.__new__(Session)
        session.problem = problem
        session.solvers = [solver.with_problem(problem) for solver in self.solvers]
        session._verified = verifier(problem)
        return session

    def top_k(self, k: int, min_distance: int, effort: Effort) -> SelectionResult:
        """The best network, then the best at least ``min_distance`` places from those before it, k in all.

        They come from one listing in order where that is possible, else from a program for each.
        """
        started = time.monotonic()
        listed = self._listed(k, min_distance, effort) if k > 1 else _Listed()
        chosen, rest, bound = list(listed.proven), listed.rest, listed.bound
        routes = dict.fromkeys(filter(None, [listed.route]))
        status = Status.OPTIMAL if len(chosen) == k else Status.INFEASIBLE if listed.is_all else Status.STOPPED
        if status is Status.STOPPED and not (chosen and rest):
            status, another, bound = self._one_by_one(chosen, bound, k, min_distance, effort, routes)
            found = {s.genotype: s for s in rest if s not in chosen}
            rest = tuple((found | ({another.genotype: another} if another is not None else {})).values())
        num_proven = len(chosen)
        if status is not Status.OPTIMAL and status is not Status.INFEASIBLE:
            chosen += sorted(rest, key=lambda s: s.value, reverse=True)[: k - num_proven]
            status = Status.FEASIBLE if chosen else Status.STOPPED
        elif chosen:  # k, or all there are
            status, bound = Status.OPTIMAL, chosen[-1].value
        open_value = chosen[min(num_proven, len(chosen) - 1)].value if chosen else -float("inf")
        gap = max(0.0, bound - open_value) if chosen else (0.0 if status is Status.INFEASIBLE else float("inf"))
        return SelectionResult(
            status=status,
            selections=tuple(chosen),
            num_proven=num_proven,
            bound=bound,
            gap=0.0 if status is Status.OPTIMAL else gap,
            solve_s=time.monotonic() - started,
            route="; ".join(routes) or "limits and rules",
        )

    def _one_by_one(
        self, chosen: list[Selection], bound: float, k: int, min_distance: int, effort: Effort, routes: dict[str, None]
    ) -> tuple[Status, Selection | None, float]:
        """Append the next best networks, each proven, until there are k, or no others, or the time is over.

        ``bound`` holds for all but those chosen so far. Returns OPTIMAL, INFEASIBLE or what came of the next one,
        that one if it was found but not proven, and a bound on all but the chosen.
        """
        candidates: dict[int, _Candidate] = {}
        while len(chosen) < k:
            if chosen and effort.left_s == 0:
                return Status.STOPPED, None, bound
            effort.tell(len(chosen))
            self._refresh(candidates, chosen, min_distance, effort)
            best, status, bound = self._best(candidates)
            routes |= {candidate.answer.route: None for candidate in candidates.values()}
            if best is not None:
                best = self._verified(best)
            if status is not Status.OPTIMAL:
                return status, best, bound
            assert best is not None, "it is optimal"
            chosen.append(best)
            bound = best.value
        return Status.OPTIMAL, None, bound

    def _listed(self, k: int, min_distance: int, effort: Effort) -> _Listed:
        """What one listing of networks in order gives of the answer."""
        wanted = k if min_distance == 1 else max(k, min(k * PER_APART, MAX_LISTED))
        reserved_s = min(MOST_RESERVED * effort.left_s, k * self._seconds_each())
        search = replace(effort, deadline=effort.deadline - reserved_s)
        if len(self.solvers) > 1 or min_distance > 1:  # ranks of a table are no ranks of the answer
            search = replace(search, tell=lambda num_proven: None)
        rankings = []
        for i, solver in enumerate(self.solvers):
            ranking = solver.ranking(wanted, search.share(1 / (len(self.solvers) - i)))
            if ranking is None:
                return _Listed()
            rankings.append((solver.table.resolution, ranking))
        floor = max(ranking.floor for _, ranking in rankings)
        rows = [(key, Genotype(choices, label)) for label, ranking in rankings for key, choices in ranking.networks]
        if len(rankings) > 1:
            rows.sort(key=lambda row: (row[1].choices, row[1].resolution or 0))
            rows = sorted(rows, key=lambda row: row[0], reverse=True)[:wanted]
        is_all = floor == -float("inf") and len(rows) < wanted
        num_proven = sum(key > floor for key, _ in rows)
        proven = self._apart([genotype for _, genotype in rows[:num_proven]], k, min_distance)
        selections = self._selections(proven, effort.deadline)
        route = rankings[0][1].route
        if len(selections) < len(proven):  # the time is over: what was listed and not evaluated is left
            next_value = rounded_up(evaluate(self.problem, proven[len(selections)]).value)
            return _Listed(proven=selections, bound=next_value, route=route)
        rest = [genotype for _, genotype in rows[num_proven:]] if min_distance == 1 else []
        return _Listed(
            proven=selections,
            rest=self._selections(rest, effort.deadline),
            bound=min(float("inf"), rounded_up(floor)),
            is_all=is_all,
            route=route,
        )

    def _seconds_each(self) -> float:
        """How long it takes to evaluate and verify one network, about."""
        genotype = Genotype((0,) * self.problem.num_positions, self.problem.tables[0].resolution)
        started = time.monotonic()
        for _ in range(5):
            evaluate(self.problem, genotype)
        return EVALUATIONS * (time.monotonic() - started) / 5

    def _selections(self, genotypes: Sequence[Genotype], deadline: float) -> tuple[Selection, ...]:
        """The networks with their values, verified; until the deadline."""
        selections = []
        for genotype in genotypes:
            selections.append(self._verified(selection_of(self.problem, genotype)))
            if time.monotonic() > deadline:
                break
        return tuple(selections)

    @staticmethod
    def _apart(genotypes: Sequence[Genotype], k: int, min_distance: int) -> list[Genotype]:
        """The first, and of those after it the ones that are apart from all before; k at most."""
        if min_distance == 1:
            return list(genotypes[:k])
        apart: list[Genotype] = []
        for genotype in genotypes:
            if len(apart) < k and all(is_apart(genotype, other, min_distance) for other in apart):
                apart.append(genotype)
        return apart

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
