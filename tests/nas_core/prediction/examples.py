"""Small spaces and known functions on them, for tests of prediction."""

import itertools
from collections.abc import Callable

import numpy as np

from nas_core.records.evaluations import CostTable, EvaluationTable
from nas_core.space.genotypes import BlockSpec, Genotype, Position, Rule, SearchSpace


def plain_space(
    num_choices: tuple[int, ...] = (3, 2, 4), resolutions: tuple[int, ...] = (8,), rules: tuple[Rule, ...] = ()
) -> SearchSpace:
    """Distinct blocks everywhere, so that no two genotypes are one function."""
    positions = tuple(
        Position(
            name=f"p{index}",
            out_channels=1,
            stride=1,
            blocks=tuple(BlockSpec.of("value", at=index, value=choice) for choice in range(count)),
        )
        for index, count in enumerate(num_choices)
    )
    return SearchSpace(
        name="plain",
        in_channels=1,
        resolutions=resolutions,
        num_classes=2,
        stem=BlockSpec.of("none"),
        head=BlockSpec.of("none"),
        positions=positions,
        rules=rules,
    )


def stage_space(num_positions: int = 3) -> SearchSpace:
    """One stage of equal shapes with an identity block: identities commute with their neighbours."""
    blocks = (BlockSpec.of("identity"), BlockSpec.of("conv", kernel=3), BlockSpec.of("conv", kernel=5))
    positions = tuple(
        Position(name=f"p{index}", out_channels=4, stride=1, blocks=blocks) for index in range(num_positions)
    )
    return SearchSpace(
        name="stage",
        in_channels=1,
        resolutions=(8,),
        num_classes=2,
        stem=BlockSpec.of("conv", out_channels=4),
        head=BlockSpec.of("pool"),
        positions=positions,
    )


def additive_metric(space: SearchSpace, seed: int = 0) -> Callable[[Genotype], float]:
    """A sum of one random number per block, between 0 and 1 in all."""
    rng = np.random.default_rng(seed)
    gain = [rng.random(count) / space.num_positions for count in space.num_choices]
    return lambda genotype: float(sum(row[choice] for row, choice in zip(gain, genotype.choices, strict=True)))


def pairwise_metric(space: SearchSpace, seed: int = 0, strength: float = 0.1) -> Callable[[Genotype], float]:
    """An additive metric plus one random number per pair of neighbouring blocks."""
    rng = np.random.default_rng(seed + 1)
    additive = additive_metric(space, seed)
    pairs = [rng.normal(size=two) for two in itertools.pairwise(space.num_choices)]

    def metric(genotype: Genotype) -> float:
        steps = zip(pairs, genotype.choices, genotype.choices[1:], strict=False)
        return additive(genotype) + strength * float(sum(table[a, b] for table, a, b in steps))

    return metric


def table_of(metric: Callable[[Genotype], float], genotypes: list[Genotype]) -> EvaluationTable:
    return EvaluationTable.from_metrics({genotype: metric(genotype) for genotype in genotypes})


def costs_of(space: SearchSpace, resource: str = "flops", seed: int = 3) -> CostTable:
    """A random positive price per block."""
    rng = np.random.default_rng(seed)
    block = tuple(tuple(float(price) for price in rng.uniform(1, 5, count)) for count in space.num_choices)
    return CostTable(resource=resource, device="", resolution=space.resolutions[0], fixed=2.0, block=block)
