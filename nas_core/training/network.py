"""Networks with seeded fresh weights, from whatever describes them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nas_core.deepmad.network import DesignedNetwork
from nas_core.families.assemble import assemble, initialise
from nas_core.space.genotypes import Architecture

Description = Architecture | DesignedNetwork


def build_network(described: Description, seed: int) -> nn.Module:
    """The described network; its weights are a function of the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(described, Architecture):
        return assemble(described, generator)
    from nas_core.deepmad.realise import build  # only designs need timm's ByobNet

    network = build(described.structure, num_classes=described.num_classes, in_channels=described.in_channels)
    return initialise(network, generator)


def description_from_dict(data: Mapping[str, Any]) -> Description:
    """What an ``architecture.json`` describes."""
    return DesignedNetwork.from_dict(data) if "structure" in data else Architecture.from_dict(data)
