"""Exact frontiers: every network that no other beats on value and on one or two resources.

Few networks: look at all of them. No limits and an additive objective: position
by position, keeping what is not dominated. Else by steps: solve, then demand
strictly less of a resource, so that every point is proven. Whatever the route, floats
only discard what is dominated by a margin; exact arithmetic decides the rest.
"""

import bisect
import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from nas_core.base.errors import ConfigError
from nas_core.program.answers import Effort
from nas_core.program.checker import verifier
from nas_core.program.exact import evaluate, exact, selection_of
from nas_core.program.linear import Floats, Ints, TableProgram, flatten
from nas_core.program.problem import Budget, SelectionProblem
from nas_core.program.relaxation import FLOAT_ERROR
from nas_core.program.result import Selection, Status
from nas_core.program.selection import TIME_LIMIT_S
from nas_core.program.session import Session
from nas_core.space.genotypes import Genotype

POSITIONS_SHARE = 0.5  # of the time, for the position-by-position route
MAX_STATES = 2_000_000  # partial networks of the position-by-position route


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """``points``: by the first resource ascending; then by the second; value rises with it where there is one.

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
    return _frontier(problem, (resource,), time_limit_s)


def frontier2(problem: SelectionProblem, first: str, second: str, *, time_limit_s: float = TIME_LIMIT_S) -> Frontier:
    """The exact frontier of the objective's value against two resources, as ``frontier``."""
    return _frontier(problem, (first, second), time_limit_s)


def _frontier(problem: SelectionProblem, resources: tuple[str, ...], time_limit_s: float) -> Frontier:
    for resource in resources:
        if resource not in problem.resources:
            raise ConfigError("frontier", repr(resource), f"one of {', '.join(problem.resources) or 'none'}")
    started, status = time.monotonic(), Status.OPTIMAL
    session, deadline = Session(problem), started + time_limit_s
    candidates, route = _among_all(session, resources), "every network"
    if candidates is None:
        candidates = _by_positions(problem, resources, started + POSITIONS_SHARE * time_limit_s)
        route = "position by position"
    if candidates is None:
        search = _by_steps if len(resources) == 1 else _by_boxes
        candidates, status = search(session, resources, deadline)
        route = "steps"
    verify = verifier(problem)
    points = tuple(verify(selection_of(problem, g)) for g in _undominated(problem, candidates, resources))
    if status is Status.OPTIMAL and not points:
        status = Status.INFEASIBLE
    return Frontier(resources=resources, points=points, status=status, solve_s=time.monotonic() - started, route=route)


def _among_all(session: Session, resources: tuple[str, ...]) -> list[Genotype] | None:
    """Candidates from all networks of every table; None if there are too many."""
    found: list[Genotype] = []
    for solver in session.solvers:
        if not solver.has_networks:
            continue
        every, costs = solver.every_network(), [solver.program.decimals(name) for name in resources]
        if every is None or not all(cost.is_int64 for cost in costs):
            return None
        label = solver.table.resolution
        forbidden = {g.choices for g in session.problem.forbidden if g.resolution in (None, label)}
        allowed = every.without(forbidden)
        sums = [every.sums(every.lp.columns.gather(cost.integers))[allowed] for cost in costs]
        networks = every.within[allowed]
        kept = _staircase(every.value[networks], sums, 2 * float(every.error_N[networks].max(initial=0.0)))
        found += [Genotype(choices, label) for choices in every.choices(networks[kept])]
    return found


def _by_positions(problem: SelectionProblem, resources: tuple[str, ...], deadline: float) -> list[Genotype] | None:
    """Candidates by dominance, position by position; None with limits, or too many partial networks for the time."""
    if not problem.objective.is_additive or problem.budgets or problem.rules or problem.pairs or problem.forbidden:
        return None
    found: list[Genotype] = []
    for table in problem.tables:
        networks = _of_table_by_positions(TableProgram(problem, table), resources, deadline)
        if networks is None:
            return None
        found += [Genotype(choices, table.resolution) for choices in networks]
    return found


def _of_table_by_positions(
    program: TableProgram, resources: tuple[str, ...], deadline: float
) -> list[tuple[int, ...]] | None:
    assert program.columns is not None, "there are no rules"
    costs = [program.decimals(name) for name in resources]
    if not all(cost.is_int64 for cost in costs):
        return None
    score, starts = flatten(program.table.score), program.columns.starts_G1
    margin = FLOAT_ERROR * float(np.maximum.reduceat(np.abs(score), starts[:-1]).sum())
    value_S, cost_RS = np.zeros(1), [np.zeros(1, dtype=np.int64) for _ in costs]
    trail: list[Ints] = []
    for low, high in itertools.pairwise(starts.tolist()):
        if len(value_S) * (high - low) > MAX_STATES or time.monotonic() > deadline:
            return None
        value_N = (value_S[:, None] + score[None, low:high]).ravel()
        cost_RN = [
            (total[:, None] + cost.integers[None, low:high]).ravel() for total, cost in zip(cost_RS, costs, strict=True)
        ]
        kept = _staircase(value_N, cost_RN, margin)
        value_S, cost_RS = value_N[kept], [cost_N[kept] for cost_N in cost_RN]
        trail.append(np.stack(np.divmod(kept, high - low)))
    return _spell(trail, len(value_S))


