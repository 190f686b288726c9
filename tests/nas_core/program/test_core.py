"""The core search at sizes no oracle reaches, against a dynamic program that is obvious for small integer costs."""

import time
from dataclasses import replace

import numpy as np
import pytest

from nas_core.program import Budget, Objective, SelectionProblem, Status, WhatIf, solve, top_k


def knapsack_value(score_MN: np.ndarray, cost_MN: np.ndarray, limit: int) -> float:
    """Best total score by a table over every total cost."""
    best = np.full(limit + 1, -np.inf)
    best[0] = 0.0
    for score_N, cost_N in zip(score_MN, cost_MN, strict=True):
        options = np.full((len(score_N), limit + 1), -np.inf)
        for option, score, cost in zip(options, score_N, cost_N, strict=True):
            option[cost:] = best[: limit + 1 - cost] + score
        best = options.max(axis=0)
    return float(best.max())


@pytest.mark.parametrize("size", [(20, 9), (60, 20), (100, 50)])
@pytest.mark.parametrize("seed", range(4))
def test_one_limit_equals_dynamic_programming(size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng([seed, *size])
    cost = rng.integers(1, 200, size)
    score = np.rint(1000 * np.sqrt(cost) * rng.uniform(0.9, 1.1, size))
    limit = int(cost.min(axis=1).sum() + cost.max(axis=1).sum()) // 2
    problem = SelectionProblem(
        score=score.tolist(), costs={"c": cost.tolist()}, budgets=(Budget(resource="c", at_most=limit),)
    )
    assert solve(problem).best.value == knapsack_value(score, cost, limit)


def correlated(num_positions: int, num_choices: int, seed: int) -> SelectionProblem:
    """Bigger blocks cost more and score better; two limits at half tightness."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.05, 1.0, (num_positions, num_choices))
    cost = np.rint(1e6 * size * rng.uniform(0.8, 1.2, (2, *size.shape)))
    score = np.rint(1e6 * np.sqrt(size) * rng.uniform(0.9, 1.1, size.shape))
    return SelectionProblem(
        score=score.tolist(),
        costs={"a": cost[0].tolist(), "b": cost[1].tolist()},
        budgets=tuple(
            Budget(resource=name, at_most=float((c.min(axis=1).sum() + c.max(axis=1).sum()) // 2))
            for name, c in zip("ab", cost, strict=True)
        ),
    )


@pytest.mark.parametrize("seed", range(3))
def test_core_search_and_cpsat_agree(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = correlated(20, 9, seed)
    by_core = solve(problem)
    monkeypatch.setattr("nas_core.program.halves.MAX_STATES", 0)
    monkeypatch.setattr("nas_core.program.core.FEW_COLUMNS", 0)
    monkeypatch.setattr("nas_core.program.branching.MOST_MATRIX", 0)
    by_cpsat = solve(problem)
    assert "core" in by_core.route
    assert "CP-SAT" in by_cpsat.route
    assert by_core.best == by_cpsat.best


def test_chain_search_and_highs_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, rng = correlated(10, 6, 5), np.random.default_rng(5)
    terms = np.rint(2e5 * rng.uniform(-1, 1, (9, 6, 6)))
    pairs = {((p, i), (p + 1, j)): float(terms[p, i, j]) for p, i, j in np.ndindex(9, 6, 6)}
    problem = replace(plain, pairs=pairs)
    by_chain = solve(problem)
    monkeypatch.setattr("nas_core.program.chain.MAX_NESTED", 0)
    by_highs = solve(problem)
    assert "chain" in by_chain.route
    assert "HiGHS" in by_highs.route
    assert by_chain.best == by_highs.best


def test_fifty_thousand_blocks_are_proven_in_a_second() -> None:
    problem = correlated(500, 100, 0)
    started = time.process_time()
    answer = solve(problem)
    assert answer.status is Status.OPTIMAL
    assert time.process_time() - started < 5  # 0.1 s on a quiet core


def test_a_large_quotient_does_not_overflow() -> None:
    problem = correlated(500, 100, 1)
    objective = Objective(kind="fractional", resource="a", reference=1e8, exponent=1.0)
    losses = SelectionProblem(
        score=tuple(tuple(x - 1.5e6 for x in row) for row in problem.score),
        base_score=90.0,
        costs=problem.costs,
        budgets=problem.budgets,
        objective=objective,
    )
    assert solve(losses).status is Status.OPTIMAL


def test_what_if_answers_in_milliseconds() -> None:
    problem = correlated(20, 9, 0)
    what_if = WhatIf(problem)
    what_if.select(problem.budgets)
    limit = problem.budgets[0].at_most
    assert limit is not None
    started = time.process_time()
    for share in np.linspace(0.6, 1.2, 20):
        budgets = [Budget(resource="a", at_most=float(limit * share)), problem.budgets[1]]
        assert what_if.select(budgets).status is Status.OPTIMAL
    assert (time.process_time() - started) / 20 < 0.1  # 5 ms on a quiet core


def test_ten_diverse_networks_differ_pairwise() -> None:
    answer = top_k(correlated(32, 54, 0), 10, min_distance=2)
    genotypes = [selection.genotype for selection in answer.selections]
    assert len(genotypes) == 10
    assert all(a.distance(b) >= 2 for i, a in enumerate(genotypes) for b in genotypes[:i])
    assert [s.value for s in answer.selections] == sorted((s.value for s in answer.selections), reverse=True)
