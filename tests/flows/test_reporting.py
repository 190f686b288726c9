"""The report of a whole study of a user's own: its numbers; and the study moved, copied, edited."""

import importlib.metadata
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

import nas_core
from nas_core import Study, read_config
from nas_core.base.errors import StoreError
from nas_core.records.lease import hold
from nas_core.records.store import Store
from nas_core.space.genotypes import Genotype
from nas_core.study.rounds import finalists
from nas_core.study.stages import STAGES
from tasks.tracking import client as client_of
from tests.command import mathnas
from tests.conftest import config_of
from tests.own_study import ALL_IMAGES, EDITED, SPACE, written
from tests.page_numbers import Page, numbers, only, stored

pytestmark = pytest.mark.situations
LATENCY = {"resources": ["flops", "params", "latency_ms"], "networks": 4,
           "profilers": {"latency": {"repeats": 5, "warmup": 1}}}  # fmt: skip


@pytest.fixture(scope="module")
def own(api, cluster, tmp_path_factory):
    """study.yaml, space.yaml and images, and in ``study`` the study, run to its end; the space is edited meanwhile."""
    from flows.study import FLOWS, run_study

    folder = tmp_path_factory.mktemp("own")
    path = written(folder, ALL_IMAGES, profile=LATENCY)
    config, root = read_config(path), str(folder / "study")
    score = FLOWS["score"]

    def edited_then_scored(*given):
        (folder / "space.yaml").write_text(EDITED)
        return score(*given)

    with pytest.MonkeyPatch.context() as during:
        during.setitem(FLOWS, "score", edited_then_scored)
        run_study(config, root)
    (folder / "space.yaml").write_text(SPACE)
    return folder


@pytest.fixture(scope="module")
def study(own):
    return Study.open(str(own / "study"))


@pytest.fixture(scope="module")
def page(study):
    return Page(study.store.read_bytes("report.html").decode())


def test_of_no_study_there_is_no_report(tmp_path):
    """A form's root may be wrong."""
    from flows.reporting import report

    for root, found in ((tmp_path / "none", "no such folder"), (tmp_path, "no study.yaml")):
        with pytest.raises(StoreError, match=f"{root}: found {found}"):
            report.fn(config_of(), str(root))
    assert not any(tmp_path.iterdir())


def test_a_file_that_is_edited_during_a_run_changes_nothing_of_it(study):
    assert {stage: row.state for stage, row in study.status().items()} == dict.fromkeys(STAGES, "done")
    assert {row.space_id for row in study.evaluations()} == {study.space.space_id}
    assert not study.notices()


# every number of the page


def test_every_number_of_the_page_is_one_of_the_store(study, page):
    known, report = stored(study), study.output("report.json")
    texts = [*page.texts, *[cell for rows in page.tables.values() for table in rows for row in table for cell in row]]
    versions = ", ".join(f"{name} {version}" for name, version in report["provenance"]["versions"].items())
    made = report["provenance"]["created"]
    named = {versions, made, f"· made on {made[:16].replace('T', ' ')} UTC by mathnas {nas_core.__version__}"}
    assert named <= set(texts)
    assert all(importlib.metadata.version(name) in versions for name in ("torch", "ortools", "numpy"))
    shown = [(number, text) for text in texts if text not in named for number in numbers(text)]
    assert len(shown) > 150
    assert [(number.text, text) for number, text in shown if not any(map(number.is_of, known))] == []


def test_no_column_is_without_a_value(page):
    for tables in page.tables.values():
        for head, *rows in tables:
            for column, name in enumerate(head):
                assert any(row[column] not in ("–", "") for row in rows), (name, rows)


