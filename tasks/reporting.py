"""Write the report, and log the study to MLflow."""

import contextlib
from collections.abc import Iterator
from typing import Any

from prefect import task

from nas_core.base.errors import ClusterError, StoreError
from nas_core.records.store import Store
from nas_core.report import report_files
from nas_core.report.collect import summarise
from nas_core.space.genotypes import Genotype
from nas_core.study.config import StudyConfig
from nas_core.study.stages import REGISTERED, REPORT
from nas_core.study.study import Study
from tasks import tracking

SAME_ACCURACY, SAME_IMAGES = 0.002, 2  # a few images may flip between a GPU's arithmetic and the CPU's
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


@task(task_run_name="track")
def track(config: StudyConfig, root: str) -> dict[str, Any]:
    """Log runs, tables and models to MLflow; returns the run ids."""
    with server_may_go_away():
        return tracking.log_study(Study(config, Store(root)))


@task(task_run_name="check-registered-model")
def check_registered_model(config: StudyConfig, root: str) -> float | None:
    """Test accuracy of the winner loaded back from the registry; None where no winner was trained.

    Raises:
        StoreError: if it is not the accuracy that the training measured.
    """
    study = Study(config, Store(root))
    training = study.current("train")
    if training is None:
        return None
    row = training["networks"][0]
    trained = row["test_accuracy"]
    with server_may_go_away():
        resolution = study.space.resolution_of(Genotype.parse(str(study.winner)))
        loaded = tracking.registered_accuracy(study.store, config.data, resolution, study.space.in_channels)
    check_same_accuracy(loaded, trained, row["num_test_examples"])
    study.store.write_json(REGISTERED, {"test_accuracy": loaded, "trained_test_accuracy": trained})
    return loaded


def check_same_accuracy(loaded: float, trained: float, num_images: int) -> None:
    """Raises StoreError if the registered model is not as good as the trained one was."""
    if abs(loaded - trained) > max(SAME_ACCURACY, SAME_IMAGES / num_images) + 1e-9:
        raise StoreError("registered model", f"test accuracy {loaded:.4f}", f"{trained:.4f}, as trained")


@task(task_run_name="write-report")
def write_report(config: StudyConfig, root: str) -> str:
    """Write report.html, report.json and the figures; returns where the page is."""
    study = Study(config, Store(root))
    for path, content in report_files(summarise(study)).items():
        study.store.write_bytes(path, content)
    return study.store.uri(REPORT)


@task(task_run_name="attach-report")
def attach_report(config: StudyConfig, root: str) -> None:
    """Put the report and the figures beside the study's run in MLflow."""
    with server_may_go_away():
        tracking.log_files(Study(config, Store(root)))
