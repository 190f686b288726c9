"""Measure what blocks and networks cost; counts are made once, latency where `cluster.profile_resources` says."""

from collections.abc import Sequence

import numpy as np

from nas_core.base.errors import ConfigError
from nas_core.base.identity import evaluation_seed
from nas_core.costs import is_measured_whole, profiler_of
from nas_core.costs.parts import base_genotypes
from nas_core.records.evaluations import WHOLE_NETWORK
from nas_core.space.genotypes import Genotype
from nas_core.study.rounds import finalists, lowered_for, record_whole
from nas_core.study.study import Study
from tasks.progress import Progress
from tasks.ray_pool import Cluster, run_jobs
from tasks.retries import cluster_task
from tasks.scoring import noted
from tasks.worker import profile_job, study_job, time_job


@cluster_task("profile")
def profile(study: Study, resources: Sequence[str]) -> int:
    """Measure the resources that were not measured yet, and take note of them; returns how many that were."""
    config = study.config
    missing = [resource for resource in resources if not is_profiled(study, resource)]
    brought = [resource for resource in missing if not profiler_of(resource, config.profile).measures_here]
    missing = [resource for resource in missing if resource not in brought]
    if not missing:
        _must_be_brought(study, brought)
        return 0
    networks = [str(genotype) for genotype in additivity_sample(study)]
    with (
        noted(study),
        Cluster(config.cluster) as cluster,
        Progress(stage="profile", total=len(missing), noun="resources") as progress,
    ):
        job = (study_job(study), missing, networks)
        request = cluster.profile_request
        run_jobs(
            cluster,
            profile_job,
            [job],
            request,
            progress.of_job,
            progress.show,
        )
    _must_be_brought(study, brought)
    return len(missing)


def _must_be_brought(study: Study, resources: Sequence[str]) -> None:
    """Raises ConfigError where values of these resources are measured elsewhere, and have not come yet."""
    if not resources:
        return
    root = study.store.root
    advice = (
        f"`mathnas measure {root} --to measure.pyz` writes what measures it there, `--from measured.csv` takes it; "
    )
    found = f"no {', '.join(resources)} from the machine that measures it"
    raise ConfigError(root, found, "its measurements", advice + "`--host NAME` does all of it over ssh.")


@cluster_task("time-whole")
def time_whole(study: Study) -> int:
    """Measure the finalists, the base and a sweep's points whole, in turns, once; returns how many that were.

    What the program goes by is a sum over blocks; this says what the whole of them takes.
    """
    resources, genotypes = to_time_whole(study)
    if not resources:
        return 0
    with (
        Cluster(study.config.cluster) as cluster,
        Progress(stage="time", total=len(resources), noun="resources") as progress,
    ):
        request, job = cluster.profile_request, (study_job(study), resources, genotypes)
        (rows,) = run_jobs(cluster, time_job, [job], request, progress.of_job, progress.show)
    record_whole(study.outputs, rows)
    return len(genotypes)


def to_time_whole(study: Study) -> tuple[list[str], list[str]]:
    """Resources that are measured of whole networks, and the networks; none where that is done, or nothing chosen."""
    wanted = to_measure_whole(study)
    return [name for name in study.profiler_ids if _is_timed_whole(study, name)] if wanted else [], wanted


def to_measure_whole(study: Study) -> list[str]:
    """The finalists, the base, a sweep's points and networks for which limits moved.

    None where they were measured, or nothing is chosen.
    """
    verified = study.current("verify") or {}
    if not study.family.are_networks or not verified.get("winner"):
        return []
    swept = [point.genotype for point in study.points() if point.genotype is not None]
    best = [str(verified["winner"]), *map(str, finalists(study.snapshot))]
    wanted = list(dict.fromkeys((*best, str(study.base), *swept, *lowered_for(verified))))
    return [] if set(wanted) <= {row["genotype"] for row in verified.get("whole") or ()} else wanted


def _is_timed_whole(study: Study, resource: str) -> bool:
    config = study.config.profile
    return is_measured_whole(resource, config) and profiler_of(resource, config).measures_here


def is_profiled(study: Study, resource: str) -> bool:
    """Whether every block has a value of this resource, and the sample of networks where it is measured."""
    rows = [row for row in study.costs(resource) if row.status == "ok"]
    blocks = {(row.position, row.choice, row.resolution) for row in rows if row.position != WHOLE_NETWORK}
    wanted = (sum(study.space.num_choices) + 1) * len(study.space.resolutions)
    if len(blocks) < wanted:
        return False
    measured = {row.genotype for row in rows if row.position == WHOLE_NETWORK}
    return not _is_timed_whole(study, resource) or {str(genotype) for genotype in additivity_sample(study)} <= measured


def additivity_sample(study: Study) -> list[Genotype]:
    """Networks measured whole, to say how additive a measured cost is; at the first resolution.

    The first of the space, of a trained model itself, is one of them: those drawn may all cost about the same.
    """
    rng = np.random.default_rng(evaluation_seed(study.config.seed, "additivity"))
    first = [each for each in base_genotypes(study.space)[:1] if study.space.allows(each)]
    resolution = study.space.resolutions[0] if len(study.space.resolutions) > 1 else None
    drawn = (study.space.sample(rng) for _ in range(4 * study.config.profile.networks))
    distinct = dict.fromkeys(Genotype(genotype.choices, resolution) for genotype in (*first, *drawn))
    return list(distinct)[: study.config.profile.networks]
