"""Where evaluations run: a local Ray, or the cluster that RAY_ADDRESS names.

A worker receives ids, specs and URIs, never modules or tables; it builds what
it needs once (torch, data, shared weights) and keeps it. Short evaluations go
to a pool of actors, long ones are plain Ray tasks; both through one loop with
bounded in-flight work, which reports as it goes, replaces workers that die, and
gives up on a network whose worker dies again and again.
"""

import contextlib
import gc
import logging
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import ray
from ray import exceptions
from ray.util.queue import Queue

from nas_core.base.allocator import give_back_memory
from nas_core.base.errors import ClusterError
from nas_core.study.config import ClusterConfig
from tasks import ray_connection
from tasks.ray_connection import ask, first_line
from tasks.requests import Request, room

log = logging.getLogger(__name__)

CRASHES = (
    exceptions.WorkerCrashedError,
    exceptions.RayActorError,
    exceptions.OutOfMemoryError,
    exceptions.NodeDiedError,
)
NODE_DIED = "its node has died"  # in Ray's words of an actor
POLL_S = 0.5
REPORT_S = 0.2  # between two reports of a job
STALLED_S = 10.0
MOST_NODE_DEATHS = 5  # under the same networks, which nodes do not die of: then they are asked one by one
ANSWER_S = 5.0  # of the actor that passes reports on
RESULT_S = 60.0  # for a result to come from another node


class Session:
    """For the time of a session one connection to Ray is kept, made by the first ``Cluster`` in it.

    Sessions nest: a study's holds those of its stages. A session's end frees
    the workers' CPUs, the outermost one's disconnects.
    """

    depth: ClassVar[int] = 0
    connected: ClassVar[bool] = False  # by a session, which then has to disconnect
    busy_s: ClassVar[float] = 0.0  # seconds that workers have worked for this process

    def __enter__(self) -> "Session":
        Session.depth += 1
        return self

    def __exit__(self, *error: object) -> None:
        release_workers()
        self.leave()

    def leave(self) -> None:
        """End the session; workers stay warm for the session around it."""
        Session.depth -= 1
        if Session.depth == 0:
            release_workers()
            if Session.connected:
                Session.connected = False
                ray_connection.disconnect()


