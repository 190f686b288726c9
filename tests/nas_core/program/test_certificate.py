"""Certificates: every answer has one, the checker reads it alone, and refuses whatever is wrong in it."""

import copy
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nas_core.program import Budget, SelectionProblem, Status, certificate, certify, solve, top_k
from nas_core.program.checker import FORMAT, check_certificate
from nas_core.program.claim import Claim
from nas_core.program.exact_table import ExactTable, UnprovenError
from tests.benchmarks.knapsacks import mckp, mmkp, problem_of
from tests.nas_core.program.oracle import brute_force
from tests.nas_core.program.random_problems import KINDS, random_problem


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_certified(kind: str) -> None:
    for seed in range(25):
        problem, k, distance = random_problem(seed, kind), 1 + seed % 3, 1 + seed % 2
        data = certify(problem, top_k(problem, k, min_distance=distance), min_distance=distance)
        assert data["certified"], (kind, seed, data["message"])
        assert check_certificate(json.loads(json.dumps(data)))


def knapsack(num_limits: int = 2) -> SelectionProblem:
    rng = np.random.default_rng(7)
    cost = rng.integers(1, 100, (num_limits, 12, 6))
    score = cost.sum(axis=0) + rng.integers(0, 60, (12, 6))
    return SelectionProblem(
        score=score.tolist(),
        costs={f"c{k}": c.tolist() for k, c in enumerate(cost)},
        budgets=tuple(Budget(resource=f"c{k}", at_most=float(c.mean() * 12)) for k, c in enumerate(cost)),
    )


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    problem = knapsack()
    return certify(problem, solve(problem))


def leaves(tree: dict[str, Any]) -> list[dict[str, Any]]:
    if "branches" not in tree:
        return [tree]
    return [leaf for _, child in tree["branches"] for leaf in leaves(child)]


def refused(data: dict[str, Any], says: str) -> None:
    with pytest.raises(UnprovenError, match=says):
        check_certificate(json.loads(json.dumps(data)))


def test_a_worse_network_is_no_optimum(written: dict[str, Any]) -> None:
    problem = knapsack()
    second = top_k(problem, 2).selections[1]
    data = copy.deepcopy(written)
    data["answers"] = [{"genotype": str(second.genotype), "value": str(Fraction(second.value))}]
    refused(data, "bound")


def test_a_bound_below_the_best_network_is_refused(written: dict[str, Any]) -> None:
    second = top_k(knapsack(), 2).selections[1]
    data = copy.deepcopy(written)
    data["answers"] = [{"genotype": str(second.genotype), "value": str(Fraction(second.value))}]
    data["proofs"][0]["bound"] = str(Fraction(second.value))
    refused(data, "leaf")


def test_a_wrong_value_is_refused(written: dict[str, Any]) -> None:
    data = copy.deepcopy(written)
    data["answers"][0]["value"] = str(Fraction(data["answers"][0]["value"]) + Fraction(1, 10**12))
    refused(data, "value")


def test_a_network_beyond_a_limit_is_refused(written: dict[str, Any]) -> None:
    data = copy.deepcopy(written)
    heaviest = [int(np.argmax(row)) for row in data["problem"]["costs"]["c0"]]
    data["answers"][0]["genotype"] = "-".join(map(str, heaviest))
    refused(data, "c0 <=")


def test_branches_that_leave_a_choice_out_are_refused(written: dict[str, Any]) -> None:
    data = copy.deepcopy(written)
    tree = data["proofs"][0]["tables"][0]["tree"]
    data["proofs"][0]["tables"][0]["tree"] = {"position": 0, "branches": [[[0, 1, 2, 3, 4], tree]]}
    refused(data, "branches")
    data["proofs"][0]["tables"][0]["tree"] = {"position": 0, "branches": [[[0, 1, 2, 3, 4, 5], tree]]}
    assert check_certificate(data)


def test_multipliers_below_zero_are_refused(written: dict[str, Any]) -> None:
    data = copy.deepcopy(written)
    leaf = next(leaf for leaf in leaves(data["proofs"][0]["tables"][0]["tree"]) if leaf["prices"])
    leaf["prices"] = {k: -n for k, n in leaf["prices"].items()}
    refused(data, "multipliers")


def test_a_changed_problem_is_another_problem(written: dict[str, Any]) -> None:
    data = copy.deepcopy(written)
    best = [int(c) for c in data["answers"][0]["genotype"].split("-")]
    data["problem"]["score"][0][(best[0] + 1) % 6] += 1000
    refused(data, "leaf")


