"""The faults, one function each: break a study at a random moment, make it whole again, return its root.

Each ends with the study finished by the same command as an unbroken one; the
caller compares the two.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from flows.prefect_server import _free_port, _start, _wait_for
from nas_core.study.study import Study
from tests.faults.lab import PATIENCE_S, Lab, write_table

Fault = Callable[[Lab], Path | str]
KINDS: dict[str, Fault] = {}


def kind(fault: Fault) -> Fault:
    KINDS[fault.__name__] = fault
    return fault


@kind
def driver_killed(lab: Lab) -> Path:
    """SIGKILL of the driver."""
    root = lab.new_root()
    process = lab.start(root)
    lab.wait_for_evaluations(root, process)
    process.kill()
    process.wait()
    lab.finish(root)
    return root


@kind
def driver_terminated(lab: Lab) -> Path:
    """SIGTERM of the driver: it ends within 10 s, takes its processes along and gives the study back."""
    root = lab.new_root()
    process = lab.start(root)
    lab.wait_for_evaluations(root, process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.wait(timeout=10)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE], "processes were left behind"
    assert not (root / "lease.json").exists(), "the study was not given back"
    lab.finish(root)
    return root


@kind
def worker_killed(lab: Lab) -> Path:
    """SIGKILL of evaluating workers: the same run goes on with others."""
    root = lab.new_root()
    process = lab.start(root)
    for _ in range(2):
        lab.wait_for_evaluations(root, process)
        for worker in lab.workers(process)[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
    text, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, text[-3000:]
    return root


@kind
def worker_always_dies(lab: Lab) -> Path:
    """One network kills its worker every time: given up and recorded, the rest goes on; then it is mended."""
    root = lab.new_root()
    poison = "0-0-0-1-0-0-0-0"
    lab.finish(root, poison=poison, command=_only_scoring(lab, root))
    failed = [row for row in Study.open(str(root)).evaluations() if row.status == "failed"]
    assert [row.genotype for row in failed] == [poison]
    assert "gave up after 3 tries" in failed[0].message
    return _mended(lab, root)


@kind
def memory_runs_out(lab: Lab) -> Path:
    """One network takes all memory every time: Ray ends its worker, it is given up, the rest goes on; then mended."""
    root, poison, memory = lab.new_root(), "0-0-0-1-0-0-0-0", psutil.virtual_memory()
    most = (memory.total - memory.available + 4e9) / memory.total  # what a study takes, and 3 GB
    environment = {"RAY_memory_usage_threshold": f"{most:.3f}", "FAULTS_DEATH": "memory"}
    lab.finish(root, poison=poison, command=_only_scoring(lab, root), **environment)
    failed = [row for row in Study.open(str(root)).evaluations() if row.status == "failed"]
    assert [row.genotype for row in failed] == [poison]
    assert "gave up after 3 tries" in failed[0].message
    assert "memory" in failed[0].message, failed[0].message
    return _mended(lab, root)


@kind
def metric_is_nan(lab: Lab) -> Path:
    """One network's metric is NaN: recorded as failed with the reason; then the table is mended."""
    root, table = lab.new_root(), lab.folder / "table.parquet"
    rows = pq.read_table(table).to_pydict()
    rows["mean_acc"][rows["arch"].index("00010000")] = float("nan")
    pq.write_table(pa.table(rows), table)
    try:
        lab.finish(root, command=_only_scoring(lab, root))
    finally:
        write_table(table)
    failed = [row for row in Study.open(str(root)).evaluations() if row.status == "failed"]
    assert [(row.genotype, row.message) for row in failed] == [("0-0-0-1-0-0-0-0", "mean_acc is nan")]
    return _mended(lab, root)


def _only_scoring(lab: Lab, root: Path) -> list[str]:
    return ["run", str(lab.config), "--root", str(root), "--until", "score"]


def _mended(lab: Lab, root: Path) -> Path:
    """The failed network is evaluated again, then the study goes on."""
    lab.finish(root, command=["score", str(root), "--retry-failed"])
    lab.finish(root)
    return root


@kind
def part_damaged(lab: Lab) -> Path:
    """A truncated or bit-flipped part is found by its checksum, set aside, reported, and evaluated again."""
    root = lab.new_root()
    lab.finish(root)
    part = lab.rng.choice(sorted(root.glob("evaluations/*/*/[!.]*.parquet")))
    data = bytearray(part.read_bytes())
    if lab.rng.random() < 0.5:
        part.write_bytes(data[: lab.rng.randrange(len(data))])
    else:
        data[lab.rng.randrange(len(data))] ^= 1 << lab.rng.randrange(8)
        part.write_bytes(data)
    text = _status(root)
    assert "damaged part set aside: quarantine/" in text, text
    lab.finish(root)
    return root


