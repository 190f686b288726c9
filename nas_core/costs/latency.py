"""Profiler of measured latency on the machine at hand (``timing`` says how it is measured)."""

from collections.abc import Sequence
from importlib.metadata import version

from nas_core.config import ProfileConfig
from nas_core.costs.rows import RowWriter
from nas_core.evaluations import Cost
from nas_core.space import Genotype, SearchSpace

VERSION = 1  # raise when the way of measuring changes: old rows are then not reused
RESOURCE = "latency_ms"


class LatencyProfiler:
    """Milliseconds per batch: median and spread over the repeats. A block that does nothing costs 0."""

    resources = (RESOURCE,)

    def settings(self, config: ProfileConfig) -> dict[str, object]:
        how = config.model_dump(include={"batch_size", "num_threads", "warmup", "repeats", "channels_last"})
        return {"profiler": "latency", "version": VERSION, "torch": version("torch"), **how}

    def device(self, config: ProfileConfig) -> str:
        from nas_core.costs.timing import device_name

        return device_name(config)

    def measure_blocks(self, space: SearchSpace, config: ProfileConfig, resources: Sequence[str]) -> list[Cost]:
        from nas_core.costs.timing import time_blocks

        writer = RowWriter.of(self, space, config)
        rows = []
        for resolution in space.resolutions:
            fixed, blocks = time_blocks(space, resolution, config)
            rows.append(writer.fixed_part(resolution, RESOURCE, fixed))
            rows += [writer.block(block, resolution, RESOURCE, measured) for block, measured in blocks.items()]
        return rows

    def measure_networks(
        self, space: SearchSpace, genotypes: Sequence[Genotype], config: ProfileConfig, resources: Sequence[str]
    ) -> list[Cost]:
        from nas_core.costs.timing import time_networks

        writer = RowWriter.of(self, space, config)
        measured = time_networks(space, genotypes, config)
        pairs = zip(genotypes, measured, strict=True)
        return [writer.network(genotype, RESOURCE, measurement) for genotype, measurement in pairs]
