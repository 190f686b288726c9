"""Images in shards as WebDataset has them: tars in which an image and its label lie side by side.

``000017.jpg`` and ``000017.cls`` are one sample: names are equal up to the
first dot. Splits are told by the shards' names (``train-0004.tar``) or folders;
without either one sample in five of each class is a test image. Where the
images lie in the tars is looked up once per node; then any of them is read by
its place, so that shards are shuffled as every other set is. No package is needed.
"""

import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from nas_core.base.errors import DataError
from nas_core.base.identity import content_id
from nas_core.workloads.classification import ClassTargets, class_numbers
from nas_core.workloads.columns import names_of, split_of_file, told_splits
from nas_core.workloads.images.cache import alone, cache_folder, keep
from nas_core.workloads.images.decoding import Encoded, suffixes
from nas_core.workloads.images.files_of_images import FilesOfImages
from nas_core.workloads.images.items import Items, Listing
from nas_core.workloads.images.layouts import TEST_SHARE, is_system, listed
from nas_core.workloads.settings import EncodedSettings
from nas_core.workloads.workload import WORKLOADS

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 2  # raised when the same shards are understood differently
NO_SPLIT = f"no split is told: one sample in {TEST_SHARE} of each class is a test image"
SAMPLE = {"shard": "int64", "split": "string", "name": "string", "start": "int64", "nbytes": "int64", "label": "string"}
BESIDE = "other members of shards"


class ShardSettings(EncodedSettings):
    """What a sample's label is called."""

    label: str = Field(
        "cls",
        min_length=1,
        description="Ending of the members that hold the class, a number from 0 on or a name; or `json:KEY`, a field "
        "of the members that end in json.",
    )


@WORKLOADS.add
class Shards(FilesOfImages):
    """Images and classes in WebDataset's shards: tars with a member for each, of equal names."""

    name = "webdataset"
    Settings = ShardSettings
    settings: ShardSettings
    ending, wanted = ".tar", "a folder of WebDataset's shards (.tar), or one of them"

    def listing(self) -> Listing:
        samples, stamps = self._samples(), self._stamps()
        if not samples.num_rows:
            raise DataError(self.place, "no image in the shards", "members such as 0001.jpg beside 0001.cls")
        names_N = np.array(samples["name"].to_pylist(), dtype=object)
        has_label_N = ~np.asarray(samples["label"].is_null())
        expected = f"a member `{self.settings.label}` beside each"
        left_out = self._said_of_unlabelled(names_N[~has_label_N].tolist(), len(names_N), "image", expected)
        rows = samples.filter(has_label_N)
        shard_N = np.asarray(rows["shard"])
        labels_N, classes = class_numbers(rows["label"].to_pylist(), self.place)
        sizes = np.asarray(rows["nbytes"])
        items = ShardItems(
            shards=tuple(str(path) for path, _ in stamps),
            places_N3=np.stack([shard_N, np.asarray(rows["start"]), sizes], axis=1),
            names_N=names_N[has_label_N],
            labels_N=labels_N,
            stamps_N2=np.stack([sizes, np.array([changed for _, (_, changed) in stamps])[shard_N]], axis=1),
        )
        told = told_splits(rows["split"].to_pylist(), self.place)
        found = listed(items, ClassTargets(names=classes), told, left_out, NO_SPLIT)
        beside = int((samples.schema.metadata or {}).get(b"beside", 0))
        return Listing(
            targets=found.targets, train=found.train, test=found.test, notes=found.notes,
            ignored={BESIDE: beside} if beside else {},
        )  # fmt: skip

    def _samples(self) -> "pa.Table":
        """Where the images lie, with their labels; looked up once per node for shards that stay as they are."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        shards = [[str(path), *stamp] for path, stamp in self._stamps()]
        known = content_id({"shards": shards, "label": self.settings.label, "version": VERSION})
        path = cache_folder() / "shards" / f"{known}.parquet"
        with alone(path):
            try:
                return pq.read_table(path)
            except (OSError, pa.ArrowException):  # not there, or damaged: it is made
                found = self._looked_up()
            keep(path, lambda temporary: pq.write_table(found, temporary))
        return found

    def _looked_up(self) -> "pa.Table":
        import pyarrow as pa

        beside = Counter[str]()
        columns: dict[str, list[Any]] = {name: [] for name in SAMPLE}
        paths = [path for path, _ in self._stamps()]
        for number, (path, name) in enumerate(zip(paths, names_of(paths), strict=True)):
            split = split_of_file(path, self._path())
            for sample in _samples_of(path, name, self.settings.label, beside):
                for column, value in zip(columns.values(), (number, split, *sample), strict=True):
                    column.append(value)
        table = pa.table({name: pa.array(values, SAMPLE[name]) for name, values in columns.items()})
        return table.replace_schema_metadata({"beside": str(beside.total())})


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardItems(Items):
    """Images by their places: number of the shard, first byte, number of bytes."""

    shards: tuple[str, ...]
    places_N3: np.ndarray

    def content(self, index: int) -> Encoded:
        shard, start, nbytes = self.places_N3[index].tolist()
        with open(self.shards[shard], "rb") as file:
            file.seek(start)
            return file.read(nbytes)


def _samples_of(path: Path, shard: str, label: str, beside: Counter[str]) -> Iterator[tuple[str, int, int, str | None]]:
    """Name, first byte, number of bytes and label of each image of a shard; what is neither is counted.

    ``shard`` is what the images' names begin with.

    Raises:
        DataError: for what is no tar without compression, which cannot be read at any place.
    """
    images, labels = dict[str, tuple[str, int, int]](), dict[str, str | None]()
    ending_of_label, _, field = label.partition(":")
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else each of a million is kept
                folder, name = os.path.split(member.name)
                key, _, ending = name.partition(".")
                key, ending = os.path.join(folder, key), ending.lower()
                if not member.isreg() or member.issparse() or is_system(name):
                    beside["other"] += not member.isdir()
                elif f".{ending}" in suffixes() and key not in images:
                    images[key] = f"{shard}/{member.name}", member.offset_data, member.size
                elif ending == ending_of_label and (file := tar.extractfile(member)) is not None:
                    labels[key] = _label(file.read(), field)
                else:
                    beside["other"] += 1
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            str(path), str(error)[:200] or type(error).__name__, "a tar, whole and not compressed"
        ) from None
    for key, image in images.items():
        yield *image, labels.get(key)


def _label(data: bytes, field: str) -> str | None:
    """The label as a text, of JSON that of a field; None where there is none."""
    text = data.decode("utf-8", "replace").strip()
    if not field:
        return text or None
    try:
        found = json.loads(text)[field]
    except (ValueError, KeyError, TypeError):
        return None
    return str(found) if isinstance(found, str | int) and str(found).strip() else None
