"""Columns of a CSV or a Parquet file: numbers, texts, splits, targets. N = rows, O = targets of a row."""

import csv
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from nas_core.base.errors import DataError
from nas_core.base.settings import Distinct, Section
from nas_core.workloads.classification import CLASSIFICATION, ClassTargets
from nas_core.workloads.metrics import Metrics
from nas_core.workloads.multi_label import MULTI_LABEL, LabelTargets
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.regression import NumberTargets, number_metrics
from nas_core.workloads.targets import Targets

if TYPE_CHECKING:
    import pyarrow as pa

Told = tuple[np.ndarray, np.ndarray, list[str]]  # which rows are trained on, which tested on, what is to be said
Task = Literal["classification", "multi-label", "regression"]
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing")
VALIDATION_NAMES = ("val", "valid", "validation")
USUAL_SPLIT = "split"  # column that tells splits, where it is there
FORMATS = "a CSV or Parquet file"
PARQUET = b"PAR1"
ROW_NUMBERS = "__index_level_"  # what pandas calls them in a file
DELIMITERS = ",;\t"
LARGEST = float(np.finfo(np.float32).max)  # what networks compute with
LONGEST_SAID = 60  # letters of a value that a message shows
LEAVE_OUT = "Fill it in, or set data.on_error: skip to leave such rows out."


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A table's columns by name; messages speak of rows as an editor shows them."""

    place: str
    table: "pa.Table"
    rows_N: np.ndarray  # their numbers in the file

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.table.column_names)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def row(self, index: int) -> str:
        return f"row {self.rows_N[index]}"

    def check(self, names: Sequence[str], field: str) -> None:
        """Raises DataError, calling the setting ``field``, where there is no such column."""
        for name in names:
            if name not in self.names:
                raise DataError(f"data.{field}", f"{name!r}, no column of {self.place}", f"of: {', '.join(self.names)}")

    def texts(self, name: str) -> list[str]:
        """The column as texts; raises DataError for an empty cell."""
        values = self.cells(name)
        for index, value in enumerate(values):
            if value is None or not value.strip():
                raise self._wrong(name, f"nothing in {self.row(index)}{_of(values)}", "a value in every row", LEAVE_OUT)
        return [(value or "").strip() for value in values]

    def cells(self, name: str) -> list[str | None]:
        """The column's cells as texts, None where there is nothing; raises DataError for what is no text or number."""
        import pyarrow as pa

        try:
            values: list[str | None] = self.table[name].cast(pa.string()).to_pylist()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise self._wrong(name, f"values of type {self.table[name].type}", "texts or numbers") from None
        return values

    def numbers(self, name: str) -> np.ndarray:
        """The column as float64; raises DataError for an empty cell, a text, or what is no finite number of 32 bits."""
        import pyarrow as pa

        column = self.table[name]
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            values = column.to_pylist()
            index = next((index for index, value in enumerate(values) if not _is_number(value)), 0)
            raise self._wrong(name, f"{str(values[index])[:LONGEST_SAID]!r} in {self.row(index)}", "numbers")
        try:
            values_N = np.array(column.cast(pa.float64(), safe=False).to_pylist(), dtype=np.float64)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise self._wrong(name, f"values of type {column.type}", "numbers") from None
        bad = np.flatnonzero(~(np.abs(values_N) <= LARGEST))
        if len(bad):
            is_empty = bool(np.isnan(values_N[bad[0]]))
            found = "nothing" if is_empty else f"{values_N[bad[0]]}"
            many = f" ({len(bad):,} such rows)" if len(bad) > 1 else ""
            expected = "a finite number in every row" if not np.isfinite(values_N[bad[0]]) else f"{LARGEST:.2g} at most"
            advice = LEAVE_OUT if is_empty else ""
            raise self._wrong(name, f"{found} in {self.row(int(bad[0]))}{many}", expected, advice)
        return values_N

    def is_numeric(self, name: str) -> bool:
        import pyarrow as pa

        kind = self.table[name].type
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))

    def splits(self, name: str) -> Told | None:
        """Which rows are trained on and which tested on, as ``told_splits``; None where no column tells.

        Raises:
            DataError: if there is no such column, and it is not the usual one that a table need not have.
        """
        if name not in self.names:
            if name not in ("", USUAL_SPLIT):
                self.check([name], "split")
            return None
        return told_splits(self.cells(name), self.place)

    def whole(self, used: Sequence[str]) -> "tuple[Columns, list[str]]":
        """The rows without an empty cell in the columns ``used``, and what is to be said of the others.

        Raises:
            DataError: if there are none.
        """
        is_whole_N = ~np.stack([_is_empty(self.table[name]) for name in used]).any(axis=0)
        out = int((~is_whole_N).sum())
        if out == len(self):
            raise DataError(self.place, "an empty cell in every row", "rows with all of their values")
        kept = replace(self, table=self.table.filter(is_whole_N), rows_N=self.rows_N[is_whole_N])
        return kept, [f"left out: {out:,} of {len(self):,} rows, which have an empty cell"] if out else []

    def _wrong(self, name: str, found: str, expected: str, advice: str = "") -> DataError:
        return DataError(f"{self.place}, column {name}", found, expected, advice)


