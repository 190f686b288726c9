"""Rows of real tables: features standardised by the training rows, categories, what is wrong in one line."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_wine

from nas_core.base.errors import DataError
from nas_core.families.family import FAMILIES
from nas_core.space.genotypes import Genotype
from nas_core.training.loop import measure_all, train
from nas_core.training.settings import Recipe
from nas_core.workloads.rows import Rows
from tests.test_readme import ROOT


@pytest.fixture(scope="module")
def wines(tmp_path_factory):
    """178 wines: thirteen measurements, the cultivar by name, and a made-up category that tells it half of the time."""
    bunch = load_wine()
    path = tmp_path_factory.mktemp("wines") / "wines.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*bunch.feature_names, "shop", "cultivar"])
        for index, (row, kind) in enumerate(zip(bunch.data, bunch.target, strict=True)):
            writer.writerow([*row, f"shop {kind if index % 2 else 0}", bunch.target_names[kind]])
    return path


def rows(path, **settings) -> Rows:
    known = {"path": str(path), "targets": ["cultivar"], "validation_examples": 30}
    return Rows(Rows.Settings(**{**known, **settings}))


def test_numbers_are_standardised_by_the_training_rows_and_categories_stay(wines):
    workload = rows(wines)
    splits = workload.load()
    assert workload.sample.shape == (16,)
    assert splits.output_names == ("class_0", "class_1", "class_2")
    prepared = splits.prepare(splits.train[0])
    assert prepared[:, :13].mean(0).abs().max() < 1e-4
    assert (prepared[:, :13].std(0) - 1).abs().max() < 1e-3
    assert set(prepared[:, 13:].unique().tolist()) == {0.0, 1.0}
    assert (prepared[:, 13:].sum(1) == 1).all()
    assert len(splits.train[1]) + len(splits.validation[1]) + len(splits.load_test()[1]) == 178


def test_a_network_of_layers_learns_them(wines):
    workload = rows(wines)
    splits = workload.load()
    kind = FAMILIES["yaml"]
    family = kind(kind.Settings(file=str(ROOT / "flows/configs/rows-example.yaml")), workload.sample)
    network = family.module(Genotype((0, 0, 0)), torch.Generator().manual_seed(0))
    recipe = Recipe(epochs=12, batch_size=16, lr=0.05)
    train(network, recipe, splits, workload, seed=0, device="cpu")
    found = measure_all(network, workload.metrics, splits.load_test(), splits.prepare, device="cpu", workload=workload)
    assert found["accuracy"] > 0.9
    for genotype in (Genotype((2, 3, 3)), Genotype((1, 1, 2))):
        assert family.module(genotype).eval()(splits.train[0][:3]).shape == (3, 3)
        shapes = [part.shapes for part in family.parts(genotype)]
        assert shapes[0] == ((16,),)
        assert shapes[-1] == ((64,),)


def test_the_id_is_of_what_is_used(wines, tmp_path):
    moved = tmp_path / "moved.csv"
    moved.write_bytes(wines.read_bytes())
    assert rows(moved).identity == rows(wines).identity
    moved.write_bytes(wines.read_bytes().replace(b"class_0", b"class_2", 1))
    assert rows(moved).identity != rows(wines).identity


def test_a_value_that_only_test_rows_have_is_none_of_the_categories(tmp_path):
    path = tmp_path / "x.csv"
    lines = [f"{n},{'ab'[n % 2]},{n % 2},train" for n in range(8)] + ["1,c,0,test", "2,a,1,test"]
    path.write_text("\n".join(["x,shop,kind,split", *lines]))
    workload = rows(path, targets=["kind"], validation_examples=2)
    assert workload.table.names == ("x", "shop = a", "shop = b")
    assert workload.load().load_test()[0].tolist() == [[1, 0, 0], [2, 1, 0]]


def test_rows_with_an_empty_cell_stop_or_are_left_out(tmp_path):
    path = tmp_path / "x.csv"
    lines = [f"{'' if n == 3 else n},{n % 2},{'test' if n % 3 == 0 else 'train'}" for n in range(12)]
    path.write_text("\n".join(["x,kind,split", *lines]))
    with pytest.raises(DataError, match="column x: found nothing in row 5"):
        rows(path, targets=["kind"], validation_examples=2).check()
    workload = rows(path, targets=["kind"], validation_examples=2, on_error="skip")
    assert "left out: 1 of 12 rows, which have an empty cell" in workload.notes()[0]
    assert len(workload.load().load_test()[1]) == 3


def test_what_is_left_out_is_what_would_stop(tmp_path):
    path = tmp_path / "x.parquet"
    shops = [" " if n == 3 else "ab"[n % 2] for n in range(20)]
    tags = [None if n % 4 == 0 else "p" if n % 2 else "p|q" for n in range(20)]
    sizes = [float("inf") if n == 9 else n for n in range(20)]
    splits = ["train" if n % 5 else "test" for n in range(20)]
    pq.write_table(pa.table({"shop": shops, "size": sizes, "tags": tags, "split": splits}), path)
    known = {"targets": ["tags"], "task": "multi-label", "validation_examples": 2}
    with pytest.raises(DataError, match="column shop: found nothing in row 4"):
        rows(path, ignore=["size"], **known).check()
    workload = rows(path, ignore=["size"], on_error="skip", **known)
    assert "left out: 1 of 20 rows" in workload.notes()[0]
    assert len(workload.table.targets_N) == 19  # an empty cell of labels is an example without any
    with pytest.raises(DataError, match="column size: found inf in row 10"):
        rows(path, on_error="skip", **known).check()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"path": "gone.csv"}, "data.path: found .*gone.csv, expected a CSV or Parquet file"),
        ({"targets": ["grape"]}, "data.targets: found 'grape', no column"),
        ({"features": ["alcohol", "cultivar"]}, "data.features: found cultivar, which is predicted"),
        ({"categorical": ["colour"]}, "data.categorical: found 'colour'"),
        ({"validation_examples": 500}, "data.validation_examples: found 500"),
        ({"task": "regression"}, "column cultivar: found 'class_0' in row 2, expected numbers"),
        ({"split": "spilt"}, "data.split: found 'spilt', no column of"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(wines, settings, words):
    with pytest.raises(DataError, match=words):
        rows(**{"path": wines, **settings}).check()


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_rows_too_few_to_draw_test_rows_from_are_refused(tmp_path, task):
    path = tmp_path / "x.csv"
    path.write_text("x,kind\n1,0\n2,1\n")
    with pytest.raises(DataError, match=r"x.csv: found no test row, expected one of each split at least"):
        rows(path, targets=["kind"], task=task, validation_examples=1).check()


def test_examples_are_shown_with_their_target_first(wines):
    workload = rows(wines)
    inputs, targets = workload.load().load_test()
    shown = workload.shown(inputs[:2], torch.eye(3)[:2], targets[:2])
    assert [name for name, _ in shown[0]["cells"]][:3] == ["class", "taken for", "alcohol"]
    assert dict(shown[0]["cells"])["shop"].startswith("shop ")
    assert np.isclose(float(dict(shown[1]["cells"])["alcohol"]), float(inputs[1, 0]))
