"""The tabular scorer: networks that somebody has trained already, looked up in a table.

Reads a Parquet file with one row per network, or NAS-Bench-Macro's public JSON
(https://github.com/xiusu/NAS-Bench-Macro, ``data/nas-bench-macro_cifar10.json``):
``{"22212202": {"mean_acc": 93.127, "test_acc": [...], ...}, ...}``. The metric
stays in the table's unit.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from nas_core.base.errors import DataError
from nas_core.base.settings import PathText, Section
from nas_core.records.evaluations import Evaluation
from nas_core.scoring.scorer import SCORERS, OnProgress, Scorer
from nas_core.space.genotypes import Genotype, SearchSpace
from nas_core.workloads.metrics import Measure

ARCH_COLUMN = "arch"
SOURCE_ADVICE = "NAS-Bench-Macro's JSON is at https://github.com/xiusu/NAS-Bench-Macro under data/."


@SCORERS.add
class TabularScorer(Scorer):
    """A table of known results; the metric is read from it. A network that it does not hold is a failed row."""

    name = "tabular"
    needs_data = False
    needs_torch = False
    placement = frozenset({"batch", "same_function"})
    space_settings = frozenset({"same_function"})
    split = "table"

    class Settings(Section):
        path: PathText = Field(description="Parquet table, or NAS-Bench-Macro's public JSON.")
        choices: list[str] = Field(
            default_factory=list, description="Columns of the choices, one per position; empty: `arch`."
        )
        metric: str = Field("mean_acc", description="Column of the metric.")
        higher_is_better: bool = Field(True, description="Whether more of the metric is better.")
        same_function: str | None = Field(
            None,
            description="Column in which networks that compute the same function have the same value; empty: none.",
        )
        batch: int = Field(256, ge=1, le=100_000, description="Networks per Ray task.")

    @property
    def measure(self) -> Measure:
        return Measure.called(self.settings.metric, self.settings.higher_is_better)

    @property
    def identity(self) -> dict[str, Any]:
        """Where the table lies does not matter."""
        return {**super().identity, "path": Path(self.settings.path).name}

    @property
    def device_name(self) -> str:
        return "table"

    def check(self, stored: Sequence[Evaluation] = ()) -> None:
        """Raises DataError if the table does not fit the space, or says something else than what is ``stored``."""
        check_stored(stored, self._table, self.settings)

    def prepare(self, on_progress: OnProgress) -> None:
        """Read the table.

        Raises:
            DataError: if the file or a column is missing, or none of its networks is one of the space.
        """
        self._table  # noqa: B018
        on_progress(1, 1, "table read")

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Evaluation]:
        return [self._look_up(genotype) for genotype in genotypes]

    def _look_up(self, genotype: Genotype) -> Evaluation:
        began = time.perf_counter()
        metric = self._table.get(genotype.choices)
        if metric is None:
            message = f"{genotype} is not in {self.settings.path}"
            return self.rows.failed(genotype, message, time.perf_counter() - began)
        if not math.isfinite(metric):
            return self.rows.failed(genotype, f"{self.metric_name} is {metric}", time.perf_counter() - began)
        return self.rows.ok(genotype, metric, 0, time.perf_counter() - began)

    @classmethod
    def known_space(cls, settings: Section, space: SearchSpace) -> SearchSpace:
        """The space, with the networks that the table says compute the same function."""
        return replace(space, same_function=same_function(settings, space))

    @cached_property
    def _table(self) -> dict[tuple[int, ...], float]:
        return read_metrics(self.settings, self.family.space)


def read_metrics(config: Any, space: SearchSpace) -> dict[tuple[int, ...], float]:
    """The metric of every network in the table, by its choices.

    Raises:
        DataError: if the file or a column is missing, or the table is of another space.
    """
    columns = read_columns(config, space, {"scorer.metric": config.metric})
    return {choices: _number(value, config) for choices, (value,) in columns.items()}


def read_columns(config: Any, space: SearchSpace, fields: Mapping[str, str]) -> dict[tuple[int, ...], tuple[Any, ...]]:
    """Columns of the table by its networks' choices; ``fields`` maps what errors call them to their names.

    Raises:
        DataError: if the file or a column is missing, or the table is of another space.
    """
    path = Path(config.path)
    if not path.is_file():
        raise DataError("scorer.path", config.path, "a Parquet or JSON table of known results", SOURCE_ADVICE)
    if len(space.resolutions) > 1:
        raise DataError("scorer.kind", "tabular", f"a space of one resolution, not {space.resolutions}")
    columns = _from_json(path, fields) if path.suffix == ".json" else _from_parquet(path, config, fields)
    lengths = {len(choices) for choices in columns}
    if lengths != {space.num_positions}:
        found = f"networks of {', '.join(map(str, sorted(lengths)))} positions" if lengths else "no networks"
        raise DataError(f"scorer.path {config.path}", found, f"networks of {space.num_positions} positions")
    return columns


def same_function(config: Any, space: SearchSpace) -> dict[tuple[int, ...], str]:
    """What function each network of the table computes, by its choices; empty without ``same_function``.

    Raises:
        DataError: as ``read_metrics``, with the field ``scorer.same_function``.
    """
    if config.same_function is None:
        return {}
    columns = read_columns(config, space, {"scorer.same_function": config.same_function})
    return {choices: str(value) for choices, (value,) in columns.items() if value is not None and value == value}


def check_stored(rows: Sequence[Evaluation], metrics: Mapping[tuple[int, ...], float], config: Any) -> None:
    """Whether the table still says what was looked up in it: its scorer's id knows it by its name alone.

    Raises:
        DataError: naming the first network of which it says something else.
    """
    for row in rows:
        now = metrics.get(Genotype.parse(row.genotype).choices)
        if row.status == "ok" and now != row.metric:
            where, expected = f"scorer.path {config.path}: {row.genotype}", f"{row.metric}, as the study has stored"
            raise DataError(where, now, expected, "Use another root: a study's scores are of one table.")


def _from_json(path: Path, fields: Mapping[str, str]) -> dict[tuple[int, ...], tuple[Any, ...]]:
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"scorer.path {path}", str(error)[:200], "JSON", SOURCE_ADVICE) from None
    if not isinstance(table, dict) or not table or not all(isinstance(row, dict) for row in table.values()):
        raise DataError(f"scorer.path {path}", "other JSON", '{"ARCH": {"METRIC": VALUE}}', SOURCE_ADVICE)
    found = {}
    for arch, row in table.items():
        for field, name in fields.items():
            if name not in row:
                raise DataError(field, repr(name), f"one of: {', '.join(row)}")
        found[_choices(arch, path)] = tuple(row[name] for name in fields.values())
    return found


def _from_parquet(path: Path, config: Any, fields: Mapping[str, str]) -> dict[tuple[int, ...], tuple[Any, ...]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        wanted = config.choices or [ARCH_COLUMN]
        for field, column in [("scorer.choices", name) for name in wanted] + list(fields.items()):
            if column not in names:
                raise DataError(field, f"{column!r}, no column of {path}", f"one of: {', '.join(names)}")
        table = file.read(columns=sorted({*wanted, *fields.values()}), use_threads=False)
        columns = {name: table[name].to_pylist() for name in table.column_names}
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"scorer.path {path}", str(error)[:200], "a Parquet table") from None
    values = list(zip(*(columns[name] for name in fields.values()), strict=True))
    if not config.choices:
        return {_choices(arch, path): value for arch, value in zip(columns[ARCH_COLUMN], values, strict=True)}
    choices = zip(*(columns[name] for name in config.choices), strict=True)
    return {tuple(_choice(each, path) for each in row): value for row, value in zip(choices, values, strict=True)}


def _choice(value: object, path: Path) -> int:
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise DataError(
        f"scorer.path {path}", f"the choice {value!r:.50}", "whole numbers in the columns of scorer.choices"
    )


def _choices(arch: object, path: Path) -> tuple[int, ...]:
    """``22212202`` or ``2-2-2-1-2-2-0-2`` as integers."""
    text = str(arch)
    try:
        return tuple(map(int, text.split("-") if "-" in text else text))
    except ValueError:
        raise DataError(
            f"scorer.path {path}", f"the network {text!r}", "digits, or integers joined by '-'",
            "Name the columns of the choices in scorer.choices."
        ) from None  # fmt: skip


def _number(value: object, config: Any) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, int | float):
        raise DataError("scorer.metric", f"{config.metric!r} with the value {str(value)[:50]}", "a column of numbers")
    return float(value)
