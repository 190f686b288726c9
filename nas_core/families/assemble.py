"""An architecture (plain data) becomes a torch module: stem, one block per position, head.

The kinds of blocks are in ``nas_core.families.blocks``.
"""

import math

import torch
from torch import nn

from nas_core.base.errors import SpaceError
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
        inputs = x
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return headed(self.head, x, inputs)


class AddsInput(nn.Module):
    """A head whose outputs are added to the network's input; at first they are nothing.

    The input's channels have a learned share in each output, and a learned
    shift: inputs come with mean 0 and deviation 1, outputs are fractions of
    full brightness. B C H W and B O H W, of one side.
    """

    def __init__(self, head: nn.Module, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.head = head
        last = [layer for layer in head.modules() if isinstance(layer, nn.Conv2d)][-1]
        nn.init.zeros_(last.weight)
        same = torch.eye(num_outputs, in_channels)
        shares_OC = same if num_outputs == in_channels else torch.full_like(same, 1 / in_channels)
        self.shares_OC, self.shift_O = nn.Parameter(shares_OC), nn.Parameter(torch.zeros(num_outputs))

    def forward(self, x: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(x)
        if outputs.shape[-2:] != inputs.shape[-2:]:
            sides = [" x ".join(map(str, each.shape[-2:])) for each in (outputs, inputs)]
            expected = "equal ones: `scale` is the product of the strides of stem and positions"
            raise SpaceError("head.residual", f"outputs of {sides[0]} for inputs of {sides[1]}", expected)
        return outputs + nn.functional.conv2d(inputs, self.shares_OC[:, :, None, None], self.shift_O)


def headed(head: nn.Module, x: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Outputs of a network, from what its last position gives and from its input."""
    outputs: torch.Tensor = head(x, inputs) if isinstance(head, AddsInput) else head(x)
    return outputs


def assemble(architecture: Architecture, generator: torch.Generator | None = None) -> Network:
    """The architecture's network with fresh weights, in training mode, on torch's default device.

    Weights come from ``generator``, or from torch's global one: the same state gives the same weights.

    Raises:
        SpaceError: if a kind or a parameter is wrong, or a block cannot stand at its position.
    """
    stem = build_stem(architecture.stem, architecture.in_channels, generator)
    blocks = [build_block(placed, generator) for placed in architecture.blocks]
    channels = architecture.in_channels, architecture.blocks[-1].out_channels
    return Network(stem, blocks, build_head(architecture.head, *channels, architecture.num_classes, generator))


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
    spec: BlockSpec, in_channels: int, width: int, num_outputs: int, generator: torch.Generator | None = None
) -> nn.Module:
    """The head as a module, from the last position's ``width`` channels to outputs; raises as ``build_block`` does.

    ``in_channels`` are those of the network's input.
    """
    kind = kind_of(HEADS, spec)
    head = initialise(kind.build(width, num_outputs), generator)
    return AddsInput(head, in_channels, num_outputs) if kind.adds_input else head


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
