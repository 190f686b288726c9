"""The commented configuration that `mathnas init` writes: every field, its default, what it means."""

import textwrap
from typing import Any

import yaml
from pydantic import BaseModel

from nas_core.study.config import StudyConfig

HEADER = """\
# A study: a family of networks, data, a scorer, limits, and what to do with the winner.
# Every field is shown with its default; delete what you do not change.
# Check it with `mathnas run FILE --dry-run`, run it with `mathnas run FILE`.
"""
LIMITS_EXAMPLE = 'limits: []  # e.g. ["flops<=60%", "latency_ms<=12 ms", "params<=5 M"]; % is of the base network'
WIDTH = 110


def commented_config() -> str:
    """YAML of the defaults, each field under its description."""
    return HEADER + "\n".join(_lines(StudyConfig(), 0)) + "\n"


def _lines(section: BaseModel, depth: int) -> list[str]:
    lines: list[str] = []
    indent = "  " * depth
    described = type(section).model_json_schema()["properties"]
    for name in type(section).model_fields:
        value = getattr(section, name)
        if depth == 0:
            lines.append("")
        if "description" in described[name]:
            choices = described[name].get("enum")
            words = described[name]["description"] + (f" One of: {', '.join(choices)}." if choices else "")
            lines += textwrap.wrap(words, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if isinstance(value, BaseModel):
            lines += [f"{indent}{name}:", *_lines(value, depth + 1)]
        elif name == "limits":
            lines.append(f"{indent}{LIMITS_EXAMPLE}")
        else:
            lines.append(f"{indent}{name}: {_inline(value)}")
    return lines


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")
