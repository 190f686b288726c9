"""Batch normalisation by the statistics of a whole batch, whose examples several processes hold.

torch's SyncBatchNorm needs GPUs and takes modules' places. Here the function
that all such modules call is met on its way (``torch.overrides``), so modules
stay what they are; on GPUs it becomes torch's own synchronised one, elsewhere
the formula written out, on any device.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.modules._functions import SyncBatchNorm
from torch.overrides import TorchFunctionMode

from nas_core.training.group import Group


class SynchronisedNorm(TorchFunctionMode):
    """A context in which batch normalisation in training mode is over the batches of all of the group."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.group = group

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: "dict[str, Any] | None" = None,
    ) -> Any:
        if func is F.batch_norm:
            return _batch_norm(self.group, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    group: Group,
    inputs: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """As ``F.batch_norm``."""
    if not training:
        return F.batch_norm(inputs, running_mean, running_var, weight, bias, training, momentum, eps)
    if inputs.is_cuda:
        everybody = dist.group.WORLD
        made: torch.Tensor = SyncBatchNorm.apply(  # type: ignore[no-untyped-call]
            inputs, weight, bias, running_mean, running_var, eps, momentum, everybody, group.size
        )
        return made
    normalised: torch.Tensor
    normalised, mean, variance, count = _Normalised.apply(inputs.float(), eps, group)  # type: ignore[no-untyped-call]
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * count / (count - 1), momentum)
    along_channels = _along_channels(inputs)
    scaled = normalised if weight is None else normalised * weight.view(along_channels)
    return (scaled if bias is None else scaled + bias.view(along_channels)).to(inputs.dtype)


class _Normalised(torch.autograd.Function):
    """Values of mean 0 and deviation 1 in each channel, over all processes; and what was taken off (mean, variance).

    One message forward and one backward (Ioffe and Szegedy 2015, the gradient of section 3).
    """

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, eps: float, group: Group) -> tuple[Any, ...]:
        axes, along_channels = _all_but_channels(values), _along_channels(values)
        mine, (variance, mean) = values.numel() / values.shape[1], torch.var_mean(values, axes, correction=0)
        # in doubles, squares of sums may be subtracted
        wide, own = mean.double(), variance.double()
        sums = torch.stack([torch.full_like(wide, mine), mine * wide, mine * (own + wide * wide)])
        group.add_up([sums])
        count, wide = sums[0, 0], sums[1] / sums[0]
        own = sums[2] / sums[0] - wide * wide
        mean, variance, rate = wide.float(), own.float(), torch.rsqrt(own + eps).float()
        normalised = (values - mean.view(along_channels)) * rate.view(along_channels)
        ctx.save_for_backward(normalised, rate)
        ctx.group, ctx.count = group, count.float()
        ctx.mark_non_differentiable(mean, variance, ctx.count)
        return normalised, mean, variance, ctx.count

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> tuple[Any, ...]:
        normalised, rate = ctx.saved_tensors
        axes, along_channels = _all_but_channels(gradient), _along_channels(gradient)
        sums = torch.stack([gradient.sum(axes), (gradient * normalised).sum(axes)])
        ctx.group.add_up([sums])
        of_mean, of_deviation = (each.view(along_channels) for each in sums / ctx.count)
        return (gradient - of_mean - normalised * of_deviation) * rate.view(along_channels), None, None


def _all_but_channels(values: torch.Tensor) -> list[int]:
    return [axis for axis in range(values.ndim) if axis != 1]


def _along_channels(values: torch.Tensor) -> list[int]:
    return [1, -1] + [1] * (values.ndim - 2)
