"""Sections of a configuration: frozen pydantic models, unknown keys refused; how they are read from YAML.

The YAML file, the dashboard's form and the command line's ``--set`` are all
checked here, before any compute is spent. Every field has a description, and
a unit and a range where it is a number.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from nas_core.base.errors import ConfigError
from nas_core.base.units import COUNT, parse_amount, unit_of
from nas_core.base.words import counted, first_error, plain
from nas_core.base.yaml_text import read_yaml, write_yaml

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


def _each_once(values: list[Any]) -> list[Any]:
    doubled = [value for index, value in enumerate(values) if value in values[:index]]
    if doubled:
        raise ValueError(f"each of them once ({doubled[0]} is there twice)")
    return values


Element = TypeVar("Element")
Distinct = Annotated[list[Element], AfterValidator(_each_once)]


class Section(BaseModel):
    """A part of the configuration: frozen, and any key it does not know is an error."""

    how_to_make: ClassVar[str] = ""  # advice where its file is missing

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        field_title_generator=_title,
        json_schema_extra=_say_ranges,
        validate_default=True,  # paths among defaults are resolved, too
    )

    @model_validator(mode="before")
    @classmethod
    def _knows_every_key(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        for key, value in data.items():
            if key not in cls.model_fields:
                known = ", ".join(cls.model_fields) or "none: there is nothing to set"
                raise wrong_field(cls.__name__, str(key), value, f"one of the keys: {known}")
        if cls.model_config.get("strict"):
            return data
        return {key: cls._completed(key, cls._with_numbers(key, value)) for key, value in data.items()}

    @classmethod
    def _completed(cls, name: str, value: Any) -> Any:
        default = cls.model_fields[name].default
        return default.completed(value) if isinstance(default, Section) and isinstance(value, Mapping) else value

    def completed(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is given of a field whose default is this section: what is left out is as it is here."""
        return {**self.model_dump(mode="json", exclude_unset=True), **given}

    @classmethod
    def _with_numbers(cls, name: str, value: Any) -> Any:
        """A field's value, the numbers in it as numbers where people wrote ``5M`` or ``1_000``."""
        try:
            return numbers_in(value, cls.model_fields[name].annotation, counts=unit_of(name) is None)
        except ConfigError as error:
            raise wrong_field(cls.__name__, name, value, error.expected) from None

    def what_was_edited(self, code: Mapping[str, str]) -> str:
        """What was read with the section and says something else by now; "" where nothing does.

        ``code`` are the hashes that the space was made with, by name.
        """
        return ""

    def as_yaml(self) -> bytes:
        """Every field, defaults included, as ``load_as`` reads it."""
        return write_yaml(self.model_dump(mode="json")).encode()


def numbers_in(value: Any, annotation: Any, *, counts: bool = True) -> Any:
    """The value, with the texts that stand where the annotation has nothing but numbers read as numbers.

    ``counts`` is whether letters such as the M of ``5M`` are understood: not where the name states a unit.

    Raises:
        ConfigError: for a truth value in place of a number.
    """
    kinds, inner = get_args(annotation), get_origin(annotation)
    if annotation in (int, float):
        if isinstance(value, bool):
            raise ConfigError("", value, "a number, not true or false")
        return as_number(value, counts) if isinstance(value, str) else value
    if inner in (Union, UnionType):
        one = [kind for kind in kinds if kind is not type(None)]
        return numbers_in(value, one[0], counts=counts) if len(one) == 1 and value is not None else value
    if inner in (list, tuple) and isinstance(value, list | tuple) and kinds:
        return [numbers_in(each, kinds[0], counts=counts) for each in value]
    if inner is dict and isinstance(value, Mapping):
        return {key: numbers_in(each, kinds[1], counts=counts) for key, each in value.items()}
    return numbers_in(value, kinds[0], counts=counts) if inner is Annotated else value


def as_number(text: str, counts: bool = True) -> Any:
    """The number that the text is, or the text, of which the field's own check then speaks."""
    try:
        amount = parse_amount(text.strip(), "")
    except ConfigError:
        return text
    if amount.unit not in (COUNT if counts else ("",)):
        return text
    number = amount.number * COUNT[amount.unit]
    return int(number) if number.denominator == 1 else float(number)