def test_a_missing_proof_is_refused(written: dict[str, Any]) -> None:
    data = copy.deepcopy(written)
    data["proofs"] = []
    refused(data, "bound none")


def test_infeasible_needs_a_proof_that_there_is_no_network() -> None:
    problem = knapsack().with_budgets([Budget(resource="c0", at_most=30.0)])
    data = certify(problem, solve(problem))
    assert data["status"] == "infeasible"
    assert check_certificate(data) == ["no network is allowed"]
    data["problem"]["budgets"] = [{"resource": "c0", "at_most": 900.0}]
    refused(data, "leaf")


def test_limits_that_collide_only_together_are_refused_by_weights_of_both() -> None:
    costs = {"time": [[0, 5, 9]] * 8, "memory": [[9, 5, 0]] * 8}
    problem = SelectionProblem(
        score=[[1, 2, 3]] * 8,
        costs=costs,
        budgets=tuple(Budget(resource=name, at_most=35) for name in costs),
    )
    for kept in problem.budgets:
        assert solve(problem.with_budgets([kept])).status is Status.OPTIMAL
    data = certify(problem, solve(problem))
    assert check_certificate(data) == ["no network is allowed"]
    (tree,) = data["proofs"][0]["tables"]
    assert set(tree["tree"]["prices"]) == {"0", "1"}  # in whole numbers: both limits, weighted, are above 70 everywhere
    data["problem"]["budgets"] = [{"resource": name, "at_most": 36} for name in costs]
    refused(data, "leaf")


def test_a_branch_and_bound_of_many_leaves_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "QUICK_STATES", 60)
    monkeypatch.setattr(certificate, "TREE_SHARE", 1.0)
    problem = knapsack(num_limits=3)
    data = certify(problem, solve(problem))
    assert data["certified"]
    assert len(leaves(data["proofs"][0]["tables"][0]["tree"])) > 3
    assert check_certificate(data)


def test_where_values_are_costs_plus_tens_the_bound_is_rounded() -> None:
    """Strongly correlated: the tens cannot fill what is missing, and no multiplier says so."""
    problem = problem_of(mckp("strongly", 3, 20, seed=1))
    data = certify(problem, solve(problem))
    (tree,) = data["proofs"][0]["tables"]
    assert tree["tree"]["multiples"] == {"0": 1}
    assert check_certificate(data)
    tree["tree"]["multiples"] = {"0": 2}
    refused(data, "multiples")
    tree["tree"]["multiples"] = {"0": 1}
    data["proofs"][0]["bound"] = str(Fraction(data["proofs"][0]["bound"]) - 1)
    refused(data, "allowed network above|fewer, or time")


def test_too_little_time_is_said_and_claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas_core.program.certificate.QUICK_STATES", 0)
    problem = knapsack()
    data = certify(problem, solve(problem), time_limit_s=0.0)
    assert not data["certified"]
    assert "too short" in data["message"]
    assert (data["status"], data["claimed"]) == ("feasible", "optimal")
    assert check_certificate(data)


def test_where_a_bound_takes_too_long_a_wider_one_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(mmkp("I03"))
    result = solve(problem, time_limit_s=0.0)
    assert result.status is Status.FEASIBLE
    clock = itertools.count()
    monkeypatch.setattr(certificate, "TREE_SHARE", 0.25)
    monkeypatch.setattr(certificate, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    data = certify(problem, replace(result, bound=3670.0), time_limit_s=200.0)  # clock's ticks
    (proof,) = data["proofs"]
    assert 3701 < Fraction(proof["bound"]) < 3750  # the multipliers alone show 3701
    assert f"more than {float(Fraction(proof['bound'])):.10g} is shown" in data["message"]
    assert len(check_certificate(data)) == 2


def test_the_checker_finds_the_values_that_the_oracle_finds() -> None:
    from nas_core.program import write_problem

    for kind in KINDS:
        problem = random_problem(3, kind)
        for selection in brute_force(problem, 3):
            table = ExactTable(write_problem(problem), selection.genotype.resolution)
            assert float(table.value(selection.genotype.choices)) == selection.value
            assert not table.broken(selection.genotype.choices)


def test_a_written_certificate_is_verified_alone(written: dict[str, Any], tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(written))
    bad.write_text(json.dumps({**written, "proofs": []}))

    def check(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "nas_core.program", path], check=False, capture_output=True, text=True
        )

    assert check(good).returncode == 0
    assert "optimal, as shown" in check(good).stdout
    assert check(bad).returncode == 1
    assert "REFUSED" in check(bad).stderr