class Cluster:
    """Ray, as a context manager: connected to where it is not yet, for the time of the session or of the context."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self._session = Session()

    def __enter__(self) -> "Cluster":
        self._session.__enter__()
        try:
            if not ray_connection.is_connected():
                _Lanes.kept.clear()  # of a Ray that died, if any
                ray_connection.connect()
                Session.connected = True
        except BaseException:
            self._session.leave()  # `__exit__` is not called
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._session.leave()

    @property
    def totals(self) -> dict[str, float]:
        return dict(ask(ray.cluster_resources))

    @property
    def evaluation_request(self) -> Request:
        """What one evaluation asks for."""
        config = self.config
        return Request(num_cpus=config.num_cpus, num_gpus=config.num_gpus, resources=config.resources)

    def profile_request(self, *, on_gpu: bool) -> Request:
        """What measuring costs asks for: one worker, as an evaluation's; of a target device a CPU, and its GPU if any.

        ``on_gpu`` says that only a GPU will do.
        """
        config = self.config
        if not config.profile_resources:
            return Request(num_cpus=max(config.num_cpus, 1), num_gpus=config.num_gpus)
        gpus = config.num_gpus or float(on_gpu)
        device = {**config.profile_resources, "GPU": gpus}
        has_gpu = gpus > 0 and any(room(node, device) for node in _alive_nodes())
        return Request(num_gpus=gpus if on_gpu or has_gpu else 0, resources=config.profile_resources)

    def training_request(self, num_jobs: int = 1, processes: int = 1) -> Request:
        """What one of ``num_jobs`` long trainings asks for: its share of a node's CPUs, or of those beside a GPU.

        Several ``processes`` of one training divide all nodes' CPUs, and trainings come one after another.
        """
        config = self.config
        nodes = _alive_nodes()
        needed = {"GPU": config.num_gpus} if config.num_gpus > 0 else {}
        able = [node for node in nodes if room(node, {**needed, **config.resources})]
        node = max(able, key=lambda resources: resources.get("CPU", 0.0), default={})
        side_by_side = float(num_jobs)
        if config.num_gpus > 0:
            side_by_side = max(node.get("GPU", 1.0) / config.num_gpus, 1.0)
        elif processes > 1:
            side_by_side = max(1.0, node.get("CPU", 1.0) // _largest_share(able, processes))
        cpus = config.training_cpus or max(config.num_cpus, node.get("CPU", 1.0) // side_by_side)
        return Request(num_cpus=cpus, num_gpus=config.num_gpus, resources=config.resources, processes=processes)

    def check(self, request: Request) -> None:
        """Fail at once where no node could ever satisfy the request.

        A cluster that grows (``max_workers``) may bring such a node up later.

        Raises:
            ClusterError: with what was asked for and what the largest node has.
        """
        if self.config.max_workers > 0:
            return
        demand = request.as_demand()
        nodes = _alive_nodes()
        if not nodes:
            ray_connection.give_up("its node gone")
        holds = sum(room(node, demand) for node in nodes)
        if holds >= request.processes:
            return
        have = "; ".join(_in_words(node) for node in nodes) or "no node"
        advice = "Change `cluster:` in the study, or add such a node; `cluster.max_workers` lets a cluster grow."
        if request.processes > 1:
            expected = f"room for `train.workers: {request.processes}`, each with {_in_words(demand)}"
            raise ClusterError("Ray cluster", f"{have}: room for {holds}", expected, advice)
        raise ClusterError("Ray cluster", have, f"a node with {_in_words(demand)}", advice)

    def at_a_time(self, request: Request) -> int:
        """How many jobs of such a request the cluster can hold at a time; one at least."""
        return max(1, self.num_workers(request) // request.processes)

    def num_workers(self, request: Request) -> int:
        """How many such requests the cluster can hold at a time, fully grown; one at least."""
        demand = request.as_demand()
        return max(1, sum(room(node, demand) for node in _alive_nodes()), self.config.max_workers)


def _alive_nodes() -> list[dict[str, float]]:
    return [dict(node["Resources"]) for node in ask(ray.nodes) if node["Alive"]]


def _largest_share(nodes: Sequence[Mapping[str, float]], processes: int) -> float:
    """Most CPUs, a whole number, that each of the processes can have; one at least."""
    cpus = [int(node.get("CPU", 0.0)) for node in nodes]
    shares = range(max(cpus, default=1), 1, -1)
    return float(next((share for share in shares if sum(have // share for have in cpus) >= processes), 1))


def _in_words(resources: Mapping[str, float]) -> str:
    shown = {
        name: amount for name, amount in resources.items() if not name.startswith("node:") and "memory" not in name
    }
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(shown.items())) or "nothing"


# one long job


def _call(job: Callable[..., Any], arguments: Sequence[Any], queue: Queue | None, request: Request, tries: int) -> Any:
    said, said_at = "", -math.inf

    def on_progress(done: int, total: int, note: str) -> None:
        nonlocal said, said_at
        now = time.monotonic()  # small steps take less time than to say that they are done
        if queue is not None and (note != said or done >= total or now - said_at >= REPORT_S):
            said, said_at = note, now
            queue.put((done, total, note))

    if request.processes == 1:
        _take_own_threads()
        try:
            return _timed(lambda: job(*arguments, on_progress))
        finally:  # Ray keeps the process, for what comes next
            gc.collect()
            give_back_memory()
    from tasks.ray_training import run_together

    processes, demand = request.processes, request.as_demand()
    result, wall_s = _timed(
        lambda: run_together(job, arguments, on_progress, processes=processes, resources=demand, max_attempts=tries)
    )
    return result, wall_s * request.processes


def _take_own_threads() -> None:
    """Let torch have as many threads as this job was given: Ray's word reaches it only before it is loaded.

    Otherwise a training's numbers, and its speed, would depend on what its process did before.
    """
    torch, threads = sys.modules.get("torch"), os.environ.get("OMP_NUM_THREADS", "")
    if torch is not None and threads.isdecimal():
        torch.set_num_threads(max(1, int(threads)))


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the seconds it took."""
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def run_jobs(
    cluster: Cluster,
    job: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    request: Request,
    on_progress: Callable[[int, int, int, str], None],
    on_wait: Callable[[], None] | None = None,
) -> list[Any]:
    """Results of ``job(*arguments[i], report)`` for every i, each a Ray task, in order.

    ``job`` is a module-level function; it may call ``report(done, total, note)``.
    Where the request is of several processes, each calls it, and the first one's result counts.
    ``on_progress(i, done, total, note)`` is called on the driver, ``on_wait()``
    now and then. A job whose
    worker dies is tried ``max_attempts`` times; jobs resume from checkpoints of
    their own. The first exception of a job ends the others and is raised as it is.
    """
    release_workers()
    cluster.check(request)
    tries, together = cluster.config.max_attempts, request.processes > 1
    # of several processes, the task itself only waits for them
    options = {"num_cpus": 0} if together else request.as_options()
    remote = ray.remote(max_calls=0, max_retries=tries - 1, **options)(_call)
    most = cluster.at_a_time(request) if together else len(arguments)
    queues: dict[int, Queue] = {}  # of the jobs that have not ended
    refs: list[Any] = []
    waiting: list[Any] = []
    results: dict[int, Any] = {}
    watch = _Watch(cluster, request)
    try:
        while waiting or len(refs) < len(arguments):
            while len(waiting) < most and len(refs) < len(arguments):
                queue = queues[len(refs)] = Queue(actor_options={"num_cpus": 0})
                given = list(arguments[len(refs)]), queue, request, tries
                refs.append(ask(lambda given=given: remote.remote(job, *given)))  # type: ignore[misc]
                waiting.append(refs[-1])
            ended, waiting = _wait_for(waiting, num_returns=len(waiting))
            reports = {index: ask(lambda queue=queue: _drain(queue)) for index, queue in queues.items()}  # type: ignore[misc]
            for index, rows in reports.items():
                for done, total, note in rows:
                    on_progress(index, done, total, note)
            for index in map(refs.index, ended):
                _end(queues.pop(index))
                results[index] = _result(refs[index])  # what failed ends the others now, not in hours
            watch.saw(moved=bool(ended) or any(reports.values()))
            if on_wait is not None:
                on_wait()
        return [results[index] for index in range(len(refs))]
    finally:
        _cancel(refs, force=True)
        for queue in queues.values():
            _end(queue)


