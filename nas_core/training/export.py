"""A trained network as something to hand over: preparation included, no pickle, no code of ours needed to run it."""

import copy
import io

import torch
from torch import nn

from nas_core.workloads.normalisation import FULL_BYTE, Normalisation, broadcast


class Deployed(nn.Module):
    """Preparation and network: takes inputs as floats (images in [0, 1]) or images as uint8, gives outputs.

    ``input_shape`` is that of one input.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, prepare: Normalisation, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.input_shape = network, input_shape
        num_axes = 1 + len(input_shape)
        self.register_buffer("mean", broadcast(torch.tensor(prepare.mean or (0.0,)), num_axes))
        self.register_buffer("std", broadcast(torch.tensor(prepare.std or (1.0,)), num_axes))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.dtype == torch.uint8:
            inputs = inputs.float() / FULL_BYTE
        outputs: torch.Tensor = self.network((inputs - self.mean) / self.std)
        return outputs


def deployed(network: nn.Module, prepare: Normalisation, input_shape: tuple[int, ...]) -> Deployed:
    """A copy of the network for use anywhere: on the CPU, in eval mode, with its preparation."""
    plain = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    module = Deployed(plain, prepare, input_shape)
    module.eval()
    return module


def exported_bytes(module: Deployed) -> bytes:
    """The module as a .pt2 program for floats and any batch size."""
    example = torch.zeros(2, *module.input_shape)  # a batch of 1 would be taken for a constant
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module, (example,), dynamic_shapes={"inputs": {0: batch}})
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def load_exported(data: bytes) -> nn.Module:
    """The program in a .pt2 file, ready to call."""
    return torch.export.load(io.BytesIO(data)).module()
