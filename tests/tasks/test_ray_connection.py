"""The connection to Ray: what is said, and what is tried again, when it dies; where its sockets may lie."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from nas_core.base.errors import ClusterError
from tasks import ray_connection
from tasks.ray_connection import Connection, RayLostError
from tests.command import process_environment
from tests.faults.lab import SILENCE_S

pytestmark = pytest.mark.situations
CONNECT = """
import os, signal, sys, time
from tasks import ray_connection
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("connecting", flush=True)
ray_connection.JOIN_S = {join_s}
began = time.monotonic()
try:
    ray_connection.connect()
except Exception as error:
    print(f"{type(error).__name__}: {error}")
print(f"after {time.monotonic() - began:.0f} s")
"""


@pytest.fixture
def losing(monkeypatch):
    """The session's own Ray is left alone."""
    monkeypatch.setattr(ray_connection, "_close_quietly", lambda: None)
    monkeypatch.setattr(ray_connection, "POLL_S", 0.0)
    monkeypatch.setattr(Connection, "restarts", 0)


def test_a_local_ray_that_dies_is_tried_again_once(losing):
    parts = {"raylet": lambda: True, "GCS server": lambda: False}
    with pytest.raises(RayLostError, match="GCS server gone"):
        Connection("", parts).check()
    with pytest.raises(ClusterError, match=r"a second time.*the same command goes on"):
        Connection("", parts).check()


def test_a_lost_connection_stays_lost(losing):
    there = [False]
    connection = Connection("", {"raylet": lambda: there[0]})
    for there[0] in (False, True):
        with pytest.raises(RayLostError):
            connection.check()


def test_a_cluster_may_be_away_for_a_while(losing, monkeypatch):
    there = [True]
    connection = Connection("head:6379", {"head": lambda: there[0]})
    for there[0] in (True, False, True, False):
        connection.check()
    monkeypatch.setattr(ray_connection, "SILENT_S", 0.0)
    with pytest.raises(ClusterError, match=r"head:6379, its head gone.*the same command goes on"):
        connection.check()


def test_what_is_asked_is_answered_or_raised(cluster):
    assert ray_connection.ask(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        ray_connection.ask(lambda: 1 / 0)


def test_a_signal_is_heard_while_ray_is_silent(cluster):
    class Stop(BaseException):
        pass

    def stop(*_):
        raise Stop

    before, wake = signal.signal(signal.SIGUSR1, stop), threading.Event()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    try:
        with pytest.raises(Stop):
            ray_connection.ask(wake.wait)
    finally:
        wake.set()
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("length", [20, 94, 200])
def test_sockets_have_paths_that_the_system_takes(monkeypatch, tmp_path, length):
    folder = tmp_path / ("x" * max(1, length - len(str(tmp_path)) - 1))
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    chosen = ray_connection._short_folder()
    assert len(chosen) - len("/ray") + ray_connection.SESSION_PATH_BYTES <= ray_connection.SOCKET_PATH_BYTES


def test_no_short_folder_is_one_message(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 94)))
    monkeypatch.setattr(ray_connection, "_is_writable", lambda _: False)
    with pytest.raises(ClusterError, match=r"TMPDIR.*bytes at most"):
        ray_connection._short_folder()


def connecting(address, join_s=ray_connection.JOIN_S):
    return subprocess.Popen(
        [sys.executable, "-c", CONNECT.replace("{join_s}", str(join_s))],
        env=process_environment(RAY_ADDRESS=address),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def silent_port():
    """Somebody listens, takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_that_is_no_rays_is_said_in_time(silent_port, scheme):
    address = f"{scheme}127.0.0.1:{silent_port}"
    text, _ = connecting(address).communicate(timeout=300)
    assert f"ClusterError: RAY_ADDRESS: found {address}, expected an address that answers" in text
    seconds = int(text.rpartition("after ")[2].split()[0])
    assert seconds <= SILENCE_S
    assert "rpc_client" not in text


@pytest.fixture
def busy_port():
    """Somebody speaks as gRPC does (HTTP/2), and then takes its time: a head that is busy."""
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = []

        def greet():
            with contextlib.suppress(OSError):  # closed at the end
                while True:
                    taken.append(listening.accept()[0])
                    taken[-1].sendall(settings)

        threading.Thread(target=greet, daemon=True).start()
        yield listening.getsockname()[1]
        for connection in taken:
            connection.close()


@pytest.mark.slow
def test_a_busy_head_is_waited_for_and_then_said(busy_port):
    text, _ = connecting(f"ray://127.0.0.1:{busy_port}", join_s=4.0).communicate(timeout=300)
    assert f"found ray://127.0.0.1:{busy_port}, no answer in 4 s, expected a Ray cluster that answers" in text
    assert "the same command goes on" in text
    assert ray_connection.JOIN_S > ray_connection.ANSWER_S  # a head that starts a process for us takes longer


@pytest.mark.slow
def test_sigterm_is_heard_while_a_cluster_is_waited_for(silent_port):
    process = connecting(f"127.0.0.1:{silent_port}")
    assert process.stdout.readline() == "connecting\n"
    time.sleep(1)
    process.terminate()
    assert process.wait(timeout=15) == 143
    process.stdout.close()


OLD_RAY = """
import sys, ray
ray.__version__ = "2.9.3"
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
print("ready", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_cluster_of_another_ray_is_named_with_the_one_that_is_needed():
    import ray

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    environment = process_environment(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")
    with subprocess.Popen([sys.executable, "-c", OLD_RAY], env=environment, **pipes) as old:
        address = next(line for line in old.stdout if line.startswith("ready")).split()[1]
        text, _ = connecting(address).communicate(timeout=300)
        old.communicate()
    assert "Ray: 2.9.3" in text
    assert f"Start the cluster with Ray {ray.__version__}" in text
