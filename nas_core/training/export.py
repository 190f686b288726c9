"""A trained network as something to hand over: normalisation included, no pickle, no code of ours needed to run it.

B C H W = images of a batch, channels, height, width.
"""

import copy
import io

import torch
from torch import nn

from nas_core.workloads.images.tensors import Normalisation


class Deployed(nn.Module):
    """Normalisation and network: takes B C H W images as floats in [0, 1] or as uint8, gives logits."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype == torch.uint8:
            images = images.float() / 255
        logits: torch.Tensor = self.network((images - self.mean) / self.std)
        return logits


def deployed(network: nn.Module, normalisation: Normalisation) -> Deployed:
    """A copy of the network for use anywhere: on the CPU, in eval mode, with its normalisation."""
    plain = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    module = Deployed(plain, normalisation)
    module.eval()
    return module


def exported_bytes(module: Deployed, in_channels: int, resolution: int) -> bytes:
    """The module as a .pt2 program for float images in [0, 1] and any batch size."""
    example = torch.zeros(2, in_channels, resolution, resolution)  # a batch of 1 would be taken for a constant
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module, (example,), dynamic_shapes={"images": {0: batch}})
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def load_exported(data: bytes) -> nn.Module:
    """The program in a .pt2 file, ready to call."""
    return torch.export.load(io.BytesIO(data)).module()
