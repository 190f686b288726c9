"""What MLflow's pages say, as text: figures, names, preprocessing, within MLflow's limits."""

import json

import pytest

from tasks.descriptions import MOST_TAG_LETTERS, describe_model, describe_study, tags_of_model
from tests.nas_core.study.test_rounds import scored, verified

pytestmark = pytest.mark.situations
GIVEN = {"values": "images as floats in [0, 1] or as uint8", "shape": [3, 32, 32], "mean": [0.5], "std": [0.25]}
ROW = {
    "genotype": "2-0-1",
    "metric_name": "macro_f1",
    "metrics": {"test": {"accuracy": 0.875, "macro_f1": 0.8125}},
    "num_test_examples": 1000,
    "num_train_examples": 4000,
    "seed": 3,
    "wall_s": 61.2,
    "device": "a CPU",
    "costs": {"flops": 2_500_000.0, "params": 12_000.0},
    "output_names": ["daisy", "größe"],
}


def test_a_model_says_what_it_takes_gives_and_is_worth():
    text = describe_model("flowers", ROW, GIVEN)
    assert "test macro f1 0.8125, test accuracy 0.8750 (1,000 test examples, seed 3)" in text
    assert "N x 3 x 32 x 32, images as floats in [0, 1] or as uint8" in text
    assert "mean [0.5], std [0.25]" in text
    assert "daisy, größe" in text
    assert "2.50 M multiply-adds, 12.0 k parameters" in text


def test_a_program_reads_the_same_of_the_tags():
    tags = tags_of_model(ROW, GIVEN)
    assert json.loads(tags["mathnas.class_names"]) == ["daisy", "größe"]
    assert json.loads(tags["mathnas.preprocessing"]) == GIVEN
    assert float(tags["mathnas.test_macro_f1"]) == 0.8125


def test_a_thousand_classes_fit_into_the_page():
    row = {**ROW, "output_names": [f"a class with quite a long name, {number}" for number in range(1000)]}
    assert "and 900 more" in describe_model("many", row, GIVEN)
    assert all(len(value) <= MOST_TAG_LETTERS for value in tags_of_model(row, GIVEN).values())


def test_a_study_that_trains_nothing_is_described_by_its_evaluations(tabular_config, tmp_path):
    study, scorer = scored(tabular_config, tmp_path / "my study")
    verified(study, scorer)
    text = describe_study(study, "#/report")
    (winner,) = [row for row in study.evaluations() if row.genotype == study.winner]
    assert text.startswith(f"**Winner** `{study.winner}`, [report.html](#/report)")
    assert f"mean acc {winner.metric:.4f}" in text
    assert f"{len(study.evaluations())} of 6,561 networks, 0 failed" in text
    assert f"`mathnas run '{tmp_path}/my study/study.yaml' --root '{tmp_path}/my study'`" in text
    assert "`params<=2 M`" in text
