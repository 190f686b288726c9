"""The state of optimizers and scalers as tensors and JSON: a checkpoint holds no pickle."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

TENSOR, PAIRS, TUPLE = "tensor", "pairs", "tuple"  # what stands for a tensor, a mapping, a tuple


def frozen(state: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    """The state as JSON-able data; its tensors are put into ``tensors`` under names that begin with ``name``.

    Raises:
        TypeError: for what is neither a container, nor a tensor, a number, a text, or None.
    """
    if isinstance(state, torch.Tensor):
        tensors[name] = state
        return {TENSOR: name}
    if isinstance(state, Mapping):  # as pairs: JSON would turn numbers among the keys into texts
        return {PAIRS: [[key, frozen(value, tensors, f"{name}.{key}")] for key, value in state.items()]}
    if isinstance(state, list | tuple):
        items = [frozen(value, tensors, f"{name}.{index}") for index, value in enumerate(state)]
        return {TUPLE: items} if isinstance(state, tuple) else items
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise TypeError(f"{name} is a {type(state).__name__}, which no checkpoint can hold")


def thawed(data: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The state that `frozen` was given."""
    if isinstance(data, list):
        return [thawed(item, tensors) for item in data]
    if not isinstance(data, dict):
        return data
    if TENSOR in data:
        return tensors[data[TENSOR]]
    if PAIRS in data:
        return {key: thawed(value, tensors) for key, value in data[PAIRS]}
    return tuple(thawed(item, tensors) for item in data[TUPLE])


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give what the optimizer keeps of a parameter the parameter's own layout in memory, as it was when it was made.

    A checkpoint holds contiguous tensors; norms of them add up in another order, and so to other last digits.
    """
    for parameter, state in optimizer.state.items():
        assert isinstance(parameter, nn.Parameter)
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.ndim:
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