def _spell(trail: list[Ints], count: int) -> list[tuple[int, ...]]:
    state, choices = np.arange(count), []
    for parent, choice in reversed(trail):
        choices.append(choice[state])
        state = parent[state]
    return [tuple(map(int, row)) for row in np.stack(choices[::-1], axis=1)]


def _staircase(value_N: Floats, cost_RN: list[Ints], margin: float) -> Ints:
    """Indices of the entries that no other beats by more than the margin in value, and is as cheap as.

    Entries come by the first cost, so one is dominated if an earlier one of at most its second cost is
    worth more. With one resource a running maximum tells; with two, a staircase
    of (second cost, best value up to it).
    """
    order = np.lexsort((-value_N, *reversed(cost_RN)))
    value = value_N[order]
    if len(cost_RN) == 1:
        before = np.concatenate([[-np.inf], np.maximum.accumulate(value)[:-1]])
        return order[value > before - margin] if margin > 0 else order[value > before]
    kept = _walk(value.tolist(), cost_RN[1][order].tolist(), margin)
    return order[kept]


def _walk(values: Sequence[Any], seconds: Sequence[Any], margin: float) -> list[int]:
    """Places of the undominated entries of a list sorted by first cost, then second, then value descending."""
    steps: list[Any] = []  # second costs, ascending
    tops: list[Any] = []  # best value at most at that cost, ascending
    kept = []
    for i, (value, second) in enumerate(zip(values, seconds, strict=True)):
        at = bisect.bisect_right(steps, second)
        best = tops[at - 1] if at else None
        if best is None or value > best - margin:
            kept.append(i)
        if best is None or value > best:
            end = at
            while end < len(steps) and tops[end] <= value:
                end += 1
            start = at - 1 if at and steps[at - 1] == second else at
            steps[start:end], tops[start:end] = [second], [value]
    return kept


def _undominated(
    problem: SelectionProblem, candidates: Iterable[Genotype], resources: tuple[str, ...]
) -> list[Genotype]:
    """The candidates that none beats, exactly, by their costs; of equal ones the first."""
    rows = []
    for genotype in candidates:
        totals = evaluate(problem, genotype)
        costs = [totals.costs[name] for name in resources]
        rows.append((costs[0], costs[-1], -totals.value, genotype.choices, genotype))
    rows.sort(key=lambda row: row[:4])
    kept, seen = [], set()
    for i in _walk([-row[2] for row in rows], [row[1] for row in rows], 0):
        vector = rows[i][:3]
        if vector not in seen:
            seen.add(vector)
            kept.append(rows[i][4])
    return kept


def _by_steps(session: Session, resources: tuple[str, ...], deadline: float) -> tuple[list[Genotype], Status]:
    """From the best network down: strictly less of the resource each time."""
    problem, found = session.problem, list[Genotype]()
    limits = problem.budgets
    while time.monotonic() < deadline:
        answer = session.with_problem(problem.with_budgets(limits)).top_k(1, 1, Effort(deadline=deadline))
        if answer.status is not Status.OPTIMAL:
            return found, Status.OPTIMAL if answer.status is Status.INFEASIBLE else Status.FEASIBLE
        found.append(answer.best.genotype)
        limits = (*problem.budgets, _less(problem, resources[0], answer.best))
    return found, Status.FEASIBLE


def _by_boxes(session: Session, resources: tuple[str, ...], deadline: float) -> tuple[list[Genotype], Status]:
    """From no limits down: below each answer, boxes with less of the one and with less of the other resource."""
    problem, found = session.problem, dict[Genotype, None]()
    seen: set[tuple[Budget, ...]] = set()
    boxes: list[tuple[Budget, ...]] = [()]
    while boxes:
        box = boxes.pop()
        if box in seen:
            continue
        seen.add(box)
        if time.monotonic() >= deadline:
            return list(found), Status.FEASIBLE
        boxed = session.with_problem(problem.with_budgets((*problem.budgets, *box)))
        answer = boxed.top_k(1, 1, Effort(deadline=deadline))
        if answer.status is Status.INFEASIBLE:
            continue
        if answer.status is not Status.OPTIMAL:
            return list(found), Status.FEASIBLE
        found[answer.best.genotype] = None
        for resource in resources:
            others = [b for b in box if b.resource != resource]
            less = _less(problem, resource, answer.best)
            boxes.append(tuple(sorted([*others, less], key=lambda b: b.resource)))
    return list(found), Status.OPTIMAL


def _less(problem: SelectionProblem, resource: str, point: Selection) -> Budget:
    """Strictly less of a resource than a network has."""
    total = evaluate(problem, point.genotype).costs[resource]
    return Budget(resource=resource, at_most=_float_below(total))


def _float_below(total: Fraction) -> float:
    """The largest float whose decimal is below an exact total."""
    value = float(total)
    return float(np.nextafter(value, -np.inf)) if exact(value) >= total else value
