"""Profiler of measured latency on the machine at hand (``timing`` says how it is measured)."""

from collections.abc import Sequence
from importlib.metadata import version

from nas_core.costs.profiler import RowWriter
from nas_core.costs.settings import ProfileConfig
from nas_core.records.evaluations import Cost
from nas_core.space.genotypes import Genotype, SearchSpace

VERSION = 1  # raise when the way of measuring changes: old rows are then not reused
RESOURCE = "latency_ms"


class LatencyProfiler:
    """Milliseconds per batch: median and spread over the repeats. A block that does nothing costs 0."""

    resources = (RESOURCE,)

    def settings(self, config: ProfileConfig) -> dict[str, object]:
        how = config.model_dump(include={"batch_size", "num_threads", "warmup", "repeats", "channels_last", "device"})
        return {"profiler": "latency", "version": VERSION, "torch": version("torch"), **how}

    def device(self, config: ProfileConfig) -> str:
        from nas_core.costs.timing import device_name

        return device_name(config)

    def measure(
        self,
        space: SearchSpace,
        genotypes: Sequence[Genotype],
        config: ProfileConfig,
        resources: Sequence[str],
        *,
        blocks: bool,
    ) -> list[Cost]:
        from nas_core.costs.timing import time_space

        writer = RowWriter.of(self, space, config)
        rows = []
        for resolution in space.resolutions:
            mine = [genotype for genotype in genotypes if space.resolution_of(genotype) == resolution]
            timings = time_space(space, resolution, mine, config, blocks=blocks)
            if timings.fixed_part is not None:
                rows.append(writer.fixed_part(resolution, RESOURCE, timings.fixed_part))
            rows += [writer.block(block, resolution, RESOURCE, measured) for block, measured in timings.blocks.items()]
            rows += [writer.network(genotype, RESOURCE, measured) for genotype, measured in timings.networks.items()]
        return rows
