"""Kinds of blocks, stems and heads: one class each, with its settings, where it fits, and how it is built.

A kind's settings are checked without torch; ``build`` imports torch, and timm's
modules where timm has them. To add a kind, write a class below, or in a plug-in.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from nas_core.base.errors import SpaceError
from nas_core.base.registry import Registered, Registry
from nas_core.base.settings import Section
from nas_core.base.words import allowed_values, first_error, plain
from nas_core.space.genotypes import ABSENT, BlockSpec, PlacedBlock, Scalar

if TYPE_CHECKING:
    from torch import nn

IMAGES, ROWS = "images", "rows"
STRIDES = (1, 2)  # of a position; every kind then maps a side of H pixels to ceil(H / stride)


class BlockSettings(Section):
    """Settings of a kind: numbers are numbers, not texts that look like them."""

    model_config = ConfigDict(strict=True)


class _Kind(Registered, ABC):
    """What block, stem and head kinds share: settings that stand in the space's plain data."""

    Settings = BlockSettings
    takes: ClassVar[frozenset[str]] = frozenset({IMAGES})  # of what a network may be: B C H W, or B F

    def __init__(self, settings: Section) -> None:
        self.settings: Any = settings


class BlockKind(_Kind):
    """A block that can stand at a position: from ``in_channels`` to ``out_channels`` with ``stride``.

    One that takes rows maps B x in_channels to B x out_channels, where the stride is 1.
    """

    def misfit(self, place: PlacedBlock) -> str:
        """What the place would have to be for the block to fit there; "" if it fits."""
        return ""

    @abstractmethod
    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        """The module: B x in_channels x H x W to B x out_channels x ceil(H / stride) x ceil(W / stride)."""


class StemKind(_Kind):
    """What turns images into the first position's input; its settings have ``out_channels``."""

    @abstractmethod
    def build(self, in_channels: int) -> "nn.Module":
        """The module, from images to ``settings.out_channels`` channels."""

    @property
    def stride(self) -> int | None:
        """By how much it makes images smaller, each way; None where nothing says so. Pages show it, nothing else."""
        return getattr(self.settings, "stride", None)


class HeadKind(_Kind):
    """What turns the last position's output into the network's outputs.

    ``dense`` says that it gives outputs for every pixel: B x num_outputs x H x W.
    """

    dense: ClassVar[bool] = False

    @property
    def adds_input(self) -> bool:
        """Whether what it gives is added to the network's own input (``AddsInput``)."""
        return False

    @abstractmethod
    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        """The module: B x in_channels x H x W to B x num_outputs."""


BLOCKS = Registry[BlockKind]("block kind", BlockKind)
STEMS = Registry[StemKind]("stem kind", StemKind)
HEADS = Registry[HeadKind]("head kind", HeadKind)


def kind_of(kinds: Registry[Any], spec: BlockSpec, where: str = "") -> Any:
    """The kind with the spec's settings, ready to build; ``where`` leads messages: the position, or a place in a file.

    Raises:
        SpaceError: for an unknown kind, or an unknown, missing or impossible setting.
    """
    where = where or f"{kinds.kind} {spec.kind}"
    if spec.kind not in kinds:
        raise SpaceError(f"{where}.kind", repr(spec.kind), f"one of: {', '.join(kinds)}")
    kind = kinds[spec.kind]
    try:
        return kind(kind.Settings.model_validate(dict(spec.params)))
    except ValidationError as error:
        raise _wrong_setting(kind, spec, where, error) from None


def _wrong_setting(kind: type[_Kind], spec: BlockSpec, where: str, error: ValidationError) -> SpaceError:
    path, found, record = first_error(error)
    fields = kind.Settings.model_json_schema()["properties"] if kind.Settings.model_fields else {}
    name = ".".join(map(str, path))
    if name not in fields:
        if not name:
            return SpaceError(where, str(spec), plain(record["msg"]))
        expected = f"one of: {', '.join(fields) or 'no parameters'}"
        return SpaceError(f"{where}.{name}", f"{found!r} ({spec.kind} does not know it)", expected)
    if record["type"] == "missing":
        expected = f"{allowed_values(fields[name])} ({spec.kind} requires it)"
        return SpaceError(f"{where}.{name}", "nothing", expected)
    return SpaceError(f"{where}.{name}", repr(found), allowed_values(fields[name]))


