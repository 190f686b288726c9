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
    tried = [float(LOSS(LOGITS_NK * float(scale))) for scale in torch.linspace(0.05, 7, 2000)]
    assert calibrated_loss(times * LOGITS_NK, LOSS) == pytest.approx(min(tried), rel=1e-4)


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
