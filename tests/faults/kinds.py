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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from flows.prefect_server import _free_port, _start, _wait_for
from nas_core.study.study import Study
from tests.faults.lab import EVALUATION_S, OURS, PATIENCE_S, Driver, Lab, write_table

Fault = Callable[[Lab], Path | str]
KINDS: dict[str, Fault] = {}


def kind(fault: Fault) -> Fault:
    KINDS[fault.__name__] = fault
    return fault


@kind
def driver_killed(lab: Lab) -> Path:
    """SIGKILL of the driver while it evaluates the design, and of the next one while it verifies."""
    root = lab.new_root()
    process = lab.start(root)
    lab.wait_for_evaluations(root, process)
    process.kill()
    process.wait()
    process = lab.start(root)
    lab.wait_for(lambda: (root / "selection.json").exists(), process)
    time.sleep(lab.rng.uniform(0, 8 * EVALUATION_S))
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
    text = process.to_its_end()
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
    said = refused.to_its_end()
    assert refused.returncode == 2, said
    assert f"process {first.pid} on " in said, said
    waiting = lab.start(root, command=["run", str(lab.config), "--root", str(root), "--until", "verify", "--wait"])
    time.sleep(lab.rng.uniform(0, 2))
    first.kill()
    first.wait()
    text = waiting.to_its_end()
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
        text = process.to_its_end()
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
        text = process.to_its_end()
        assert process.returncode == 2, text[-3000:]
        assert "The disk is full: make room" in text, text[-3000:]
        subprocess.run(["mount", "-o", "remount,size=50m", str(root)], check=True)
        lab.finish(root)
        kept = lab.folder / f"{root.name}-kept"
        subprocess.run(["cp", "-r", str(root), str(kept)], check=True)
        return kept
    finally:
        subprocess.run(["umount", str(root)], check=True)


# Ray's own processes


OF_RAY = {  # kind -> the command of a process of every Ray
    "raylet": "raylet/raylet",
    "gcs": "gcs/gcs_server",
    "monitor": "autoscaler/_private/monitor.py",
    "dashboard": "dashboard/dashboard.py",
    "log_monitor": "log_monitor.py",
    "dashboard_agent": "ray::DashboardAgent",
    "runtime_env_agent": "ray::RuntimeEnvAgent",
}


def _killed(lab: Lab, command: str) -> Path:
    root = lab.new_root()
    process = lab.start(root)
    lab.wait_for_evaluations(root, process)
    _kill_of_ray(lab, process.pid, command)
    text = process.to_its_end()
    assert process.returncode == 0, text[-3000:]
    assert "Traceback" not in text, text[-3000:]
    return root


def _kill_of_ray(lab: Lab, pid: int, command: str) -> None:
    (one,) = lab.family(pid, command)
    one.kill()


def _of_embedded_ray(name: str, command: str) -> None:
    def fault(lab: Lab) -> Path:
        return _killed(lab, command)

    fault.__name__ = f"ray_{name}_killed"
    fault.__doc__ = f"SIGKILL of the embedded Ray's {name}: the same run goes on, with another Ray where it has to."
    kind(fault)


for _name, _command in OF_RAY.items():
    _of_embedded_ray(_name, _command)


@kind
def ray_killed_twice(lab: Lab) -> Path:
    """SIGKILL of the raylet, and of the one that takes its place: one message, the same command goes on."""
    root = lab.new_root()
    process = lab.start(root)
    lab.wait_for_evaluations(root, process)
    (first,) = lab.family(process.pid, OF_RAY["raylet"])
    first.kill()
    told = len(process.lines)  # then: that it died, how far it came, how far the second one is
    lab.wait_for(lambda: sum("networks" in line for line in process.lines[told:]) > 1, process)
    _kill_of_ray(lab, process.pid, OF_RAY["raylet"])
    _ended_with_one_message(process, "a second time")
    lab.finish(root)
    return root


def _ended_with_one_message(process: Driver, words: str) -> None:
    text = process.to_its_end()
    assert process.returncode == 2, f"exit code {process.returncode}: {text[-3000:]}"
    assert "Traceback" not in text, text[-3000:]
    last = text.strip().splitlines()[-1]
    assert last.startswith("mathnas: "), text[-3000:]
    assert words in last, text[-3000:]
    assert "the same command goes on" in last, text[-3000:]


