"""What a setting allows, in words, and what is wrong with settings: one place for all messages."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

NOUNS = {"integer": "an integer", "number": "a number", "string": "a text", "boolean": "true or false"}


def allowed_values(schema: Mapping[str, Any]) -> str:
    """What the JSON schema of one field allows: ``an odd integer from 1 to 31``, ``one of: relu, gelu``."""
    if "enum" in schema:
        return f"one of: {', '.join(map(str, schema['enum']))}"
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " or ".join(allowed_values(one) for one in schema["anyOf"])
    noun = NOUNS.get(str(schema.get("type")), f"a value of type {schema.get('type', 'any')}")
    noun = noun.replace("an ", "an odd ") if schema.get("odd") else noun
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{noun} from {low:g} to {high:g}"
    bounds = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "below"}
    named = [f"{words} {schema[key]:g}" for key, words in bounds.items() if key in schema]
    return f"{noun}, {' and '.join(named)}" if named else noun


def counted(count: float, noun: str) -> str:
    """A number with its noun: ``1 epoch``, ``0.5 epochs``, ``2,000 steps``."""
    number = f"{count:,.0f}" if count == int(count) else f"{count:g}"
    return f"{number} {noun}{'s' * (count != 1)}"


def plain(message: object) -> str:
    """A validator's message without pydantic's own opening words and the names of our classes."""
    words = re.sub(r"^(Input should be|Value error,) ", "", str(message))
    return re.sub(r"^a valid dictionary( or instance of \w+)?$", "a mapping of keys to values", words)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table for a terminal, its columns under one another; the first row names them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [line.rstrip() for line in lines]


def first_error(error: ValidationError) -> tuple[tuple[int | str, ...], Any, Any]:
    """Path of the first wrong field, what stands there, and pydantic's record of the error."""
    first = error.errors(include_url=False)[0]
    return first["loc"], first["input"], first
