"""Inputs of a split, wherever they lie: a tensor, or examples of which batches are made as they are asked for.

What trains and measures takes either: `placed` brings inputs to a device as
far as they fit, `batches_of` goes through them in order, an index tensor gives
a batch on the device. torch is imported where it is needed.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    import torch

    Inputs = "torch.Tensor | Examples"

MOST_OF_DEVICE = 0.5  # of a device's free memory that inputs may take


class Examples(ABC):
    """Inputs that are in no device's memory. A slice of them is lazy as well; an index tensor gives a batch."""

    shape: tuple[int, ...]  # number of examples, then an input's

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def to(self, device: "torch.device | str") -> "Examples":
        """The same, whose batches come on the device."""

    @abstractmethod
    def part(self, start: int, stop: int) -> "Examples":
        """Those from ``start`` to before ``stop``."""

    @abstractmethod
    def batch(self, index: "torch.Tensor") -> "torch.Tensor":
        """The examples of these numbers, on the device."""

    def expect(self, batches: "Sequence[torch.Tensor]") -> None:
        """The batches that will be asked for next, in order, so that they can be made before; none: that was all."""
        return

    @overload
    def __getitem__(self, key: slice) -> "Examples": ...

    @overload
    def __getitem__(self, key: "torch.Tensor") -> "torch.Tensor": ...

    def __getitem__(self, key: "slice | torch.Tensor") -> "Examples | torch.Tensor":
        if isinstance(key, slice):
            start, stop, _ = key.indices(len(self))
            return self.part(start, max(start, stop))
        return self.batch(key)


class OnHost(Examples):
    """A tensor in main memory, or mapped into it, that is too large for the device."""

    def __init__(self, inputs: "torch.Tensor", device: "torch.device | str") -> None:
        self.inputs, self.device, self.shape = inputs, device, tuple(inputs.shape)

    def to(self, device: "torch.device | str") -> "OnHost":
        return OnHost(self.inputs, device)

    def part(self, start: int, stop: int) -> "OnHost":
        return OnHost(self.inputs[start:stop], self.device)

    def batch(self, index: "torch.Tensor") -> "torch.Tensor":
        return self.inputs[index.to(self.inputs.device)].to(self.device, non_blocking=True)


def placed(inputs: "torch.Tensor | Examples", device: "torch.device | str") -> "torch.Tensor | Examples":
    """The inputs on the device, all of them where they fit into half of its free memory, else a batch at a time."""
    import torch

    place = torch.device(device)
    if isinstance(inputs, torch.Tensor) and place.type == "cuda" and inputs.device != place:
        free, _ = torch.cuda.mem_get_info(place)
        if inputs.nbytes > free * MOST_OF_DEVICE:
            return OnHost(inputs, place)
    return inputs.to(place)


def expect(inputs: "torch.Tensor | Examples", batches: "Sequence[torch.Tensor]") -> None:
    """Announce the batches that will be asked for; nothing to do for a tensor."""
    if isinstance(inputs, Examples):
        inputs.expect(batches)


def in_memory(examples: "torch.Tensor | Examples", size: int = 256) -> "torch.Tensor":
    """All of them as one tensor, where they are."""
    import torch

    return examples if isinstance(examples, torch.Tensor) else torch.cat(list(batches_of(examples, size)))


def batches_of(inputs: "torch.Tensor | Examples", size: int) -> "Iterator[torch.Tensor]":
    """All inputs in order, ``size`` at a time."""
    import torch

    indices = torch.split(torch.arange(len(inputs)), size)
    if isinstance(inputs, torch.Tensor):
        yield from torch.split(inputs, size)
        return
    inputs.expect(indices)
    try:
        for index in indices:
            yield inputs.batch(index)
    finally:
        inputs.expect([])
