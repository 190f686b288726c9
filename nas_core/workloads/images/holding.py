"""Where a split's pixels are held: in each worker's memory, in a file that a node's workers share, or nowhere.

``memory``: all of them as one tensor. ``map``: decoded once per node into a
file of the cache folder, which every worker maps into its memory; the making
is parallel and goes on where it was broken off; the files that were used least
recently give way to others. ``stream``: each batch is decoded by loader
processes as it is needed. The three give the same images in the same order.
"""

import gc
import json
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nas_core.base.errors import DataError
from nas_core.base.machine import usable_cpus
from nas_core.workloads.examples import Examples, batches_of
from nas_core.workloads.images.cache import (
    alone,
    cache_folder,
    keep,
    kept_files,
    make_room,
    room_on_disk,
    size_of,
    used_now,
)
from nas_core.workloads.images.decoding import quiet
from nas_core.workloads.images.pixels import Pixels
from nas_core.workloads.normalisation import Normalisation

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

log = logging.getLogger(__name__)

Way = Literal["memory", "map", "stream"]
MOST_IN_MEMORY = 256 * 2**20  # bytes of a set that each worker has of its own
CHUNK_BYTES = 4 * 2**20  # of images that are decoded and written at once, by each thread
BATCH = 128  # images whose bytes are counted at once
SYNC_EVERY = 16  # chunks
STATISTICS_IMAGES = 10_000  # training images whose mean and deviation are taken


@dataclass(frozen=True, kw_only=True, slots=True)
class Holding:
    """How a set is held, and how much the files of a node may take, of which some are ``taken`` by the set itself.

    ``streams`` of one set are read side by side, such as images and their masks, and share the ``loaders``.
    """

    way: Literal["auto", "memory", "map", "stream"] = "auto"
    cache_bytes: int = 0
    taken_bytes: int = 0
    loaders: int = 0
    streams: int = 1

    def chosen(self, nbytes: int) -> Way:
        """The way that was asked for, else the first of the three that so many bytes fit."""
        if self.way != "auto":
            return self.way
        if nbytes <= MOST_IN_MEMORY:
            return "memory"
        return "map" if nbytes <= self._room() else "stream"

    def _room(self) -> int:
        """Bytes that the cache folder could take, once others gave way."""
        folder = cache_folder()
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not os.access(folder, os.W_OK):
            return 0
        return min(self.cache_bytes - self.taken_bytes, room_on_disk(folder) + size_of(kept_files()))

    def said(self, nbytes: int) -> str:
        """What is done with so many bytes, in words."""
        size = f"{nbytes / 1e9:,.3g} GB decoded" if nbytes >= 1e9 else f"{nbytes / 1e6:.3g} MB decoded"
        way = self.chosen(nbytes)
        words = {
            "memory": f"{size}, in each worker's memory",
            "map": f"{size}, once per node in {cache_folder() / 'decoded'}, shared by its workers",
            "stream": f"{size}, a batch at a time by loader processes",
        }
        return words[way]


def hold(pixels: Pixels, holding: Holding, way: Way) -> "torch.Tensor | Examples":
    """All pixels as one uint8 tensor N C H W, or examples that give them.

    Raises:
        DataError: for an image that cannot be read.
    """
    if way == "stream":
        return Streamed(pixels, holding.loaders, streams=holding.streams)
    if way == "map":
        try:
            return _mapped(pixels, holding)
        except OSError as error:  # a full disk
            log.warning("decoded images cannot be kept (%s): decoded as they are needed", error.strerror or error)
            return Streamed(pixels, holding.loaders, streams=holding.streams)
    return hold_in_memory(pixels)


def hold_in_memory(pixels: Pixels) -> "torch.Tensor":
    import torch

    images = torch.empty((len(pixels), *pixels.shape), dtype=torch.uint8)
    for numbers, batch in _decoded(pixels, _chunks(pixels)):
        images[numbers[0] : numbers[-1] + 1] = torch.from_numpy(batch)
    return images


