"""Two nodes of one CPU each train as one process does, and go on after one of them died half-way."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from nas_core.study.contestants import Candidate, Training
from nas_core.study.study import Study
from tasks.worker import prepare_job, study_job, train_job
from tests.conftest import config_of
from tests.faults.kinds import RayCluster, ray_cluster

pytestmark = [pytest.mark.slow, pytest.mark.faults]

RECIPE = {"epochs": 10, "batch_size": 64, "lr": 0.01, "augment": "crop"}
SECTIONS = {
    "scorer": {"kind": "supernet", "recipe": RECIPE, "random_paths": 1, "calibration_examples": 64},
    "train": {
        "recipe": {**RECIPE, "epochs": 150},
        "train_examples": 256,
        "compare_random": 0,
        "checkpoint_every_s": 0.5,
        "workers": 2,
        "sync_norm": True,
    },
}
WINNER = Training(candidate=Candidate(name="winner", role="winner", genotype="2-1-2"), name="winner", seed=0)
STEPS, KILLED_AT = 150 * 256 // 64, 60  # of the winner
DRIVER = f"""
import json, sys
from nas_core.base.errors import NasError
from nas_core.study.contestants import Candidate, Training
from nas_core.study.study import Study
from tasks.ray_pool import Cluster, run_jobs
from tasks.worker import prepare_job, study_job, train_job

study = Study.open(sys.argv[1])
job, winner = study_job(study), {WINNER!r}

def run(name, task, *arguments):
    def said(index, done, total, note):
        print(json.dumps([name, done, total]), flush=True)
    return run_jobs(cluster, task, [(job, *arguments)], cluster.training_request(processes=2), said)

try:
    with Cluster(study.config.cluster) as cluster:
        run("supernet", prepare_job, ())
        run("winner", train_job, winner)
except NasError as error:
    sys.exit(f"told: {{error}}")
"""


class Driver:
    """Both trainings on a cluster, in a process of its own; it prints the steps as they are done."""

    def __init__(self, root: str, cluster: RayCluster) -> None:
        environment = {**os.environ, "RAY_ADDRESS": cluster.address, "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", DRIVER, root], env=environment, **pipes)
        self.seen: list[tuple[str, int]] = []

    def until(self, name: str = "", step: int = 0) -> None:
        """Read on until a training has done so many steps, or to the end."""
        for line in self.process.stdout:
            said, done, _ = json.loads(line)
            self.seen.append((said, done))
            if said == name and done >= step:
                return

    def ended(self) -> str:
        """What it said at its end."""
        self.until()
        with self.process:
            return self.process.stderr.read()

    def steps(self, name: str) -> list[int]:
        return [done for said, done in self.seen if said == name]


def places(cluster: RayCluster) -> set[bool]:
    """On which of the two nodes processes train: True for the one beside the head."""
    found = set()
    for process in psutil.Process(cluster.pid).children(recursive=True):
        try:
            if "TrainWorker" in " ".join(process.cmdline()):
                found.add(process.ppid() == cluster.node_raylet)
        except psutil.Error:
            continue
    return found


def alone(root: str) -> None:
    """Both trainings in this process, by one thread."""
    job, threads = study_job(Study.create(config_of(**SECTIONS), root)), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for task, arguments in ((prepare_job, ((),)), (train_job, (WINNER,))):
            task(job, *arguments, lambda *_: None)
    finally:
        torch.set_num_threads(threads)


def losses(root: str) -> tuple[list[float], list[float]]:
    """Of every epoch, of the supernet and of the winner."""
    store = Study.open(root).store
    (path,) = [path for path in store.paths("scorers") if path.endswith(".history.json")]
    rows = store.read_json(path), store.read_json("winner/winner/result.json")["history"]
    supernet, winner = ([row["loss"] for row in each] for each in rows)
    return supernet, winner


def test_two_nodes_train_as_one_process_and_go_on_after_one_died(tmp_path):
    alone(str(tmp_path / "one"))
    root = str(tmp_path / "two")
    Study.create(config_of(**SECTIONS), root)
    with ray_cluster(head_cpus=1, node_cpus=1) as cluster:
        driver = Driver(root, cluster)
        driver.until("supernet", 3)
        assert places(cluster) == {True, False}, "the supernet is not trained by both nodes"
        driver.until("winner", KILLED_AT)
        assert places(cluster) == {True, False}, "the winner is not trained by both nodes"
        os.kill(cluster.node_raylet, signal.SIGKILL)
        began = time.monotonic()
        text = driver.ended()
        assert "told: Ray cluster" in text, text[-3000:]
        assert "room for 1" in text, text[-3000:]
        assert time.monotonic() - began < 120
    with ray_cluster(head_cpus=1, node_cpus=1) as cluster:
        again = Driver(root, cluster)
        text = again.ended()
        assert again.process.returncode == 0, text[-3000:]
    assert len(set(again.steps("supernet"))) <= 1, "the supernet was trained once more"
    assert (min(again.steps("winner")) > 1, max(again.steps("winner"))) == (True, STEPS), "it did not go on"
    (supernet, winner), expected = losses(root), losses(str(tmp_path / "one"))
    assert supernet == pytest.approx(expected[0], rel=1e-4)
    assert winner[:10] == pytest.approx(expected[1][:10], rel=1e-4)  # 40 steps; rounding grows from step to step
    assert len(winner) == len(expected[1]) == 150
    assert sum(winner[-10:]) == pytest.approx(sum(expected[1][-10:]), rel=0.25)
