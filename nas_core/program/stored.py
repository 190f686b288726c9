"""Reads a stored problem (``PROBLEM.json``); ``JSON_SCHEMA`` and ``SelectionProblem.from_dict`` document its keys."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from nas_core.base.errors import ConfigError
from nas_core.program.exact import evaluate
from nas_core.program.limits import parse_limit
from nas_core.program.problem import Budget, Objective, Pair, SelectionProblem, Table
from nas_core.space.genotypes import BlockId, Genotype, Rule

T = TypeVar("T")
LARGEST = 1e100  # of any number in a stored problem
_KIND_NAMES: dict[type, str] = {list: "a list", str: "a text", dict: "an object"}
_TABLE_KEYS = ("score", "base_score", "costs", "base_costs")

_TABLE_SCHEMA: dict[str, Any] = {
    "score": {
        "description": "score of every block, one list per position; higher is better",
        "type": "array",
        "minItems": 1,
        "items": {"type": "array", "minItems": 1, "items": {"type": "number"}},
    },
    "base_score": {"description": "a constant added to the summed scores", "type": "number", "default": 0},
    "costs": {
        "description": "resource -> cost of every block, shaped like score, in the resource's own unit",
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    },
    "base_costs": {
        "description": "resource -> a constant added to its total (stem, head, base network)",
        "type": "object",
        "additionalProperties": {"type": "number"},
    },
}
_BLOCK_SCHEMA = {"description": "[position, choice]", "type": "array", "items": {"type": "integer"}, "minItems": 2}

# JSON Schema (2020-12) of a stored problem.
JSON_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Selection problem",
    "type": "object",
    "additionalProperties": False,
    "oneOf": [{"required": ["score"]}, {"required": ["resolutions"]}],
    "properties": {
        **_TABLE_SCHEMA,
        "resolutions": {
            "description": "instead of score and costs: one table per input resolution, of which one is chosen as well",
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["resolution", "score"],
                "properties": {"resolution": {"description": "in pixels", "type": "integer"}, **_TABLE_SCHEMA},
            },
        },
        "budgets": {
            "description": "bounds on totals, inclusive; a text such as 'latency_ms <= 12 ms' or 'flops = 60%'",
            "type": "array",
            "items": {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["resource"],
                        "properties": {
                            "resource": {"type": "string"},
                            "at_most": {"type": "number"},
                            "at_least": {"type": "number"},
                        },
                    },
                ]
            },
        },
        "base": {"description": "the network that percentages are of, such as '0-0-1'", "type": "string"},
        "rules": {
            "description": "forbid: not all of blocks; require: one of blocks; implies: the first needs one of the "
            "rest; at_most: count of blocks; equal: the same choice at all positions",
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["kind"],
                "properties": {
                    "kind": {"enum": ["forbid", "require", "implies", "at_most", "equal"]},
                    "blocks": {"type": "array", "items": _BLOCK_SCHEMA},
                    "count": {"type": "integer"},
                    "positions": {"type": "array", "items": {"type": "integer"}},
                },
            },
        },
        "objective": {
            "description": "additive: base_score + S; fractional: base_score + S * (reference / F)^exponent; "
            "ratio: (base_score + S) / F; S = summed scores and pair terms, F = total of resource",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "kind": {"enum": ["additive", "fractional", "ratio"], "default": "additive"},
                "resource": {"type": "string"},
                "reference": {"type": "number", "exclusiveMinimum": 0},
                "exponent": {"type": "number", "minimum": 0, "maximum": 1, "default": 1},
            },
        },
        "forbidden": {"description": "whole networks to exclude", "type": "array", "items": {"type": "string"}},
        "pairs": {
            "description": "what taking two blocks together adds to the summed scores",
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["blocks", "value"],
                "properties": {
                    "blocks": {"type": "array", "items": _BLOCK_SCHEMA, "minItems": 2, "maxItems": 2},
                    "value": {"type": "number"},
                },
            },
        },
        "positions": {
            "description": "names of the positions, for people",
            "type": "array",
            "items": {"type": "string"},
        },
    },
}
_KEYS = tuple(JSON_SCHEMA["properties"])


def read_problem(data: Mapping[str, Any]) -> SelectionProblem:
    """The problem that ``data`` describes; raises NasError where it does not describe one."""
    _known_keys(data, _KEYS, "problem")
    tables = tuple(_table(row, f"resolutions[{i}]") for i, row in enumerate(_list(data, "resolutions")))
    single = {key: data[key] for key in _TABLE_KEYS if key in data}
    if tables and single:
        raise ConfigError("problem", f"resolutions and {', '.join(single)}", "one of them")
    shape = {"resolutions": tables} if tables else _table_fields(single, "problem")
    unlimited = SelectionProblem(
        **shape,
        rules=tuple(_rule(row, f"rules[{i}]") for i, row in enumerate(_list(data, "rules"))),
        objective=_objective(data.get("objective", {})),
        forbidden=tuple(Genotype.parse(_of_type(text, str, "forbidden")) for text in _list(data, "forbidden")),
        pairs=dict(_pair(row, f"pairs[{i}]") for i, row in enumerate(_list(data, "pairs"))),
        positions=tuple(_of_type(name, str, "positions") for name in _list(data, "positions")),
    )
    base_costs = _base_costs(unlimited, data.get("base"))
    budgets = [_budget(row, unlimited, base_costs, f"budgets[{i}]") for i, row in enumerate(_list(data, "budgets"))]
    return unlimited.with_budgets(budgets)


def _of_type(value: Any, kind: type[T], where: str) -> T:
    if not isinstance(value, kind):
        raise ConfigError(where, repr(value), _KIND_NAMES[kind])
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(where, repr(value), "a number")
    if LARGEST < abs(value) < math.inf:  # sums of such overflow
        raise ConfigError(where, f"{str(value)[:20]}...", f"a number of at most {LARGEST:g}")
    return float(value)


def _integer(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(where, repr(value), "an integer")
    return value


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    return _of_type(data.get(key, []), list, key)


def _known_keys(data: Any, keys: Sequence[str], where: str) -> None:
    if not isinstance(data, Mapping):
        raise ConfigError(where, repr(data)[:60], f"an object with {', '.join(keys)}")
    for key in data:
        if key not in keys:
            raise ConfigError(f"{where}.{key}", "an unknown key", f"one of {', '.join(keys)}")


def _ragged(rows: Any, where: str) -> tuple[tuple[float, ...], ...]:
    return tuple(
        tuple(_number(value, f"{where}[{p}][{c}]") for c, value in enumerate(_of_type(row, list, f"{where}[{p}]")))
        for p, row in enumerate(_of_type(rows, list, where))
    )


def _table_fields(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    if "score" not in data:
        raise ConfigError(f"{where}.score", "nothing", "a list of positions, each a list of one number per block")
    costs = _of_type(data.get("costs", {}), dict, f"{where}.costs")
    bases = _of_type(data.get("base_costs", {}), dict, f"{where}.base_costs")
    return {
        "score": _ragged(data["score"], f"{where}.score"),
        "base_score": _number(data.get("base_score", 0.0), f"{where}.base_score"),
        "costs": {name: _ragged(rows, f"{where}.costs.{name}") for name, rows in costs.items()},
        "base_costs": {name: _number(value, f"{where}.base_costs.{name}") for name, value in bases.items()},
    }


def _table(data: Any, where: str) -> Table:
    _known_keys(data, ("resolution", *_TABLE_KEYS), where)
    return Table(resolution=_integer(data.get("resolution"), f"{where}.resolution"), **_table_fields(data, where))


def _block(data: Any, where: str) -> BlockId:
    if not isinstance(data, list) or len(data) != 2:
        raise ConfigError(where, repr(data), "[position, choice]")
    return (_integer(data[0], where), _integer(data[1], where))


def _rule(data: Any, where: str) -> Rule:
    _known_keys(data, ("kind", "blocks", "count", "positions"), where)
    kinds = ("forbid", "require", "implies", "at_most", "equal")
    if data.get("kind") not in kinds:
        raise ConfigError(f"{where}.kind", repr(data.get("kind")), f"one of {', '.join(kinds)}")
    blocks = tuple(_block(block, f"{where}.blocks") for block in _list(data, "blocks"))
    positions = tuple(_integer(p, f"{where}.positions") for p in _list(data, "positions"))
    count = _integer(data.get("count", 1), f"{where}.count")
    return Rule(kind=data["kind"], blocks=blocks, count=count, positions=positions)


def _objective(data: Any) -> Objective:
    _known_keys(data, ("kind", "resource", "reference", "exponent"), "objective")
    numbers = {key: _number(data[key], f"objective.{key}") for key in ("reference", "exponent") if key in data}
    texts = {key: _of_type(data[key], str, f"objective.{key}") for key in ("kind", "resource") if key in data}
    return Objective(**texts, **numbers)  # type: ignore[arg-type]  # Objective checks the kind


def _pair(data: Any, where: str) -> tuple[Pair, float]:
    _known_keys(data, ("blocks", "value"), where)
    blocks = _of_type(data.get("blocks"), list, f"{where}.blocks")
    if len(blocks) != 2:
        raise ConfigError(f"{where}.blocks", repr(blocks), "two blocks, [[p, c], [q, d]]")
    first, second = (_block(block, f"{where}.blocks") for block in blocks)
    return (first, second), _number(data.get("value"), f"{where}.value")


def _base_costs(problem: SelectionProblem, base: Any) -> dict[str, float] | None:
    if base is None:
        return None
    genotype = Genotype.parse(_of_type(base, str, "base"))
    labels = [table.resolution for table in problem.tables]
    fits = genotype.resolution in labels and len(genotype.choices) == problem.num_positions
    if not fits or any(not 0 <= c < n for c, n in zip(genotype.choices, problem.num_choices, strict=True)):
        raise ConfigError("base", base, f"a network with choices below {problem.num_choices} at resolution {labels}")
    return {name: float(total) for name, total in evaluate(problem, genotype).costs.items()}


def _budget(data: Any, problem: SelectionProblem, base_costs: dict[str, float] | None, where: str) -> Budget:
    if isinstance(data, str):
        return parse_limit(data).resolve(base_costs, resources=problem.resources)
    _known_keys(data, ("resource", "at_most", "at_least"), where)
    bounds = {side: _number(data[side], f"{where}.{side}") for side in ("at_most", "at_least") if side in data}
    return Budget(resource=_of_type(data.get("resource"), str, f"{where}.resource"), **bounds)
