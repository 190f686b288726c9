"""The loop over Ray: nothing lost when workers die, a deadly network is given up, impossible requests fail at once."""

import os
import signal
import sys
import threading
import time
from collections import deque

import pytest
from ray import cloudpickle

from nas_core.base.errors import ClusterError, DataError
from nas_core.study.config import ClusterConfig
from tasks.ray_pool import (
    MOST_NODE_DEATHS,
    Cluster,
    NodeDied,
    Request,
    Session,
    _again_or_give_up,
    _Lanes,
    _Work,
    run_batches,
    run_jobs,
)

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not see the directory of the tests


class Slow:
    def run(self, batch):
        time.sleep(60)
        return 0


class Stop(BaseException):
    """What a signal's handler raises."""


class Echo:
    """Fails nothing; dies on the item 'kill', raises on 'raise'."""

    def run(self, batch):
        if "kill" in batch:
            os.kill(os.getpid(), signal.SIGKILL)
        if "raise" in batch:
            raise DataError("data.path", "nothing", "images")
        return batch.count("fail")


def slow_square(number, report):
    for step in range(3):
        report(step + 1, 3, "squaring")
        time.sleep(0.05)
    return number * number


def fail(number, report):
    raise DataError("data.path", number, "images")


def finished(cluster, batches, long=False):
    return list(run_batches(cluster, Echo, [], batches, cluster.evaluation_request, long=long))


@pytest.mark.parametrize("long", [False, True])
def test_every_item_comes_back_once(cluster, long):
    batches = [[f"{row}-{column}" for column in range(3)] for row in range(10)]
    done = finished(cluster, batches, long)
    assert sorted(item for batch in done for item in batch.items) == sorted(item for batch in batches for item in batch)


def test_a_deadly_item_is_given_up_alone(cluster):
    done = finished(cluster, [["a", "kill", "b"], ["c", "fail"]])
    crashed = [batch for batch in done if batch.crash]
    assert [batch.items for batch in crashed] == [("kill",)]
    assert "gave up after 3 tries" in crashed[0].crash
    assert sorted(item for batch in done for item in batch.items) == ["a", "b", "c", "fail", "kill"]
    assert sum(batch.num_failed for batch in done) == 2


def test_what_takes_too_long_is_said_to(cluster, monkeypatch):
    config = cluster.config.model_copy(update={"batch_timeout_s": 1.5, "max_attempts": 1})
    monkeypatch.setattr(cluster, "config", config)
    (done,) = run_batches(cluster, Slow, [], [["a"]], cluster.evaluation_request, long=False)
    assert done.crash == ("gave up after 1 tries; took longer than cluster.batch_timeout_s, 1.5 s, and was stopped")


def test_a_new_worker_without_room_gets_that_of_an_idle_one(cluster, monkeypatch):
    """As after the loss of a node: two workers are wanted, each as large as what is left."""
    monkeypatch.setattr("tasks.ray_pool.STALLED_S", 1.0)
    monkeypatch.setattr(type(cluster), "num_workers", lambda *_: 2)
    everything = Request(num_cpus=cluster.totals["CPU"])
    done = list(run_batches(cluster, Echo, [], [["a"], ["b"]], everything, long=False))
    assert sorted(item for batch in done for item in batch.items) == ["a", "b"]


@pytest.mark.parametrize("long", [False, True])
def test_what_a_signal_raises_ends_the_work(cluster, long):
    def stop(*_):
        raise Stop

    before = signal.signal(signal.SIGUSR1, stop)
    timer = threading.Timer(3, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(Stop):
            list(run_batches(cluster, Slow, [], [["a"]], cluster.evaluation_request, long=long))
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)


def test_a_users_mistake_crosses_the_process_as_it_is(cluster):
    with pytest.raises(DataError, match="found nothing, expected images"):
        finished(cluster, [["raise"]])
    assert not _Lanes.kept  # a worker that raised as the last one under way would keep the CPUs of the next
    with pytest.raises(DataError, match="found 3"):
        run_jobs(cluster, fail, [(3,)], cluster.evaluation_request, lambda *_: None)


class Unbuilt(Echo):
    def __init__(self):
        raise DataError("data.path", "nothing", "images")


@pytest.mark.parametrize("long", [False, True])
def test_a_mistake_while_a_worker_is_built_is_said_as_it_is(cluster, long):
    """Of an actor that dies before its first call Ray says no more than that."""
    with pytest.raises(DataError, match="found nothing, expected images"):
        list(run_batches(cluster, Unbuilt, [], [["a"]], cluster.evaluation_request, long=long))


def test_jobs_report_and_return_in_order(cluster):
    seen = []
    results = run_jobs(
        cluster, slow_square, [(2,), (3,)], cluster.evaluation_request, lambda *progress: seen.append(progress)
    )
    assert results == [4, 9]
    assert (0, 3, 3, "squaring") in seen
    assert (1, 3, 3, "squaring") in seen


