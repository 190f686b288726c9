"""The study's store: Parquet parts, JSON and files under one root URI.

A part is written once, whole, and named by the SHA-256 of its bytes, so a
reader can tell a damaged part from a good one, the same rows written twice are
one file, and a half-written part is never seen: on a local file system it is
written to a hidden name and renamed, on an object store an object appears when
its upload is complete. The store, not an orchestrator's database, decides what
is done.

::

    study.yaml                                    the configuration
    sources.json                                  what was read of space, data and code that lie elsewhere
    evaluations/<space_id>/<scorer_id>/<sha>.parquet
    curves/<space_id>/<scorer_id>/<sha>.parquet   the epochs of trainings that were evaluated
    costs/<space_id>/<profiler_id>/<sha>.parquet
    block_scores.parquet, selections/, winner/, report.html
    quarantine/                                   parts that failed their checksum
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import nas_core
from nas_core.base.errors import NasError, StoreError, without_passwords
from nas_core.records.evaluations import (
    SCHEMA_VERSION,
    Cost,
    Epoch,
    Evaluation,
    Row,
    deduplicated,
    from_table,
    to_table,
    wrong_with,
)
from nas_core.records.resources import units

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

log = logging.getLogger(__name__)
T = TypeVar("T")

FINAL_ERRNOS = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.ENAMETOOLONG}
FINAL_ERRORS = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
RETRY_DELAYS_S = (0.2, 1.0, 3.0, 8.0)  # a store that answers errors for a while is asked again
MOST_LISTINGS = 20  # of a folder whose parts are being merged
FOREIGN_PART = "Its checksum is right, so something else wrote it: delete the file, its rows will be made again."
PART_NAME = re.compile(r"^[0-9a-f]{32}\.parquet$")


def absolute(root: str) -> str:
    """The root as workers find it, too, which run in folders of their own; URIs stay as they are."""
    return root if "://" in root or not root.strip() else str(Path(os.path.expanduser(root)).absolute())


def place_of(root: str) -> str:
    """What the root is known by, however it is written and whatever links lead there."""
    return root.rstrip("/") if "://" in root else os.path.realpath(os.path.expanduser(root))


@contextlib.contextmanager
def no_empty_folder(root: str) -> Iterator[None]:
    """What is refused meanwhile leaves no folder behind that it made on this machine and wrote nothing into."""
    folder = Path(root)
    missing = [] if "://" in root else [each for each in (folder, *folder.parents) if not os.path.exists(each)]
    try:
        yield
    except NasError:
        with contextlib.suppress(OSError, ValueError):  # it has content by now, or a root that is no path
            for each in missing:
                each.rmdir()
        raise


class Store:
    """Files of one study under a folder or an ``s3://``, ``gs://`` or ``file://`` URI.

    Paths are relative, with ``/``; one that leaves the root is refused. Parts
    never change, so a store remembers the rows of those it has read: asked
    again, it lists its parts and reads the new ones only.

    Raises:
        StoreError: where the root cannot be reached, created or written.
    """

    def __init__(self, root: str | Path, *, create: bool = True) -> None:
        self.root = absolute(str(root))
        self._fs, self._base = _filesystem(self.root)
        self.is_local = self._fs.type_name == "local"
        self._rows_of: dict[str, list[Any]] = {}  # path of a part that was read -> its rows
        if create:
            self._retry("", lambda: self._fs.create_dir(self._base, recursive=True))
        elif not self._is_there():
            raise StoreError(self.root, "no such folder", "the folder of a study", "`mathnas run` makes one.")

    def __reduce__(self) -> tuple[Callable[[str], "Store"], tuple[str]]:
        return Store, (self.root,)

    # files

    def read_bytes(self, path: str) -> bytes:
        """The file's content; FileNotFoundError if it is not there."""

        def read() -> bytes:
            with self._fs.open_input_stream(self._at(path)) as stream:
                return bytes(stream.read())

        return self._retry(path, read, may_be_missing=True)

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write the file whole: readers see the old content or the new, never a part."""
        self._retry(path, lambda: self._write(path, data))

    def write_if_changed(self, path: str, data: bytes) -> None:
        """``write_bytes``, unless the file holds this already."""
        if not self.exists(path) or self.read_bytes(path) != data:
            self.write_bytes(path, data)

    def _write(self, path: str, data: bytes) -> None:
        target = self._at(path)
        if not self.is_local:
            # a signal that arrives in the middle closes the stream, and an object cut short takes the old one's place:
            # signals reach the main thread only, and leaving the context waits for the other
            with ThreadPoolExecutor(1) as other:
                other.submit(self._upload, target, data).result()
            return
        final = Path(target)
        final.parent.mkdir(parents=True, exist_ok=True)
        hidden = final.with_name(f".{final.name}.{uuid4().hex}")
        try:
            with hidden.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(final)
        except BaseException:
            with contextlib.suppress(OSError):
                hidden.unlink(missing_ok=True)
            raise

    def _upload(self, target: str, data: bytes) -> None:
        with self._fs.open_output_stream(target) as stream:
            stream.write(data)

    def exists(self, path: str) -> bool:
        return self._retry(path, lambda: bool(self._info(path).is_file))

    def delete(self, path: str) -> None:
        """Remove a file or a folder with all in it; nothing happens where there is none."""
        info = self._retry(path, lambda: self._info(path))
        with contextlib.suppress(FileNotFoundError):  # somebody else was faster
            if info.is_file:
                self._retry(path, lambda: self._fs.delete_file(self._at(path)), may_be_missing=True)
            elif info.type.name == "Directory":
                self._retry(path, lambda: self._fs.delete_dir(self._at(path)), may_be_missing=True)

    def paths(self, folder: str = "") -> list[str]:
        """Paths of all files below ``folder``, sorted; hidden (unfinished) ones left out."""
        from pyarrow import fs

        selector = fs.FileSelector(self._at(folder), recursive=True, allow_not_found=True)
        infos = self._retry(folder, lambda: self._fs.get_file_info(selector))
        paths = (str(PurePosixPath(info.path).relative_to(self._base)) for info in infos if info.is_file)
        return sorted(path for path in paths if not PurePosixPath(path).name.startswith("."))

    def read_json(self, path: str) -> Any:
        """The file's JSON.

        Raises:
            StoreError: if it is not JSON.
        """
        try:
            return json.loads(self.read_bytes(path))
        except (ValueError, RecursionError) as error:
            raise StoreError(
                f"{self.root}/{path}", str(error), "JSON", "Delete the file and run the stage again."
            ) from None

    def write_json(self, path: str, data: Any) -> None:
        self.write_bytes(path, json_bytes(data))

    def uri(self, path: str) -> str:
        """Where a person finds the file."""
        return str(Path(self._at(path))) if self.is_local else f"{self.root.rstrip('/')}/{path}"

    # evaluations and costs

    def add_evaluations(self, rows: Sequence[Evaluation]) -> list[str]:
        """Write rows as one part per (space, scorer); returns the parts' paths."""
        return self._add(rows, lambda row: f"evaluations/{row.space_id}/{row.scorer_id}")

    def add_epochs(self, rows: Sequence[Epoch]) -> list[str]:
        """Write rows as one part per (space, scorer); returns the parts' paths."""
        return self._add(rows, lambda row: f"curves/{row.space_id}/{row.scorer_id}")

    def add_costs(self, rows: Sequence[Cost]) -> list[str]:
        """Write rows as one part per (space, profiler); returns the parts' paths."""
        return self._add(rows, lambda row: f"costs/{row.space_id}/{row.profiler_id}")

    def replace_costs(self, rows: Sequence[Cost]) -> None:
        """``add_costs`` in place of what these profilers measured of these spaces before."""
        for kept in self.add_costs(rows):
            for path in self._parts(str(PurePosixPath(kept).parent)):
                if path != kept:
                    self.delete(path)

    def evaluations(self, space_id: str, scorer_id: str) -> list[Evaluation]:
        """Every stored evaluation of a space by a scorer, one row per key."""
        return self._rows(f"evaluations/{space_id}/{scorer_id}", Evaluation)

    def epochs(self, space_id: str, scorer_id: str) -> list[Epoch]:
        """Every stored point of the learning curves of a space's evaluations by a scorer, one row per key."""
        return self._rows(f"curves/{space_id}/{scorer_id}", Epoch)

    def costs(self, space_id: str) -> list[Cost]:
        """Every stored cost of a space, one row per key."""
        return self._rows(f"costs/{space_id}", Cost)

    def drop_failed(self, space_id: str, scorer_id: str, seed: int) -> int:
        """Forget the failed evaluations of a space by a scorer with a seed; returns how many there were."""
        dropped = 0
        for path in self._parts(f"evaluations/{space_id}/{scorer_id}"):
            rows = self._read_part(path, Evaluation)
            kept = [row for row in rows if row.status == "ok" or row.seed != seed]
            if len(kept) < len(rows):
                self.add_evaluations(kept)
                self.delete(path)
                dropped += len(rows) - len(kept)
        return dropped

    def _add(self, rows: Sequence[Row], folder_of: Callable[[Row], str]) -> list[str]:
        by_folder: dict[str, list[Row]] = {}
        for row in rows:
            by_folder.setdefault(folder_of(row), []).append(row)
        return [self._write_part(folder, group) for folder, group in by_folder.items()]

    def _write_part(self, folder: str, rows: Sequence[Row]) -> str:
        data = _to_parquet(rows, folder)
        path = f"{folder}/{_checksum(data)}.parquet"
        self.write_bytes(path, data)
        return path

    def _rows(self, folder: str, row_type: type[Row]) -> list[Row]:
        rows = self._read_all(folder, row_type)
        # parts are named by their bytes, seconds included: without an order of its own a fit would differ in its last
        # digits from run to run, and equally good networks would be told apart by them
        return sorted(deduplicated(rows), key=lambda row: row.key)

    def _read_all(self, folder: str, row_type: type[Row]) -> list[Row]:
        for _ in range(MOST_LISTINGS):
            with contextlib.suppress(FileNotFoundError):  # merged meanwhile: its rows are in a part not listed yet
                paths = self._parts(folder)
                rows = [row for path in paths for row in self._read_part(path, row_type)]
                self._forget_all_but(paths, folder)
                return rows
        raise StoreError(f"{self.root}/{folder}", "parts that are listed and not there", "parts that can be read")

    def _parts(self, folder: str) -> list[str]:
        return [path for path in self.paths(folder) if PART_NAME.match(PurePosixPath(path).name)]

    def _read_part(self, path: str, row_type: type[Row]) -> list[Row]:
        if path not in self._rows_of:
            data = self.read_bytes(path)
            if _checksum(data) != PurePosixPath(path).stem:
                self.set_aside(path, "does not match its checksum")
                return []
            self._rows_of[path] = from_table(_from_parquet(data, row_type, f"{self.root}/{path}"), row_type)
        return self._rows_of[path]

    def _forget_all_but(self, paths: Sequence[str], folder: str) -> None:
        """Parts of a folder that were merged, replaced or deleted are not remembered."""
        for path in {path for path in self._rows_of if path.startswith(f"{folder}/")} - set(paths):
            self._rows_of.pop(path, None)

    def set_aside(self, path: str, why: str) -> None:
        """Keep a damaged file for a look, out of the readers' way; what it held is made again."""
        log.warning("%s/%s %s: moved to quarantine/, what it held will be made again", self.root, path, why)
        self.write_bytes(f"quarantine/{path.replace('/', '_')}", self.read_bytes(path))
        self.delete(path)

    def quarantined(self) -> list[str]:
        """Paths of the files that were set aside."""
        return self.paths("quarantine")

    def compact(self, most: int = 1) -> int:
        """Merge each folder's parts into one where there are more than ``most``; returns how many parts are gone.

        For one writer at a time. Safe to kill at any moment: the merged part is
        written before the old ones go, and readers drop repeated rows.
        """
        evaluations, curves = (
            self._compact_all("evaluations", Evaluation, most),
            self._compact_all("curves", Epoch, most),
        )
        return evaluations + curves + self._compact_all("costs", Cost, most)

    def _compact_all(self, top: str, row_type: type[Row], most: int) -> int:
        folders = sorted({str(PurePosixPath(path).parent) for path in self._parts(top)})
        return sum(self._compact_folder(folder, row_type, most) for folder in folders)

    def _compact_folder(self, folder: str, row_type: type[Row], most: int) -> int:
        old = self._parts(folder)
        if len(old) <= most:
            return 0
        rows = deduplicated(row for path in old for row in self._read_part(path, row_type))
        if not rows:
            return 0
        merged = self._write_part(folder, rows)
        superseded = [path for path in old if path != merged]
        for path in superseded:
            self.delete(path)
        return len(superseded)

    # plumbing

    def _at(self, path: str) -> str:
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts:
            raise StoreError(f"{self.root}", repr(path), "a path that stays inside the study")
        return str(PurePosixPath(self._base, *parts))

    def _info(self, path: str) -> "fs.FileInfo":
        return self._fs.get_file_info(self._at(path))

    def _is_there(self) -> bool:
        if self.is_local:
            return Path(self._base).is_dir()
        return bool(self._retry("", lambda: self._info("").type.name == "Directory")) or bool(self.paths())

    def _retry(self, path: str, action: Callable[[], T], *, may_be_missing: bool = False) -> T:
        where = f"{self.root}/{path}".rstrip("/")
        for delay in (*RETRY_DELAYS_S, None):
            try:
                return action()
            except OSError as error:
                if may_be_missing and isinstance(error, FileNotFoundError):
                    raise
                final = isinstance(error, FINAL_ERRORS) or error.errno in FINAL_ERRNOS
                if final or delay is None:
                    raise StoreError(where, _in_words(error), "a readable and writable place", _advice(error)) from None
                log.warning("%s: %s; trying again in %.1f s", where, _in_words(error), delay)
                time.sleep(delay)
        raise AssertionError("unreachable")


