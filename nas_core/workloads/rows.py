"""Rows of a table: numbers and categories to predict a class, several labels or numbers from. N F = rows, features.

Numbers are brought to mean 0 and deviation 1 of the training rows; a category
becomes one feature for each of its values in the training rows, 0 or 1.
"""

import hashlib
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from nas_core.base.errors import DataError
from nas_core.base.settings import Distinct, PathText
from nas_core.workloads.columns import FORMATS, USUAL_SPLIT, Columns, TargetSettings, read_columns
from nas_core.workloads.metrics import Metrics
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.settings import SplitSettings
from nas_core.workloads.targets import Targets, check_filled
from nas_core.workloads.workload import WORKLOADS, Sample, Splits, Workload

if TYPE_CHECKING:
    import torch

TEST_SHARE = 5  # one row in five, where no column tells splits
MOST_CATEGORIES = 1000  # values of a column
SAID_BY_NAME = 12


class RowSettings(TargetSettings, SplitSettings):
    """Which columns hold what."""

    path: PathText | None = Field(None, description="CSV or Parquet file with a row per example.")
    features: Distinct[str] = Field(
        default_factory=list, description="Columns to predict from; empty: all but targets, splits and `ignore`."
    )
    ignore: list[str] = Field(default_factory=list, description="Columns that are not predicted from, such as an id.")
    categorical: list[str] = Field(
        default_factory=list, description="Columns of numbers that are categories; columns of texts always are."
    )
    split: str = Field(
        USUAL_SPLIT,
        description="Column that says train or test; empty: rows are drawn, as where there is no column `split`.",
    )
    normalise: Literal["data", "none"] = Field(
        "data",
        description="Numbers to predict from are brought to mean 0 and deviation 1 of the training rows, or left as "
        "they are, as for a model that was trained so elsewhere.",
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="Rows with an empty cell: stop before anything is computed, or leave them out and say so."
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """What a file holds: features before they are standardised, targets, and which rows are for what."""

    names: tuple[str, ...]  # of the features
    inputs_NF: np.ndarray
    is_number_F: np.ndarray  # else a value of a category
    targets: Targets
    targets_N: np.ndarray
    is_train_N: np.ndarray
    is_test_N: np.ndarray
    notes: tuple[str, ...]
    content_id: str


@WORKLOADS.add
class Rows(Workload):
    """Rows of a CSV or Parquet file: numbers and categories, with a class, several labels, or numbers to predict."""

    name = "rows"
    Settings = RowSettings
    places = frozenset({"path"})
    settings: RowSettings

    @property
    def label(self) -> str:
        return f"table {Path(self.settings.path or '').name}"

    @property
    def table(self) -> Table:
        """The file's contents, read once per process as long as it stays the same."""
        path = self.settings.path
        if not path or not os.path.isfile(path):
            raise DataError("data.path", path or "nothing", f"{FORMATS} with a row per example")
        status = Path(path).stat()
        return _read(self.settings.model_dump_json(), (status.st_size, status.st_mtime_ns))

    @property
    def sample(self) -> Sample:
        table = self.table
        return Sample(shape=(len(table.names),), num_outputs=len(table.targets.names))

    @property
    def metrics(self) -> Metrics:
        return self.settings.wanted.metrics(lambda: self.table.targets.scale)

    @property
    def refused(self) -> Mapping[str, str]:
        return {**self.table.targets.refused, **dict.fromkeys(("mixup", "cutmix", "erase", "policy"), "no images")}

    @property
    def gives_logits(self) -> bool:
        return self.table.targets.are_logits

    @property
    def output_scale(self) -> Normalisation:
        return self.table.targets.scale

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "content": self.table.content_id}

    def fingerprint(self) -> str:
        return self.table.content_id

    def check(self, train_examples: int | None = None) -> None:
        self.settings.check_sizes(int(self.table.is_train_N.sum()), train_examples)

    def num_examples(self) -> tuple[int, int]:
        return self.settings.num_examples(int(self.table.is_train_N.sum()))

    def load(self, shape: tuple[int, ...] | None = None) -> Splits:
        table = self.table
        self.check()
        rows = np.flatnonzero(table.is_train_N)
        train, validation = (self._pair(rows[chosen]) for chosen in self.settings.divided(len(rows)))
        found, is_scaled_F = Normalisation.of(train[0]), table.is_number_F & (self.settings.normalise == "data")
        pairs = zip(found.mean, found.std, is_scaled_F, strict=True)
        kept = [(mean, std) if is_scaled else (0.0, 1.0) for mean, std, is_scaled in pairs]
        return Splits(
            train=train,
            validation=validation,
            prepare=Normalisation(mean=tuple(mean for mean, _ in kept), std=tuple(std for _, std in kept)),
            output_names=table.targets.names,
            load_test=lambda: self._pair(np.flatnonzero(table.is_test_N)),
        )

    def _pair(self, rows: np.ndarray) -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        table = self.table
        targets_N = table.targets_N[rows].astype(table.targets.dtype)
        return torch.from_numpy(table.inputs_NF[rows]), torch.from_numpy(targets_N)

    def loss(self, outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0) -> "torch.Tensor":
        return self.table.targets.loss(outputs, targets, label_smoothing)

    def agreement(self, outputs: "torch.Tensor", taught: "torch.Tensor", temperature: float) -> "torch.Tensor":
        return self.table.targets.agreement(outputs, taught, temperature)

    def details(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> dict[str, Any]:
        return self.table.targets.details(outputs, targets)

    def shown(
        self, inputs: "torch.Tensor", outputs: "torch.Tensor", targets: "torch.Tensor"
    ) -> Sequence[Mapping[str, Any]]:
        """Rows with their features, categories by their value, with what is predicted of them."""
        table = self.table
        return [
            {"cells": [*table.targets.said(output, target).items(), *_cells(table, row.tolist()).items()]}
            for row, output, target in zip(inputs, outputs, targets, strict=True)
        ]

    def describe(self) -> Sequence[tuple[str, str]]:
        table = self.table
        numbers, more = int(table.is_number_F.sum()), len(table.names) - SAID_BY_NAME
        named = ", ".join(table.names[:SAID_BY_NAME]) + (f" and {more} more" if more > 0 else "")
        parts = (("training split", table.is_train_N), ("test split", table.is_test_N))
        return [
            ("rows", f"{numbers} numbers, {len(table.names) - numbers} values of categories, {table.targets.called}"),
            ("features", named),
            *(
                (what, f"{is_in.sum():,} rows, {table.targets.described(table.targets_N[is_in])}")
                for what, is_in in parts
            ),
            ("splits", "; ".join(table.notes)),
        ]

    def notes(self) -> Sequence[str]:
        return [f"{self.settings.path}: {sentence}" for sentence in self.table.notes]


@lru_cache(maxsize=8)
def _read(settings_json: str, stamp: Hashable) -> Table:
    settings = RowSettings.model_validate_json(settings_json)
    wanted = settings.wanted
    texts = [settings.split, *settings.categorical, *wanted.texts]
    columns = read_columns(Path(settings.path or ""), texts=texts)
    for field in ("targets", "features", "ignore", "categorical"):
        columns.check(getattr(settings, field), field)
    features = _features(columns, settings)
    columns, notes = columns.whole([*features, *wanted.filled]) if settings.on_error == "skip" else (columns, [])
    told = columns.splits(settings.split)
    if told is None:
        is_test_N = _drawn(columns, [*features, *settings.targets])
        told = ~is_test_N, is_test_N, [f"no column tells splits: one row in {TEST_SHARE}, by its values, is a test row"]
    is_train_N, is_test_N, said = told
    check_filled({"train": int(is_train_N.sum()), "test": int(is_test_N.sum())}, columns.place, "row")
    targets, targets_N = wanted.of(columns, is_train_N)
    targets.check({"train": targets_N[is_train_N], "test": targets_N[is_test_N]}, columns.place, "row")
    names, is_number, inputs = list[str](), list[bool](), list[np.ndarray]()
    for name in features:
        if columns.is_numeric(name) and name not in settings.categorical:
            names, is_number, inputs = [*names, name], [*is_number, True], [*inputs, columns.numbers(name)]
            continue
        values, has_NV = _category(columns, name, is_train_N)
        names += [f"{name} = {value}" for value in values]
        is_number += [False] * len(values)
        inputs += list(has_NV.T)
    return Table(
        names=tuple(names),
        inputs_NF=np.stack(inputs, axis=1).astype(np.float32),
        is_number_F=np.array(is_number),
        targets=targets,
        targets_N=targets_N,
        is_train_N=is_train_N,
        is_test_N=is_test_N,
        notes=(*notes, *said),
        content_id=_content_id(names, inputs, targets_N, is_train_N, is_test_N),
    )


def _features(columns: Columns, settings: RowSettings) -> list[str]:
    others = {settings.split, *settings.targets, *settings.ignore}
    if both := sorted(set(settings.features) & set(settings.targets)):
        raise DataError("data.features", f"{both[0]}, which is predicted", "columns to predict it from")
    found = settings.features or [name for name in columns.names if name not in others]
    if not found:
        raise DataError("data.features", "no column", f"columns beside {', '.join(settings.targets)}")
    return found


def _drawn(columns: Columns, used: Sequence[str]) -> np.ndarray:
    """Which rows are test rows, by their values: equal rows are on one side, and new ones move none of the others."""
    values = zip(*(columns.table[name].to_pylist() for name in used), strict=True)
    digests = (hashlib.sha256(repr(row).encode()).digest() for row in values)
    return np.array([digest[0] % TEST_SHARE == 0 for digest in digests], dtype=bool)


def _category(columns: Columns, name: str, is_train_N: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The values of the training rows, and which row has which; others have none of them."""
    words = np.array(columns.texts(name), dtype=object)
    values = sorted(set(words[is_train_N]))
    if len(values) > MOST_CATEGORIES:
        found = f"{len(values):,} different texts"
        advice = "Name the column in data.ignore if it is no category."
        raise DataError(f"{columns.place}, column {name}", found, f"{MOST_CATEGORIES:,} at most", advice)
    return values, np.stack([words == value for value in values], axis=1)


def _content_id(names: Sequence[str], inputs: Sequence[np.ndarray], *others: np.ndarray) -> str:
    digest = hashlib.sha256("\0".join(names).encode())
    for array in (*inputs, *others):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def _cells(table: Table, row: Sequence[float]) -> dict[str, str]:
    """A row's features as people wrote them."""
    found: dict[str, str] = {}
    for name, is_number, value in zip(table.names, table.is_number_F, row, strict=True):
        if is_number:
            found[name] = f"{value:.6g}"
        elif value:
            column, _, word = name.partition(" = ")
            found[column] = word
        else:
            found.setdefault(name.partition(" = ")[0], "–")
    return found