@kind
def node_killed(lab: Lab) -> Path:
    """SIGKILL of one of two Ray nodes: evaluations under way there are made on the other, and are not blamed for it."""
    root = lab.new_root()
    lab.write_config(cluster={"max_attempts": 1})
    with ray_cluster(head_cpus=1, node_cpus=1) as cluster:
        process = lab.start(root, RAY_ADDRESS=cluster.address)
        lab.wait_for_evaluations(root, process)
        os.kill(cluster.node_raylet, signal.SIGKILL)
        text = process.to_its_end()
        if process.returncode != 0:  # the node that died was the one the driver was on
            lab.finish(root, RAY_ADDRESS=cluster.address)
        assert "Traceback" not in text, text[-3000:]
    lab.write_config()
    return root


@kind
def last_node_killed(lab: Lab) -> Path:
    """SIGKILL of the only node of a cluster that computes: one message, the same command goes on elsewhere."""
    root = lab.new_root()
    with ray_cluster(head_cpus=0, node_cpus=2) as cluster:
        process = lab.start(root, RAY_ADDRESS=cluster.address)
        lab.wait_for_evaluations(root, process)
        os.kill(cluster.node_raylet, signal.SIGKILL)
        _ended_with_one_message(process, "a node with 1 CPU")
    lab.finish(root)
    return root


def _of_cluster(name: str, part: str, *, client: bool) -> None:
    def fault(lab: Lab) -> Path:
        root = lab.new_root()
        with ray_cluster(head_cpus=2, node_cpus=0) as cluster:
            process = lab.start(root, RAY_ADDRESS=cluster.client_address if client else cluster.address)
            lab.wait_for_evaluations(root, process)
            for one in lab.family(cluster.pid, part):
                one.kill()
            _ended_with_one_message(process, "RAY_ADDRESS")
        lab.finish(root)
        return root

    fault.__name__ = name
    fault.__doc__ = f"SIGKILL of {part} of a cluster: one message, the same command goes on elsewhere."
    kind(fault)


_of_cluster("head_gcs_killed", OF_RAY["gcs"], client=False)
_of_cluster("head_raylet_killed", OF_RAY["raylet"], client=False)
_of_cluster("head_gcs_killed_from_outside", OF_RAY["gcs"], client=True)
_of_cluster("head_raylet_killed_from_outside", OF_RAY["raylet"], client=True)
_of_cluster("client_server_killed", "ray.util.client.server", client=True)


class RayCluster(NamedTuple):
    """A Ray in a process of its own."""

    pid: int
    address: str
    client_address: str
    node_raylet: int  # process id; 0 where there is but the head


@contextlib.contextmanager
def ray_cluster(*, head_cpus: int, node_cpus: int) -> Iterator[RayCluster]:
    """A Ray cluster of a head and, with CPUs, one more node."""
    port = _free_port()
    code = (
        "import os, sys\nfrom ray.cluster_utils import Cluster\n"
        f"head = {{'num_cpus': {head_cpus}, 'ray_client_server_port': {port}}}\n"
        "cluster = Cluster(initialize_head=True, head_node_args=head)\n"
        f"node = cluster.add_node(num_cpus={node_cpus}) if {node_cpus} else None\n"
        "pid = node.all_processes['raylet'][0].process.pid if node else 0\n"
        "print('ready', cluster.address, pid, flush=True)\nsys.stdin.read()\ncluster.shutdown()\n"
    )
    environment = {
        **os.environ,
        **OURS,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "FAULTS": f"{EVALUATION_S},",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=environment,
    )  # fmt: skip
    try:
        for line in process.stdout:
            if line.startswith("ready"):
                _, address, pid = line.split()
                break
        yield RayCluster(process.pid, address, f"ray://127.0.0.1:{port}", int(pid))
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        for one in [*family, process]:  # what a killed head left behind
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


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
        text = process.to_its_end()
        assert process.returncode == 2, text[-3000:]
        assert f"mathnas report {root}" in text, text[-3000:]
        assert (root / "report.html").exists()
    with mlflow_server(lab.folder) as (_, url):
        lab.finish(root, command=["report", str(root)], MLFLOW_TRACKING_URI=url)
    assert Study.open(str(root)).output("tracking.json")["runs"]["study"]
    return root
