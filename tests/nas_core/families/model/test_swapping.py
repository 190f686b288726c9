"""Modules exchanged in a model that does what few do."""

import pytest
import torch
from torch import nn

from nas_core.families.model.swapping import reasons_against
from tests.nas_core.families.unusual import Images

pytestmark = pytest.mark.situations


class Learning(Images):
    """Follows gradients whatever it is told, as models do that adapt to their inputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            return super().forward(x)


def test_a_model_that_asks_for_gradients_itself_can_be_exchanged():
    torch.manual_seed(0)
    model, images = Learning(3, 5), torch.randn(2, 3, 8, 8)
    assert model(images).requires_grad
    paths = ["stem", *(f"blocks.{index}" for index in range(4))]
    assert reasons_against(model, images, paths) == {}
    model.blocks[1].register_forward_hook(lambda *_: None)
    assert list(reasons_against(model, images, paths)) == ["blocks.1"]
    assert isinstance(model.stem, nn.Conv2d)
