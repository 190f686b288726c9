"""A study reads its store when it is first asked, and then what is new; it travels by its configuration and root."""

import pickle
from dataclasses import replace

import pytest

from nas_core.base.errors import SpaceError, StoreError
from nas_core.records.lease import hold
from nas_core.records.store import Store
from nas_core.study.stages import record_path
from nas_core.study.study import Study
from tests.nas_core.scoring.studies import RECIPE, SUPERNET
from tests.nas_core.scoring.studies import study as digits_study
from tests.nas_core.study.test_rounds import scored, with_select


@pytest.fixture
def study(tabular_config, tmp_path) -> Study:
    return scored(tabular_config, tmp_path / "study")[0]


def test_what_another_process_stored_is_seen_after_a_refresh(study):
    before = study.snapshot
    row = replace(study.evaluations()[0], genotype="2-2-2-2-2-2-2-2")
    Study.open(study.store.root).store.add_evaluations([row])
    assert study.snapshot is before
    study.refresh()
    assert study.snapshot.evaluations == tuple(sorted((*before.evaluations, row), key=lambda row: row.key))
    assert study.snapshot.design is before.design


def test_a_refresh_that_finds_nothing_changes_nothing(study):
    before = study.snapshot
    study.refresh()
    assert study.snapshot is before


def test_evaluations_that_are_gone_are_missed(study):
    part = study.store.paths("evaluations")[0]
    study.store.write_bytes(part, study.store.read_bytes(part)[:-9])
    again = Study.open(study.store.root)
    assert again.status()["score"].state == "missing"
    assert again.store.quarantined()


def test_a_network_is_written_in_several_ways(study):
    genotype, text = study.space.parse("2-2-2-2-2-2-2-2"), "2-2-2-2-2-2-2-2"
    one, other, third = study.predict([genotype, text, (2,) * 8])
    assert one == other == third
    with pytest.raises(SpaceError, match="7 choices"):
        study.predict([(2,) * 7])


def test_finalists_that_failed_are_rated_again_when_asked(tmp_path):
    """What was selected from stays; what was chosen without them does not."""
    study = Study.create(digits_study({**SUPERNET, "final_recipe": RECIPE}), str(tmp_path))
    for stage in ("select", "verify"):
        study.outputs.write(record_path(stage), {})
    study.store.add_evaluations([study.scorer.final.rows.failed("1-2-1", "its worker died", 0.0)])
    assert [row.status for row in study.final_evaluations()] == ["failed"]
    assert study.forget_failures() == 1
    assert study.final_evaluations() == []
    assert [study.store.exists(record_path(stage)) for stage in ("select", "verify")] == [True, False]
    assert study.forget_failures() == 0


def test_a_study_travels_by_its_configuration_and_root(study):
    there = pickle.loads(pickle.dumps(study))
    assert there.config == study.config
    assert there.evaluations() == study.evaluations()


def test_only_what_is_done_as_configured_is_finished(study):
    assert study.is_finished("score")
    assert not study.is_finished("select")
    other = Study(with_select(study.config, limits=["flops<=40%"]), study.store)
    assert not other.is_finished("score")


def test_while_a_driver_is_at_work_nothing_is_finished(study):
    with hold(Store(study.store.root)):
        assert not study.is_finished("score")
    assert study.is_finished("score")


def test_a_root_without_a_study_is_said(tmp_path):
    Store(tmp_path)
    with pytest.raises(StoreError, match=r"no study.yaml"):
        Study.open(str(tmp_path))
