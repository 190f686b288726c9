"""What is said of a file's latency, of what stands where in a network, and of data of one's own."""

import re
import shlex
from dataclasses import replace

import pytest

from flows.export_command import handed_over
from nas_core.report.card import _change, _chosen_anew, _whole, latency_in_words
from nas_core.report.collect import summarise
from nas_core.report.text import format_metric
from nas_core.study.as_given import GIVEN, measure_as_given
from nas_core.study.finished import FileLatency, finished
from nas_core.workloads import WORKLOADS
from tests.command import mathnas
from tests.flows.test_export_command import RECIPE, model_config, run_here


@pytest.mark.parametrize(("kept", "is_told"), [(0, True), (1, False), (2, False)])
def test_a_limit_that_does_not_hold_says_what_to_do(kept, is_told):
    latency = FileLatency(
        file="model.onnx",
        device="CPU",
        batch_size=1,
        num_threads=1,
        winner_ms=(1.0, 1.2),
        base_ms=(2.0, 2.0),
        kept={"latency_ms<=50%": kept},
    )
    *lines, last = latency_in_words([latency], "this chooses anew.")
    assert f"The limit latency_ms<=50% holds on model.onnx in {kept} of 2 times." in (*lines, last)
    assert (last == "It was chosen by other measurements. Where little else runs, this chooses anew.") == is_told


def test_how_far_repeats_lie_apart_is_said_without_a_time_that_none_took():
    """The value is of the faster half: less by half the distance between percentiles may be less than nothing."""
    row = {"genotype": "0-1", "resource": "latency_ms", "value": 0.0251, "spread": 0.0326}
    row |= {"batch_size": 1, "num_threads": 1, "num_repeats": 9, "device": "a board"}
    assert "measured whole: 25.1 µs, the middle 80 % of runs within 65.2 µs (batch 1," in _whole(row)


LINEAR, POOL, PASSED_ON = {"class": "Linear"}, {"class": "AvgPool2d", "kernel_size": 1}, {"class": "Identity"}


@pytest.mark.parametrize(
    ("put", "said"),
    [
        ({"class": "Only", "inner": LINEAR}, "replaced by one Linear"),
        ({"class": "Only", "inner": PASSED_ON}, "replaced by nothing: what comes in goes out"),
        (
            {"class": "Only", "inner": {"class": "Sequential", "layers": [POOL, LINEAR]}},
            "replaced by one AvgPool2d, then one Linear",
        ),
        ({"class": "Only", "inner": {"class": "Conv2d", "kernel_size": [1, 1]}}, "replaced by one Conv2d of 1 x 1"),
        ({"class": "Nothing"}, "replaced by nothing, which adds zeros"),
        ({"class": "Sequential", "layers": []}, "replaced by nothing: what comes in goes out"),
    ],
)
def test_what_stands_in_a_blocks_place_is_said_without_the_loaders_own_classes(put, said):
    assert _change({"put": put}) == said


OWN = """
import torch
from nas_core import Sample, dataset_workload
from nas_core.workloads.classification import CLASSIFICATION

METRICS = [CLASSIFICATION[name] for name in ("cross_entropy", "accuracy")]
SAMPLE = Sample(shape=(1, 8, 8), num_outputs=10)


@dataset_workload("patches", sample=SAMPLE, loss=torch.nn.functional.cross_entropy, metrics=METRICS, normalise=False)
def patches(settings):
    "Squares of numbers that are no fractions."
    images = 3 * torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sets = torch.utils.data.TensorDataset(images, torch.arange(400) % 10)
    return sets, sets
"""


@pytest.fixture(scope="module")
def study_of_own_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "patches.py").write_text(OWN)
    recipe = {**RECIPE, "augment": "crop-flip"}
    config = model_config(plugins=[str(folder / "patches.py")], data={"kind": "patches", "validation_examples": 100})
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"recipe": config.train.recipe.model_copy(update=recipe)})}
    )
    yield run_here(config, folder / "study")
    WORKLOADS._entries.pop("patches")


def card_of(study, folder):
    handed_over(finished(study.store.root), folder, ["safetensors"])
    return (folder / "README.md").read_text()


def test_of_own_data_is_said_what_was_done_with_them_and_no_more(study_of_own_data, tmp_path):
    text = card_of(study_of_own_data, tmp_path)
    assert "B x 1 x 8 x 8, as the data have them (bytes: fractions from 0 to 1); any B" in text
    assert "became squares" not in text
    assert "'augment': 'none'" in text
    assert "crop" not in text + summarise(study_of_own_data).training.recipe


def test_the_commands_that_choose_anew_are_whole(study_of_own_data, tmp_path):
    done, folder = finished(study_of_own_data.store.root), tmp_path / "a folder"
    run, export = re.findall("`mathnas (.*?)`", _chosen_anew(done, folder))
    planned = mathnas(*shlex.split(run), "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert mathnas(*shlex.split(export), "--format", "safetensors").returncode == 0
    assert (folder / "model.safetensors").exists()
    assert "mathnas export" not in _chosen_anew(replace(done, name="point-1"), folder)  # which writes the winner only


def test_every_metric_of_the_model_as_it_was_given_is_told(study_of_own_data, tmp_path):
    measured = measure_as_given(study_of_own_data)
    head, row = "| test accuracy | test cross-entropy (lower is better) |", "| the model as it was given | {} | {} |"
    assert head in card_of(study_of_own_data, tmp_path)
    metrics = study_of_own_data.scorer.workload.metrics
    cells = [format_metric(metrics[name], measured[name]) for name in ("accuracy", "cross_entropy")]
    assert row.format(*cells) in card_of(study_of_own_data, tmp_path)
    assert summarise(study_of_own_data).training.as_given == measured["cross_entropy"]
    known = study_of_own_data.store.read_json(GIVEN)
    earlier = {"of": known["of"], "value": measured["cross_entropy"]}  # as earlier versions wrote it
    study_of_own_data.store.write_json(GIVEN, earlier)
    assert measure_as_given(study_of_own_data) == {"cross_entropy": measured["cross_entropy"]}
    assert row.format("", cells[1]) in card_of(study_of_own_data, tmp_path)
    study_of_own_data.store.write_json(GIVEN, known)
