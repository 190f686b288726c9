"""What the images of a set are: each is read once, in parallel, and the answer kept in the cache.

A file that was read whole is not read again for this as long as its size and
its time of change stay. One that could not be read is tried anew each time.
"""

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from nas_core.base.identity import content_id
from nas_core.base.machine import usable_cpus
from nas_core.workloads.images.cache import alone, cache_folder, keep
from nas_core.workloads.images.decoding import Facts, quiet
from nas_core.workloads.images.items import Items

log = logging.getLogger(__name__)

VERSION = 2  # raised when an image is understood differently
SAVE_EVERY_S, SAY_EVERY_S = 60.0, 10.0
Known = dict[tuple[str, int, int], Facts]  # name, size in bytes, time of change


@dataclass(kw_only=True)
class Census:
    """Facts of the images of a split, in order, and what is wrong with those that have none."""

    facts: list[Facts | None]
    errors: dict[int, str] = field(default_factory=dict)  # index -> why it cannot be read

    @property
    def is_sound(self) -> np.ndarray:
        """Which images can be read."""
        return np.array([facts is not None for facts in self.facts], dtype=bool)

    @property
    def gaps(self) -> list[int]:
        return [index for index, facts in enumerate(self.facts) if facts is None]


def census(place: str, splits: Sequence[Items]) -> list[Census]:
    """What every image of the splits is; ``place`` tells the set from others that are remembered."""
    path = cache_folder() / "checked" / f"{content_id({'place': place, 'version': VERSION})}.parquet"
    found = _remembered(path, splits)
    if any(each.gaps for each in found):
        with alone(path), quiet():
            found = _remembered(path, splits)  # another process may have read them meanwhile
            _read_gaps(path, splits, found, place)
    return found


def _read_gaps(path: Path, splits: Sequence[Items], found: Sequence[Census], place: str) -> None:
    jobs = [(items, each, index) for items, each in zip(splits, found, strict=True) for index in each.gaps]
    saved = said = time.monotonic()
    with ThreadPoolExecutor(usable_cpus()) as pool:  # Pillow decodes without Python's lock
        for done, _ in enumerate(pool.map(lambda job: _look(*job), jobs), start=1):
            now = time.monotonic()
            if now - said > SAY_EVERY_S:
                log.info("%s: %d of %d images checked", place, done, len(jobs))
                said = now
            if now - saved > SAVE_EVERY_S:
                _remember(path, splits, found)
                saved = time.monotonic()
    if any(each.is_sound.any() for each in found):
        _remember(path, splits, found)


def _look(items: Items, into: Census, index: int) -> None:
    try:
        into.facts[index] = items.facts(index)
    except Exception as error:  # Pillow raises nearly anything
        into.errors[index] = what_is_wrong(error)


def what_is_wrong(error: Exception) -> str:
    """An image's error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    words = " ".join(str(error).split())
    if words.startswith("cannot identify image file"):
        return "no image, as far as Pillow knows"
    return (words or type(error).__name__)[:200]


# remembering


def _remembered(path: Path, splits: Sequence[Items]) -> list[Census]:
    known = _known(path)
    return [
        Census(
            facts=[
                known.get((name, *stamp)) for name, stamp in zip(items.names_N, items.stamps_N2.tolist(), strict=True)
            ]
        )
        for items in splits
    ]


def _known(path: Path) -> Known:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return {}
    try:
        rows = pq.read_table(path).to_pydict()
        names = [os.fsdecode(name) for name in rows.pop("name")]
        stamps = zip(names, rows.pop("bytes"), rows.pop("mtime_ns"), strict=True)
        facts = (Facts(**dict(zip(rows, values, strict=True))) for values in zip(*rows.values(), strict=True))
        return dict(zip(stamps, facts, strict=True))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):  # damaged: it is made again
        return {}


def _remember(path: Path, splits: Sequence[Items], found: Sequence[Census]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sound = [
        (name, *stamp, facts)
        for items, each in zip(splits, found, strict=True)
        for name, stamp, facts in zip(items.names_N, items.stamps_N2.tolist(), each.facts, strict=True)
        if facts is not None
    ]
    names, sizes, times, all_facts = zip(*sound, strict=True)
    columns = {"name": list(map(os.fsencode, names)), "bytes": sizes, "mtime_ns": times}
    columns |= {each.name: [getattr(facts, each.name) for facts in all_facts] for each in fields(Facts)}
    keep(path, lambda temporary: pq.write_table(pa.table(columns), temporary))
