"""A supernet: one module per block of the space; every network of the space is a path through it."""

import torch
from torch import nn

from nas_core.families.assemble import build_block, build_head, build_stem
from nas_core.space.genotypes import Genotype, PlacedBlock, SearchSpace


class SharedWeights(nn.Module):
    """Stem, M lists of candidate blocks, head. Input B C H W images, output logits."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.stem = build_stem(space.stem, space.in_channels, generator)
        self.positions = nn.ModuleList()
        in_channels = int(dict(space.stem.params)["out_channels"])
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
