"""Exact counts: multiply-adds, parameters and peak activation memory, from shapes alone.

Modules are built and run on torch's meta device, so nothing is computed and no
memory is used, whatever the resolution; one that asks for values (to branch on
them, say) is run on zeros, on the CPU. Equal blocks at equal shapes are counted
once per process.

``flops``
    Multiply-adds per input of convolutions, linear layers, matrix products and
    attention (a bias, a normalisation, an activation or a pool counts nothing),
    as NAS-Bench-Macro and most papers count "FLOPs"; torch's own counter, halved.
``params``
    All parameters, those of batch normalisation included.
``activation_bytes``
    The most bytes of activations alive at one time at batch size 1 in float32,
    inference without gradients: input, output and every intermediate tensor of
    a stem, block or head that the eager module still refers to. Weights,
    kernels' workspaces and the allocator's rounding are not counted. A network
    runs one part after another, so its peak is the largest of its parts', each
    with what is held for later beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from nas_core.families.family import Part
from nas_core.families.live_bytes import LiveBytes, without_values
from nas_core.families.model.tracing import LEFT_OUT


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The exact costs of a part of a network, and the shape C, H, W that it hands on."""

    flops: int
    params: int
    activation_bytes: int
    out_shape: tuple[int, ...]

    def __getitem__(self, resource: str) -> int:
        value: int = getattr(self, resource)
        return value


def count_parts(parts: Sequence[Part]) -> Counts:
    """Parts that run one after another: the sum of what they cost, and the largest of their activation peaks."""
    return combined([count_part(part) for part in parts])


def combined(parts: Sequence[Counts]) -> Counts:
    """Parts that run one after another: what they hand on is what the last one does."""
    if not parts:  # a block that is nothing at all
        return Counts(flops=0, params=0, activation_bytes=0, out_shape=())
    return Counts(
        flops=sum(part.flops for part in parts),
        params=sum(part.params for part in parts),
        activation_bytes=max(part.activation_bytes for part in parts),
        out_shape=parts[-1].out_shape,
    )


@lru_cache(maxsize=100_000)
def count_part(part: Part) -> Counts:
    """One part on one input; equal parts are counted once. Raises what building or running it raises."""
    counts = count_module(part.build, *part.shapes, dtype=part.dtype, rows=part.rows)
    return replace(counts, activation_bytes=counts.activation_bytes + part.beside_bytes)


def count_module(
    build: Callable[[], nn.Module], *shapes: tuple[int, ...], dtype: str = "float32", rows: int = 1
) -> Counts:
    """The counts of the module that ``build`` makes, on one example: so many rows of each of the ``shapes``."""
    return without_values(partial(_count_on, build, [(rows, *shape) for shape in shapes], dtype))


def _count_on(build: Callable[[], nn.Module], shapes: Sequence[tuple[int, ...]], dtype: str, device: str) -> Counts:
    with torch.device(device), torch.no_grad():
        module = build().eval().to(device).requires_grad_(False)
        inputs = [torch.zeros(*shape, dtype=getattr(torch, dtype)) for shape in shapes]
    operations = FlopCounterMode(display=False, custom_mapping=LEFT_OUT)
    with torch.no_grad(), operations, LiveBytes(module, inputs) as memory:
        output = module(*inputs)
    first = tree_leaves(output)[0]
    return Counts(
        flops=operations.get_total_flops() // 2,  # it counts multiplications and additions apart
        params=sum(parameter.numel() for parameter in module.parameters()),
        activation_bytes=memory.peak,
        out_shape=tuple(first.shape[1:]),
    )
