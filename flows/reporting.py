"""Stage `report`: the page, the figures, and everything to MLflow."""

from prefect import flow

import tasks.reporting as work
from flows.stage import stage_run
from nas_core.config import StudyConfig


@flow(name="report", flow_run_name="report-{config.name}", validate_parameters=True)
def report(config: StudyConfig, root: str) -> None:
    """Log the study to MLflow, register the winner, check the registered model, write the report."""
    with stage_run(config, root, "report"):
        work.track(config, root)
        work.check_registered_model(config, root)
        work.write_report(config, root)
        work.attach_report(config, root)
