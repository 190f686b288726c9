"""Measure what blocks and networks cost; counts are made once, latency where `cluster.profile_resources` says."""

import shlex
from collections.abc import Sequence

from nas_core.base.errors import ConfigError
from nas_core.costs import profiler_of
from nas_core.study.profiled import additivity_sample, is_profiled, is_timed_whole
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
    missing = [resource for resource in resources if not is_profiled(study.snapshot, resource)]
    brought = [resource for resource in missing if not profiler_of(resource, config.profile).measures_here]
    missing = [resource for resource in missing if resource not in brought]
    if not missing:
        _must_be_brought(study, brought)
        return 0
    networks = [str(genotype) for genotype in additivity_sample(study.snapshot)]
    with (
        noted(study),
        Cluster(config.cluster) as cluster,
        Progress(stage="profile", total=len(missing), noun="resources") as progress,
    ):
        job = (study_job(study), missing, networks)
        request = cluster.profile_request(on_gpu=needs_gpu(study))
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
    root = shlex.quote(study.store.root)
    advice = (
        f"`mathnas measure {root} --to measure.pyz` writes what measures it there, `--from measured.csv` takes it; "
    )
    found = f"no {', '.join(resources)} from the machine that measures it"
    raise ConfigError(study.store.root, found, "its measurements", advice + "`--host NAME` does all of it over ssh.")


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
        request, job = cluster.profile_request(on_gpu=needs_gpu(study)), (study_job(study), resources, genotypes)
        (rows,) = run_jobs(cluster, time_job, [job], request, progress.of_job, progress.show)
    record_whole(study.outputs, rows)
    return len(genotypes)


def to_time_whole(study: Study) -> tuple[list[str], list[str]]:
    """Resources that are measured of whole networks, and the networks; none where that is done, or nothing chosen."""
    wanted = to_measure_whole(study)
    return [name for name in study.profiler_ids if is_timed_whole(study.snapshot, name)] if wanted else [], wanted


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


def needs_gpu(study: Study) -> bool:
    """Whether something is measured that only a GPU can be measured for."""
    return any(profiler_of(name, study.config.profile).needs_gpu for name in study.profiler_ids)
