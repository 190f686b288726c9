"""Columns of a table by the networks of a space: one row each, or several that are taken as seeds."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from nas_core.base.errors import DataError
from nas_core.scoring.table_file import ARCH_COLUMN, FORMATS, SOURCE_ADVICE, TableFile, open_table
from nas_core.scoring.table_networks import MOST_SHOWN, networks_of
from nas_core.space.genotypes import Genotype, SearchSpace


@dataclass(frozen=True, kw_only=True)
class Known:
    """Columns of a table by its networks' choices, and what was made of it, in sentences."""

    columns: dict[tuple[int, ...], tuple[Any, ...]]
    notes: tuple[str, ...] = ()


def read_known(config: Any, space: SearchSpace, fields: Mapping[str, str]) -> Known:
    """Columns of the table; ``fields`` maps what errors call them to their names.

    Raises:
        DataError: if the file or a column is missing, the table is of another space, or says two things of one network.
    """
    path = Path(config.path)
    if not path.is_file():
        raise DataError("scorer.path", config.path, FORMATS, SOURCE_ADVICE)
    if len(space.resolutions) > 1:
        raise DataError("scorer.kind", "tabular", f"a space of one resolution, not {space.resolutions}")
    table = open_table(path)
    naming = [table.column(name, "scorer.choices") for name in config.choices or [ARCH_COLUMN]]
    wanted = [table.column(name, field) for field, name in fields.items()]
    columns = table.read([*naming, *wanted])
    where = f"scorer.path {path}"
    named = list(zip(*(columns[name] for name in naming), strict=True)) if config.choices else columns[naming[0]]
    networks = networks_of(named, space, where, table.place, config.counted_from)
    of_metric = {name for field, name in fields.items() if field == "scorer.metric"}
    values = [
        [_number(value, name, f"{where}: {table.place(row)}") for row, value in enumerate(columns[name])]
        if name in of_metric
        else columns[name]
        for name in wanted
    ]
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, choices in enumerate(networks.rows):
        rows_of.setdefault(choices, []).append(row)
    found = {choices: [tuple(column[row] for column in values) for row in rows] for choices, rows in rows_of.items()}
    doubtful = [choices for choices, rows in found.items() if len(set(map(repr, rows))) > 1]
    notes = networks.notes
    if doubtful and config.repeats == "refuse":
        raise _stands_twice(doubtful, rows_of, found, where, table)
    if doubtful:
        notes += (f"{len(doubtful)} networks stand in several rows: the mean of the rows counts",)
    return Known(columns={choices: _one_of(rows) for choices, rows in found.items()}, notes=notes)


def _stands_twice(
    doubtful: Sequence[tuple[int, ...]],
    rows_of: Mapping[tuple[int, ...], Sequence[int]],
    found: Mapping[tuple[int, ...], Sequence[tuple[Any, ...]]],
    where: str,
    table: TableFile,
) -> DataError:
    first = doubtful[0]
    shown = [
        f"{table.place(row)}: {_short(values[0])}" for row, values in zip(rows_of[first], found[first], strict=True)
    ]
    more = f", and {len(doubtful) - 1} networks more" if len(doubtful) > 1 else ""
    return DataError(
        f"{where}: network {Genotype(first)}",
        f"several values ({', '.join(shown[:MOST_SHOWN])}{', ...' if len(shown) > MOST_SHOWN else ''}){more}",
        "one row per network, or rows that agree",
        "If they are seeds, set scorer.repeats=seeds: their mean counts.",
    )


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else f"{value!r:.40}"


def _one_of(rows: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The rows of one network as one: the mean of numbers, the first of anything else; gaps do not count."""
    return tuple(_mean_or_first([value for value in column if value == value and value is not None])
                 if len(rows) > 1 else column[0] for column in zip(*rows, strict=True))  # fmt: skip


def _mean_or_first(values: Sequence[Any]) -> Any:
    if not values:
        return math.nan
    return math.fsum(values) / len(values) if all(isinstance(value, float) for value in values) else values[0]


def _number(value: object, name: str, where: str) -> float:
    """The metric of a row; a gap is NaN, and text is read where it is a number."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "null", "na", "n/a")):
        return math.nan
    with contextlib.suppress(ValueError, ArithmeticError):
        if isinstance(value, int | float | str | Decimal) and not isinstance(value, bool):
            return float(value)
    raise DataError(where, f"{name} = {value!r:.60}", "a number, as scorer.metric names a column of numbers")
