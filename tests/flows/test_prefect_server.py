"""The server of our own: what it says when it cannot start, and that it comes back when it is killed."""

import os
import socket
import threading
import time
from contextlib import suppress

import httpx
import pytest

from flows.prefect_server import _free_port, _kept_running, _start, _wait_for
from nas_core.base.errors import ClusterError

pytestmark = [pytest.mark.situations, pytest.mark.slow]


def refused(port):
    server = _start(port, page=False)
    with pytest.raises(ClusterError) as error:
        _wait_for(f"http://127.0.0.1:{port}/api", server)
    return str(error.value)


def test_a_home_that_cannot_be_written_is_said_in_the_servers_own_words(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "file/prefect"))
    message = refused(_free_port())
    assert f"Failed to create the Prefect home directory at {tmp_path}/file/prefect" in message
    assert "unable to open database file" in message
    assert "PREFECT_HOME, a folder that can be written" in message


def test_a_port_that_is_taken_is_said_in_the_servers_own_words():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "address already in use" in refused(port)


def test_a_taken_port_that_answers_in_another_language_is_said_as_well():
    """As Ray's gRPC does."""
    with socket.create_server(("127.0.0.1", 0)) as taken:

        def answer():
            with suppress(OSError):  # closed at the end
                while True:
                    asked, _ = taken.accept()
                    with asked:
                        asked.recv(1 << 16)
                        asked.sendall(b"\0\0\6\4\0\0\0\0\0\0\5\0\0\x40\0")

        threading.Thread(target=answer, daemon=True).start()
        assert "address already in use" in refused(taken.getsockname()[1])


def test_a_port_of_our_own_is_none_that_the_system_gives_to_others():
    assert _free_port() in range(20_000, 32_768)


def test_a_server_that_is_killed_is_started_again(capsys):
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    with _kept_running(url, port, page=False) as servers:
        servers[0].kill()
        deadline = time.monotonic() + 120
        while not (len(servers) > 1 and answers(url)):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert "Prefect's server ended (-9): starting it again" in capsys.readouterr().err
    assert servers[1].poll() is not None


def answers(url):
    try:
        return httpx.get(f"{url}/health").json()
    except httpx.TransportError:
        return False


def test_a_proxy_is_not_asked_for_the_server(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    port = _free_port()
    with _kept_running(f"http://127.0.0.1:{port}/api", port, page=False) as (server,):
        assert server.poll() is None
    assert os.environ["HTTP_PROXY"]
