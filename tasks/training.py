"""Train the winner with the full recipe, and what it is compared with, all alike."""

from typing import TYPE_CHECKING, Any

from nas_core.records.store import Store
from nas_core.space.genotypes import Genotype
from nas_core.study.analytic_config import AnalyticConfig
from nas_core.study.brought import described, trained_metric
from nas_core.study.config import StudyConfig
from nas_core.study.contestants import Candidate, candidates
from nas_core.study.stages import TRAINING
from nas_core.study.study import Study
from nas_core.workloads import build_workload
from tasks.progress import Progress
from tasks.ray_pool import Cluster, run_jobs
from tasks.retries import cluster_task
from tasks.system_metrics import SystemMetrics
from tasks.worker import StudyJob, study_job

if TYPE_CHECKING:
    from nas_core.training.network import Description  # torch: only where something is trained


def train_job(job: StudyJob, name: str, genotype: str, report: Any) -> dict[str, Any]:
    """Train one network in a worker, where it is ``new``; its files are under ``winner/<name>/`` in the store."""
    from nas_core.training.winner import stored_result, training_id

    study = job.study()
    config, architecture = study.config, described(study.family, Genotype.parse(genotype))
    run_id = training_id(architecture, config.train, build_workload(config.data), config.seed)
    known = stored_result(study.store, name, run_id)
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
            architecture,
            config.train,
            build_workload(config.data),
            metric=trained_metric(config).name,
            seed=config.seed,
            store=store,
            name=name,
            on_progress=report,
        )
    return {**trained.as_dict(), "system": metrics.samples}


@cluster_task("train")
def train(study: Study) -> dict[str, Any]:
    """Train the winner and its comparisons; a training that was cut off resumes from its checkpoint.

    Returns the stored output, and in ``num_new`` how many networks were not trained already.
    """
    config = study.config
    wanted = candidates(study.snapshot, study.winner)
    with Cluster(config.cluster) as cluster, Progress(stage="train", total=100 * len(wanted), noun="%") as progress:
        shares = [0.0] * len(wanted)

        def on_progress(index: int, done: int, total: int, note: str) -> None:
            shares[index] = 100.0 * done / max(total, 1)
            progress.note(round(sum(shares)), 100 * len(wanted), f"{wanted[index].name}: {note}")

        job = study_job(study)
        jobs = [(job, item.name, item.genotype) for item in wanted]
        results = run_jobs(cluster, train_job, jobs, cluster.training_request(len(jobs)), on_progress, progress.show)
    num_new = sum(result.pop("new") for result in results)
    rows = [_row(study, item, result) for item, result in zip(wanted, results, strict=True)]
    output = {"inputs": study.inputs_of("train"), "networks": rows}
    study.outputs.write(TRAINING, output)
    return {**output, "num_new": num_new}


def _row(study: Study, candidate: Candidate, result: dict[str, Any]) -> dict[str, Any]:
    costs = study.costs_of(Genotype.parse(candidate.genotype))
    return {"name": candidate.name, "role": candidate.role, "genotype": candidate.genotype, "costs": costs, **result}
