"""A Prefect server of our own on 127.0.0.1, where PREFECT_API_URL names none.

Prefect would start one by itself; this one also ends when the process that
started it is killed, so that a SIGKILL leaves nothing behind.
"""

import ctypes
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from urllib.parse import urlsplit

from nas_core.base.errors import ClusterError, without_passwords
from tasks.environment import NO_PAGE
from tasks.saying import doing, repeatedly, say

START_S = 120.0
LOOK_S = 2.0  # between two looks at whether the server is there
OWN_PORTS = range(20_000, 32_768)  # above Ray's, below those that Linux gives by itself
AWAY_S = 12.0  # it may be away for so long before that is said
MOST_RESTARTS = 1
MOST_WORDS_BYTES = 20_000
COMPLAINT = re.compile(
    r"(?<=[ .])\w*(?:Error|Exception|Warning): .+|^\w*(?:Error|Exception): .+|\[Errno .+", re.MULTILINE
)
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy knows this machine's ports
PR_SET_PDEATHSIG = 1  # prctl(2)


@contextmanager
def prefect_api(port: int | None = None, *, page: bool = False) -> Iterator[str]:
    """The API's URL, set as PREFECT_API_URL: the configured one, or a server for the time of the context.

    ``page`` serves Prefect's page as well; ``port`` None takes a free one.

    Raises:
        ClusterError: if a server cannot be started, refuses us, or went away and stayed away.
    """
    configured = os.environ.get("PREFECT_API_URL")
    advice = "What was evaluated is stored: when the server is back, the same command goes on."
    with server_errors_in_words(configured or "the server of this run", advice):
        if configured:
            with _said_while_away(configured):
                yield configured
        else:
            free = port or _free_port()
            with _embedded(free, page) as url, _said_while_away(url):
                yield url


@contextmanager
def server_errors_in_words(name: str, advice: str) -> Iterator[None]:
    """What Prefect's client raises where a server is away (after asking for a minute) or refuses, as a ClusterError."""
    import httpx

    try:
        yield
    except httpx.HTTPStatusError as error:
        words = f"{name}: {error.response.status_code} {error.response.reason_phrase}"
        asked = f"a server that grants {error.request.url.path}"
        raise ClusterError("Prefect server", words, asked, "PREFECT_API_AUTH_STRING is its password.") from None
    except (httpx.TransportError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not isinstance(error.__cause__, httpx.HTTPError):
            raise  # Prefect's first call, which compares versions, wraps what it meets
        words = f"{name}: {error.__cause__ or error or type(error).__name__}"
        raise ClusterError("Prefect server", words, "a server that answers", advice) from None


@contextmanager
def _embedded(port: int, page: bool) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}/api"
    with _kept_running(url, port, page):
        os.environ["PREFECT_API_URL"] = url
        if not page:
            os.environ[NO_PAGE] = "1"
        _read_settings_again()
        try:
            yield url
        finally:
            _send_last_logs()
            os.environ.pop("PREFECT_API_URL", None)
            os.environ.pop(NO_PAGE, None)
            _read_settings_again()


@contextmanager
def _kept_running(url: str, port: int, page: bool) -> Iterator[list["Server"]]:
    """A server that answers at the URL, the last of the list: one that is killed is started again, once.

    What it knew is in its database.
    """
    servers = [_start(port, page)]

    def look() -> None:
        if servers[-1].poll() is not None and len(servers) <= MOST_RESTARTS:
            say(f"Prefect's server ended ({servers[-1].words or servers[-1].returncode}): starting it again")
            servers.append(_start(port, page))  # it ends with this thread, which ends with the context

    try:
        with doing("starting Prefect's server"):
            _wait_for(url, servers[0])
        with repeatedly(look, LOOK_S, "prefect-server"):
            yield servers
    finally:
        _end(servers[-1])


def _end(server: "Server") -> None:
    server.terminate()
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        server.kill()


@contextmanager
def _said_while_away(url: str) -> Iterator[None]:
    """Say that the server is not there, which its client asks for minutes without a word."""
    away_since = 0.0

    def look() -> None:
        nonlocal away_since
        if _answers(url):
            away_since = 0.0
            return
        now = time.monotonic()
        away_since = away_since or now
        if now - away_since >= AWAY_S:
            away_since = now
            say(f"Prefect's server does not answer ({without_passwords(url)}): it is asked again")

    with repeatedly(look, LOOK_S, "prefect-away"):
        yield


def _answers(url: str) -> bool:
    """Whether anything listens there."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=LOOK_S):
            return True
    except OSError:
        return False


def _read_settings_again() -> None:
    """Prefect reads the environment when it is imported; one that is would start a server of its own."""
    if "prefect.context" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


def _send_last_logs() -> None:
    """Prefect sends logs in the background; what is left would find the server gone."""
    if "prefect.logging.handlers" in sys.modules:
        from prefect.logging.handlers import APILogHandler

        APILogHandler().flush()


class Server(subprocess.Popen[bytes]):
    """The server's process, and what it says when it cannot start."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        weakref.finalize(self, self._said.close)
        super().__init__(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            start_new_session=True,  # Ctrl-C is for us: we still have to tell the server how the run ended
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )

    @property
    def words(self) -> str:
        """Its own last words; "" if it said nothing."""
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - MOST_WORDS_BYTES))
        text = self._said.read().decode(errors="replace").strip()
        found = dict.fromkeys(match[0].strip() for match in COMPLAINT.finditer(text))  # warnings and errors, once each
        return "; ".join(found)[:500] or text.rpartition("\n")[2][:300]


def _start(port: int, page: bool) -> Server:
    app = "prefect.server.api.server:create_app"
    command = [sys.executable, "-P", "-m", "uvicorn", "--factory", app, "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "PREFECT_UI_ENABLED": "1" if page else "0",
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",  # what we quiet for ourselves is what it has to say
    }
    return Server([*command, "--log-level", "error"], environment)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    """A port that nothing listens on, of those that no process is given by itself.

    The server takes seconds to bind it. Ray's workers listen on 10002 to 19999 and on ports that the system
    chooses, from 32768 on: one of these may be taken by then.
    """
    for port in random.SystemRandom().sample(OWN_PORTS, len(OWN_PORTS)):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise ClusterError("port", "none is free", f"one of {OWN_PORTS[0]} to {OWN_PORTS[-1]} on 127.0.0.1")


def _wait_for(url: str, process: Server) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            found = process.words or f"exit code {process.returncode}"
            advice = "It needs a free port, and PREFECT_HOME, a folder that can be written."
            raise ClusterError("Prefect server", found, f"a server at {url}", advice)
        try:
            with DIRECTLY.open(f"{url}/health", timeout=2):
                return
        except (OSError, HTTPException):  # another's port may answer in another language
            time.sleep(0.2)
    raise ClusterError(
        "Prefect server", process.words or f"no answer in {START_S:.0f} s", f"a server that answers at {url}"
    )
