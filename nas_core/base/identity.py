"""Identity is content: ids and seeds are computed from data, never from a clock or a counter."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path

from nas_core.base.errors import ConfigError


def content_id(data: Mapping[str, object]) -> str:
    """First 12 hex digits of the SHA-256 of ``data`` as canonical JSON.

    Raises:
        ConfigError: for a number that is not finite.
    """
    try:
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise ConfigError("settings", "a number that is infinite or no number", "finite numbers") from None
    return hashlib.sha256(text.encode()).hexdigest()[:12]


WHOLE_BYTES = 2**28  # what is larger than this in all is known by names, sizes and times instead of contents
CACHE = "__pycache__"
LOCK = ".lease.lock"  # in a study's folder
MOST_FILES = 100_000  # of a folder that are looked at
State = tuple[str, int, int]  # of a file: name, bytes, time of change in ns


def hash_of_files(path: str) -> str:
    """Of what a file holds, or all ``files_below`` a folder; "" where there is neither.

    The same for a copy elsewhere, unless it is larger than ``WHOLE_BYTES``.
    """
    try:
        return _hash_of(path, tuple(islice(_states(path), MOST_FILES)))
    except (OSError, ValueError):  # it cannot be read, went just now, or is no path at all
        return ""


def files_below(folder: Path) -> Iterator[Path]:
    """The folder's files, in order; neither hidden ones nor caches, nor those of a study that was run in there."""
    for each in sorted(folder.iterdir()):
        if each.name.startswith(".") or each.name == CACHE:
            continue
        if each.is_file():
            yield each
        elif each.is_dir() and not each.is_symlink() and not (each / LOCK).exists():
            yield from files_below(each)


def _states(path: str) -> Iterator[State]:
    """Of the file, or of the folder's files, in order."""
    place = Path(path)
    for file in files_below(place) if place.is_dir() else [place] if place.is_file() else []:
        status = file.stat()
        yield ("" if file == place else str(file.relative_to(place))), status.st_size, status.st_mtime_ns


@lru_cache(maxsize=256)  # as long as nothing is changed, it is read once per process
def _hash_of(path: str, states: tuple[State, ...]) -> str:
    if sum(size for _, size, _ in states) > WHOLE_BYTES:
        return content_id({"files": states})
    held = {name: hashlib.sha256(Path(path, name).read_bytes()).hexdigest() for name, _, _ in states}
    return content_id(held) if held else ""


def evaluation_seed(study_seed: int, genotype: object) -> int:
    """Seed of one evaluation: a function of the study's seed and the genotype alone.

    Neither the order of evaluations nor a retry changes a result.
    """
    digest = hashlib.sha256(f"{study_seed}/{genotype}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
