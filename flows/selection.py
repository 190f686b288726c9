"""Stages `select` and `verify`: the exact program's answer, then really evaluated until it stands."""

from prefect import flow

import tasks.selection as work
from flows.stage import stage_run
from nas_core.study.config import StudyConfig
from tasks.profiling import time_whole
from tasks.scoring import evaluate, prepare_scorer, rate_finalists


@flow(name="select", flow_run_name="select-{config.name}", validate_parameters=True)
def select(config: StudyConfig, root: str) -> None:
    """Fit the predictor to what is evaluated and solve for the best networks within the limits."""
    with stage_run(config, root, "select") as run:
        work.select(run.study)


@flow(name="verify", flow_run_name="verify-{config.name}", validate_parameters=True)
def verify(config: StudyConfig, root: str) -> None:
    """Evaluate the best networks for real, refit, solve again, until the choice stands or the budget ends."""
    with stage_run(config, root, "verify") as run:
        index, has_moved = 0, True
        while has_moved:
            while proposed := work.plan_round(run.study, index):
                prepare_scorer(run.study)
                run.count(proposed, evaluate(run.study, proposed, "verify"))
                work.close_round(run.study, index)
                index += 1
            time_whole(run.study)
            has_moved = work.hold_limits(run.study)
        new, failed = rate_finalists(run.study)
        run.num_new, run.num_failed = run.num_new + new, run.num_failed + failed
