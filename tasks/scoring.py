"""Score networks on the cluster: what is missing is evaluated, every finished batch is one Parquet part."""

import contextlib
from collections.abc import Iterator, Sequence

from nas_core.records.store import missing
from nas_core.scoring import Scorer
from nas_core.space.genotypes import Genotype
from nas_core.study.rounds import record_finals, to_rate_again
from nas_core.study.study import Study
from tasks.progress import Progress
from tasks.ray_pool import Cluster, run_batches, run_jobs
from tasks.retries import cluster_task
from tasks.worker import Evaluator, prepare_job, study_job

MOST_IN_A_BATCH = 32  # networks per Ray task of a scorer that does not say
SHARES = 4  # at least, for each worker, where networks share nothing: so it is seen how far they are


@cluster_task("prepare-scorer")
def prepare_scorer(study: Study) -> None:
    """What the scorer needs once, if it is not done: shared weights are trained, say."""
    if study.scorer.prepared:
        return
    config = study.config
    with Cluster(config.cluster) as cluster, Progress(stage="prepare", total=1, noun="steps") as progress:
        job, pieces = study_job(study), list(study.scorer.pieces)
        workers = cluster.num_workers(cluster.evaluation_request)
        shares = min(len(pieces), workers) or 1
        at_first = min(study.scorer.num_pieces, workers) or 1
        jobs = [(job, pieces[share::shares]) for share in range(shares)]
        together = config.train.workers if study.scorer.prepares_together else 1
        # the last piece has as many threads as it would have had among all: what comes out depends on it
        request = cluster.training_request(at_first, together)
        run_jobs(
            cluster,
            prepare_job,
            jobs,
            request,
            progress.of_job,
            progress.show,
        )


@cluster_task("evaluate-{purpose}")
def evaluate(study: Study, genotypes: Sequence[str], purpose: str) -> int:
    """Evaluate the networks that were not evaluated yet, and take note of them; returns how many that were.

    Rows of networks that fail, or whose worker dies again and again, say why.
    """
    new = study.missing([Genotype.parse(text) for text in genotypes])
    if new:
        _evaluate(study, new, purpose, len(genotypes))
    return len(new)


@cluster_task("rate-finalists")
def rate_finalists(study: Study) -> tuple[int, int]:
    """Rate the finalists once more where the scorer has a longer rating, and choose.

    Returns how many were new, and how many of all could not be rated.
    """
    final = study.scorer.final
    wanted = list(map(str, to_rate_again(study.snapshot, study.outputs))) if final else []
    if final is None or not wanted:
        return 0, 0
    new = missing(wanted, study.final_evaluations())
    if new:
        _evaluate(study, new, "finalists", len(wanted), final)
    known = {row.genotype: row for row in study.final_evaluations()}
    rows = [known[genotype] for genotype in wanted if genotype in known]
    record_finals(study.snapshot, study.outputs, rows)
    return len(new), sum(row.status == "failed" for row in rows)


def _evaluate(study: Study, genotypes: Sequence[str], purpose: str, total: int, final: Scorer | None = None) -> None:
    """Evaluate the networks on the cluster, of ``total`` that are wanted; by the scorer's ``final`` one, if given."""
    config, scorer = study.config, final or study.scorer
    long = scorer.duration == "minutes"  # a task that keeps nothing, so that GPUs are handed back
    with (
        noted(study),
        Cluster(config.cluster) as cluster,
        Progress(stage=purpose, total=total, done=total - len(genotypes)) as progress,
    ):
        arguments = (study_job(study), final is not None)
        most = 1 if final else getattr(config.scorer, "batch", 1 if long else MOST_IN_A_BATCH)
        shares = SHARES if scorer.one_by_one else 1
        batches = _batches(genotypes, most, shares * cluster.num_workers(cluster.evaluation_request))
        request = cluster.evaluation_request
        for batch in run_batches(cluster, Evaluator, arguments, batches, request, long=long, on_wait=progress.show):
            if batch.crash:
                study.store.add_evaluations([scorer.rows.failed(text, batch.crash, 0.0) for text in batch.items])
            progress.advance(len(batch.items), batch.num_failed)


@contextlib.contextmanager
def noted(study: Study) -> Iterator[None]:
    """What workers store meanwhile is known afterwards, also where the work fails and is tried again."""
    try:
        yield
    except Exception:
        study.refresh()
        raise
    study.refresh()


def _batches(genotypes: Sequence[str], most: int, num_shares: int) -> list[list[str]]:
    """Neighbours in lexicographic order share prefixes, so they go together; every worker gets a share."""
    ordered = sorted(genotypes, key=Genotype.parse)
    size = max(1, min(most, -(-len(ordered) // num_shares)))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
