"""Which network of a space each row of a table is: spelling, where counting starts, values instead of choices.

A row names its network in one column (``012``, ``0-1-2``, ``(0, 1, 2)``, a list,
an integer whose leading zeros are lost) or in one column per position. What
stands there is read where it has one meaning, and what was made of it is said.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas_core.base.errors import DataError
from nas_core.space.genotypes import Position, SearchSpace

Label = int | str  # what a table calls a choice
Choices = tuple[int, ...]
_JOINED = re.compile(r"[\[(]?\s*(\d+(?:\s*[\s,;|_-]\s*\d+)*)\s*,?\s*[\])]?")
MOST_SHOWN = 5  # of a list, in a message


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks of a table's rows, in order; ``notes`` say what was made of their spelling."""

    rows: tuple[Choices, ...]
    notes: tuple[str, ...] = ()


def networks_of(
    rows: Sequence[Any], space: SearchSpace, where: str, place: Callable[[int], str], counted_from: int | None
) -> Networks:
    """The network that each row names.

    Args:
        rows: a value per row, or a tuple of one value per position.
        where, place: what messages call the table and a row.
        counted_from: number of a position's first choice; None: found from the table.

    Raises:
        DataError: for a row that names no network, or names that have more than one meaning.
    """
    spelled = [_labels(row, where, place(index)) for index, row in enumerate(rows)]
    labels, notes = _with_lost_zeros(spelled, space.num_positions)
    lengths = {len(row) for row in labels}
    if lengths != {space.num_positions}:
        found = f"networks of {', '.join(map(str, sorted(lengths)))} positions" if lengths else "no networks"
        raise DataError(where, found, f"networks of {space.num_positions} positions")
    values = [{row[position] for row in labels} for position in range(space.num_positions)]
    numbers, said = _numbering(values, space.positions, where, counted_from)
    return Networks(
        rows=tuple(tuple(numbers[p][label] for p, label in enumerate(row)) for row in labels), notes=(*notes, *said)
    )


def _labels(row: Any, where: str, place: str) -> tuple[Label, ...] | str:
    """What a row calls its choices; digits without separators stay one text, as zeros may be missing."""
    if isinstance(row, list | tuple):
        return tuple(_label(value, where, place) for value in row)
    if isinstance(row, float) and row.is_integer():
        row = int(row)
    text = str(row).strip()
    if text.isdecimal() and not isinstance(row, bool):
        return text
    if isinstance(row, str) and (joined := _JOINED.fullmatch(text)):
        return tuple(map(int, re.findall(r"\d+", joined[1])))
    raise DataError(
        f"{where}: {place}", f"the network {row!r:.60}", "digits, or integers joined by '-'",
        "Name the columns of the choices in scorer.choices."
    )  # fmt: skip


def _label(value: Any, where: str, place: str) -> Label:
    if value is None or value != value:
        expected = "a value: whole numbers in the columns of scorer.choices, or values of the positions' blocks"
        raise DataError(f"{where}: {place}", f"the choice {value!r}", expected)
    return _plain(value)


def _plain(value: Any) -> Label:
    """A value as tables write it, whatever its type: 1, 1.0 and '01' are one."""
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    return int(text) if text.isdecimal() else text


def _with_lost_zeros(spelled: Sequence[Any], length: int) -> tuple[list[tuple[Label, ...]], tuple[str, ...]]:
    """One label per position: texts of digits that lost leading zeros (as integers do) get them back.

    They did where they are of several lengths, and the longest is of the space's.
    """
    if length == 1:
        return [(int(row),) if isinstance(row, str) else row for row in spelled], ()
    lengths = {len(row) for row in spelled if isinstance(row, str)}
    lost = [row for row in spelled if isinstance(row, str) and len(row) < length]
    if not lost or max(lengths) != length:
        return [_digits(row) for row in spelled], ()
    filled = [_digits(row.zfill(length) if isinstance(row, str) else row) for row in spelled]
    shown = "-".join(lost[-1].zfill(length))
    note = f"{len(lost)} of {len(spelled)} networks lost their leading zeros: {lost[-1]} is read as {shown}"
    return filled, (note,)


def _digits(row: tuple[Label, ...] | str) -> tuple[Label, ...]:
    return tuple(map(int, row)) if isinstance(row, str) else row


