"""The loss of a training beside timm's and torch's own."""

import pytest
import torch
import torch.nn.functional as F

from nas_core.base.errors import NasError
from nas_core.training.objective import Objective
from nas_core.training.settings import Recipe, TeacherConfig
from nas_core.workloads.images.digits import Digits
from nas_core.workloads.settings import ImageSettings

DIGITS = Digits(ImageSettings())
OUTPUTS, LABELS = torch.randn(6, 10, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 9, 1, 1, 5])


def loss(outputs=OUTPUTS, targets=LABELS, taught=None, **given):
    objective = Objective(workload=DIGITS, recipe=Recipe(**given), teacher=taught and (lambda inputs: taught[0]))
    return objective.of(torch.zeros(6, 1, 8, 8), targets)(outputs)


def test_the_workloads_own_loss_with_its_smoothing():
    assert torch.equal(loss(label_smoothing=0.1), F.cross_entropy(OUTPUTS, LABELS, label_smoothing=0.1))


def test_mixed_targets_are_not_smoothed_twice():
    shares = F.one_hot(LABELS, 10).float() * 0.9 + 0.01
    assert torch.allclose(
        loss(targets=shares, mixup=0.1, label_smoothing=0.1), F.cross_entropy(OUTPUTS, LABELS, label_smoothing=0.1)
    )


def test_binary_cross_entropy_of_each_class():
    expected = F.binary_cross_entropy_with_logits(OUTPUTS, F.one_hot(LABELS, 10).float())
    assert torch.allclose(loss(loss="bce"), expected)
    shares = F.one_hot(LABELS, 10) * 0.7 + F.one_hot(LABELS.flip(0), 10) * 0.3
    both = shares.gt(0.2).float()
    expected = F.binary_cross_entropy_with_logits(OUTPUTS, both)
    assert torch.allclose(loss(targets=shares, loss="bce", target_threshold=0.2, mixup=0.1), expected)
    with pytest.raises(NasError, match=r"recipe\.loss"):
        loss(outputs=torch.randn(6, 1), targets=torch.randn(6, 3), loss="bce")


def test_agreement_with_a_teacher():
    taught = OUTPUTS.flip(0)
    settings = TeacherConfig(model="a.pt2", weight=0.25, temperature=2.0)
    soft, hard = (taught / 2).softmax(1), F.cross_entropy(OUTPUTS, LABELS)
    agreement = (soft * (soft.log() - (OUTPUTS / 2).log_softmax(1))).sum(1).mean()
    expected = 0.75 * hard + 0.25 * 4 * agreement
    assert torch.allclose(loss(taught=[taught], teacher=settings), expected)
    with pytest.raises(NasError, match=r"recipe\.teacher"):
        loss(taught=[torch.zeros(6, 3)], teacher=settings)
