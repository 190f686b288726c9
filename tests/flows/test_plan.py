"""`mathnas run --dry-run`: the whole preflight, what there is to choose from, what it takes; nothing is written."""

import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from flows.plan import _cluster, _here, plan, plan_in_words
from flows.preflight import check_workers
from nas_core.base.errors import ConfigError, StoreError
from nas_core.base.plugins import imported
from nas_core.report.text import format_quantity
from nas_core.scoring.scorer import SCORERS
from nas_core.study.config import ClusterConfig, StudyConfig, parse_config
from nas_core.study.study import Study
from nas_core.training.settings import TrainConfig
from tasks.requests import Request
from tests.command import mathnas, mathnas_process, refused

pytestmark = pytest.mark.situations


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """60 training and 12 test images of three classes, 10 x 12 pixels, and two files that are none."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for name in ("ant", "bee", "cat"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (root / "train" / "ant" / "notes.txt").write_text("no image")
    (root / "train" / "bee" / "labels.csv").write_text("no image")
    return root


@pytest.fixture
def dry_run(tmp_path, images):
    def run(*arguments, call=mathnas, **sections):
        study = {
            "name": "s",
            "space": {"kind": "tiny"},
            "data": {"kind": "folder", "path": str(images), "validation_examples": 12},
            "scorer": {"kind": "train", "recipe": {"epochs": 1}},
            "select": {"limits": ["flops<=70%", "latency_ms<=12 ms"]},
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**study, **sections}))
        done = call("run", path, "--root", tmp_path / "root", "--dry-run", *arguments)
        assert not (tmp_path / "root").exists()
        return done

    return run


def test_a_plan_says_what_there_is_what_is_attainable_and_where_it_runs(dry_run):
    plan = json.loads(dry_run("--json").stdout)
    assert plan["data"]["classes"] == "3: ant, bee, cat"
    assert plan["data"]["images"] == "colour 10 x 10, 3 classes"
    assert plan["data"]["training split"] == "60 images, 20 per class"
    assert plan["data"]["test split"] == "12 images, 4 per class"
    assert plan["data"]["scoring"] == "48 training and 12 validation examples"
    assert "1 .csv file;" in plan["data"]["left out"]
    assert "1 .txt file" in plan["data"]["left out"]
    flops = plan["resources"]["flops"]
    assert flops["least"] < 0.7 * flops["base"] < flops["most"] == flops["base"]
    assert plan["limits"] == {
        "flops<=70%": f"at most {format_quantity('flops', 0.7 * flops['base'])}",
        "latency_ms<=12 ms": "known once the run has measured it",
    }
    assert plan["cluster"]["RAY_ADDRESS"] == "a local Ray on this machine"
    assert plan["evaluations"] + plan["verification_at_most"] == 27  # not more than there are
    assert plan["verification_of_moves"] == 0  # none is left
    stages = plan["stages_s"]
    assert plan["estimate_s"] == pytest.approx(sum(stages.values()) + plan["around_s"], abs=0.5)
    assert all(stages[stage] > 0 for stage in ("profile", "score", "verify", "train", "report"))
    assert min(plan["disk_mb"], plan["memory_mb"]) > 1
    words = plan_in_words(plan)
    for expected in ("classes: 3: ant, bee, cat", "left out: ", "Attainable:", "Limits:", "Where:", "of memory for"):
        assert expected in words
    assert "Estimate, from a few steps that were run on this machine, within a factor of two: " in words


def test_evaluations_that_moved_limits_cost_are_in_the_plan(tmp_path):
    given = {"space": {"kind": "tiny"}, "data": {"kind": "digits"}, "verify": {"evaluations": 2, "per_round": 1}}
    for limit, more in (("latency_ms<=12 ms", 8), ("flops<=70%", 0)):  # four moves of two rounds each, or none
        found = plan(parse_config(given | {"select": {"limits": [limit]}}, "s"), str(tmp_path / "s"), measures=False)
        assert (found["verification_at_most"], found["verification_of_moves"]) == (2, more)
        assert (f"at most, and {more} more" in plan_in_words(found)) == bool(more)


def test_what_is_no_network_costs_nothing_and_what_a_function_takes_is_not_guessed(dry_run, tmp_path):
    plugin = tmp_path / "flags_of_a_compiler.py"
    plugin.write_text(
        "from nas_core import scorer\n@scorer('speed-of-flags')\ndef rated(values):\n    'Speed.'\n    return 1.0\n"
    )
    space = {"kind": "choices", "positions": {"optimise": ["O0", "O2"], "inline": [True, False]}}
    sections = {"plugins": [str(plugin)], "scorer": {"kind": "speed-of-flags"}, "space": space, "select": {}}
    try:
        plan, words = json.loads(dry_run("--json", **sections).stdout), dry_run(**sections).stdout
        timed = {"select": {"limits": ["latency_ms<=1 ms"]}, "profile": {"resources": ["flops", "latency_ms"]}}
        assert "of choices a function of yours gives one" in dry_run(call=refused, **{**sections, **timed})
    finally:
        SCORERS.forget(imported.pop(str(plugin)).origin)
    assert (plan["resources"], plan["estimate_s"]) == ({}, None)
    assert "No estimate: what this scorer takes is known once it has rated a network." in words
    assert "Attainable" not in words


def test_a_plan_says_which_alternatives_stand_nowhere(dry_run):
    library = [{"kind": "grouped", "groups": 7}, {"kind": "narrower"}, {"kind": "skip"}]
    space = {"kind": "model", "model": "nas_core.testing.example_model:small_network", "library": library}
    scorer = {"kind": "distil", "train": False}
    sections = {"space": space, "scorer": scorer, "select": {"limits": ["flops<=70%"]}}
    words = dry_run(**sections, profile={"resources": ["flops"]}).stdout
    assert "grouped groups=7 stands at no position: nothing of it to change\n" in words


@pytest.mark.parametrize(
    ("sections", "arguments", "expected"),
    [
        ({"select": {"limits": ["latency_ms<=0 ms"]}}, (), "found 0 ms, expected an amount above 0"),
        ({"select": {"limits": ["latency<=-1 ms"]}}, (), "found -1 ms, expected an amount above 0"),
        ({"select": {"limits": ["flop<=70%"]}}, (), "found flop, expected a resource of profile.resources: flops"),
        ({"select": {"limits": ["flops<=70 ms"]}}, (), "unit 'ms', expected a unit of flops"),
        ({"select": {"limits": ["flops<=0.001%"]}}, (), "cannot be met; attainable: least flops"),
        ({"select": {"limits": ["flops<=0.001%"]}}, (), "% of the base network's."),
        ({"select": {"limits": ["flops<=40%", "params>=100%"]}}, (), "expected limits that some network satisfies"),
        ({}, ("--from", "foo"), "--from: found 'foo', expected one of: profile, score"),
        ({}, ("--until", "foo"), "--until: found 'foo', expected one of: profile, score"),
        ({}, ("--from", "train", "--until", "select"), "--from: found train, expected a stage of those to run"),
        ({"train": {"train_examples": 9_000}}, (), "train.train_examples: found 9000, expected at most 48"),
        ({"design": {"base": "9-9-9"}}, (), "9-9-9"),
        ({"scorer": {"kind": "tabular", "path": "none.parquet"}}, ("--until", "verify"), "none.parquet"),
        ({"metric": "speed"}, (), "metric: found 'speed', expected one of: accuracy"),
    ],
)  # fmt: skip
def test_what_would_stop_the_run_stops_the_plan(dry_run, sections, arguments, expected):
    assert expected in dry_run(*arguments, call=refused, **sections)


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ({"num_gpus": 64}, "cluster.num_gpus: found 64.0, expected at most"),
        ({"num_cpus": 9000}, "cluster.num_cpus: found 9000, expected at most"),
        ({"training_cpus": 9000}, "cluster.training_cpus: found 9000, expected at most"),
        ({"resources": {"phone": 1}}, "cluster.resources: found phone, expected none"),
    ],
)
def test_what_this_machine_does_not_have_stops_the_plan(dry_run, cluster, expected):
    """In a process of its own: this one may be connected to a Ray that has it."""
    assert expected in dry_run(call=lambda *words: refused(*words, call=mathnas_process), cluster=cluster)


def test_workers_are_counted_as_the_cluster_counts_them(monkeypatch):
    """One that asks for nothing fits once; with a GPU, its CPUs count, too."""
    monkeypatch.setattr("flows.plan.usable_cpus", lambda: 16)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    asked = {(0, 0): 1, (1, 0): 16, (4, 0): 4, (1, 1): 2, (10, 0.25): 1, (2, 0.25): 8, (64, 0): 1}
    assert {each: _here(Request(num_cpus=each[0], num_gpus=each[1])) for each in asked} == asked


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"workers": 9000, "recipe": {"batch_size": 18_000}}, r"train.workers: found 9000, expected at most \d+, as"),
        ({"workers": 4, "recipe": {"batch_size": 7}}, "train.recipe.batch_size: found 7, expected 8 at least"),
    ],
)
def test_more_workers_than_there_is_room_for_stop_the_plan(monkeypatch, train, expected):
    monkeypatch.setattr("flows.preflight._has_ray", lambda: False)  # that of other tests
    with pytest.raises(ConfigError, match=expected):
        check_workers(TrainConfig.model_validate(train), ClusterConfig())
    check_workers(TrainConfig(), ClusterConfig())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"validation_examples": 60}, "data.validation_examples: found 60, expected fewer than the 60 training"),
        ({"validation_examples": 12, "train_examples": 49}, "data.train_examples: found 49, expected at most 48"),
    ],
)
def test_splits_that_leave_nothing_stop_the_plan(dry_run, images, settings, expected):
    assert expected in dry_run(call=refused, data={"kind": "folder", "path": str(images), **settings})


def test_a_folder_without_test_images_stops_the_plan(dry_run, images, tmp_path):
    shutil.copytree(images / "train", tmp_path / "alone" / "train")
    message = dry_run(call=refused, data={"kind": "folder", "path": str(tmp_path / "alone"), "validation_examples": 12})
    assert "train/ alone" in message


def test_a_stored_output_that_cannot_be_read_is_one_line(tmp_path):
    study = Study.create(StudyConfig.model_validate({"space": {"kind": "tiny"}}), str(tmp_path / "study"))
    study.store.write_json("verification.json", {})
    with pytest.raises(StoreError, match=r"verification\.json.*found no key"):
        plan(study.config, study.store.root, measures=False)


def test_an_address_that_does_not_answer_stops_the_plan(dry_run):
    message = dry_run(call=lambda *words: refused(*words, RAY_ADDRESS="127.0.0.1:1"))
    assert "RAY_ADDRESS: found 127.0.0.1:1" in message


def test_a_root_that_cannot_be_made_stops_the_plan(tmp_path, images):
    (tmp_path / "file").write_text("")
    (tmp_path / "study.yaml").write_text("space: {kind: tiny}\n")
    assert "no folder" in refused("run", tmp_path / "study.yaml", "--root", tmp_path / "file" / "root", "--dry-run")


def test_a_plan_shows_no_passwords(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@tracking:5000")
    assert "secret" not in (shown := _cluster()["MLFLOW_TRACKING_URI"])
    assert "tracking:5000" in shown
