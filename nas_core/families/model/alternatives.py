"""What may stand in the place of a trained model's block: one class each, made of the block itself.

An alternative changes a copy of the block and keeps of its weights what it can:
channels by their contribution, singular vectors, central taps. Where samples
are at hand, what is left is fitted to them (``fitting``). To add one, write a
class below, or in a plug-in: what it changes by ``draft.put`` and ``draft.set`` is
written down, so that ``load.py`` builds the block again. What it puts is of
``rebuild.LAYERS``, torch's ``Conv2d``, ``Linear`` and a few more, or a sequence of them.
"""

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from nas_core.base.registry import Registered, Registry
from nas_core.base.settings import Section

if TYPE_CHECKING:
    from torch import nn

    from nas_core.families.model.draft import Draft
    from nas_core.families.model.widths import Width


class Alternative(Registered, ABC):
    """A way to make a cheaper block out of a trained one."""

    def __init__(self, settings: Section) -> None:
        self.settings: Any = settings

    @abstractmethod
    def change(self, draft: "Draft") -> str:
        """Change the draft's block; returns why it cannot stand there, or ""."""

    @property
    def is_ours(self) -> bool:
        """Whether it is one of those below, whose promises are tested."""
        return type(self).__module__ == __name__


ALTERNATIVES = Registry[Alternative]("alternative", Alternative)
IMAGE_AXES = 3  # channels, height, width
NOTHING_TO_CHANGE = "nothing of it to change"
OTHER_PLACES = "its output has other pixels or tokens than a stride leaves"


class _Share(Section):
    ratio: float = Field(0.5, gt=0, lt=1, description="Share that is kept.")


class _ShareOfWidths(_Share):
    multiple: int = Field(
        8,
        ge=1,
        le=1024,
        description="Widths are rounded down to a multiple of it, as devices like them, where that leaves nearly all.",
    )


@ALTERNATIVES.add
class Narrower(Alternative):
    """Fewer channels inside the block: those that contribute most stay."""

    name = "narrower"
    Settings = _ShareOfWidths

    def change(self, draft: "Draft") -> str:
        return _narrowed(draft, _inner(draft), self.settings.ratio, self.settings.multiple)


@ALTERNATIVES.add
class FewerHeads(Alternative):
    """Fewer heads of attention: those that contribute most stay."""

    name = "fewer-heads"

    Settings = _Share

    def change(self, draft: "Draft") -> str:
        draft.open()
        return _narrowed(draft, _heads(draft), self.settings.ratio, 1)


@ALTERNATIVES.add
class Slimmer(Alternative):
    """Of a transformer's block both: fewer heads of attention, and fewer channels elsewhere."""

    name = "slimmer"

    class Settings(_ShareOfWidths):
        heads: float = Field(0.5, gt=0, lt=1, description="Share of the heads that is kept.")

    def change(self, draft: "Draft") -> str:
        draft.open()
        if not (_heads(draft) and _inner(draft)):
            return "it has no heads, or nothing else that could be narrower"
        _narrowed(draft, _heads(draft), self.settings.heads, 1)
        return _narrowed(draft, _inner(draft), self.settings.ratio, self.settings.multiple)


def _heads(draft: "Draft") -> "list[Width]":
    return [width for width in draft.widths if width.heads_of is not None]


def _inner(draft: "Draft") -> "list[Width]":
    return [width for width in draft.widths if width.heads_of is None and width.units > 1]


def _narrowed(draft: "Draft", widths: "list[Width]", ratio: float, multiple: int) -> str:
    from nas_core.families.model.draft import rounded

    for width in widths:
        units = width.parts * rounded(
            width.units // width.parts, ratio, max(1, multiple // (width.group * width.parts))
        )
        if units < width.units:
            draft.narrow(width, units)
    return "" if draft.changes else NOTHING_TO_CHANGE


