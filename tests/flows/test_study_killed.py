"""A driver killed at any moment and run again: the same evaluations, none twice, the same selection.

`tests/faults/test_faults.py` holds the same quickly, at two moments that it waits for.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import yaml

from nas_core.study.study import Study
from tests.command import process_environment

KILLS = 3


def command(config, root):
    return [sys.executable, "-m", "flows.cli", "run", str(config), "--root", str(root), "--until", "verify"]


def outcome(root):
    """What must not depend on interruptions."""
    study = Study.open(str(root))
    metrics = {row.genotype: row.metric for row in study.evaluations()}
    answer = study.output("selection.json")
    selections = [(row["genotype"], row["predicted"]) for row in answer["selections"]]
    verified = study.output("verification.json")
    return metrics, selections, verified["winner"], [row["proposed"] for row in verified["rounds"]]


def num_rows(root):
    """Rows in all parts, repeated ones counted."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(path).num_rows for path in root.glob("evaluations/*/*/[!.]*.parquet"))


@pytest.mark.slow
def test_a_killed_study_ends_as_an_unbroken_one(api, tabular_config, tmp_path):
    """Every run starts a Ray of its own, which dies with it; Prefect's server is the session's."""
    environment = process_environment(PREFECT_API_URL=os.environ["PREFECT_API_URL"])
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump(json.loads(tabular_config.model_dump_json())))
    began = time.monotonic()
    run = partial(subprocess.run, check=True, capture_output=True, timeout=300, env=environment)
    run(command(config, tmp_path / "unbroken"))
    whole_s = time.monotonic() - began
    moments = random.Random(0)
    for _ in range(KILLS):
        process = subprocess.Popen(
            command(config, tmp_path / "broken"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        time.sleep(moments.uniform(0.2, 1.0) * whole_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    run(command(config, tmp_path / "broken"))
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "unbroken")
    assert num_rows(tmp_path / "broken") == num_rows(tmp_path / "unbroken")
