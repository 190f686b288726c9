"""What orchestration costs: N no-op evaluations through the `score` flow, against N bare Ray tasks.

    python -m tests.benchmarks.overhead --evaluations 1000 [--nodes 3] [--json]

A no-op evaluation is a look-up in a table that is made up here. Both ways run
on the same Ray cluster, started before the clocks; so is the Prefect server.
Starting them is reported apart (``start_s``). ``study_ms`` is everything else:
the design, the flow's and its tasks' bookkeeping, workers that start and read
the table, whole Parquet parts, progress. ``prefect_db_mb`` is what one study's
``score`` adds to Prefect's database, ``mlflow_db_mb`` what its report adds to
MLflow's; both are SQLite files made for this run.
"""

import argparse
import itertools
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flows.prefect_server import prefect_api
from tests.benchmarks.conditions import conditions

CHOICES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=1, help="Ray nodes on this machine (ray.cluster_utils)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        os.environ["PREFECT_HOME"] = folder
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        figures = measure(Path(folder), arguments.evaluations, arguments.nodes, arguments.repeats)
    if not arguments.json:
        for name, value in figures.items():
            print(f"{name}: {value}")
    print(json.dumps(figures))


def measure(folder: Path, evaluations: int, nodes: int, repeats: int) -> dict[str, object]:
    """Median milliseconds per evaluation both ways, seconds to start, and the driver's peak memory."""
    started = time.perf_counter()
    with prefect_api(), ray_cluster(nodes) as cluster:
        import ray

        from flows.reporting import report
        from flows.study import run_study
        from nas_core.study.study import Study

        start_s = time.perf_counter() - started
        config = study_config(folder, evaluations)
        bare, studied, prefect_mb, mlflow_mb = [], [], [], []
        for repeat in range(repeats):
            bare.append(bare_ray_s(ray, evaluations))
            root = str(folder / f"study-{repeat}")
            run_study(config, root, until="profile")
            before_mb, began = database_mb(folder / "prefect.db"), time.perf_counter()
            run_study(config, root, until="score")
            studied.append(time.perf_counter() - began)
            prefect_mb.append(database_mb(folder / "prefect.db") - before_mb)
            stored = len(Study.open(root).evaluations())
            assert stored == evaluations, f"{stored} evaluations stored, {evaluations} wanted"
        driver_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        for repeat in range(repeats):
            before_mb = database_mb(folder / "mlflow.db")
            report(config, str(folder / f"study-{repeat}"))
            mlflow_mb.append(database_mb(folder / "mlflow.db") - before_mb)
        totals = cluster.totals
    per = 1000 / evaluations
    bare_ms, study_ms = sorted(bare)[repeats // 2] * per, sorted(studied)[repeats // 2] * per
    return {
        "evaluations": evaluations,
        "bare_ray_ms": round(bare_ms, 3),
        "study_ms": round(study_ms, 3),
        "overhead_ms": round(study_ms - bare_ms, 3),
        "driver_peak_mb": round(driver_mb, 1),
        "prefect_db_mb": round(sorted(prefect_mb)[repeats // 2], 2),
        "mlflow_db_mb": round(sorted(mlflow_mb)[repeats // 2], 2),
        "start_s": round(start_s, 1),
        "nodes": nodes,
        "ray_cpus": totals.get("CPU", 0),
        "repeats": repeats,
        "conditions": conditions(),
    }


def database_mb(path: Path) -> float:
    """Size of an SQLite database with what waits in its log; 0 where there is none."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*")) / 1e6


class ray_cluster:  # noqa: N801  (used as a context manager)
    """The product's own connection; with several nodes, a cluster of them on this machine behind it."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes

    def __enter__(self):
        from nas_core.study.config import ClusterConfig
        from tasks.ray_pool import Cluster

        self.several = None
        if self.nodes > 1:
            from ray.cluster_utils import Cluster as SeveralNodes

            self.several = SeveralNodes(initialize_head=True, head_node_args={"num_cpus": 1})
            for _ in range(self.nodes - 1):
                self.several.add_node(num_cpus=1)
            os.environ["RAY_ADDRESS"] = self.several.address
        self.connection = Cluster(ClusterConfig()).__enter__()
        return self.connection

    def __exit__(self, *error):
        self.connection.__exit__(*error)
        if self.several is not None:
            self.several.shutdown()


def bare_ray_s(ray, evaluations: int) -> float:
    """Seconds for as many no-op Ray tasks."""

    @ray.remote
    def no_op(number):
        return number

    ray.get([no_op.remote(number) for number in range(8)])  # the workers are there
    began = time.perf_counter()
    ray.get([no_op.remote(number) for number in range(evaluations)])
    return time.perf_counter() - began


def study_config(folder: Path, evaluations: int):
    """A study whose design is ``evaluations`` networks of a made-up table."""
    from nas_core.study.config import parse_config

    num_positions = 8
    while CHOICES**num_positions < 3 * evaluations:
        num_positions += 1
    rows = list(itertools.product(range(CHOICES), repeat=num_positions))
    table = {"arch": ["".join(map(str, row)) for row in rows], "mean_acc": [float(sum(row)) for row in rows]}
    pq.write_table(pa.table(table), folder / "table.parquet")
    blocks = [{"kind": "conv", "kernel": 1 + 2 * choice} for choice in range(CHOICES)]
    space = {
        "name": "made-up",
        "in_channels": 3,
        "num_classes": 10,
        "resolutions": [8],
        "stem": {"kind": "conv", "out_channels": 8},
        "head": {"kind": "pool-linear"},
        "positions": [{"name": f"p{p}", "out_channels": 8, "blocks": blocks} for p in range(num_positions)],
    }
    (folder / "space.yaml").write_text(json.dumps(space))
    one_swaps = 1 + num_positions * (CHOICES - 1)
    return parse_config(
        {
            "name": "overhead",
            "space": {"file": str(folder / "space.yaml")},
            "scorer": {"kind": "tabular", "path": str(folder / "table.parquet")},
            "design": {"held_out": evaluations - one_swaps},
            "profile": {"resources": ["flops"]},
        },
        "overhead",
    )


if __name__ == "__main__":
    main()
