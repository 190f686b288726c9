"""Stage `report`: the page, the figures, and everything to MLflow."""

import shlex

from prefect import flow

import tasks.reporting as work
from flows.stage import stage_run
from nas_core.base.errors import ClusterError, ConfigError
from nas_core.study.config import StudyConfig
from nas_core.study.study import Study


@flow(name="report", flow_run_name="report-{config.name}", validate_parameters=True)
def report(config: StudyConfig, root: str) -> None:
    """Log the study to MLflow, register the winner, check the registered model, write the report.

    Raises:
        StoreError: if there is no study, or the stored report knows more than this one would.
        ClusterError: if MLflow does not answer, ConfigError if none is named.
            The report is written all the same; logging waits for the next run.
    """
    Study.store_of(root)  # other stages begin a study; of none there is nothing to report
    with stage_run(config, root, "report") as run:
        work.check_report(run.study)
        try:
            work.track(run.study)
            work.check_registered_model(run.study)
        except (ClusterError, ConfigError) as error:
            page = work.write_report(run.study)
            again = f"mathnas report {shlex.quote(root)}"
            advice = f"Nothing is lost: {page} is written. When it is there, `{again}` logs everything."
            raise type(error)(error.where, error.found, error.expected, advice) from None
        work.write_report(run.study)
        work.attach_report(run.study)
