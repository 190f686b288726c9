"""The tabular scorer: networks that somebody has trained already, looked up in a table.

Reads a Parquet, JSON or CSV file with one row per network (``table_file``), such as
NAS-Bench-Macro's public JSON
(https://github.com/xiusu/NAS-Bench-Macro, ``data/nas-bench-macro_cifar10.json``):
``{"22212202": {"mean_acc": 93.127, "test_acc": [...], ...}, ...}``. The metric
stays in the table's unit. A network that stands twice with different values is
refused, or its rows are taken as seeds.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nas_core.base.errors import DataError
from nas_core.base.settings import Distinct, PathText, Section
from nas_core.records.evaluations import Evaluation
from nas_core.scoring.known_results import METRIC, Known, read_known
from nas_core.scoring.scorer import SCORERS, OnProgress, Scorer
from nas_core.space.genotypes import Genotype, SearchSpace
from nas_core.workloads.metrics import Measure


@SCORERS.add
class TabularScorer(Scorer):
    """A table of known results; the metric is read from it. A network that it does not hold is a failed row."""

    name = "tabular"
    needs_data = False
    needs_torch = False
    placement = frozenset({"batch", "same_function"})
    space_settings = frozenset({"same_function"})
    split = "table"
    when_failed = (
        "The table will not have them however often it is asked: take a base (`design.base`) and a design "
        "(`design.kind: balanced`) whose networks it holds, or a table that holds these."
    )

    class Settings(Section):
        path: PathText = Field(description="Parquet, JSON or CSV table, such as NAS-Bench-Macro's public JSON.")
        choices: Distinct[str] = Field(
            default_factory=list, description="Columns of the choices, one per position; empty: `arch`."
        )
        metric: str = Field("mean_acc", description="Column of the metric.")
        higher_is_better: bool = Field(True, description="Whether more of the metric is better.")
        counted_from: Literal[0, 1] | None = Field(
            None, description="Number of a position's first choice in the table; empty: found from the table."
        )
        repeats: Literal["refuse", "seeds"] = Field(
            "refuse", description="Several rows of one network: refuse them, or take them as seeds (their mean counts)."
        )
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
        """Where the table lies does not matter; what only says how it is read counts where it is set."""
        known = {**super().identity, "path": Path(self.settings.path).name}
        unset = {"counted_from": None, "repeats": "refuse"}
        return {name: value for name, value in known.items() if name not in unset or value != unset[name]}

    @property
    def device_name(self) -> str:
        return "table"

    def check(self, stored: Sequence[Evaluation] = ()) -> None:
        """Raises DataError if the table does not fit the space, or says something else than what is ``stored``."""
        check_stored(stored, self._table, self.settings)

    def notes(self) -> Sequence[str]:
        return [f"{Path(self.settings.path).name}: {note}" for note in self._known.notes]

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
    def _known(self) -> Known:
        return read_known(self.settings, self.family.space, {METRIC: self.settings.metric})

    @cached_property
    def _table(self) -> dict[tuple[int, ...], float]:
        return {choices: value for choices, (value,) in self._known.columns.items()}


def same_function(config: Any, space: SearchSpace) -> dict[tuple[int, ...], str]:
    """What function each network of the table computes, by its choices; empty without ``same_function``.

    Raises:
        DataError: as ``read_known``, with the field ``scorer.same_function``.
    """
    if config.same_function is None:
        return {}
    known = read_known(config, space, {"scorer.same_function": config.same_function}).columns
    return {choices: str(value) for choices, (value,) in known.items() if value is not None and value == value}


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
