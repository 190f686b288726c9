"""DeepMAD structures as torch modules: timm's ByobNet for the ResNet family, own blocks for the MobileNet family.

timm's bottleneck is the ResNet family's inner block, but for two things put
right here: it leaves out the projection of a first block that changes nothing,
which the authors always have. Its MobileNet-like blocks have no activation
after the sum and another squeeze-and-excitation, so those are written out.
"""

import torch
from torch import nn

from nas_core.base.torchvision_compat import define_missing_operators
from nas_core.deepmad.formulas import squeeze_channels
from nas_core.deepmad.structure import Structure, SuperBlock

define_missing_operators()

from timm.layers import ConvNormAct  # noqa: E402
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg  # noqa: E402


def build(structure: Structure, *, num_classes: int = 1000, in_channels: int | None = None) -> nn.Module:
    """The structure's network: B x in_channels x H x W images to B x num_classes logits, weights freshly drawn.

    With the skeleton's image channels (None) its parameters without the classifier, and its
    FLOPs in the counting of ``nas_core.deepmad.formulas``, equal the closed forms.
    """
    in_channels = in_channels or structure.skeleton.image_channels
    if structure.skeleton.family == "mobilenet":
        return MobileNet(structure, num_classes=num_classes, in_channels=in_channels)
    return _byobnet(structure, num_classes, in_channels)


def _byobnet(structure: Structure, num_classes: int, in_channels: int) -> nn.Module:
    blocks = tuple(
        ByoBlockCfg(
            type="bottle",
            d=block.depth,
            c=block.out,
            s=block.stride,
            br=block.bottleneck / block.out,
            gs=0,
            block_kwargs={"kernel_size": block.kernel},
        )
        for block in structure.blocks
    )
    config = ByoModelCfg(blocks=blocks, stem_chs=structure.stem, stem_type="3x3", stem_pool="", downsample="avg")
    net = ByobNet(config, num_classes=num_classes, in_chans=in_channels)
    for stage, c, block in zip(net.stages, structure.in_channels, structure.blocks, strict=True):
        first = stage[0]
        width = first.conv2_kxk.conv.out_channels
        assert width == block.bottleneck, f"timm made the bottleneck {width}, not {block.bottleneck}"
        if block.stride == 1 and c == block.out:
            first.shortcut = ConvNormAct(c, block.out, kernel_size=1, apply_act=False)
    module: nn.Module = net
    return module


def _conv(c: int, o: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, then BatchNorm."""
    conv = nn.Conv2d(c, o, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(o))


class SqueezeExcite(nn.Module):
    """Two 1x1 convolutions with BatchNorm on the pooled map, SiLU between them, a sigmoid gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = int(squeeze_channels(torch.tensor([channels]).numpy())[0])
        self.reduce = _conv(channels, squeezed)
        self.expand = _conv(squeezed, channels)
        self.act = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.act(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.expand(gate))


class DepthwiseBlock(nn.Module):
    """1x1 - depthwise kxk - SE - 1x1 with SiLU; a shortcut where the channels stay, pooled where the side halves."""

    def __init__(self, c: int, o: int, bottleneck: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.expand, self.act1 = _conv(c, bottleneck), nn.SiLU()
        self.depthwise, self.act2 = _conv(bottleneck, bottleneck, kernel, stride, groups=bottleneck), nn.SiLU()
        self.se = SqueezeExcite(bottleneck)
        self.project = _conv(bottleneck, o)
        self.shortcut = None if c != o else nn.AvgPool2d(2) if stride == 2 else nn.Identity()
        self.act3 = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act2(self.depthwise(self.act1(self.expand(x))))
        y = self.project(self.se(y))
        out: torch.Tensor = self.act3(y if self.shortcut is None else y + self.shortcut(x))
        return out


def _chain(c: int, block: SuperBlock) -> nn.Sequential:
    """The inner blocks of a super-block."""
    first = DepthwiseBlock(c, block.out, block.bottleneck, block.kernel, block.stride)
    rest = (DepthwiseBlock(block.out, block.out, block.bottleneck, block.kernel, 1) for _ in range(block.depth - 1))
    return nn.Sequential(first, *rest)


class MobileNet(nn.Module):
    """Stem, super-blocks of ``DepthwiseBlock``, 1x1 head, pooled classifier."""

    def __init__(self, structure: Structure, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(in_channels, structure.stem, 3, 2), nn.ReLU())
        pairs = zip(structure.in_channels, structure.blocks, strict=True)
        self.blocks = nn.Sequential(*(_chain(c, block) for c, block in pairs))
        last, head = structure.blocks[-1].out, structure.skeleton.head
        self.head = nn.Identity() if head is None else nn.Sequential(_conv(last, head), nn.ReLU())
        self.classifier = nn.Linear(head or last, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.head(self.blocks(self.stem(x)))
        logits: torch.Tensor = self.classifier(features.mean((2, 3)))
        return logits
