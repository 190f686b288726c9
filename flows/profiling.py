"""Stage `profile`: what every block costs, counted or measured."""

from prefect import flow

import tasks.profiling as work
from flows.stage import stage_run
from nas_core.study.config import StudyConfig


@flow(name="profile", flow_run_name="profile-{config.name}", validate_parameters=True)
def profile(config: StudyConfig, root: str) -> None:
    """Measure the blocks' resources that the store does not hold yet."""
    with stage_run(config, root, "profile") as run:
        resources = list(run.study.profiler_ids)
        num_measured = work.profile(config, root, resources)
        run.study.forget_costs()
        rows = [row for resource in resources for row in run.study.costs(resource)]
        num_timed = len({row.genotype for row in rows if row.genotype})
        run.num_new, run.num_reused = (num_timed, 0) if num_measured else (0, num_timed)
        run.num_failed = sum(row.status == "failed" for row in rows)
        run.device = rows[-1].device
