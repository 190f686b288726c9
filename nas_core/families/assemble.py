"""An architecture (plain data) becomes a torch module: stem, one block per position, head.

Block kinds are timm's modules where timm has them. Their names, parameters
and ranges are in ``nas_core.families.kinds``.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from nas_core.base.names import Names
from nas_core.families import kinds
from nas_core.families.timm_compat import (
    BasicBlock,
    Bottleneck,
    ConvNeXtBlock,
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
    LayerNorm2d,
    SqueezeExcite,
    downsample_conv,
    get_act_layer,
)
from nas_core.space.genotypes import ABSENT, Architecture, BlockSpec, PlacedBlock

BlockBuilder = Callable[..., nn.Module]  # (in_channels, out_channels, stride, *, every parameter of the kind)
BLOCKS = Names[BlockBuilder]("block kind")
STEMS = Names[BlockBuilder]("stem kind")  # (in_channels, *, every parameter of the kind)
HEADS = Names[BlockBuilder]("head kind")  # (in_channels, num_classes, *, every parameter of the kind)


class Network(nn.Module):
    """Stem, one block per position, head.

    Input B x in_channels x resolution x resolution, output logits B x num_classes.
    """

    def __init__(self, stem: nn.Module, blocks: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(x)
        return logits


def assemble(architecture: Architecture, generator: torch.Generator | None = None) -> Network:
    """The architecture's network with fresh weights, in training mode, on torch's default device.

    Weights come from ``generator``, or from torch's global one: the same state gives the same weights.

    Raises:
        SpaceError: if a kind or a parameter is wrong, or a block cannot stand at its position.
    """
    stem = build_stem(architecture.stem, architecture.in_channels, generator)
    blocks = [build_block(placed, generator) for placed in architecture.blocks]
    width = architecture.blocks[-1].out_channels
    return Network(stem, blocks, build_head(architecture.head, width, architecture.num_classes, generator))


def build_block(placed: PlacedBlock, generator: torch.Generator | None = None) -> nn.Module:
    """The block as a module: B x in_channels x H x W to B x out_channels x ceil(H / stride) x ceil(W / stride).

    Raises:
        SpaceError: if the kind or a parameter is wrong, or the block cannot stand there.
    """
    params = kinds.check_placed(placed)
    build = BLOCKS[placed.block.kind]
    return initialise(build(placed.in_channels, placed.out_channels, placed.stride, **params), generator)


def build_stem(spec: BlockSpec, in_channels: int, generator: torch.Generator | None = None) -> nn.Module:
    """The stem as a module, from images to the first position; raises SpaceError as ``build_block`` does."""
    params = kinds.resolved(kinds.STEM_KINDS, spec)
    return initialise(STEMS[spec.kind](in_channels, **params), generator)


def build_head(
    spec: BlockSpec, in_channels: int, num_classes: int, generator: torch.Generator | None = None
) -> nn.Module:
    """The head as a module, from the last position to logits; raises SpaceError as ``build_block`` does."""
    params = kinds.resolved(kinds.HEAD_KINDS, spec)
    return initialise(HEADS[spec.kind](in_channels, num_classes, **params), generator)


def initialise(module: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """The module with fresh weights: He's normal for convolutions, a narrow normal for linear layers.

    A grouped convolution's fan is that of one group, as in timm's EfficientNets
    (He et al. 2015 with torch's own fan would scale depthwise weights to nothing).
    Normalisation layers and layer scales keep the values of their constructors.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out), generator=generator)
        elif isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02, generator=generator)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return module


def _conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


def _act(name: str) -> nn.Module:
    act: nn.Module = get_act_layer(name)(inplace=True) if name != "gelu" else nn.GELU()
    return act


def _squeeze(ratio: float, gate: str) -> Callable[..., nn.Module] | None:
    """Squeeze-and-excitation that keeps ``ratio`` of the channels, or None for ratio 0."""
    if not ratio:
        return None
    layer: Callable[..., nn.Module] = partial(
        SqueezeExcite, rd_ratio=ratio, gate_layer=gate, force_act_layer=nn.ReLU, rd_round_fn=_at_least_one
    )
    return layer


def _at_least_one(channels: float) -> int:
    return max(1, round(channels))