def settings_of(kinds: Registry[Any], spec: BlockSpec, where: str = "") -> dict[str, Scalar]:
    """Every setting of the spec's kind, as given or by default; raises as ``kind_of``."""
    return dict(kind_of(kinds, spec, where).settings.model_dump())


def check_placed(placed: PlacedBlock, where: str = "") -> BlockKind:
    """The block's kind, if it can stand where it is placed; raises SpaceError if it cannot."""
    where = where or f"block {placed.block}"
    kind: BlockKind = kind_of(BLOCKS, placed.block, where)
    if placed.stride not in STRIDES:
        raise SpaceError(f"{where}.stride", placed.stride, f"one of: {', '.join(map(str, STRIDES))}")
    if min(placed.in_channels, placed.out_channels) < 1:
        raise SpaceError(f"{where}.out_channels", placed.out_channels, "1 or more")
    if misfit := kind.misfit(placed):
        shape = f"{placed.in_channels} to {placed.out_channels} channels with stride {placed.stride}"
        raise SpaceError(where, f"{placed.block.kind} from {shape}", misfit)
    return kind


# settings that several kinds have


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("an odd integer")
    return value


Kernel = Annotated[
    int, Field(ge=1, le=31, description="Side of the kernel, pixels; odd, so that it keeps the image's size."),
    AfterValidator(_odd), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 31, "odd": True}),
]  # fmt: skip
Activation = Annotated[Literal["relu", "relu6", "hard_swish", "silu", "gelu"], Field(description="Activation.")]
Squeeze = Annotated[
    float, Field(ge=0, le=1, description="Squeeze-and-excitation: share of the channels kept; 0: none.")
]
Gate = Annotated[Literal["sigmoid", "hard_sigmoid"], Field(description="Gate of the squeeze-and-excitation.")]
Expansion = Annotated[float, Field(ge=0.125, le=64, description="Inner width over the width that comes in.")]
Channels = Annotated[int, Field(ge=1, le=65_536, description="Channels that go out.")]
Dropout = Annotated[float, Field(ge=0, le=0.99, description="Dropout before the last layer.")]


# blocks


def _conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int) -> "list[nn.Module]":
    from torch import nn

    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


def _act(name: str) -> "nn.Module":
    from torch import nn

    from nas_core.families.timm_compat import get_act_layer

    act: nn.Module = get_act_layer(name)(inplace=True) if name != "gelu" else nn.GELU()
    return act


def _squeeze(ratio: float, gate: str) -> "Callable[..., nn.Module] | None":
    """Squeeze-and-excitation that keeps ``ratio`` of the channels, or None for ratio 0."""
    from torch import nn

    from nas_core.families.timm_compat import SqueezeExcite

    if not ratio:
        return None
    layer: Callable[..., nn.Module] = partial(
        SqueezeExcite, rd_ratio=ratio, gate_layer=gate, force_act_layer=nn.ReLU, rd_round_fn=_at_least_one
    )
    return layer


def _at_least_one(channels: float) -> int:
    return max(1, round(channels))


def _mobile(build: "Callable[..., nn.Module]", given: Any, *channels: int, **sizes: float) -> "nn.Module":
    """A block of timm's with the activation and squeeze-and-excitation that its settings name."""
    from nas_core.families.timm_compat import get_act_layer

    return build(*channels, act_layer=get_act_layer(given.act), se_layer=_squeeze(given.se, given.gate), **sizes)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> "nn.Module | None":
    from nas_core.families.timm_compat import downsample_conv

    if stride == 1 and in_channels == out_channels:
        return None
    shortcut: nn.Module = downsample_conv(in_channels, out_channels, kernel_size=1, stride=stride)
    return shortcut


@BLOCKS.add
class Identity(BlockKind):
    """Nothing; a 1x1 strided convolution and BN where the shape changes."""

    name = "identity"

    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        from torch import nn

        if stride == 1 and in_channels == out_channels:
            return nn.Identity()
        return nn.Sequential(*_conv_bn(in_channels, out_channels, 1, stride))


