"""Choices that are no networks: compiler flags, pipeline stages, prompts. A scorer from a function rates them."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import Field

from nas_core.base.errors import SpaceError
from nas_core.base.settings import Section
from nas_core.families.family import FAMILIES, Family, Part
from nas_core.space.genotypes import BlockSpec, Genotype, Position, Scalar, SearchSpace

if TYPE_CHECKING:
    import torch
    from torch import nn

CHOICE = "choice"


@FAMILIES.add
class PlainChoices(Family):
    """Any m x n choices: a name and a list of values for every position."""

    name = "choices"
    needs_torch = False
    are_networks = False
    example = {"positions": {"optimise": ["O0", "O2", "O3"], "inline": [True, False]}}  # noqa: RUF012

    class Settings(Section):
        positions: dict[str, list[Scalar]] = Field(
            min_length=1, description="Values to choose from, by position: {opt: [O0, O2], inline: [true, false]}."
        )

    @cached_property
    def space(self) -> SearchSpace:
        positions = tuple(
            Position(name=name, blocks=tuple(BlockSpec.of(CHOICE, value=value) for value in values))
            for name, values in self.settings.positions.items()
        )
        return SearchSpace(name=self.name, positions=positions)

    def module(self, genotype: Genotype, generator: "torch.Generator | None" = None) -> "nn.Module":
        raise SpaceError(f"family {self.name}", "plain choices", "a family of networks, to train or time one")

    def parts(self, genotype: Genotype) -> Sequence[Part]:
        return []
