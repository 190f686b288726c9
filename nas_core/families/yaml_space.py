"""A search space from a YAML file: registered block kinds, no Python.

``flows/configs/space-example.yaml`` is the commented schema. Every error names
the file and the place in it (``positions[3].blocks[1].kernel``).
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, ValidationInfo, field_validator

from nas_core.base.errors import ConfigError, SpaceError
from nas_core.base.settings import PathText, Section, as_number
from nas_core.base.yaml_text import read_yaml_file
from nas_core.families.blocks import ROWS, STEMS
from nas_core.families.chain_family import Chain, check_space
from nas_core.families.family import FAMILIES
from nas_core.space.genotypes import ABSENT, BlockSpec, Position, SearchSpace
from nas_core.space.rules import BlockId, Rule, RuleKind, absent_to_end

SPACE_KEYS = ("name", "in_channels", "num_classes", "resolutions", "stem", "positions", "head", "rules")
REQUIRED_KEYS = ("name", "stem", "positions", "head")
REQUIRED = "a value (it is required)"
POSITION_KEYS = ("name", "out_channels", "stride", "repeat", "ordered", "blocks")
RULE_KEYS = ("kind", "blocks", "count", "positions")
USED_BY = {
    **dict.fromkeys(("forbid", "require", "implies"), ("blocks",)),
    "at_most": ("blocks", "count"),
    **dict.fromkeys(("equal", "absent-to-end"), ("positions",)),
}
ABSENT_TO_END = "absent-to-end"  # written once in a file, several `implies` rules in the space


@FAMILIES.add
class YamlFamily(Chain):
    """A chain of registered blocks that a YAML file describes: no Python."""

    name = "yaml"

    class Settings(Section):
        file: PathText = Field(description="YAML file that defines the space.")
        definition: Any = Field(
            None,
            validate_default=True,
            description="What the file says, which a study keeps; empty: the file is read.",
        )

        @field_validator("definition")
        @classmethod
        def _read_once(cls, value: Any, info: ValidationInfo) -> Any:
            """The file is read with the study that names it: what becomes of it later changes nothing there."""
            return read_space_file(info.data["file"]) if value is None and "file" in info.data else value

        def what_was_edited(self, code: Mapping[str, str]) -> str:
            with contextlib.suppress(ConfigError):  # a file that is gone changes nothing
                return f"{self.file} was edited" if read_space_file(self.file) != self.definition else ""
            return ""

    def chain(self) -> SearchSpace:
        shape = {"in_channels": self.sample.shape[0], "num_classes": self.sample.num_outputs} if self.given else {}
        return space_from_data(self.settings.definition, self.settings.file, shape)


def read_space_file(path: str | Path) -> Any:
    """What a space's YAML file says, not looked at yet.

    Raises:
        ConfigError: if it cannot be read, or is no YAML.
    """
    data = read_yaml_file(path, f"space.file {path}")
    if data is None:
        raise ConfigError(f"space.file {path}", "an empty file", "a space")
    return data


def space_from_data(data: Any, source: str, overrides: Mapping[str, int] | None = None) -> SearchSpace:
    """The space that parsed YAML describes; ``source`` leads every message.

    ``overrides`` replace its own ``in_channels`` and ``num_classes``.

    Raises:
        ConfigError: if a key is unknown, missing or of the wrong type.
        SpaceError: if a block cannot be built, or a rule or a position contradicts the space.
    """
    section = _mapping(data, source, SPACE_KEYS, REQUIRED_KEYS)
    shape = {"in_channels": 3, "num_classes": 10}
    shape |= {key: _integer(section[key], f"{source}: {key}") for key in shape if key in section}
    shape |= overrides or {}
    positions = tuple(_positions(section["positions"], source))
    stem = _spec(section["stem"], f"{source}: stem")
    are_rows = stem.kind in STEMS and ROWS in STEMS[stem.kind].takes
    if not are_rows and "resolutions" not in section:
        raise ConfigError(f"{source}: resolutions", "nothing", REQUIRED)
    sizes = _sequence(section.get("resolutions", [1]), f"{source}: resolutions")
    name = section["name"]
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{source}: name", repr(name), "a text")
    _check_names(positions, source)
    space = SearchSpace(
        name=name,
        in_channels=shape["in_channels"],
        resolutions=tuple(_integer(size, f"{source}: resolutions") for size in sizes),
        num_classes=shape["num_classes"],
        stem=stem,
        head=_spec(section["head"], f"{source}: head"),
        positions=positions,
        rules=tuple(_rules(section.get("rules") or [], positions, source)),
    )
    return check_space(space, source)


def _check_names(positions: Sequence[Position], source: str) -> None:
    """A message or a table that names a position must not mean two of them."""
    names = [position.name for position in positions]
    if double := next((name for name in names if names.count(name) > 1), None):
        found = ", ".join(str(number) for number, name in enumerate(names) if name == double)
        expected = "a name of its own for every position"
        raise SpaceError(
            f"{source}: positions", f"{double!r}, the name of positions {found} (repeats counted)", expected
        )


MOST_REPEATS = 10_000  # positions of one row


def _positions(rows: Any, source: str) -> Iterator[Position]:
    """The positions, ``repeat`` unrolled: only the first of the repeated has the stride."""
    for index, row in enumerate(_sequence(rows, f"{source}: positions")):
        where = f"{source}: positions[{index}]"
        section = _mapping(row, where, POSITION_KEYS, ("out_channels", "blocks"))
        blocks = _sequence(section["blocks"], f"{where}.blocks")
        specs = tuple(_spec(block, f"{where}.blocks[{choice}]") for choice, block in enumerate(blocks))
        name = str(section.get("name", f"block{index}"))
        repeat = _integer(section.get("repeat", 1), f"{where}.repeat")
        stride = _integer(section.get("stride", 1), f"{where}.stride", minimum=1)
        out_channels = _integer(section["out_channels"], f"{where}.out_channels")
        ordered = section.get("ordered", False)
        if not isinstance(ordered, bool):
            raise ConfigError(f"{where}.ordered", repr(ordered)[:200], "true or false")
        if repeat > MOST_REPEATS:
            raise ConfigError(f"{where}.repeat", repeat, f"{MOST_REPEATS} at most")
        for copy in range(repeat):
            yield Position(
                name=name if repeat == 1 else f"{name}.{copy}",
                out_channels=out_channels,
                stride=stride if copy == 0 else 1,
                blocks=specs,
                ordered=ordered,
            )


def _rules(rows: Any, positions: Sequence[Position], source: str) -> Iterator[Rule]:
    kinds = (*get_args(RuleKind), ABSENT_TO_END)
    for index, row in enumerate(_sequence(rows, f"{source}: rules", allow_empty=True)):
        where = f"{source}: rules[{index}]"
        section = _mapping(row, where, RULE_KEYS, ("kind",))
        if section["kind"] not in kinds:
            raise ConfigError(f"{where}.kind", repr(section["kind"]), f"one of: {', '.join(kinds)}")
        numbers = [
            _integer(p, f"{where}.positions", minimum=0)
            for p in _sequence(section.get("positions") or [], f"{where}.positions", allow_empty=True)
        ]
        if section["kind"] == ABSENT_TO_END:
            _check_used(section, where)
            yield from absent_to_end([_absent_block(positions, number, where) for number in numbers])
            continue
        rule = Rule(
            kind=section["kind"],
            blocks=tuple(_block_ids(section.get("blocks") or [], where)),
            count=_integer(section.get("count", 1), f"{where}.count", minimum=0),
            positions=tuple(numbers),
        )
        needed = "positions" if rule.kind == "equal" else "blocks"
        if len(getattr(rule, needed)) < (1 if rule.kind in ("forbid", "require", "at_most") else 2):
            raise ConfigError(f"{where}.{needed}", section.get(needed, "nothing"), f"enough {needed} for {rule.kind}")
        _check_used(section, where)
        rule.check([len(position.blocks) for position in positions], where)
        yield rule


def _check_used(section: Mapping[str, Any], where: str) -> None:
    """A key that the rule's kind does not look at says something that will not be so."""
    used = USED_BY[section["kind"]]
    for key in ("blocks", "count", "positions"):
        if key in section and key not in used:
            expected = f"only what {section['kind']} looks at: {', '.join(used)}"
            raise ConfigError(f"{where}.{key}", repr(section[key])[:200], expected)


