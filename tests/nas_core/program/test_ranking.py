"""The best k in order: against all networks, on every way the search can go, and cut off."""

import math
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from nas_core.program import (
    Budget,
    Objective,
    SelectionProblem,
    Status,
    certificate,
    certify,
    cpsat,
    enumeration,
    ranking,
    routes,
    top_k,
)
from nas_core.program.answers import Effort
from nas_core.program.checker import check_certificate
from nas_core.program.exact import evaluate, violations
from nas_core.program.exact_table import UnprovenError
from nas_core.program.session import Session
from nas_core.space.genotypes import Genotype, Rule
from tests.nas_core.program.oracle import brute_force, networks
from tests.nas_core.program.random_problems import random_problem

WAYS = {
    "as it is": {},
    "narrow beams": {"BEAM": 2, "WIDER": 0.1},
    "narrow beams, small batches": {"BEAM": 2, "WIDER": 0.1, "BATCH": 3},
    "few ties kept": {"BEAM": 2, "WIDER": 0.1, "BATCH": 3, "MAX_TIES": 0},
}


def in_order(problem: SelectionProblem) -> list[tuple[Genotype, Fraction]]:
    """Every allowed network, by value, then by choices."""
    rows = []
    for genotype in networks(problem):
        totals = evaluate(problem, genotype)
        if not violations(problem, genotype, totals.costs):
            rows.append((genotype, totals.value))
    rows.sort(key=lambda row: (-row[1], row[0].choices, row[0].resolution or 0))
    return rows


def supernet(
    positions: int, choices: int, limits: int, decimals: int = 3, share: float = 0.5, seed: int = 0
) -> SelectionProblem:
    """Larger blocks cost more and score better; limits between the least and the most."""
    rng = np.random.default_rng([positions, choices, limits, seed])
    size = rng.uniform(0.05, 1.0, (positions, choices))
    score = np.round(np.sqrt(size) * rng.uniform(0.9, 1.1, size.shape), decimals)
    costs = {f"c{k}": np.round(size * rng.uniform(0.8, 1.2, size.shape), 3) for k in range(limits)}
    budgets = [
        Budget(resource=name, at_most=float((1 - share) * cost.min(axis=1).sum() + share * cost.max(axis=1).sum()))
        for name, cost in costs.items()
    ]
    tables = {name: cost.tolist() for name, cost in costs.items()}
    return SelectionProblem(score=score.tolist(), costs=tables, budgets=tuple(budgets))


@pytest.mark.parametrize("way", WAYS)
def test_ranks_are_those_of_all_networks(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(ranking, name, value)
    for seed in range(60):
        problem = random_problem(seed, "additive")
        expected = in_order(problem)
        k = int(np.random.default_rng(seed).integers(2, 40))
        answer = top_k(problem, k)
        assert [s.genotype for s in answer.selections] == [genotype for genotype, _ in expected[:k]], f"{seed}"
        assert answer.status is (Status.OPTIMAL if expected else Status.INFEASIBLE)
        assert answer.num_proven == len(answer.selections)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("limits", "decimals"), [(0, 1), (1, 3), (2, 1), (3, 3), (5, 0), (9, 2)])