@ALTERNATIVES.add
class SmallerKernel(Alternative):
    """Convolutions with the middle of their kernels only."""

    name = "smaller-kernel"
    example = {"kernel": 1}  # noqa: RUF012

    class Settings(Section):
        kernel: int = Field(3, ge=1, le=31, description="Largest side of a kernel, pixels.")

    def change(self, draft: "Draft") -> str:
        import torch
        from torch import nn

        for path, layer in list(draft.layers(nn.Conv2d)):
            old, new = layer.kernel_size, tuple(min(side, self.settings.kernel) for side in layer.kernel_size)
            off = [(before - after) // 2 for before, after in zip(old, new, strict=True)]
            even = any((before - after) % 2 for before, after in zip(old, new, strict=True))
            by_zeros = layer.padding_mode == "zeros"  # other padding is held by the layer as it was made
            padded = (
                by_zeros
                and isinstance(layer.padding, tuple)
                and all(
                    pad >= step * dilation
                    for pad, step, dilation in zip(layer.padding, off, layer.dilation, strict=True)
                )
            )
            if old == new or even or not padded:
                continue
            middle = layer.weight[:, :, off[0] : off[0] + new[0], off[1] : off[1] + new[1]]
            layer.weight = nn.Parameter(middle.detach().clone(memory_format=torch.contiguous_format))
            padding = tuple(
                pad - step * dilation for pad, step, dilation in zip(layer.padding, off, layer.dilation, strict=True)
            )
            draft.set(path, kernel_size=new, padding=padding)
        return "" if draft.changes else NOTHING_TO_CHANGE


@ALTERNATIVES.add
class DepthwiseSeparable(Alternative):
    """Each dense convolution as a depthwise one and a pointwise one (Jin et al., 2014: its best separable part)."""

    name = "depthwise-separable"

    def change(self, draft: "Draft") -> str:
        from torch import nn

        for path, layer in _dense(draft):
            pair = _separable(layer)
            draft.put(path, nn.Sequential(*pair))
        return "" if draft.changes else NOTHING_TO_CHANGE


@ALTERNATIVES.add
class Grouped(Alternative):
    """Dense convolutions in groups of channels that do not mix."""

    name = "grouped"

    class Settings(Section):
        groups: int = Field(4, ge=2, le=1024, description="Groups.")

    def change(self, draft: "Draft") -> str:
        import torch
        from torch import nn

        groups = self.settings.groups
        for path, layer in _dense(draft):
            if layer.in_channels % groups or layer.out_channels % groups:
                continue
            inputs, outputs = layer.in_channels // groups, layer.out_channels // groups
            blocks = [
                layer.weight[g * outputs : (g + 1) * outputs, g * inputs : (g + 1) * inputs] for g in range(groups)
            ]
            layer.weight = nn.Parameter(torch.cat(blocks).detach().clone())
            draft.set(path, groups=groups)
        return "" if draft.changes else NOTHING_TO_CHANGE


@ALTERNATIVES.add
class LowRank(Alternative):
    """Each dense layer as two, through fewer channels: its largest singular vectors."""

    name = "low-rank"
    Settings = _ShareOfWidths

    def change(self, draft: "Draft") -> str:
        from torch import nn

        from nas_core.families.model.draft import rounded

        for path, layer in list(draft.layers(nn.Conv2d, nn.Linear)):
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                continue
            rows, columns = layer.weight.shape[0], layer.weight[0].numel()
            rank = rounded(min(rows, columns), self.settings.ratio, self.settings.multiple)
            if rank * (rows + columns) < rows * columns:
                draft.put(path, nn.Sequential(*_factored(layer, rank)))
        return "" if draft.changes else "no layer that two of this rank would be cheaper than"


@ALTERNATIVES.add
class LinearStandIn(Alternative):
    """One linear map of each pixel or token in the block's place, in closed form."""

    name = "linear"

    def change(self, draft: "Draft") -> str:
        from torch import nn

        from nas_core.families.model.rebuild import Only

        found = _as_map(draft)
        if found is None:
            return OTHER_PLACES
        channels_in, channels_out, stride = found
        layer: Any = nn.Conv2d(channels_in, channels_out, 1) if stride else nn.Linear(channels_in, channels_out)
        _begin_as_identity(layer)
        if stride > 1:  # every stride-th pixel; torch's strided 1x1 convolutions of few channels crash in training
            layer = nn.Sequential(nn.AvgPool2d(1, stride), layer)
        draft.put("", Only(layer))
        return ""


@ALTERNATIVES.add
class OneConvolution(Alternative):
    """One convolution in the block's place, in closed form; with a ReLU where the block gives nothing negative."""

    name = "convolution"

    class Settings(Section):
        kernel: int = Field(3, ge=3, le=31, description="Side of its kernel, pixels; odd.")

        @field_validator("kernel")
        @classmethod
        def _is_odd(cls, kernel: int) -> int:
            if kernel % 2 == 0:
                raise ValueError("an odd side, which has a middle")
            return kernel

    def change(self, draft: "Draft") -> str:
        from torch import nn

        from nas_core.families.model.rebuild import Only

        channels_in, channels_out, stride = _as_map(draft) or (0, 0, 0)
        if not stride:
            return "it gives no image of C x H x W, or other pixels than a stride leaves"
        kernel = self.settings.kernel
        layer = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2)
        _begin_as_identity(layer)
        draft.put("", Only(nn.Sequential(layer, nn.ReLU()) if _gives_nothing_negative(draft) else layer))
        return ""


