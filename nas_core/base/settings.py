"""Sections of a configuration: frozen pydantic models, unknown keys refused; how they are read from YAML.

The YAML file, the dashboard's form and the command line's ``--set`` are all
checked here, before any compute is spent. Every field has a description, and
a unit and a range where it is a number.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from nas_core.base.errors import ConfigError

# fields that name a file or a folder
PATHS = (("space", "file"), ("data", "path"), ("scorer", "path"), ("program", "latency_table"))


BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"


def _title(name: str, _: object) -> str:
    """``batch_timeout_s`` as a person reads it in a form: Batch timeout, seconds."""
    words = name.removesuffix("_s").replace("_", " ")
    return words[:1].upper() + words[1:] + (", seconds" if name.endswith("_s") else "")


def _say_ranges(schema: dict[str, Any]) -> None:
    """Put each number's range into its description: forms show that and not the bounds."""
    for field in schema.get("properties", {}).values():
        for alternative in (field, *field.get("anyOf", ())):
            words = _range_in_words(alternative)
            if words and "description" in field:
                field["description"] += f" {words}"


def _range_in_words(schema: Mapping[str, Any]) -> str:
    """``From 1 to 100.``, ``Above 0, at most 1.``, or nothing for what has no bounds."""
    if {"minimum", "maximum"} <= schema.keys():
        return f"From {schema['minimum']:,g} to {schema['maximum']:,.15g}."
    named = [f"{words} {schema[bound]:,.15g}" for bound, words in BOUNDS.items() if bound in schema]
    return f"{', '.join(named).capitalize()}." if named else ""


class Section(BaseModel):
    """A part of the configuration: frozen, and any key it does not know is an error."""

    how_to_make: ClassVar[str] = ""  # advice where its file is missing

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        field_title_generator=_title,
        json_schema_extra=_say_ranges,
    )

    def as_yaml(self) -> bytes:
        """Every field, defaults included, as ``load_as`` reads it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True).encode()


Configuration = TypeVar("Configuration", bound=Section)


def parse_as(kind: type[Configuration], data: Mapping[str, Any], source: str) -> Configuration:
    """The checked configuration.

    Raises:
        ConfigError: with the first wrong field's path, its value and what is allowed.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        found = "nothing" if first["type"] == "missing" else repr(first["input"])[:200]
        more = error.error_count() - 1
        advice = f"{more} more wrong fields." if more else ""
        expected = _expectation(kind, first, path)
        raise ConfigError(f"{source}: {path or 'top level'}", found, expected, advice) from None


def _expectation(kind: type[Section], error: Any, path: str) -> str:
    """What is allowed, in words; for an unknown key, the keys of its section."""
    if error["type"] == "missing":
        return "a value, it has no default"
    if error["type"] != "extra_forbidden":
        return re.sub(r"^(Input should be|Value error,) ", "", str(error["msg"]))
    section: Any = kind
    for part in path.split(".")[:-1]:
        field = getattr(section, "model_fields", {}).get(part)
        section = field.annotation if field is not None else section
    known = ", ".join(getattr(section, "model_fields", {})) or "a key of its section"
    return f"one of the keys: {known}"


def read_as(kind: type[Configuration], path: str | Path, overrides: Mapping[str, str] | None = None) -> Configuration:
    """The configuration in a YAML file, with dotted overrides such as ``{"scorer.recipe.epochs": "2"}``.

    Raises:
        ConfigError: if the file is missing, is no YAML mapping, or a field is wrong.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(str(path), error.strerror, "a readable YAML file", kind.how_to_make) from None
    return load_as(kind, text, source=str(path), overrides=overrides, folder=Path(path).absolute().parent)


def load_as(
    kind: type[Configuration],
    text: bytes,
    *,
    source: str,
    overrides: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Configuration:
    """The configuration in YAML text; ``source`` is what errors call it. Raises as ``read_as``.

    Relative paths in it are relative to ``folder``, where one is given.
    """
    try:
        data = yaml.safe_load(text.decode())
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(source, yaml_mistake(error), "YAML") from None
    if not isinstance(data, dict):
        raise ConfigError(source, type(data).__name__, "a mapping of sections such as `space:` and `data:`")
    for dotted, value in (overrides or {}).items():
        _override(data, dotted, value)
    for section, field in PATHS:
        _resolve_path(data, section, field, folder)
    return parse_as(kind, data, source)


def yaml_mistake(error: Exception) -> str:
    """What is wrong with a text that is no YAML, and in which line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    words = " ".join(str(problem or error).split())[:300]
    return f"{words} in line {mark.line + 1}, column {mark.column + 1}" if mark else words


def _resolve_path(data: dict[str, Any], section: str, field: str, folder: Path | None) -> None:
    """Environment variables and ``~`` expanded; relative paths joined to the folder."""
    fields = data.get(section)
    if isinstance(fields, dict) and isinstance(fields.get(field), str):
        path = Path(os.path.expandvars(fields[field])).expanduser()
        fields[field] = str(path if folder is None else folder / path)


def _override(data: dict[str, Any], dotted: str, text: str) -> None:
    *sections, last = dotted.split(".")
    target = data
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {dotted}", f"{section} is no section", "section.field=value")
    try:
        target[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {dotted}", repr(text), "a YAML value") from None
