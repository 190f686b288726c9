"""The commented configuration that `mathnas init` writes: every field, its default, what it means."""

import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from nas_core.base.registry import ManyOf, OneOf, summary_of
from nas_core.base.yaml_text import write_yaml
from nas_core.study.config import StudyConfig

HEADER = """\
# A study: a family of networks, data, a scorer, limits, and what to do with the winner.
# Every field is shown with its default; delete what you do not change.
# Check it with `mathnas run FILE --dry-run`, run it with `mathnas run FILE`.
"""
LIMITS_EXAMPLE = 'limits: []  # e.g. ["flops<=60%", "latency_ms<=12 ms", "params<=5 M"]; % is of the base network'
WIDTH, INDENT = 110, "  "


def commented_config() -> str:
    """YAML of the defaults, each field under its description; of what has a kind, all that are registered."""
    return HEADER + "\n".join(_lines(StudyConfig(), 0)) + "\n"


def _lines(section: BaseModel, depth: int) -> list[str]:
    """The section's fields, its kind first."""
    lines: list[str] = []
    described = type(section).model_json_schema()["properties"]
    for name in sorted(type(section).model_fields, key=lambda name: name != "kind"):
        field, value = type(section).model_fields[name], getattr(section, name)
        one = next((mark for mark in field.metadata if isinstance(mark, OneOf)), None)
        many = next((mark for mark in field.metadata if isinstance(mark, ManyOf)), None)
        if depth == 0:
            lines.append("")
        choices = described[name].get("enum")
        words = described[name].get("description", "") + (f" One of: {', '.join(choices)}." if choices else "")
        if "const" not in described[name]:  # what the kind is, its list has said
            lines += _comment(words + (" Kinds:" if one else ""), depth)
        lines += _kinds(one, depth) if one else []
        if isinstance(value, BaseModel):
            lines += _section(name, _lines(value, depth + 1), depth)
        elif many:
            lines += _section(name, _settings_of(many, value, depth + 1), depth)
        elif name == "limits":
            lines.append(f"{INDENT * depth}{LIMITS_EXAMPLE}")
        else:
            lines.append(f"{INDENT * depth}{name}: {_inline(value)}")
    return lines


def _kinds(field: OneOf, depth: int) -> list[str]:
    """What may stand under ``kind``, each with what it is."""
    width = max(map(len, field.registry))
    return [
        line
        for name in field.registry
        for line in _comment(f"  {name:<{width}}  {summary_of(field.registry[name])}", depth, hanging=width + 4)
    ]


def _settings_of(field: ManyOf, sections: Mapping[str, BaseModel], depth: int) -> list[str]:
    """The settings of every class that has some."""
    lines: list[str] = []
    for name, section in sections.items():
        if inner := _lines(section, depth + 1):
            lines += [*_comment(summary_of(field.registry[name]), depth), *_section(name, inner, depth)]
    return lines


def _section(name: str, inner: list[str], depth: int) -> list[str]:
    return [f"{INDENT * depth}{name}:", *inner] if inner else [f"{INDENT * depth}{name}: {{}}"]


def _comment(words: str, depth: int, hanging: int = 0) -> list[str]:
    start = INDENT * depth + "# "
    return textwrap.wrap(words, WIDTH, initial_indent=start, subsequent_indent=start + " " * hanging)


def _inline(value: Any) -> str:
    text = write_yaml(value, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")