def test_the_evaluated_networks(study, page):
    frame = study.evaluations_frame().set_index("genotype")
    rounds = study.current("verify")["rounds"]
    before = {g: p for row in rounds for g, p in zip(row["proposed"], row["predicted"], strict=True)}
    rows = page.table("cost", "genotype")
    assert {row["genotype"] for row in rows} == set(frame.index)
    for row in rows:
        known, genotype = frame.loc[row["genotype"]], row["genotype"]
        assert row["evaluated for"] == known["role"]
        assert only(row["evaluated"]).is_of(known["metric"])
        (now,) = study.predict([genotype])
        assert only(row["predicted"]).is_of(before.get(genotype, now.metric))
        for name, column in (("multiply-adds", "flops"), ("parameters", "params"), ("latency", "latency_ms")):
            assert only(row[name]).is_of(known[column])


def test_the_compared_networks(study, page):
    trained = {row["genotype"]: row for row in study.current("train")["networks"]}
    base = study.costs_of(study.base)
    rows = [row for row in page.table("comparison", "network") if row["network"] != "limits"]
    assert {row["genotype"] for row in rows} == set(trained)
    for row in rows:
        known = trained[row["genotype"]]
        assert only(row["test accuracy"]).is_of(known["metrics"]["test"]["accuracy"])
        assert only(row["validation accuracy"]).is_of(known["metrics"]["validation"]["accuracy"])
        amount, *share = numbers(row["multiply-adds"])
        assert amount.is_of(known["costs"]["flops"])
        assert all(each.is_of(known["costs"]["flops"] / base["flops"]) for each in share)


def test_the_best_predicted_networks(study, page):
    rows, answer = page.table("selection", "rank"), study.last_answer()
    assert [row["genotype"] for row in rows] == [row["genotype"] for row in answer["selections"]]
    for row, known in zip(rows, answer["selections"], strict=True):
        shown = numbers(row["predicted (interval)"])
        assert all(n.is_of(v) for n, v in zip(shown, (known["predicted"], *known["interval"]), strict=True))


def test_the_blocks_of_the_chosen_network(study, page):
    effects = study.effects_frame().set_index(["position", "choice"])["effect"]
    tables = study.cost_tables[None]
    rows, winner = page.table("network", "position"), Genotype.parse(study.winner)
    assert tuple(int(row["choice"]) for row in rows) == winner.choices
    for row in rows:
        block = int(row["position"].split()[0]), int(row["choice"])
        assert only(row["effect"]).is_of(effects[block])
        assert only(row["multiply-adds"]).is_of(tables["flops"].block[block[0]][block[1]])


def test_the_rounds(study, page):
    for row, known in zip(page.table("verification", "round"), study.current("verify")["rounds"], strict=True):
        assert row["which is"] == known["incumbent"]
        assert only(row["best evaluated"]).is_of(known["incumbent_metric"])
        assert only(row["first choice, predicted"]).is_of(known["predicted"][0])
        assert int(row["evaluations so far"]) == known["num_evaluations"]


def test_the_finalists_and_the_base_were_measured_whole_in_turns(study, page):
    whole = {row["genotype"]: row for row in study.current("verify")["whole"]}
    assert set(whole) == {*map(str, finalists(study.snapshot)), str(study.base)}
    assert study.winner in whole
    rows = page.table("additivity", "network")
    assert {row["genotype"] for row in rows} == set(whole)
    for row in rows:
        known = whole[row["genotype"]]
        assert known["status"] == "ok"
        assert known["num_repeats"] == 5
        assert only(row["measured whole"]).is_of(known["value"])
        assert only(row["sum of blocks"]).is_of(study.costs_of(Genotype.parse(row["genotype"]))["latency_ms"])


def test_where_the_numbers_come_from(study, page):
    rows = {row["what"]: row["value"] for row in page.table("provenance", "what")}
    assert rows["space"] == f"mine, id {study.space.space_id}"
    assert rows["scorer"].startswith(f"supernet, id {study.scorer_id}.")
    train, validation = study.sources.data.num_examples
    assert rows["data"].startswith(f"folder images: {train} train, {validation} validation, ")
    assert rows["images"] == "gray 8 x 8, 3 classes"
    assert rows["MLflow"] == "sqlite:///mlflow.db"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", rows["made"])


# studies move


