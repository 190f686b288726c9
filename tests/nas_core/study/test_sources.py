"""A study holds what it read: its space, classes and channels, what identifies its data, what measured its costs."""

import logging
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from nas_core import Study, figure, read_config
from nas_core.base.errors import DataError, StoreError
from nas_core.base.identity import content_id
from nas_core.records.store import Store
from nas_core.report.collect import summarise
from nas_core.report.page import report_files
from nas_core.report.replacing import keep_aside, lost, make_way
from nas_core.scoring import SCORERS
from nas_core.study.analytic_config import AnalyticConfig
from nas_core.study.analytic_project import DesignProject
from nas_core.study.config import parse_config
from nas_core.study.outputs import Outputs
from nas_core.study.rounds import last_answer
from nas_core.study.sources import SOURCES, Sources
from nas_core.study.stages import SELECTION
from tasks.reporting import check_report
from tests.command import mathnas
from tests.nas_core.study.test_rounds import scored, verified
from tests.own_study import EDITED, SPACE, written

pytestmark = pytest.mark.situations


POINTS = '''\
"""A scorer that looks at the data and trains nothing."""

from nas_core import scorer


@scorer("own-points", metric="points", higher_is_better=True)
def points(blocks, workload):
    """Points for what was chosen, by how many images there are."""
    return sum(len(str(block)) * (1 + place) for place, block in enumerate(blocks)) / sum(workload.num_examples())
'''


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with study.yaml, space.yaml, images, and in ``study`` what was scored, selected, verified, reported.

    It lies at one path, where it can be put back: images are known by where they are.
    """
    folder = tmp_path_factory.mktemp("own") / "here"
    folder.mkdir()
    (folder / "points.py").write_text(POINTS)
    config = read_config(written(folder, plugins=["./points.py"], scorer={"kind": "own-points"}))
    study, scorer = scored(config, folder / "study")
    study.outputs.write(SELECTION, {**last_answer(study.snapshot), "inputs": study.inputs_of("select")})
    verified(study, scorer)
    reported(study)
    return folder.rename(folder.with_name("kept"))


@pytest.fixture
def place(original):
    """A copy of it, to be changed, where it was made."""
    folder = shutil.copytree(original, original.with_name("here"))
    yield folder
    shutil.rmtree(folder)


def reported(study):
    for path, content in report_files(summarise(study)).items():
        study.store.write_bytes(path, content)


def everything(root):
    """What a study says of itself to programs and to notebooks."""
    study = Study.open(root)
    answer = study.select(["flops<=60%"], top=2)
    return {
        "status": {stage: (row.state, row.done) for stage, row in study.status().items()},
        "select": [(row.genotype, row.predicted, row.costs) for row in answer.selections],
        "evaluations": study.evaluations_frame().to_dict("records"),
        "costs": study.costs_frame().to_dict("records"),
        "effects": study.effects_frame().to_dict("records"),
        "predicted": [row.metric for row in study.predict(["0-1-2"])],
        "report": {**summarise(study).to_dict(), "provenance": None, "selection": None},
        "frontier": len(figure(study, "frontier").axes),
    }


AWAY = {
    "the space's file": ["space.yaml"],
    "the images": ["images"],
    "the study's file": ["study.yaml"],
    "all of it": ["space.yaml", "images", "study.yaml"],
}


@pytest.mark.parametrize("gone", AWAY.values(), ids=AWAY)
def test_what_a_study_says_needs_none_of_its_files(place, gone):
    before = everything(str(place / "study"))
    for name in gone:
        (place / name).rename(place / f"{name} that is away")
    assert everything(str(place / "study")) == before
    assert not Study.open(str(place / "study")).notices()


def test_an_edited_space_is_said_and_changes_nothing(place):
    before = everything(str(place / "study"))
    (place / "space.yaml").write_text(EDITED)
    assert everything(str(place / "study")) == before
    done = mathnas("status", place / "study")
    assert "score    done     7/7" in done.stdout
    assert f"space: {place}/space.yaml was edited since this study was run" in done.stderr


def test_an_edited_space_is_another_with_evaluations_of_its_own_and_the_old_ones_are_kept(place, caplog):
    root = str(place / "study")
    before = Study.open(root)
    (place / "space.yaml").write_text(EDITED)
    with caplog.at_level(logging.WARNING):
        now = Study.create(read_config(place / "study.yaml"), root)
    assert now.space.space_id != before.space.space_id
    assert f"({before.space.space_id} -> {now.space.space_id})" in caplog.text
    assert "the 9 evaluations made before are kept" in caplog.text
    assert not now.evaluations()
    (place / "space.yaml").write_text(SPACE)
    again = Study.create(read_config(place / "study.yaml"), root)
    assert again.evaluations() == before.evaluations()


def test_the_study_of_a_configuration_that_was_read_is_not_changed_by_an_edit(place):
    """What a run began with is what its workers, and its later stages, go by."""
    config = read_config(place / "study.yaml")
    space_id = Sources.of(config, str(place)).space.space_id
    (place / "space.yaml").write_text("name: [broken")
    assert Sources.of(config, str(place)).space.space_id == space_id
    there = type(config).model_validate_json(config.model_dump_json())
    assert Sources.of(there, str(place)).space.space_id == space_id


def test_other_images_are_said(place):
    (place / "images/train/digit0/one more.png").write_bytes((next((place / "images").rglob("*.png"))).read_bytes())
    notices = Study.open(str(place / "study")).notices()
    assert len(notices) == 1
    assert "other files in" in notices[0]


@pytest.mark.parametrize("kind", ["mobile", "nasbench-macro", "resnet", "tiny", "choices"])
def test_what_is_kept_of_a_space_is_the_space(tmp_path, kind):
    space = {"kind": kind, **({"positions": {"a": [1, 2], "b": ["x", "y"]}} if kind == "choices" else {})}
    scorer = {"kind": "tabular", "path": "none.parquet"}
    config = parse_config({"space": space, "scorer": scorer, "profile": {"resources": []}}, "test")
    store, seen = Store(tmp_path), Sources.of(config, str(tmp_path))
    seen.write(store)
    assert Sources.stored(store) == seen
    assert Sources.stored(store).space.space_id == seen.space.space_id


def test_what_a_table_says_of_equal_networks_is_kept(tabular_config, macro_table, tmp_path):
    """`same_function` stands in the table, which selecting needs no more."""
    table = pq.read_table(macro_table)
    names = ["".join(sorted(arch)) for arch in table["arch"].to_pylist()]
    pq.write_table(table.append_column("sorted", pa.array(names)), macro_table)
    alike = tabular_config.scorer.model_copy(update={"same_function": "sorted"})
    study, _ = scored(tabular_config.model_copy(update={"scorer": alike}), tmp_path / "study")
    before = study.select(["params<=2 M"], top=2)
    macro_table.unlink()
    again = Study.open(str(tmp_path / "study"))
    assert again.space.same_function == study.space.same_function
    assert again.select(["params<=2 M"], top=2).selections == before.selections


def test_a_damaged_note_is_read_again_from_the_files(place):
    (place / "study" / SOURCES).write_text('{"space": 7}')
    assert Study.open(str(place / "study")).status()["score"].state == "done"


def test_a_design_needs_its_images_no_more(place):
    program = {"family": "mobilenet", "params": "20 k", "resolution": 32, "strides": [1, 2]}
    data = {"kind": "folder", "path": str(place / "images"), "validation_examples": 60}
    config = AnalyticConfig.model_validate({"name": "d", "program": program, "data": data})
    project = DesignProject.create(config, str(place / "design"))
    seen = project.data
    shutil.rmtree(place / "images")
    again = DesignProject.open(str(place / "design"))
    assert again.data == seen
    assert again.status() == {"design": "missing", "train": "missing", "register": "missing"}


def test_other_libraries_do_not_hide_what_was_measured(place, monkeypatch):
    """The id of a latency holds the version of torch; a study that is only read keeps to its own."""
    import nas_core.costs.latency as latency

    sections = yaml.safe_load((place / "study.yaml").read_text())
    sections["profile"] = {"resources": ["flops", "params", "latency_ms"]}
    (place / "study.yaml").write_text(yaml.safe_dump(sections))
    config = read_config(place / "study.yaml")
    here = Study.create(config, str(place / "study")).profiler_ids
    monkeypatch.setattr(latency, "version", lambda name: "99.0")
    assert Study.open(str(place / "study")).profiler_ids == here
    assert Sources.of(config, str(place)).profiler_ids != here


PLUGIN = '''\
"""A workload that reads a file of its own, and a scorer that looks at it."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