class _Watch:
    """Whether the work moves; where it stands still, whether there is still a node that it could run on."""

    def __init__(self, cluster: Cluster, request: Request) -> None:
        self._cluster, self._request = cluster, request
        self._moved = time.monotonic()

    def saw(self, *, moved: bool) -> bool:
        """Take note of whether anything moved; returns whether nothing has for a while, which is then counted anew.

        Raises:
            ClusterError: if the last node that could do the work is gone.
        """
        now = time.monotonic()
        stalled = not moved and now - self._moved > STALLED_S
        if stalled:
            try:
                self._cluster.check(self._request)
            except ClusterError as error:  # it was there when the work began
                advice = f"{error.advice} {ray_connection.GO_ON}"
                raise ClusterError(error.where, error.found, error.expected, advice) from None
        if moved or stalled:
            self._moved = now
        return stalled


def _wait_for(refs: list[Any], num_returns: int = 1) -> tuple[list[Any], list[Any]]:
    """Those that are ready, after ``POLL_S`` at most, and the others."""
    ready, others = ask(lambda: ray.wait(refs, num_returns=num_returns, timeout=POLL_S))
    return ready, others


def _try(call: Callable[[], object]) -> None:
    """What ends something that may have ended before; nothing where Ray is gone."""
    if ray_connection.is_connected():
        with contextlib.suppress(Exception):
            ask(call)


def _cancel(refs: Iterable[Any], *, force: bool) -> None:
    for ref in list(refs):
        _try(lambda ref=ref: ray.cancel(ref, force=force))  # type: ignore[misc]


def _drain(queue: Queue) -> list[Any]:
    """What was reported; nothing while the queue itself waits for a process."""
    with contextlib.suppress(exceptions.RayError):  # GetTimeoutError is one
        actor: Any = queue.actor
        number = ray.get(actor.qsize.remote(), timeout=ANSWER_S)
        return list(ray.get(actor.get_nowait_batch.remote(number), timeout=ANSWER_S)) if number else []
    return []


def _end(queue: Queue) -> None:
    _try(lambda: queue.shutdown(force=True))


