"""What every stage does around its work: one driver at a time, and `status` says what is running."""

import pytest

from flows.stage import stage_run
from nas_core.records.lease import hold
from nas_core.records.store import Store
from nas_core.study.study import Study
from tests.flows.test_cli import mathnas, refused


def test_a_stage_under_way_is_said_to_run(api, tabular_config, tmp_path):
    root = str(tmp_path / "study")
    with stage_run(tabular_config, root, "select"):
        assert Study.open(root).status()["select"].state == "running"
        assert "select   running" in mathnas("status", root).stdout
    assert Study.open(root).status()["select"].state != "running"


def test_a_second_driver_is_refused_before_it_changes_anything(tabular_config, tmp_path):
    root = str(tmp_path / "study")
    with hold(Store(root)):
        Study.create(tabular_config, root)
        before = Study.open(root).store.read_bytes("study.yaml")
        config = tmp_path / "other.yaml"
        config.write_text("name: other\nspace: {name: tiny}\n")
        message = refused("run", config, "--root", root)
        assert "process" in message
        assert "--wait" in message
        assert Study.open(root).store.read_bytes("study.yaml") == before


def test_a_stage_that_fails_gives_the_study_back(api, tabular_config, tmp_path):
    root = str(tmp_path / "study")
    with pytest.raises(ZeroDivisionError), stage_run(tabular_config, root, "select"):
        _ = 1 / 0
    assert not Store(root).exists("lease.json")