def test_an_untrue_optimum_is_not_certified() -> None:
    problem = knapsack()
    second = top_k(problem, 2).selections[1]
    with pytest.raises(UnprovenError, match="above it"):
        certify(problem, replace(solve(problem), selections=(second,)))


def test_a_feasible_answer_has_its_bound_shown() -> None:
    problem = knapsack()
    result = replace(solve(problem), status=Status.FEASIBLE)
    wide = certify(problem, replace(result, bound=result.bound + 100.0))
    assert not wide["certified"]
    assert "bound is shown" in wide["message"]
    assert len(check_certificate(wide)) == 2
    assert certify(problem, replace(result, bound=float("inf")))["proofs"] == []


@pytest.mark.parametrize("kind", ["additive", "ratio", "fractional"])
@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_no_leaf_shows_a_bound_below_the_best_network(kind: str, exponent: float) -> None:
    """Claims that are all false, with and without the value, under any multipliers, one limit or two."""
    rng = np.random.default_rng(3)
    for _ in range(40):
        sizes = rng.integers(2, 4, rng.integers(2, 4)).tolist()
        low, high = ((-9, 1), (-3, 12))[rng.integers(2)]
        stored: dict[str, Any] = {
            "score": [rng.integers(low, high, n).tolist() for n in sizes],
            "costs": {name: [rng.integers(1, 9, n).tolist() for n in sizes] for name in "ab"},
            "budgets": [{"resource": name, "at_most": int(5 * len(sizes))} for name in "ab"[: rng.integers(1, 3)]],
            "objective": {"kind": kind, "resource": "a", "reference": 10, "exponent": exponent},
            "pairs": [{"blocks": [[0, 0], [1, 1]], "value": 2}] * int(rng.integers(2)),
        }
        table = ExactTable(stored, None)
        networks = [choices for choices in itertools.product(*map(range, sizes)) if not table.broken(choices)]
        values = sorted({table.value(choices) for choices in networks}, reverse=True)
        for bound in values[1:4]:
            claim = Claim(table, bound)
            for value, price, multiple in itertools.product((0, 1), (0, 1, 3), (0, 1, 2)):
                prices = dict.fromkeys(map(str, range(len(claim.rows))), price)
                leaf = {"value": value, "unit": 1, "prices": prices, "multiples": {"0": multiple}}
                is_leaf = multiple == 0 or (value == 1 and multiple <= price)
                with pytest.raises(UnprovenError, match="allowed network above" if is_leaf else "multiples"):
                    claim.check_leaf(leaf, claim.everything())


def test_one_network_is_not_two_answers(written: dict[str, Any]) -> None:
    data = copy.deepcopy(written)
    again = dict(data["answers"][0])
    again["genotype"] = "0" + again["genotype"]
    data["answers"].append(again)
    refused(data, "another spelling")


def test_values_that_differ_by_ever_so_little_differ() -> None:
    problem = SelectionProblem(score=[[1e-40, 2e-40]], costs={})
    data = certify(problem, solve(problem))
    data["answers"][0] = {"genotype": "0", "value": str(Fraction("1e-40"))}
    refused(data, "its own value")


@pytest.mark.parametrize("status", ["proven", "OPTIMAL", None, "stopped", "infeasible"])
def test_a_status_is_one_that_can_be_shown(written: dict[str, Any], status: str | None) -> None:
    refused({**written, "status": status}, "status")


def test_an_unknown_rule_or_objective_is_not_read_as_another(written: dict[str, Any]) -> None:
    for key, value in (("rules", [{"kind": "perhaps", "blocks": [[0, 0]]}]), ("objective", {"kind": "best"})):
        refused({**written, "problem": {**written["problem"], key: value}}, key[:4])


@pytest.mark.parametrize(
    "wrong",
    [
        "[]",
        "3",
        '{"format": "F", "problem": [], "min_distance": 1}',
        "[" * 100_000,
        '{"format": "F", "problem": {"score": [[1e999]]}}',
    ],
)
def test_what_is_no_certificate_is_said_in_one_line(wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(wrong.replace('"F"', json.dumps(FORMAT)))
    done = subprocess.run(
        [sys.executable, "-m", "nas_core.program", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "not a certificate" in done.stderr