def shared_store(root: str) -> Store:
    """The store as a worker opens it: its driver made it, so it is there, if it is the same place.

    Raises:
        StoreError: if this node has no such folder.
    """
    try:
        return Store(root, create=False)
    except StoreError as error:
        found, advice = f"{error.found} on node {socket.gethostname()}", "Or a URI such as s3://bucket/study."
        raise StoreError(root, found, "a folder that every node of the cluster sees", advice) from None


def json_bytes(data: Any) -> bytes:
    """What a file of this JSON holds."""
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


def _filesystem(root: str) -> "tuple[fs.FileSystem, str]":
    from pyarrow import fs

    if "\0" in root or not root.strip():
        raise StoreError("root", repr(root), "a folder or a URI")
    if without_passwords(root) != root:
        advice = "Credentials come from the environment, such as AWS_ACCESS_KEY_ID; a root is written in many places."
        raise StoreError("root", root, "a URI without credentials", advice)
    if "://" not in root:
        return fs.LocalFileSystem(), root
    try:
        filesystem, base = fs.FileSystem.from_uri(root)
    except (ValueError, OSError, ImportError) as error:
        raise StoreError(
            root, str(error), "a folder, or a URI such as s3://bucket/study or gs://bucket/study"
        ) from None
    return filesystem, base


