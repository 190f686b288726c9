"""Trained models to make faster: small ones that converge here, made by functions as a user's own are."""

from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)

import torch  # isort: skip
from timm.models._efficientnet_blocks import InvertedResidual  # isort: skip
from timm.layers import LayerNorm2d  # isort: skip
from timm.models.convnext import ConvNeXtBlock  # isort: skip
from timm.models.resnet import BasicBlock, downsample_conv  # isort: skip
from timm.models.vision_transformer import VisionTransformer  # isort: skip
from torch import nn

# what a teacher's training has of its own, by the function that makes it
RECIPES: dict[str, dict[str, object]] = {
    "resnet20": {"name": "resnet-cifar", "weight_decay": 1e-4, "epochs": 164},
    "resnet56": {"name": "resnet-cifar", "weight_decay": 1e-4, "epochs": 164},
    "wide": {"name": "resnet-cifar", "weight_decay": 5e-4, "epochs": 30},
    "convnext": {"optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.05, "epochs": 20},  # it converges late
    "vit": {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05, "epochs": 20},
}

LAYER_SCALE = 0.1  # of ConvNeXt's blocks at first: with the usual 1e-6, few epochs leave them nearly unused


class PaddedShortcut(nn.Module):
    """Every second pixel, and channels of zeros for those that are missing: a shortcut without weights (option A)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.missing = stride, out_channels - in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))


class SmallResNet(nn.Module):
    """A ResNet for small images (He et al., 2016, section 4.2): 3x3 stem, three stages, pool, linear."""

    def __init__(
        self, in_channels: int, num_outputs: int, depth: int, width: int, stride: int, *, padded: bool = False
    ) -> None:
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
                    convolution = downsample_conv(channels, planes, kernel_size=1, stride=stride)
                    shortcut = PaddedShortcut(channels, planes, stride) if padded else convolution
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


def resnet20(in_channels: int = 3, num_outputs: int = 10) -> nn.Module:
    """He et al.'s ResNet-20 for CIFAR-10: 40.6 M multiply-adds, 0.27 M parameters."""
    return SmallResNet(in_channels, num_outputs, depth=3, width=16, stride=1, padded=True)


def resnet56(in_channels: int = 3, num_outputs: int = 10) -> nn.Module:
    """He et al.'s ResNet-56 for CIFAR-10: 125.5 M multiply-adds, 0.85 M parameters."""
    return SmallResNet(in_channels, num_outputs, depth=9, width=16, stride=1, padded=True)


def wide(in_channels: int = 3, num_outputs: int = 10) -> nn.Module:
    """ResNet-20 of four times the width: 650 M multiply-adds, 4.3 M parameters; what a GPU has to compute for."""
    return SmallResNet(in_channels, num_outputs, depth=3, width=64, stride=1)


class SmallMobileNet(nn.Module):
    """A MobileNetV2 for small images (Sandler et al., 2018): stem, three stages of inverted residuals, 1x1, pool."""

    def __init__(self, in_channels: int, num_outputs: int, depth: int, width: int, expand: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, 2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        stages, channels = [], width
        for stage in range(3):
            planes, blocks = width * 2**stage, []
            for index in range(depth):
                stride = 2 if stage and index == 0 else 1
                blocks.append(InvertedResidual(channels, planes, stride=stride, exp_ratio=expand))
                channels = planes
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.last = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.BatchNorm2d(2 * channels), nn.ReLU()
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * channels, num_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.last(self.stages(self.stem(x))))
        return outputs


def mobilenet(in_channels: int, num_outputs: int, depth: int = 2, width: int = 16, expand: int = 4) -> nn.Module:
    """Three stages of ``depth`` inverted residuals (depthwise 3x3), ``width`` to 4 x ``width`` channels."""
    return SmallMobileNet(in_channels, num_outputs, depth, width, expand)


class SmallConvNeXt(nn.Module):
    """A ConvNeXt for small images (Liu et al., 2022): 2x2 patches, three stages of timm's blocks, pool, linear."""

    def __init__(self, in_channels: int, num_outputs: int, depth: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 2, 2), LayerNorm2d(width))
        stages, channels = [], width
        for stage in range(3):
            planes, first = width * 2**stage, []
            if stage:
                first = [nn.Sequential(LayerNorm2d(channels), nn.Conv2d(channels, planes, 2, 2))]
            stages.append(
                nn.Sequential(*first, *(ConvNeXtBlock(planes, ls_init_value=LAYER_SCALE) for _ in range(depth)))
            )
            channels = planes
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), LayerNorm2d(channels), nn.Flatten(), nn.Linear(channels, num_outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.stages(self.stem(x)))
        return outputs


def convnext(in_channels: int, num_outputs: int, depth: int = 2, width: int = 24) -> nn.Module:
    """Three stages of ``depth`` blocks (depthwise 7x7, MLP of four times the width), ``width`` to 4 x ``width``."""
    return SmallConvNeXt(in_channels, num_outputs, depth, width)


def vit(in_channels: int, num_outputs: int, depth: int = 4, width: int = 64) -> nn.Module:
    """timm's vision transformer on 16 patches, 4 heads; grey images have 28 pixels a side, those in colour 32."""
    side = 28 if in_channels == 1 else 32
    return VisionTransformer(
        img_size=side,
        patch_size=side // 4,
        in_chans=in_channels,
        num_classes=num_outputs,
        embed_dim=width,
        depth=depth,
        num_heads=4,
        global_pool="avg",
    )