def test_limits_and_ties_of_a_supernet(way: str, limits: int, decimals: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(ranking, name, value)
    problem = supernet(6, 4, limits, decimals)
    expected = [genotype for genotype, _ in in_order(problem)[:300]]
    answer = top_k(problem, 300)
    assert [s.genotype for s in answer.selections] == expected


def test_thousands_of_a_supernet_are_ranked_at_once() -> None:
    answer = top_k(supernet(20, 9, 3), 3_000)
    assert answer.status is Status.OPTIMAL
    values = [s.value for s in answer.selections]
    assert len(values) == len({s.genotype for s in answer.selections}) == 3_000
    assert values == sorted(values, reverse=True)
    few = top_k(supernet(20, 9, 3), 30)
    assert few.selections == answer.selections[:30]


def test_of_millions_that_are_worth_the_same_the_first_are_listed() -> None:
    problem = supernet(14, 6, 1, decimals=0, share=0.9)  # every score is 0 or 1
    answer = top_k(problem, 50)
    assert answer.status is Status.OPTIMAL
    same = [s.genotype.choices for s in answer.selections if s.value == answer.selections[-1].value]
    assert same == sorted(same)
    equal = replace(problem, score=tuple((0.0,) * 6 for _ in range(14)), budgets=())
    first = [Genotype((0,) * 12 + divmod(i, 6)) for i in range(20)]
    assert [s.genotype for s in top_k(equal, 20).selections] == first


@pytest.mark.parametrize("score", [0.0, 0.25, 1e-300])
def test_of_networks_that_are_all_worth_the_same_those_within_the_limit_are_listed(score: float) -> None:
    block = (2654208.0, 1990656.0, 1327104.0, 663552.0, 405504.0, 147456.0, 0.0)
    flops = ((165888.0, 25344.0, 18432.0), *[block] * 4)
    scores = tuple((score,) * len(row) for row in flops)
    for percent in range(8, 100, 7):
        limits = (Budget(resource="flops", at_most=percent / 100 * 10782768),)
        problem = SelectionProblem(score=scores, costs={"flops": flops}, budgets=limits)
        answer = top_k(problem, 3)
        assert answer.status is Status.OPTIMAL, percent
        assert [s.genotype for s in answer.selections] == [genotype for genotype, _ in in_order(problem)[:3]]


def test_rules_and_single_networks_are_kept_out() -> None:
    problem = supernet(6, 4, 2, decimals=1)
    free = in_order(problem)
    rules = (Rule(kind="equal", positions=(1, 4)), Rule(kind="forbid", blocks=((0, 3), (2, 2))))
    problem = replace(problem, rules=rules, forbidden=tuple(genotype for genotype, _ in free[:40:2]))
    expected = [genotype for genotype, _ in in_order(problem)[:200]]
    assert [s.genotype for s in top_k(problem, 200).selections] == expected


def test_masked_blocks_come_after_all_others() -> None:
    problem = supernet(5, 4, 1)
    score = [list(row) for row in problem.score]
    score[2][1], score[4][3] = -1e30, -1e15
    problem = replace(problem, score=tuple(map(tuple, score)))
    expected = [genotype for genotype, _ in in_order(problem)]
    for k in (20, 1_000):
        assert [s.genotype for s in top_k(problem, k).selections] == expected[:k]


def test_what_time_cut_off_is_said_and_the_rest_proven() -> None:
    problem, told = supernet(20, 9, 12), list[int]()
    whole = top_k(problem, 20)
    assert whole.status is Status.OPTIMAL
    started = time.monotonic()
    for limit_s in (0.05, 0.6):
        answer = top_k(problem, 10_000, time_limit_s=limit_s, tell=told.append)
        assert answer.status is Status.FEASIBLE
        proven = answer.selections[: answer.num_proven]
        assert proven[:20] == whole.selections[: len(proven)]
        assert answer.bound >= max(s.value for s in answer.selections[answer.num_proven :])
        assert "of 10000" in answer.notes[0]
        assert f"time limit of {limit_s:g} s" in answer.notes[0]
        check_certificate(certify(problem, answer, time_limit_s=0.5))
    assert time.monotonic() - started < 60
    assert told == sorted(told) or len(told) > 2


@pytest.mark.parametrize("min_distance", [1, 2])
def test_what_was_listed_and_not_evaluated_in_time_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch, min_distance: int
) -> None:
    problem = replace(supernet(3, 3, 1), budgets=())
    expected = top_k(problem, 50, min_distance=min_distance)
    assert expected.status is Status.OPTIMAL
    evaluated = Session._selections
    monkeypatch.setattr(Session, "_selections", lambda self, genotypes, _: evaluated(self, genotypes[:1], math.inf))
    answer = top_k(problem, 50, min_distance=min_distance)
    assert (answer.status, answer.selections) == (Status.OPTIMAL, expected.selections)
    over = Session(problem).top_k(50, min_distance, Effort(deadline=time.monotonic()))
    assert over.status is Status.FEASIBLE
    assert expected.selections[1].value <= over.bound < math.inf


def test_that_no_network_is_within_the_limits_is_proven_before_the_best_ones_are_looked_for() -> None:
    rng = np.random.default_rng(2)
    costs = {f"c{k}": rng.integers(0, 100, (12, 4)).astype(float) for k in range(4)}
    budgets = []
    for name, cost in costs.items():  # each limit is met, and all of them by a mix of networks, but by none
        at = float(cost[np.arange(12), rng.integers(0, 4, 12)].sum())
        budgets.append(Budget(resource=name, at_least=at, at_most=at))
    tables = {name: cost.tolist() for name, cost in costs.items()}
    score = rng.integers(-100, 100, (12, 4)).astype(float).tolist()
    problem = SelectionProblem(score=score, costs=tables, budgets=tuple(budgets))
    answer = Session(problem).top_k(3, 1, Effort.seconds(60))
    assert (answer.status, answer.route) == (Status.INFEASIBLE, cpsat.ROUTE)


