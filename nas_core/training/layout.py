"""In which order the values of images and weights lie in memory while a network learns.

Two tensors of different orders take several times longer than two of one, and
what a convolution gives follows its weights, whatever its input.
"""

import torch
from torch import nn

from nas_core.training.settings import Recipe

IMAGE_AXES = 4
FEWEST_CHANNELS = 16  # with which torch's strided 1x1 convolutions can be trained channels last on a CPU


def layout_of(network: nn.Module, recipe: Recipe, device: torch.device) -> torch.memory_format:
    """The layout in which the recipe trains the network: channels last where it asks for that and torch can."""
    is_last = recipe.channels_last and not crashes_channels_last(network, device)
    return torch.channels_last if is_last else torch.contiguous_format


def crashes_channels_last(network: nn.Module, device: torch.device) -> bool:
    """Whether the network's backward pass would write where it must not, channels last on a CPU.

    Seen with torch 2.13: strided 1x1 convolutions of fewer than 16 channels
    (``Conv2d(8, 16, 1, 2)`` alone, on 16 images of 64 x 64) end the process.
    """
    convolutions = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    return device.type == "cpu" and any(
        layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.in_channels // layer.groups < FEWEST_CHANNELS
        for layer in convolutions
    )


def laid_out(values: torch.Tensor, layout: torch.memory_format = torch.channels_last) -> torch.Tensor:
    """Images (four axes) in this layout, anything else contiguous."""
    return values.contiguous(memory_format=layout if values.ndim == IMAGE_AXES else torch.contiguous_format)
