"""Images that a table names: labels, numbers and classes of real images, and what is wrong in one line."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from nas_core.base.errors import DataError
from nas_core.families.family import FAMILIES
from nas_core.records.store import Store
from nas_core.space.genotypes import Genotype
from nas_core.training.export import load_exported
from nas_core.training.handover import checked_onnx, prepared
from nas_core.training.loop import value_of
from nas_core.training.settings import FullTrainingConfig, Recipe
from nas_core.training.winner import load_deployed, train_network
from nas_core.workloads.images.image_table import ImageTable
from tests.real_images import write_image_table

COUNT = 160
TAGS = ("wide", "tall", "pale", "lopsided")


@pytest.fixture(scope="module")
def csv_file(tmp_path_factory):
    return write_image_table(tmp_path_factory.mktemp("table"), COUNT)


def images(table, **settings) -> ImageTable:
    known = {"path": str(table), "images": str(Path(table).parent / "images"), "validation_examples": 20}
    return ImageTable(ImageTable.Settings(**{**known, **settings}))


def changed(csv_file, tmp_path, old: str, new: str):
    """The table with a text replaced once, beside the same images."""
    text = csv_file.read_text()
    assert old in text
    path = tmp_path / "images.csv"
    path.write_text(text.replace(old, new, 1))
    return path


def test_labels_in_columns_and_with_a_separator_are_the_same(csv_file):
    several = images(csv_file, task="multi-label", targets=list(TAGS))
    one = images(csv_file, task="multi-label", targets=["tags"])
    assert one.targets.names == tuple(sorted(TAGS))
    columns = [one.targets.names.index(tag) for tag in TAGS]
    _, targets = several.load().load_test()
    assert targets.shape == (COUNT // 5, 4)
    assert torch.equal(one.load().load_test()[1][:, columns], targets)
    assert next(iter(several.metrics)) == "macro_f1"
    assert "labels each" in dict(several.describe())["training split"]


def test_classes_by_name_and_numbers_from_parquet(csv_file, tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(pyarrow.csv.read_csv(csv_file), path)
    kinds = images(path, images=str(csv_file.parent / "images"), targets=["kind"])
    assert len(kinds.class_names) == 10
    assert kinds.load().train[1].dtype == torch.int64
    numbers = images(path, images=str(csv_file.parent / "images"), task="regression", targets=["bright_pct"])
    train, targets = numbers.load().train
    bright = (train.numpy() > 100).mean((1, 2, 3)) * 100
    assert np.allclose(bright, targets[:, 0], atol=0.01)


def test_without_a_column_of_splits_images_are_drawn_by_their_names(csv_file):
    workload = images(csv_file, targets=["bright_pct"], task="regression", split="")
    assert 15 < workload.num_test_images() < 55
    assert "one image in 5" in workload.notes()[0]


@pytest.mark.parametrize("hold", ["map", "stream"])
def test_images_are_held_as_any_set_holds_them(csv_file, hold):
    plain, other = (images(csv_file, task="multi-label", targets=["tags"], hold=way).load() for way in ("memory", hold))
    index = torch.arange(5)
    assert torch.equal(plain.train[0][index], other.train[0][index])
    assert torch.equal(plain.train[1], other.train[1])


def test_other_targets_are_other_data(csv_file, tmp_path):
    known = {"images": str(csv_file.parent / "images"), "task": "multi-label", "targets": ["tags"]}
    same = changed(csv_file, tmp_path, "00001.png", "00001.png")
    assert images(same, **known).identity == images(csv_file, **known).identity
    other = changed(csv_file, tmp_path, "|tall", "")
    assert images(other, **known).identity != images(csv_file, **known).identity


@pytest.mark.parametrize(
    ("old", "new", "settings", "words"),
    [
        ("image,", "file,", {}, "data.image: found 'image', no column of"),
        ("kind", "sort", {}, "data.targets: found 'kind'"),
        ("00003.png", "00002.png", {}, "found 00002.png in row 4 and row 5, expected one row per image"),
        ("00003.png", "gone.png", {}, r"1 of 160 images that cannot be read: gone.png \(No such file or directory\)"),
        ("00003.png", "", {}, "column image: found nothing in row 5"),
        ("", "", {"split": "spilt"}, "data.split: found 'spilt', no column of .*, expected of: image, split, kind"),
        ("", "", {"images": "/gone"}, "data.images: found /gone"),
        ("", "", {"path": "/gone.csv"}, "data.path: found /gone.csv"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(csv_file, tmp_path, old, new, settings, words):
    path = changed(csv_file, tmp_path, old, new)
    known = {"images": str(csv_file.parent / "images"), "targets": ["kind"]}
    with pytest.raises(DataError, match=words) as error:
        images(path, **{**known, **settings}).check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("known", "old"),
    [
        ({"targets": ["kind"]}, "00003.png"),
        ({"targets": ["middle_px"], "task": "regression"}, ""),
        ({"targets": ["wide", "tall"], "task": "multi-label"}, ""),
    ],
)
def test_rows_without_a_target_or_name_stop_or_are_left_out(csv_file, tmp_path, known, old):
    if old:
        path = changed(csv_file, tmp_path, old, "")
    else:  # the cell of the fourth image
        head, *rows = list(csv.reader(csv_file.read_text().splitlines()))
        rows[3][head.index(known["targets"][0])] = ""
        path = tmp_path / "changed.csv"
        path.write_text("\n".join(map(",".join, [head, *rows])))
    known = {**known, "images": str(csv_file.parent / "images")}
    with pytest.raises(DataError, match=r"found nothing in row 5, .*set data.on_error: skip to leave such rows out"):
        images(path, **known).check()
    workload = images(path, on_error="skip", **known)
    assert "left out: 1 of 160 rows, which have an empty cell" in workload.notes()[0]
    assert sum(map(len, (workload.contents().train, workload.contents().test))) == 159
    assert "00003.png" not in workload.contents().train.names_N


def test_missing_images_are_left_out_where_that_is_asked_for(csv_file, tmp_path):
    path = changed(csv_file, tmp_path, "00003.png", "gone.png")
    workload = images(path, images=str(csv_file.parent / "images"), targets=["kind"], on_error="skip")
    assert workload.num_images() == COUNT * 4 // 5 - 1
    assert "1 of 160 images cannot be read: gone.png" in workload.notes()[0]


@pytest.fixture(scope="module")
def trained(csv_file, tmp_path_factory):
    """A network trained to tell how bright an image is, in percent."""
    workload = images(csv_file, task="regression", targets=["bright_pct"])
    kind = FAMILIES["tiny"]
    family = kind(kind.Settings(resolution=16), workload.sample)
    store = Store(str(tmp_path_factory.mktemp("store")))
    recipe = Recipe(epochs=6, batch_size=16, lr=0.02, augment="none")
    config = FullTrainingConfig(recipe=recipe)
    network = family.space.architecture(Genotype((1, 0, 1)))
    return workload, store, train_network(network, config, workload, seed=0, device="cpu", store=store, name="winner")


def test_numbers_are_learnt_and_handed_over_in_their_unit(trained):
    workload, store, result = trained
    assert result.metrics["test"]["r2"] > 0.5
    json.dumps(result.details)
    module, _ = load_deployed(store, "winner")
    inputs, targets = workload.load((1, 16, 16)).load_test()
    with torch.no_grad():
        given = module(inputs)
        floats = prepared(module)(inputs.float() / 255)
    assert float((given[:, 0] - targets[:, 0]).abs().mean()) == pytest.approx(
        result.metrics["test"]["mean_absolute_error"], rel=1e-3
    )
    assert torch.allclose(given, floats, atol=1e-2)
    metric = workload.metrics["rmse"]
    assert value_of(metric, module.scale(given), targets) == pytest.approx(result.metrics["test"]["rmse"], rel=1e-3)
    program = load_exported(store.read_bytes(result.program_path))
    assert torch.allclose(program(inputs), given, atol=1e-2)
    _, check = checked_onnx(module, workload, "mean_absolute_error")
    ours, files = check.metrics["mean_absolute_error"]
    assert [ours, files] == pytest.approx([result.metrics["test"]["mean_absolute_error"]] * 2, rel=1e-3)


def test_examples_are_shown_with_their_picture(trained):
    shown = trained[2].details["shown"]
    assert len(shown) == 12
    assert shown[0]["words"].startswith("bright_pct ")
    assert [name for name, _ in shown[0]["pictures"]] == ["input"]


def test_the_unit_of_numbers_is_of_images_that_are_trained_on(csv_file, tmp_path):
    """Not of one that cannot be read, whatever the table says of it."""
    head, *rows = list(csv.reader(csv_file.read_text().splitlines()))
    rows[3][head.index("image")], rows[3][head.index("bright_pct")] = "gone.png", "1e9"
    path = tmp_path / "images.csv"
    path.write_text("\n".join(map(",".join, [head, *rows])))
    known = {"images": str(csv_file.parent / "images"), "task": "regression", "targets": ["bright_pct"]}
    scale = images(path, on_error="skip", **known).targets.scale
    assert 0 < scale.mean[0] < 100
    path.write_text("\n".join(map(",".join, [head, *rows[:3], *rows[4:]])))
    assert images(path, **known).targets.scale == scale


@pytest.mark.parametrize("task", ["regression", "multi-label", "classification"])
def test_metrics_are_named_without_the_data(csv_file, task):
    known = {"classification": ["kind"], "multi-label": list(TAGS), "regression": ["bright_pct", "middle_px"]}
    there = images(csv_file, task=task, targets=known[task])
    away = images("/gone/table.csv", images=None, task=task, targets=known[task])
    assert [each.measure for each in away.metrics.values()] == [each.measure for each in there.targets.metrics.values()]


def test_an_image_that_is_overwritten_is_noticed_by_the_process_that_has_looked_at_it(csv_file, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(csv_file.parent / "images", folder)
    shutil.copy(csv_file, tmp_path / "table.csv")
    workload = images(tmp_path / "table.csv", targets=["kind"])
    before = workload.fingerprint()
    shutil.copy(folder / "00001.png", folder / "00000.png")
    assert images(tmp_path / "table.csv", targets=["kind"]).fingerprint() != before
    assert workload.identity["content"] == workload.fingerprint() != before