def _block_ids(rows: Any, where: str) -> Iterator[BlockId]:
    for row in _sequence(rows, f"{where}.blocks", allow_empty=True):
        pair = _sequence(row, f"{where}.blocks")
        if len(pair) != 2:
            raise ConfigError(f"{where}.blocks", row, "pairs [position, choice]")
        yield _integer(pair[0], f"{where}.blocks", minimum=0), _integer(pair[1], f"{where}.blocks", minimum=0)


def _absent_block(positions: Sequence[Position], number: int, where: str) -> BlockId:
    if number >= len(positions):
        raise SpaceError(f"{where}.positions", number, f"0 to {len(positions) - 1} (repeats counted)")
    for choice, block in enumerate(positions[number].blocks):
        if block.kind == ABSENT:
            return number, choice
    raise SpaceError(f"{where}.positions", f"position {number} without an absent block", "positions that have one")


def _spec(data: Any, where: str) -> BlockSpec:
    """A block as ``{kind: mbconv, kernel: 3}``, or just its kind."""
    if isinstance(data, str):
        return BlockSpec.of(data)
    if not isinstance(data, dict) or "kind" not in data:
        raise ConfigError(where, repr(data)[:200], "a kind, or a mapping with `kind` and its parameters")
    for name, value in data.items():
        if not isinstance(name, str) or not isinstance(value, int | float | str | bool):
            raise ConfigError(f"{where}.{name}", repr(value)[:200], "a number, a text, true or false")
    return BlockSpec.from_dict(data)


def _mapping(data: Any, where: str, allowed: Sequence[str], required: Sequence[str]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ConfigError(where, repr(data)[:200], f"a mapping with the keys: {', '.join(allowed)}")
    for key in data:
        if key not in allowed:
            raise ConfigError(f"{where}: {key}", repr(data[key])[:200], f"one of the keys: {', '.join(allowed)}")
    for key in required:
        if key not in data:
            raise ConfigError(f"{where}: {key}", "nothing", REQUIRED)
    return data


def _sequence(data: Any, where: str, allow_empty: bool = False) -> list[Any]:
    if not isinstance(data, list) or not (data or allow_empty):
        raise ConfigError(where, repr(data)[:200], "a list" if allow_empty else "a list with one entry at least")
    return data


def _integer(data: Any, where: str, minimum: int = 1) -> int:
    if isinstance(data, str) and not data.isdecimal():  # digits alone are a text only where somebody quoted them
        data = as_number(data)
    if isinstance(data, float) and data.is_integer():  # 1.28e2
        data = int(data)
    if isinstance(data, bool) or not isinstance(data, int) or data < minimum:
        raise ConfigError(where, repr(data)[:200], f"an integer, {minimum} or more")
    return data
