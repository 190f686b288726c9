"""Train the winner with the full recipe, and what it is compared with, all alike."""

from typing import TYPE_CHECKING, Any

from prefect import task

from nas_core.records.store import Store, shared_store
from nas_core.space.genotypes import Genotype
from nas_core.study.analytic_config import AnalyticConfig
from nas_core.study.config import StudyConfig
from nas_core.study.contestants import Candidate, candidates
from nas_core.study.stages import TRAINING
from nas_core.study.study import Study
from tasks.progress import Progress
from tasks.ray_pool import Cluster, run_jobs
from tasks.scoring import worth_a_retry
from tasks.system_metrics import SystemMetrics

if TYPE_CHECKING:
    from nas_core.training.network import Description  # torch: only where something is trained


def train_job(config_json: str, root: str, name: str, genotype: str, report: Any) -> dict[str, Any]:
    """Train one network in a worker, where it is ``new``; its files are under ``winner/<name>/`` in the store."""
    from nas_core.training.winner import stored_result, training_id

    study = Study(StudyConfig.model_validate_json(config_json), shared_store(root))
    config, architecture = study.config, study.space.architecture(Genotype.parse(genotype))
    known = stored_result(study.store, name, training_id(architecture, config.train, config.data, config.seed))
    return {**train_and_watch(architecture, config, study.store, name, report), "new": known is None}


def train_and_watch(
    architecture: "Description",
    config: StudyConfig | AnalyticConfig,
    store: Store,
    name: str,
    report: Any,
) -> dict[str, Any]:
    """What ``train_network`` returns, and the worker's use of processors and memory meanwhile."""
    from nas_core.training.winner import train_network

    with SystemMetrics() as metrics:
        trained = train_network(
            architecture, config.train, config.data, seed=config.seed, store=store, name=name, on_progress=report
        )
    return {**trained.as_dict(), "system": metrics.samples}


@task(task_run_name="train", retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=worth_a_retry)
def train(config: StudyConfig, root: str) -> dict[str, Any]:
    """Train the winner and its comparisons; a training that was cut off resumes from its checkpoint.

    Returns the stored output, and in ``num_new`` how many networks were not trained already.
    """
    study = Study(config, Store(root))
    wanted = candidates(study)
    with Cluster(config.cluster) as cluster, Progress(stage="train", total=100 * len(wanted), noun="%") as progress:
        shares = [0.0] * len(wanted)

        def on_progress(index: int, done: int, total: int, note: str) -> None:
            shares[index] = 100.0 * done / max(total, 1)
            progress.note(round(sum(shares)), 100 * len(wanted), f"{wanted[index].name}: {note}")

        jobs = [(config.model_dump_json(), root, item.name, item.genotype) for item in wanted]
        results = run_jobs(cluster, train_job, jobs, cluster.training_request(len(jobs)), on_progress)
    num_new = sum(result.pop("new") for result in results)
    rows = [_row(study, item, result) for item, result in zip(wanted, results, strict=True)]
    output = {"inputs": study.inputs_of("train"), "networks": rows}
    study.store.write_json(TRAINING, output)
    return {**output, "num_new": num_new}


def _row(study: Study, candidate: Candidate, result: dict[str, Any]) -> dict[str, Any]:
    costs = study.costs_of(Genotype.parse(candidate.genotype))
    return {"name": candidate.name, "role": candidate.role, "genotype": candidate.genotype, "costs": costs, **result}