def _status(root: Path) -> str:
    command = [sys.executable, "-m", "flows.cli", "status", str(root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout


@kind
def two_drivers(lab: Lab) -> Path:
    """Two drivers at once: one works, one says who does, one waits; then the first is killed and is taken over."""
    root = lab.new_root()
    first = lab.start(root)
    lab.wait_for_evaluations(root, first)
    refused = lab.start(root)
    said, _ = refused.communicate(timeout=PATIENCE_S)
    assert refused.returncode == 2, said
    assert f"process {first.pid} on " in said, said
    waiting = lab.start(root, command=["run", str(lab.config), "--root", str(root), "--until", "verify", "--wait"])
    time.sleep(lab.rng.uniform(0, 2))
    first.kill()
    first.wait()
    text, _ = waiting.communicate(timeout=PATIENCE_S)
    assert waiting.returncode == 0, text[-3000:]
    return root


@kind
def clock_jumps(lab: Lab) -> Path:
    """The driver's clock jumps by a day, to and fro, all the time."""
    root = lab.new_root()
    lab.finish(root, FAULTS_CLOCK="jumps")
    return root


@kind
def prefect_killed(lab: Lab) -> Path:
    """SIGKILL of the Prefect server mid-run: it comes back and the run goes on, or it does not and the run says so."""
    root, port, comes_back = lab.new_root(), _free_port(), lab.rng.random() < 0.5
    url = f"http://127.0.0.1:{port}/api"
    server = _start(port, page=False)
    try:
        _wait_for(url, server)
        patience = {} if comes_back else {"PREFECT_CLIENT_MAX_RETRIES": "2"}  # else it asks for six minutes
        process = lab.start(root, PREFECT_API_URL=url, **patience)
        lab.wait_for_evaluations(root, process)
        server.kill()
        server.wait()
        if comes_back:
            server = _start(port, page=False)
        text, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        server.kill()
        server.wait()
    assert process.returncode == (0 if comes_back else 2), text[-3000:]
    assert comes_back or "when the server is back, the same command goes on" in text, text[-3000:]
    lab.finish(root)
    return root


@kind
def disk_full(lab: Lab) -> Path:
    """The study's disk fills up: the message says so; with room made the same command goes on."""
    root = lab.new_root()
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(root)], check=True)
    try:
        process = lab.start(root)
        text, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 2, text[-3000:]
        assert "The disk is full: make room" in text, text[-3000:]
        subprocess.run(["mount", "-o", "remount,size=50m", str(root)], check=True)
        lab.finish(root)
        kept = lab.folder / f"{root.name}-kept"
        subprocess.run(["cp", "-r", str(root), str(kept)], check=True)
        return kept
    finally:
        subprocess.run(["umount", str(root)], check=True)


@kind
def node_killed(lab: Lab) -> Path:
    """SIGKILL of one of two Ray nodes: evaluations under way there are made on the other."""
    root = lab.new_root()
    with two_nodes() as (address, raylet):
        process = lab.start(root, RAY_ADDRESS=address)
        lab.wait_for_evaluations(root, process)
        os.kill(raylet, signal.SIGKILL)
        text, _ = process.communicate(timeout=PATIENCE_S)
        if process.returncode != 0:  # the node that died was the one the driver was on
            lab.finish(root, RAY_ADDRESS=address)
        assert "Traceback" not in text, text[-3000:]
    return root


@contextlib.contextmanager
def two_nodes():
    """A Ray cluster of two nodes in a process of its own: its address, and the process id of the second's raylet."""
    code = (
        "import os, sys\nfrom ray.cluster_utils import Cluster\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1})\n"
        "node = cluster.add_node(num_cpus=1)\n"
        "pid = node.all_processes['raylet'][0].process.pid\n"
        "print('ready', cluster.address, pid, flush=True)\nsys.stdin.read()\ncluster.shutdown()\n"
    )
    environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "PYTHONPATH": os.getcwd(), "FAULTS": "0.15,"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=environment,
    )  # fmt: skip
    try:
        for line in process.stdout:
            if line.startswith("ready"):
                _, address, pid = line.split()
                break
        yield address, int(pid)
    finally:
        process.stdin.close()
        process.wait(timeout=60)


@kind
def store_errs(lab: Lab) -> str:
    """The object store does not answer for some seconds, again and again: it is asked again, nothing is lost."""
    from tests.services.s3 import S3Server, Tap

    with S3Server() as server, Tap(server.port) as tap:
        uri = server.uri(f"faults-{lab.rng.randrange(10**9)}", port=tap.port)
        stop = threading.Event()

        def close_and_open() -> None:
            while not stop.wait(lab.rng.uniform(2, 5)):
                tap.closed = True
                stop.wait(lab.rng.uniform(0.5, 3))
                tap.closed = False

        thread = threading.Thread(target=close_and_open)
        thread.start()
        try:
            lab.finish(uri, **server.environment)
        finally:
            stop.set()
            thread.join()
        return lab_copy(lab, uri, server)


def lab_copy(lab: Lab, uri: str, server) -> Path:
    """The study on the object store, as a folder."""
    from nas_core.records.store import Store

    with server.credentials():
        source, target = Store(uri), lab.new_root()
        copy = Store(str(target))
        for path in source.paths():
            copy.write_bytes(path, source.read_bytes(path))
    return target


@kind
def mlflow_killed(lab: Lab) -> Path:
    """SIGKILL of the MLflow server: the report is written all the same and says what to run; then it is logged."""
    from tests.services.servers import kill_family, mlflow_server

    root = lab.new_root()
    lab.finish(root)
    with mlflow_server(lab.folder) as (server, url):
        kill_family(server)
        process = lab.start(root, command=["report", str(root)], MLFLOW_TRACKING_URI=url)
        text, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 2, text[-3000:]
        assert f"mathnas report {root}" in text, text[-3000:]
        assert (root / "report.html").exists()
    with mlflow_server(lab.folder) as (_, url):
        lab.finish(root, command=["report", str(root)], MLFLOW_TRACKING_URI=url)
    assert Study.open(str(root)).output("tracking.json")["runs"]["study"]
    return root
