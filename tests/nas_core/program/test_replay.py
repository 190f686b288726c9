"""Lists of parts in a certificate: what branching proves is shown again, and nothing that is untrue."""

import copy
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from nas_core.program import Budget, SelectionProblem, certificate, certify, recording, solve, write_problem
from nas_core.program.checker import check_certificate, rounded_by
from nas_core.program.claim import Claim
from nas_core.program.exact_table import ExactTable, UnprovenError
from nas_core.program.recording import OutOfTimeError, Recorder
from nas_core.space.genotypes import Rule
from tests.benchmarks.knapsacks import mmkp, problem_of
from tests.nas_core.program.oracle import brute_force
from tests.nas_core.program.random_problems import random_problem
from tests.nas_core.program.test_branching import _too_large

NEVER_ENDS = float("inf")


def recorded(claim: Claim) -> dict[str, Any]:
    recorder = Recorder(claim, claim.everything(), NEVER_ENDS)
    assert recorder.fits
    leaf = recorder.leaf()
    assert leaf is not None
    return dict(json.loads(json.dumps(leaf)))


def several_limits(seed: int, style: str) -> SelectionProblem:
    """Groups of one to four choices, four limits (one of them from below), a rule, and networks that are forbidden."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, 6).tolist()

    def numbers() -> list[list[float]]:
        match style:
            case "whole":
                return [rng.integers(-9, 10, n).tolist() for n in sizes]
            case "huge":
                return [(rng.integers(0, 1000, n) * 10**12 + rng.integers(0, 9, n)).tolist() for n in sizes]
            case "masked":
                return [np.where(rng.random(n) < 0.2, -1e30, np.round(rng.random(n), 6)).tolist() for n in sizes]
        return [rng.random(n).tolist() for n in sizes]

    costs = {f"c{k}": [np.abs(row).tolist() for row in numbers()] for k in range(4)}
    usual = {name: sum(float(np.median(row)) for row in rows) for name, rows in costs.items()}
    upper = [Budget(resource=name, at_most=usual[name] * rng.uniform(0.9, 1.3)) for name in ("c0", "c1", "c2")]
    return SelectionProblem(
        score=numbers(),
        costs=costs,
        budgets=(*upper, Budget(resource="c3", at_least=usual["c3"] * rng.uniform(0.5, 0.9))),
        rules=(Rule(kind="forbid", blocks=((0, 0), (1, 0))),),
        forbidden=tuple(tuple(int(rng.integers(n)) for n in sizes) for _ in range(3)),
    )


def with_two_best(seeds: int, style: str) -> Iterator[tuple[ExactTable, Fraction, list[Fraction]]]:
    """(the table, the best network's value, bounds that it is above) of problems with two networks or more."""
    for seed in range(seeds):
        problem = several_limits(seed, style)
        best = brute_force(problem, 2)
        if len(best) == 2:
            stored = ExactTable(write_problem(problem), None)
            first, second = (stored.value(selection.genotype.choices) for selection in best)
            yield stored, first, sorted({second, first - Fraction(1, 10**30)} - {first})


def random_vectors(rng: np.random.Generator, num_rows: int) -> list[list[int]]:
    """Five vectors: a unit and the rows' multipliers, of up to 28 bits."""
    tables = [rng.integers(0, 1 << int(rng.integers(1, 28)), num_rows + 1) for _ in range(5)]
    return [[max(1, int(v[0])), *v[1:].tolist()] for v in tables]


def some_rows(rng: np.random.Generator, claim: Claim) -> list[int]:
    return list(rng.permutation(len(claim.rows))[: int(rng.integers(0, len(claim.rows) + 1))].tolist())


@pytest.mark.parametrize("style", ["whole", "huge", "masked", "float"])
@pytest.mark.parametrize("most", [3, 20_000])
def test_lists_show_what_looking_at_all_networks_shows(style: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best network's value is shown; of one unit less the recorder says which network is above it."""
    monkeypatch.setattr(recording, "MOST_PARTS", most)
    num_shown = 0
    for stored, first, too_low in with_two_best(12, style):
        claim = Claim(stored, first)
        leaf = recorded(claim)
        claim.check_lists(leaf, claim.everything())
        num_shown += 1
        for bound in too_low:
            untrue = Claim(stored, bound)
            with pytest.raises(UnprovenError, match="above it"):
                Recorder(untrue, untrue.everything(), NEVER_ENDS).leaf()
            with pytest.raises(UnprovenError, match="list"):
                untrue.check_lists(leaf, untrue.everything())
    assert num_shown > 6


@pytest.mark.parametrize("kind", ["additive", "fractional", "dinkelbach", "ratio"])
def test_lists_show_every_objective_beside_earlier_answers(kind: str) -> None:
    num_shown = 0
    for seed in range(60):
        problem = random_problem(seed, kind)
        best = brute_force(problem, 3)
        if len(best) < 3:
            continue
        names, stored = [str(selection.genotype) for selection in best], write_problem(problem)
        values = [ExactTable(stored, s.genotype.resolution).value(s.genotype.choices) for s in best]
        bound = values[2] + rounded_by(stored, values[2], Fraction(1, 10**40))
        for table in problem.tables:
            claim = Claim(ExactTable(stored, table.resolution), bound, names[:2])
            if Recorder(claim, claim.everything(), NEVER_ENDS).fits:
                claim.check_lists(recorded(claim), claim.everything())
                num_shown += 1
    assert num_shown > 10


def a_random_list(rng: np.random.Generator, left: list[int], num_vectors: int) -> dict[str, Any]:
    """A tree that goes on whatever is left, by vectors and positions drawn at random."""
    if not left:
        return {}
    taken = rng.permutation(left)[: int(rng.integers(1, len(left) + 1))].tolist()
    after = [p for p in left if p not in taken]
    return {
        "by": rng.integers(0, num_vectors, int(rng.integers(0, 4))).tolist(),
        "groups": taken,
        "pieces": [a_random_list(rng, after, num_vectors) for _ in range(int(rng.integers(1, 3)))],
    }


@pytest.mark.parametrize("style", ["whole", "huge", "masked", "float"])
def test_no_lists_show_a_bound_below_the_best_network(style: str) -> None:
    rng, num_shown = np.random.default_rng(0), 0
    for stored, first, too_low in with_two_best(8, style):
        for _ in range(3):
            claim = Claim(stored, first)
            rows = some_rows(rng, claim)
            vectors = random_vectors(rng, len(rows))
            tree = a_random_list(rng, [group[0] for group in claim.groups], len(vectors))
            leaf = {"rows": rows, "vectors": vectors, "list": tree}
            claim.check_lists(leaf, claim.everything())  # what is left is looked at: true whatever the vectors are
            num_shown += 1
            for bound in too_low:
                with pytest.raises(UnprovenError, match="above the bound"):
                    Claim(stored, bound).check_lists(leaf, claim.everything())
    assert num_shown > 10


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return certificate_of_branching()


def certificate_of_branching(**of_recording: int) -> dict[str, Any]:
    """The certificate of a problem that branching proves, recorded with some of the recorder's numbers."""
    problem = problem_of(mmkp("I02"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas_core.program.additive.core.levels", _too_large)
        patch.setattr(certificate, "TREE_SHARE", 0.0)
        for name, number in {"MOST_PARTS": 200, **of_recording}.items():
            patch.setattr(recording, name, number)
        result = solve(problem)
        assert result.route == "branching"
        return dict(json.loads(json.dumps(certify(problem, result))))


def leaf_of(data: dict[str, Any]) -> dict[str, Any]:
    return dict(data["proofs"][0]["tables"][0])["tree"]


def test_a_branching_proof_is_replayed(written: dict[str, Any]) -> None:
    assert (written["status"], written["certified"], written["message"]) == ("optimal", True, "")
    assert "list" in leaf_of(written)
    assert len(check_certificate(written)) == 2


def refused(written: dict[str, Any], change: Callable[[dict[str, Any]], object], says: str) -> None:
    data = copy.deepcopy(written)
    change(data)
    with pytest.raises(UnprovenError, match=says):
        check_certificate(json.loads(json.dumps(data)))


def test_a_bound_that_is_too_low_is_refused(written: dict[str, Any]) -> None:
    second = brute_force_second()

    def lower(data: dict[str, Any]) -> None:
        data["answers"] = [{"genotype": str(second.genotype), "value": str(Fraction(second.value))}]
        data["proofs"][0]["bound"] = str(Fraction(second.value))

    refused(written, lower, "list")


def brute_force_second() -> Any:
    from nas_core.program import top_k

    return top_k(problem_of(mmkp("I02")), 2).selections[1]


def test_a_better_block_is_found_by_the_lists(written: dict[str, Any]) -> None:
    def better(data: dict[str, Any]) -> None:
        taken = [int(c) for c in data["answers"][0]["genotype"].split("-")]
        data["problem"]["score"][0][(taken[0] + 1) % 5] += 40

    refused(written, better, "list")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda leaf: leaf["list"].update(pieces=[]), "parts of networks"),
        (lambda leaf: leaf["list"].update(groups=[]), "no position"),
        (lambda leaf: leaf["list"].update(groups=[0, 0]), "no choice yet"),
        (lambda leaf: leaf["list"]["pieces"][0].update(groups=leaf["list"]["groups"]), "no choice yet"),
        (lambda leaf: leaf["list"].update(by=[len(leaf["vectors"])]), "vectors"),
        (lambda leaf: leaf["list"].update(by=[-1]), "vectors"),
        (lambda leaf: leaf["vectors"][0].__setitem__(1, -1), "vector"),
        (lambda leaf: leaf["vectors"][0].__setitem__(0, 0), "vector"),
        (lambda leaf: leaf["vectors"][0].__setitem__(1, 0.5), "vector"),
        (lambda leaf: leaf["vectors"][0].__setitem__(1, 1 << 40), "vector"),
        (lambda leaf: leaf["vectors"][0].pop(), "vector"),
        (lambda leaf: leaf.update(rows=[*leaf["rows"][1:], 99]), "rows"),
    ],
)
def test_what_lists_may_not_say_is_refused(written: dict[str, Any], change: Callable[[Any], object], says: str) -> None:
    refused(written, lambda data: change(leaf_of(data)), says)


def test_other_multipliers_show_it_or_are_refused(written: dict[str, Any]) -> None:
    """Multipliers of nothing drop nothing: the lists that they leave are too long, or are looked at one by one."""

    def none(data: dict[str, Any]) -> None:
        leaf_of(data)["vectors"] = [[1, *[0] * len(v[1:])] for v in leaf_of(data)["vectors"]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas_core.program.claim.MOST_LISTED", 1_000)
        refused(written, none, "more than 1000 parts")
    data = copy.deepcopy(written)
    rng = np.random.default_rng(1)
    for vector in leaf_of(data)["vectors"]:
        vector[1:] = [round(n * rng.uniform(0.8, 1.2)) for n in vector[1:]]
    assert check_certificate(data)  # any multipliers are right


def test_where_no_value_is_claimed_lists_show_nothing() -> None:
    problem = problem_of(mmkp("I02"))
    claim = Claim(ExactTable(write_problem(problem), None), None)
    assert not Recorder(claim, claim.everything(), NEVER_ENDS).fits
    with pytest.raises(UnprovenError, match="claim of a value"):
        claim.check_lists({"rows": [], "vectors": [], "list": {}}, claim.everything())


def test_the_deadline_ends_the_recording() -> None:
    problem = problem_of(mmkp("I03"))
    claim = Claim(ExactTable(write_problem(problem), None), Fraction(3661))
    with pytest.raises(OutOfTimeError):
        Recorder(claim, claim.everything(), 0.0).leaf()
