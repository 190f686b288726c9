"""An architecture (plain data) becomes a torch module: stem, one block per position, head.

The kinds of blocks are in ``nas_core.families.blocks``.
"""

import math

import torch
from torch import nn

from nas_core.families.blocks import HEADS, STEMS, check_placed, kind_of
from nas_core.space.genotypes import Architecture, BlockSpec, PlacedBlock


class Network(nn.Module):
    """Stem, one block per position, head.

    Input B x in_channels x resolution x resolution, output logits B x num_classes.
    """

    def __init__(self, stem: nn.Module, blocks: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.head = head

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Layers by their parameters' names, as timm's models tell them: the stem, each block; the head is last."""
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(x)
        return logits


def assemble(architecture: Architecture, generator: torch.Generator | None = None) -> Network:
    """The architecture's network with fresh weights, in training mode, on torch's default device.

    Weights come from ``generator``, or from torch's global one: the same state gives the same weights.

    Raises:
        SpaceError: if a kind or a parameter is wrong, or a block cannot stand at its position.
    """
    stem = build_stem(architecture.stem, architecture.in_channels, generator)
    blocks = [build_block(placed, generator) for placed in architecture.blocks]
    width = architecture.blocks[-1].out_channels
    return Network(stem, blocks, build_head(architecture.head, width, architecture.num_classes, generator))


def build_block(placed: PlacedBlock, generator: torch.Generator | None = None) -> nn.Module:
    """The block as a module: B x in_channels x H x W to B x out_channels x ceil(H / stride) x ceil(W / stride).

    Raises:
        SpaceError: if the kind or a parameter is wrong, or the block cannot stand there.
    """
    kind = check_placed(placed)
    return initialise(kind.build(placed.in_channels, placed.out_channels, placed.stride), generator)


def build_stem(spec: BlockSpec, in_channels: int, generator: torch.Generator | None = None) -> nn.Module:
    """The stem as a module, from images to the first position; raises SpaceError as ``build_block`` does."""
    return initialise(kind_of(STEMS, spec).build(in_channels), generator)


def build_head(
    spec: BlockSpec, in_channels: int, num_classes: int, generator: torch.Generator | None = None
) -> nn.Module:
    """The head as a module, from the last position to logits; raises SpaceError as ``build_block`` does."""
    return initialise(kind_of(HEADS, spec).build(in_channels, num_classes), generator)


def initialise(module: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """The module with fresh weights: He's normal for convolutions, a narrow normal for linear layers.

    A grouped convolution's fan is that of one group, as in timm's EfficientNets
    (He et al. 2015 with torch's own fan would scale depthwise weights to nothing).
    Normalisation layers and layer scales keep the values of their constructors.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out), generator=generator)
        elif isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02, generator=generator)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return module
