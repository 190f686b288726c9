"""A class for every pixel: metrics against a slow obvious computation, and pixels that do not count."""

import numpy as np
import pytest
import torch

from nas_core.workloads.segmentation import IGNORED, SEGMENTATION, MaskTargets, counted

NAMES = ("sky", "sea", "sand")
TARGETS = MaskTargets(names=NAMES, values=(0, 1, 2))


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(5, 3, 6, 7, generator=generator)
    targets = torch.randint(0, 3, (5, 6, 7), generator=generator).byte()
    targets[:, 0, :] = IGNORED
    return outputs, targets


def slow(outputs, targets) -> dict[str, float]:
    found, true = outputs.argmax(1).numpy().ravel(), targets.numpy().ravel()
    found, true = found[true != IGNORED], true[true != IGNORED]
    ious, dices = [], []
    for number in range(3):
        both = ((found == number) & (true == number)).sum()
        ious.append(both / ((found == number) | (true == number)).sum())
        dices.append(2 * both / ((found == number).sum() + (true == number).sum()))
    logs = torch.log_softmax(outputs.double(), 1).permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    kept = targets.numpy().ravel() != IGNORED
    nats = -logs[kept][np.arange(len(true)), true].mean()
    return {
        "mean_iou": np.mean(ious),
        "pixel_accuracy": (found == true).mean(),
        "mean_dice": np.mean(dices),
        "cross_entropy": nats,
    }


def test_metrics_are_those_of_the_whole_split(pair):
    assert {name: metric.of(*pair) for name, metric in SEGMENTATION.items()} == pytest.approx(slow(*pair), rel=1e-5)


def test_counts_of_parts_give_the_same(pair):
    outputs, targets = pair
    parts = torch.cat([counted(outputs[:2], targets[:2]), counted(outputs[2:], targets[2:])])
    for metric in SEGMENTATION.values():
        assert metric.of(parts, targets) == pytest.approx(metric.of(outputs, targets), rel=1e-5)


def test_the_loss_is_the_mean_over_the_pixels_that_count(pair):
    assert float(TARGETS.loss(*pair)) == pytest.approx(slow(*pair)["cross_entropy"], rel=1e-5)
    nothing = torch.full((1, 4, 4), IGNORED).byte()
    assert float(TARGETS.loss(torch.randn(1, 3, 4, 4), nothing)) == 0


def test_a_class_that_nobody_has_or_finds_is_left_out_of_the_mean():
    outputs = torch.zeros(1, 3, 2, 2)
    outputs[:, 0] = 1
    assert SEGMENTATION["mean_iou"].of(outputs, torch.zeros(1, 2, 2).byte()) == 1


def test_masks_as_maps_and_back():
    targets = torch.tensor([[[0, 2], [IGNORED, 1]]]).byte()
    assert torch.equal(TARGETS.of_maps(TARGETS.as_maps(targets)), targets)
    assert TARGETS.of_maps(torch.zeros(1, 1, 2, 2)).unique().tolist() == [IGNORED]


def test_every_class_has_its_row(pair):
    rows = TARGETS.details(*pair)["table"]["rows"]
    assert [row[0] for row in rows] == list(NAMES)
    assert TARGETS.details(counted(*pair), pair[1])["table"]["rows"] == rows
