"""A small model to test with, as a user's own factory makes one: the same weights each time."""

from collections.abc import Iterator

import torch
from torch import nn

from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)
from nas_core.families.model.draft import Call

from timm.models.vision_transformer import Block  # isort: skip


class Residual(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = x + self.body(x)
        return outputs


def small_network(in_channels: int, num_outputs: int, depth: int = 3, width: int = 16) -> nn.Module:
    """A stem, ``depth`` residual blocks, a pool and a linear layer: B x in_channels x H x W to B x num_outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = [Residual(width) for _ in range(depth)]
        stem = nn.Conv2d(in_channels, width, 3, padding=1)
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_outputs))
        return nn.Sequential(stem, *blocks, head)


def example_blocks() -> Iterator[tuple[str, nn.Module, Call]]:
    """A convolutional block, a row of two and a transformer's, with inputs to call them with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pairs = [
            ("convolutional", Residual(16), (16, 8, 8)),
            ("row", nn.Sequential(Residual(16), Residual(16)), (16, 8, 8)),
            ("transformer", Block(24, num_heads=3), (9, 24)),
        ]
        for name, block, shape in pairs:
            yield name, block.eval().requires_grad_(False), Call(inputs=torch.randn(8, *shape))
