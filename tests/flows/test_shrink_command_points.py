"""`mathnas shrink --points`: what is asked for becomes a study, and a study's points become tables and files."""

import re
import runpy
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from flows.export_command import handed_over
from flows.model_as_given import Told, _usual
from flows.shrink_command import (
    Wish,
    _data_of,
    _section,
    _sweep,
    result_in_words,
    study_of,
    within_reach,
    without_unmet,
    written,
)
from nas_core.base.errors import ConfigError, DataError, InfeasibleError
from nas_core.families.trained_model import TrainedModel
from nas_core.report.collect import summarise
from nas_core.report.text import summary_table
from nas_core.study.brought import family_of, workload_of
from nas_core.study.finished import finished
from nas_core.study.rounds import finalists
from nas_core.study.study import Study
from nas_core.training.loop import measure
from nas_core.workloads import WORKLOADS
from nas_core.workloads.classification import CLASSIFICATION
from nas_core.workloads.workload import Sample, metric_of
from tasks.profiling import to_time_whole
from tests.benchmarks import teachers
from tests.flows.test_export_command import model_config, run_here

# the tightest limit leaves one network, 1-2, which is the farthest from the model; the loosest leaves all
NEAREST = {"rated_by": "divergence", "recovery_steps": 0, "final_steps": 0}
SELECT = {"limits": ["flops<=90%"], "sweep": "flops=300 .. 900 K", "points": 2, "recover": 2}


SUM = """
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))

    def forward(self, x):
        return x + self.body(x)

def build():
    return nn.Sequential(nn.Linear(3, 16), Block(), Block(), nn.Linear(16, 1))
"""


def wish_of_sums(folder, data, weight, bias):
    """A wish about a model that gives ``bias`` and ``weight`` times the sum of three numbers."""
    (folder / "model.py").write_text(SUM)
    network = runpy.run_path(str(folder / "model.py"))["build"]()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network[0].weight[:3] = torch.eye(3)
        network[3].weight[:, :3] = weight
        network[3].bias.fill_(bias)
    torch.save(network.state_dict(), folder / "mine.pth")
    model = f"{folder / 'model.py'}:build"
    return Wish(model=model, checkpoint=folder / "mine.pth", data=data, limits=["flops<=60%"], out=folder / "out")


def asked(*limits, **more):
    wish = Wish(model="timm:resnet18", checkpoint=None, data="digits", limits=limits, out=Path("out"), **more)
    return {**_section(wish), **_sweep(wish)}["select"]


def test_a_range_with_points_is_a_sweep_whose_tightest_limit_is_the_studys():
    assert asked("params<=5 M", "latency_ms=30%..100%", points=8) == {
        "limits": ["params<=5 M", "latency_ms<=30%"],
        "sweep": "latency_ms=30%..100%",
        "points": 8,
        "recover": 4,
    }
    assert asked("latency_ms=30%..100%", points=3)["recover"] == 3
    assert asked("latency_ms=30%..100%", points=8, recover=0)["recover"] == 0


@pytest.fixture
def trained(tmp_path):
    """A wish about a model with a checkpoint."""
    torch.save(teachers.resnet(1, 10).state_dict(), tmp_path / "mine.pth")
    model = f"{Path(teachers.__file__)}:resnet"
    return Wish(
        model=model, checkpoint=tmp_path / "mine.pth", data="digits", limits=["flops<=60%"], out=tmp_path / "out"
    )


@pytest.mark.parametrize(
    ("epochs", "distil_epochs", "rated", "finally_"),
    [(5.0, None, 18, 90), (1.0, None, 3, 18), (5.0, 0, 0, 0), (500.0, None, 200, 1000)],
)
def test_networks_are_rated_after_a_share_of_the_training_that_the_winner_has(
    trained, epochs, distil_epochs, rated, finally_
):
    """1,150 images in steps of 64; without distillation not at all."""
    said: list[object] = []
    scorer = study_of(replace(trained, epochs=epochs, distil_epochs=distil_epochs), {}, said.append).scorer
    assert (scorer.recovery_steps, scorer.final_steps) == (rated, finally_)
    assert ("18 steps of training at the end can do a good network harm: try --epochs 2.8" in said) == (finally_ == 18)


