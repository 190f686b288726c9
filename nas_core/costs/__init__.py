"""What networks cost: one profiler per file behind one protocol (``rows.Profiler``).

Counts are exact and the same everywhere; latency is measured on the machine at
hand. Importing this package imports no torch: ``profile*``, ``count_networks``,
``extreme_genotypes`` and ``device_name`` do, when they are called.
"""

from collections.abc import Sequence
from typing import Any

from nas_core.base.errors import UnknownNameError
from nas_core.base.names import Names
from nas_core.costs.additivity import Additivity, additivity
from nas_core.costs.counts import CountsProfiler
from nas_core.costs.latency import LatencyProfiler
from nas_core.costs.profiler import ANY_DEVICE, Profiler, id_of
from nas_core.costs.settings import ProfileConfig
from nas_core.records.evaluations import UNITS, Cost, CostTable
from nas_core.space.extremes import extreme_genotypes as _extreme_genotypes
from nas_core.space.genotypes import Genotype, SearchSpace

PROFILERS = Names[Profiler]("profiler")
PROFILERS.add("counts")(CountsProfiler())
PROFILERS.add("latency")(LatencyProfiler())


def profiler_of(resource: str) -> Profiler:
    """The profiler that measures a resource.

    Raises:
        UnknownNameError: if none does.
    """
    profilers = [PROFILERS[name] for name in PROFILERS]
    for profiler in profilers:
        if resource in profiler.resources:
            return profiler
    known = ", ".join(name for profiler in profilers for name in profiler.resources)
    raise UnknownNameError("resource", repr(resource), f"one of: {known}")


def is_measured(resource: str) -> bool:
    """Whether the resource is measured on a device, not counted; raises UnknownNameError if nothing measures it."""
    return profiler_of(resource) is not PROFILERS["counts"]


def profiler_id(config: ProfileConfig, resource: str) -> str:
    """Id of what the resource's values depend on: settings, code and library versions (the device is its own column).

    Counts do not depend on how latency is measured.
    """
    return id_of(profiler_of(resource).settings(config), resource)


def device_name(config: ProfileConfig, resource: str = "latency_ms") -> str:
    """Name of the device that is measured, such as a CPU's model name; ``any`` for counts."""
    return profiler_of(resource).device(config)


def profile(
    space: SearchSpace,
    genotypes: Sequence[Genotype],
    config: ProfileConfig,
    resources: Sequence[str],
    *,
    blocks: bool = True,
) -> list[Cost]:
    """A row per resource for the fixed part and every block at every resolution, and for every network given.

    A network given twice is measured once. Measured together, blocks and networks take turns, so that a machine whose
    speed drifts does not make a sum of blocks look unlike its network. A
    measurement that failed is a row with ``status="failed"`` and its message.

    Raises:
        UnknownNameError: for a resource that no profiler measures.
        ConfigError: if the device asked for is not there.
    """
    distinct = list(dict.fromkeys(genotypes))
    rows = []
    for profiler, mine in _by_profiler(resources):
        rows += profiler.measure(space, distinct, config, mine, blocks=blocks)
    return rows


def profile_blocks(space: SearchSpace, config: ProfileConfig, resources: Sequence[str]) -> list[Cost]:
    """``profile`` without whole networks."""
    return profile(space, [], config, resources)


def profile_networks(
    space: SearchSpace, genotypes: Sequence[Genotype], config: ProfileConfig, resources: Sequence[str]
) -> list[Cost]:
    """``profile`` of whole networks only."""
    return profile(space, genotypes, config, resources, blocks=False)


def _by_profiler(resources: Sequence[str]) -> list[tuple[Profiler, list[str]]]:
    """The resources grouped by who measures them: one pass measures all of a profiler's."""
    groups: dict[type, tuple[Profiler, list[str]]] = {}
    for resource in dict.fromkeys(resources):
        profiler = profiler_of(resource)
        groups.setdefault(type(profiler), (profiler, []))[1].append(resource)
    return list(groups.values())


def cost_tables(space: SearchSpace, rows: Sequence[Cost], resource: str) -> dict[int, CostTable]:
    """The block prices of one resource, by resolution in pixels; raises IncompleteTableError for a gap."""
    sizes = space.resolutions
    return {size: CostTable.from_rows(rows, resource, space.num_choices, size) for size in sizes}


def count_networks(space: SearchSpace, genotypes: Sequence[Genotype], resources: Sequence[str]) -> list[dict[str, Any]]:
    """``{"genotype": "2-0-1-1", "flops": ..., "params": ...}`` for every network, from the exact counts of its blocks.

    Raises:
        SpaceError: for a genotype that is not of the space.
        UnknownNameError: for a resource that is not counted.
    """
    counted = PROFILERS["counts"].resources
    for resource in resources:
        if resource not in counted:
            advice = f"{resource} is measured, not counted." if resource in UNITS else ""
            raise UnknownNameError("resource", repr(resource), f"one of: {', '.join(counted)}", advice)
    from nas_core.costs.counting import count_architecture

    rows = []
    for genotype in genotypes:
        counts = count_architecture(space.architecture(genotype))  # its blocks are counted once per process
        rows.append({"genotype": str(genotype), **{resource: counts[resource] for resource in resources}})
    return rows


def extreme_genotypes(space: SearchSpace) -> tuple[Genotype, Genotype]:
    """(smallest, largest) network by counted multiply-adds that the rules allow; raises SpaceError if there is none."""
    rows = profile_blocks(space, ProfileConfig(), ["flops"])
    return _extreme_genotypes(space, list(cost_tables(space, rows, "flops").values()))


__all__ = [
    "ANY_DEVICE",
    "PROFILERS",
    "Additivity",
    "Profiler",
    "additivity",
    "cost_tables",
    "count_networks",
    "device_name",
    "extreme_genotypes",
    "is_measured",
    "profile",
    "profile_blocks",
    "profile_networks",
    "profiler_id",
    "profiler_of",
]
