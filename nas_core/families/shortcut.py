"""A residual block of linear layers; its own module, since ``blocks`` imports no torch."""

import torch
from torch import nn


class Shortcut(nn.Module):
    """BN, linear, activation, dropout, linear, added to the input: B x width to B x width."""

    def __init__(self, width: int, inner: int, act: nn.Module, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(width), nn.Linear(width, inner), act, nn.Dropout(dropout), nn.Linear(inner, width)
        )
        self.drop_path = nn.Identity()  # the place of a recipe's, called as timm's blocks do

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = x + self.drop_path(self.layers(x))
        return outputs
