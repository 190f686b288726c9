"""Data that a study's networks or recipes cannot serve are refused in one line, before anything is computed."""

import pytest
import yaml

from tests.command import mathnas, refused
from tests.real_images import write_image_table, write_pairs
from tests.test_readme import ROOT

OWN = '''"""A model of the user's own: outputs for every pixel."""

from torch import nn


class Down(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, x):
        return x + self.layers(x)


def build(in_channels, num_outputs, width=8):
    blocks = [Down(width) for _ in range(3)]
    return nn.Sequential(nn.Conv2d(in_channels, width, 3, 1, 1), *blocks, nn.Conv2d(width, num_outputs, 1))
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    write_pairs(place / "pairs", 40)
    write_image_table(place, 60)
    (place / "own.py").write_text(OWN)
    (place / "dense.yaml").write_text((ROOT / "flows/configs/dense-example.yaml").read_text())
    (place / "wrong.yaml").write_text((place / "dense.yaml").read_text().replace("scale: 2", "scale: 4"))
    return place


SEGMENTATION = {"kind": "segmentation", "path": "pairs", "validation_examples": 8}
NUMBERS = {"kind": "image-table", "path": "images.csv", "images": "images", "task": "regression"}
NUMBERS |= {"targets": ["bright_pct"], "validation_examples": 8}
CLASSIFIER = {"kind": "model", "model": "nas_core.testing.example_model:small_network"}


def study(folder, **sections):
    path = folder / "study.yaml"
    plain = {"name": "own", "profile": {"resources": ["flops", "params"]}, "scorer": {"kind": "train"}}
    path.write_text(yaml.safe_dump({**plain, **sections}))
    return path


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"space": {"kind": "tiny"}, "data": SEGMENTATION}, "which head conv-pool-linear of space tiny gives"),
        ({"space": {"kind": "yaml", "file": "wrong.yaml"}, "data": SEGMENTATION}, "outputs: found N x 2 x 56 x 56, "
         "expected N x 2 x 28 x 28, as data of kind segmentation want"),
        ({"space": CLASSIFIER, "data": SEGMENTATION}, "outputs: found N x 2, expected N x 2 x 28 x 28"),
        ({"space": {"kind": "yaml", "file": "dense.yaml"}, "data": SEGMENTATION, "train": {"recipe": {"mixup": 0.2}}},
         "train.recipe.mixup: found 0.2, expected none for data of kind segmentation"),
        ({"space": {"kind": "tiny"}, "data": NUMBERS, "scorer": {"kind": "train", "recipe": {"loss": "bce"}}},
         "scorer.recipe.loss: found bce, expected workload for data of kind image-table: targets are numbers"),
        ({"space": {"kind": "tiny"}, "data": {**NUMBERS, "normalise": {"mean": [0.5] * 2, "std": [0.2] * 2}}},
         "data.normalise.mean: found 2 numbers, expected"),
        ({"space": {"kind": "tiny"}, "data": {**NUMBERS, "kind": "rows", "features": ["wide", "tall"]}},
         "found rows of shape 2, expected images"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(folder, sections, words):
    sections = {**sections, "data": dict(sections["data"].items())}
    if sections["data"]["kind"] == "rows":
        del sections["data"]["images"]
    assert words in refused("run", study(folder, **sections), "--root", folder / "root")


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"data": {"kind": "digits", "path": "mine"}}, "expected none for digits, which come with scikit-learn"),
        ({"select": {"limits": ["flops<=-5%"]}}, "'flops<=-5%': found -5%, expected an amount above 0"),
        ({"select": {"top": 2, "min_distance": 4}}, "select.min_distance: found 4, expected 3 at most"),
        ({"design": {"networks": 2}}, "design.networks: found 2, expected 3 at least, as many as can be fitted to"),
        ({"space": {"kind": "choices", "positions": {"a": [1, 2]}}, "scorer": {"kind": "tabular", "path": "t.csv",
          "choices": ["a"], "metric": "acc"}, "profile": {"resources": []}},
         "space choices: found 2 networks, expected 3 at least, as many as can be fitted to"),
        ({"train": {"recipe": {"warmup": "200 %"}}}, "train.recipe.warmup: found '200 %', expected an amount such as"),
    ],
)  # fmt: skip
def test_what_no_network_could_keep_is_one_line(folder, sections, words):
    (folder / "t.csv").write_text("a,acc\n1,0.5\n2,0.6\n")
    assert words in refused("run", study(folder, **{"space": {"kind": "tiny"}, **sections}), "--root", folder / "root")


@pytest.mark.parametrize("space", [{"kind": "model", "model": "own.py:build"}, {"kind": "yaml", "file": "dense.yaml"}])
def test_a_model_of_ones_own_or_a_space_without_python_takes_masks(folder, space):
    printed = mathnas("run", study(folder, space=space, data=SEGMENTATION), "--root", folder / "root", "--dry-run")
    assert "one of 2 classes for every pixel: 0, 1" in printed.stdout


DESIGN = {"program": {"resolution": 32, "strides": [1, 2], "flops": "4 M"}}
ROWS = {
    **{key: value for key, value in NUMBERS.items() if key != "images"},
    "kind": "rows",
    "ignore": ["image", "tags"],
}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"data": SEGMENTATION}, "data.kind: found segmentation, with a map for each, expected images with classes"),
        ({"data": ROWS}, "data.kind: found rows, with inputs that are no images"),
        ({"data": NUMBERS, "train": {"recipe": "deit"}}, "train.recipe.mixup: found 0.8, expected none for data of"),
        ({"data": NUMBERS, "train": {"recipe": {"batch_size": 10, "accumulate": 2}, "workers": 2, "sync_norm": True}},
         "train.recipe.batch_size: found 10, expected a multiple of 4"),
    ],
)  # fmt: skip
def test_what_a_design_cannot_be_trained_on_is_said_before_it_is_solved(folder, sections, words):
    path = folder / "design.yaml"
    path.write_text(yaml.safe_dump({"name": "own", **DESIGN, **sections}))
    assert words in refused("run-design", path, "--root", folder / "design")
