"""Train the winner with the full recipe, and what it is compared with, all alike.

Where the winner's blocks have learnt before, those whose blocks have not are trained longer for it.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nas_core.base.errors import IncompleteTableError
from nas_core.space.genotypes import Genotype
from nas_core.study.contestants import Training, contest, trainings
from nas_core.study.head_start import more_epochs
from nas_core.study.rivals import Rivals
from nas_core.study.stages import TRAINING
from nas_core.study.study import Study
from tasks.addresses import names_cluster
from tasks.profiling import needs_gpu
from tasks.progress import Progress
from tasks.ray_pool import Cluster, run_jobs
from tasks.retries import cluster_task
from tasks.worker import StudyJob, rivals_job, study_job, train_job

log = logging.getLogger(__name__)


@cluster_task("train")
def train(study: Study) -> dict[str, Any]:
    """Train the winner and its comparisons; a training that was cut off resumes from its checkpoint.

    Returns the stored output, and of all trainings how many are new (``num_new``) and how many were there already
    (``num_reused``).
    """
    config = study.config
    job = study_job(study)
    with Cluster(config.cluster) as cluster:
        compared = _compared(study, job, cluster)
        more = more_epochs(study, compared["candidates"], compared["costs"])
        wanted = trainings(study.snapshot, compared["candidates"], more)
        with Progress(stage="train", total=100 * len(wanted), noun="%") as progress:
            shares = [0.0] * len(wanted)

            def on_progress(index: int, done: int, total: int, note: str) -> None:
                shares[index] = 100.0 * done / max(total, 1)
                progress.note(round(sum(shares)), 100 * len(wanted), note)

            jobs = [(job, item) for item in wanted]
            request = cluster.training_request(len(jobs), config.train.workers)
            results = run_jobs(cluster, train_job, jobs, request, on_progress, progress.show)
    num_new = sum(result.pop("new") for result in results)
    trained, diverged = parted(wanted, results)
    output = {"inputs": study.inputs_of("train"), "networks": _rows(compared, trained), "diverged": diverged}
    if compared["remarks"]:
        output["remarks"] = [asdict(remark) for remark in compared["remarks"]]
    study.outputs.write(TRAINING, output)
    return {**output, "num_new": num_new, "num_reused": len(results) - num_new}


def check_room(study: Study) -> None:
    """Whether the cluster that the environment names has room for the workers of one training; asked before any work.

    Raises:
        ClusterError: with what it has.
    """
    config = study.config
    if config.train.workers > 1 and names_cluster():
        with Cluster(config.cluster) as cluster:
            cluster.check(cluster.training_request(processes=config.train.workers))


def _compared(study: Study, job: StudyJob, cluster: Cluster) -> dict[str, Any]:
    """The networks to train with their costs, and what has to be said of others; as ``rivals_job`` has it.

    Where more than the base and random networks is asked for, rivals are made and
    everything is measured whole, where latency is measured.
    """
    found = contest(study.snapshot, study.winner, study.points())
    costs = {each.name: study.costs_of(Genotype.parse(each.genotype)) for each in found.candidates}
    if not study.config.train.compare:
        return {"candidates": list(found.candidates), "remarks": [], "costs": costs, "measured": {}}
    with Progress(stage="compare", total=Rivals(study).num_steps, noun="steps") as progress:
        (made,) = run_jobs(
            cluster,
            rivals_job,
            [(job, list(found.candidates))],
            cluster.profile_request(on_gpu=needs_gpu(study)),
            progress.of_job,
            progress.show,
        )
    return {**made, "remarks": [*found.remarks, *made["remarks"]]}


def parted(
    wanted: Sequence[Training], results: Sequence[dict[str, Any]]
) -> tuple[list[tuple[Training, dict[str, Any]]], list[dict[str, str]]]:
    """The trained networks with their results, and those whose training diverged: the winner is not compared with them.

    Raises:
        IncompleteTableError: if the winner's own did, from the study's seed.
    """
    trained, diverged = [], []
    for item, result in zip(wanted, results, strict=True):
        if "diverged" not in result:
            trained.append((item, result))
            continue
        candidate, message = item.candidate, str(result["diverged"])
        log.warning("training of %s %s diverged: %s", item.name, candidate.genotype, message)
        if item.name == "winner":
            advice = "Change `train.recipe` and run again; the scores are kept."
            raise IncompleteTableError(f"training of the winner {candidate.genotype}", message, "a finite loss", advice)
        again = f"from seed {item.seed}: " if item.name != candidate.name else ""
        diverged.append({"role": candidate.role, "genotype": candidate.genotype, "message": again + message})
    return trained, diverged


def _rows(compared: Mapping[str, Any], trained: Sequence[tuple[Training, dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each network that the study's seed trained; what other seeds made of it is in its ``repeats``."""
    rows: dict[str, dict[str, Any]] = {}
    for item, result in trained:
        candidate, name = item.candidate, item.candidate.name
        if item.name == name:
            known = {"name": name, "role": candidate.role, "genotype": candidate.genotype}
            measured = {"measured": compared["measured"][name]} if name in compared["measured"] else {}
            longer = {"more_epochs": item.more_epochs} if item.more_epochs else {}
            rows[name] = {**known, "costs": compared["costs"][name], **measured, **longer, **result}
        elif name in rows:
            rows[name].setdefault("repeats", []).append(result)
    return list(rows.values())