def _result(ref: Any) -> Any:
    try:
        result, busy_s = ask(lambda: ray.get(ref, timeout=RESULT_S), RESULT_S + ANSWER_S)
        Session.busy_s += busy_s
        return result
    except exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, BaseException) else error) from None
    except CRASHES as error:
        raise ClusterError("Ray worker", first_line(error), "a worker that lives", "See the cluster's logs.") from None


# many evaluations


class BatchWorker(Protocol):
    """What a worker process builds once: it makes a batch, writes it, and says how many rows failed."""

    def run(self, batch: list[str]) -> int: ...


@dataclass(frozen=True, kw_only=True)
class BatchDone:
    """A finished batch: how many of its items succeeded and failed."""

    items: tuple[str, ...]
    num_failed: int
    crash: str = ""  # why its workers died; its rows are then for the caller to record


class _Actor:
    """The process that holds a BatchWorker, built for its first batch: Ray would hide what is raised earlier."""

    def __init__(self, build: Callable[..., BatchWorker], arguments: Sequence[Any]) -> None:
        _take_own_threads()  # the process may have done a job before
        self._build, self._arguments = build, arguments
        self._worker: BatchWorker | None = None

    def run(self, batch: list[str]) -> tuple[int, float]:
        worker = self._worker = self._worker or self._build(*self._arguments)
        return _timed(lambda: worker.run(batch))


def _run_once(build: Callable[..., BatchWorker], arguments: Sequence[Any], batch: list[str]) -> tuple[int, float]:
    _take_own_threads()
    return _timed(lambda: build(*arguments).run(batch))


@dataclass
class _Work:
    items: list[str]
    attempts: int = 0
    node_deaths: int = 0
    started: float = 0.0
    actor: Any = None
    stopped: str = ""  # why we stopped it ourselves


class _Lanes:
    """Submits batches: to actors that keep what they loaded, or as plain tasks.

    The actors stay warm between rounds of a stage, until ``release_workers``
    hands their CPUs back.
    """

    kept: ClassVar[dict[str, "_Lanes"]] = {}

    @classmethod
    def get(cls, build: Callable[..., BatchWorker], arguments: Sequence[Any], request: Request, long: bool) -> "_Lanes":
        """The warm lanes for the same work, or new ones in place of any others."""
        key = repr((build.__qualname__, list(arguments), request, long))
        if key not in cls.kept:
            release_workers()
            cls.kept[key] = cls(build, arguments, request, long)
        return cls.kept[key]

    def __init__(
        self, build: Callable[..., BatchWorker], arguments: Sequence[Any], request: Request, long: bool
    ) -> None:
        self._build, self._arguments, self._long = build, list(arguments), long
        options = request.as_options()
        # a GPU task would otherwise be a new process, torch import and CUDA context every time
        self._task = ray.remote(max_calls=0, max_retries=0, **options)(_run_once)
        self._actor_class = ray.remote(_Actor).options(max_restarts=0, **options)
        self._idle: deque[Any] = deque()
        self._actors: list[Any] = []
        self._untried: list[Any] = []  # actors that have finished nothing yet: perhaps there is no room for them

    def submit(self, work: _Work) -> Any:
        work.started = time.monotonic()
        if self._long:
            return ask(lambda: self._task.remote(self._build, self._arguments, work.items))
        # one batch per actor at a time: a batch that waits behind a deadly one would be blamed for its death
        work.actor = self._idle.popleft() if self._idle else self._new_actor()
        return ask(lambda: work.actor.run.remote(work.items))

    def _new_actor(self) -> Any:
        actor = ask(lambda: self._actor_class.remote(self._build, self._arguments))
        self._actors.append(actor)
        self._untried.append(actor)
        return actor

    def free(self, actor: Any) -> None:
        """The actor's batch is done."""
        if actor is not None:
            self._idle.append(actor)
            if actor in self._untried:
                self._untried.remove(actor)

    def make_room(self) -> None:
        """Nothing moves: where a node was lost, an idle actor may hold the CPUs that a new one waits for."""
        if self._idle and self._untried:
            self.drop(self._idle.popleft())

    def drop(self, actor: Any) -> None:
        """The actor died, hangs or is in the way: it is not used again."""
        if actor in self._untried:
            self._untried.remove(actor)
        if actor in self._actors:
            self._actors.remove(actor)
            _try(lambda: ray.kill(actor))

    def close(self) -> None:
        for actor in list(self._actors):
            self.drop(actor)


