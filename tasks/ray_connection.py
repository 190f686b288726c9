"""The connection to Ray, which may die under the work: made within a time, watched, given up with a message.

Ray's calls can block for ever, ignore signals or end the process once Ray has
died. So ``ask`` runs them in a helper thread, while the driver's thread waits for
the answer and checks that Ray is alive. A local Ray that dies is started again
once: the task that lost it is tried again, and asks the store what is still
missing. A cluster is not ours to start.
"""

import contextlib
import errno
import logging
import os
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil
import ray
from ray.exceptions import RayTaskError

from nas_core.base.errors import ClusterError
from nas_core.base.machine import own_folder, usable_cpus
from tasks.addresses import check_address
from tasks.saying import doing, say

log = logging.getLogger(__name__)

T = TypeVar("T")

POLL_S = 0.5
ANSWER_S = 25.0  # a call that takes no part in the work has an answer by then, or never
JOIN_S = 90.0  # a head that is busy, or starting, takes its time; who is no Ray was told apart before
SILENT_S = 15.0  # a cluster's head may be away for so long: it is perhaps started again
CLOSE_S = 20.0
SETTLE_S = 2.0
MOST_RESTARTS = 1  # of a local Ray, in one run
SOCKET_PATH_BYTES = 107  # sockaddr_un.sun_path, see unix(7), without its end
SESSION_PATH_BYTES = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
GO_ON = "What was evaluated is stored: the same command goes on."
WORKER_ENVIRONMENT = {
    "PYTHONWARNINGS": "ignore",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # a thread that waits for another sleeps soon: on a shared machine, spinning took nine tenths of the time
    "GOMP_SPINCOUNT": "10000",
}
LOGGED = logging.CRITICAL  # of Ray itself: what it raises is told, once
COMMON: dict[str, Any] = {"logging_level": LOGGED, "log_to_driver": False}


class RayLostError(Exception):
    """The local Ray died under the work, and another may be started: the work is to be tried again."""


class Connection:
    """What this process depends on of a Ray: its parts by name, each with a test of whether it is there."""

    restarts = 0  # of local Rays in this run

    def __init__(self, address: str, parts: Mapping[str, Callable[[], bool]]) -> None:
        self.address, self.parts = address, parts
        self.lost: Exception | None = None
        self._checked, self._missing_since = time.monotonic(), 0.0

    @property
    def is_local(self) -> bool:
        return not self.address

    def check(self) -> None:
        """Look at the parts, not more often than every ``POLL_S``.

        Raises:
            RayLostError: if the local Ray died, for the first time.
            ClusterError: if it died again, or a cluster is gone.
        """
        if self.lost is not None:
            raise self.lost
        now = time.monotonic()
        if now - self._checked < POLL_S:
            return
        self._checked = now
        gone = self.gone
        if not gone:
            self._missing_since = 0.0
            return
        self._missing_since = self._missing_since or now
        if self.is_local or now - self._missing_since >= SILENT_S:
            self.give_up(gone)

    @property
    def gone(self) -> str:
        """What of it is not there now; "" if all is."""
        missing = [name for name, is_there in self.parts.items() if not is_there()]
        return f"its {' and '.join(missing)} gone" if missing else ""

    def give_up(self, found: str) -> None:
        """Leave this Ray; raises as ``check`` does."""
        if self.lost is None:
            self.lost = self._as_error(found)
            _close_quietly()
        raise self.lost from None

    def _as_error(self, found: str) -> Exception:
        if not self.is_local:
            return ClusterError("RAY_ADDRESS", f"{self.address}, {found}", "a Ray cluster that stays", GO_ON)
        if Connection.restarts < MOST_RESTARTS:
            Connection.restarts += 1
            say(f"Ray died ({found}): starting it again, the work goes on from what is stored")
            return RayLostError(found)
        advice = f"Was memory short (`dmesg` says so)? With a larger `cluster.num_cpus` fewer run at a time. {GO_ON}"
        return ClusterError("local Ray", f"{found}, a second time", "a Ray that lives", advice)


_connection: Connection | None = None
_calls: list[threading.Thread] = []  # of Ray, under way


def connect() -> None:
    """Start a local Ray, or join the cluster that RAY_ADDRESS names.

    Raises:
        ClusterError: if that cannot be had, after ``JOIN_S`` where somebody else's does not answer.
    """
    global _connection
    logging.getLogger("ray").setLevel(LOGGED)
    _connection = None
    address = os.environ.get("RAY_ADDRESS", "")
    address = "" if address == "local" else address
    _connection = _join(address) if address else _start()


