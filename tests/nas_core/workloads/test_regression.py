"""Numbers: networks learn them in units of their deviation, metrics and what is handed over are in their own."""

import numpy as np
import pytest
import torch
from sklearn import metrics as theirs

from nas_core.base.errors import DataError
from nas_core.workloads.regression import NumberTargets

RNG = np.random.default_rng(0)
TRUE = np.stack([RNG.normal(1e5, 2e4, 50), RNG.normal(0.5, 0.01, 50)], axis=1).astype(np.float32)
TARGETS = NumberTargets.of(("price", "share"), TRUE)


def test_metrics_are_in_the_targets_own_units():
    one = NumberTargets.of(("price",), TRUE[:, :1])
    found = TRUE[:, :1] + RNG.normal(0, 5000, (50, 1)).astype(np.float32)
    outputs, targets = one.scale(torch.from_numpy(found)), torch.from_numpy(TRUE[:, :1])
    expected = {
        "mean_absolute_error": theirs.mean_absolute_error(TRUE[:, 0], found),
        "rmse": theirs.root_mean_squared_error(TRUE[:, 0], found),
        "r2": theirs.r2_score(TRUE[:, 0], found),
    }
    assert {name: each.of(outputs, targets) for name, each in one.metrics.items()} == pytest.approx(expected, rel=1e-4)
    assert next(iter(one.metrics)) == "mean_absolute_error"


def test_of_several_numbers_the_one_without_a_unit_is_first():
    assert next(iter(TARGETS.metrics)) == "r2"
    assert TARGETS.metrics["rmse"].label == "RMSE (mean over 2 numbers)"
    assert NumberTargets.of(("price",), TRUE[:, :1]).metrics["rmse"].label == "RMSE"
    assert TARGETS.metrics["r2"].of(torch.zeros(50, 2), torch.from_numpy(TRUE)) == pytest.approx(0, abs=1e-4)


def test_the_loss_is_of_numbers_alike_in_size():
    loss = TARGETS.loss(torch.zeros(50, 2), torch.from_numpy(TRUE))
    assert float(loss) == pytest.approx(1, rel=1e-2)


def test_a_model_that_was_trained_elsewhere_may_give_numbers_in_their_unit():
    mine, true = NumberTargets.of(("price", "share"), TRUE, in_units=True), torch.from_numpy(TRUE)
    found = true * 1.1
    for name, metric in mine.metrics.items():
        scaled = TARGETS.metrics[name].of(TARGETS.scale(found), true)
        assert metric.of(found, true) == pytest.approx(scaled, rel=1e-3)
    assert float(mine.loss(found, true)) == pytest.approx(float(TARGETS.loss(TARGETS.scale(found), true)), rel=1e-4)
    taught = TARGETS.agreement(TARGETS.scale(found), TARGETS.scale(true), 1.0)
    assert float(mine.agreement(found, true, 1.0)) == pytest.approx(float(taught), rel=1e-4)
    assert mine.scale.mean == ()  # what is handed over changes nothing of the outputs
    assert mine.details(true, true)["scatter"][0]["predicted"] == pytest.approx(TRUE[:, 0].tolist())


def test_what_is_kept_of_the_test_split_is_in_units():
    details = TARGETS.details(TARGETS.scale(torch.from_numpy(TRUE)), torch.from_numpy(TRUE))
    price, share = details["scatter"]
    assert price["predicted"] == pytest.approx(TRUE[:, 0].tolist(), rel=1e-4)
    assert share["true"] == pytest.approx(TRUE[:, 1].tolist())
    assert [row[0] for row in details["table"]["rows"]] == ["price", "share"]


def test_a_number_that_never_changes_is_said():
    flat = np.stack([TRUE[:, 0], np.ones(50)], axis=1)
    with pytest.raises(DataError, match="share 1 in every train row"):
        NumberTargets.of(("price", "share"), flat).check({"train": flat}, "x.csv", "row")