@pytest.mark.parametrize(
    ("overrides", "rated", "finally_"),
    [
        ({"train.recipe.epochs": "1"}, 3, 18),
        ({"train.recipe.batch_size": "32"}, 36, 180),
        ({"scorer.train": "false"}, 0, 0),
        ({"scorer.recovery_steps": "0"}, 0, 90),
        ({"data.train_examples": "100"}, 18, 90),  # from which alternatives learn; the winner learns from all
        ({"train.train_examples": "100"}, 1, 8),
    ],
)
def test_what_is_set_by_hand_counts(trained, overrides, rated, finally_):
    scorer = study_of(trained, overrides).scorer
    assert (scorer.recovery_steps, scorer.final_steps) == (rated, finally_)


@pytest.mark.parametrize(("asked_for", "at_most", "epochs"), [(None, 20_000, 2.0), (None, 575, 0.5), (0.7, 575, 0.7)])
def test_alternatives_learn_from_a_bounded_number_of_images(trained, monkeypatch, asked_for, at_most, epochs):
    monkeypatch.setattr("flows.shrink_command.DISTILLED", at_most)
    config = study_of(replace(trained, distil_epochs=asked_for), {})
    assert workload_of(config).num_examples()[0] == 1150
    assert config.scorer.recipe.epochs == epochs


def test_what_no_network_meets_is_left_out_of_a_range(trained, tmp_path):
    config = study_of(replace(trained, limits=["flops=1%..100%"], points=4, recover=4), {})
    narrower, said = without_unmet(config, str(tmp_path / "out" / "study"))
    assert (config.select.limits, narrower.select.limits) == (["flops<=1%"], ["flops<=34%"])
    assert (narrower.select.sweep, narrower.select.points, narrower.select.recover) == ("flops=34%..100%", 3, 3)
    assert said == "No network meets flops<=1%: the sweep is flops=34%..100%, 3 points."
    assert without_unmet(narrower, str(tmp_path / "out" / "study")) == (narrower, "")


def test_of_a_range_what_can_be_met_is_run(trained, tmp_path):
    config, said, seen = study_of(replace(trained, limits=["flops=1%..100%"], points=4), {}), [], []

    def run(study):
        seen.append(study.select.limits)
        if study.select.limits == ["flops<=1%"]:
            raise InfeasibleError("select.limits", "flops<=1%", "limits that some network satisfies")
        return "done"

    assert within_reach(config, str(tmp_path / "study"), run, said.append)[1] == "done"
    assert seen == [["flops<=1%"], ["flops<=34%"]]
    assert len(said) == 1
    one = study_of(replace(trained, limits=["flops<=1%"]), {})
    with pytest.raises(InfeasibleError):
        within_reach(one, str(tmp_path / "study"), run, said.append)


def test_the_last_limit_of_a_range_that_some_network_meets_is_a_limit_alone(trained, tmp_path):
    config = study_of(replace(trained, limits=["flops=0.5%..2%"], points=3, recover=2), {})
    narrower, said = without_unmet(config, str(tmp_path / "out" / "study"))
    assert (narrower.select.limits, narrower.select.sweep) == (["flops<=1.25%"], "flops=1.25%..2%")
    assert said == "No network meets flops<=0.5%: the sweep is flops=1.25%..2%, 2 points."
    config = study_of(replace(trained, limits=["flops=0.5%..1.25%"], points=2, recover=2), {})
    narrower, said = without_unmet(config, str(tmp_path / "out" / "study"))
    assert (narrower.select.limits, narrower.select.sweep) == (["flops<=1.25%"], "")
    assert said == "No network meets flops<=0.5%: flops<=1.25% is left."


def test_without_points_a_range_stays_a_limit():
    assert asked("latency_ms=30%..100%") == {"limits": ["latency_ms=30%..100%"]}


@pytest.mark.parametrize(
    ("limits", "more", "words"),
    [
        (["latency_ms<=60%"], {"points": 8}, "--points: found 0 ranges"),
        (["latency_ms==60%"], {"points": 8}, "--points: found 0 ranges"),
        (["latency_ms=30%..60%", "flops=1 .. 2 M"], {"points": 8}, "--points: found 2 ranges"),
        (["latency_ms=60%..30%"], {"points": 8}, "the lower one first"),
        (["latency_ms=30%..60%", "latency<=50%"], {"points": 8}, "latency<=50% beside latency_ms=30%..60%"),
        (["latency_ms=30%..60%"], {"points": 2, "recover": 3}, "at most --points 2"),
        (["latency_ms=30%..60%"], {"recover": 3}, "--points beside it"),
    ],
)
def test_what_does_not_make_a_sweep_is_said(limits, more, words):
    with pytest.raises(ConfigError, match=words):
        asked(*limits, **more)