def _in_words(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).split("\n")[0][:300]


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full: make room and run the same command again, it resumes."
    return ""


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _to_parquet(rows: Sequence[Row], folder: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    footer = {
        "schema_version": str(SCHEMA_VERSION),
        "code_version": nas_core.__version__,
        "folder": folder,
        "units": json.dumps(units()),
    }
    table = to_table(rows).replace_schema_metadata(footer)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _from_parquet(data: bytes, row_type: type[Row], where: str) -> "pa.Table":
    """The part's rows, for certain of the type.

    Raises:
        StoreError: if it is no part of ours, or one of another version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # not pq.read_table: its scanner's threads once brought the process down, and small parts need none
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        table.validate(full=True)  # text that is no UTF-8, say
    except (pa.ArrowException, OSError, ValueError) as error:
        words = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise StoreError(where, words, "a Parquet part", FOREIGN_PART) from None
    version = (table.schema.metadata or {}).get(b"schema_version", b"none").decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        advice = "Use the release that wrote it, or another root."
        raise StoreError(where, f"schema version {version}", f"schema version {SCHEMA_VERSION}", advice)
    wrong = wrong_with(table, row_type)
    if wrong:
        raise StoreError(where, wrong, f"rows of {row_type.__name__}", FOREIGN_PART)
    return table


def missing(wanted: Iterable[str], done: Iterable[Evaluation]) -> list[str]:
    """Of the wanted genotypes, those with no evaluation yet, in order, each once.

    A failed evaluation counts as made: it was tried, and its row says why it failed.
    """
    made = {row.genotype for row in done}
    return [genotype for genotype in dict.fromkeys(wanted) if genotype not in made]
