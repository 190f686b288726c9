"""Stage `profile`: what every block costs, counted or measured."""

from prefect import flow

import tasks.profiling as work
from flows.stage import stage_run
from nas_core.config import StudyConfig


@flow(name="profile", flow_run_name="profile-{config.name}", validate_parameters=True)
def profile(config: StudyConfig, root: str) -> None:
    """Measure the blocks' resources that the store does not hold yet."""
    with stage_run(config, root, "profile") as run:
        resources = list(run.study.profiler_ids)
        run.num_new = work.profile(config, root, resources)
        run.study.forget_costs()
        run.num_reused = len(resources) - run.num_new
        rows = [row for resource in resources for row in run.study.costs(resource)]
        run.num_failed = sum(row.status == "failed" for row in rows)
        run.device = rows[-1].device
