"""Modules exchanged in a model that does what few do, and copies of such a model."""

import pytest
import torch
from torch import nn

from nas_core.base.errors import SpaceError
from nas_core.families.model.swapping import check_copies, reasons_against
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


class Held(Images):
    """A function made in __init__ holds the model, of which a copy has a function that holds this one."""

    def __init__(self, what: str) -> None:
        super().__init__(3, 5)
        self.what, self.seen = what, {}
        if what == "block":
            self.first = lambda x: self.blocks[0](self.stem(x))
        elif what in ("feature", "old"):
            self.blocks[2].register_forward_hook(lambda _, __, output: self.seen.update(feature=output))
        if what == "old":
            self.seen["feature"] = torch.zeros(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.what == "draw":
            return super().forward(x) + torch.randn(1)
        if self.what in ("feature", "old"):
            return super().forward(x) + self.seen["feature"].mean()
        outputs: torch.Tensor = self.head(self.blocks[1](self.first(x)).mean((2, 3)))
        return outputs


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("block", r"a copy that computes with the first one's blocks\.0\..*holds `self`"),
        ("feature", r"a copy that stops \(KeyError: 'feature'\)"),
        ("old", "a copy that computes with something of the first one's"),
    ],
)
def test_a_model_whose_copy_computes_with_the_model_s_own_is_refused(what, said):
    torch.manual_seed(0)
    with pytest.raises(SpaceError, match=said):
        check_copies(Held(what).eval(), torch.randn(2, 3, 8, 8))


def test_what_a_copy_does_by_itself_is_right_and_what_cannot_be_copied_is_said():
    torch.manual_seed(0)
    check_copies(Images(3, 5), torch.randn(2, 3, 8, 8))
    check_copies(Held("draw"), torch.randn(2, 3, 8, 8))  # other outputs each time: that is said elsewhere
    model = Images(3, 5)
    model.kept = model(torch.randn(2, 3, 8, 8))
    with pytest.raises(SpaceError, match=r"one that cannot be copied .*Does it keep a tensor of a forward pass"):
        check_copies(model, torch.randn(2, 3, 8, 8))


class Following(nn.Module):
    """Takes away the mean of what it was given so far."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean.mul_(0.9).add_(0.1 * x.mean())
        return self.scale * (x - self.mean)


def test_buffers_that_a_forward_pass_changes_are_named():
    torch.manual_seed(0)
    with pytest.raises(SpaceError, match=r"two outputs for one input, as .*: between\.0\.mean, .*2\.mean and 1 more,"):
        reasons_against(Images(3, 5, Following), torch.randn(2, 3, 8, 8), ["stem"])