def _gives_nothing_negative(draft: "Draft") -> bool:
    """Whether the block's output is never below 0, whatever its weights, which are others than when it was made."""
    import torch

    generator = torch.Generator().manual_seed(0)
    block = copy.deepcopy(draft.original)
    with torch.no_grad():
        for parameter in block.parameters():
            if parameter.is_floating_point():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        return bool((draft.call.run(block) >= 0).all())


def _begin_as_identity(layer: Any) -> None:
    """Weights that give what is taken, where there are as many channels; ``fitting`` goes on from there."""
    import torch

    if layer.weight.shape[0] != layer.weight.shape[1]:
        return
    with torch.no_grad():
        layer.weight.zero_()
        middle = tuple(side // 2 for side in layer.weight.shape[2:])
        layer.weight[(slice(None), slice(None), *middle)] = torch.eye(len(layer.weight))
        layer.bias.zero_()


@ALTERNATIVES.add
class Skip(Alternative):
    """Nothing in the block's place: what comes in goes out; of a branch that is added to it, nothing is."""

    name = "skip"

    def change(self, draft: "Draft") -> str:
        from torch import nn

        from nas_core.families.model.rebuild import Nothing, Only

        taken, given = draft.shapes
        if taken != given:
            return "it changes the shape"
        draft.put("", Nothing() if draft.known.is_branch else Only(nn.Identity()))
        return ""


@ALTERNATIVES.add
class Shallower(Alternative):
    """Some of a row of blocks left out, evenly; its first stays."""

    name = "shallower"

    Settings = _Share

    def change(self, draft: "Draft") -> str:
        from torch import nn

        row = list(draft.block.children())
        if type(draft.block) is not nn.Sequential or len(row) < 2 or not _keeps_shapes(draft):
            return "it is no row of blocks that give the shape they take"
        count = max(1, round(len(row) * self.settings.ratio))
        kept = {len(row) * place // count for place in range(count)}
        for place, (name, _) in enumerate(list(draft.block.named_children())):
            if place not in kept:
                draft.put(name, nn.Identity())
        return "" if draft.changes else NOTHING_TO_CHANGE


def _keeps_shapes(draft: "Draft") -> bool:
    """Whether each of a row's modules but the first gives the shape that it takes."""
    import torch

    x = draft.call.inputs.clone()  # a module may work in place
    with torch.no_grad():
        for place, module in enumerate(draft.block.eval().children()):
            given = module(x)
            if not isinstance(given, torch.Tensor) or (place and given.shape != x.shape):
                return False
            x = given
    return True


@ALTERNATIVES.add
class Without(Alternative):
    """One branch of the block left out, such as its attention; of a row of blocks, each one's."""

    name = "without"
    example = {"branch": "attn"}  # noqa: RUF012

    class Settings(Section):
        branch: str = Field(description="Name of the branch in the block, such as attn or mlp.")

    def change(self, draft: "Draft") -> str:
        from nas_core.families.model.rebuild import Nothing

        found = [path for path, _ in draft.block.named_modules() if path.split(".")[-1] == self.settings.branch]
        outermost = [path for path in found if not any(path.startswith(f"{other}.") for other in found)]
        for path in outermost:
            draft.put(path, Nothing())
        return "" if outermost else f"it has no {self.settings.branch}"


def _dense(draft: "Draft") -> list[tuple[str, Any]]:
    """Convolutions over more than a pixel that mix all channels."""
    from torch import nn

    return [
        (path, layer)
        for path, layer in draft.layers(nn.Conv2d)
        if layer.groups == 1 and max(layer.kernel_size) > 1 and layer.padding_mode == "zeros"
    ]


def _separable(layer: Any) -> "tuple[nn.Module, nn.Module]":
    """The depthwise and the pointwise convolution whose product is nearest to the layer, channel by channel."""
    import torch
    from torch import nn

    height, width = layer.kernel_size
    depthwise = nn.Conv2d(
        layer.in_channels,
        layer.in_channels,
        (height, width),
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.in_channels,
        bias=False,
    )
    pointwise = nn.Conv2d(layer.in_channels, layer.out_channels, 1, bias=layer.bias is not None)
    with torch.no_grad():
        per_input = layer.weight.detach().float().permute(1, 0, 2, 3).flatten(2)  # in x out x taps
        left, values, right = torch.linalg.svd(per_input, full_matrices=False)
        size = values[:, :1].sqrt()
        depthwise.weight.copy_((right[:, 0] * size).reshape(depthwise.weight.shape))
        pointwise.weight.copy_((left[:, :, 0] * size).T.reshape(pointwise.weight.shape))
        if layer.bias is not None and pointwise.bias is not None:
            pointwise.bias.copy_(layer.bias)
    return depthwise, pointwise


def _factored(layer: Any, rank: int) -> "tuple[nn.Module, nn.Module]":
    """Two layers whose product is the layer's best approximation of this rank."""
    import torch
    from torch import nn

    first: Any
    second: Any
    old: Any = layer
    weight = layer.weight.detach().float()
    has_bias = layer.bias is not None
    if isinstance(layer, nn.Conv2d):
        first = nn.Conv2d(
            old.in_channels,
            rank,
            old.kernel_size,
            old.stride,
            old.padding,
            old.dilation,
            bias=False,
            padding_mode=old.padding_mode,
        )
        second = nn.Conv2d(rank, layer.out_channels, 1, bias=has_bias)
    else:
        first, second = nn.Linear(weight.shape[1], rank, bias=False), nn.Linear(rank, weight.shape[0], bias=has_bias)
    with torch.no_grad():
        left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
        size = values[:rank].sqrt()
        first.weight.copy_((right[:rank] * size[:, None]).reshape(first.weight.shape))
        second.weight.copy_((left[:, :rank] * size).reshape(second.weight.shape))
        if has_bias:
            second.bias.copy_(layer.bias)
    return first, second


def _as_map(draft: "Draft") -> tuple[int, int, int] | None:
    """Channels in and out and the stride, 0 where channels come last; None where the shapes are no such pair."""
    from torch import nn

    taken, given = draft.shapes
    of_other_axes = any(isinstance(layer, nn.Conv1d | nn.Conv3d) for layer in draft.block.modules())
    if len(taken) != len(given) or of_other_axes:
        return None
    if len(taken) != IMAGE_AXES or not _channels_come_first(draft, taken):
        return (taken[-1], given[-1], 0) if taken[:-1] == given[:-1] else None
    (channels_in, *side), (channels_out, *small) = taken, given
    for stride in (1, 2, 4):
        if all(-(-before // stride) == after for before, after in zip(side, small, strict=True)):
            return channels_in, channels_out, stride
    return None


def _channels_come_first(draft: "Draft", taken: tuple[int, ...]) -> bool:
    """Whether the block's images are C x H x W: its convolutions say so, or no layer takes what comes last."""
    from torch import nn

    from nas_core.families.model.widths import in_width

    layers = list(draft.block.modules())
    if any(isinstance(layer, nn.Conv2d) and layer.in_channels == taken[0] for layer in layers):
        return True
    return not any(in_width(layer) == taken[-1] for layer in layers)
