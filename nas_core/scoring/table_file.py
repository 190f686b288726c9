"""A file of known results as named columns, whichever way people store one: Parquet, JSON or CSV.

The format is found from the content. JSON may be rows by network
(``{"012": {"acc": 93.1}}``), such rows once per data set or deeper
(``{"012": {"test": {"acc": 93.1}}}``: the column is called ``test.acc``), one
value per network (its column is called ``value``), a list of rows, or columns.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_core.base.errors import DataError

ARCH_COLUMN = "arch"  # the networks, where JSON has them as keys
VALUE_COLUMN = "value"  # where JSON has one value per network
SOURCE_ADVICE = "NAS-Bench-Macro's JSON is at https://github.com/xiusu/NAS-Bench-Macro under data/."
FORMATS = "a Parquet, JSON or CSV table of known results"
JSON_SHAPES = f'{{"ARCH": {{"METRIC": VALUE}}}}, or a list of rows with {ARCH_COLUMN!r}'
DELIMITERS = ",;\t|"
_NETWORK = re.compile(r"[\[(]?\s*\d+([\s,;|_-]+\d+)*\s*,?\s*[\])]?")


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """The columns of a file; ``read`` gives some of them, one value per row.

    ``row`` is what a row is called, and ``first`` the number of the first one,
    so that messages speak of the file as an editor shows it.
    """

    path: Path
    names: tuple[str, ...]
    read: Callable[[Sequence[str]], dict[str, list[Any]]]
    row: str = "row"
    first: int = 1
    arch_is_key: bool = False  # the networks are keys, no column of the file

    def column(self, name: str, field: str) -> str:
        """The name; raises DataError, calling it ``field``, if there is no such column."""
        if name in self.names:
            return name
        listed = [each for each in self.names if not (self.arch_is_key and each == ARCH_COLUMN)]
        found = repr(name) if self.arch_is_key else f"{name!r}, no column of {self.path}"
        raise DataError(field, found, f"one of: {', '.join(listed)}")

    def place(self, index: int) -> str:
        return f"{self.row} {index + self.first}"


def open_table(path: Path) -> TableFile:
    """The table in the file.

    Raises:
        DataError: if there is none, saying what the file holds.
    """
    where = f"scorer.path {path}"
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start == b"PAR1":
            return _parquet(path)
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(where, error.strerror or str(error), FORMATS) from None
    except UnicodeDecodeError:
        raise DataError(where, "a binary file of another format", FORMATS, SOURCE_ADVICE) from None
    if path.suffix == ".json" or text.lstrip()[:1] in ("{", "["):
        return _json(path, text)
    return _csv(path, text)


def _parquet(path: Path) -> TableFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def read(names: Sequence[str]) -> dict[str, list[Any]]:
        table = file.read(columns=sorted(set(names)), use_threads=False)
        return {name: table[name].to_pylist() for name in table.column_names}

    try:
        file = pq.ParquetFile(path)
        return TableFile(path=path, names=tuple(file.schema_arrow.names), read=read)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"scorer.path {path}", str(error)[:200], "a whole Parquet table") from None


def _csv(path: Path, text: str) -> TableFile:
    """Delimited text with a line of names; values stay text, so that no zeros are lost."""
    where, head = f"scorer.path {path}", text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=head.count)
    if not head.count(delimiter):
        raise DataError(where, f"the first line {head.strip()!r:.80}", FORMATS)
    try:
        names, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error as error:
        raise DataError(where, str(error), "CSV") from None
    names = [name.strip() for name in names]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            expected = f"{len(names)} as in the first line, which names them"
            raise DataError(f"{where}: line {number}", f"{len(row)} values", expected)
    columns = {name: [row[index].strip() for row in rows] for index, name in enumerate(names)}
    if len(columns) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{where}: line 1", f"the column {double!r} twice", "every name once")
    return TableFile(path=path, names=tuple(names), read=lambda _: columns, row="line", first=2)


def _json(path: Path, text: str) -> TableFile:
    where = f"scorer.path {path}"
    try:
        data: Any = json.loads(text, object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise DataError(where, str(error)[:200], "JSON", SOURCE_ADVICE) from None
    found = _columns(data)
    if found is None:
        raise DataError(where, f"other JSON: {_described(data)}", JSON_SHAPES, SOURCE_ADVICE)
    columns, arch_is_key = found
    return TableFile(path=path, names=tuple(columns), read=lambda _: columns, row="entry", arch_is_key=arch_is_key)


class _Object(dict[str, Any]):
    """A JSON object that keeps its pairs: a key that stands twice is a network that was measured twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _columns(data: Any) -> tuple[dict[str, list[Any]], bool] | None:
    """The columns of parsed JSON, and whether the networks are keys; None for what is no table."""
    if isinstance(data, list) and data and all(isinstance(row, _Object) for row in data):
        return _of_rows([_flat(row) for row in data]), False
    if not isinstance(data, _Object) or not data:
        return None
    if ARCH_COLUMN in data:
        columns = {name: list(each.values() if isinstance(each, dict) else each) for name, each in data.items()
                   if isinstance(each, dict | list)}  # fmt: skip
        return (columns, False) if len({len(each) for each in columns.values()}) == 1 else None
    if any(map(_is_network, data)) or not all(_is_by_network(each) for each in data.values()):
        return _by_network(data.pairs)
    by_set = {name: _by_network(each.pairs) for name, each in data.items()}  # one table per data set, joined
    rows: dict[str, dict[str, Any]] = {}
    for name, table in by_set.items():
        if table is None or len(set(table[0][ARCH_COLUMN])) < len(table[0][ARCH_COLUMN]):
            return None
        for index, arch in enumerate(table[0][ARCH_COLUMN]):
            values = {f"{name}.{key}": column[index] for key, column in table[0].items() if key != ARCH_COLUMN}
            rows.setdefault(arch, {ARCH_COLUMN: arch}).update(values)
    return _of_rows(list(rows.values())), True


def _by_network(pairs: Sequence[tuple[str, Any]]) -> tuple[dict[str, list[Any]], bool] | None:
    """Rows, or single values, by network."""
    if all(isinstance(row, _Object) for _, row in pairs):
        return _of_rows([{ARCH_COLUMN: arch, **_flat(row)} for arch, row in pairs]), True
    if all(isinstance(value, int | float | str | None) for _, value in pairs):
        return _of_rows([{ARCH_COLUMN: arch, VALUE_COLUMN: value} for arch, value in pairs]), True
    return None


def _of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _flat(row: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """``{"test": {"acc": 1}}`` as ``{"test.acc": 1}``."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return found


def _is_network(key: str) -> bool:
    return _NETWORK.fullmatch(key.strip()) is not None


def _is_by_network(value: Any) -> bool:
    return isinstance(value, _Object) and bool(value) and all(map(_is_network, value))


def _described(data: Any) -> str:
    """The shape of parsed JSON in a few words."""
    if isinstance(data, dict) and data:
        key, value = next(iter(data.items()))
        return f"an object with {key!r:.60}: {type(value).__name__}"
    if isinstance(data, list) and data:
        return f"a list of {type(data[0]).__name__}"
    return f"{data!r:.60}"
