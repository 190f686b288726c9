import json

import pytest

from nas_core.base.errors import NasError
from nas_core.program import JSON_SCHEMA, Budget, Objective, SelectionProblem, read_problem, write_problem
from tests.nas_core.program.random_problems import KINDS, random_problem


@pytest.mark.parametrize("kind", KINDS)
def test_problems_survive_json(kind: str) -> None:
    for seed in range(20):
        problem = random_problem(seed, kind)
        assert read_problem(json.loads(json.dumps(write_problem(problem)))) == problem


def test_the_schema_describes_what_is_written() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(JSON_SCHEMA)
    for kind in KINDS:
        for seed in range(10):
            jsonschema.validate(write_problem(random_problem(seed, kind)), JSON_SCHEMA)


def test_limits_may_be_written_as_text() -> None:
    data = {
        "score": [[0, 1], [0, 2]],
        "costs": {"latency_ms": [[1, 2], [1, 3]]},
        "base": "1-1",
        "budgets": ["latency<=4 ms", "latency_ms>=40%"],
    }
    budgets = read_problem(data).budgets
    assert budgets == (Budget(resource="latency_ms", at_most=4.0), Budget(resource="latency_ms", at_least=2.0))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"score": [[0, 1], []]}, "one block at least"),
        ({"score": None}, "score"),
        ({"score": [[0, "x"], [1, 2]]}, r"problem.score\[0\]\[1\]: found 'x', expected a number"),
        ({"score": [[0, float("nan")], [1, 2]]}, "position 0, choice 1"),
        ({"costs": {"ms": [[1, 2]]}}, "costs.ms"),
        ({"base_costs": {"watt": 1}}, "watt"),
        ({"budgets": [{"resource": "ms"}]}, "at_most, at_least or both"),
        ({"budgets": [{"resource": "joule", "at_most": 1}]}, "a resource of the problem"),
        ({"budgets": ["ms<=50%"]}, "base network"),
        ({"rules": [{"kind": "forbidden"}]}, r"rules\[0\].kind"),
        ({"rules": [{"kind": "forbid", "blocks": [[0, 7]]}]}, "a block"),
        ({"objective": {"kind": "best"}}, "objective.kind"),
        ({"objective": {"kind": "ratio"}}, "objective.resource"),
        ({"objective": {"kind": "fractional", "resource": "ms", "reference": 1, "exponent": 2}}, r"\[0, 1\]"),
        ({"objective": {"kind": "ratio", "resource": "ms"}, "costs": {"ms": [[0, 1], [0, 1]]}}, "above zero"),
        ({"forbidden": ["0-0-0"]}, "2 choices"),
        ({"pairs": [{"blocks": [[0, 0], [0, 1]], "value": 1}]}, "two different positions"),
        ({"limits": []}, "problem.limits: found an unknown key"),
        ({"positions": ["stem"]}, "one per position"),
        ({"resolutions": [{"resolution": 32, "score": [[1]]}]}, "one of them"),
    ],
)
def test_a_wrong_problem_says_where(change: dict, says: str) -> None:
    data = {"score": [[0, 1], [0, 2]], "costs": {"ms": [[1, 2], [1, 3]]}, **change}
    with pytest.raises(NasError, match=says):
        read_problem(data)


def test_resolutions_need_labels() -> None:
    with pytest.raises(NasError, match="exactly one of them"):
        SelectionProblem()
    assert Objective(kind="fractional", resource="f", reference=2.0, exponent=0).is_additive
