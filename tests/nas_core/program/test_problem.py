import json

import pytest

from nas_core.base.errors import NasError
from nas_core.program import (
    JSON_SCHEMA,
    Budget,
    Objective,
    SelectionProblem,
    parse_limit,
    read_problem,
    read_problem_file,
    write_problem,
)
from nas_core.program.exact import costs_of_base
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


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path) -> None:
    path = tmp_path / "problem.json"
    path.write_bytes(b'\xef\xbb\xbf{"score": [[0, 1]], "base": "1"}')
    assert str(read_problem_file(path).base) == "1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"score": [[0, 1]], "score": [[0, 2]]}', "'score' twice"),
        ('{"score": [[0, 1]], "costs": {"ms": [[1, 2]], "ms": [[3, 4]]}}', "'ms' twice"),
        ('{"score": [["1", 2]]}', r"score\[0\]\[0\]: found '1', expected a number"),
        ('{"score": [[1, 9007199254740993]]}', "that a float carries"),
        ('{"score": [[1, 1e200]]}', "at most 1e"),
        ('{"score": [[1, NaN]]}', "choice 1"),
        ('{"score": [[1, 2]], "base": "2"}', "base"),
        ("[1]", "a JSON object"),
        ("{", "JSON"),
    ],
)
def test_what_could_be_misread_is_refused_by_name(tmp_path, text: str, says: str) -> None:
    path = tmp_path / "problem.json"
    path.write_text(text)
    with pytest.raises(NasError, match=says):
        read_problem_file(path)


def test_percentages_are_of_the_base_network_that_the_problem_names() -> None:
    problem = read_problem({"score": [[0, 1]], "costs": {"flops": [[100, 200]]}, "base": "1"})
    assert parse_limit("flops<=60%").resolve(costs_of_base(problem)) == Budget(resource="flops", at_most=120.0)
    assert read_problem(write_problem(problem)) == problem
