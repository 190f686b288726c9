"""Where evaluations run: a local Ray, or the cluster that RAY_ADDRESS names. The only importer of ray.

A worker receives ids, specs and URIs, never modules or tables; it builds what
it needs once (torch, data, shared weights) and keeps it. Short evaluations go
to a pool of actors, long ones are plain Ray tasks; both through one loop with
bounded in-flight work, which reports as it goes, replaces workers that die, and
gives up on a network whose worker dies again and again.
"""

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import ray
from ray import exceptions
from ray.util.queue import Empty, Queue

from nas_core.base.errors import ClusterError
from nas_core.study.config import ClusterConfig
from tasks.addresses import check_address

log = logging.getLogger(__name__)

CRASHES = (
    exceptions.WorkerCrashedError,
    exceptions.RayActorError,
    exceptions.OutOfMemoryError,
    exceptions.NodeDiedError,
)
POLL_S = 0.5
STALLED_S = 10.0
WORKER_ENVIRONMENT = {
    "PYTHONWARNINGS": "ignore",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # a thread that waits for another sleeps soon: on a shared machine, spinning took nine tenths of the time
    "GOMP_SPINCOUNT": "10000",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one worker asks of a node: CPUs, GPUs (fractions share one), custom resources."""

    num_cpus: float = 1
    num_gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)

    def as_options(self) -> dict[str, Any]:
        return {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "resources": dict(self.resources)}

    def as_demand(self) -> dict[str, float]:
        demand = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.resources}
        return {name: amount for name, amount in demand.items() if amount > 0}


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
                ray.shutdown()


class Cluster:
    """Ray, as a context manager: connected to where it is not yet, for the time of the session or of the context."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self._session = Session()

    def __enter__(self) -> "Cluster":
        self._session.__enter__()
        if not ray.is_initialized():
            _connect(os.environ.get("RAY_ADDRESS", ""))
            Session.connected = True
        return self

    def __exit__(self, *error: object) -> None:
        self._session.leave()

    @property
    def totals(self) -> dict[str, float]:
        return dict(ray.cluster_resources())

    @property
    def evaluation_request(self) -> Request:
        """What one evaluation asks for."""
        config = self.config
        return Request(num_cpus=config.num_cpus, num_gpus=config.num_gpus, resources=config.resources)

    @property
    def profile_request(self) -> Request:
        """What measuring costs asks for: one worker, on the target device where one is named."""
        config = self.config
        return Request(num_cpus=max(config.num_cpus, 1), num_gpus=config.num_gpus, resources=config.profile_resources)

    def training_request(self, num_jobs: int = 1) -> Request:
        """What one of ``num_jobs`` long trainings asks for: its share of a node's CPUs, or of those beside a GPU."""
        config = self.config
        node = max(_alive_nodes(), key=lambda resources: resources.get("CPU", 0.0), default={})
        side_by_side = float(num_jobs)
        if config.num_gpus > 0:
            side_by_side = max(node.get("GPU", 1.0) / config.num_gpus, 1.0)
        cpus = config.training_cpus or max(config.num_cpus, node.get("CPU", 1.0) // side_by_side)
        return Request(num_cpus=cpus, num_gpus=config.num_gpus, resources=config.resources)

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
        if any(all(node.get(name, 0.0) >= amount for name, amount in demand.items()) for node in nodes):
            return
        have = "; ".join(_in_words(node) for node in nodes) or "no node"
        advice = "Change `cluster:` in the study, or add such a node; `cluster.max_workers` lets a cluster grow."
        raise ClusterError("Ray cluster", have, f"a node with {_in_words(demand)}", advice)

    def num_workers(self, request: Request) -> int:
        """How many such requests the cluster can hold at a time, fully grown; one at least."""
        totals = self.totals
        room = [totals.get(name, 0.0) / amount for name, amount in request.as_demand().items()]
        return max(1, int(min(room, default=1)), self.config.max_workers)


def _alive_nodes() -> list[dict[str, float]]:
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _in_words(resources: Mapping[str, float]) -> str:
    shown = {
        name: amount for name, amount in resources.items() if not name.startswith("node:") and "memory" not in name
    }
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(shown.items())) or "nothing"


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    common: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "runtime_env": {"env_vars": WORKER_ENVIRONMENT},
    }
    if address in ("", "local"):
        # an explicit "local": without it Ray joins whatever cluster a leftover file names
        ray.init(address="local", _node_ip_address="127.0.0.1", include_dashboard=False, **common)
        return
    check_address("RAY_ADDRESS")
    try:
        ray.init(address=address, **common)
    except Exception as error:  # ray raises bare ConnectionError, RuntimeError and its own kinds here
        advice = "With token authentication, set RAY_AUTH_MODE=token and share the token on both sides."
        raise ClusterError(
            "RAY_ADDRESS", address, f"a Ray cluster of the same version ({_first_line(error)})", advice
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextlib.contextmanager
def _signals_get_through() -> Iterator[None]:
    """What a signal's handler raises while Ray waits arrives as the cause of a SystemError, which nobody expects."""
    try:
        yield
    except SystemError as error:
        raise (error.__cause__ or error) from None


# one long job


def _call(job: Callable[..., Any], arguments: Sequence[Any], queue: Queue | None) -> Any:
    def on_progress(done: int, total: int, note: str) -> None:
        if queue is not None:
            queue.put((done, total, note))

    return _timed(lambda: job(*arguments, on_progress))


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
) -> list[Any]:
    """Results of ``job(*arguments[i], report)`` for every i, each a Ray task, in order.

    ``job`` is a module-level function; it may call ``report(done, total, note)``.
    ``on_progress(i, done, total, note)`` is called on the driver. A job whose
    worker dies is tried ``max_attempts`` times; jobs resume from checkpoints of
    their own. The first exception of a job is raised as it is.
    """
    release_workers()
    cluster.check(request)
    queues = [Queue(actor_options={"num_cpus": 0}) for _ in arguments]
    remote = ray.remote(max_calls=0, max_retries=cluster.config.max_attempts - 1, **request.as_options())(_call)
    refs = [remote.remote(job, list(args), queue) for args, queue in zip(arguments, queues, strict=True)]
    try:
        with _signals_get_through():
            waiting = list(refs)
            while waiting:
                _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_S)
                for index, queue in enumerate(queues):
                    for done, total, note in _drain(queue):
                        on_progress(index, done, total, note)
            return [_result(ref) for ref in refs]
    finally:
        for ref in refs:
            with contextlib.suppress(Exception):
                ray.cancel(ref, force=True)
        for queue in queues:
            queue.shutdown(force=True)


