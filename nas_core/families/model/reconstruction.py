"""Networks made of a trained model brought nearer to it without training: block after block, in closed form.

Each block of an assembled network takes something else than the model's block
took, since blocks before it were replaced. So, in the order in which they run,
the last dense layers of every block are fitted by least squares to let the block
give, of what really comes in, what the model's block gives (as He et al., 2017,
and Luo et al., 2017, for pruned layers). What follows such a layer in the block may
scale and shift its channels, add to them and rectify them: that is found by
probing, and layers of which more is made stay as they are. So do those whose fit does
not hold for inputs that it was not made for.

R = rows (examples times pixels or tokens), I = features in, O = features out.
"""

import itertools
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas_core.families.batch_norm import average_statistics, forget_statistics, norms_of
from nas_core.families.model.assembling import observed
from nas_core.families.model.draft import Call
from nas_core.families.model.fitting import MOST_FEATURES, follows, input_of, rows_of, step_to
from nas_core.families.model.widths import first_input, mixes

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

PROBE = 1e3  # times the layer's usual size: what it is made to give while what follows is probed
FITTED = 0.75  # of the examples; by the others a fit is judged
EXACT = 1e-3  # relative: what follows is what was probed
LAYOUTS: tuple[tuple[int, ...], ...] = ((), (0, 2, 3, 1))  # as it is, or channels last in the block only
SILENT = 1e-6  # scale of a channel below which nothing of it arrives


class Reconstruction:
    """What a model's blocks give for some inputs, B x ..., to which other networks' blocks are fitted."""

    def __init__(self, model: nn.Module, blocks: Sequence[str], inputs: torch.Tensor) -> None:
        self.inputs = inputs
        self.wanted = {path: output for path, (_, output) in observed(model, blocks, inputs).items()}

    def fit(self, network: nn.Module) -> None:
        """Fit the blocks of a network, which is in eval mode; their normalisation statistics are set anew, too."""
        with ExitStack() as stack, torch.no_grad():
            for path, wanted in self.wanted.items():
                stack.callback(_before(network.get_submodule(path), wanted).remove)
            network(self.inputs.clone())


def _before(block: nn.Module, wanted: torch.Tensor) -> "RemovableHandle":
    """Fits the block when it is called, before it runs."""

    def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        handle.remove()  # or it would be called while the block is fitted
        with torch.autocast(wanted.device.type, enabled=False):  # the network's own
            fit_block(module, Call(inputs=inputs[0], context=inputs[1:], named=named).in_full(), wanted)

    handle = block.register_forward_pre_hook(hook, with_kwargs=True)
    return handle


def fit_block(block: nn.Module, call: Call, wanted: torch.Tensor) -> None:
    """Fit the block's last dense layers, where that brings what it gives nearer to what is wanted. No gradients.

    There are several where branches are added: a shortcut's is the last, but the other branch can do more.
    """
    _set_statistics(block, call)
    for back in itertools.count(1):
        seen = _Seen.of(block, call, back)
        if seen is None or torch.equal(seen.output, wanted):
            return
        tail = _Tail.of(block, call, seen)
        if tail is None:
            return
        if not follows(seen.layer, seen.taken, seen.given):
            continue
        changed = [*seen.layer.parameters(), *_values(seen.norm)]
        before = [each.clone() for each in changed]
        _fit_layer(seen, tail.asked(seen, wanted))
        if seen.norm is not None:
            _take_statistics(seen.norm, block, call)
        if not _distance(call.run(block), wanted) < _distance(seen.output, wanted):
            for each, value in zip(changed, before, strict=True):
                each.copy_(value)


def _fitted(inputs: torch.Tensor) -> int:
    """So many of the inputs, the first, are fitted to; the others tell whether that helps any."""
    return max(1, int(FITTED * len(inputs)))


def _distance(output: torch.Tensor, wanted: torch.Tensor) -> float:
    """For the inputs that are not fitted to."""
    return float((output - wanted)[_fitted(wanted) :].pow(2).mean())


def _set_statistics(block: nn.Module, call: Call) -> None:
    if norms := norms_of(block):
        forget_statistics(norms)
        average_statistics(norms, 0)
        call.run(block)
        for norm in norms:
            norm.eval()


def _fit_layer(seen: "_Seen", asked: torch.Tensor) -> None:
    layer, norm = seen.layer, seen.norm
    first = _fitted(seen.taken)
    features_RI, targets_RO = rows_of(layer, seen.taken[:first], asked[:first])
    if layer.bias is not None or norm is None:
        step_to(layer, features_RI, targets_RO)
        return
    mean_I, mean_O = features_RI.mean(0), targets_RO.mean(0)  # the norm has the bias
    step_to(layer, features_RI - mean_I, targets_RO - mean_O)
    norm.bias += (mean_O - layer.weight.flatten(1) @ mean_I) * norm.weight / _deviation(norm)


def _values(norm: Any) -> list[torch.Tensor]:
    return [] if norm is None else [norm.weight, norm.bias, norm.running_mean, norm.running_var]


