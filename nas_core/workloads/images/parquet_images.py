"""Parquet files of encoded images, as Hugging Face writes them or any other.

A row has an image (bytes, or a record with the field ``bytes``) and a label (a
number or a name). Splits are told by a column, or by the files' names
(``train-00000-of-00004.parquet``) or folders (``test/0.parquet``); without either one row in five is a test
image. The encoded images are copied once per node into a file of the cache
folder that is read at random, as Parquet cannot be.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from nas_core.base.errors import DataError
from nas_core.base.identity import content_id
from nas_core.workloads.classification import ClassTargets, class_numbers
from nas_core.workloads.columns import USUAL_SPLIT, names_of, split_of_file, told_splits
from nas_core.workloads.images.cache import alone, cache_folder, make_room, used_now
from nas_core.workloads.images.decoding import Encoded
from nas_core.workloads.images.files_of_images import FilesOfImages
from nas_core.workloads.images.holding import Holding
from nas_core.workloads.images.items import Items, Listing
from nas_core.workloads.images.layouts import TEST_SHARE, listed
from nas_core.workloads.settings import EncodedSettings
from nas_core.workloads.workload import WORKLOADS

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 256  # copied at once
VERSION = 3  # raised when the node's copy of the same files is another
NO_SPLIT = f"no split is told: one row in {TEST_SHARE} of each class is a test image"


class ParquetSettings(EncodedSettings):
    """Which columns hold what."""

    image: str = Field("image", description="Column of the encoded images: bytes, or a record with the field `bytes`.")
    label: str = Field("label", description="Column of the classes: numbers from 0 on, or names.")
    split: str = Field(
        USUAL_SPLIT,
        description="Column that says train or test; `split` counts where files' names do not tell; empty: none.",
    )


def holds_no_images(path: Path) -> bool:
    """Whether it is a Parquet file without a column that encoded images could be in: numbers and texts only."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        kinds = pq.read_schema(path).types
    except (OSError, pa.ArrowException):  # another file, or a broken one
        return False
    return not any(pa.types.is_struct(kind) or _is_bytes(kind) for kind in kinds)


