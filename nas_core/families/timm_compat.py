"""The one place timm is imported from, so that ``torchvision_compat`` always comes first."""

from nas_core.base.torchvision_compat import define_missing_operators

define_missing_operators()

from timm.layers import LayerNorm2d, get_act_layer  # noqa: E402
from timm.models._efficientnet_blocks import (  # noqa: E402
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
    SqueezeExcite,
)
from timm.models.convnext import ConvNeXtBlock  # noqa: E402
from timm.models.resnet import BasicBlock, Bottleneck, downsample_conv  # noqa: E402

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "ConvNeXtBlock",
    "DepthwiseSeparableConv",
    "EdgeResidual",
    "InvertedResidual",
    "LayerNorm2d",
    "SqueezeExcite",
    "define_missing_operators",
    "downsample_conv",
    "get_act_layer",
]
