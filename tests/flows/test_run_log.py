"""The run's log on Prefect's page tells the study: stages, counts, choices, warnings, the winner."""

import os

import httpx
import pytest

from flows.run_log import _profiled
from nas_core.study.config import parse_config
from nas_core.study.study import Study
from tasks.worker import profile_job, study_job
from tests.nas_core.study.test_rounds import with_select

pytestmark = pytest.mark.situations


def messages(name):
    """What the log of the newest run of this name says, with the levels."""
    api = os.environ["PREFECT_API_URL"]
    asked = {"flow_runs": {"name": {"any_": [name]}}, "sort": "EXPECTED_START_TIME_DESC"}
    run = httpx.post(f"{api}/flow_runs/filter", json=asked).json()[0]
    asked = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "sort": "TIMESTAMP_ASC"}
    return [(row["level"], row["message"]) for row in httpx.post(f"{api}/logs/filter", json=asked).json()]


def test_the_studys_log_tells_what_was_done_and_chosen(api, cluster, tabular_config, tmp_path):
    from prefect.logging.handlers import APILogHandler

    from flows.study import run_study

    config = with_select(tabular_config.model_copy(update={"name": "told"}), top=2)
    root = str(tmp_path / "study")
    run_study(config, root, until="verify")
    APILogHandler().flush()
    text = "\n".join(message for _, message in messages("study-told"))
    study = Study.open(root)
    rows = study.evaluations()
    record = study.records()["score"]
    assert f"stage score: {record['num_new']} new, 0 reused, 0 failed" in text
    assert "profile: parameters of " in text
    assert "on any" not in text
    assert f"select: limits: {config.select.limits[0]}" in text
    assert "select: 1. " in text
    assert "select: 2. " in text
    assert "verify: round 1: " in text
    best = max(row.metric for row in rows if row.genotype == study.winner)
    assert f"verify: winner {study.winner}, evaluated {best:.4f}" in text
    again = "\n".join(message for _, message in messages("score-told"))
    assert f"stage score: {record['num_new']} new" in again  # and that of the stage's own run


def test_failures_are_warnings_of_the_log(api, cluster, tabular_config, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from prefect.logging.handlers import APILogHandler

    from flows.study import run_study

    table = pq.read_table(tabular_config.scorer.path).to_pydict()
    kept = [number for number, arch in enumerate(table["arch"]) if not arch.endswith("2")]
    rows = {key: [values[number] for number in kept] for key, values in table.items()}
    pq.write_table(pa.table(rows), tabular_config.scorer.path)
    config = tabular_config.model_copy(update={"name": "failing"})
    run_study(config, str(tmp_path / "study"), until="score")
    APILogHandler().flush()
    warnings = [message for level, message in messages("study-failing") if level == 30]
    assert any("networks failed: " in message for message in warnings), warnings


def test_nothing_is_said_of_a_resource_that_no_choice_costs(tmp_path):
    """As multiply-adds of plain choices."""
    space = {"kind": "choices", "positions": {"a": [1, 2, 3], "b": [1, 2]}}
    study = Study.create(parse_config({"name": "plain", "space": space}, "test"), str(tmp_path))
    profile_job(study_job(study), list(study.profiler_ids), [], lambda *_: None)
    study.refresh()
    assert study.costs("flops")
    assert [line for line in _profiled(study) if "multiply-adds" in line] == []
