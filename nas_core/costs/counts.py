"""Profiler of the exact counts: FLOPs, parameters, peak activation memory (defined in ``counting``)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nas_core.costs.parts import base_genotypes, block_parts, fixed_parts
from nas_core.costs.profiler import PROFILERS, Measured, Measurement, Profiler, RowWriter
from nas_core.families.family import Family, Part
from nas_core.records.evaluations import Cost
from nas_core.records.resources import Resource
from nas_core.space.genotypes import Genotype

if TYPE_CHECKING:
    from nas_core.costs.counting import Counts


@PROFILERS.add
class CountsProfiler(Profiler):
    """Counts of FLOPs, parameters and peak activation memory; exact, so any device will do."""

    name = "counts"
    version = 2  # a trained model's memory with what goes past its blocks
    needs_networks = True
    resources = (
        Resource(name="flops", unit="multiply-adds per input"),
        Resource(name="params", unit="parameters"),
        Resource(name="activation_bytes", unit="bytes at batch size 1", combine="max"),
    )

    def measure(
        self, family: Family, genotypes: Sequence[Genotype], resources: Sequence[str], *, blocks: bool
    ) -> list[Cost]:
        writer = RowWriter.of(self, family)
        rows = list(_part_rows(writer, resources)) if blocks else []
        for genotype in genotypes:
            counts = _counted(lambda one=genotype: family.parts(family.space.check(one)), resources)  # type: ignore[misc]
            rows += [writer.network(genotype, name, value) for name, value in counts.items()]
        return rows


def _part_rows(writer: RowWriter, resources: Sequence[str]) -> list[Cost]:
    family, rows = writer.family, list[Cost]()
    for base in base_genotypes(family.space):
        size = family.space.resolution_of(base)
        fixed = _counted(lambda base=base: fixed_parts(family, base), resources)  # type: ignore[misc]
        rows += [writer.fixed_part(size, name, value) for name, value in fixed.items()]
        for position, count in enumerate(family.space.num_choices):
            for choice in range(count):
                block = (position, choice)
                counts = _counted(lambda base=base, block=block: block_parts(family, base, block), resources)  # type: ignore[misc]
                rows += [writer.block(block, size, name, value) for name, value in counts.items()]
    return rows


def _counted(parts: Callable[[], Sequence[Part]], resources: Sequence[str]) -> dict[str, Measured]:
    """The wanted counts of the parts together, or for each of them the exception that came up."""
    from nas_core.costs.counting import count_parts

    try:
        counts: Counts = count_parts(parts())
    except Exception as error:
        return dict.fromkeys(resources, error)
    return {name: Measurement(value=counts[name]) for name in resources}
