"""Profiler of the exact counts: FLOPs, parameters, peak activation memory (defined in ``counting``)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nas_core.costs.profiler import ANY_DEVICE, Measured, Measurement, RowWriter
from nas_core.costs.settings import ProfileConfig
from nas_core.records.evaluations import Cost
from nas_core.space.genotypes import Genotype, SearchSpace

if TYPE_CHECKING:
    from nas_core.costs.counting import Counts

VERSION = 1  # raise when a count changes: old rows are then not reused


class CountsProfiler:
    """Counts; exact, so spread is 0 and any device will do."""

    resources = ("flops", "params", "activation_bytes")

    def settings(self, config: ProfileConfig) -> dict[str, object]:
        return {"profiler": "counts", "version": VERSION}

    def device(self, config: ProfileConfig) -> str:
        return ANY_DEVICE

    def measure(
        self,
        space: SearchSpace,
        genotypes: Sequence[Genotype],
        config: ProfileConfig,
        resources: Sequence[str],
        *,
        blocks: bool,
    ) -> list[Cost]:
        from nas_core.costs.counting import count_architecture

        writer = RowWriter.of(self, space, config)
        rows = _part_rows(writer, resources) if blocks else []
        for genotype in genotypes:
            counts = _counted(lambda one=genotype: count_architecture(space.architecture(one)), resources)  # type: ignore[misc]
            rows += [writer.network(genotype, name, value) for name, value in counts.items()]
        return rows


def _part_rows(writer: RowWriter, resources: Sequence[str]) -> list[Cost]:
    from nas_core.costs.counting import count_block, count_fixed_part, input_side, placed_blocks

    space, rows = writer.space, list[Cost]()
    for resolution in space.resolutions:
        fixed = _counted(lambda size=resolution: count_fixed_part(space, size), resources)  # type: ignore[misc]
        rows += [writer.fixed_part(resolution, name, value) for name, value in fixed.items()]
        for position, blocks in enumerate(placed_blocks(space)):
            side = input_side(space, position, resolution)
            for choice, placed in enumerate(blocks):
                counts = _counted(lambda block=placed, side=side: count_block(block, side), resources)  # type: ignore[misc]
                rows += [writer.block((position, choice), resolution, name, x) for name, x in counts.items()]
    return rows


def _counted(count: "Callable[[], Counts]", resources: Sequence[str]) -> dict[str, Measured]:
    """The wanted counts, or for each of them the exception that ``count`` raised."""
    try:
        counts = count()
    except Exception as error:
        return dict.fromkeys(resources, error)
    return {name: Measurement(value=counts[name]) for name in resources}