from nas_core import Sample, dataset_workload, scorer
from nas_core.workloads.regression import REGRESSION

FILE = Path("rows.npy")


SAMPLE, LOSS = Sample(shape=(4,), num_outputs=1), torch.nn.MSELoss()


@dataset_workload("own-rows", sample=SAMPLE, loss=LOSS, metrics=list(REGRESSION.values()))
def rows(settings):
    """Rows of a file beside this one."""
    table = torch.from_numpy(np.load(FILE))
    sets = TensorDataset(table[:, :4], table[:, 4])
    return sets, sets


@scorer("weight", metric="grams", higher_is_better=False)
def weight(values, workload):
    """Grams of what was chosen."""
    return float(sum(values)) + workload.num_examples()[1]
'''


def test_a_plugins_data_may_be_away(tmp_path):
    import numpy as np

    source = PLUGIN.replace("rows.npy", f"{tmp_path}/rows.npy")
    (tmp_path / "mine.py").write_text(source)
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(40, 5)).astype("float32"))
    sections = {
        "plugins": ["./mine.py"],
        "space": {"kind": "choices", "positions": {"a": [1, 2, 3], "b": [1, 5], "c": [0, 4]}},
        "data": {"kind": "own-rows", "validation_examples": 8},
        "scorer": {"kind": "weight"},
        "design": {"held_out": 2},
        "profile": {"resources": []},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(sections))
    study = Study.create(read_config(tmp_path / "study.yaml"), str(tmp_path / "study"))
    assert study.sources.data.num_examples == (32, 8)
    (tmp_path / "rows.npy").unlink()
    again = Study.open(str(tmp_path / "study"))
    assert again.sources == study.sources
    assert summarise(again).data.num_train == 32
    with pytest.raises(DataError, match=r"data: own-rows: found .*rows.npy"):
        Sources.of(again.config, str(tmp_path))
    (tmp_path / "mine.py").write_text(source + "\n# edited\n")
    edited = Study.open(str(tmp_path / "study"))
    assert edited.scorer_id == study.scorer_id
    assert f"plugins: {tmp_path}/mine.py was edited since this study was run" in edited.notices()[0]


OF_FILES = '''\
"""What a study's settings name files for."""

