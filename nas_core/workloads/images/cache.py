"""The folder in which a node keeps what takes long to make: downloads, decoded images, what was checked.

A cache that cannot be written only costs time.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where downloads and decoded images are kept: ``$MATHNAS_CACHE``, else ``$XDG_CACHE_HOME/mathnas``."""
    if own := os.environ.get("MATHNAS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mathnas"


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
