"""What stages wrote is read back whole, or the stage is named that makes it again."""

import logging

import pytest

from nas_core.base.errors import StoreError
from nas_core.records.store import Store
from nas_core.study.outputs import damaged_from, read_output
from nas_core.study.stages import OUTPUTS, STAGES, json_outputs, record_path, stage_of
from nas_core.study.study import Study
from tests.conftest import config_of

SELECTED = {"inputs": "0", "status": "optimal", "limits": [], "selections": [], "solve_s": 0.1}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "study")
    store.write_json("selection.json", SELECTED)
    return store


def cut(store, path):
    data = store.read_bytes(path)
    store.write_bytes(path, data[: len(data) // 2])
    return store.read_bytes(path)


def test_every_json_has_the_stage_that_writes_it():
    assert {stage_of(record_path(stage)) for stage in STAGES} == set(STAGES)
    named = [(stage, path) for stage in STAGES for path in OUTPUTS[stage] if path.endswith(".json")]
    assert [stage_of(path) for _, path in named] == [stage for stage, _ in named]
    assert stage_of("tracking.json") is None
    assert json_outputs("select") == ("selection.json", "stages/select.json")


@pytest.mark.situations
def test_what_was_cut_short_names_the_stage_to_run(store):
    assert read_output(store, "selection.json") == SELECTED
    cut(store, "selection.json")
    with pytest.raises(
        StoreError, match=r"selection\.json: found a damaged file.*repeats stage select; `--from select`"
    ):
        read_output(store, "selection.json")
    store.write_json("stages/report.json", {"inputs": "0"})
    with pytest.raises(StoreError, match=r"found no key 'wall_s', .*repeats stage report; `--from report`"):
        read_output(store, "stages/report.json")
    store.write_bytes("tracking.json", b"{")
    with pytest.raises(StoreError, match="Delete the file and run again"):
        read_output(store, "tracking.json")


def test_what_is_damaged_is_found_in_the_stages_to_repeat_and_kept_aside(store, caplog):
    store.write_bytes("training.json", b"[]")
    store.write_json("stages/select.json", {})
    damaged = cut(store, "selection.json")
    store.write_bytes("verification.json", b"\xff")
    with caplog.at_level(logging.WARNING):
        assert "selection.json" not in damaged_from(store, "verify"), "the stage before is not repeated"
        for path in damaged_from(store, "select"):
            store.set_aside(path, "is damaged")
    assert store.quarantined() == [
        f"quarantine/{name}.json" for name in ("selection", "stages_select", "training", "verification")
    ]
    assert store.read_bytes("quarantine/selection.json") == damaged
    assert not store.exists("selection.json")
    assert "verification.json is damaged" in caplog.text
    store.write_json("selection.json", SELECTED)
    assert damaged_from(store, "profile") == []
    assert read_output(store, "selection.json") == SELECTED


@pytest.mark.parametrize("changed", [{"top": 6}, {"min_distance": 2}])
def test_how_many_networks_are_listed_matters_where_they_are_listed_and_shown(tmp_path, changed):
    given, other = ({"limits": ["flops<=70%"], **more} for more in ({}, changed))
    studies = [Study(config_of(select=select), Store(tmp_path)) for select in (given, other)]
    known = [{stage: study.inputs_of(stage) for stage in STAGES} for study in studies]
    assert {stage for stage in STAGES if known[0][stage] != known[1][stage]} == {"select", "report"}