def wrong_field(section: str, field: str, value: object, expected: str) -> ValidationError:
    """The error of one field, as pydantic's own validators raise it: its path goes on from the section's."""
    kind = PydanticCustomError("wrong_field", "{expected}", {"expected": expected})
    return ValidationError.from_exception_data(section, [InitErrorDetails(type=kind, loc=(field,), input=value)])


def resolved_path(text: str, info: ValidationInfo) -> str:
    """Environment variables and ``~`` expanded; a relative path is relative to the file that it stands in.

    One that was given in a command is relative to where the command was given.
    """
    context = info.context or {}
    folder = Path.cwd() if text in context.get("from_command", ()) else context.get("folder")
    path = Path(os.path.expanduser(os.path.expandvars(text)))  # Path.expanduser raises where there is no such user
    return str(path if folder is None else folder / path)


PathText = Annotated[str, AfterValidator(resolved_path)]  # a field that names a file or a folder


def named_paths(section: Section, apart: Collection[str] = ()) -> dict[str, str]:
    """What the section's fields of type ``PathText`` name, by dotted field; those of the fields ``apart`` are not."""
    found: dict[str, str] = {}
    for name, field in type(section).model_fields.items():
        if name in apart:
            continue
        value = getattr(section, name)
        if _holds_paths(field.annotation) or any(map(_holds_paths, field.metadata)):
            texts = list(_within(value, str))
            found |= {name if len(texts) == 1 else f"{name}.{index}": text for index, text in enumerate(texts)}
        found |= {
            f"{name}.{inner}": text for each in _within(value, Section) for inner, text in named_paths(each).items()
        }
    return found


def _holds_paths(hint: Any) -> bool:
    """Whether an annotation, or a mark of one, makes texts paths."""
    is_mark = isinstance(hint, AfterValidator) and hint.func is resolved_path
    return is_mark or any(map(_holds_paths, (*get_args(hint), *getattr(hint, "__metadata__", ()))))


Configuration = TypeVar("Configuration", bound=Section)
Kind = TypeVar("Kind")


def parse_as(
    kind: type[Configuration],
    data: Mapping[str, Any],
    source: str,
    folder: Path | None = None,
    from_command: Collection[str] = (),
) -> Configuration:
    """The checked configuration; relative paths in it are relative to ``folder``, where one is given.

    ``from_command`` are the texts that do not stand in the file: paths among them are relative to the working folder.

    Raises:
        ConfigError: with the first wrong field's path, its value and what is allowed.
    """
    try:
        return kind.model_validate(data, context={"folder": folder, "from_command": from_command})
    except ValidationError as error:
        raise wrong_configuration(error, source) from None


def wrong_configuration(error: ValidationError, source: str) -> ConfigError:
    """The first wrong field in words."""
    loc, found, first = first_error(error)
    missing = first["type"] == "missing"
    more = error.error_count() - 1
    advice = [f"{counted(more, 'more wrong field')}."] if more else []
    if first["type"] == "string_type" and isinstance(found, int | float):
        advice.insert(0, "A number or true and false as a text stands in quotes.")
    return ConfigError(
        f"{source}: {'.'.join(map(str, loc)) or 'top level'}",
        "nothing" if missing else repr(found)[:200],
        "a value, it has no default" if missing else plain(first["msg"]),
        " ".join(advice),
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
    data = read_yaml(text, source)
    if not isinstance(data, dict):
        raise ConfigError(source, type(data).__name__, "a mapping of sections such as `space:` and `data:`")
    given: set[str] = set()
    for dotted, value in (overrides or {}).items():
        given |= set(_within(_override(data, dotted, value), str))
    return parse_as(kind, data, source, folder, given)


def _within(value: Any, kind: type[Kind]) -> Iterator[Kind]:
    """Everything of a kind, such as texts, in a value."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _within(each, kind)


def _override(data: dict[str, Any], dotted: str, text: str) -> Any:
    """Put the value that the text is into the data; returns it."""
    *sections, last = dotted.split(".")
    target = data
    for section in sections:
        if isinstance(target.get(section), str):  # a section written as the name of what it starts from
            target[section] = {"name": target[section]}
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {dotted}", f"{section} is no section", "section.field=value")
    is_mark = text.strip() in ("|", ">")  # of a block of text in YAML, which is empty
    target[last] = text.strip() if is_mark else read_yaml(text, f"--set {dotted}={text}", "a YAML value")
    return target[last]
