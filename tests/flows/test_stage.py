"""What every stage does around its work: one driver at a time, and `status` says what is running."""

import pytest

from flows.stage import StageRun, stage_run
from nas_core.records.lease import hold
from nas_core.records.store import Store
from nas_core.space.genotypes import Genotype
from nas_core.study.study import Study
from tests.command import mathnas, mathnas_process, refused


def test_a_stage_under_way_is_said_to_run(api, tabular_config, tmp_path):
    root = str(tmp_path / "study")
    with stage_run(tabular_config, root, "select"):
        assert Study.open(root).status()["select"].state == "running"
        assert "select   running" in mathnas("status", root).stdout
    assert Study.open(root).status()["select"].state != "running"


def test_what_failed_is_counted_among_what_a_stage_had_rated(tabular_config, tmp_path):
    study = Study.create(tabular_config, str(tmp_path))
    known, failed, again = (Genotype((0,) * 7 + (choice,)) for choice in range(3))
    rows = study.scorer.evaluate([known, failed, again])
    study.store.add_evaluations([rows[0], study.scorer.rows.failed(str(failed), "out of memory", 0.0), rows[2]])
    run = StageRun(study)
    run.count([str(known), str(failed)], num_new=2)
    run.count([str(again)], num_new=0)  # a second round
    assert (run.num_new, run.num_reused, run.num_failed) == (2, 1, 1)


def test_a_second_driver_is_refused_before_it_changes_anything(tabular_config, tmp_path):
    root = str(tmp_path / "study")
    with hold(Store(root)):
        Study.create(tabular_config, root)
        before = Study.open(root).store.read_bytes("study.yaml")
        config = tmp_path / "other.yaml"
        config.write_text("name: other\nspace: {name: tiny}\n")
        message = refused("run", config, "--root", root, call=mathnas_process)
        assert "process" in message
        assert "--wait" in message
        assert Study.open(root).store.read_bytes("study.yaml") == before


def test_a_stage_that_fails_gives_the_study_back(api, tabular_config, tmp_path):
    root = str(tmp_path / "study")
    with pytest.raises(ZeroDivisionError), stage_run(tabular_config, root, "select"):
        _ = 1 / 0
    assert not Store(root).exists("lease.json")
