import numpy as np
import pytest

from nas_core.program import Budget, SelectionProblem, Status, explain, solve
from nas_core.program.exact import evaluate, violations
from nas_core.space.genotypes import Rule
from tests.nas_core.program.oracle import brute_force, networks
from tests.nas_core.program.random_problems import random_problem

TWO = SelectionProblem(
    score=((0.0, 1.0), (0.0, 1.0)),
    costs={"latency_ms": ((5.0, 1.0), (6.0, 2.0)), "params": ((1e6, 3e6), (1e6, 2e6))},
    budgets=(Budget(resource="latency_ms", at_most=4.0), Budget(resource="params", at_most=4e6)),
)


def test_colliding_limits_are_named_with_the_cheapest_way_out() -> None:
    answer = solve(TWO)
    assert answer.status is Status.INFEASIBLE
    assert answer.explanation is not None
    assert set(answer.explanation.conflict) == set(TWO.budgets)
    assert answer.explanation.least == {"latency_ms": 3.0, "params": 2e6}
    assert answer.explanation.least_given_others == {"latency_ms": 7.0, "params": 5e6}
    assert [r.text for r in answer.explanation.relaxations] == ["+3 ms", "+1 M params"]
    assert "collide" in str(answer.explanation)


def test_one_impossible_limit_is_its_own_conflict() -> None:
    problem = TWO.with_budgets([Budget(resource="latency_ms", at_most=2.0), Budget(resource="params", at_most=9e6)])
    explanation = explain(problem)
    assert explanation.conflict == (problem.budgets[0],)
    assert "cannot be met" in str(explanation)


def test_rules_that_collide_alone_are_said_to() -> None:
    rules = (Rule(kind="require", blocks=((0, 1),)), Rule(kind="forbid", blocks=((0, 1),)))
    problem = SelectionProblem(score=((0.0, 1.0),), rules=rules)
    answer = solve(problem)
    assert answer.status is Status.INFEASIBLE
    assert answer.explanation is not None
    assert answer.explanation.conflict == ()
    assert "rules" in str(answer.explanation)


def test_explanations_agree_with_brute_force() -> None:
    seen = 0
    for seed in range(150):
        problem = random_problem(seed, "additive")
        if not problem.budgets or brute_force(problem):
            continue
        seen += 1
        explanation = explain(problem)
        allowed = [
            evaluate(problem, g).costs
            for g in networks(problem)
            if not violations(problem.with_budgets(()), g, evaluate(problem, g).costs)
        ]
        for resource, least in explanation.least.items():
            assert least == (min(float(c[resource]) for c in allowed) if allowed else None)
        assert not brute_force(problem.with_budgets(explanation.conflict))
        for i in range(len(explanation.conflict)):
            assert brute_force(problem.with_budgets(explanation.conflict[:i] + explanation.conflict[i + 1 :]))
        for relaxation in explanation.relaxations:
            if relaxation.by is None:
                continue
            others = [s for b in problem.budgets for s in b.sides() if s != relaxation.budget]
            assert brute_force(
                problem.with_budgets([*others, _relaxed(relaxation.budget, relaxation.by * (1 + 1e-12))])
            )
            if relaxation.by > 1e-9:
                less = _relaxed(relaxation.budget, relaxation.by * (1 - 1e-9))
                assert not brute_force(problem.with_budgets([*others, less]))
    assert seen > 5


def _relaxed(budget: Budget, by: float) -> Budget:
    if budget.at_most is not None:
        return Budget(resource=budget.resource, at_most=budget.at_most + by)
    assert budget.at_least is not None
    return Budget(resource=budget.resource, at_least=budget.at_least - by)


def test_the_explanation_of_a_feasible_problem_says_what_is_attainable() -> None:
    problem = TWO.with_budgets([Budget(resource="latency_ms", at_most=9.0)])
    explanation = explain(problem)
    assert explanation.conflict == ()
    assert explanation.least["latency_ms"] == pytest.approx(3.0)


def test_the_digits_tell_the_limit_from_what_is_attainable() -> None:
    problem = SelectionProblem(
        score=((0.0, 1.0), (0.0, 1.0)),
        costs={"params": ((5_844_004, 5_844_009), (5_844_004, 5_844_010))},
        budgets=(Budget(resource="params", at_most=11_688_000),),
    )
    text = str(solve(problem).explanation)
    assert text == (
        "params <= 11688000 cannot be met; attainable: least params 11688008; cheapest relaxation: +8 params."
    )


def test_of_what_was_measured_six_digits_are_said_and_a_limit_at_what_is_said_to_be_attainable_can_be_met() -> None:
    problem = SelectionProblem(
        score=((0.0, 1.0), (0.0, 1.0)),
        costs={"latency_ms": ((0.02311234567891, 0.03), (0.02586488539216, 0.03))},
        budgets=(Budget(resource="latency_ms", at_most=0.04486733536292977),),
    )
    assert str(solve(problem).explanation) == (
        "latency_ms <= 0.0448673 cannot be met; attainable: least latency_ms 0.0489773; "
        "cheapest relaxation: +0.0041099 ms."
    )
    assert solve(problem.with_budgets([Budget(resource="latency_ms", at_most=0.0489773)])).status is Status.OPTIMAL


def test_of_a_limit_from_below_the_most_is_said() -> None:
    problem = SelectionProblem(
        score=((0.0, 1.0),), costs={"a": ((1, 2),), "b": ((3, 4),)}, budgets=(Budget(resource="a", at_least=5),)
    )
    text = str(solve(problem).explanation)
    assert text == "a >= 5 cannot be met; attainable: most a 2; cheapest relaxation: -3 a."
    both = problem.with_budgets([Budget(resource="a", at_least=2), Budget(resource="b", at_most=3)])
    assert "attainable: least b 3, most a 2; " in str(solve(both).explanation)


def test_a_limit_that_binds_nothing_is_said() -> None:
    problem = TWO.with_budgets([Budget(resource="latency_ms", at_most=11.0), Budget(resource="params", at_most=4e6)])
    assert solve(problem).notes == ("latency_ms <= 11 binds nothing: the most that any network has is 11 ms.",)


def many_limits(share: float) -> SelectionProblem:
    rng = np.random.default_rng(0)
    cost = rng.integers(0, 10, (10, 40, 8))
    score = cost.sum(axis=0) + rng.integers(0, 20, (40, 8))
    return SelectionProblem(
        score=score.tolist(),
        costs={f"r{k}": rows.tolist() for k, rows in enumerate(cost)},
        budgets=tuple(Budget(resource=f"r{k}", at_most=float(int(40 * share))) for k in range(10)),
    )


def test_ten_limits_that_collide_are_explained_within_the_time() -> None:
    answer = solve(many_limits(2.5), time_limit_s=3.0)
    assert answer.status is Status.INFEASIBLE
    assert answer.explanation is not None
    conflict = answer.explanation.conflict
    assert 0 < len(conflict) < 10
    assert solve(many_limits(2.5).with_budgets(conflict), time_limit_s=20.0).status is Status.INFEASIBLE
    assert answer.explanation.is_smallest or "may not be the smallest" in str(answer.explanation)


def test_without_time_an_explanation_claims_nothing() -> None:
    explanation = explain(many_limits(2.5), time_limit_s=0.0, is_infeasible=True)
    assert set(explanation.conflict) <= set(many_limits(2.5).budgets)
    assert not explanation.is_smallest
    assert all(r.by is None or "or less" in r.text or r.by >= 0 for r in explanation.relaxations)