def test_a_limit_that_cannot_be_read_is_said_before_data_are():
    wish = Wish(model="timm:resnet18", checkpoint=None, data="nowhere/", limits=["latency_ms<=60%%"], out=Path("out"))
    with pytest.raises(ConfigError, match="found '60%%'"):
        study_of(wish, {})


@pytest.mark.parametrize(
    ("limit", "said"), [("latencyms<=60%", "one of: flops, params, activation_bytes, latency_ms"), ("flops<=1 Q", "Q")]
)
def test_a_resource_or_a_unit_that_there_is_not_is_said_before_data_are_read(trained, limit, said):
    with pytest.raises(ConfigError, match=said):
        study_of(replace(trained, limits=[limit]), {"data.train_examples": "1000000"})


def test_a_file_in_the_place_of_the_folder_is_said_first(trained, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"--out .*: found .*file, a file, expected a folder"):
            study_of(replace(trained, out=out, data="nowhere/"), {})


def test_what_was_made_of_another_model_is_not_replaced(trained, tmp_path):
    written(study_of(trained, {}), trained)
    study_of(replace(trained, limits=["flops<=50%"], epochs=1), {})  # the same model may be asked for something else
    moved = tmp_path / "moved" / "teachers.py"
    moved.parent.mkdir()
    moved.write_text(Path(teachers.__file__).read_text())
    study_of(replace(trained, model=f"{moved}:resnet"), {})
    with pytest.raises(ConfigError, match=r"--out .*: found what was made of .*teachers.py:resnet, expected a folder"):
        study_of(replace(trained, model=f"{Path(teachers.__file__)}:mobilenet"), {})


def test_as_many_examples_as_validation_leaves_may_be_asked_for(trained):
    assert workload_of(study_of(trained, {"data.train_examples": "1150"})).num_examples() == (1150, 287)
    with pytest.raises(DataError, match="found 1151, expected at most 1150, what validation leaves"):
        study_of(trained, {"data.train_examples": "1151"})


def test_images_beside_masks_are_a_segmentation(tmp_path):
    wish = Wish(model="timm:resnet18", checkpoint=None, data=str(tmp_path), limits=[], out=tmp_path / "out")
    kinds = {("cat", "dog"): "folder", ("images", "masks"): "segmentation", ("images", "targets"): "image-to-image"}
    for names, kind in kinds.items():
        for below in (kind, f"{kind}-parts/train"):
            for name in names:
                (tmp_path / below / name).mkdir(parents=True)
        for folder in (kind, f"{kind}-parts"):
            assert _data_of(replace(wish, data=str(tmp_path / folder)))["kind"] == kind


@pytest.mark.parametrize(("in_units", "raw"), [(True, False), (False, False), (True, True)])
def test_the_scale_of_a_model_of_numbers_is_told_by_its_error(tmp_path, in_units, raw):
    standard_NF = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    inputs_NF = 20 + 3 * standard_NF
    price_N = 1000 + 50 * (inputs_NF if raw else standard_NF).sum(1)
    rows = zip(inputs_NF.tolist(), price_N.tolist(), strict=True)
    lines = [",".join(f"{value:.6f}" for value in (*inputs, price)) for inputs, price in rows]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,c,price", *lines]))
    wish = wish_of_sums(tmp_path, "rows", *((50.0, 1000.0) if in_units else (3**-0.5, 0.0)))
    data = {"data.path": str(tmp_path / "table.csv"), "data.targets": "[price]", "data.task": "regression"}
    told = study_of(wish, data).data
    assert told.standardise_targets is not in_units
    assert told.normalise == ("none" if raw else "data")
    assert study_of(wish, {**data, "data.standardise_targets": "true"}).data.standardise_targets


TURBINE = """
import torch
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from nas_core import Sample, dataset_workload


def error(outputs, targets):
    return (outputs - targets).abs().mean()


error.higher_is_better = False
SAMPLE = Sample(shape=(3,), num_outputs=1)


@dataset_workload("turbine", sample=SAMPLE, loss=mse_loss, metrics=[error], example={"validation_examples": 50})
def turbine(settings):
    "Numbers as the model takes them."
    inputs = 20 + 3 * torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
    sums = inputs.sum(1, keepdim=True)
    return TensorDataset(inputs[:500], sums[:500]), TensorDataset(inputs[500:], sums[500:])
"""


