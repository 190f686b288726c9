"""Images by timm's readers and torchvision's sets, as ``timm.data.create_dataset`` names them.

A folder, a tar, or a folder with a tar per split (no name), ``torch/...`` for
torchvision's sets, ``hfds/...`` for Hugging Face's where its package is
installed: what gives any image by its number. Streams (``wds/``, ``tfds/``, ``hfids/``) do not;
WebDataset's shards are read by ``shards``.
"""

import os
import threading
import weakref
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from nas_core.base.errors import DataError
from nas_core.base.identity import content_id
from nas_core.workloads.classification import ClassTargets
from nas_core.workloads.images.decoding import Encoded
from nas_core.workloads.images.encoded import EncodedImages
from nas_core.workloads.images.items import Items, Listing
from nas_core.workloads.images.layouts import TEST_SHARE, are_test
from nas_core.workloads.settings import EncodedSettings
from nas_core.workloads.workload import WORKLOADS


class TimmSettings(EncodedSettings):
    """A set of images by the name that timm has for it."""

    dataset: str = Field(
        "", description="timm's name of the set, such as torch/cifar100; empty: a folder or a tar in data.path."
    )
    train_split: str = Field("train", description="The split that is trained and validated on.")
    test_split: str = Field("validation", description="The split that is tested on.")


@WORKLOADS.add
class TimmImages(EncodedImages):
    """Images by timm's readers: folders, tars, torchvision's sets, Hugging Face's where its package is installed."""

    name = "timm"
    Settings = TimmSettings
    settings: TimmSettings

    @property
    def place(self) -> str:
        return " ".join(filter(None, (self.settings.dataset, self.settings.path)))

    def state(self) -> Hashable:
        path = self.settings.path
        if path is None or not os.path.exists(path):
            if not self.settings.dataset or (path is not None and not self.settings.download):
                raise DataError("data.path", path or "nothing", "a folder or a tar of images")
            return None
        return Path(path).stat().st_mtime_ns

    def listing(self) -> Listing:
        settings, state = self.settings, str(self.state())
        splits = [
            _items(Source(settings.dataset, settings.path or "", split, settings.download, state))
            for split in (settings.train_split, settings.test_split)
        ]
        (train, names), (test, others) = splits
        if names != others:
            raise DataError(
                self.place,
                f"classes {', '.join(others[:5])} in {settings.test_split}",
                f"those of {settings.train_split}: {', '.join(names[:5])}",
            )
        if np.array_equal(train.names_N, test.names_N):  # timm found no splits, and gave the same images twice
            train, test = train.divided(are_test)
            note = f"no split in {self.place}: one image in {TEST_SHARE} of each class, by its name, is a test image"
            return Listing(targets=ClassTargets(names=names), train=train, test=test, notes=(note,))
        return Listing(targets=ClassTargets(names=names), train=train, test=test)


@dataclass(frozen=True)
class Source:
    """What timm needs to find a split; ``state`` changes with the set."""

    dataset: str
    path: str
    split: str
    download: bool
    state: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ReaderItems(Items):
    """Images by their number in a set of timm's; made anew in each process."""

    source: Source
    rows_N: np.ndarray

    def content(self, index: int) -> Encoded:
        data = _dataset(self.source)
        with _reading():
            image = getattr(data, "reader", data)[int(self.rows_N[index])][0]
            if not hasattr(image, "read"):  # an image of Pillow's
                decoded: Encoded = image
                return decoded
            with image:
                return bytes(image.read())


@lru_cache(maxsize=8)
def _dataset(source: Source) -> Any:
    from nas_core.base.torchvision_compat import define_missing_operators

    define_missing_operators()
    import timm.data

    tar = Path(source.path) / f"{source.split}.tar"
    root = str(tar) if source.path and not source.dataset and tar.is_file() else source.path
    where = f"data: timm {source.dataset or source.path}, {source.split}"
    try:
        data = timm.data.create_dataset(source.dataset, root=root or None, split=source.split, download=source.download)
        if not hasattr(getattr(data, "reader", data), "__getitem__"):
            raise TypeError("a stream")
    except Exception as error:  # timm, torchvision and Hugging Face raise whatever there is
        found = " ".join(str(error).split())[:200] or type(error).__name__
        expected = "a set that timm.data.create_dataset finds, which gives an image by its number"
        advice = "WebDataset's shards are `kind: webdataset`." if source.dataset.startswith("wds") else ""
        raise DataError(where, found, expected, advice) from None
    reader = getattr(data, "reader", data)
    if hasattr(reader, "tar_state"):  # timm opens a tar when the first image of it is read, and never closes it
        weakref.finalize(reader, _close, [reader.tar_state])
    return data


@lru_cache(maxsize=1)
def _reading() -> threading.Lock:
    """Held while a tar is read, since that is through one handle."""
    return threading.Lock()


def _begin_anew() -> None:
    """In a forked process: what the parent opened has one place in the file for both, and they read side by side."""
    _dataset.cache_clear()
    _reading.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def _close(tars: Iterable[Any]) -> None:
    """Closes timm's tar files, those within tar files first."""
    for tar in tars:
        _close(tar.children.values())
        if tar.tf is not None:
            tar.tf.close()


def _items(source: Source) -> tuple[ReaderItems, tuple[str, ...]]:
    """A split's images, and the names of the classes."""
    data = _dataset(source)
    labels = _targets(data)
    names = _class_names(data, labels)
    reader = getattr(data, "reader", None)
    if reader is not None and hasattr(reader, "samples"):  # of a folder or a tar
        files = [str(Path(reader.root) / reader.filename(n)) for n in range(len(labels))]
    else:
        files = [f"{source.split} {n}" for n in range(len(labels))]
    items = ReaderItems(
        source=source,
        rows_N=np.arange(len(labels)),
        names_N=np.array(files, dtype=object),
        labels_N=labels,
        stamps_N2=np.array([_stamp(source, file) for file in files], dtype=np.int64).reshape(-1, 2),
    )
    return items, names


def _targets(data: Any) -> np.ndarray:
    """Class numbers, without decoding images where that can be had."""
    reader = getattr(data, "reader", data)
    samples = getattr(reader, "samples", None)
    if hasattr(reader, "targets"):
        found = reader.targets
    elif isinstance(samples, (list, tuple)):
        found = [sample[1] for sample in samples]
    elif hasattr(reader, "iter_targets"):
        found = list(reader.iter_targets())
    else:
        found = [reader[index][1] for index in range(len(reader))]
    try:
        return np.array([int(target) for target in found], dtype=np.int64)
    except (TypeError, ValueError):
        raise DataError("data: timm", f"the target {found[0]!r:.50}", "one class number per image") from None


def _class_names(data: Any, labels: np.ndarray) -> tuple[str, ...]:
    reader = getattr(data, "reader", data)
    numbers = getattr(reader, "class_to_idx", None) or getattr(reader, "class_name_to_idx", None)
    if numbers:
        return tuple(str(name) for name, _ in sorted(numbers.items(), key=lambda item: int(item[1])))
    return tuple(map(str, range(int(labels.max(initial=-1)) + 1)))


def _stamp(source: Source, file: str) -> tuple[int, int]:
    """Size and time of the file that the image lies in, or of the set."""
    path = Path(file)
    for place in (path, *path.parents):  # a tar's images lie below it
        if place.is_file():
            return place.stat().st_size, place.stat().st_mtime_ns
    return 0, int(content_id({"state": source.state})[:8], 16)
