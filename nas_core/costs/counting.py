"""Exact counts: multiply-adds, parameters and peak activation memory, from shapes alone.

Modules are built and run on torch's meta device, so nothing is computed and no
memory is used, whatever the resolution. Equal blocks at equal shapes are
counted once per process.

``flops``
    Multiply-adds per image of convolutions and linear layers (a bias, a
    normalisation, an activation or a pool counts nothing), as NAS-Bench-Macro
    and most papers count "FLOPs".
``params``
    All parameters, those of batch normalisation included.
``activation_bytes``
    The most bytes of activations alive at one time at batch size 1 in float32,
    inference without gradients: input, output and every intermediate tensor of
    a stem, block or head that the eager module still refers to. Weights,
    kernels' workspaces and the allocator's rounding are not counted. A network
    runs one part after another, so its peak is the largest of its parts'.
"""

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas_core.families.assemble import build_block, build_head, build_stem
from nas_core.space.genotypes import Architecture, BlockSpec, PlacedBlock, SearchSpace


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


def placed_blocks(space: SearchSpace) -> list[list[PlacedBlock]]:
    """Every candidate block of every position with its shape, whether or not the rules allow a network with it."""
    width = int(dict(space.stem.params)["out_channels"])
    table = []
    for position in space.positions:
        shape = {"in_channels": width, "out_channels": position.out_channels, "stride": position.stride}
        table.append([PlacedBlock(block=block, **shape) for block in position.blocks])
        width = position.out_channels
    return table


def input_side(space: SearchSpace, position: int, resolution: int) -> int:
    """Side in pixels of the activations that reach a position; position ``num_positions`` is the head's."""
    side = count_stem(space.stem, space.in_channels, resolution).out_shape[-1]
    for earlier in space.positions[:position]:
        side = math.ceil(side / earlier.stride)
    return side


def count_fixed_part(space: SearchSpace, resolution: int) -> Counts:
    """Stem and head together."""
    stem = count_stem(space.stem, space.in_channels, resolution)
    side = input_side(space, space.num_positions, resolution)
    return combined([stem, count_head(space.head, space.positions[-1].out_channels, side, space.num_classes)])


def count_architecture(architecture: Architecture) -> Counts:
    """A whole network: the sum of its parts, and the largest of their activation peaks."""
    parts = [count_stem(architecture.stem, architecture.in_channels, architecture.resolution)]
    for placed in architecture.blocks:
        parts.append(count_block(placed, parts[-1].out_shape[-1]))
    width = architecture.blocks[-1].out_channels
    parts.append(count_head(architecture.head, width, parts[-1].out_shape[-1], architecture.num_classes))
    return combined(parts)


def combined(parts: Sequence[Counts]) -> Counts:
    """Parts that run one after another: what they hand on is what the last one does."""
    return Counts(
        flops=sum(part.flops for part in parts),
        params=sum(part.params for part in parts),
        activation_bytes=max(part.activation_bytes for part in parts),
        out_shape=parts[-1].out_shape,
    )


@lru_cache(maxsize=100_000)
def count_block(placed: PlacedBlock, side: int) -> Counts:
    """One block on activations of ``side`` x ``side`` pixels; raises SpaceError if it cannot be built."""
    return count_module(lambda: build_block(placed), (placed.in_channels, side, side))


@lru_cache(maxsize=10_000)
def count_stem(spec: BlockSpec, in_channels: int, resolution: int) -> Counts:
    return count_module(lambda: build_stem(spec, in_channels), (in_channels, resolution, resolution))


@lru_cache(maxsize=10_000)
def count_head(spec: BlockSpec, in_channels: int, side: int, num_classes: int) -> Counts:
    return count_module(lambda: build_head(spec, in_channels, num_classes), (in_channels, side, side))


def count_module(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Counts:
    """The counts of the module that ``build`` makes, on one image or activation of ``shape`` (C, H, W)."""
    with torch.device("meta"), torch.no_grad():
        module = build().eval()
        x = torch.empty(1, *shape)
    flops = 0

    def add_flops(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal flops
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
        else:
            assert isinstance(layer, nn.Linear)
            fan_in = layer.in_features
        flops += output.numel() * fan_in

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add_flops)
    with torch.no_grad(), _LiveBytes(module, x) as memory:
        output = module(x)
    return Counts(
        flops=flops,
        params=sum(parameter.numel() for parameter in module.parameters()),
        activation_bytes=memory.peak,
        out_shape=tuple(output.shape[1:]),
    )


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves __init_subclass__ untyped
    """Follows the storages that operations create until nothing refers to them; ``peak`` is the most at once."""

    def __init__(self, module: nn.Module, x: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        tensors = [*module.parameters(), *module.buffers()]
        self._seen = {tensor.untyped_storage()._cdata for tensor in tensors}
        self._live = self.peak = 0
        self._follow(x)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        # A normalisation also returns statistics that only training keeps (and only the meta device allocates).
        activations = result[0] if "norm" in func.__name__ and isinstance(result, tuple) else result
        for leaf in tree_leaves(activations):
            if isinstance(leaf, torch.Tensor):
                self._follow(leaf)
        return result

    def _follow(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, num_bytes = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self._live += num_bytes
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._release, key, num_bytes)

    def _release(self, key: int, num_bytes: int) -> None:
        self._seen.discard(key)
        self._live -= num_bytes