@BLOCKS.add
class Absent(BlockKind):
    """No block at all: optional depth."""

    name = ABSENT
    takes = frozenset({IMAGES, ROWS})

    def misfit(self, place: PlacedBlock) -> str:
        keeps = place.stride == 1 and place.in_channels == place.out_channels
        return "" if keeps else "a position that keeps channels and size (there is nothing to change them)"

    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        from torch import nn

        return nn.Identity()


class _InvertedSettings(BlockSettings):
    kernel: Kernel = 3
    expand: Expansion = 4.0
    se: Squeeze = 0.0
    gate: Gate = "sigmoid"
    act: Activation = "relu"


@BLOCKS.add
class MBConv(BlockKind):
    """Inverted residual (MobileNetV2/V3): expand, depthwise, project."""

    name = "mbconv"
    Settings = _InvertedSettings

    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        from nas_core.families.timm_compat import InvertedResidual

        sizes = {"dw_kernel_size": self.settings.kernel, "exp_ratio": self.settings.expand}
        return _mobile(InvertedResidual, self.settings, in_channels, out_channels, stride=stride, **sizes)


@BLOCKS.add
class FusedMBConv(BlockKind):
    """Inverted residual whose expansion and depthwise convolution are one full convolution."""

    name = "fused-mbconv"
    Settings = _InvertedSettings

    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        from nas_core.families.timm_compat import EdgeResidual

        sizes = {"exp_kernel_size": self.settings.kernel, "exp_ratio": self.settings.expand}
        return _mobile(EdgeResidual, self.settings, in_channels, out_channels, stride=stride, **sizes)


@BLOCKS.add
class Separable(BlockKind):
    """Depthwise-separable convolution (MobileNetV1) with a shortcut where shapes agree."""

    name = "separable"

    class Settings(BlockSettings):
        kernel: Kernel = 3
        se: Squeeze = 0.0
        gate: Gate = "sigmoid"
        act: Activation = "relu"

    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        from nas_core.families.timm_compat import DepthwiseSeparableConv

        sizes = {"dw_kernel_size": self.settings.kernel}
        return _mobile(DepthwiseSeparableConv, self.settings, in_channels, out_channels, stride=stride, **sizes)


@BLOCKS.add
class Conv(BlockKind):
    """Convolution, BN, activation; no shortcut."""

    name = "conv"

    class Settings(BlockSettings):
        kernel: Kernel = 3
        act: Activation = "relu"

    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        from torch import nn

        return nn.Sequential(
            *_conv_bn(in_channels, out_channels, self.settings.kernel, stride), _act(self.settings.act)
        )


@BLOCKS.add
class Basic(BlockKind):
    """ResNet basic block: two 3x3 convolutions around a shortcut."""

    name = "basic"

    class Settings(BlockSettings):
        reduce: int = Field(1, ge=1, le=16, description="Outer over inner width.")
        act: Activation = "relu"

    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        from nas_core.families.timm_compat import BasicBlock, get_act_layer

        block: nn.Module = BasicBlock(
            in_channels,
            out_channels,
            stride=stride,
            downsample=_shortcut(in_channels, out_channels, stride),
            reduce_first=self.settings.reduce,
            act_layer=get_act_layer(self.settings.act),
        )
        return block


@BLOCKS.add
class BottleneckBlock(BlockKind):
    """ResNet bottleneck: 1x1, 3x3, 1x1 around a shortcut; `ratio` is inner over outer width."""

    name = "bottleneck"

    class Settings(BlockSettings):
        ratio: float = Field(0.25, ge=0.03125, le=4, description="Inner over outer width.")
        act: Activation = "relu"

    def misfit(self, place: PlacedBlock) -> str:
        return "" if place.out_channels % 4 == 0 else "out_channels divisible by 4"

    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        from nas_core.families.timm_compat import Bottleneck, get_act_layer

        block: nn.Module = Bottleneck(
            in_channels,
            out_channels // Bottleneck.expansion,
            stride=stride,
            downsample=_shortcut(in_channels, out_channels, stride),
            base_width=64 * self.settings.ratio * Bottleneck.expansion,  # timm: inner width = planes * base_width / 64
            act_layer=get_act_layer(self.settings.act),
        )
        return block


