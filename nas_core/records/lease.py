"""One driver at a time on one study: a lease in the store, kept alive by a counter.

Clocks of two machines differ and jump, so none is written down: the holder
raises a counter every few seconds, and whoever waits judges by its own
monotonic clock how long the counter has stood still. A holder on the same
machine whose process is gone is taken over at once; a silent one elsewhere
after ``SILENT_S``. Two drivers at once would lose nothing, since parts are named
by their content, but they would pay for the same evaluations twice.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from nas_core.base.errors import NasError, StoreError, StudyHeldError
from nas_core.base.identity import LOCK
from nas_core.records.store import Store, place_of

log = logging.getLogger(__name__)

LEASE = "lease.json"
LOCK_POLL_S = 0.02  # between two tries for the lock, which is held for as long as a file takes to read and write
BEAT_S = 2.0  # between two beats of the counter
SILENT_S = 30.0  # without a beat for this long, a holder elsewhere counts as dead
SETTLE_S = 2.0  # object stores cannot create exclusively: of two claims within this time the later one wins


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who drives a study: a process on a machine (``host`` is for people, ``machine`` tells machines apart)."""

    holder: str
    host: str
    machine: str
    pid: int
    started: str
    counter: int = 0
    stage: str = ""
    root: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f", in stage {self.stage}" if self.stage else "")

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine, so that its process can be looked up."""
        return self.machine == _machine()

    def is_of_another(self, root: str) -> bool:
        """Whether it drives another folder of this machine, of which this one is a copy."""
        if not self.is_here or not self.root:
            return False
        try:
            return not os.path.samefile(self.root, root)
        except OSError:
            return False  # the folder it drives was moved away under it: this may be that folder

    @property
    def is_gone(self) -> bool:
        """Whether its process is known to have ended; False where that cannot be known."""
        return self.is_here and _started(self.pid) != self.started


class Lease:
    """The right to drive a study, kept until ``release``; made by ``hold``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        me = os.getpid()
        self._me = Holder(
            holder=uuid4().hex,
            host=socket.gethostname(),
            machine=_machine(),
            pid=me,
            started=_started(me),
            root=store.uri(""),
        )
        self._stop, self._writing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self.depth = 0

    def acquire(self, wait_s: float) -> None:
        """Take the lease; where another driver holds it, wait for its end as long as ``wait_s``.

        Raises:
            StudyHeldError: naming who holds it.
        """
        deadline = time.monotonic() + wait_s
        last, last_beat, seen_alive = None, time.monotonic(), False
        while (other := self._claim(silent=last, silent_s=time.monotonic() - last_beat)) is not None:
            if other != last:
                seen_alive = last is not None
                last, last_beat = other, time.monotonic()
            # a holder elsewhere that does not beat may be dead: that takes longer to find out
            if time.monotonic() >= deadline and (other.is_here or seen_alive):
                advice = (
                    "Wait for it (`--wait` on the command line), or stop it; "
                    "if its machine is gone, try again: it is taken over."
                )
                raise StudyHeldError(self._store.root, str(other), "no other driver", advice)
            time.sleep(BEAT_S / 4)
        self._thread.start()

    def _claim(self, silent: Holder | None, silent_s: float) -> Holder | None:
        """Take the lease if it is free, its holder gone or too long as ``silent``; otherwise return who has it."""
        with _local_lock(self._store):
            other = read(self._store)
            free = other is None or other.is_gone or (other == silent and silent_s > SILENT_S)
            if not free:
                return other
            if other is not None:
                log.warning("%s: taken over from %s, which is gone", self._store.root, other)
            self._write()
        if not self._store.is_local:
            time.sleep(SETTLE_S)
            now = read(self._store)
            return None if now is not None and now.holder == self._me.holder else now
        return None

    def note(self, stage: str) -> None:
        """Say what is being done, for those who ask."""
        with self._writing:
            self._me = replace(self._me, stage=stage)
            now = read(self._store)
            if now is None or now.holder == self._me.holder:  # else it was taken over: the next beat stops us
                self._write()

    def release(self) -> None:
        """Give the lease back."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(NasError), _local_lock(self._store):
            now = read(self._store)
            if now is not None and now.holder == self._me.holder:
                self._store.delete(LEASE)

    def _write(self) -> None:
        self._store.write_json(LEASE, asdict(self._me))

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                with self._writing:
                    now = read(self._store)
                    if now is not None and now.holder != self._me.holder:
                        break
                    self._me = replace(self._me, counter=self._me.counter + 1)
                    self._write()
            except NasError as error:  # a store that is away for a while; the work itself will say so
                log.warning("lease not renewed: %s", error)
        else:
            return
        log.error("%s: %s has taken over, this driver stops", self._store.root, now)
        os.kill(os.getpid(), signal.SIGTERM)


_held: dict[str, Lease] = {}  # place -> the lease


@contextlib.contextmanager
def hold(store: Store, wait_s: float = 0.0) -> Iterator[Lease]:
    """Drive the study for the time of the context; within one process it may be entered again.

    Raises:
        StudyHeldError: if another process drives it, and still does after ``wait_s``.
    """
    place = place_of(store.root)
    lease = _held.get(place)
    if lease is None:
        lease = Lease(store)
        lease.acquire(wait_s)
        _held[place] = lease
    lease.depth += 1
    try:
        yield lease
    finally:
        lease.depth -= 1
        if lease.depth == 0:
            del _held[place]
            lease.release()


def read(store: Store) -> Holder | None:
    """Who the lease names, dead or alive; None where there is none, it cannot be read as one, or came with a copy."""
    try:
        found = Holder(**store.read_json(LEASE))
        return None if store.is_local and found.is_of_another(store.uri("")) else found
    except FileNotFoundError:
        return None
    except (StoreError, TypeError) as error:
        if isinstance(error, StoreError) and error.expected != "JSON":
            raise
        return None


def driver(store: Store) -> Holder | None:
    """Who drives the study now; a holder elsewhere is watched for as long as a few beats take."""
    holder = read(store)
    return holder if holder is not None and _is_alive(store, holder) else None


def _is_alive(store: Store, holder: Holder) -> bool:
    if holder.is_here:
        return not holder.is_gone
    deadline = time.monotonic() + 3 * BEAT_S
    while time.monotonic() < deadline:
        time.sleep(BEAT_S / 4)
        now = read(store)
        if now is None:
            return False
        if now != holder:
            return True
    return False


@contextlib.contextmanager
def _local_lock(store: Store) -> Iterator[None]:
    """On a file system nobody else judges the lease meanwhile; the kernel drops a dead process's lock."""
    if not store.is_local:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:  # a lock in the kernel or none: a file that only stands for one would outlive its process
            lock = FileLock(store.uri(LOCK), poll_interval=LOCK_POLL_S, fallback_to_soft=False)
            stack.enter_context(lock)
        except OSError as error:
            found = error.strerror or str(error)
            raise StoreError(store.uri(LOCK), found, "a file that can be written and locked") from None
        yield


@cache
def _machine() -> str:
    """This boot of this machine, and of this container: process numbers mean something only within it."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def _started(pid: int) -> str:
    """When the process started, in a form that is only compared; "" where there is none, or it is only a zombie."""
    if not Path("/proc/self/stat").exists():
        return _started_elsewhere(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # in the kernel's ticks: no clock


def _started_elsewhere(pid: int) -> str:
    """``_started`` on macOS and Windows, whose kernels keep the time that the process started at."""
    import psutil

    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.NoSuchProcess:
        return ""
    except psutil.AccessDenied:
        return "running"
