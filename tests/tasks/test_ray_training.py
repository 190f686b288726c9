"""A training by two processes of a real Ray Train: one is killed, both are started again and go on."""

import os
import signal
import sys
from pathlib import Path

import pytest
from ray import cloudpickle

from nas_core.base.errors import ClusterError, NasError
from nas_core.study.contestants import Candidate, Training
from nas_core.study.study import Study
from tasks.ray_pool import Request, run_jobs
from tasks.ray_training import Mistake, _member
from tasks.worker import study_job, train_job
from tests.conftest import config_of

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not see the directory of the tests

RECIPE = {"epochs": 6, "batch_size": 64, "lr": 0.01, "augment": "crop"}
TWO = Request(num_cpus=0.5, processes=2)


def train_and_die(job, folder, report):
    """The training of the study's winner, whose second process is killed the first time."""
    import psutil
    import torch.distributed as dist

    import nas_core.training.loop as loop

    listening = {each.laddr.ip for each in psutil.Process().net_connections() if each.status == psutil.CONN_LISTEN}
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}, listening
    attempts = Path(folder) / f"attempts-{dist.get_rank()}"
    with attempts.open("a") as file:
        file.write("x")
    plain, first = loop._Training._one_step, len(attempts.read_text()) == 1

    def one_step(self, order):
        plain(self, order)
        if first and dist.get_rank() == 1 and self.step == 9:
            os.kill(os.getpid(), signal.SIGKILL)

    loop._Training._one_step = one_step
    candidate = Candidate(name="winner", role="winner", genotype="2-1-2")
    return train_job(job, Training(candidate=candidate, name="winner", seed=0), report)


def test_a_killed_process_is_started_again(cluster, tmp_path):
    study = Study.create(
        config_of(train={"recipe": RECIPE, "train_examples": 256, "checkpoint_every_s": 0}), str(tmp_path / "study")
    )
    seen = []
    (result,) = run_jobs(
        cluster, train_and_die, [(study_job(study), str(tmp_path))], TWO, lambda *heard: seen.append(heard)
    )
    assert [(tmp_path / f"attempts-{rank}").read_text() for rank in (0, 1)] == ["xx", "xx"]
    steps = [done for _, done, _, _ in seen]
    assert steps[-1] == result["steps"] == 24
    assert steps.count(1) == 1, "went on from the checkpoint"
    assert [row["epoch"] for row in result["history"]] == [1, 2, 3, 4, 5, 6]
    assert result["device"].startswith("2 workers, each ")
    assert study.store.exists(result["program_path"])
    assert not study.store.exists("winner/winner/checkpoint.safetensors")


def test_a_mistake_is_no_accident():
    """It is told, not raised: Ray Train would try again."""

    def mistaken(report):
        raise NasError("train.recipe", "a mistake", "none")

    told = _member({"job": mistaken, "arguments": [], "report": None})
    assert isinstance(told, Mistake)
    assert "found a mistake" in str(told.error)


def test_more_processes_than_there_is_room_for_are_refused(cluster):
    many = Request(num_cpus=1, processes=1 + int(cluster.totals["CPU"]))
    with pytest.raises(ClusterError, match=r"room for \d+, expected room for `train.workers: \d+`, each with 1 CPU"):
        run_jobs(cluster, train_job, [()], many, lambda *_: None)
