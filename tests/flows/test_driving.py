"""One driver: the study is checked, opened and read once, whichever flow asks for it."""

import pytest
from prefect.exceptions import ParameterTypeError

from flows.designing import design
from flows.driving import drive
from flows.stage import stage_run
from flows.study import run_study
from nas_core.base.errors import ConfigError, InfeasibleError
from nas_core.records.lease import driver
from nas_core.records.store import Store
from nas_core.study.study import Study
from tests.benchmarks.reads import Watched
from tests.flows.test_study import failed_rows
from tests.nas_core.study.test_rounds import scored, with_select


def test_whoever_drives_inside_gets_the_same_study(tabular_config, tmp_path):
    root = str(tmp_path / "study")
    with drive(tabular_config, root, until="verify") as outer:
        with drive(tabular_config.model_copy(), root) as inner:
            assert inner is outer
        with drive(with_select(tabular_config, top=4), root) as other:
            assert other is not outer
            assert other.store is outer.store
            assert Study.open(root).config.select.top == 4
        with drive(tabular_config, root) as inner:
            assert inner is outer
        assert driver(Store(root)) is not None
    assert driver(Store(root)) is None


def test_a_root_is_the_same_study_however_it_is_written(tabular_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with drive(tabular_config, "study") as outer:
        assert outer.store.root == str(tmp_path / "study")  # as workers find it, which run elsewhere
        with drive(tabular_config, str(tmp_path / "study")) as inner:
            assert inner is outer


def test_what_another_process_stored_is_seen_at_the_next_stage(api, tabular_config, tmp_path):
    root = str(tmp_path / "study")
    with drive(tabular_config, root) as study:
        assert study.evaluations() == []
        Store(root).add_evaluations(failed_rows(study, ["0-0-0-0-0-0-0-0"]))
        with stage_run(tabular_config, root, "select") as run:
            assert run.study is study
            assert len(study.evaluations()) == 1


def test_a_mistake_is_said_before_anything_is_written(tabular_config, tmp_path):
    root = tmp_path / "study"
    wrong = with_select(tabular_config, limits=["latency_ms<=3 ms"])
    with pytest.raises(ConfigError, match=r"latency_ms"), drive(wrong, str(root), until="verify"):
        pass
    assert not Store(root).paths()


def test_an_impossible_limit_leaves_a_study_whose_costs_are_known_as_it_is(tabular_config, tmp_path):
    study, _ = scored(tabular_config, tmp_path / "study")
    study.write_config()
    before = study.store.read_bytes("study.yaml")
    wrong = with_select(tabular_config, limits=["params<=1"])
    with (
        pytest.raises(InfeasibleError, match="attainable: least params"),
        drive(wrong, study.store.root, until="verify"),
    ):
        pass
    assert study.store.read_bytes("study.yaml") == before


def test_a_run_reads_every_part_once_and_fits_once_a_round(api, cluster, tabular_config, tmp_path):
    from flows.study import run_study

    root = str(tmp_path / "study")
    with Watched() as watched:
        run_study(tabular_config, root, until="verify")
    reads = [path for kind, path in watched.events if kind == "read"]
    assert sorted(reads) == Store(root).paths("evaluations")
    assert watched.count("open") == watched.count("preflight") == 1
    assert len(watched.rounds()) == 2
    assert all([kind for kind, _ in events].count("fit") <= 1 for events in watched.rounds())
    with Watched() as again:
        run_study(tabular_config, root, until="verify")
    assert again.count("fit") == 0
    assert again.count("read") == len(reads)


@pytest.mark.parametrize("flow", [run_study, design], ids=lambda flow: flow.name)
def test_nobody_waits_for_less_than_no_time(flow):
    """What the form asks."""
    assert flow.parameters.properties["wait_s"]["minimum"] == 0
    with pytest.raises(ParameterTypeError, match=r"wait_s:\s.*greater than or equal to 0"):
        flow.validate_parameters({"config": {}, "root": "there", "wait_s": -5})
