"""The folder in which a node keeps what takes long to make: downloads, decoded images, what was checked.

A cache that cannot be written only costs time.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

log = logging.getLogger(__name__)

DISK_LEFT = 0.1  # of the free disk stays free
KEPT = {"decoded": (".u8", ".part"), "encoded": (".arrow", ".part")}  # folders of large files, and their suffixes


def cache_folder() -> Path:
    """Where downloads and decoded images are kept: ``$MATHNAS_CACHE``, else ``$XDG_CACHE_HOME/mathnas``."""
    if own := os.environ.get("MATHNAS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mathnas"


def kept_files() -> list[Path]:
    """The large files that sets are held in, unfinished ones too, those that were not used for long first."""
    found = []
    for folder, suffixes in KEPT.items():
        with suppress(OSError):
            found += [path for path in (cache_folder() / folder).iterdir() if path.suffix in suffixes]
    return sorted(found, key=_used)


def used_now(path: Path) -> None:
    with suppress(OSError):
        os.utime(path)


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # gone meanwhile
        return 0.0


def size_of(paths: Iterable[Path]) -> int:
    """Bytes of the files that are there."""
    sizes = 0
    for path in paths:
        with suppress(OSError):
            sizes += path.stat().st_size
    return sizes


def room_on_disk(folder: Path) -> int:
    return int(shutil.disk_usage(folder).free * (1 - DISK_LEFT))


def make_room(path: Path, nbytes: int, most_bytes: int) -> None:
    """Other files give way, those first that were not used for long; who maps one keeps it until it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    others = [each for each in kept_files() if each != path]
    while others and (size_of(others) + nbytes > most_bytes or nbytes > room_on_disk(path.parent)):
        other = others.pop(0)
        log.info("%s gives way to %s", other, path.name)
        other.unlink(missing_ok=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """While no other process of the node makes the same file; without waiting where nothing can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        lock.acquire()
    except OSError as error:
        log.warning("%s cannot be written (%s): nothing is kept there", path.parent, error.strerror or error)
        yield
        return
    try:
        yield
    finally:
        lock.release()


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Lets ``write`` write the file, whole or not at all."""
    temporary = path.with_name(f".{uuid4().hex}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
