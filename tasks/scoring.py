"""Score networks on the cluster: what is missing is evaluated, every finished batch is one Parquet part."""

import contextlib
from collections.abc import Iterator, Sequence

from nas_core.records.evaluations import Evaluation
from nas_core.space.genotypes import Genotype
from nas_core.study.study import Study
from tasks.progress import Progress
from tasks.ray_pool import BatchDone, Cluster, run_batches, run_jobs
from tasks.retries import cluster_task
from tasks.worker import Evaluator, prepare_job, study_job

MOST_IN_A_BATCH = 32  # networks per Ray task of a scorer that does not say


@cluster_task("prepare-scorer")
def prepare_scorer(study: Study) -> None:
    """What the scorer needs once, if it is not done: shared weights are trained, say."""
    if study.scorer.prepared:
        return
    config = study.config
    with Cluster(config.cluster) as cluster, Progress(stage="prepare", total=1, noun="steps") as progress:
        job, pieces = study_job(study), list(study.scorer.pieces)
        shares = min(len(pieces), cluster.num_workers(cluster.evaluation_request)) or 1
        jobs = [(job, pieces[share::shares]) for share in range(shares)]
        together = config.train.workers if study.scorer.prepares_together else 1
        request = cluster.training_request(shares, together)
        run_jobs(
            cluster,
            prepare_job,
            jobs,
            request,
            lambda _, done, total, note: progress.note(done, total, note),
            progress.show,
        )


@cluster_task("evaluate-{purpose}")
def evaluate(study: Study, genotypes: Sequence[str], purpose: str) -> int:
    """Evaluate the networks that were not evaluated yet, and take note of them; returns how many that were.

    Rows of networks that fail, or whose worker dies again and again, say why.
    """
    config = study.config
    missing = study.missing([Genotype.parse(text) for text in genotypes])
    if not missing:
        return 0
    long = study.scorer.duration == "minutes"  # a task that keeps nothing, so that GPUs are handed back
    done = len(genotypes) - len(missing)
    with (
        noted(study),
        Cluster(config.cluster) as cluster,
        Progress(stage=purpose, total=len(genotypes), done=done) as progress,
    ):
        arguments = (study_job(study),)
        most = getattr(config.scorer, "batch", MOST_IN_A_BATCH)
        batches = _batches(missing, most, cluster.num_workers(cluster.evaluation_request))
        request = cluster.evaluation_request
        for batch in run_batches(cluster, Evaluator, arguments, batches, request, long=long, on_wait=progress.show):
            if batch.crash:
                study.store.add_evaluations(_crashed(study, batch))
            progress.advance(len(batch.items), batch.num_failed)
    return len(missing)


@contextlib.contextmanager
def noted(study: Study) -> Iterator[None]:
    """What workers store meanwhile is known afterwards, also where the work fails and is tried again."""
    try:
        yield
    except Exception:
        study.refresh()
        raise
    study.refresh()


def _batches(genotypes: Sequence[str], most: int, num_workers: int) -> list[list[str]]:
    """Neighbours in lexicographic order share prefixes, so they go together; every worker gets a share."""
    ordered = sorted(genotypes, key=Genotype.parse)
    size = max(1, min(most, -(-len(ordered) // num_workers)))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _crashed(study: Study, batch: BatchDone) -> list[Evaluation]:
    rows = study.scorer.rows
    return [rows.failed(genotype, batch.crash, 0.0) for genotype in batch.items]