from typing import Annotated

from nas_core import SEARCHERS, PathText, Searcher, Section, resource, scorer
from pydantic import Field


@scorer("file-size", metric="bytes", higher_is_better=False)
def size(values, *, sources: Annotated[list[PathText], "What is compiled."]) -> float:
    """Bytes."""
    return 1.0


@resource("file-price", unit="EUR")
def price(choice, *, prices: Annotated[PathText | None, "Table of prices."]) -> float:
    """Price."""
    return 1.0


@SEARCHERS.add
class Listed(Searcher):
    """Networks of a list."""

    name = "file-list"

    class Settings(Section):
        names: PathText = Field(description="Networks, one a line.")

    def next(self, known, number):
        return []
'''


def test_files_that_settings_of_plug_ins_name_count_by_what_they_hold(tmp_path, caplog):
    (tmp_path / "mine.py").write_text(OF_FILES)
    (tmp_path / "lib").mkdir()
    for name in ("main.c", "lib/a.c", "prices.csv", "names.txt"):
        (tmp_path / name).write_text("first")
    sections = {
        "plugins": ["./mine.py"],
        "space": {"kind": "choices", "positions": {"a": ["x", "y"], "b": ["x", "y"]}},
        "scorer": {"kind": "file-size", "sources": ["main.c", "lib", "not there"]},
        "searcher": {"kind": "file-list", "names": "names.txt"},
        "profile": {"resources": ["file-price"], "prices": "prices.csv"},
        "design": {"held_out": 0},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(sections))
    config, root = read_config(tmp_path / "study.yaml"), str(tmp_path / "study")
    first = Study.create(config, root)
    first.store.add_evaluations(first.scorer.evaluate([first.space.parse("0-0")]))
    (tmp_path / "lib" / ".hidden").write_text("no file of the study's")
    assert Study.create(config, root).sources == first.sources
    scored_by, measured_by = first.scorer_id, first.profiler_ids["file-price"]
    wanted = first.outputs.inputs_of("score")
    named = {"main.c": "scorer.sources.0", "lib/a.c": "scorer.sources.1", "names.txt": "searcher.names"}
    for name, setting in {**named, "prices.csv": "profile.profilers.file-price.prices"}.items():
        (tmp_path / name).write_text("other")
        [notice] = Study.open(root).notices()
        assert notice.startswith(f"{setting} {tmp_path}/{name.partition('/')[0]} was edited since this study was run")
        seen = Sources.of(config, root)
        assert (seen.scorer_id != scored_by) == setting.startswith("scorer")
        assert (seen.profiler_ids["file-price"] != measured_by) == setting.startswith("profile")
        assert Outputs(store=first.store, config=config, sources=seen).inputs_of("score") != wanted
        (tmp_path / name).write_text("first")
        assert Sources.of(config, root) == first.sources
    (tmp_path / "main.c").write_text("other")
    with caplog.at_level(logging.WARNING):
        now = Study.create(config, root)
    assert f"scorer.sources.0 {tmp_path}/main.c was edited, the scorer is another one now" in caplog.text
    assert "the 1 evaluations made before are kept" in caplog.text
    assert not now.evaluations()


def test_settings_that_name_no_files_change_no_id(tmp_path):
    (tmp_path / "mine.py").write_text(OF_FILES)
    sections = {"plugins": ["./mine.py"], "scorer": {"kind": "file-size", "sources": []}, "metric": "bytes"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(sections))
    config = read_config(tmp_path / "study.yaml")
    plain = SCORERS.identity("file-size")
    assert set(plain) == {"name", "version", "distribution", "code"}
    assert SCORERS.identity("file-size", config.scorer) == plain
    assert not Sources.of(config, str(tmp_path)).files


# a report is not replaced by one that knows less


def test_a_report_of_fewer_networks_is_refused(place):
    root = place / "study"
    full = (root / "report.html").read_bytes()
    shutil.rmtree(root / "evaluations")
    study = Study.open(str(root))
    with pytest.raises(StoreError, match=r"report.html: found a report with 9 evaluated networks, not 0, .*run"):
        make_way(study)
    assert (root / "report.html").read_bytes() == full


def test_the_stage_refuses_before_anything_is_logged(place):
    (place / "study/verification.json").unlink()
    with pytest.raises(
        StoreError, match=r"a report with the verification, expected a report that knows as much.*delete"
    ):
        check_report.fn(Study.open(str(place / "study")))


def test_what_is_forgotten_to_be_made_again_leaves_the_report(place):
    study = Study.open(str(place / "study"))
    outputs: Outputs = study.outputs
    outputs.forget("score")
    assert study.store.exists("report.html")
    assert study.status()["report"].state == "stale"


def test_a_complete_study_that_knows_less_by_its_configuration_keeps_the_report_before_aside(place):
    study = Study.open(str(place / "study"))
    stored = study.store.read_json("report.json")
    folder = keep_aside(study.store, stored)
    assert folder == f"reports/{content_id({'report': stored})}"
    kept = {path.removeprefix(f"{folder}/") for path in study.store.paths(folder)}
    assert kept >= {"report.html", "report.json", "figures/frontier.png"}


def test_a_report_of_other_networks_loses_nothing_by_being_smaller(place):
    summary = summarise(Study.open(str(place / "study")))
    stored = {**summary.to_dict(), "num_evaluated": 900}
    assert lost(stored, summary) == ["900 evaluated networks, not 9"]
    other = {**stored, "provenance": {"space_id": "another", "scorer_id": "another"}}
    assert lost(other, summary) == []
