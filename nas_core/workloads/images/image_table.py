"""Images that a table names, with their targets: a CSV or Parquet file with a row per image.

Targets are one class, several labels (columns of 0 and 1, or one of names with
a separator), or numbers. Splits are told by a column; without one, one image
in five, by its name, is a test image.
"""

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from nas_core.base.errors import DataError
from nas_core.base.settings import PathText
from nas_core.workloads.columns import FORMATS, USUAL_SPLIT, Columns, TargetSettings, read_columns
from nas_core.workloads.images.census import Census
from nas_core.workloads.images.encoded import EncodedImages
from nas_core.workloads.images.items import FileItems, Listing
from nas_core.workloads.images.layouts import TEST_SHARE, are_test, stamp_of
from nas_core.workloads.metrics import Metrics
from nas_core.workloads.regression import NumberTargets
from nas_core.workloads.settings import EncodedSettings
from nas_core.workloads.workload import WORKLOADS

NO_SPLIT = f"no column tells splits: one image in {TEST_SHARE}, by its name, is a test image"


class TableSettings(TargetSettings, EncodedSettings):
    """Which columns hold what."""

    images: PathText | None = Field(
        None, description="Folder that the images' names are relative to; empty: the table's own."
    )
    image: str = Field("image", description="Column of the images' names.")
    split: str = Field(
        USUAL_SPLIT,
        description="Column that says train or test; empty: images are drawn, as where there is no column `split`.",
    )


@WORKLOADS.add
class ImageTable(EncodedImages):
    """Images that a CSV or Parquet file names, with a class, several labels, or numbers to predict."""

    name = "image-table"
    Settings = TableSettings
    places = EncodedImages.places | {"images"}
    settings: TableSettings

    @property
    def metrics(self) -> Metrics:
        return self.settings.wanted.metrics(lambda: self.targets.scale)

    @property
    def label(self) -> str:
        return f"table {Path(self.settings.path or '').name}"

    @property
    def place(self) -> str:
        return str(self._path())

    def state(self) -> Hashable:
        table, folder = self._path().stat(), self._folder().stat()
        return str(self._path()), table.st_size, table.st_mtime_ns, str(self._folder()), folder.st_mtime_ns

    def listing(self) -> Listing:
        settings = self.settings
        columns = read_columns(self._path(), texts=[settings.image, settings.split, *settings.wanted.texts])
        columns.check([settings.image], "image")
        columns.check(settings.wanted.columns, "targets")
        used = [settings.image, *settings.wanted.filled]
        columns, left_out = columns.whole(used) if settings.on_error == "skip" else (columns, [])
        names = columns.texts(settings.image)
        _check_different(names, columns)
        told = columns.splits(settings.split)
        if told is None:
            is_test_N = np.array(are_test(names), dtype=bool)
            told = ~is_test_N, is_test_N, [NO_SPLIT]
        is_train_N, is_test_N, notes = told[0], told[1], [*left_out, *told[2]]
        targets, targets_N = settings.wanted.of(columns, is_train_N)
        root = self._folder()
        items = RowItems(
            root=root,
            names_N=np.array(names, dtype=object),
            labels_N=targets_N,
            stamps_N2=np.array([stamp_of(root / name) for name in names], dtype=np.int64).reshape(-1, 2),
        )
        return Listing(targets=targets, train=items.only(is_train_N), test=items.only(is_test_N), notes=tuple(notes))

    def understood(self, listing: Listing, found: Sequence[Census]) -> Listing:
        """With numbers in units of those images that are trained on: not of those that cannot be read."""
        targets = listing.targets
        if not isinstance(targets, NumberTargets):
            return listing
        read_NO = listing.train.labels_N[found[0].is_sound].astype(np.float64)
        return replace(listing, targets=NumberTargets.of(targets.names, read_NO, in_units=targets.in_units))

    def _path(self) -> Path:
        path = self.settings.path
        if not path or not os.path.isfile(path):
            raise DataError("data.path", path or "nothing", f"{FORMATS} with a row per image")
        return Path(path).absolute()

    def _folder(self) -> Path:
        folder = Path(self.settings.images).absolute() if self.settings.images else self._path().parent
        if not os.path.isdir(folder):
            raise DataError("data.images", str(folder), "the folder that the images' names are relative to")
        return folder


@dataclass(frozen=True, kw_only=True, eq=False)
class RowItems(FileItems):
    """Images by the names in a table, which do not tell their targets."""

    named: ClassVar[bool] = False


def _check_different(names: list[str], columns: Columns) -> None:
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in first:
            found = f"{name} in {columns.row(first[name])} and {columns.row(index)}"
            raise DataError(columns.place, found, "one row per image")
        first[name] = index