@BLOCKS.add("identity")
def _identity(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(*_conv_bn(in_channels, out_channels, 1, stride))


@BLOCKS.add(ABSENT)
def _absent(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return nn.Identity()


@BLOCKS.add("mbconv")
def _mbconv(
    in_channels: int, out_channels: int, stride: int, *, kernel: int, expand: float, se: float, gate: str, act: str
) -> nn.Module:
    block: nn.Module = InvertedResidual(
        in_channels,
        out_channels,
        dw_kernel_size=kernel,
        stride=stride,
        exp_ratio=expand,
        act_layer=get_act_layer(act),
        se_layer=_squeeze(se, gate),
    )
    return block


@BLOCKS.add("fused-mbconv")
def _fused_mbconv(
    in_channels: int, out_channels: int, stride: int, *, kernel: int, expand: float, se: float, gate: str, act: str
) -> nn.Module:
    block: nn.Module = EdgeResidual(
        in_channels,
        out_channels,
        exp_kernel_size=kernel,
        stride=stride,
        exp_ratio=expand,
        act_layer=get_act_layer(act),
        se_layer=_squeeze(se, gate),
    )
    return block


@BLOCKS.add("separable")
def _separable(
    in_channels: int, out_channels: int, stride: int, *, kernel: int, se: float, gate: str, act: str
) -> nn.Module:
    block: nn.Module = DepthwiseSeparableConv(
        in_channels,
        out_channels,
        dw_kernel_size=kernel,
        stride=stride,
        act_layer=get_act_layer(act),
        se_layer=_squeeze(se, gate),
    )
    return block


@BLOCKS.add("conv")
def _conv(in_channels: int, out_channels: int, stride: int, *, kernel: int, act: str) -> nn.Module:
    return nn.Sequential(*_conv_bn(in_channels, out_channels, kernel, stride), _act(act))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    shortcut: nn.Module = downsample_conv(in_channels, out_channels, kernel_size=1, stride=stride)
    return shortcut


@BLOCKS.add("basic")
def _basic(in_channels: int, out_channels: int, stride: int, *, reduce: int, act: str) -> nn.Module:
    block: nn.Module = BasicBlock(
        in_channels,
        out_channels,
        stride=stride,
        downsample=_shortcut(in_channels, out_channels, stride),
        reduce_first=reduce,
        act_layer=get_act_layer(act),
    )
    return block


@BLOCKS.add("bottleneck")
def _bottleneck(in_channels: int, out_channels: int, stride: int, *, ratio: float, act: str) -> nn.Module:
    block: nn.Module = Bottleneck(
        in_channels,
        out_channels // Bottleneck.expansion,
        stride=stride,
        downsample=_shortcut(in_channels, out_channels, stride),
        base_width=64 * ratio * Bottleneck.expansion,  # timm's inner width is planes * base_width / 64
        act_layer=get_act_layer(act),
    )
    return block


@BLOCKS.add("pool")
def _pool(in_channels: int, out_channels: int, stride: int, *, kernel: int, mode: str) -> nn.Module:
    pool: nn.Module = nn.MaxPool2d(kernel, stride, padding=kernel // 2)
    if mode == "avg":
        pool = nn.AvgPool2d(kernel, stride, padding=kernel // 2, count_include_pad=False)
    return pool if in_channels == out_channels else nn.Sequential(pool, *_conv_bn(in_channels, out_channels, 1, 1))


@BLOCKS.add("convnext")
def _convnext(
    in_channels: int, out_channels: int, stride: int, *, kernel: int, expand: float, layer_scale: float
) -> nn.Module:
    block: nn.Module = ConvNeXtBlock(
        in_channels,
        out_channels,
        kernel_size=kernel,
        stride=stride,
        mlp_ratio=expand,
        ls_init_value=layer_scale or None,
    )
    return block


@STEMS.add("conv")
def _conv_stem(in_channels: int, *, out_channels: int, kernel: int, stride: int, act: str) -> nn.Module:
    return nn.Sequential(*_conv_bn(in_channels, out_channels, kernel, stride), _act(act))


@STEMS.add("conv-pool")
def _conv_pool_stem(in_channels: int, *, out_channels: int, kernel: int, act: str) -> nn.Module:
    return nn.Sequential(*_conv_bn(in_channels, out_channels, kernel, 2), _act(act), nn.MaxPool2d(3, 2, padding=1))


@STEMS.add("patchify")
def _patchify_stem(in_channels: int, *, out_channels: int, patch: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, patch, patch), LayerNorm2d(out_channels))


@HEADS.add("conv-pool-linear")
def _conv_pool_linear(
    in_channels: int, num_classes: int, *, channels: int, hidden: int, act: str, dropout: float
) -> nn.Module:
    layers = [*_conv_bn(in_channels, channels, 1, 1), _act(act), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if hidden:
        layers += [nn.Linear(channels, hidden), _act(act)]
    return nn.Sequential(*layers, *_dropout(dropout), nn.Linear(hidden or channels, num_classes))


@HEADS.add("pool-linear")
def _pool_linear(in_channels: int, num_classes: int, *, dropout: float) -> nn.Module:
    layers = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), *_dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(in_channels, num_classes))


def _dropout(share: float) -> list[nn.Module]:
    return [nn.Dropout(share)] if share else []
