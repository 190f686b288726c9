"""Real servers on 127.0.0.1, ended with the test: MLflow, PostgreSQL."""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

from flows.prefect_server import _end_with_parent, _free_port


@contextlib.contextmanager
def mlflow_server(folder: Path, backend: str = "") -> Iterator[tuple[subprocess.Popen, str]]:
    """An MLflow server, one worker, data under ``folder`` or in the database ``backend``; its process and address."""
    port = _free_port()
    backend = backend or f"sqlite:///{folder / 'mlflow-server.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [*command, "--backend-store-uri", backend, "--artifacts-destination", str(folder / "mlflow-artifacts")],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_end_with_parent,
    )
    try:
        _wait(f"http://127.0.0.1:{port}/health", process)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        _end(process)


def _wait(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            assert time.monotonic() < deadline, f"no answer from {url}"
            assert process.poll() is None, f"it ended with {process.returncode}"
            time.sleep(0.2)


def kill_family(process: subprocess.Popen) -> None:
    """SIGKILL of a server and of the processes it started, which would go on serving."""
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def _end(process: subprocess.Popen) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        kill_family(process)


def postgres_binaries() -> Path | None:
    """Where PostgreSQL's programs are; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    program = shutil.which("postgres")
    return Path(program).parent if program else None


@contextlib.contextmanager
def postgres_server(folder: Path, databases: list[str], password: str = "") -> Iterator[str]:
    """A PostgreSQL server with these databases; yields ``user:password@host:port``. Not run as root, where we are."""
    binaries, port, password = postgres_binaries(), _free_port(), password or os.urandom(8).hex()
    assert binaries is not None
    data = folder / "postgres"
    data.mkdir()
    (folder / "password").write_text(password)
    as_user: dict[str, object] = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        for path in (data, folder / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/", **as_user}
    initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "mathnas", "--auth=scram-sha-256", "-E", "UTF8"]
    subprocess.run([*initdb, "--pwfile", str(folder / "password"), "--no-sync"], check=True, **quiet)
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}", "-p", str(port)]
    process = subprocess.Popen([str(binaries / "postgres"), "-D", str(data), *options], **quiet)
    address = f"mathnas:{password}@127.0.0.1:{port}"
    try:
        _create(address, databases, process)
        yield address
    finally:
        process.send_signal(2)  # SIGINT: fast shutdown
        process.wait(timeout=60)


def _create(address: str, databases: list[str], process: subprocess.Popen) -> None:
    import psycopg2

    deadline = time.monotonic() + 60
    while True:
        try:
            connection = psycopg2.connect(f"postgresql://{address}/postgres")
            break
        except psycopg2.OperationalError:
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            assert process.poll() is None
            time.sleep(0.2)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for name in databases:
            cursor.execute(f'CREATE DATABASE "{name}"')
    connection.close()