def contents(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_a_copy_reports_into_itself(own, tmp_path, monkeypatch):
    """Its model loads, its runs go on, and the original is as it was."""
    from tasks.tracking import registered_model

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    before, copy = contents(own), shutil.copytree(own / "study", tmp_path / "copy")
    done = mathnas("status", copy)
    assert f"this study is a copy of {own}/study, which it leaves alone" in done.stderr
    runs = json.loads((copy / "tracking.json").read_text())
    assert mathnas("report", copy).returncode == 0
    assert contents(own) == before
    again = json.loads((copy / "tracking.json").read_text())
    assert (again["runs"], again["model"]) == (runs["runs"], runs["model"])
    model = registered_model(Store(copy))
    assert model is not None
    assert not list((tmp_path / "elsewhere").iterdir())
    assert "copy of" not in mathnas("status", copy).stderr, "it is a study of its own by now"


def test_a_model_whose_registration_was_cut_off_is_registered_by_the_next_report(own, tmp_path):
    """MLflow calls the winner's run finished, and nothing is known of its model."""
    copy = shutil.copytree(own / "study", tmp_path / "copy")
    ids = json.loads((copy / "tracking.json").read_text())
    known = ids.pop("model")
    del ids["models"]
    (copy / "tracking.json").write_text(json.dumps(ids))
    done = mathnas("report", copy)
    assert done.returncode == 0, done.stderr
    again = json.loads((copy / "tracking.json").read_text())
    assert again["runs"] == ids["runs"]
    assert (again["model"]["name"], again["model"]["version"]) == (known["name"], str(int(known["version"]) + 1))


def test_what_was_deleted_on_mlflows_page_is_made_again(own, tmp_path, caplog):
    """Runs, the model, the whole experiment: MLflow only hides them, and takes nothing more for them."""
    copy = shutil.copytree(own / "study", tmp_path / "copy")
    before = json.loads((copy / "tracking.json").read_text())
    client = client_of(Store(copy))
    for run_id in before["runs"].values():
        client.delete_run(run_id)
    client.delete_registered_model(before["model"]["name"])
    assert (done := mathnas("report", copy)).returncode == 0, done.stderr
    after = json.loads((copy / "tracking.json").read_text())
    assert after["runs"].keys() == before["runs"].keys()
    assert not set(after["runs"].values()) & set(before["runs"].values())
    version = client.get_model_version_by_alias(after["model"]["name"], "champion")
    assert version.run_id in after["runs"].values()
    client.delete_experiment(client.get_experiment_by_name("mathnas").experiment_id)
    assert (done := mathnas("report", copy)).returncode == 0, done.stderr
    assert "the experiment mathnas was deleted: it is restored" in caplog.text
    assert json.loads((copy / "tracking.json").read_text())["runs"] == after["runs"]


def test_a_report_to_a_server_and_back_again_makes_no_run_twice(own, tmp_path):
    copy = shutil.copytree(own / "study", tmp_path / "copy")
    seen, server = [], {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/server.db"}
    for environment in ({}, server, {}, server):
        assert (done := mathnas("report", copy, **environment)).returncode == 0, done.stderr
        seen.append(json.loads((copy / "tracking.json").read_text()))
    assert [each["runs"] for each in seen[2:]] == [each["runs"] for each in seen[:2]]
    assert [each["model"] for each in seen[2:]] == [each["model"] for each in seen[:2]]
    assert not set(seen[0]["runs"].values()) & set(seen[1]["runs"].values())


def test_settings_of_tracking_and_costs_that_are_measured_anew_reach_what_was_logged(own, tmp_path):
    copy = shutil.copytree(own / "study", tmp_path / "copy")
    before = json.loads((copy / "tracking.json").read_text())
    training = json.loads((copy / "training.json").read_text())
    training["networks"][0]["costs"]["latency_ms"] = 1234.5
    (copy / "training.json").write_text(json.dumps(training))
    assert (done := mathnas("report", copy)).returncode == 0, done.stderr
    again = json.loads((copy / "tracking.json").read_text())
    assert (again["runs"], again["model"]) == (before["runs"], before["model"])
    client = client_of(Store(copy))
    run = client.get_model_version_by_alias(before["model"]["name"], "champion").run_id
    assert client.get_run(run).data.metrics["latency_ms"] == 1234.5
    tracking = {"experiment": "elsewhere", "registered_model": "other", "alias": "best"}
    config = yaml.safe_load((copy / "study.yaml").read_text())
    (copy / "study.yaml").write_text(yaml.safe_dump({**config, "tracking": tracking}))
    assert (done := mathnas("report", copy)).returncode == 0, done.stderr
    version = client.get_model_version_by_alias("other", "best")
    experiment = client.get_experiment_by_name("elsewhere").experiment_id
    assert client.get_run(version.run_id).info.experiment_id == experiment
    assert "models:/other@best" in version.description


def test_a_moved_study_goes_on_where_it_is(own, tmp_path):
    """Plain MLflow finds its model once `status` was asked; nothing comes back at the old place."""
    import mlflow

    from tasks.embedded_tracking import address

    first = shutil.copytree(own / "study", tmp_path / "first")
    mathnas("status", first)
    moved = first.rename(tmp_path / "second")
    said = mathnas("status", moved).stderr
    assert f"this study is a copy of {own}/study" in said
    assert "MLflow's places of artifacts were set to where the study is now" in said
    ids = json.loads((moved / "tracking.json").read_text())
    mlflow.set_tracking_uri(address(Store(moved), ids))
    mlflow.set_registry_uri(address(Store(moved), ids))
    assert mlflow.pytorch.load_model(ids["model"]["uri"]) is not None
    assert Study.open(str(moved)).winner_module() is not None
    assert not first.exists()


def test_a_study_that_is_gone_from_where_it_was_run_is_said_to_be_moved(own, tmp_path):
    copy = shutil.copytree(own / "study", tmp_path / "copy")
    text = (copy / "sources.json").read_text()
    (copy / "sources.json").write_text(text.replace(f'"{own}/study"', f'"{tmp_path}/before"'))
    words = f"this study was moved: it was run in {tmp_path}/before and goes on in {copy}"
    assert words in mathnas("status", copy).stderr
    assert json.loads(mathnas("status", copy, "--json").stdout)["notices"] == [words]


def test_a_copy_made_during_a_run_is_driven_by_nobody(own, tmp_path):
    with hold(Store(own / "study")):
        copy = shutil.copytree(own / "study", tmp_path / "copy")
        assert "driven by" in mathnas("status", own / "study").stdout
        assert "driven by" not in mathnas("status", copy).stdout
        with hold(Store(copy)):
            pass


def test_a_report_needs_neither_space_nor_images(own, tmp_path):
    """Everything is written again, only the model is not tested on images."""
    copy = shutil.copytree(own / "study", tmp_path / "copy")
    (copy / "report.html").unlink()
    try:
        for name in ("space.yaml", "images"):
            (own / name).rename(own / f"{name} that is away")
        done = mathnas("report", copy)
    finally:
        for name in ("space.yaml", "images"):
            (own / f"{name} that is away").rename(own / name)
    assert done.returncode == 0, done.stderr
    before, after = (json.loads((root / "report.json").read_text()) for root in (own / "study", copy))
    changing = ("provenance", "stages")
    assert {**after, **dict.fromkeys(changing)} == {**before, **dict.fromkeys(changing)}
    assert (copy / "report.html").stat().st_size > 100_000


def test_the_command_refuses_a_report_that_knows_less(own, tmp_path):
    copy = shutil.copytree(own / "study", tmp_path / "copy")
    shutil.rmtree(copy / "evaluations")
    before = contents(copy)
    done = mathnas("report", copy)
    _, message = done.stderr.strip().splitlines()
    assert done.returncode == 2
    assert "report.html: found a report with" in message
    assert "evaluated networks, not 0" in message
    after = contents(copy)
    assert all(after[path] == data for path, data in before.items() if path.name.startswith(("report", "mlflow")))