def disconnect() -> None:
    """Leave Ray; a local one ends."""
    global _connection
    _connection = None
    Connection.restarts = 0
    _close_quietly()


def is_connected() -> bool:
    return ray.is_initialized() and (_connection is None or _connection.lost is None)


def check() -> None:
    """Whether Ray is still there; raises as ``Connection.check``."""
    if _connection is not None:
        _connection.check()


def give_up(found: str) -> None:
    """Leave a Ray that is of no use any more, where it is a local one; raises as ``Connection.check``."""
    if _connection is not None and _connection.is_local:
        _connection.give_up(found)


def ask(call: Callable[[], T], limit_s: float = ANSWER_S) -> T:
    """What the call of Ray returns or raises, as long as Ray lives; signals are heard meanwhile.

    Raises:
        RayLostError, ClusterError: as ``check``, also where there is no answer in ``limit_s``.
    """
    check()
    deadline = time.monotonic() + limit_s
    answer = _in_a_thread(call)
    while True:
        try:
            result, error = answer.get(timeout=POLL_S)
        except Empty:
            check()
            if time.monotonic() > deadline and _connection is not None:
                _connection.give_up(f"no answer in {limit_s:.0f} s")
            continue
        if isinstance(error, Exception):
            _give_up_where_gone(error)
        if error is not None:
            raise error
        return result  # type: ignore[return-value]


def _give_up_where_gone(error: Exception) -> None:
    """An error of any kind may come of a Ray that is gone; its client says so itself, having asked long enough."""
    if _connection is None:
        return
    gone = _connection.gone
    of_ray = isinstance(error, ConnectionError) and not isinstance(error, RayTaskError)  # that is the work's own
    if gone or of_ray:
        _connection.give_up(gone or first_line(error))


def _in_a_thread(call: Callable[[], T]) -> "SimpleQueue[tuple[T | None, BaseException | None]]":
    answer: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            answer.put((call(), None))
        except BaseException as error:
            answer.put((None, error))

    _calls[:] = [call for call in _calls if call.is_alive()]
    _calls.append(threading.Thread(target=work, name="ray-call", daemon=True))
    _calls[-1].start()
    return answer


def _wait(call: Callable[[], T], limit_s: float) -> T:
    """What the call returns or raises; TimeoutError after the limit. The thread is then left alone."""
    answer, deadline = _in_a_thread(call), time.monotonic() + limit_s
    while time.monotonic() < deadline:  # in short waits, between which signals are heard
        with contextlib.suppress(Empty):
            result, error = answer.get(timeout=POLL_S)
            if error is not None:
                raise error
            return result  # type: ignore[return-value]
    raise TimeoutError(f"no answer in {limit_s:.0f} s")


def _close_quietly() -> None:
    deadline = time.monotonic() + SETTLE_S
    for call in _calls:  # most end by themselves very soon: Ray is not to be closed under them
        call.join(max(0.0, deadline - time.monotonic()))
    with contextlib.suppress(Exception):
        _wait(ray.shutdown, CLOSE_S)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


# a Ray of our own


def _start() -> Connection:
    folder = _short_folder()
    for last in (False, True):
        others = set(psutil.Process().children())
        try:
            _start_in(folder)
            break
        except Exception as error:  # ray raises bare ones and its own kinds here
            _close_quietly()
            _end_all(set(psutil.Process().children()) - others)  # Ray leaves them behind
            if last:
                advice = f"Its logs: {folder}/session_latest/logs. {GO_ON}"
                raise ClusterError("local Ray", first_line(error), "a Ray that starts", advice) from None
            say(f"Ray did not start ({first_line(error)}): trying once more")
    _keep_quiet()
    node: Any = ray._private.worker._global_node
    processes = node.all_processes
    parts = {"raylet": "raylet", "GCS server": "gcs_server"}
    return Connection("", {name: _is_running(processes[key][0].process) for name, key in parts.items()})


def _start_in(folder: str) -> None:
    # an explicit "local": without it Ray joins whatever cluster a leftover file names
    options = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False, **COMMON}
    options["num_cpus"] = usable_cpus()
    # Ray's own way to set variables takes one more process for every worker, and no worker can be started ahead
    with _elsewhere(), _sigterm_stays(), _set(WORKER_ENVIRONMENT), doing("starting a local Ray"):
        ray.init(**options, _temp_dir=folder)  # in this thread: its processes end with the thread that started them


