"""A network with seeded fresh weights."""

import torch

from nas_core.blocks.assemble import Network, assemble
from nas_core.space import Architecture


def build_network(architecture: Architecture, seed: int) -> Network:
    """The architecture's network; its weights are a function of the seed alone."""
    return assemble(architecture, torch.Generator().manual_seed(seed))