def _is_bytes(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


@WORKLOADS.add
class ParquetImages(FilesOfImages):
    """Encoded images in one Parquet file, or in a folder of them, such as a set of Hugging Face's."""

    name = "parquet"
    Settings = ParquetSettings
    settings: ParquetSettings
    ending, wanted = ".parquet", "a Parquet file of images, or a folder of them"

    def listing(self) -> Listing:
        spool = self._spool()
        table, rows, left_out = self._labelled(_opened(str(spool)))
        told = told_splits(table["split"].to_pylist(), self.place)
        labels_N, names = class_numbers(table["label"].to_pylist(), self.place, self._class_names())
        stamp = hashlib.sha256(str(self.state()).encode()).digest()
        items = SpooledItems(
            spool=str(spool),
            rows_N=rows,
            names_N=self._names(_opened(str(spool)))[rows],
            labels_N=labels_N,
            stamps_N2=np.tile(np.frombuffer(stamp[:16], np.int64) >> 1, (len(rows), 1)),
        )
        return listed(items, ClassTargets(names=names), told, left_out, NO_SPLIT)

    def _labelled(self, table: "pa.Table") -> "tuple[pa.Table, np.ndarray, list[str]]":
        """The rows with a label, their numbers, and what is to be said of others.

        Raises:
            DataError: naming the first without one, unless they are to be left out.
        """
        has_label_N = ~np.asarray(table["label"].is_null())
        without = self._names(table)[~has_label_N].tolist() if not has_label_N.all() else []
        said = self._said_of_unlabelled(without, len(table), "row", "one in each row")
        return (table.filter(has_label_N) if without else table), np.flatnonzero(has_label_N), said

    def _names(self, table: "pa.Table") -> np.ndarray:
        """Each row of the node's copy as messages name it: its file, and the row there."""
        files = names_of([path for path, _ in self._stamps()])
        return np.array(
            [f"{files[file]} row {row}" for file, row in zip(*_positions(table), strict=True)], dtype=object
        )

    def _class_names(self) -> tuple[str, ...]:
        """Names of numbered classes, as Hugging Face keeps them in a file's notes; none where there are none."""
        import pyarrow.parquet as pq

        notes = pq.read_schema(self._stamps()[0][0]).metadata or {}
        try:
            features = json.loads(notes[b"huggingface"])["info"]["features"]
            return tuple(map(str, features[self.settings.label]["names"]))
        except (KeyError, TypeError, ValueError):
            return ()

    def _spool(self) -> Path:
        """The node's copy, to be read at random; made if it is not there."""
        import pyarrow as pa

        settings = self.settings
        files = [[str(path), *stamp] for path, stamp in self._stamps()]
        known = {"files": files, "image": settings.image, "version": VERSION}
        path = (
            cache_folder()
            / "encoded"
            / f"{content_id({**known, 'label': settings.label, 'split': settings.split})}.arrow"
        )
        if not path.exists():
            with alone(path):
                if not path.exists():
                    temporary = path.with_suffix(".part")
                    self._make_room(temporary)
                    try:
                        self._copy(temporary)
                        temporary.replace(path)
                    except OSError as error:
                        found = error.strerror or str(error)
                        raise DataError(
                            str(path), found, "room for a copy of the encoded images", "Set MATHNAS_CACHE."
                        ) from None
                    except pa.ArrowException as error:
                        raise DataError(
                            self.place, " ".join(str(error).split())[:200], "Parquet files of images"
                        ) from None
        used_now(path)
        return path

    def _make_room(self, path: Path) -> None:
        """Others' files give way to the copy, which is about as large as what it is made of.

        Raises:
            DataError: if it is larger than the cache may be.
        """
        nbytes, most = sum(size for _, (size, _) in self._stamps()), self.holding.cache_bytes
        if nbytes > most:
            expected = f"{nbytes / 1e9:.3g} at least, for a copy of the encoded images in {cache_folder()}"
            raise DataError("data.cache_gb", f"{most / 1e9:.3g}", expected)
        with suppress(OSError):  # a folder that cannot be made is said when the copy is
            make_room(path, nbytes, most)

    @property
    def holding(self) -> Holding:
        """With the copy of the encoded images, which takes a part of the cache, too."""
        return replace(super().holding, taken_bytes=sum(size for _, (size, _) in self._stamps()))

    @property
    def _names_tell_splits(self) -> bool:
        """Whether the files' names tell training and test rows, so that what is called ``split`` may be anything."""
        try:
            return told_splits([split_of_file(path, self._path()) for path, _ in self._stamps()], "") is not None
        except DataError:
            return False

    def _copy(self, target: Path) -> None:
        import pyarrow as pa

        schema = pa.schema({"image": pa.large_binary(), "label": pa.string(), "split": pa.string(), "file": pa.int32()})
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for number, (path, _) in enumerate(self._stamps()):
                for batch in self._batches(path):
                    size = [number] * len(batch["image"])
                    writer.write_batch(pa.record_batch([*batch.values(), pa.array(size, pa.int32())], schema=schema))

    def _batches(self, path: Path) -> "Iterator[dict[str, pa.Array]]":
        """Rows of a file as image, label and split."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        settings = self.settings
        try:
            file = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise DataError(str(path), " ".join(str(error).split())[:200], "a Parquet file") from None
        columns = file.schema_arrow.names
        named = [settings.image, settings.label, *([settings.split] if settings.split not in ("", USUAL_SPLIT) else [])]
        missing = [name for name in named if name not in columns]
        if missing:
            expected = f"also {', '.join(missing)}"
            advice = "Name yours in data.image, data.label and data.split."
            raise DataError(str(path), f"columns {', '.join(columns)}", expected, advice)
        told = split_of_file(path, self._path())
        has_split = settings.split in columns and not (settings.split == USUAL_SPLIT and self._names_tell_splits)
        wanted = [settings.image, settings.label, *([settings.split] if has_split else [])]
        for batch in file.iter_batches(ROWS, columns=wanted):
            image = batch[settings.image]
            if pa.types.is_struct(image.type):
                image = image.field("bytes") if image.type.get_field_index("bytes") >= 0 else image.field(0)
            if not _is_bytes(image.type):
                raise DataError(str(path), f"{settings.image} of type {image.type}", "bytes, or records with `bytes`")
            split = batch[settings.split] if has_split else pa.array([told] * len(image), pa.string())
            yield {
                "image": image.cast(pa.large_binary()),
                "label": batch[settings.label].cast(pa.string()),
                "split": split.cast(pa.string()),
            }


@dataclass(frozen=True, kw_only=True, eq=False)
class SpooledItems(Items):
    """Encoded images in an Arrow file, by their rows."""

    spool: str
    rows_N: np.ndarray

    def content(self, index: int) -> Encoded:
        return _opened(self.spool)["image"][int(self.rows_N[index])].as_py() or b""


@lru_cache(maxsize=8)
def _opened(path: str) -> "pa.Table":
    """The file's columns, mapped into memory."""
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(path)).read_all()


def _positions(table: "pa.Table") -> tuple[list[int], list[int]]:
    """File and row in it of each row."""
    files = np.asarray(table["file"])
    starts = np.searchsorted(files, files)
    return files.tolist(), (np.arange(len(files)) - starts).tolist()
