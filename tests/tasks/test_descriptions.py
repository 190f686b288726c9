"""What MLflow's pages say, as text: figures, names, preprocessing, within MLflow's limits."""

import json

import pytest

from nas_core.study.rounds import record_whole
from tasks.descriptions import (
    MOST_TAG_LETTERS,
    _sums,
    describe_model,
    describe_study,
    input_of_model,
    measured_whole,
    tags_of_model,
)
from tests.nas_core.study.test_rounds import _whole, scored, verified

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


@pytest.mark.parametrize(
    ("more", "values"),
    [
        ({}, "images of this size as floats in [0, 1]"),
        ({"own_units": True}, "images of this size as floats in the data's own units"),
        ({"shape": [16], "values": "floats"}, "floats"),
    ],
)
def test_a_model_takes_images_of_one_size_in_the_units_of_the_data(more, values):
    assert input_of_model({**GIVEN, **more}) == {**GIVEN, **more, "values": values}


def test_what_is_a_sum_over_blocks_and_what_was_measured_whole_is_told_apart():
    row = {**ROW, "costs": {**ROW["costs"], "latency_ms": 0.0211}, "measured": {"latency_ms": 0.0262}}
    text = describe_model("flowers", row, GIVEN)
    assert "- costs: 2.50 M multiply-adds, 12.0 k parameters, 21.1 µs (sum over blocks)\n" in text
    assert "- measured whole: 26.2 µs\n" in text


def test_a_program_reads_the_same_of_the_tags():
    tags = tags_of_model(ROW, GIVEN)
    assert json.loads(tags["mathnas.class_names"]) == ["daisy", "größe"]
    assert json.loads(tags["mathnas.preprocessing"]) == GIVEN
    assert float(tags["mathnas.test_macro_f1"]) == 0.8125


def test_a_thousand_classes_fit_into_the_page():
    row = {**ROW, "output_names": [f"a class with quite a long name, {number}" for number in range(1000)]}
    assert "and 900 more" in describe_model("many", row, GIVEN)
    assert all(len(value) <= MOST_TAG_LETTERS for value in tags_of_model(row, GIVEN).values())


def test_what_the_chosen_network_takes_whole_is_of_those_that_were_measured(tabular_config, tmp_path):
    study, scorer = scored(tabular_config, tmp_path)
    verified(study, scorer)
    assert measured_whole(study, study.winner) == {}
    trained = [{"costs": {"flops": 1e6, "latency_ms": 0.0211}}]
    assert _sums(study, trained) == ["- latency: sums over blocks"]
    chosen, base = _whole(study, study.winner, over=2.0)
    chosen |= {"resource": "latency_ms", "value": 0.0262}
    record_whole(study.outputs, [chosen, {**base, "status": "failed", "value": None}])
    assert measured_whole(study, study.winner) == {"latency_ms": 0.0262}
    assert measured_whole(study, base["genotype"]) == {}
    assert _sums(study, trained) == ["- latency: sums over blocks; measured whole, the winner takes 26.2 µs"]


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
