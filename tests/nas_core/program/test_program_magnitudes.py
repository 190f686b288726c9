"""Masks and mixed magnitudes: the answers of the same problem without the masked blocks."""

import os

import numpy as np
import pytest

from nas_core.program import Budget, SelectionProblem, Status, frontier, solve, top_k
from tests.benchmarks.magnitudes import judge, random_problem

# 150 in the usual run; the benchmark asks for 20,000.
PROBLEMS = int(os.environ.get("MATHNAS_MAGNITUDES", "150"))


def masked(size: int, choices: int, score_mask: float | None, cost_mask: float | None) -> SelectionProblem:
    """A block at every position that is masked, or is not there where both masks are None."""
    rng = np.random.default_rng([size, choices])
    score = rng.uniform(0.5, 0.9, (size, choices)).round(4)
    cost = rng.integers(1, 100, (2, size, choices))
    keep = [score.tolist(), *cost.tolist()]
    if score_mask is not None or cost_mask is not None:
        best = 0.95 if score_mask is None else score_mask
        for row in keep[0]:
            row.insert(0, best)
        for rows in keep[1:]:
            for row in rows:
                row.insert(0, 1.0 if cost_mask is None else cost_mask)
    budgets = tuple(Budget(resource=f"c{k}", at_most=float(int(c.mean() * size))) for k, c in enumerate(cost))
    return SelectionProblem(score=keep[0], costs={"c0": keep[1], "c1": keep[2]}, budgets=budgets)


@pytest.mark.parametrize("size", [(6, 5), (20, 9), (60, 30)])
@pytest.mark.parametrize("mask", [1e6, 1e9, 1e10, 1e12, 1e15, 1e18, 1e30, 1e99])
def test_a_mask_changes_nothing(size: tuple[int, int], mask: float) -> None:
    plain = solve(masked(*size, None, None))
    for problem in (masked(*size, -mask, None), masked(*size, None, mask), masked(*size, -mask, mask)):
        answer = solve(problem)
        assert answer.status is Status.OPTIMAL
        assert answer.best.value == plain.best.value
        assert answer.gap == 0


def test_masks_change_neither_the_best_ten_nor_the_frontier() -> None:
    plain, other = masked(6, 4, None, None), masked(6, 4, -1e15, None)
    assert [s.value for s in top_k(plain, 10).selections] == [s.value for s in top_k(other, 10).selections]
    curves = [frontier(problem, "c0") for problem in (plain, other)]
    assert [point.value for point in curves[0].points] == [p.value for p in curves[1].points if p.value > -1e9]


def test_a_forbidden_block_that_is_needed_decides() -> None:
    problem = SelectionProblem(
        score=((-0.000167071774, 0.000253, 0.000391, -0.00053), (-0.0005, -1e15, 0.000207, 0.00064), (-0.0006, 0.0002)),
        costs={"c": ((0.0, 774674.0, 0.0, -945593.0), (348115.0, 0.0, 0.0, 250000.0), (949557.0, 450000.0))},
        budgets=(Budget(resource="c", at_most=450000.0, at_least=450000.0),),
    )
    assert str(solve(problem).best.genotype) == "2-2-1"
    only = problem.with_budgets([Budget(resource="c", at_most=1224674.0, at_least=1224674.0)])
    assert str(solve(only).best.genotype) == "1-2-1"
    needed = SelectionProblem(
        score=((0.001, -1e15), (0.002, 0.003)),
        costs={"c": ((5.0, 1.0), (1.0, 2.0))},
        budgets=(Budget(resource="c", at_most=3.0),),
    )
    assert str(solve(needed).best.genotype) == "1-1"


def test_random_magnitudes_are_as_good_as_enumeration() -> None:
    for seed in range(PROBLEMS):
        assert judge(random_problem(seed)) == ("right", "certified"), seed