def _chunks(pixels: Pixels) -> list[range]:
    size, count = max(1, CHUNK_BYTES // math.prod(pixels.shape)), len(pixels)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _decoded(pixels: Pixels, chunks: Sequence[range]) -> Iterator[tuple[range, np.ndarray]]:
    """Batches in parallel; Pillow decodes without Python's lock."""
    size, threads = len(chunks), usable_cpus()
    with ThreadPoolExecutor(threads) as pool, quiet():
        for start in range(0, size, 2 * threads):  # so that no more batches wait than are being written
            some = chunks[start : start + 2 * threads]
            yield from zip(some, pool.map(pixels.batch, some), strict=True)


def normalisation_of(images: "torch.Tensor | Examples", identity: Callable[[], str]) -> Normalisation:
    """That of the first training images; kept in the cache, under their content's id, where they are not in memory."""
    first = images[:STATISTICS_IMAGES]
    if not isinstance(images, Examples) and images.nbytes <= MOST_IN_MEMORY:
        return Normalisation.of_bytes(batches_of(first, BATCH))
    path = cache_folder() / "statistics" / f"{identity()}.json"
    with alone(path):
        with suppress(OSError, ValueError, KeyError):
            return Normalisation.from_dict(json.loads(path.read_text(encoding="utf-8")))
        found = Normalisation.of_bytes(batches_of(first, BATCH))
        text = json.dumps(found.as_dict()).encode()
        keep(path, lambda temporary: temporary.write_bytes(text))
    return found


# a node's files


def _mapped(pixels: Pixels, holding: Holding) -> "torch.Tensor":
    """The node's file of these pixels, made if it is not there."""
    import torch

    path = cache_folder() / "decoded" / f"{pixels.identity}.u8"
    if not _is_whole(path, pixels):
        with alone(path):
            if not _is_whole(path, pixels):
                _make(path, pixels, holding)
    used_now(path)
    flat = torch.from_file(str(path), shared=False, size=pixels.nbytes, dtype=torch.uint8)
    return flat.view(len(pixels), *pixels.shape)


def _is_whole(path: Path, pixels: Pixels) -> bool:
    return path.exists() and path.stat().st_size == pixels.nbytes


def _make(path: Path, pixels: Pixels, holding: Holding) -> None:
    """Decode what an earlier attempt did not; the file gets its name when it is whole."""
    partial, marks = path.with_suffix(".part"), path.with_suffix(".done")
    make_room(partial, pixels.nbytes, holding.cache_bytes)
    chunks = _chunks(pixels)
    done = _marked(partial, marks, len(chunks), pixels.nbytes)
    missing = [chunk for chunk, is_done in zip(chunks, done, strict=True) if not is_done]
    log.info("decoding %d images into %s, %.2g GB", sum(map(len, missing)), path, pixels.nbytes / 1e9)
    per_image = math.prod(pixels.shape)
    with partial.open("r+b" if partial.exists() else "w+b") as file:
        os.truncate(file.fileno(), pixels.nbytes)
        for number, (chunk, batch) in enumerate(_decoded(pixels, missing), start=1):
            file.seek(chunk.start * per_image)
            file.write(np.ascontiguousarray(batch).data)
            done[chunk.start // len(chunks[0])] = 1
            if number % SYNC_EVERY == 0 or number == len(missing):
                file.flush()
                os.fsync(file.fileno())
                marks.write_bytes(bytes(done))  # what is marked lies on the disk
    os.replace(partial, path)
    marks.unlink(missing_ok=True)


def _marked(partial: Path, marks: Path, count: int, nbytes: int) -> bytearray:
    """Which chunks an earlier attempt finished."""
    with suppress(OSError):
        done = bytearray(marks.read_bytes())
        if len(done) == count and partial.stat().st_size == nbytes:
            return done
    return bytearray(count)


# batches as they are needed


class Streamed(Examples):
    """Images that are decoded when they are asked for, by loader processes for batches that were announced.

    The processes stay from one announcement to the next, epoch by epoch, and end when none is to come.
    """

    def __init__(self, pixels: Pixels, loaders: int, device: "torch.device | str" = "cpu", streams: int = 1) -> None:
        self.pixels, self.loaders, self.device, self.streams = pixels, loaders, device, streams
        self.shape = (len(pixels), *pixels.shape)
        self._loader: DataLoader[Any] | None = None
        self._coming: Iterator[torch.Tensor] = iter(())
        self._announced = _Announced()

    def to(self, device: "torch.device | str") -> "Streamed":
        return Streamed(self.pixels, self.loaders, device, self.streams)

    def part(self, start: int, stop: int) -> "Streamed":
        return Streamed(self.pixels.only(np.arange(start, stop)), self.loaders, self.device, self.streams)

    def expect(self, batches: "Sequence[torch.Tensor]") -> None:
        import torch

        self._announced.say([tuple(batch.tolist()) for batch in batches])
        own = max(1, (self.loaders or torch.get_num_threads()) // self.streams)
        loaders = min(own, len(batches))
        if self._loader is None or self._loader.num_workers < loaders or not loaders:
            self._coming = iter(())  # holds the processes, too
            self._loader = self._made(loaders) if loaders else None
        if self._loader is not None:
            with _none_collected():
                self._coming = iter(self._loader)

    def _made(self, loaders: int) -> "DataLoader[Any]":
        import torch
        from torch.utils.data import DataLoader

        pixels: Any = _Batches(self.pixels)  # a data set in all but its base class, which is torch's
        return DataLoader(
            pixels,
            sampler=self._announced,
            batch_size=None,
            num_workers=loaders,
            persistent_workers=True,  # starting them takes as long as decoding a batch or more
            worker_init_fn=_leave_endings,
            generator=torch.Generator(),  # not the global one, which is others'
            multiprocessing_context="fork" if hasattr(os, "fork") else "spawn",
        )

    def batch(self, index: "torch.Tensor") -> "torch.Tensor":
        import torch

        wanted = tuple(index.tolist())
        if self._announced.is_next(wanted):
            images = next(self._coming)
            error: Any = images
            if isinstance(error, DataError):  # as it was raised in the loader's process
                raise error
        else:
            with quiet():
                images = torch.from_numpy(self.pixels.batch(wanted))
        batch: torch.Tensor = images.to(self.device, non_blocking=True)
        return batch


class _Announced:
    """Queue of the upcoming batches: the order in which loaders read them, and how many are taken already."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []
        self.taken = 0

    def say(self, batches: list[tuple[int, ...]]) -> None:
        self.batches, self.taken = batches, 0

    def is_next(self, wanted: tuple[int, ...]) -> bool:
        """Whether this is the next of them, which is taken by asking."""
        is_next = self.taken < len(self.batches) and self.batches[self.taken] == wanted
        self.taken += is_next
        return is_next

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return iter(self.batches)


@contextmanager
def _none_collected() -> Iterator[None]:
    """Processes forked meanwhile do not collect this process's garbage, such as a loader that ended early."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _leave_endings(_: int) -> None:
    """In a loader's process: drop the exit handlers that were inherited by the fork.

    Prefect's would fail there, and the loader with them, after its work.
    """
    getattr(threading, "_threading_atexits", []).clear()


class _Batches:
    """What a loader process reads: batches by their numbers."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: Sequence[int]) -> "torch.Tensor | DataError":
        import torch

        try:
            with quiet():
                return torch.from_numpy(self.pixels.batch(index))
        except DataError as error:
            return error
