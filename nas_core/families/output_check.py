"""Whether a network gives what its data want."""

from collections.abc import Sequence

import torch
from torch import nn

from nas_core.base.errors import ConfigError
from nas_core.workloads.workload import Sample


def check_outputs(
    network: nn.Module, sample: Sample, shape: Sequence[int], kind: str, where: str, advice: str = ""
) -> None:
    """Whether a network gives what data of this kind want of two inputs of this shape.

    Raises:
        ConfigError: with the shape found and the one wanted, or with what the network says of such inputs.
    """
    inputs = torch.zeros(2, *shape, dtype=getattr(torch, sample.dtype))
    wanted = (2, *sample.outputs_for(shape))
    expected = f"{_batched(wanted)}, as data of kind {kind} want"
    try:
        with torch.inference_mode():
            outputs = network(inputs)
    except Exception as error:  # a user's own code
        said = f"of inputs of {_batched(inputs.shape)}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ConfigError(where, said, expected) from None
    found = getattr(outputs, "shape", None)
    if found is None or tuple(found) != wanted:
        raise ConfigError(where, "what is no tensor" if found is None else _batched(found), expected, advice)


def _batched(shape: Sequence[int]) -> str:
    return " x ".join(map(str, ("N", *shape[1:])))
