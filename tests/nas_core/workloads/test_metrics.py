"""Metrics are scikit-learn's, whatever is missing from the data."""

import numpy as np
import pytest
import sklearn.metrics as sk
import torch

from nas_core.training.loop import TrainingDiverged, value_of
from nas_core.workloads.classification import CLASSIFICATION, confusion
from nas_core.workloads.metrics import Measure
from nas_core.workloads.regression import REGRESSION


def logits_and_labels(num_classes: int, seed: int, num: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes never occur, one of them is never predicted either."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(1, num_classes - 2), num)
    logits = rng.normal(size=(num, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    logits[:, -1] -= 100
    return torch.from_numpy(logits).float(), torch.from_numpy(labels)


def plain_calibration_error(truth, probabilities):
    """As it is defined, bin by bin."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("num_classes", [3, 7, 12])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_classification_is_scikit_learns(num_classes, seed):
    logits, labels = logits_and_labels(num_classes, seed)
    truth, guess = labels.numpy(), logits.argmax(1).numpy()
    probabilities = logits.double().softmax(1).numpy()
    expected = {
        "accuracy": sk.accuracy_score(truth, guess),
        "top5_accuracy": 1.0
        if num_classes <= 5
        else sk.top_k_accuracy_score(truth, probabilities, k=5, labels=range(num_classes)),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, guess),
        "macro_f1": sk.f1_score(truth, guess, average="macro"),
        "cross_entropy": sk.log_loss(truth, probabilities, labels=range(num_classes)),
        "calibration_error": plain_calibration_error(truth, probabilities),
    }
    assert (np.array(confusion(logits, labels)) == sk.confusion_matrix(truth, guess, labels=range(num_classes))).all()
    found = {name: metric.of(logits, labels) for name, metric in CLASSIFICATION.items()}
    assert found == pytest.approx(expected, abs=1e-9)


def test_accuracy_comes_first_and_only_losses_and_errors_are_better_when_lower():
    assert next(iter(CLASSIFICATION)) == "accuracy"
    lower = [name for name, metric in CLASSIFICATION.items() if not metric.higher_is_better]
    assert lower == ["cross_entropy", "calibration_error"]


@pytest.mark.parametrize("shape", [(100,), (100, 1), (100, 3)])
def test_regression_is_scikit_learns(shape):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=shape)
    guess = truth + 0.3 * rng.normal(size=shape)
    outputs = torch.from_numpy(guess.reshape(len(guess), -1))
    expected = {
        "mean_absolute_error": sk.mean_absolute_error(truth, guess),
        "rmse": np.sqrt(sk.mean_squared_error(truth, guess)),
        "r2": sk.r2_score(truth, guess),
    }
    assert {name: m.of(outputs, torch.from_numpy(truth)) for name, m in REGRESSION.items()} == pytest.approx(expected)


def test_what_is_no_number_is_no_value():
    labels = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(TrainingDiverged, match="outputs that are no finite numbers"):
        value_of(CLASSIFICATION["accuracy"], torch.full((2, 3), float("nan")), labels)
    with pytest.raises(TrainingDiverged, match="found r2 nan"):  # targets without variance
        value_of(REGRESSION["r2"], torch.zeros(2, 1), torch.zeros(2, 1))


def test_a_measure_is_plain_data():
    metric = CLASSIFICATION["macro_f1"]
    assert metric.measure == Measure(name="macro_f1", label="macro F1", higher_is_better=True, is_fraction=True)
