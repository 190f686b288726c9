"""Networks with seeded fresh weights, from whatever describes them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nas_core.deepmad.structure import DesignedNetwork
from nas_core.families.assemble import assemble, initialise
from nas_core.families.family import Family
from nas_core.families.member import Member
from nas_core.families.model.remade import Remade
from nas_core.space.genotypes import Architecture
from nas_core.training.teacher import OwnModel

Description = Architecture | DesignedNetwork | Member | Remade


def build_network(described: Description, seed: int) -> nn.Module:
    """The described network; its weights are a function of the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(described, Architecture):
        return assemble(described, generator)
    if isinstance(described, Member):
        return described.family.module(described.genotype, generator)
    if isinstance(described, Remade):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return described.module()
    from nas_core.deepmad.realise import build  # only designs need timm's ByobNet

    network = build(described.structure, num_classes=described.num_classes, in_channels=described.in_channels)
    return initialise(network, generator)


def teacher_of(described: Description) -> OwnModel | None:
    """The trained model that the network was made of; None where there is none."""
    if not isinstance(described, Member | Remade) or type(described.family).teacher is Family.teacher:
        return None
    family = described.family

    def network() -> nn.Module:
        model = family.teacher
        assert model is not None, "a family that has a teacher gives it"
        return model

    return OwnModel(network=network, places=family.teacher_places)


def description_from_dict(data: Mapping[str, Any]) -> Description:
    """What an ``architecture.json`` describes."""
    if "structure" in data:  # a designed network names a family, too: its own kind of structure
        return DesignedNetwork.from_dict(data)
    if "instead" in data:
        return Remade.from_dict(data)
    return Member.from_dict(data) if "family" in data else Architecture.from_dict(data)
