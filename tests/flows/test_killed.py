"""A driver killed at any moment and run again: the same evaluations, none twice, the same selection."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import httpx
import pytest
import yaml

from flows.prefect_server import _free_port
from flows.study import FLOWS
from nas_core.study.study import Study

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


def test_a_killed_study_ends_as_an_unbroken_one(tabular_config, tmp_path):
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump(json.loads(tabular_config.model_dump_json())))
    began = time.monotonic()
    subprocess.run(command(config, tmp_path / "unbroken"), check=True, capture_output=True, timeout=300)
    whole_s = time.monotonic() - began
    moments = random.Random(0)
    for _ in range(KILLS):
        process = subprocess.Popen(
            command(config, tmp_path / "broken"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(0.2, 1.0) * whole_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command(config, tmp_path / "broken"), check=True, capture_output=True, timeout=300)
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "unbroken")
    assert num_rows(tmp_path / "broken") == num_rows(tmp_path / "unbroken")


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_served_page_ends_without_a_traceback_when_the_whole_group_is_told(tmp_path, signal_number):
    """As Ctrl-C in a terminal does: the server must outlive the runner that takes its leave of it."""
    port = _free_port()
    page = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "serve", "--root", str(tmp_path), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert "Prefect's page" in page.stdout.readline()
    deadline = time.monotonic() + 120
    while httpx.post(f"http://127.0.0.1:{port}/api/deployments/count", json={}).json() < 2 + len(FLOWS):
        assert time.monotonic() < deadline, "nothing is served"
        time.sleep(0.2)
    os.killpg(page.pid, signal_number)
    printed, _ = page.communicate(timeout=120)
    assert page.returncode in (0, 130, 143), printed  # 0 where its runner was told, else ours
    assert "Traceback" not in printed
    assert "Warning" not in printed
