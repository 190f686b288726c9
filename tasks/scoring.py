"""Score networks on the cluster: what is missing is evaluated, every finished batch is one Parquet part."""

from collections.abc import Sequence
from typing import Any

from prefect import task

from nas_core.base.errors import NasError
from nas_core.records.evaluations import Evaluation
from nas_core.records.store import Store, shared_store
from nas_core.scoring import build_scorer, supernet_path
from nas_core.space.genotypes import Genotype
from nas_core.study.config import StudyConfig
from nas_core.study.study import Study
from tasks.progress import Progress
from tasks.ray_pool import BatchDone, Cluster, run_batches, run_jobs


def worth_a_retry(task: Any, task_run: Any, state: Any) -> bool:
    """A user's mistake does not mend itself; a worker's death may."""
    return not isinstance(state.result(raise_on_failure=False), NasError)


class Evaluator:
    """A worker's scorer, built once; it writes what it evaluates."""

    def __init__(self, config_json: str, root: str) -> None:
        config = StudyConfig.model_validate_json(config_json)
        self.store = shared_store(root)
        self.scorer = build_scorer(config, Study(config, self.store).space, self.store)

    def run(self, batch: list[str]) -> int:
        """Evaluate and store the networks; returns how many failed."""
        rows = self.scorer.evaluate([Genotype.parse(text) for text in batch])
        self.store.add_evaluations(rows)
        return sum(row.status == "failed" for row in rows)


def prepare_job(config_json: str, root: str, report: Any) -> None:
    """What the scorer needs once, such as the training of shared weights; resumes where it was cut off."""
    config = StudyConfig.model_validate_json(config_json)
    store = shared_store(root)
    build_scorer(config, Study(config, store).space, store).prepare(report)


@task(task_run_name="prepare-scorer", retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=worth_a_retry)
def prepare_scorer(config: StudyConfig, root: str) -> None:
    """Train the scorer's shared weights, if it has any and they are not in the store."""
    store = Store(root)
    if config.scorer.kind != "supernet" or store.exists(supernet_path(config, Study(config, store).space.space_id)):
        return
    with Cluster(config.cluster) as cluster, Progress(stage="prepare", total=1, noun="steps") as progress:
        job = (config.model_dump_json(), root)
        request = cluster.training_request()
        run_jobs(cluster, prepare_job, [job], request, lambda _, done, total, note: progress.note(done, total, note))


@task(task_run_name="evaluate-{purpose}", retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=worth_a_retry)
def evaluate(config: StudyConfig, root: str, genotypes: Sequence[str], purpose: str) -> int:
    """Evaluate the networks that the store does not hold yet; returns how many that were.

    Rows of networks that fail, or whose worker dies again and again, say why.
    """
    study = Study(config, Store(root))
    missing = study.missing([Genotype.parse(text) for text in genotypes])
    if not missing:
        return 0
    long = config.scorer.kind == "train"  # minutes each: a task that keeps nothing, so that GPUs are handed back
    done = len(genotypes) - len(missing)
    with Cluster(config.cluster) as cluster, Progress(stage=purpose, total=len(genotypes), done=done) as progress:
        arguments = (config.model_dump_json(), root)
        batches = _batches(missing, config.scorer.batch, cluster.num_workers(cluster.evaluation_request))
        for batch in run_batches(cluster, Evaluator, arguments, batches, cluster.evaluation_request, long=long):
            if batch.crash:
                study.store.add_evaluations(_crashed(study, batch))
            progress.advance(len(batch.items), batch.num_failed)
    return len(missing)


def _batches(genotypes: Sequence[str], most: int, num_workers: int) -> list[list[str]]:
    """Neighbours in lexicographic order share prefixes, so they go together; every worker gets a share."""
    ordered = sorted(genotypes, key=Genotype.parse)
    size = max(1, min(most, -(-len(ordered) // num_workers)))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _crashed(study: Study, batch: BatchDone) -> list[Evaluation]:
    scorer = build_scorer(study.config, study.space, study.store)
    return [
        Evaluation(
            space_id=study.space.space_id,
            scorer_id=study.scorer_id,
            genotype=genotype,
            seed=study.config.seed,
            status="failed",
            metric=None,
            metric_name=scorer.metric_name,
            higher_is_better=scorer.higher_is_better,
            split=scorer.split,
            num_examples=0,
            wall_s=0.0,
            device="",
            message=batch.crash,
        )
        for genotype in batch.items
    ]