def _numbering(
    values: Sequence[set[Label]], positions: Sequence[Position], where: str, counted_from: int | None
) -> tuple[list[Mapping[Label, int]], tuple[str, ...]]:
    """For each position what a label stands for: a block's own value, else a number that counts choices.

    Labels that may be either and then name other choices are values, unless ``counted_from`` is given.
    """
    counts = [len(position.blocks) for position in positions]
    starts = [start for start in (0, 1) if counted_from in (None, start) and _count_from(start, values, counts)]
    matched = [_by_value(mine, position) for mine, position in zip(values, positions, strict=True)]
    numbers: list[Mapping[Label, int]] = [each for each in matched if each is not None]
    agrees = len(starts) == 1 and all(label == n + starts[0] for mine in numbers for label, n in mine.items())
    if len(numbers) == len(positions) and not agrees and not (starts and counted_from is not None):
        advice = "; where they are numbers of choices, set scorer.counted_from" if starts else ""
        return numbers, (f"choices by their blocks' values: {_shown(numbers, positions)}{advice}",)
    if len(starts) == 2:
        found = "choices that may count from 0 or from 1: neither 0 nor the last number stands anywhere"
        raise DataError(where, found, "a table that says which", "Set scorer.counted_from to 0 or 1.")
    if starts:
        [start] = starts
        note = f"choices count from 1: {', '.join(f'{n + 1} is choice {n}' for n in range(min(3, max(counts))))}"
        return [{n + start: n for n in range(count)} for count in counts], (note,) if start else ()
    if counted_from != 1 and all(map(_are_numbers, values)) and any(0 in mine for mine in values):
        note = "the table is of a larger space: its networks with other choices are left out"
        return [{value: int(value) for value in mine} for mine in values], (note,)
    wrong = _not_fitting(values, counts, matched)
    blocks = positions[wrong].blocks
    raise DataError(
        f"{where}: position {wrong} ({positions[wrong].name})",
        f"the choices {', '.join(map(str, sorted(values[wrong], key=str)[:MOST_SHOWN]))}",
        f"0 to {len(blocks) - 1} (or 1 to {len(blocks)}): whole numbers in the columns of scorer.choices, "
        f"or the blocks' own values: {', '.join(map(str, blocks[:MOST_SHOWN]))}",
    )


def _count_from(start: int, values: Sequence[set[Label]], counts: Sequence[int]) -> bool:
    """Whether the labels are numbers of choices, the first of which is ``start``."""
    return all(
        isinstance(value, int) and start <= value < count + start
        for mine, count in zip(values, counts, strict=True)
        for value in mine
    )


def _are_numbers(values: set[Label]) -> bool:
    return all(isinstance(value, int) for value in values)


def _by_value(labels: set[Label], position: Position) -> dict[Label, int] | None:
    """The choice that each label names by what tells the position's blocks apart: their text, kind or a parameter.

    None where that is none, or not one choice.
    """
    blocks = position.blocks
    parameters = dict.fromkeys(name for block in blocks for name, _ in block.params)
    ways: list[list[Any]] = [[str(block) for block in blocks], [block.kind for block in blocks]]
    ways += [[dict(block.params).get(name) for block in blocks] for name in parameters]
    found: list[dict[Label, int]] = []
    for way in ways:
        named = list(map(_plain, way))
        if len(set(named)) == len(named) and labels <= set(named):
            numbers = {label: named.index(label) for label in sorted(labels, key=named.index)}
            found += [] if numbers in found else [numbers]
    return found[0] if len(found) == 1 else None


def _not_fitting(values: Sequence[set[Label]], counts: Sequence[int], matched: Sequence[object]) -> int:
    """The first position whose labels are neither numbers of choices nor values of blocks."""
    from_zero = [_count_from(0, [mine], [count]) for mine, count in zip(values, counts, strict=True)]
    doubtful = [p for p, fits in enumerate(from_zero) if not fits and matched[p] is None]
    return doubtful[0] if doubtful else from_zero.index(False)


def _shown(numbers: Sequence[Mapping[Label, int]], positions: Sequence[Position]) -> str:
    """The mapping for people."""
    shown = [
        f"{position.name}: {', '.join(f'{label} is choice {number}' for label, number in mine.items())}"
        for position, mine in zip(positions, numbers, strict=True)
    ]
    more = f"; and {len(shown) - MOST_SHOWN} positions more" if len(shown) > MOST_SHOWN else ""
    return f"{'; '.join(shown[:MOST_SHOWN])}{more}"
