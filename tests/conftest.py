"""Fixtures shared by all tests: a tiny study, one Ray and one Prefect server per session."""

import os
import signal

import pytest

# before prefect and ray are imported: nothing of the user's own set-up is touched
for name in ("RAY_ADDRESS", "PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)
if "PYTEST_XDIST_WORKER" in os.environ:  # of several processes each has one core; torch's threads would wait in turns
    os.environ.setdefault("OMP_NUM_THREADS", "1")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with Ctrl-C ignored

import tasks.environment  # noqa: E402, F401 (before a test imports ray)
from nas_core.study.config import StudyConfig, parse_config  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _own_prefect_home(tmp_path_factory):
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
    os.environ["MATHNAS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"


@pytest.fixture(autouse=True)
def _no_server_of_another_test():
    """`mlflow.set_tracking_uri` sets the variable by which a user names a server."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


def config_of(**changes) -> StudyConfig:
    """The tiny study: 27 networks on scikit-learn's digits, with sections replaced."""
    recipe = {"epochs": 1, "batch_size": 64, "lr": 0.05, "augment": "none"}
    sections = {
        "name": "tiny",
        "space": {"kind": "tiny"},
        "data": {"kind": "digits", "train_examples": 256, "validation_examples": 128},
        "scorer": {"kind": "supernet", "recipe": recipe, "random_paths": 1, "calibration_examples": 64},
        "design": {"held_out": 3},
        "profile": {"resources": ["flops", "params"]},
        "select": {"limits": ["flops<=70%"], "top": 2},
        "verify": {"evaluations": 2, "per_round": 2},
        "train": {"recipe": recipe, "train_examples": 256, "compare_random": 0},
    }
    return parse_config({**sections, **changes}, "test")


@pytest.fixture
def macro_table(tmp_path):
    """A table of known results for all 6,561 networks of nasbench-macro: a smooth function of the choices."""
    import itertools

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(itertools.product(range(3), repeat=8))
    weights = [3.0, 1.0, 2.5, 1.5, 1.0, 2.0, 0.5, 1.0]
    metric = [90 + sum(w * c - 0.4 * c * c for w, c in zip(weights, row, strict=True)) / 10 for row in rows]
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"arch": ["".join(map(str, row)) for row in rows], "mean_acc": metric}), path)
    return path


@pytest.fixture
def tabular_config(macro_table) -> StudyConfig:
    """A study on the table: thousands of networks, no training."""
    return parse_config(
        {
            "name": "table",
            "scorer": {"kind": "tabular", "path": str(macro_table), "batch": 8},
            "design": {"base": "0-0-0-0-0-0-0-0", "held_out": 4},
            "profile": {"resources": ["flops", "params"]},
            "select": {"limits": ["params<=2 M"]},
            "verify": {"evaluations": 8, "per_round": 4},
        },
        "test",
    )


@pytest.fixture(scope="session")
def cluster():
    """One local Ray for the session; starting one takes seconds."""
    from nas_core.study.config import ClusterConfig
    from tasks.ray_pool import Cluster

    with Cluster(ClusterConfig()) as connected:
        yield connected


@pytest.fixture(scope="session")
def api():
    """One Prefect server for the session's flows; without it Prefect would start one and leave it behind.

    Its address stands in PREFECT_API_URL from then on: what is to have a server
    of its own, or none, is started with ``tests.command.process_environment``.
    """
    from flows.prefect_server import prefect_api

    with prefect_api():
        yield
