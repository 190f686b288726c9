"""Several labels an example: metrics are scikit-learn's, the loss learns, a missing label is said."""

import numpy as np
import pytest
import torch
from sklearn import metrics as theirs

from nas_core.base.errors import DataError
from nas_core.workloads.multi_label import MULTI_LABEL, LabelTargets

TARGETS = LabelTargets(names=("a", "b", "c"))


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    logits = np.round(rng.normal(size=(200, 3)), 1)  # with ties
    true = (logits + rng.normal(size=logits.shape) > 0.3).astype(np.uint8)
    return torch.from_numpy(logits).float(), torch.from_numpy(true)


def test_metrics_are_scikit_learns(pair):
    outputs, targets = (each.numpy() for each in pair)
    found = outputs > 0
    expected = {
        "macro_f1": theirs.f1_score(targets, found, average="macro"),
        "micro_f1": theirs.f1_score(targets, found, average="micro"),
        "mean_average_precision": theirs.average_precision_score(targets, outputs, average="macro"),
        "subset_accuracy": theirs.accuracy_score(targets, found),
        "hamming_accuracy": 1 - theirs.hamming_loss(targets, found),
        "binary_cross_entropy": theirs.log_loss(targets.ravel(), 1 / (1 + np.exp(-outputs.astype(np.float64).ravel()))),
    }
    assert {name: metric.of(*pair) for name, metric in MULTI_LABEL.items()} == pytest.approx(expected, abs=1e-6)


def test_every_label_has_its_row(pair):
    head, rows = TARGETS.details(*pair)["table"].values()
    assert head[0] == "label"
    recall = theirs.recall_score(pair[1][:, 1], pair[0][:, 1] > 0)
    assert rows[1][:3] == ["b", str(int(pair[1][:, 1].sum())), f"{100 * recall:.1f} %"]


def test_smoothing_moves_targets_towards_a_half(pair):
    outputs, targets = pair
    plain, smooth = (float(TARGETS.loss(outputs, targets, share)) for share in (0.0, 0.2))
    assert plain == pytest.approx(MULTI_LABEL["binary_cross_entropy"].of(outputs, targets), abs=1e-6)
    assert smooth == pytest.approx(float(TARGETS.loss(outputs, targets * 0.8 + 0.1)), abs=1e-6)


def test_a_label_without_an_example_is_said():
    lacks = np.array([[1, 0, 1], [0, 0, 1]])
    with pytest.raises(DataError, match="no test row with label b"):
        TARGETS.check({"train": np.ones((2, 3)), "test": lacks}, "x.csv", "row")
