"""Sections of a configuration: frozen pydantic models, unknown keys refused; how they are read from YAML.

The YAML file, the dashboard's form and the command line's ``--set`` are all
checked here, before any compute is spent. Every field has a description, and
a unit and a range where it is a number.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from nas_core.base.errors import ConfigError
from nas_core.base.words import first_error, plain

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

    @model_validator(mode="before")
    @classmethod
    def _knows_every_key(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key, value in data.items():
                if key not in cls.model_fields:
                    known = ", ".join(cls.model_fields) or "none: there is nothing to set"
                    raise wrong_field(cls.__name__, str(key), value, f"one of the keys: {known}")
        return data

    def edited(self) -> str:
        """What was read with the section and says something else by now; "" where nothing does."""
        return ""

    def as_yaml(self) -> bytes:
        """Every field, defaults included, as ``load_as`` reads it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True).encode()


def wrong_field(section: str, field: str, value: object, expected: str) -> ValidationError:
    """The error of one field, as pydantic's own validators raise it: its path goes on from the section's."""
    kind = PydanticCustomError("wrong_field", "{expected}", {"expected": expected})
    return ValidationError.from_exception_data(section, [InitErrorDetails(type=kind, loc=(field,), input=value)])


def resolved_path(text: str, info: ValidationInfo) -> str:
    """Environment variables and ``~`` expanded; a relative path is relative to the file that it stands in."""
    folder = (info.context or {}).get("folder")
    path = Path(os.path.expanduser(os.path.expandvars(text)))  # Path.expanduser raises where there is no such user
    return str(path if folder is None else folder / path)


PathText = Annotated[str, AfterValidator(resolved_path)]  # a field that names a file or a folder

Configuration = TypeVar("Configuration", bound=Section)


def parse_as(
    kind: type[Configuration], data: Mapping[str, Any], source: str, folder: Path | None = None
) -> Configuration:
    """The checked configuration; relative paths in it are relative to ``folder``, where one is given.

    Raises:
        ConfigError: with the first wrong field's path, its value and what is allowed.
    """
    try:
        return kind.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        raise wrong_configuration(error, source) from None


def wrong_configuration(error: ValidationError, source: str) -> ConfigError:
    """The first wrong field in words."""
    loc, found, first = first_error(error)
    missing = first["type"] == "missing"
    more = error.error_count() - 1
    return ConfigError(
        f"{source}: {'.'.join(map(str, loc)) or 'top level'}",
        "nothing" if missing else repr(found)[:200],
        "a value, it has no default" if missing else plain(first["msg"]),
        f"{more} more wrong fields." if more else "",
    )


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
    return parse_as(kind, data, source, folder)


def yaml_mistake(error: Exception) -> str:
    """What is wrong with a text that is no YAML, and in which line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    words = " ".join(str(problem or error).split())[:300]
    return f"{words} in line {mark.line + 1}, column {mark.column + 1}" if mark else words


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