@contextlib.contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    """What is started meanwhile inherits the variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _end_all(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            for each in [*process.children(recursive=True), process]:
                each.kill()


def _is_running(process: Any) -> Callable[[], bool]:
    return lambda: process.poll() is None


def _keep_quiet() -> None:
    """Ray's processes print what they have to say to the driver's standard output, whatever was asked for."""
    ray._private.worker.print_to_stdstream = lambda data, **_: log.info("Ray: %s", data.get("lines"))


def _short_folder() -> str:
    """Where Ray keeps its sockets, whose paths the system limits: not in every TMPDIR.

    Raises:
        ClusterError: if there is no folder with a path that is short enough.
    """
    usual = tempfile.gettempdir()
    for folder in (usual, os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/var/tmp", "/dev/shm"):
        if folder and len(os.fsencode(folder)) + SESSION_PATH_BYTES <= SOCKET_PATH_BYTES and _is_writable(folder):
            return os.path.join(folder, "ray")
    most = SOCKET_PATH_BYTES - SESSION_PATH_BYTES
    raise ClusterError("TMPDIR", usual, f"a folder that can be written, with a path of {most} bytes at most")


def _is_writable(folder: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _sigterm_stays() -> Iterator[None]:
    """Ray puts a handler of its own in place of ours."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Ray puts the directory that it is started in before everything on its workers' path.

    A user's own folders `flows` and `tasks` there would be taken for ours.
    """
    with contextlib.chdir(own_folder("workers")):
        yield


# somebody else's Ray


def _join(address: str) -> Connection:
    address = _found() if address == "auto" else address
    try:
        check_address("RAY_ADDRESS", address)
    except ClusterError as error:
        raise ClusterError(error.where, error.found, error.expected, f"{error.advice} {GO_ON}") from None
    advice = "With token authentication, set RAY_AUTH_MODE=token and share the token on both sides."
    try:
        with _elsewhere(), doing(f"waiting for Ray at {address}"):
            _wait(lambda: ray.init(address=address, runtime_env={"env_vars": WORKER_ENVIRONMENT}, **COMMON), JOIN_S)
    except TimeoutError as error:
        raise ClusterError(
            "RAY_ADDRESS", f"{address}, {error}", "a Ray cluster that answers", f"{advice} {GO_ON}"
        ) from None
    except Exception as error:  # ray raises bare ConnectionError, RuntimeError and its own kinds here
        words, expected = _in_words(error), "a Ray cluster that lets this process join"
        if "Version mismatch" in words:
            expected = "a Ray cluster of the same version"
            advice = f"Start the cluster with Ray {ray.__version__} and this Python, or install its versions here."
        raise ClusterError("RAY_ADDRESS", address, f"{expected} ({words})", advice) from None
    logging.getLogger("ray").setLevel(LOGGED)
    if "://" in address:
        _keep_client_quiet()
        parts = urlsplit(address)
        return Connection(address, {"head": _accepts(parts.hostname or "", parts.port or 10001)})
    _keep_quiet()
    node: Any = ray._private.worker._global_node
    host, _, port = node.gcs_address.rpartition(":")
    parts_of_ray = {"head": _accepts(host, int(port)), "node on this machine": _listens(node.raylet_socket_name)}
    return Connection(address, parts_of_ray)


def _keep_client_quiet() -> None:
    """Threads of gRPC end with a traceback on the screen where Ray's client leaves a server that is gone."""
    before = threading.excepthook

    def without_grpc(happened: threading.ExceptHookArgs) -> None:
        frames = traceback.extract_tb(happened.exc_traceback)
        if frames and "grpc" in frames[-1].filename:
            log.info("a thread of gRPC ended: %s", happened.exc_value)
        else:
            before(happened)

    threading.excepthook = without_grpc


def _found() -> str:
    """The address that "auto" stands for: the newest cluster that was started on this machine."""
    try:
        return str(ray._private.services.canonicalize_bootstrap_address("auto"))
    except Exception as error:
        advice = "Start one (`ray start --head`), name its address, or unset RAY_ADDRESS to use the embedded one."
        raise ClusterError(
            "RAY_ADDRESS", f"auto ({first_line(error)})", "a Ray cluster on this machine", advice
        ) from None


def _in_words(error: BaseException) -> str:
    return " ".join((str(error).strip() or type(error).__name__).split())[:300]


def _accepts(host: str, port: int) -> Callable[[], bool]:
    def is_there() -> bool:
        try:
            with socket.create_connection((host, port), timeout=2):
                return True
        except OSError:
            return False

    return is_there


def _listens(path: str) -> Callable[[], bool]:
    """Whether somebody listens on a socket of this machine; one that is full is there."""

    def is_there() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            return probe.connect_ex(path) in (0, errno.EAGAIN, errno.EINPROGRESS)

    return is_there
