"""A designed network: solve its program, train it, log it. Tasks of the flow ``design``."""

from typing import Any

from prefect import task

from nas_core.deepmad.tree import Progress as SearchProgress
from nas_core.records.store import Store
from nas_core.study.analytic_config import AnalyticConfig
from nas_core.study.analytic_project import DesignProject
from nas_core.study.stages import REGISTERED
from tasks import tracking
from tasks.progress import Progress
from tasks.ray_pool import Cluster, run_jobs
from tasks.reporting import checked_registered, server_may_go_away
from tasks.retries import cluster_task
from tasks.worker import train_design_job


@task(task_run_name="solve")
def solve(config: AnalyticConfig, root: str) -> dict[str, Any]:
    """Solve the program in this process and store the answer with its figures; one core, no data."""
    with Progress(stage="solve", total=100, noun="%") as progress:

        def report(at: SearchProgress) -> None:
            share = min(99, round(100 * at.cpu_s / config.program.cpu_s))
            progress.note(share, 100, f"best {at.score:,.2f}, bound {at.bound:,.2f}")

        answer = DesignProject(config, Store(root)).solve(report)
        progress.note(100, 100, f"score {answer['score']:,.2f}, gap {100 * answer['gap']:.3f} %")
    return answer


@cluster_task("train")
def train(config: AnalyticConfig, root: str) -> dict[str, Any]:
    """Train the designed network; a training that was cut off resumes from its checkpoint."""
    with Cluster(config.cluster) as cluster, Progress(stage="train", total=1, noun="steps") as progress:
        job = (config.model_dump_json(), root)
        request = cluster.training_request(processes=config.train.workers)
        (result,) = run_jobs(cluster, train_design_job, [job], request, progress.of_job, progress.show)
    return DesignProject(config, Store(root)).record_training(result)


@task(task_run_name="track")
def track(config: AnalyticConfig, root: str) -> dict[str, Any]:
    """Log the answer and the trained network to MLflow, register its model; returns the run ids."""
    with server_may_go_away():
        return tracking.log_design(DesignProject(config, Store(root)))


@task(task_run_name="check-registered-model")
def check_registered_model(config: AnalyticConfig, root: str) -> float:
    """The metric of the designed network loaded back from the registry, on test.

    Raises:
        StoreError: if it is not the value that the training measured.
    """
    project = DesignProject(config, Store(root))
    network, row = project.network, project.training
    assert row is not None
    figures = checked_registered(project.store, config, row, network.resolution, network.in_channels)
    project.store.write_json(REGISTERED, {**_as_registered(project), **figures})
    return next(iter(figures.values()))


def is_registered(project: DesignProject) -> bool:
    """Whether this training's model was registered where runs are logged now, and checked."""
    stored = project.output(REGISTERED)
    return stored is not None and stored.items() >= _as_registered(project).items()


def _as_registered(project: DesignProject) -> dict[str, Any]:
    config = project.config
    return {
        "inputs": project.training_inputs,
        "program_id": project.program_id,
        "name": config.name,
        "tracking": config.tracking.model_dump(mode="json"),
        "uri": tracking.logged_to(project.store),
    }
