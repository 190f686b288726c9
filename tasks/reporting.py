"""Write the report, and log the study to MLflow."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from nas_core.base.errors import ClusterError, DataError, StoreError
from nas_core.records.store import Store
from nas_core.report import report_files
from nas_core.report.collect import summarise
from nas_core.report.replacing import make_way
from nas_core.space.genotypes import Genotype
from nas_core.study.analytic_config import AnalyticConfig
from nas_core.study.as_given import measure_as_given
from nas_core.study.brought import trained_metric
from nas_core.study.config import StudyConfig
from nas_core.study.stages import FIGURES, REGISTERED, REPORT
from nas_core.study.study import Study
from nas_core.workloads import build_workload
from nas_core.workloads.metrics import Metric
from tasks import tracking

log = logging.getLogger(__name__)

# a few examples may flip between a GPU's arithmetic and the CPU's; other numbers are a little off
SAME_SHARE, SAME_EXAMPLES, SAME_RELATIVE = 0.002, 2, 0.01
SAME_NUMBER, NEARLY_0 = 0.05, 1e-6
SERVERS_CLIENTS = ("mlflow", "requests", "urllib3", "sqlalchemy")


@contextlib.contextmanager
def server_may_go_away() -> Iterator[None]:
    """A tracking server that stops answering midway is a ClusterError, whatever its clients call it."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in SERVERS_CLIENTS:
            raise
        words = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ClusterError("MLFLOW_TRACKING_URI", words, "a tracking server that answers") from None


@task(task_run_name="track", cache_policy=NO_CACHE)
def track(study: Study) -> dict[str, Any]:
    """Log runs, tables and models to MLflow; returns the run ids."""
    with server_may_go_away():
        return tracking.log_study(study)


@task(task_run_name="check-registered-model", cache_policy=NO_CACHE)
def check_registered_model(study: Study) -> float | None:
    """The study's metric of the winner loaded back from the registry, on test.

    None where no winner was trained, none could be registered, or the data are not at hand.

    Raises:
        StoreError: if it is not the value that the training measured.
    """
    training = study.current("train")
    if training is None:
        return None
    row = training["networks"][0]
    if not row["program_path"]:
        log.warning("no model was registered: the winner cannot be written down as a program")
        study.store.delete(REGISTERED)  # an earlier winner's
        return None
    try:
        build_workload(study.config.data).check()
    except DataError as error:
        log.warning("the registered model was not tested: %s", error)
        return None
    resolution = study.space.resolution_of(Genotype.parse(str(study.winner)))
    figures = checked_registered(study.store, study.config, row, resolution, study.space.in_channels)
    study.store.write_json(REGISTERED, figures)
    return next(iter(figures.values()))


def checked_registered(
    store: Store, config: StudyConfig | AnalyticConfig, row: Mapping[str, Any], resolution: int, in_channels: int
) -> dict[str, float]:
    """The metric of the registered model on test, and that of the trained network (its row), by name.

    Raises:
        StoreError: if they differ by more than arithmetic does.
    """
    workload = build_workload(config.data)
    own = trained_metric(config)
    trained = row["metrics"]["test"][own.name]
    with server_may_go_away():
        shape = workload.sample.shape_at(resolution, in_channels)
        loaded = tracking.registered_metric(store, workload, own, shape)
    if abs(loaded - trained) > _tolerance(own, trained, row["num_test_examples"]):
        raise StoreError("registered model", f"test {own.label} {loaded:.6g}", f"{trained:.6g}, as trained")
    return {f"test_{own.name}": loaded, f"trained_test_{own.name}": trained}


def _tolerance(metric: Metric, trained: float, num_examples: int) -> float:
    """What a metric may change by where a few examples flip."""
    if not metric.is_fraction:
        return SAME_NUMBER * max(abs(trained), NEARLY_0)
    share = max(SAME_SHARE, SAME_EXAMPLES / num_examples) + 1e-9
    return share if metric.counts_examples else max(share, SAME_RELATIVE * abs(trained))


@task(task_run_name="write-report", cache_policy=NO_CACHE)
def write_report(study: Study) -> str:
    """Write report.html, report.json and the figures; returns where the page is. Raises as ``make_way``."""
    if study.current("train") is not None:
        measure_as_given(study)
    files = report_files(summarise(study))
    kept = make_way(study)
    if kept:
        log.warning("the report before this one knows more, of another configuration: it is kept in %s", kept)
    for path, content in files.items():
        study.store.write_bytes(path, content)
    for path in set(study.store.paths(FIGURES)) - set(files):  # of the report before
        study.store.delete(path)
    return study.store.uri(REPORT)


@task(task_run_name="check-report", cache_policy=NO_CACHE)
def check_report(study: Study) -> None:
    """Raise as ``make_way`` before anything is logged anywhere."""
    make_way(study)


@task(task_run_name="attach-report", cache_policy=NO_CACHE)
def attach_report(study: Study) -> None:
    """Put the report and the figures beside the study's run in MLflow."""
    with server_may_go_away():
        tracking.log_files(study)
