"""YAML as it is read and written here: strictly, by YAML 1.2's core schema, whatever the file's encoding marks.

Words such as ``yes``, ``off`` or ``2024-01-01`` stay text, and ``010`` is ten
(https://yaml.org/spec/1.2.2/#103-core-schema); a key that stands twice is an
error. Beyond the schema, digits may be grouped (``1_000``), and a whole number
with an exponent (``5e6``) is whole.
"""

import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from nas_core.base.errors import ConfigError

_TAG = "tag:yaml.org,2002:"
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(rf"[-+]?{_DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]{{1,4}})?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_MOST_DIGITS = 400  # of a number: more are no number that anybody means


class _DoubleKeyError(yaml.YAMLError):
    """Which key stands twice, and where."""


class _Reader(yaml.SafeLoader):
    """Plain data only; knows the core schema's scalars, and no key twice."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (a list per first character, as PyYAML keeps them)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == f"{_TAG}merge":  # what an alias brings gives way to the mapping's own keys
                continue
            key, start = self.construct_object(key_node, deep=True), key_node.start_mark
            if not isinstance(key, Hashable):
                raise yaml.MarkedYAMLError(problem="a key that is a list or a mapping", problem_mark=start)
            line = start.line + 1
            if key in lines:
                raise _DoubleKeyError(f"the key {key!r} twice, in lines {lines[key]} and {line}")
            lines[key] = line
        return super().construct_mapping(node, deep)


class _Writer(yaml.SafeDumper):
    """Quotes what older or newer readers of YAML would take for something else than text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: list(rules) for first, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }


def _integer(loader: _Reader, node: yaml.ScalarNode) -> int:
    text = _number_text(loader, node)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


def _float(loader: _Reader, node: yaml.ScalarNode) -> float | int:
    text = _number_text(loader, node).lower()
    if text.endswith(("inf", "nan")):
        return float(text.replace(".", ""))
    value = float(text)
    is_whole = "." not in text and math.isfinite(value) and abs(value) < 2**63 and value.is_integer()
    return int(value) if is_whole else value


def _truth(loader: _Reader, node: yaml.ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() == "true"


def _number_text(loader: _Reader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node)).replace("_", "")
    if len(text) > _MOST_DIGITS:
        raise yaml.MarkedYAMLError(problem=f"a number of {len(text):,} digits", problem_mark=node.start_mark)
    return text


for _kind, _pattern, _first in (
    ("bool", _BOOL, "tTfF"),
    ("null", _NULL, ["~", "n", "N", ""]),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
    ("merge", re.compile("<<"), "<"),
):
    _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
    _Reader.add_implicit_resolver(f"{_TAG}{_kind}", _whole, list(_first))
    _Writer.add_implicit_resolver(f"{_TAG}{_kind}", _whole, list(_first))
_Reader.add_constructor(f"{_TAG}int", _integer)
_Reader.add_constructor(f"{_TAG}float", _float)
_Reader.add_constructor(f"{_TAG}bool", _truth)


def read_yaml(text: str | bytes, source: str, expected: str = "YAML") -> Any:
    """The data in YAML text, with or without a byte order mark; ``source`` is what errors call it.

    Raises:
        ConfigError: if it is no YAML, with the line, or a key stands twice, with both lines.
    """
    try:
        reader = _Reader(
            text.decode("utf-8-sig") if isinstance(text, bytes) else text
        )  # makes no objects: a SafeLoader
        try:
            data = reader.get_single_data()
            _check_ends(data, set(), set())
            return data
        finally:
            reader.dispose()
    except UnicodeDecodeError as error:
        raise ConfigError(source, f"bytes that are no UTF-8 text ({error.reason})", expected) from None
    except _DoubleKeyError as error:
        raise ConfigError(source, str(error), "every key once") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(source, _mistake(error), expected) from None


def read_yaml_file(path: str | Path, source: str = "", advice: str = "") -> Any:
    """The data in a YAML file; errors as ``read_yaml``, and for a file that cannot be read."""
    source = source or str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(source, error.strerror or str(error), "a readable YAML file", advice) from None
    return read_yaml(data, source)


def write_yaml(data: Any, **options: Any) -> str:
    """The data as YAML that every reader takes for the same; options as PyYAML's."""
    text: str = yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=True, **options)
    return text


def _check_ends(data: Any, above: set[int], done: set[int]) -> None:
    """Raises ValueError for data that hold themselves, as an anchor can make them; ``done`` are looked at once."""
    if not isinstance(data, list | dict) or id(data) in done:
        return
    if id(data) in above:
        raise ValueError("an anchor that holds itself")
    above.add(id(data))
    for each in data.values() if isinstance(data, dict) else data:
        _check_ends(each, above, done)
    above.discard(id(data))
    done.add(id(data))


def _mistake(error: Exception) -> str:
    """What is wrong with a text that is no YAML, and in which line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if problem and problem.startswith("but "):
        problem = f"{error.context}, {problem}"  # type: ignore[attr-defined]
    words = " ".join(str(problem or error).split())[:300].removeprefix("found ")
    return f"{words} in line {mark.line + 1}, column {mark.column + 1}" if mark else words