def _is_empty(column: "pa.ChunkedArray") -> np.ndarray:
    """Where a cell has nothing, or nothing but spaces, as ``Columns.texts`` refuses it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column)
    return np.array(pc.is_null(column, nan_is_null=True).to_pylist(), dtype=bool)


def read_columns(path: Path, *, texts: Sequence[str] = ()) -> Columns:
    """The table in the file; the columns ``texts`` of a CSV stay texts, so that no zeros are lost.

    Raises:
        DataError: if it cannot be read, or has no rows.
    """
    import pyarrow as pa

    try:
        with path.open("rb") as file:
            is_parquet = file.read(len(PARQUET)) == PARQUET
        table = _parquet(path) if is_parquet else _csv(path, texts)
    except OSError as error:
        raise DataError(f"data.path {path}", error.strerror or str(error), FORMATS) from None
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#04x}, which is no UTF-8 text"
        raise DataError(f"data.path {path}", byte, FORMATS, "Save the CSV file as UTF-8.") from None
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"data.path {path}", " ".join(str(error).split())[:200], FORMATS) from None
    doubled = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if doubled:
        raise DataError(f"data.path {path}", f"two columns {doubled[0]!r}", "a name of its own for every column")
    if not table.num_rows:
        raise DataError(f"data.path {path}", "no rows", "one row per example")
    first = 1 if is_parquet else 2
    return Columns(place=str(path), table=table, rows_N=np.arange(first, first + table.num_rows))


def _parquet(path: Path) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    table: pa.Table = pq.read_table(path)
    kept = pa.schema([field.with_type(_as_text(field.type)) for field in table.schema], table.schema.metadata)
    table = table.cast(kept)
    rows = (table.schema.pandas_metadata or {}).get("index_columns", [])  # pandas' numbers of rows are no feature
    return table.drop_columns([name for name in table.column_names if name in rows and name.startswith(ROW_NUMBERS)])


def _as_text(kind: "pa.DataType") -> "pa.DataType":
    """The type that texts have whatever they are stored as: categories, or views, of which few functions know."""
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else None
    is_category = inner is not None and (pa.types.is_string(inner) or pa.types.is_large_string(inner))
    return pa.large_string() if is_category or pa.types.is_string_view(kind) else kind


def _csv(path: Path, texts: Sequence[str]) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import csv as pa_csv

    with path.open(encoding="utf-8-sig") as file:
        head = file.readline()
    delimiter = max(DELIMITERS, key=head.count)
    parsing = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    written = [*texts, *(name for name in next(csv.reader([head], delimiter=delimiter), []) if name.strip() in texts)]
    kept = pa_csv.ConvertOptions(column_types=dict.fromkeys(written, pa.string()), strings_can_be_null=True)
    table: pa.Table = pa_csv.read_csv(path, parse_options=parsing, convert_options=kept)
    return table.rename_columns([name.strip() for name in table.column_names])


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True


def _of(values: Sequence[str | None]) -> str:
    many = sum(not (value or "").strip() for value in values)
    return f" ({many:,} such rows)" if many > 1 else ""


def told_splits(words: Sequence[str | None], place: str) -> Told | None:
    """Which rows are trained on and which tested on, and what is to be said; None where no split is told.

    Validation rows serve as test rows where there are none.

    Raises:
        DataError: where training or test rows are missing.
    """
    told = np.array([(word or "").strip().lower() for word in words], dtype=object)
    is_train, is_test, is_validation = (np.isin(told, names) for names in (TRAIN_NAMES, TEST_NAMES, VALIDATION_NAMES))
    if not any(told):
        return None
    held = is_test if is_test.any() else is_validation
    if not is_train.any() or not held.any():
        found = ", ".join(sorted({word or "none" for word in told}))
        raise DataError(place, f"the splits {found}", "train, and one of test, validation")
    counts = {word or "none": int((told == word).sum()) for word in sorted(set(told))}
    said = f"rows by split: {', '.join(f'{word} {count:,}' for word, count in counts.items())}"
    unused = [word or "none" for word in sorted(set(told[~(is_train | held)]))]
    why = ", and validation rows are drawn from the training rows" if is_test.any() and is_validation.any() else ""
    return is_train, held, [said, *([f"not used: {', '.join(unused)}{why}"] if unused else [])]


def names_of(paths: Sequence[Path]) -> list[str]:
    """What tells the files of a set apart: their names, where they lie in several folders with these."""
    around = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(around).as_posix() for path in paths]


def split_of_file(path: Path, root: Path) -> str | None:
    """The split that a file's name tells, as ``train-00000-of-00004`` does, else the folder it lies in, below ``root``.

    A single file is the whole set, whatever it is called.
    """
    if path == root:
        return None
    for part in (path.stem, *reversed(path.relative_to(root).parent.parts)):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in (*TRAIN_NAMES, *TEST_NAMES, *VALIDATION_NAMES):
                return word
    return None


# targets


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Targets as settings name them."""

    task: Task
    columns: tuple[str, ...]
    separator: str = "|"
    in_units: bool = False  # networks give numbers as they are

    @property
    def are_separated(self) -> bool:
        """Whether one column has the names of an example's labels, none of them in an empty cell."""
        return self.task == "multi-label" and len(self.columns) == 1

    @property
    def filled(self) -> tuple[str, ...]:
        """Columns in which an empty cell says nothing of an example."""
        return () if self.are_separated else self.columns

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of names, which are no numbers even where they look like them."""
        return self.columns if self.task == "classification" or self.are_separated else ()

    def metrics(self, scale: Callable[[], Normalisation]) -> Metrics:
        """Those of such targets, without a look at the data: a report is written where they are gone."""
        if self.task == "regression":
            return number_metrics(self.columns, scale)
        return MULTI_LABEL if self.task == "multi-label" else CLASSIFICATION

    def of(self, columns: Columns, is_train_N: np.ndarray) -> tuple[Targets, np.ndarray]:
        """What the targets are, and one row of them per row of the table.

        Raises:
            DataError: for a missing column or a value that is no such target.
        """
        columns.check(self.columns, "targets")
        if not self.columns:
            raise DataError("data.targets", "no column", f"of: {', '.join(columns.names)}")
        if self.task == "regression":
            numbers_NO = np.stack([columns.numbers(name) for name in self.columns], axis=1).astype(np.float32)
            numbers = numbers_NO[is_train_N].astype(np.float64)
            return NumberTargets.of(self.columns, numbers, in_units=self.in_units), numbers_NO
        if self.task == "multi-label":
            return _labels(columns, self.columns, self.separator)
        if len(self.columns) > 1:
            raise DataError("data.targets", ", ".join(self.columns), "one column of classes")
        return _classes(columns.texts(self.columns[0]))


class TargetSettings(Section):
    """Which columns hold what is predicted."""

    task: Task = Field("classification", description="What is predicted: one class, several labels, or numbers.")
    targets: Distinct[str] = Field(
        ["target"],
        description="Columns of what is predicted: numbers, labels as 0 and 1, or one column of classes or of labels "
        "with a separator.",
    )
    separator: str = Field("|", min_length=1, description="What stands between labels in one column.")
    standardise_targets: bool = Field(
        True,
        description="Whether networks give numbers in units of the training targets' deviation; false: in their own "
        "unit, as a model may that was trained elsewhere.",
    )

    @property
    def wanted(self) -> Wanted:
        return Wanted(
            task=self.task,
            columns=tuple(self.targets),
            separator=self.separator,
            in_units=not self.standardise_targets,
        )


def _classes(words: Sequence[str]) -> tuple[ClassTargets, np.ndarray]:
    names = sorted(set(words), key=_in_order)
    numbers = {name: number for number, name in enumerate(names)}
    return ClassTargets(names=tuple(names)), np.array([numbers[word] for word in words], dtype=np.int64)


def _in_order(name: str) -> tuple[int, str]:
    """Whole numbers by their value, before names."""
    return (int(name), "") if re.fullmatch(r"\d{1,15}", name) else (2**63, name)


def _labels(columns: Columns, chosen: Sequence[str], separator: str) -> tuple[LabelTargets, np.ndarray]:
    if len(chosen) == 1:
        names, has_NL = _separated(columns, chosen[0], separator)
    else:
        names, has_NL = tuple(chosen), np.stack([_zeros_and_ones(columns, name) for name in chosen], axis=1)
    if len(names) < 2:
        found = f"one label, {names[0]}" if names else "no label"
        advice = f"Several columns of 0 and 1, or one of names with {separator!r} between them (data.separator)."
        raise DataError(f"{columns.place}, column {', '.join(chosen)}", found, "two labels at least", advice)
    return LabelTargets(names=names), has_NL.astype(np.uint8)


def _separated(columns: Columns, name: str, separator: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Labels that occur in a column of separated names; an empty cell has none."""
    import pyarrow as pa

    cells = columns.table[name]
    if pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type):
        rows = [[str(label) for label in cell or ()] for cell in cells.to_pylist()]
    else:
        texts = columns.cells(name)
        rows = [[label.strip() for label in (text or "").split(separator) if label.strip()] for text in texts]
    names = sorted({label for row in rows for label in row}, key=_in_order)
    numbers = {label: number for number, label in enumerate(names)}
    has_NL = np.zeros((len(rows), len(names)), dtype=bool)
    for index, row in enumerate(rows):
        has_NL[index, [numbers[label] for label in row]] = True
    return tuple(names), has_NL


def _zeros_and_ones(columns: Columns, name: str) -> np.ndarray:
    values_N = columns.numbers(name)
    wrong = np.flatnonzero((values_N != 0) & (values_N != 1))
    if len(wrong):
        found = f"{values_N[wrong[0]]:g} in {columns.row(int(wrong[0]))}"
        raise DataError(f"{columns.place}, column {name}", found, "0 or 1 in every row")
    return values_N
