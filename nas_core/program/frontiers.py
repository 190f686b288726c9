"""Exact frontiers: every network that no other beats on value and on one (or two) resources.

Where only one limit-free resource matters, the frontier is built position by
position, keeping what is not dominated (vectorised). Else by steps: solve, find
the cheapest network of that value, then demand strictly less; every point is
proven. Two resources: the frontier of the first under ever tighter limits on the second.
"""

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from nas_core.errors import ConfigError
from nas_core.program.additive import Effort
from nas_core.program.exact import Value, evaluate
from nas_core.program.linear import Floats, Ints, TableProgram
from nas_core.program.problem import Budget, SelectionProblem, Table
from nas_core.program.relaxation import FLOAT_ERROR
from nas_core.program.result import Selection, Status
from nas_core.program.selection import TIME_LIMIT_S, Session
from nas_core.program.verification import selection_of, verify
from nas_core.space import Genotype

MAX_STATES = 2_000_000  # partial networks of the position-by-position route


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """``points``: by the first resource ascending; value rises with it where there is one resource.

    ``status`` is OPTIMAL if every point and the absence of others are proven,
    FEASIBLE if the time ran out (points found so far are proven), INFEASIBLE if no network is allowed.
    """

    resources: tuple[str, ...]
    points: tuple[Selection, ...]
    status: Status
    solve_s: float
    route: str


def frontier(problem: SelectionProblem, resource: str, *, time_limit_s: float = TIME_LIMIT_S) -> Frontier:
    """The exact frontier of the objective's value (up) against one resource (down), within the problem's limits.

    Of networks equal in both, one is listed.

    Raises:
        ConfigError: if the problem has no such resource.
    """
    _check_resource(problem, resource)
    started = time.monotonic()
    if problem.objective.is_additive and not (problem.budgets or problem.rules or problem.pairs or problem.forbidden):
        points = _by_positions(problem, resource)
        if points is not None:
            return Frontier(
                resources=(resource,),
                points=points,
                status=Status.OPTIMAL,
                solve_s=time.monotonic() - started,
                route="position by position",
            )
    points, status = _by_steps(problem, resource, started + time_limit_s)
    return Frontier(
        resources=(resource,), points=points, status=status, solve_s=time.monotonic() - started, route="steps"
    )


def frontier2(problem: SelectionProblem, first: str, second: str, *, time_limit_s: float = TIME_LIMIT_S) -> Frontier:
    """The exact frontier of the objective's value against two resources.

    By value descending: solve; list the best network that no listed one dominates; and
    exclude what it dominates by splitting the rest into "less of the first" and "less of the second".

    Raises:
        ConfigError: if the problem lacks one of the resources.
    """
    for resource in (first, second):
        _check_resource(problem, resource)
    started = time.monotonic()
    deadline = started + time_limit_s
    points, status = _by_boxes(problem, (first, second), deadline)
    ordered = sorted(points, key=lambda s: (s.costs[first], s.costs[second]))
    return Frontier(
        resources=(first, second),
        points=tuple(ordered),
        status=status,
        solve_s=time.monotonic() - started,
        route="boxes",
    )


def _check_resource(problem: SelectionProblem, resource: str) -> None:
    if resource not in problem.resources:
        raise ConfigError("frontier", repr(resource), f"one of {', '.join(problem.resources) or 'none'}")


def _by_positions(problem: SelectionProblem, resource: str) -> tuple[Selection, ...] | None:
    """All points by dominance, position by position; None if there are too many partial networks."""
    found: list[tuple[Fraction, Value, Genotype]] = []
    for table in problem.tables:
        networks = _undominated(TableProgram(problem, table), table, resource)
        if networks is None:
            return None
        for choices in networks:
            totals = evaluate(problem, genotype := Genotype(choices, table.resolution))
            found.append((totals.costs[resource], totals.value, genotype))
    found.sort(key=lambda item: (item[0], -item[1], item[2].choices))
    points: list[Selection] = []
    best: Value | None = None
    for _, value, genotype in found:
        if best is None or value > best:
            best = value
            points.append(verify(problem, selection_of(problem, genotype)))
    return tuple(points)


def _undominated(program: TableProgram, table: Table, resource: str) -> list[tuple[int, ...]] | None:
    """The choices of every network that may be on the table's frontier; floats decide with a margin."""
    assert program.columns is not None, "there are no rules"
    costs = program.integers(resource)
    if not costs.is_exact:
        return None
    score, cost, starts = program.score_F, costs.flat, program.columns.starts_G1
    margin = FLOAT_ERROR * float(np.maximum.reduceat(np.abs(score), starts[:-1]).sum())
    value_S, cost_S = np.zeros(1), np.zeros(1, dtype=np.int64)
    trail: list[Ints] = []
    for low, high in itertools.pairwise(starts):
        count = int(high - low)
        if len(value_S) * count > MAX_STATES:
            return None
        value_N = (value_S[:, None] + score[None, low:high]).ravel()
        cost_N = (cost_S[:, None] + cost[None, low:high]).ravel()
        kept = _pareto(value_N, cost_N, margin)
        value_S, cost_S = value_N[kept], cost_N[kept]
        trail.append(np.stack(np.divmod(kept, count)))
    return _spell(trail, len(value_S))