def test_data_of_a_plug_in_are_meant_by_their_name_and_left_as_they_are_for_a_model_of_them(tmp_path):
    (tmp_path / "turbine.py").write_text(TURBINE)
    wish = wish_of_sums(tmp_path, "turbine", 1.0, 0.0)
    said = []
    config = study_of(wish, {"plugins": f"[{tmp_path / 'turbine.py'}]"}, said.append)
    data = config.data
    assert data.normalise == "none"
    assert re.fullmatch(r"the model as it is: error [\d.e-]+ on 99 validation examples, data.normalise: none", said[0])
    assert (config.scorer.recipe.augment, config.train.recipe.augment) == ("none", "none")  # it would do nothing
    workload = WORKLOADS["turbine"]
    assert workload(data).load().prepare.mean == (0.0, 0.0, 0.0)
    with pytest.raises(DataError, match="found 2 numbers, expected 3, one per channel"):
        workload(workload.Settings(validation_examples=50, normalise={"mean": [0, 0], "std": [1, 1]})).load()
    with pytest.raises(DataError, match="found imagenet, expected data, none or"):
        workload(workload.Settings(validation_examples=50, normalise="imagenet")).load()
    assert "normalise" not in workload(workload.Settings()).identity["settings"]  # ids stay what they were


@pytest.mark.parametrize(
    ("model", "channels", "own"), [("dpn68", 3, True), ("dpn68", 1, False), ("resnet18", 3, False)]
)
def test_a_scale_that_only_timm_knows_is_tried(model, channels, own):
    family = TrainedModel(
        TrainedModel.Settings(model=f"timm:{model}"), Sample(shape=(channels, 32, 32), num_outputs=10)
    )
    tried = _usual(family)
    assert tried[:4] == ["imagenet", "half", "clip", "none"]
    assert [each.mean for each in tried[4:]] == [pytest.approx((0.4863, 0.4588, 0.4078), abs=1e-4)] * own


def test_threads_that_there_are_not_are_said_before_data_are():
    wish = Wish(
        model="timm:resnet18", checkpoint=None, data="fashion-mnist", limits=["latency_ms<=60%"], out=Path("out")
    )
    with pytest.raises(ConfigError, match="num_threads: found 1000, expected at most"):
        study_of(wish, {"profile.profilers.latency.num_threads": "1000"})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A trained model's study over a range of limits, without Ray and Prefect; nothing changes it."""
    config = model_config()
    select, scorer = config.select.model_copy(update=SELECT), config.scorer.model_copy(update=NEAREST)
    train = config.train.model_copy(update={"recipe": config.train.recipe.model_copy(update={"epochs": 0.5})})
    config = config.model_copy(update={"select": select, "scorer": scorer, "train": train})
    return run_here(config, tmp_path_factory.mktemp("study"))


def test_trained_points_are_in_the_summary_and_in_its_table(study):
    sweep = summarise(study).sweep
    assert [point.limit for point in sweep.points] == ["flops<=300 K", "flops<=900 K"]
    rows = {row["name"]: row for row in study.output("training.json")["networks"]}
    assert [*rows] == ["winner", "base", "point-300-K"]
    by_network = {row["genotype"]: row["metrics"]["test"]["accuracy"] for row in rows.values()}
    tests = [by_network[point.genotype] for point in (*sweep.points, sweep.base)]
    assert [point.test for point in (*sweep.points, sweep.base)] == tests
    assert sweep.points[0].genotype == "1-2" == rows["point-300-K"]["genotype"]
    table = summary_table(summarise(study))
    assert "over the range flops=300 .. 900 K:" in table
    assert all(f"{value:.2%}".replace("%", " %") in table for value in tests)


def test_the_end_says_what_stands_where_and_compares_networks_in_one_table(study):
    lines = result_in_words(study)
    assert re.split("  +", lines[0]) == [
        *("network", "role", "test accuracy", "latency", "of the model", "FLOPs", "params", "epochs")
    ]
    assert lines[1].split()[:2] == [study.winner, "shrunk"]
    given = [line.split() for line in lines if "as it was given" in line]
    teacher, splits = study.family.teacher, study.scorer.workload.load()
    accuracy = measure(teacher, metric_of(study.scorer.workload), splits.load_test(), splits.prepare)
    assert [row[5:7] + row[-1:] for row in given] == [[f"{100 * accuracy:.2f}", "%", "0"]]
    first, second = map(int, study.winner.split("-"))
    assert (first, second != 0) == (0, True)  # the first position is as in the model, the second is not
    kind = study.space.positions[1].blocks[second].kind
    assert re.fullmatch(rf"shrunk: as in the model at 0; {kind}( [\d.]+)? at 2", lines[-1])
    text = summary_table(summarise(study), lines)
    assert text.startswith("\n".join(lines))
    assert "genotype" not in text


