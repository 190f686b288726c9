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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.base.errors import DataError
from nas_core.records.evaluations import Evaluation
from nas_core.scoring import OnProgress, study_scorer_id
from nas_core.scoring.scored_rows import Rows
from nas_core.scoring.settings import TabularScorerConfig
from nas_core.space.genotypes import Genotype, SearchSpace

if TYPE_CHECKING:
    from nas_core.study.config import StudyConfig

ARCH_COLUMN = "arch"
SOURCE_ADVICE = "NAS-Bench-Macro's JSON is at https://github.com/xiusu/NAS-Bench-Macro under data/."


class TabularScorer:
    """Looks the metric up. A network that the table does not hold is a failed row."""

    def __init__(self, config: "StudyConfig", space: SearchSpace) -> None:
        assert isinstance(config.scorer, TabularScorerConfig)
        self.config, self.space = config.scorer, space
        self.metric_name = config.scorer.metric
        self.higher_is_better = config.scorer.higher_is_better
        self.split = "table"
        self.rows = Rows(
            space_id=space.space_id,
            scorer_id=study_scorer_id(config),
            seed=config.seed,
            metric_name=self.metric_name,
            higher_is_better=self.higher_is_better,
            split=self.split,
            device="table",
        )
        self._metrics: dict[tuple[int, ...], float] | None = None

    @property
    def prepared(self) -> bool:
        return self._metrics is not None

    def prepare(self, on_progress: OnProgress) -> None:
        """Read the table.

        Raises:
            DataError: if the file or a column is missing, or none of its networks is one of the space.
        """
        self._table()
        on_progress(1, 1, "table read")

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Evaluation]:
        metrics = self._table()
        return [self._look_up(metrics, genotype) for genotype in genotypes]

    def _look_up(self, metrics: Mapping[tuple[int, ...], float], genotype: Genotype) -> Evaluation:
        began = time.perf_counter()
        try:
            metric = metrics[genotype.choices]
        except KeyError:
            message = f"{genotype} is not in {self.config.path}"
            return self.rows.failed(genotype, message, time.perf_counter() - began)
        if not math.isfinite(metric):
            return self.rows.failed(genotype, f"{self.metric_name} is {metric}", time.perf_counter() - began)
        return self.rows.ok(genotype, metric, 0, time.perf_counter() - began)

    def _table(self) -> dict[tuple[int, ...], float]:
        if self._metrics is None:
            self._metrics = read_metrics(self.config, self.space)
        return self._metrics


def read_metrics(config: TabularScorerConfig, space: SearchSpace) -> dict[tuple[int, ...], float]:
    """The metric of every network in the table, by its choices.

    Raises:
        DataError: if the file or a column is missing, or the table is of another space.
    """
    path = Path(config.path).expanduser()
    if not path.is_file():
        raise DataError("scorer.path", config.path, "a Parquet or JSON table of known results", SOURCE_ADVICE)
    if len(space.resolutions) > 1:
        raise DataError("scorer.kind", "tabular", f"a space of one resolution, not {space.resolutions}")
    metrics = _from_json(path, config) if path.suffix == ".json" else _from_parquet(path, config)
    lengths = {len(choices) for choices in metrics}
    if lengths != {space.num_positions}:
        found = f"networks of {', '.join(map(str, sorted(lengths)))} positions" if lengths else "no networks"
        raise DataError(f"scorer.path {config.path}", found, f"networks of {space.num_positions} positions")
    return metrics


def check_stored(
    rows: Sequence[Evaluation], metrics: Mapping[tuple[int, ...], float], config: TabularScorerConfig
) -> None:
    """Whether the table still says what was looked up in it: its scorer's id knows it by its name alone.

    Raises:
        DataError: naming the first network of which it says something else.
    """
    for row in rows:
        now = metrics.get(Genotype.parse(row.genotype).choices)
        if row.status == "ok" and now != row.metric:
            where, expected = f"scorer.path {config.path}: {row.genotype}", f"{row.metric}, as the study has stored"
            raise DataError(where, now, expected, "Use another root: a study's scores are of one table.")


def _from_json(path: Path, config: TabularScorerConfig) -> dict[tuple[int, ...], float]:
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"scorer.path {path}", str(error)[:200], "JSON", SOURCE_ADVICE) from None
    if not isinstance(table, dict) or not table or not all(isinstance(row, dict) for row in table.values()):
        raise DataError(f"scorer.path {path}", "other JSON", '{"ARCH": {"METRIC": VALUE}}', SOURCE_ADVICE)
    metrics = {}
    for arch, row in table.items():
        if config.metric not in row:
            raise DataError("scorer.metric", repr(config.metric), f"one of: {', '.join(row)}")
        metrics[_choices(arch, path)] = _number(row[config.metric], config)
    return metrics


def _from_parquet(path: Path, config: TabularScorerConfig) -> dict[tuple[int, ...], float]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        wanted = config.choices or [ARCH_COLUMN]
        for field, column in [("scorer.choices", name) for name in wanted] + [("scorer.metric", config.metric)]:
            if column not in names:
                raise DataError(field, f"{column!r}, no column of {path}", f"one of: {', '.join(names)}")
        table = file.read(columns=sorted({*wanted, config.metric}), use_threads=False)
        columns = {name: table[name].to_pylist() for name in table.column_names}
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"scorer.path {path}", str(error)[:200], "a Parquet table") from None
    values = [_number(value, config) for value in columns[config.metric]]
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


def _number(value: object, config: TabularScorerConfig) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, int | float):
        raise DataError("scorer.metric", f"{config.metric!r} with the value {str(value)[:50]}", "a column of numbers")
    return float(value)
