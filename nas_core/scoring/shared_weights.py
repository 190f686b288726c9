"""A supernet: one module per block of the space; every network of the space is a path through it."""

import numpy as np
import torch
from torch import nn

from nas_core.blocks.assemble import build_block, build_head, build_stem
from nas_core.space import Genotype, PlacedBlock, SearchSpace

NUM_DRAWS = 1000  # random networks among which the extremes are sought where rules exclude the obvious ones


class SharedWeights(nn.Module):
    """Stem, M lists of candidate blocks, head. Input B C H W images, output logits."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.stem = build_stem(space.stem, space.in_channels, generator)
        self.positions = nn.ModuleList()
        in_channels = space.architecture(next(space.genotypes())).blocks[0].in_channels
        for position in space.positions:
            placed = [
                PlacedBlock(
                    block=block,
                    in_channels=in_channels,
                    out_channels=position.out_channels,
                    stride=position.stride,
                )
                for block in position.blocks
            ]
            self.positions.append(nn.ModuleList(build_block(block, generator) for block in placed))
            in_channels = position.out_channels
        self.head = build_head(space.head, in_channels, space.num_classes, generator)

    def path(self, genotype: Genotype) -> list[nn.Module]:
        """Stem, the genotype's blocks, head: the modules of one network, in order."""
        blocks = [self.block(position, choice) for position, choice in enumerate(genotype.choices)]
        return [self.stem, *blocks, self.head]

    def block(self, position: int, choice: int) -> nn.Module:
        candidates = self.positions[position]
        assert isinstance(candidates, nn.ModuleList)
        return candidates[choice]

    def forward(self, images: torch.Tensor, genotype: Genotype) -> torch.Tensor:
        for module in self.path(genotype):
            images = module(images)
        return images

    def extremes(self, space: SearchSpace) -> tuple[Genotype, Genotype]:
        """The networks with the fewest and with the most parameters, at the smallest and largest resolution.

        Where rules exclude them, the extremes among random networks of the space.
        """
        sizes = [[_num_parameters(block) for block in _children(candidates)] for candidates in self.positions]
        several = len(space.resolutions) > 1
        ends = []
        for best_of, resolution in ((min, min(space.resolutions)), (max, max(space.resolutions))):
            choices = tuple(best_of(range(len(row)), key=row.__getitem__) for row in sizes)
            ends.append(Genotype(choices, resolution if several else None))
        if all(space.allows(genotype) for genotype in ends):
            return ends[0], ends[1]
        rng = np.random.default_rng(0)
        drawn = sorted((space.sample(rng) for _ in range(NUM_DRAWS)), key=lambda g: (_size(sizes, g), g))
        return drawn[0], drawn[-1]


def _children(candidates: nn.Module) -> list[nn.Module]:
    return list(candidates.children())


def _size(sizes: list[list[int]], genotype: Genotype) -> int:
    return sum(row[choice] for row, choice in zip(sizes, genotype.choices, strict=True))


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
