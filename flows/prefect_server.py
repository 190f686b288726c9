"""A Prefect server of our own on 127.0.0.1, where PREFECT_API_URL names none.

Prefect would start one by itself; this one also ends when the process that
started it is killed, so that a SIGKILL leaves nothing behind.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from nas_core.base.errors import ClusterError
from tasks.environment import NO_PAGE

START_S = 120.0
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
            yield configured
        else:
            with _embedded(port or _free_port(), page) as url:
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
    process = _start(port, page)
    try:
        _wait_for(url, process)
        os.environ["PREFECT_API_URL"] = url
        if not page:
            os.environ[NO_PAGE] = "1"
        _read_settings_again()
        yield url
    finally:
        _send_last_logs()
        os.environ.pop("PREFECT_API_URL", None)
        os.environ.pop(NO_PAGE, None)
        _read_settings_again()
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


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


def _start(port: int, page: bool) -> "subprocess.Popen[bytes]":
    app = "prefect.server.api.server:create_app"
    command = [sys.executable, "-m", "uvicorn", "--factory", app, "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "PREFECT_UI_ENABLED": "1" if page else "0",
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_PORT": str(port),
    }
    return subprocess.Popen(
        [*command, "--log-level", "error"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us: we still have to tell the server how the run ended
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ClusterError(
                "Prefect server", f"exit code {process.returncode}", f"a server at {url}", "Is the port free?"
            )
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise ClusterError("Prefect server", f"no answer in {START_S:.0f} s", f"a server at {url}")