def _pareto(value_N: Floats, cost_N: Ints, margin: float) -> Ints:
    """Indices, by cost, of the entries that no cheaper one beats by the margin."""
    order = np.lexsort((-value_N, cost_N))
    value = value_N[order]
    before = np.concatenate([[-np.inf], np.maximum.accumulate(value)[:-1]])
    return order[value > before - margin] if margin > 0 else order[value > before]


def _spell(trail: list[Ints], count: int) -> list[tuple[int, ...]]:
    state, choices = np.arange(count), []
    for parent, choice in reversed(trail):
        choices.append(choice[state])
        state = parent[state]
    return [tuple(map(int, row)) for row in np.stack(choices[::-1], axis=1)]


def _by_steps(problem: SelectionProblem, resource: str, deadline: float) -> tuple[tuple[Selection, ...], Status]:
    points: list[Selection] = []
    limits = problem.budgets
    session = Session(problem)
    while True:
        answer = session.with_problem(problem.with_budgets(limits)).top_k(1, 1, _effort(deadline))
        if answer.status is Status.INFEASIBLE:
            break
        if answer.status is not Status.OPTIMAL:
            return tuple(reversed(points)), Status.FEASIBLE
        point = answer.best
        if points and point.value == points[-1].value:
            points.pop()  # as good and cheaper
        points.append(point)
        limits = (*problem.budgets, _less(problem, resource, point))
    return tuple(reversed(points)), Status.OPTIMAL if points else Status.INFEASIBLE


def _effort(deadline: float) -> Effort:
    return Effort.seconds(max(deadline - time.monotonic(), 0.01))


def _less(problem: SelectionProblem, resource: str, point: Selection) -> Budget:
    """Strictly less of a resource than a network has, in the smallest unit of the tables."""
    total = evaluate(problem, point.genotype).costs[resource]
    return Budget(resource=resource, at_most=_float_below(total))


def _float_below(total: Fraction) -> float:
    """The largest float whose decimal is below an exact total."""
    value = float(total)
    return float(np.nextafter(value, -np.inf)) if Fraction(repr(value)) >= total else value


def _by_boxes(problem: SelectionProblem, resources: tuple[str, str], deadline: float) -> tuple[list[Selection], Status]:
    """Boxes below (limit, limit), each solved once."""
    session, points = Session(problem), dict[str, Selection]()
    seen: set[tuple[Budget, ...]] = set()
    boxes: list[tuple[Budget, ...]] = [()]
    while boxes:
        box = boxes.pop()
        if box in seen:
            continue
        seen.add(box)
        answer = session.with_problem(problem.with_budgets((*problem.budgets, *box))).top_k(1, 1, _effort(deadline))
        if answer.status is Status.INFEASIBLE:
            continue
        if answer.status is not Status.OPTIMAL:
            return _undominated_points(problem, points.values(), resources), Status.FEASIBLE
        points[str(answer.best.genotype)] = answer.best
        for resource in resources:
            less = _less(problem, resource, answer.best)
            others = [b for b in box if b.resource != resource]
            boxes.append(tuple(sorted([*others, less], key=lambda b: b.resource)))
    kept = _undominated_points(problem, points.values(), resources)
    return kept, Status.OPTIMAL if kept else Status.INFEASIBLE


def _undominated_points(
    problem: SelectionProblem, points: Iterable[Selection], resources: tuple[str, str]
) -> list[Selection]:
    """Points that no other beats in value and both resources, exactly; of equal ones the first."""
    listed = list(points)
    vectors = []  # larger is better in every place
    for point in listed:
        totals = evaluate(problem, point.genotype)
        vectors.append((totals.value, *(-totals.costs[name] for name in resources)))
    return [
        point
        for i, (point, own) in enumerate(zip(listed, vectors, strict=True))
        if not any(_beats(other, own, j < i) for j, other in enumerate(vectors) if j != i)
    ]


def _beats(other: tuple[Value, ...], own: tuple[Value, ...], is_first: bool) -> bool:
    """Whether a vector is nowhere below another, and above it somewhere or listed before it."""
    return all(x >= y for x, y in zip(other, own, strict=True)) and (other != own or is_first)
