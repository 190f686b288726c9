"""What kinds of targets share: the loss of logits of which only the scale is wrong."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from nas_core.workloads.classification import ClassTargets
from nas_core.workloads.multi_label import LabelTargets
from nas_core.workloads.regression import NumberTargets
from nas_core.workloads.segmentation import MaskTargets
from nas_core.workloads.targets import calibrated_loss

CLASSES_N = torch.arange(60) % 3
LOGITS_NK = F.one_hot(CLASSES_N, 3) + torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
LOSS = partial(F.cross_entropy, target=CLASSES_N)


@pytest.mark.parametrize("times", [0.05, 1.0, 5.0])
def test_how_sure_a_network_is_does_not_count(times: float) -> None:
    tried = [LOGITS_NK * float(scale) for scale in torch.linspace(0.05, 7, 2000)]
    best = min(tried, key=lambda logits: float(61 * LOSS(logits) + LOSS(-logits)))  # one of 60 + 2 is the opposite
    assert calibrated_loss(times * LOGITS_NK, LOSS) == pytest.approx(float(LOSS(best)), rel=1e-3)
    assert calibrated_loss(LOGITS_NK, LOSS) == pytest.approx(min(float(LOSS(logits)) for logits in tried), rel=0.01)


@pytest.mark.parametrize("times", [0.05, 1.0, 20.0])
def test_networks_without_an_error_are_told_apart(times: float) -> None:
    """By how unequal the margins are: a few that are nearly errors make a worse network."""
    right = F.one_hot(CLASSES_N, 3).float()
    narrow = torch.where(torch.arange(60)[:, None] < 5, 0.05 * right, right)
    rated = [calibrated_loss(times * logits, LOSS) for logits in (right, narrow, LOGITS_NK)]
    assert 0 < rated[0] < 0.5 * rated[1]
    assert rated[1] < rated[2]
    assert rated == pytest.approx([calibrated_loss(logits, LOSS) for logits in (right, narrow, LOGITS_NK)], rel=1e-3)


def test_one_label_only_is_no_class_but_can_be_doubted() -> None:
    labels = torch.arange(60)[:, None] % 2 > 0
    loss = partial(F.binary_cross_entropy_with_logits, target=labels.float())
    sure, unsure = 2.0 * labels - 1.0, (2.0 * labels - 1.0) * (1 + torch.arange(60)[:, None] % 7)
    assert 0 < calibrated_loss(sure, loss) < calibrated_loss(unsure, loss)


def test_a_network_that_is_wrong_for_sure_is_as_good_as_guessing() -> None:
    assert float(LOSS(-9 * LOGITS_NK)) > 9
    assert calibrated_loss(-9 * LOGITS_NK, LOSS) == pytest.approx(torch.tensor(3.0).log().item(), abs=0.05)


def test_a_loss_that_is_no_number_stays_none() -> None:
    assert calibrated_loss(torch.full((60, 3), torch.nan), LOSS) != calibrated_loss(LOGITS_NK, LOSS)
    assert torch.tensor(calibrated_loss(torch.full((60, 3), torch.nan), LOSS)).isnan()


def test_targets_say_whether_outputs_are_logits() -> None:
    assert ClassTargets.are_logits
    assert LabelTargets.are_logits
    assert MaskTargets.are_logits
    assert not NumberTargets.are_logits
