"""What is measured of a family: the parts of every block, and of what all networks have. No torch here."""

from collections.abc import Sequence

from nas_core.families.family import Family, Part
from nas_core.space.genotypes import Genotype, SearchSpace
from nas_core.space.rules import BlockId


def base_genotypes(space: SearchSpace) -> list[Genotype]:
    """One genotype per resolution, whose blocks are swapped one at a time; rules are not asked."""
    return [Genotype((0,) * space.num_positions, label) for label in space.genotype_resolutions]


def block_parts(family: Family, base: Genotype, block: BlockId) -> list[Part]:
    """The parts that a block is, where the other positions have those of ``base``."""
    position, choice = block
    return [part for part in family.parts(base.swap(position, choice)) if part.position == position]


def fixed_parts(family: Family, base: Genotype) -> list[Part]:
    """The parts that every network has."""
    return [part for part in family.parts(base) if part.position is None]


def all_parts(family: Family, base: Genotype) -> dict[BlockId, Sequence[Part]]:
    """``block_parts`` of every block of the space."""
    return {
        (position, choice): block_parts(family, base, (position, choice))
        for position, count in enumerate(family.space.num_choices)
        for choice in range(count)
    }