def test_the_table_says_what_was_measured_and_that_less_of_it_is_better(study, monkeypatch):
    config = study.config.model_copy(update={"metric": "cross_entropy"})
    other = Study(config, study.store, study.sources)
    known = study.output("training.json")
    rows = [{**row, "metric_name": "cross_entropy"} for row in known["networks"]]
    monkeypatch.setattr(other, "output", lambda path: {"networks": rows} if path == "training.json" else None)
    assert re.split("  +", result_in_words(other)[0])[2] == "test cross-entropy (lower is better)"


def test_of_several_seeds_the_table_has_mean_and_deviation(study, monkeypatch):
    training = study.output("training.json")
    first = training["networks"][0]
    name = first["metric_name"]

    def seed(value):
        return {**first, "metrics": {**first["metrics"], "test": {**first["metrics"]["test"], name: value}}}

    rows = [{**seed(0.9), "repeats": [seed(0.8)]}, *training["networks"][1:]]
    known = study.output
    changed = {**training, "networks": rows}
    monkeypatch.setattr(study, "output", lambda path: changed if path == "training.json" else known(path))
    assert "85.00 % ± 7.07 points" in result_in_words(study)[1]


def test_what_was_measured_on_another_machine_is_in_the_table(study, monkeypatch):
    rows = [{"genotype": name, "status": "ok", "value": ms} for name, ms in (("0-0", 0.2), (study.winner, 0.1))]
    outputs = {**(study.output("verification.json") or {}), "whole": rows}
    known = study.output
    monkeypatch.setattr(study, "output", lambda name: outputs if name == "verification.json" else known(name))
    lines = result_in_words(study)
    assert "latency whole" in lines[0]
    assert "100 µs" in lines[1]
    assert "50.0 %" in lines[1]
    assert "–" in lines[4]  # a point, which was not measured there


def test_a_table_is_asked_what_it_is(tmp_path):
    (tmp_path / "x.csv").write_text("a,b")
    wish = Wish(model="m.py:f", checkpoint=None, data=str(tmp_path / "x.csv"), limits=[], out=tmp_path / "out")
    with pytest.raises(DataError, match=r"--data: found .*x.csv, a table, .* --data rows --set data.path=.*x.csv"):
        _data_of(wish)


def test_a_parquet_file_without_images_is_a_table_too(tmp_path):
    path = tmp_path / "x.parquet"
    wish = Wish(model="m.py:f", checkpoint=None, data=str(path), limits=[], out=tmp_path / "out")
    pq.write_table(pa.table({"a": [1.0, 2.0], "name": ["x.png", "y.png"]}), path)
    with pytest.raises(DataError, match=r"--data: found .*, a table, .* --data rows --set data.path=.*x.parquet"):
        _data_of(wish)
    for images in ([b"x"], [{"bytes": b"x", "path": None}]):
        pq.write_table(pa.table({"picture": images, "label": [0]}), path)
        assert _data_of(wish) == {"kind": "parquet", "path": str(path)}
    path.write_bytes(b"broken")
    assert _data_of(wish)["kind"] == "parquet"


def test_a_part_of_an_epoch_counts_as_a_part(study):
    rows = {row["role"]: row.get("more_epochs", 0.0) for row in study.output("training.json")["networks"]}
    trained = {row.role: row for row in summarise(study).training.networks}
    assert {role: row.num_epochs for role, row in trained.items()} == {role: 0.5 + more for role, more in rows.items()}
    assert all(row.curve[-1].epoch == row.num_epochs for row in trained.values())  # and is drawn as one


def test_points_are_handed_over_with_their_own_limits(study, tmp_path):
    (point,) = finished(study.store.root).points()
    assert (point.name, point.limits) == ("point-300-K", ("flops<=300 K",))
    handed_over(point, tmp_path, ("safetensors",))
    card = (tmp_path / "README.md").read_text()
    assert point.winner["genotype"] in card
    assert "flops<=300 K" in card
    rated = card.partition("## Rated")[2].partition("##")[0].splitlines()
    rows = {line.split("`")[1]: line.split("|")[2].strip() for line in rated if line.startswith("| `")}
    assert rows[point.winner["genotype"]] == "this network"
    assert rows[study.winner] == "the study's winner, trained alike"
    assert "chosen:" not in card  # what is said of the winner