def release_workers() -> None:
    """End the actors that are kept warm: idle ones hold CPUs that later work needs."""
    for lanes in _Lanes.kept.values():
        lanes.close()
    _Lanes.kept.clear()


def run_batches(
    cluster: Cluster,
    build: Callable[..., BatchWorker],
    arguments: Sequence[Any],
    batches: Sequence[Sequence[str]],
    request: Request,
    *,
    long: bool,
    on_wait: Callable[[], None] | None = None,
) -> Iterator[BatchDone]:
    """Yield batches as they finish; one per worker is under way, ``max_in_flight`` at most.

    ``on_wait()`` is called now and then while nothing is finished.

    ``build(*arguments)`` makes the worker inside the process. A batch whose
    worker dies is split and its items are tried one by one, ``max_attempts``
    times each; then it is yielded with ``crash`` set. An exception that a
    worker raises is a mistake of ours or of the configuration and ends the run.
    """
    cluster.check(request)
    config = cluster.config
    window = min(cluster.num_workers(request), config.max_in_flight or len(batches))
    todo = deque(_Work(list(batch)) for batch in batches)
    under_way: dict[Any, _Work] = {}
    lanes = _Lanes.get(build, arguments, request, long)
    watch = _Watch(cluster, request)
    try:
        while todo or under_way:
            while todo and len(under_way) < window:
                work = todo.popleft()
                under_way[lanes.submit(work)] = work
            ready, _ = _wait_for(list(under_way))
            if watch.saw(moved=bool(ready)):
                lanes.make_room()  # one worker at a time
            if not ready and on_wait is not None:
                on_wait()
            for ref in ready:
                work = under_way.pop(ref)
                outcome = _outcome(ref, work)
                if isinstance(outcome, BatchDone):
                    lanes.free(work.actor)
                    yield outcome
                    continue
                lanes.drop(work.actor)
                yield from _again_or_give_up(work, outcome, config.max_attempts, todo)
            _cancel_hung(under_way, lanes, config.batch_timeout_s)
    except BaseException:  # cut short: what runs is of no use any more, and a worker that raised holds its CPUs
        _cancel(under_way, force=long)
        release_workers()
        raise


class NodeDied(str):
    """Why a worker died whose node did: its networks hardly have a part in that."""


def _outcome(ref: Any, work: _Work) -> BatchDone | str:
    """The finished batch, or why its worker died."""
    try:
        num_failed, busy_s = ask(lambda: ray.get(ref, timeout=RESULT_S), RESULT_S + ANSWER_S)
        Session.busy_s += busy_s
        return BatchDone(items=tuple(work.items), num_failed=num_failed)
    except exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, BaseException) else error) from None
    except (*CRASHES, exceptions.TaskCancelledError, exceptions.GetTimeoutError) as error:
        if isinstance(error, exceptions.NodeDiedError) or NODE_DIED in str(error):
            return NodeDied(first_line(error))
        return work.stopped or f"{type(error).__name__}: {first_line(error)}"


def _again_or_give_up(work: _Work, reason: str, max_attempts: int, todo: "deque[_Work]") -> Iterator[BatchDone]:
    of_node = isinstance(reason, NodeDied)
    attempts, deaths = work.attempts + (not of_node), work.node_deaths + of_node
    what = "node" if of_node else "worker"
    log.warning("a %s died with %d networks (attempt %d): %s", what, len(work.items), attempts + deaths, reason)
    if of_node and deaths < MOST_NODE_DEATHS:
        todo.append(_Work(work.items, attempts, deaths))
    elif len(work.items) > 1:  # one of them may be the culprit: alone, it cannot take the others along
        todo.extend(_Work([item], work.attempts) for item in work.items)
    elif not of_node and attempts < max_attempts:
        todo.append(_Work(work.items, attempts, deaths))
    else:
        crash = f"gave up after {attempts + deaths} tries; {reason}"
        yield BatchDone(items=tuple(work.items), num_failed=len(work.items), crash=crash)


def _cancel_hung(under_way: dict[Any, _Work], lanes: _Lanes, timeout_s: float) -> None:
    for ref, work in under_way.items():
        if time.monotonic() - work.started > timeout_s:
            work.stopped = f"took longer than cluster.batch_timeout_s, {timeout_s:g} s, and was stopped"
            lanes.drop(work.actor)
            _cancel([ref], force=work.actor is None)
