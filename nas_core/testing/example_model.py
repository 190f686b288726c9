"""A small model to test with, as a user's own factory makes one: the same weights each time."""

import torch
from torch import nn


class _Residual(nn.Module):
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
        blocks = [_Residual(width) for _ in range(depth)]
        stem = nn.Conv2d(in_channels, width, 3, padding=1)
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_outputs))
        return nn.Sequential(stem, *blocks, head)