def test_points_are_measured_whole_beside_the_winner_and_the_base(study):
    study.outputs.write("verification.json", {"inputs": study.inputs_of("verify"), "rounds": [], "winner": study.winner,
                                              "stands": True})  # fmt: skip
    try:
        resources, networks = to_time_whole(study)
        points = {point.genotype for point in study.points()}
    finally:
        study.store.delete("verification.json")
    assert resources == ["latency_ms"]
    assert set(networks) == points | {study.winner, str(study.base), *map(str, finalists(study.snapshot))}


@pytest.mark.parametrize(("given", "of_model", "said"), [(1, 3, 3), (3, 1, 1), (1, 1, None), (3, 3, None)])
def test_images_are_given_the_channels_that_the_model_takes(trained, tmp_path, given, of_model, said):
    """Gray images to a model of colour ones, and the other way round."""
    model, checkpoint = tmp_path / "mine.py", tmp_path / "mine.pth"
    model.write_text(
        f"from tests.benchmarks import teachers\n\ndef build():\n    return teachers.resnet({of_model}, 10)\n"
    )
    torch.save(teachers.resnet(of_model, 10).state_dict(), checkpoint)
    wish = replace(trained, model=f"{model}:build", data=str(image_folder(tmp_path / "images", given)))
    config = study_of(wish, {})
    assert config.space.in_channels == said
    assert family_of(config).sample.shape == (of_model, 8, 8)


def test_what_is_wrong_with_the_weights_is_said_whatever_channels_the_model_takes(trained, tmp_path):
    """Of a colour model and gray images: not that it takes three channels, which would be found by itself."""
    model = tmp_path / "mine.py"
    model.write_text("from tests.benchmarks import teachers\n\ndef build():\n    return teachers.resnet(3, 12)\n")
    torch.save(teachers.resnet(3, 10).state_dict(), tmp_path / "other.pth")
    gray = str(image_folder(tmp_path / "images", 1))
    for checkpoint, said in ((None, "other weights each time"), (tmp_path / "other.pth", "10 x 64, not 12 x 64")):
        with pytest.raises(DataError, match=said):
            study_of(replace(trained, model=f"{model}:build", checkpoint=checkpoint, data=gray), {})


@pytest.mark.parametrize(
    ("value", "guessed", "is_said"), [(0.97, 0.90, False), (0.905, 0.90, True), (0.1, 0.1, True), (1.0, 1.0, False)]
)
def test_a_model_that_learned_little_is_told_by_its_errors(value, guessed, is_said):
    told = Told(settings={}, metric=CLASSIFICATION["accuracy"], value=value, num_examples=31, guessed=guessed)
    assert ("hardly better than one answer for all" in told.in_words) is is_said


def image_folder(folder, channels):
    """The first 200 digits as files, in gray or in colour."""
    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images[:200], digits.target[:200], strict=True)):
        of_class = folder / str(label)
        of_class.mkdir(parents=True, exist_ok=True)
        gray = Image.fromarray((image * 15).astype("uint8"))
        (gray if channels == 1 else gray.convert("RGB")).save(of_class / f"{index}.png")
    return folder


def test_outputs_that_do_not_fit_the_data_are_one_line(tmp_path):
    """Said before anything is measured with them, which would end wherever the metric's code does."""
    rows = [f"{x},{x % 7},{x % 3},{x % 5},{2 * x}" for x in range(300)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,y,z,other,price", *rows]))
    data = {"data.path": str(tmp_path / "rows.csv"), "data.task": "regression", "data.targets": "[price, other]"}
    said = "build: outputs: found N x 1, expected N x 2, as data of kind rows want"
    with pytest.raises(ConfigError, match=said):
        study_of(wish_of_sums(tmp_path, "rows", 1.0, 0.0), data)


def test_a_limit_on_memory_prices_memory(trained):
    config = study_of(replace(trained, limits=["flops<=60%", "activation_bytes<=80%"]), {})
    assert config.profile.resources == ["flops", "params", "latency_ms", "activation_bytes"]
    assert study_of(replace(trained, limits=["latency<=60%"]), {}).profile.resources == [
        "flops",
        "params",
        "latency_ms",
    ]
