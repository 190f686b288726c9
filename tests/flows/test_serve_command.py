"""`mathnas serve`: everything is on the page, and the page ends when it is told."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from flows.prefect_server import _free_port
from flows.serve_command import _own_home, _quietly_cancelled
from flows.study import FLOWS
from tests.command import process_environment


@pytest.mark.situations
@pytest.mark.parametrize("told", ["PREFECT_API_URL", "PREFECT_HOME", "PREFECT_API_DATABASE_CONNECTION_URL"])
def test_its_database_is_beside_the_studies_unless_told_otherwise(monkeypatch, told):
    for name in ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_API_DATABASE_CONNECTION_URL"):
        monkeypatch.delenv(name, raising=False)
    with monkeypatch.context() as as_told:
        as_told.setenv(told, "told")
        _own_home("/data/studies")
        assert os.environ.get("PREFECT_HOME") in (None, "told")
    _own_home("/data/studies")
    assert os.environ["PREFECT_HOME"] == "/data/studies/.prefect"
    monkeypatch.delenv("PREFECT_HOME")
    _own_home("s3://bucket/studies")
    assert os.environ["PREFECT_HOME"].startswith(str(Path.home() / ".prefect/mathnas-"))


@pytest.mark.situations
def test_a_connection_that_is_open_at_the_end_is_no_error(caplog):
    """As of a study that runs: Prefect's runner listens to it while it is told to end."""

    listening = asyncio.Event()

    async def listen(reader, writer):
        listening.set()
        with closing(writer):
            await reader.read(1)

    async def serving():
        async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
            _, study = await asyncio.open_connection(*server.sockets[0].getsockname())
            with closing(study):
                await listening.wait()
                asyncio.get_running_loop().call_soon(lambda: {}["another error"])
                asyncio.get_running_loop().call_soon(sys.exit, 0)
                await asyncio.sleep(60)

    with pytest.raises(SystemExit):
        asyncio.run(_quietly_cancelled(serving()))
    (record,) = (each for each in caplog.records if each.name == "asyncio" and each.exc_info)
    assert record.exc_info[0] is KeyError


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_served_page_ends_without_a_traceback_when_the_whole_group_is_told(tmp_path, signal_number):
    """As Ctrl-C in a terminal does: the server must outlive the runner that takes its leave of it."""
    port = _free_port()
    page = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "serve", "--root", str(tmp_path), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=process_environment(),
        start_new_session=True,
    )
    for line in page.stdout:  # a start that takes long is said before
        if "Prefect's page" in line:
            break
    number = httpx.post(f"http://127.0.0.1:{port}/api/deployments/count", json={}).json()
    assert number == 2 + len(FLOWS), "all are there when the page is named"
    os.killpg(page.pid, signal_number)
    printed, _ = page.communicate(timeout=120)
    assert page.returncode in (0, 130, 143), printed  # 0 where its runner was told, else ours
    assert "Traceback" not in printed
    assert "Warning" not in printed