def _deviation(norm: Any) -> torch.Tensor:
    deviation: torch.Tensor = (norm.running_var + norm.eps).sqrt()
    return deviation


def _take_statistics(norm: Any, block: nn.Module, call: Call) -> None:
    """Let the norm's statistics be those of what it takes now, and what it makes of that stay."""
    mean, deviation = norm.running_mean.clone(), _deviation(norm)
    _set_statistics(norm, Call(inputs=input_of(block, norm, call)))
    norm.bias += (norm.running_mean - mean) * norm.weight / deviation
    norm.weight *= _deviation(norm) / deviation


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A run of a block: one of its last dense layers, what that took and gave, and what the block gave.

    ``norm`` has running statistics of what the layer gives, where there is such a one.
    """

    layer: Any
    norm: Any
    taken: torch.Tensor
    given: torch.Tensor
    output: torch.Tensor

    @classmethod
    def of(cls, block: nn.Module, call: Call, back: int) -> "_Seen | None":
        """Of the layer that ran last (1), or so many from the end; None where none did, or one too wide."""
        runs = deque[tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]](maxlen=back)
        normed: list[tuple[torch.Tensor, nn.Module]] = []

        def look(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: torch.Tensor) -> None:
            first = first_input(inputs, named)
            if mixes(layer):
                runs.append((layer, first.clone(), output, output.clone()))
            else:
                normed.append((first, layer))

        with ExitStack() as stack:
            for layer in block.modules():
                if mixes(layer) or (isinstance(layer, _BatchNorm) and layer.affine and layer.track_running_stats):
                    stack.callback(layer.register_forward_hook(look, with_kwargs=True).remove)
            output = call.run(block)
        if len(runs) < back or runs[0][0].weight[0].numel() > MOST_FEATURES:
            return None
        layer, taken, passed_on, given = runs[0]
        norm = next((each for inputs, each in reversed(normed) if inputs is passed_on), None)
        return cls(layer=layer, norm=norm, taken=taken, given=given, output=output)


@dataclass(frozen=True, kw_only=True)
class _Tail:
    """What a block makes of what one of its last dense layers gives: scaled and shifted, with a ReLU or without.

    ``scale`` and ``shift`` have the shape of what the layer gives; ``layout`` brings what the block gives into it.
    """

    scale: torch.Tensor
    shift: torch.Tensor
    is_rectified: bool
    layout: tuple[int, ...]

    @classmethod
    def of(cls, block: nn.Module, call: Call, seen: _Seen) -> "_Tail | None":
        """None where it is something else."""
        size = PROBE * max(float(seen.given.abs().mean()), SILENT)
        up, down = (_output_with(block, call, seen.layer, sign * size) for sign in (1, -1))
        up_twice, down_twice = (_output_with(block, call, seen.layer, sign * 2 * size) for sign in (1, -1))
        rising, falling = (up_twice - up) / size, (down - down_twice) / size
        is_up = rising.abs() >= falling.abs()  # a ReLU lets one of them through
        scale = torch.where(is_up, rising, falling)
        shift = torch.where(is_up, up - scale * size, down + scale * size)
        is_rectified = bool((seen.output >= 0).all())
        for layout in LAYOUTS:
            values = [_laid_out(each, seen.given.shape, layout) for each in (scale, shift, seen.output)]
            if any(each.shape != seen.given.shape for each in values):
                continue
            tail = cls(scale=values[0], shift=values[1], is_rectified=is_rectified, layout=layout)
            error = (tail.output(seen.given) - values[2]).abs().max()
            if error <= EXACT * seen.output.abs().max():
                return tail
        return None

    def output(self, given: torch.Tensor) -> torch.Tensor:
        plain = self.scale * given + self.shift
        return plain.clamp(min=0) if self.is_rectified else plain

    def asked(self, seen: _Seen, wanted: torch.Tensor) -> torch.Tensor:
        """What the layer should give; where a zero is wanted of a ReLU, anything below is as good."""
        wanted = _laid_out(wanted, seen.given.shape, self.layout)
        if self.is_rectified:
            now = self.scale * seen.given + self.shift
            wanted = torch.where(wanted > 0, wanted, now.clamp(max=0))
        return torch.where(self.scale.abs() > SILENT, (wanted - self.shift) / self.scale, seen.given)


def _laid_out(output: torch.Tensor, shape: torch.Size, layout: tuple[int, ...]) -> torch.Tensor:
    """What a block gives as its last dense layer gives it; of another shape where it cannot be."""
    if layout:
        return output.permute(layout) if output.ndim == len(layout) else output
    return output.reshape(shape) if output.numel() == shape.numel() and output.shape[-1] == shape[-1] else output


def _output_with(block: nn.Module, call: Call, layer: nn.Module, value: float) -> torch.Tensor:
    """What the block gives where the layer gives one value everywhere."""
    handle = layer.register_forward_hook(lambda _, __, output: torch.full_like(output, value))
    try:
        return call.run(block)
    finally:
        handle.remove()
