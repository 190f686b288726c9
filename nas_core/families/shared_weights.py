"""A supernet: one module per block of the space; every network of the space is a path through it."""

import torch
from torch import nn

from nas_core.families.assemble import AddsInput, build_block, build_head, build_stem, headed
from nas_core.space.genotypes import Genotype, SearchSpace


class SharedWeights(nn.Module):
    """Stem, M lists of candidate blocks, head. Input B C H W images, output logits."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        stem, head = space.ends
        self.stem = build_stem(stem, space.in_channels, generator)
        self.positions = nn.ModuleList(
            nn.ModuleList(build_block(block, generator) for block in row) for row in space.placed
        )
        self.head = build_head(head, space.in_channels, space.positions[-1].out_channels, space.num_classes, generator)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Layers by their parameters' names, as timm's models tell them: the stem, each position; the head is last."""
        return {"stem": r"^stem", "positions": r"^positions\.(\d+)"}

    def path(self, genotype: Genotype) -> list[nn.Module]:
        """Stem, the genotype's blocks, head: the modules of one network, in order."""
        blocks = [self.block(position, choice) for position, choice in enumerate(genotype.choices)]
        return [self.stem, *blocks, self.head]

    def block(self, position: int, choice: int) -> nn.Module:
        candidates = self.positions[position]
        assert isinstance(candidates, nn.ModuleList)
        return candidates[choice]

    def forward(self, images: torch.Tensor, genotype: Genotype) -> torch.Tensor:
        x = images
        for module in self.path(genotype)[:-1]:
            x = module(x)
        return headed(self.head, x, images)

    @property
    def are_in_a_row(self) -> bool:
        """Whether each module takes what the one before it gives, and nothing else."""
        return not isinstance(self.head, AddsInput)