def _drain(queue: Queue) -> list[Any]:
    rows: list[Any] = []
    with contextlib.suppress(Empty, exceptions.RayError):
        rows += queue.get_nowait_batch(queue.qsize())
    return rows


def _result(ref: Any) -> Any:
    try:
        result, busy_s = ray.get(ref, timeout=60)
        Session.busy_s += busy_s
        return result
    except exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, BaseException) else error) from None
    except CRASHES as error:
        raise ClusterError("Ray worker", _first_line(error), "a worker that lives", "See the cluster's logs.") from None


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
    """The process that holds a BatchWorker."""

    def __init__(self, build: Callable[..., BatchWorker], arguments: Sequence[Any]) -> None:
        self.worker = build(*arguments)

    def run(self, batch: list[str]) -> tuple[int, float]:
        return _timed(lambda: self.worker.run(batch))


def _run_once(build: Callable[..., BatchWorker], arguments: Sequence[Any], batch: list[str]) -> tuple[int, float]:
    return _timed(lambda: build(*arguments).run(batch))


@dataclass
class _Work:
    items: list[str]
    attempts: int = 0
    started: float = 0.0
    actor: Any = None


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
            return self._task.remote(self._build, self._arguments, work.items)
        # one batch per actor at a time: a batch that waits behind a deadly one would be blamed for its death
        work.actor = self._idle.popleft() if self._idle else self._new_actor()
        return work.actor.run.remote(work.items)

    def _new_actor(self) -> Any:
        actor = self._actor_class.remote(self._build, self._arguments)
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
            with contextlib.suppress(Exception):
                ray.kill(actor)

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
) -> Iterator[BatchDone]:
    """Yield batches as they finish; one per worker is under way, ``max_in_flight`` at most.

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
    moved = time.monotonic()
    try:
        while todo or under_way:
            while todo and len(under_way) < window:
                work = todo.popleft()
                under_way[lanes.submit(work)] = work
            with _signals_get_through():
                ready, _ = ray.wait(list(under_way), timeout=POLL_S)
            stalled = not ready and time.monotonic() - moved > STALLED_S
            if stalled:
                lanes.make_room()  # one worker at a time: the next stall is counted from here
            if ready or stalled:
                moved = time.monotonic()
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
    finally:
        if under_way:  # cut short: what runs is of no use any more
            for ref in under_way:
                with contextlib.suppress(Exception):
                    ray.cancel(ref, force=long)
            release_workers()


def _outcome(ref: Any, work: _Work) -> BatchDone | str:
    """The finished batch, or why its worker died."""
    try:
        with _signals_get_through():
            num_failed, busy_s = ray.get(ref, timeout=60)
        Session.busy_s += busy_s
        return BatchDone(items=tuple(work.items), num_failed=num_failed)
    except exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, BaseException) else error) from None
    except (*CRASHES, exceptions.TaskCancelledError, exceptions.GetTimeoutError) as error:
        return f"{type(error).__name__}: {_first_line(error)}"


def _again_or_give_up(work: _Work, reason: str, max_attempts: int, todo: "deque[_Work]") -> Iterator[BatchDone]:
    attempts = work.attempts + 1
    log.warning("a worker died with %d networks (attempt %d): %s", len(work.items), attempts, reason)
    if len(work.items) > 1:  # one of them may be the culprit: alone, it cannot take the others along
        todo.extend(_Work([item], work.attempts) for item in work.items)
    elif attempts < max_attempts:
        todo.append(_Work(work.items, attempts))
    else:
        yield BatchDone(
            items=tuple(work.items), num_failed=len(work.items), crash=f"gave up after {attempts} tries; {reason}"
        )


def _cancel_hung(under_way: dict[Any, _Work], lanes: _Lanes, timeout_s: float) -> None:
    for ref, work in under_way.items():
        if time.monotonic() - work.started > timeout_s:
            lanes.drop(work.actor)
            with contextlib.suppress(Exception):
                ray.cancel(ref, force=work.actor is None)
