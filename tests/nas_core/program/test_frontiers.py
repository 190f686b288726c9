import numpy as np
import pytest

from nas_core.base.errors import ConfigError
from nas_core.program import SelectionProblem, Status, frontier, frontier2, verify
from nas_core.program.exact import evaluate, violations
from tests.nas_core.program.oracle import networks
from tests.nas_core.program.random_problems import KINDS, random_problem


def undominated(problem: SelectionProblem, resources: tuple[str, ...]) -> list[tuple[float, ...]]:
    """The slow obvious frontier as (value, -cost, ...) rows."""
    rows = set()
    for genotype in networks(problem):
        totals = evaluate(problem, genotype)
        if not violations(problem, genotype, totals.costs):
            rows.add((totals.value, *(-totals.costs[name] for name in resources)))
    kept = [r for r in rows if not any(o != r and all(a >= b for a, b in zip(o, r, strict=True)) for o in rows)]
    return sorted(tuple(map(float, row)) for row in kept)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", ["every network", "others"])
def test_frontiers_are_those_of_brute_force(kind: str, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if route == "others":
        monkeypatch.setattr("nas_core.program.enumeration.MAX_NETWORKS", 0)
    for seed in range(30 if route == "every network" else 8):
        problem = random_problem(seed, kind)
        for resources in (problem.resources[:1], problem.resources[:2]):
            if len(resources) == 0:
                continue
            found = frontier(problem, *resources) if len(resources) == 1 else frontier2(problem, *resources)
            rows = sorted((p.value, *(-p.costs[name] for name in resources)) for p in found.points)
            expected = undominated(problem, resources)
            assert len(rows) == len(expected), f"{kind} {seed} {resources}"
            np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-9)
            assert found.status is (Status.OPTIMAL if expected else Status.INFEASIBLE)
            for point in found.points:
                verify(problem, point)


@pytest.mark.parametrize("resources", [("a",), ("a", "b")])
def test_position_by_position_equals_looking_at_all(
    resources: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    score, first, second = rng.integers(0, 30, (3, 5, 6)).tolist()
    problem = SelectionProblem(score=score, costs={"a": first, "b": second})
    find = frontier if len(resources) == 1 else frontier2
    by_all = find(problem, *resources)
    monkeypatch.setattr("nas_core.program.enumeration.MAX_NETWORKS", 0)
    by_positions = find(problem, *resources)
    assert (by_all.route, by_positions.route) == ("every network", "position by position")
    rows = [[(p.value, p.costs) for p in found.points] for found in (by_all, by_positions)]
    assert rows[0] == rows[1]


def test_an_unknown_resource_is_refused() -> None:
    with pytest.raises(ConfigError, match="joule"):
        frontier(SelectionProblem(score=((0.0,),), costs={"ms": ((1.0,),)}), "joule")
