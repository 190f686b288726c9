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

METRIC = "scorer.metric"  # the field whose column is numbers; of any other, rows of one network have to agree


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
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, choices in enumerate(networks.rows):
        rows_of.setdefault(choices, []).append(row)
    known, notes = [], networks.notes
    for field, name in fields.items():
        column, is_metric = columns[name], field == METRIC
        if is_metric:
            column = [_number(value, name, f"{where}: {table.place(row)}") for row, value in enumerate(column)]
        are_seeds = is_metric and config.repeats == "seeds"
        several = [choices for choices, rows in rows_of.items() if len({repr(column[row]) for row in rows}) > 1]
        if several and not are_seeds:
            raise _stands_twice(several, rows_of[several[0]], column, where, table)
        if several:
            notes += (f"{len(several)} networks stand in several rows: the mean of the rows counts",)
        known.append(
            [_mean([column[row] for row in rows]) if are_seeds else column[rows[0]] for rows in rows_of.values()]
        )
    return Known(columns=dict(zip(rows_of, zip(*known, strict=True), strict=True)), notes=notes)


def _stands_twice(
    several: Sequence[tuple[int, ...]], rows: Sequence[int], column: Sequence[Any], where: str, table: TableFile
) -> DataError:
    """The first of ``several`` networks stands in these rows with other values."""
    shown = [f"{table.place(row)}: {_short(column[row])}" for row in rows[:MOST_SHOWN]]
    more = f", and {len(several) - 1} networks more" if len(several) > 1 else ""
    return DataError(
        f"{where}: network {Genotype(several[0])}",
        f"several values ({', '.join(shown)}{', ...' if len(rows) > MOST_SHOWN else ''}){more}",
        "one row per network, or rows that agree",
        "If they are seeds, set scorer.repeats=seeds: their mean counts.",
    )


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else f"{value!r:.40}"


def _mean(values: Sequence[float]) -> float:
    """Of those that are there; NaN of none."""
    there = [value for value in values if not math.isnan(value)]
    return math.fsum(there) / len(there) if there else math.nan


def _number(value: object, name: str, where: str) -> float:
    """The metric of a row; a gap is NaN, and text is read where it is a number."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "null", "na", "n/a")):
        return math.nan
    with contextlib.suppress(ValueError, ArithmeticError):
        if isinstance(value, int | float | str | Decimal) and not isinstance(value, bool):
            return float(value)
    raise DataError(where, f"{name} = {value!r:.60}", "a number, as scorer.metric names a column of numbers")
