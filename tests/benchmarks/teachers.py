"""Trained models to make faster: small ones that converge here, made by functions as a user's own are."""

from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)

import torch  # isort: skip
from timm.models.resnet import BasicBlock, downsample_conv  # isort: skip
from torch import nn


class SmallResNet(nn.Module):
    """A ResNet for small images (He et al., 2016, section 4.2): 3x3 stem, three stages, pool, linear."""

    def __init__(self, in_channels: int, num_outputs: int, depth: int, width: int, stride: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        stages, channels = [], width
        for stage in range(3):
            planes, blocks = width * 2**stage, []
            for index in range(depth):
                stride = 2 if stage and index == 0 else 1
                shortcut = None
                if stride > 1 or channels != planes:
                    shortcut = downsample_conv(channels, planes, kernel_size=1, stride=stride)
                blocks.append(BasicBlock(channels, planes, stride=stride, downsample=shortcut))
                channels = planes
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.stages(self.stem(x)))
        return outputs


def resnet(in_channels: int, num_outputs: int, depth: int = 2, width: int = 16, stride: int = 2) -> nn.Module:
    """Three stages of ``depth`` basic blocks, ``width`` to 4 x ``width`` channels; ``stride`` is the stem's."""
    return SmallResNet(in_channels, num_outputs, depth, width, stride)