@pytest.mark.parametrize("kind", ["additive", "pairs", "ratio"])
def test_no_network_is_answered_twice_where_there_is_no_time_at_all(kind: str) -> None:
    for seed in range(40):
        problem = random_problem(seed, kind)
        answer = Session(problem).top_k(5, 1, Effort(deadline=time.monotonic()))
        assert len({s.genotype for s in answer.selections}) == len(answer.selections)
        assert answer.status is not Status.OPTIMAL or answer.selections == brute_force(problem, 5)


def test_networks_apart_are_the_greedy_ones() -> None:
    problem = supernet(7, 4, 2, decimals=2)
    expected = list[Genotype]()
    for genotype, _ in in_order(problem):
        if len(expected) < 60 and all(genotype.distance(other) >= 3 for other in expected):
            expected.append(genotype)
    answer = top_k(problem, 60, min_distance=3)
    assert [evaluate(problem, s.genotype).value for s in answer.selections] == [
        evaluate(problem, genotype).value for genotype in expected
    ]
    assert answer.status is Status.OPTIMAL


def test_certificates_of_a_hundred_are_checked_and_a_false_ranking_is_refused() -> None:
    problem = supernet(8, 3, 2)
    answer = top_k(problem, 100)
    data = certify(problem, answer)
    assert data["certified"], data["message"]
    check_certificate(data)
    answers, (proof,) = data["answers"], data["proofs"]
    without = {**data, "answers": answers[:40] + answers[41:], "proofs": [{**proof, "beside": 98}]}
    swapped = next(i for i in range(99) if answers[i]["value"] != answers[i + 1]["value"])
    order = [*range(swapped), swapped + 1, swapped, *range(swapped + 2, 100)]
    for wrong in (without, {**data, "answers": answers[1:]}, {**data, "answers": [answers[i] for i in order]}):
        with pytest.raises(UnprovenError):
            check_certificate(wrong)


def test_of_a_ranking_too_long_to_prove_again_the_first_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = supernet(8, 3, 2)
    answer = top_k(problem, 100)

    def tree(prover: certificate._Prover) -> certificate.ProofTree:
        if len(prover.claim.excluded) > 20:
            raise certificate.OutOfTimeError
        return proved(prover)

    proved = certificate._Prover.tree
    monkeypatch.setattr(certificate._Prover, "tree", tree)
    data = certify(problem, answer)
    assert (data["status"], data["claimed"], data["certified"]) == ("feasible", "optimal", False)
    assert data["message"].startswith("The first 10 of 100 answers are shown to be the best. That ranks 11 to 100 are")
    assert "no allowed network beside the first 9 is worth more" in check_certificate(data)[-1]


@pytest.mark.parametrize("few", [routes.FEW_NETWORKS, 0])
def test_quotients_are_ranked(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "FEW_NETWORKS", few)
    problem = supernet(5, 4, 2)
    for objective in (
        Objective(kind="ratio", resource="c0"),
        Objective(kind="fractional", resource="c0", reference=3.0),
        Objective(kind="fractional", resource="c1", reference=3.0, exponent=0.3),
    ):
        for shift in (0.0, -1.5):  # a quotient of losses, too
            score = tuple(tuple(value + shift for value in row) for row in problem.score)
            asked = replace(problem, objective=objective, score=score, base_score=2.5)
            expected = [genotype for genotype, _ in in_order(asked)[:100]]
            assert [s.genotype for s in top_k(asked, 100).selections] == expected


@pytest.mark.parametrize("kind", ["fractional", "dinkelbach", "ratio"])
def test_quotients_of_every_kind_are_ranked(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "FEW_NETWORKS", 0)
    for seed in range(12):
        problem = random_problem(seed, kind)
        expected = [genotype for genotype, _ in in_order(problem)]
        answer = top_k(problem, 12)
        assert [s.genotype for s in answer.selections] == expected[:12], f"{seed}"


def test_pair_terms_of_neighbours_are_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enumeration, "MAX_NETWORKS", 0)
    for seed in range(20):
        problem = random_problem(seed, "pairs")
        neighbours = {pair: value for pair, value in problem.pairs.items() if pair[1][0] - pair[0][0] == 1}
        problem = replace(problem, pairs=neighbours)
        expected = [genotype for genotype, _ in in_order(problem)]
        answer = top_k(problem, 15)
        assert [s.value for s in answer.selections] == [s.value for s in top_k(problem, 15).selections]
        assert [s.genotype for s in answer.selections] == expected[:15], f"{seed} {answer.route}"
