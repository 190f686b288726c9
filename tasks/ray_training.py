"""One training by several processes: Ray Train starts them, makes torch's process group, and starts them again.

All processes call the same job; which examples each takes, and how they agree,
is the training loop's affair (``nas_core.training.group``). Checkpoints are the
study's own, in its store, so Ray Train keeps none: what is started again goes on
from the last one, with whatever number of processes. This runs in a worker of
the cluster, where also a driver that reaches it by Ray's client alone has it run.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psutil

from nas_core.base.errors import ClusterError, NasError

# Ray Train's own defaults wait long, write files that nobody reads, and give up a group that waits for its turn
SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
LOOPBACK = "127.0.0.1"
TIMEOUT_S = 600  # of one message between processes: the others may have to write a checkpoint meanwhile


@dataclass(frozen=True)
class Mistake:
    """What a job raised that is no accident: trying again would not mend it."""

    error: NasError


def run_together(
    job: Callable[..., Any],
    arguments: Sequence[Any],
    report: Callable[[int, int, str], None],
    *,
    processes: int,
    resources: dict[str, float],
    max_attempts: int,
) -> Any:
    """What ``job(*arguments, report)`` returns in the first of the processes, each of which calls it.

    Raises:
        NasError: as the job does.
        ClusterError: if processes died in every attempt.
    """
    os.environ.update(SETTINGS)
    import ray.train as of_ray
    from ray.train.torch import TorchConfig, TorchTrainer

    train: Any = of_ray  # its types are those of the version before
    loopback = _loopback()
    with tempfile.TemporaryDirectory() as folder:
        trainer = TorchTrainer(
            _member,
            train_loop_config={"job": job, "arguments": list(arguments), "report": report},
            torch_config=_on_this_machine(folder) if loopback else TorchConfig(timeout_s=TIMEOUT_S),
            scaling_config=train.ScalingConfig(
                num_workers=processes, use_gpu=resources.get("GPU", 0) > 0, resources_per_worker=resources
            ),
            run_config=train.RunConfig(
                name="training",
                storage_path=folder,
                failure_config=train.FailureConfig(max_failures=max_attempts - 1),
                worker_runtime_env={"env_vars": loopback},
            ),
        )
        try:
            result: Any = trainer.fit()
        except train.TrainingFailedError as error:
            found = " ".join(str(error).split())[:500]
            raise ClusterError("Ray workers", found, "workers that live", "See the cluster's logs.") from None
    if isinstance(result.return_value, Mistake):
        raise result.return_value.error
    return result.return_value


def _member(config: dict[str, Any]) -> Any:
    try:
        return config["job"](*config["arguments"], config["report"])
    except NasError as error:  # all have raised it: what they compute is the same
        return Mistake(error)


# a Ray of this machine alone: nothing listens to others


def _loopback() -> dict[str, str]:
    """What keeps messages of gloo and NCCL on the loopback interface, where this Ray is there; else nothing."""
    import ray

    if ray.util.get_node_ip_address() != LOOPBACK:
        return {}
    name = next(name for name, known in psutil.net_if_addrs().items() if any(a.address == LOOPBACK for a in known))
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}


def _on_this_machine(folder: str) -> Any:
    """Ray's configuration of torch, but processes meet by a file: torch's store of addresses listens everywhere."""
    from ray.train.torch import TorchConfig

    class Backend(TorchConfig().backend_cls):  # type: ignore[misc]
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(_meet, f"file://{folder}/{uuid4().hex}")

    class Config(TorchConfig):
        @property
        def backend_cls(self) -> type:
            return Backend

    return Config()


def _meet(place: str) -> None:
    import ray
    import torch.distributed as dist

    context = ray.train.get_context()
    dist.init_process_group(
        "nccl" if ray.get_gpu_ids() else "gloo",
        init_method=place,
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        timeout=timedelta(seconds=TIMEOUT_S),
    )
