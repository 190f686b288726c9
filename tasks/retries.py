"""How a task on the cluster is retried: every such task is declared by one decorator."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from nas_core.base.errors import NasError

P = ParamSpec("P")
R = TypeVar("R")


def worth_a_retry(task: Any, task_run: Any, state: Any) -> bool:
    """A user's mistake does not mend itself; a worker's death may."""
    return not isinstance(state.result(raise_on_failure=False), NasError)


def cluster_task(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A Prefect task that computes on the cluster: tried three times, never answered from Prefect's cache.

    What was computed already is in the study's store, which the task itself asks.
    """
    return task(
        task_run_name=name,
        cache_policy=NO_CACHE,
        retries=2,
        retry_delay_seconds=[5, 30],
        retry_condition_fn=worth_a_retry,
    )
