"""A study's own MLflow store keeps to its root, wherever that is moved or copied; real databases, no server."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from nas_core.records.store import Store
from nas_core.study.config import TrackingConfig
from tasks import tracking
from tasks.embedded_tracking import EMBEDDED, address, can_be_settled, settle
from tests.command import mathnas

pytestmark = pytest.mark.situations


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A store with an MLflow run that has a file."""
    store = Store(tmp_path_factory.mktemp("tracked") / "study")
    runs = tracking._Runs(store, TrackingConfig(), "mine", None, {})
    run = runs._run("study", "mine", {})
    store.write_bytes("selection.json", b"{}")
    runs.log_files(run, ["selection.json"])
    runs.finish(run)
    return store


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def logged_again(store):
    """One more file beside the same run; the names of what it has then."""
    runs = tracking._Runs(store, TrackingConfig(), "mine", store.read_json("tracking.json"), {})
    run = runs._run("study", "mine", {})
    store.write_bytes("report.html", b"more")
    runs.log_files(run, ["report.html"])
    runs.finish(run)
    return {item.path for item in runs.client.list_artifacts(run)}


def places(store):
    """Every place of artifacts in the database."""
    with sqlite3.connect(store.uri("mlflow.db")) as database:
        found = [row[0] for row in database.execute("SELECT artifact_location FROM experiments")]
        found += [row[0] for row in database.execute("SELECT artifact_uri FROM runs")]
    database.close()
    return found


def test_the_study_names_its_store_by_its_root(original):
    ids = original.read_json("tracking.json")
    assert ids["uri"] == EMBEDDED
    assert address(original, ids) == f"sqlite:///{original.root}/mlflow.db"
    assert all(place.startswith(f"file://{original.root}/mlartifacts") for place in places(original))


def test_a_copy_logs_into_itself_and_leaves_the_original_alone(original, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = Store(shutil.copytree(original.root, tmp_path / "copy"))
    before = files(original.root)
    assert logged_again(copy) == {"selection.json", "report.html"}
    assert files(original.root) == before
    assert len(copy.read_json("tracking.json")["runs"]) == 1, "the same run goes on"
    assert list(tmp_path.iterdir()) == [tmp_path / "copy"], "nothing is written beside it"
    assert all(place.startswith(f"file://{copy.root}/mlartifacts") for place in places(copy))


def test_a_moved_study_does_not_come_back_at_its_old_place(original, tmp_path):
    first = shutil.copytree(original.root, tmp_path / "first")
    logged_again(Store(first))
    moved = Store(first.rename(tmp_path / "second"))
    assert logged_again(moved) == {"selection.json", "report.html"}
    assert not first.exists()


def test_a_place_that_begins_alike_is_left_alone(original, tmp_path):
    """``study`` and ``study-2`` share their first letters, and no folder."""
    copy = Store(shutil.copytree(original.root, tmp_path / "copy"))
    other = f"file://{original.root}/mlartifacts-2/1"
    database = sqlite3.connect(copy.uri("mlflow.db"))
    database.execute("UPDATE runs SET artifact_uri = ?", (other,))
    database.commit()
    assert settle(copy)
    assert database.execute("SELECT artifact_uri FROM runs").fetchall() == [(other,)]
    database.close()
    assert not settle(copy), "once is enough"


def test_what_an_earlier_version_wrote_goes_on_in_the_same_run(original, tmp_path):
    copy = Store(shutil.copytree(original.root, tmp_path / "copy"))
    ids = copy.read_json("tracking.json")
    copy.write_json("tracking.json", {**ids, "uri": f"sqlite:///{original.root}/mlflow.db"})
    assert address(copy, copy.read_json("tracking.json")) == f"sqlite:///{copy.root}/mlflow.db"
    logged_again(copy)
    assert copy.read_json("tracking.json")["runs"] == ids["runs"]
    assert copy.read_json("tracking.json")["uri"] == EMBEDDED


def test_a_link_to_a_study_is_the_study(original, tmp_path):
    copy = Store(shutil.copytree(original.root, tmp_path / "copy"))
    settle(copy)
    (tmp_path / "link").symlink_to(copy.root)
    assert not settle(Store(tmp_path / "link"))


def test_a_copy_that_may_only_be_read_is_left_as_it_is(original, tmp_path, monkeypatch):
    """On a read-only mount nothing is asked for, not even by who may write everywhere."""
    copy = Store(shutil.copytree(original.root, tmp_path / "copy"))
    assert can_be_settled(copy)
    assert not can_be_settled(Store(tmp_path / "without a database"))
    copy.write_bytes("design.yaml", b"name: mine\n")
    before = files(copy.root)
    monkeypatch.setattr("flows.cli._print_design_status", lambda *_: None)
    with monkeypatch.context() as mounted:
        mounted.setattr(os, "access", lambda path, mode: mode != os.W_OK)
        assert mathnas("status", copy.root).stderr == ""
    assert files(copy.root) == before
    assert "were set to where the study is now" in mathnas("status", copy.root).stderr


def test_that_runs_are_not_where_they_would_be_logged_now_is_said(original, monkeypatch):
    ids = original.read_json("tracking.json")
    assert tracking.logged_elsewhere(original, ids) == ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    said = tracking.logged_elsewhere(original, ids)
    assert said.startswith(f"it was logged to sqlite:///{original.root}/mlflow.db and not to http://127.0.0.1:5000:")
    assert tracking.logged_elsewhere(original, {"uri": "http://127.0.0.1:5000"}) == ""


def test_other_settings_are_another_run_and_earlier_ones_the_run_that_was_of_them(original, tmp_path):
    """Parameters cannot change: those of an earlier run would stand beside figures that they did not lead to."""
    copy = Store(shutil.copytree(original.root, tmp_path / "copy"))
    found = {}
    for limit in ("70 %", "40 %", "70 %", "55 %", "40 %"):
        runs = tracking._Runs(copy, TrackingConfig(), "mine", copy.read_json("tracking.json"), {})
        runs._settle_on("study", {"limit": limit})
        run = runs._run("study", "mine", {})
        runs._log_params(run, {"limit": limit, "seed": 0})
        runs.finish(run)
        assert runs.client.get_run(run).data.params == {"limit": limit, "seed": "0"}
        assert found.setdefault(limit, run) == run
    assert len(set(found.values())) == 3
    assert found["70 %"] == original.read_json("tracking.json")["runs"]["study"], "a run without any goes on"