def threads_of_torch(report):
    import torch

    return torch.get_num_threads()


def test_a_job_has_its_own_threads_whatever_its_process_did_before(cluster):
    """A process that was measuring on one CPU trains on two afterwards."""
    found = [
        run_jobs(cluster, threads_of_torch, [()], Request(num_cpus=cpus), lambda *_: None)[0] for cpus in (1, 2, 1)
    ]
    own = os.environ.get("OMP_NUM_THREADS")
    assert found == ([int(own)] * 3 if own else [1, 2, 1])


def test_an_impossible_request_fails_at_once(cluster):
    with pytest.raises(ClusterError, match=r"expected a node with .*4 GPU"):
        list(run_batches(cluster, Echo, [], [["a"]], Request(num_gpus=4), long=False))


def test_actors_leave_the_cpus_to_later_work(cluster):
    finished(cluster, [["a"], ["b"]])
    assert run_jobs(cluster, slow_square, [(4,)], cluster.training_request(), lambda *_: None) == [16]


def sleep_long(number, report):
    if number == 0:
        raise DataError("data.path", number, "images")
    time.sleep(600)


def test_a_job_that_fails_ends_the_others(cluster):
    with pytest.raises(DataError, match="found 0"):
        run_jobs(cluster, sleep_long, [(600,), (0,)], cluster.evaluation_request, lambda *_: None)


def test_networks_whose_nodes_die_again_and_again_are_given_up_each_by_itself():
    todo, given_up = deque([_Work(["a", "b"])]), []
    while todo:
        given_up += _again_or_give_up(todo.popleft(), NodeDied("the node died"), 3, todo)
    assert sorted(done.items for done in given_up) == [("a",), ("b",)]
    assert all(f"gave up after {MOST_NODE_DEATHS} tries" in done.crash for done in given_up)


def test_the_death_of_a_node_takes_no_attempt_from_a_network():
    todo = deque([_Work(["a"], 1)])
    assert not [*_again_or_give_up(todo.popleft(), NodeDied("the node died"), 3, todo)]
    assert (todo[0].items, todo[0].attempts) == (["a"], 1)


def test_a_connection_that_fails_leaves_the_session(monkeypatch):
    def fails():
        raise ClusterError("RAY_ADDRESS", "nothing", "a cluster")

    monkeypatch.setattr("tasks.ray_connection.is_connected", lambda: False)
    monkeypatch.setattr("tasks.ray_connection.connect", fails)
    depth = Session.depth
    with pytest.raises(ClusterError), Cluster(ClusterConfig()):
        pass
    assert Session.depth == depth


CPU_NODE, GPU_NODE = {"CPU": 64.0}, {"CPU": 16.0, "GPU": 4.0}


def test_a_training_asks_for_its_share_of_a_node_that_has_what_it_needs(monkeypatch):
    monkeypatch.setattr("tasks.ray_pool._alive_nodes", lambda: [CPU_NODE, GPU_NODE, GPU_NODE])
    cluster = Cluster(ClusterConfig(num_gpus=1))
    request = cluster.training_request(num_jobs=3)
    assert (request.num_cpus, request.num_gpus) == (4, 1)
    cluster.check(request)
    assert cluster.num_workers(request) == 8
    assert Cluster(ClusterConfig()).training_request(num_jobs=2).num_cpus == 32


def test_measuring_asks_a_target_device_for_what_it_has(monkeypatch):
    """Not for the CPUs and the GPUs of evaluations, which it may have none of."""
    monkeypatch.setattr("tasks.ray_pool._alive_nodes", lambda: [GPU_NODE, {"CPU": 1.0, "phone": 1.0}])
    phone = Cluster(ClusterConfig(num_cpus=4, num_gpus=1, profile_resources={"phone": 1}))
    assert phone.profile_request(on_gpu=False) == Request(resources={"phone": 1})
    assert phone.profile_request(on_gpu=True).num_gpus == 1
    assert Cluster(ClusterConfig(num_cpus=4, num_gpus=1)).profile_request(on_gpu=False) == Request(
        num_cpus=4, num_gpus=1
    )
    monkeypatch.setattr("tasks.ray_pool._alive_nodes", lambda: [{"CPU": 2.0, "GPU": 1.0, "phone": 1.0}])
    assert phone.profile_request(on_gpu=False) == Request(num_gpus=1, resources={"phone": 1})
    assert Cluster(ClusterConfig(profile_resources={"phone": 1})).profile_request(on_gpu=False).num_gpus == 0


def test_workers_are_counted_node_by_node(monkeypatch):
    monkeypatch.setattr("tasks.ray_pool._alive_nodes", lambda: [{"CPU": 3.0}, {"CPU": 3.0}])
    assert Cluster(ClusterConfig()).num_workers(Request(num_cpus=2)) == 2
