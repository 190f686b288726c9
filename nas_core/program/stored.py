"""Stored problems (``PROBLEM.json``): the one reader and writer; ``StoredProblem`` documents the keys."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from nas_core.base.errors import ConfigError, IncompleteTableError
from nas_core.program.exact import costs_of_base
from nas_core.program.limits import parse_limit
from nas_core.program.problem import Budget, Objective, Ragged, SelectionProblem, Table
from nas_core.space.genotypes import Genotype, Rule

LARGEST = 1e100  # of any number in a stored problem: sums of such do not overflow


class _RefusedError(ValueError):
    """What stands in a field, and what may stand there."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found, expected)
        self.found, self.expected = found, expected


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _RefusedError(repr(value), "a number")
    if LARGEST < abs(value) < math.inf:
        raise _RefusedError(f"{str(value)[:20]}...", f"a number of at most {LARGEST:g}")
    number = float(value)
    if isinstance(value, int) and int(number) != value:
        raise _RefusedError(str(value), f"a number that a float carries, such as {number!r}")
    return number


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _RefusedError(repr(value), "an integer")
    return value


Number = Annotated[float, BeforeValidator(_number), Field(json_schema_extra={"type": "number"})]
Whole = Annotated[int, BeforeValidator(_whole)]
Rows = Annotated[list[list[Number]], Field(strict=True)]
Block = Annotated[list[Whole], Field(min_length=2, max_length=2, description="[position, choice]")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _StoredTable(_Section):
    score: Rows = Field(default=[], description="score of every block, one list per position; higher is better")
    base_score: Number = Field(default=0.0, description="a constant added to the summed scores")
    costs: dict[str, Rows] = Field(
        default={}, description="resource -> cost of every block, shaped like score, in the resource's own unit"
    )
    base_costs: dict[str, Number] = Field(
        default={}, description="resource -> a constant added to its total (stem, head, base network)"
    )


class _StoredResolution(_StoredTable):
    resolution: Whole = Field(description="in pixels")
    score: Rows = Field(description="score of every block, one list per position; higher is better")


class _StoredBudget(_Section):
    resource: str
    at_most: Number | None = None
    at_least: Number | None = None


class _StoredRule(_Section):
    kind: Literal["forbid", "require", "implies", "at_most", "equal"] = Field(
        description="forbid: not all of blocks; require: one of blocks; implies: the first needs one of the rest; "
        "at_most: count of blocks; equal: the same choice at all positions"
    )
    blocks: list[Block] = []
    count: Whole = 1
    positions: list[Whole] = []


class _StoredObjective(_Section):
    kind: Literal["additive", "fractional", "ratio"] = Field(
        default="additive",
        description="additive: base_score + S; fractional: base_score + S * (reference / F)^exponent; "
        "ratio: (base_score + S) / F; S = summed scores and pair terms, F = total of resource",
    )
    resource: str | None = None
    reference: Number | None = None
    exponent: Number = 1.0


class _StoredPair(_Section):
    blocks: list[Block] = Field(min_length=2, max_length=2)
    value: Number = Field(description="what taking both blocks adds to the summed scores")


class StoredProblem(_StoredTable):
    """A selection problem as JSON; all keys but ``score`` (or ``resolutions``) are optional."""

    resolutions: list[_StoredResolution] = Field(
        default=[], description="instead of score and costs: one table per input resolution, of which one is chosen"
    )
    budgets: list[str | _StoredBudget] = Field(
        default=[], description="bounds on totals, inclusive; a text such as 'latency_ms <= 12 ms' or 'flops <= 60%'"
    )
    base: str | None = Field(default=None, description="the network that percentages are of, such as '0-0-1'")
    rules: list[_StoredRule] = []
    objective: _StoredObjective = _StoredObjective()
    forbidden: list[str] = Field(default=[], description="whole networks to exclude")
    pairs: list[_StoredPair] = []
    positions: list[str] = Field(default=[], description="names of the positions, for people")


# JSON Schema (2020-12) of a stored problem.
JSON_SCHEMA: dict[str, Any] = StoredProblem.model_json_schema()


def read_problem(data: Any) -> SelectionProblem:
    """The problem that a stored one describes.

    Raises:
        NasError: says which key, what it holds and what it may hold.
    """
    if not isinstance(data, Mapping):
        raise ConfigError("problem", repr(data)[:60], f"an object with {', '.join(StoredProblem.model_fields)}")
    try:
        stored = StoredProblem.model_validate(dict(data))
    except ValidationError as error:
        raise _first(error) from None
    tables = [key for key in _StoredTable.model_fields if key in stored.model_fields_set]
    if stored.resolutions and tables:
        raise ConfigError("problem", f"resolutions and {', '.join(tables)}", "one of them")
    if not stored.resolutions and not stored.score:
        raise ConfigError("problem.score", "nothing", "a list of positions, each a list of one number per block")
    shape = (
        {"resolutions": tuple(Table(resolution=t.resolution, **_table(t)) for t in stored.resolutions)}
        if stored.resolutions
        else _table(stored)
    )
    unlimited = SelectionProblem(
        **shape,
        rules=tuple(map(_rule, stored.rules)),
        objective=Objective(**{k: v for k, v in stored.objective.model_dump().items() if v is not None}),
        forbidden=tuple(map(Genotype.parse, stored.forbidden)),
        pairs={(_block(p.blocks[0]), _block(p.blocks[1])): p.value for p in stored.pairs},
        positions=tuple(stored.positions),
        base=None if stored.base is None else Genotype.parse(stored.base),
    )
    _refuse_double_pairs(stored)
    return unlimited.with_budgets([_budget(budget, unlimited) for budget in stored.budgets])


def read_problem_file(path: Path) -> SelectionProblem:
    """The problem stored in a file, with or without a byte order mark; no key may stand twice."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_doubles)
    except _RefusedError as refused:
        raise ConfigError(str(path), refused.found, refused.expected) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(str(path), str(error), "a JSON file with a selection problem") from None
    if not isinstance(data, dict):
        raise ConfigError(str(path), type(data).__name__, "a JSON object with a selection problem")
    return read_problem(data)


def write_problem(problem: SelectionProblem) -> dict[str, Any]:
    """The stored form, which ``read_problem`` reads."""
    tables: dict[str, Any] = (
        {"resolutions": [{"resolution": table.resolution, **_written(table)} for table in problem.resolutions]}
        if problem.resolutions
        else _written(problem.tables[0])
    )
    objective = problem.objective
    data = {
        **tables,
        "budgets": [
            _without_none(resource=b.resource, at_most=b.at_most, at_least=b.at_least) for b in problem.budgets
        ],
        "rules": [rule.as_dict() for rule in problem.rules],
        "objective": _without_none(
            kind=objective.kind,
            resource=objective.resource,
            reference=objective.reference,
            exponent=objective.exponent,
        ),
        "forbidden": [str(genotype) for genotype in problem.forbidden],
        "pairs": [{"blocks": [list(a), list(b)], "value": value} for (a, b), value in problem.pairs.items()],
        "positions": list(problem.positions),
    }
    return data if problem.base is None else {**data, "base": str(problem.base)}


def _written(table: Table) -> dict[str, Any]:
    return {
        "score": [list(row) for row in table.score],
        "base_score": table.base_score,
        "costs": {name: [list(row) for row in rows] for name, rows in table.costs.items()},
        "base_costs": dict(table.base_costs),
    }


def _without_none(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _table(stored: _StoredTable) -> dict[str, Any]:
    return {
        "score": _frozen(stored.score),
        "base_score": stored.base_score,
        "costs": {name: _frozen(rows) for name, rows in stored.costs.items()},
        "base_costs": stored.base_costs,
    }


def _frozen(rows: list[list[float]]) -> Ragged:
    return tuple(map(tuple, rows))


def _block(block: list[int]) -> tuple[int, int]:
    return block[0], block[1]


def _rule(stored: _StoredRule) -> Rule:
    blocks, positions = tuple(map(_block, stored.blocks)), tuple(stored.positions)
    return Rule(kind=stored.kind, blocks=blocks, count=stored.count, positions=positions)


def _refuse_double_pairs(stored: StoredProblem) -> None:
    seen: set[frozenset[tuple[int, int]]] = set()
    for i, pair in enumerate(stored.pairs):
        blocks = frozenset(map(_block, pair.blocks))
        if blocks in seen:
            raise ConfigError(f"pairs[{i}]", f"blocks {pair.blocks} again", "each pair of blocks once")
        seen.add(blocks)


def _budget(stored: str | _StoredBudget, problem: SelectionProblem) -> Budget:
    if isinstance(stored, str):
        return parse_limit(stored).resolve(costs_of_base(problem), resources=problem.resources)
    return Budget(resource=stored.resource, at_most=stored.at_most, at_least=stored.at_least)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise _RefusedError(f"the key {double!r} twice in one object", "every key once")
    return data


_EXPECTED = {
    "list_type": "a list",
    "string_type": "a text",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "too_short": "two entries",
    "too_long": "two entries",
}


def _first(error: ValidationError) -> ConfigError | IncompleteTableError:
    """The first complaint as one of ours."""
    row = next((r for r in error.errors() if "str" not in r["loc"]), error.errors()[0])
    where = _path(row["loc"])
    cause = row.get("ctx", {}).get("error")
    if isinstance(cause, _RefusedError):
        return ConfigError(where, cause.found, cause.expected)
    match row["type"]:
        case "extra_forbidden":
            return ConfigError(where, "an unknown key", f"one of {', '.join(_siblings(row['loc']))}")
        case "missing":
            return ConfigError(where, "nothing", "a value")
        case "literal_error":
            return ConfigError(where, repr(row["input"]), f"one of {row['ctx']['expected']}".replace("'", ""))
    return ConfigError(where, repr(row["input"])[:60], _EXPECTED.get(row["type"], row["msg"]))


def _path(location: tuple[int | str, ...]) -> str:
    parts = [part for part in location if part not in ("str", "_StoredBudget")]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
    return text if len(parts) > 1 and parts[0] not in _StoredTable.model_fields else f"problem.{text}"


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "rules": _StoredRule,
        "objective": _StoredObjective,
        "pairs": _StoredPair,
        "budgets": _StoredBudget,
        "resolutions": _StoredResolution,
    }
    section = sections.get(str(location[0]), StoredProblem) if len(location) > 1 else StoredProblem
    return list(section.model_fields)