@BLOCKS.add
class Pool(BlockKind):
    """Pooling, with a 1x1 convolution and BN where the channels change."""

    name = "pool"

    class Settings(BlockSettings):
        kernel: Kernel = 3
        mode: Literal["max", "avg"] = Field("max", description="Maximum or average.")

    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        from torch import nn

        kernel = self.settings.kernel
        pool: nn.Module = nn.MaxPool2d(kernel, stride, padding=kernel // 2)
        if self.settings.mode == "avg":
            pool = nn.AvgPool2d(kernel, stride, padding=kernel // 2, count_include_pad=False)
        if in_channels == out_channels:
            return pool
        return nn.Sequential(pool, *_conv_bn(in_channels, out_channels, 1, 1))


@BLOCKS.add
class ConvNeXt(BlockKind):
    """ConvNeXt block: depthwise convolution, layer norm, inverted MLP; `layer_scale` 0 is none."""

    name = "convnext"

    class Settings(BlockSettings):
        kernel: Kernel = 7
        expand: Expansion = 4.0
        layer_scale: float = Field(0.0, ge=0, le=1, description="First value of the layer scale; 0: none.")

    def misfit(self, place: PlacedBlock) -> str:
        fits = place.out_channels % place.in_channels == 0
        return "" if fits else "out_channels that are a multiple of the channels that come in (depthwise convolution)"

    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        from nas_core.families.timm_compat import ConvNeXtBlock

        block: nn.Module = ConvNeXtBlock(
            in_channels,
            out_channels,
            kernel_size=self.settings.kernel,
            stride=stride,
            mlp_ratio=self.settings.expand,
            ls_init_value=self.settings.layer_scale or None,
        )
        return block


class _LinearSettings(BlockSettings):
    norm: bool = Field(True, description="Batch normalisation after the linear layer.")
    act: Activation = "relu"
    dropout: Dropout = 0.0


def _linear(in_channels: int, out_channels: int, given: Any) -> "list[nn.Module]":
    from torch import nn

    norm = [nn.BatchNorm1d(out_channels)] if given.norm else []
    layer = nn.Linear(in_channels, out_channels, bias=not given.norm)
    return [layer, *norm, _act(given.act), *_dropout(given.dropout)]


@BLOCKS.add
class Linear(BlockKind):
    """For rows: linear layer, BN, activation."""

    name = "linear"
    takes = frozenset({ROWS})
    Settings = _LinearSettings

    def misfit(self, place: PlacedBlock) -> str:
        return "" if place.stride == 1 else "stride 1, as rows have"

    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        from torch import nn

        return nn.Sequential(*_linear(in_channels, out_channels, self.settings))


@BLOCKS.add
class ResidualMlp(BlockKind):
    """For rows: two linear layers around a shortcut (Gorishniy et al. 2021)."""

    name = "residual-mlp"
    takes = frozenset({ROWS})

    class Settings(BlockSettings):
        expand: Expansion = 2.0
        act: Activation = "relu"
        dropout: Dropout = 0.0

    def misfit(self, place: PlacedBlock) -> str:
        keeps = place.stride == 1 and place.in_channels == place.out_channels
        return "" if keeps else "a position of stride 1 that keeps the width"

    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        from nas_core.families.shortcut import Shortcut

        given, inner = self.settings, max(1, round(self.settings.expand * in_channels))
        return Shortcut(in_channels, inner, _act(given.act), given.dropout)


# stems


@STEMS.add
class LinearStem(StemKind):
    """For rows: linear layer, BN, activation."""

    name = "linear"
    takes = frozenset({ROWS})
    example = {"out_channels": 8}  # noqa: RUF012

    class Settings(_LinearSettings):
        out_channels: Channels

    def build(self, in_channels: int) -> "nn.Module":
        from torch import nn

        return nn.Sequential(*_linear(in_channels, self.settings.out_channels, self.settings))


@STEMS.add
class ConvStem(StemKind):
    """Convolution, BN, activation."""

    name = "conv"
    example = {"out_channels": 8}  # noqa: RUF012

    class Settings(BlockSettings):
        out_channels: Channels
        kernel: Kernel = 3
        stride: int = Field(1, ge=1, le=8, description="Stride, pixels.")
        act: Activation = "relu"

    def build(self, in_channels: int) -> "nn.Module":
        from torch import nn

        given = self.settings
        return nn.Sequential(*_conv_bn(in_channels, given.out_channels, given.kernel, given.stride), _act(given.act))


@STEMS.add
class ConvPoolStem(StemKind):
    """ResNet's: convolution with stride 2, BN, activation, 3x3 max pooling with stride 2."""

    name = "conv-pool"
    example = {"out_channels": 8}  # noqa: RUF012

    class Settings(BlockSettings):
        out_channels: Channels
        kernel: Kernel = 7
        act: Activation = "relu"

    def build(self, in_channels: int) -> "nn.Module":
        from torch import nn

        given = self.settings
        layers = _conv_bn(in_channels, given.out_channels, given.kernel, 2)
        return nn.Sequential(*layers, _act(given.act), nn.MaxPool2d(3, 2, padding=1))

    @property
    def stride(self) -> int:
        return 4


@STEMS.add
class PatchifyStem(StemKind):
    """ConvNeXt's: convolution over patches that do not overlap, layer norm."""

    name = "patchify"
    example = {"out_channels": 8}  # noqa: RUF012

    class Settings(BlockSettings):
        out_channels: Channels
        patch: int = Field(4, ge=1, le=64, description="Side of a patch, pixels.")

    def build(self, in_channels: int) -> "nn.Module":
        from torch import nn

        from nas_core.families.timm_compat import LayerNorm2d

        given = self.settings
        conv = nn.Conv2d(in_channels, given.out_channels, given.patch, given.patch)
        return nn.Sequential(conv, LayerNorm2d(given.out_channels))

    @property
    def stride(self) -> int:
        return int(self.settings.patch)


# heads


def _dropout(share: float) -> "list[nn.Module]":
    from torch import nn

    return [nn.Dropout(share)] if share else []


@HEADS.add
class ConvPoolLinear(HeadKind):
    """1x1 convolution, BN, activation, global average pool, an optional hidden layer, linear."""

    name = "conv-pool-linear"
    example = {"channels": 8}  # noqa: RUF012

    class Settings(BlockSettings):
        channels: Channels
        hidden: int = Field(0, ge=0, le=65_536, description="Width of the hidden layer; 0: none.")
        act: Activation = "relu"
        dropout: Dropout = 0.0

    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        from torch import nn

        given = self.settings
        layers = [*_conv_bn(in_channels, given.channels, 1, 1), _act(given.act), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        if given.hidden:
            layers += [nn.Linear(given.channels, given.hidden), _act(given.act)]
        last = nn.Linear(given.hidden or given.channels, num_outputs)
        return nn.Sequential(*layers, *_dropout(given.dropout), last)


@HEADS.add
class LinearHead(HeadKind):
    """For rows: linear layer."""

    name = "linear"
    takes = frozenset({ROWS})

    class Settings(BlockSettings):
        dropout: Dropout = 0.0

    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        from torch import nn

        return nn.Sequential(*_dropout(self.settings.dropout), nn.Linear(in_channels, num_outputs))


@HEADS.add
class ConvUpsample(HeadKind):
    """For outputs at every pixel: 3x3 convolution, BN, activation, 1x1 convolution, enlarged bilinearly."""

    name = "conv-upsample"
    dense = True
    example = {"channels": 8}  # noqa: RUF012

    class Settings(BlockSettings):
        channels: Channels
        scale: int = Field(
            1, ge=1, le=64, description="By how much it enlarges: the product of the strides of stem and positions."
        )
        act: Activation = "relu"
        dropout: Dropout = 0.0
        residual: bool = Field(
            False, description="Outputs are added to the network's input: for images that are to be changed a little."
        )

    @property
    def adds_input(self) -> bool:
        return bool(self.settings.residual)

    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        from torch import nn

        given = self.settings
        layers = [*_conv_bn(in_channels, given.channels, 3, 1), _act(given.act), *_dropout(given.dropout)]
        layers.append(nn.Conv2d(given.channels, num_outputs, 1))
        if given.scale > 1:
            layers.append(nn.Upsample(scale_factor=given.scale, mode="bilinear"))
        return nn.Sequential(*layers)


@HEADS.add
class PoolLinear(HeadKind):
    """Global average pool, linear."""

    name = "pool-linear"

    class Settings(BlockSettings):
        dropout: Dropout = 0.0

    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        from torch import nn

        layers = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), *_dropout(self.settings.dropout)]
        return nn.Sequential(*layers, nn.Linear(in_channels, num_outputs))
