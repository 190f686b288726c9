"""Write the report, and log the study to MLflow."""

from typing import Any

from prefect import task

from nas_core.config import StudyConfig
from nas_core.report.collect import summarise
from nas_core.report.figures import save_figures
from nas_core.report.page import render_page
from nas_core.store import Store
from nas_core.study import REPORT, SUMMARY, Study
from tasks import tracking


@task(task_run_name="track")
def track(config: StudyConfig, root: str) -> dict[str, Any]:
    """Log runs, tables, figures and models; returns the run ids."""
    study = Study(config, Store(root))
    return tracking.log_study(study, save_figures(summarise(study)))


@task(task_run_name="write-report")
def write_report(config: StudyConfig, root: str) -> str:
    """Write report.html, report.json and the figures; returns where the page is."""
    study = Study(config, Store(root))
    summary = summarise(study)
    for name, png in save_figures(summary).items():
        study.store.write_bytes(f"figures/{name}.png", png)
    study.store.write_json(SUMMARY, summary.to_dict())
    study.store.write_bytes(REPORT, render_page(summary).encode())
    return study.store.uri(REPORT)
