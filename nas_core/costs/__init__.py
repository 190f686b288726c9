"""What networks cost: one profiler per file behind one protocol (``profiler.Profiler``).

Counts are exact and the same everywhere; latency is measured on the machine at
hand. Importing this package imports no torch: ``profile*``, ``count_networks`` and
``extreme_genotypes`` do, when they are called.
"""

from collections.abc import Sequence
from typing import Any

from nas_core.base.discovery import import_registered
from nas_core.base.errors import ConfigError, UnknownNameError
from nas_core.costs.additivity import Additivity, additivity
from nas_core.costs.profiler import ANY_DEVICE, PROFILERS, Profiler, id_of
from nas_core.families.family import Family
from nas_core.records.evaluations import Cost, CostTable
from nas_core.records.resources import resource_of
from nas_core.space.extremes import extreme_genotypes as _extreme_genotypes
from nas_core.space.genotypes import Genotype, SearchSpace

import_registered(__name__)

from nas_core.costs.settings import ProfileConfig  # noqa: E402  (its defaults are of all profilers)


def profiler_of(resource: str, config: ProfileConfig | None = None) -> Profiler:
    """The profiler that gives a resource, with its settings.

    Raises:
        UnknownNameError: if none does.
        ConfigError: if it has settings without a default, and the study does not give them.
    """
    resource_of(resource)
    config = config or ProfileConfig()
    for name in PROFILERS:
        if resource in (given.name for given in PROFILERS[name].resources):
            if name not in config.profilers:
                needed = [key for key, field in PROFILERS[name].Settings.model_fields.items() if field.is_required()]
                raise ConfigError(f"profile.profilers.{name}", "nothing", f"its settings: {', '.join(needed)}")
            return PROFILERS[name](config.profilers[name])
    raise UnknownNameError("resource", repr(resource), "a resource of a registered profiler")


def is_measured(resource: str) -> bool:
    """Whether the resource is measured on a device, not counted; raises UnknownNameError if nothing gives it."""
    return resource_of(resource).measured


def is_measured_whole(resource: str, config: ProfileConfig | None = None) -> bool:
    """Whether it is measured, and of whole networks, too."""
    return is_measured(resource) and profiler_of(resource, config).whole_networks


def profiler_id(config: ProfileConfig, resource: str) -> str:
    """Id of what the resource's values depend on: settings, code and library versions (the device is its own column).

    Counts do not depend on how latency is measured.
    """
    return id_of(profiler_of(resource, config), resource)


def profile(
    family: Family,
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
    for profiler, mine in _by_profiler(resources, config):
        rows += profiler.measure(family, distinct, mine, blocks=blocks)
    return rows


def profile_blocks(family: Family, config: ProfileConfig, resources: Sequence[str]) -> list[Cost]:
    """``profile`` without whole networks."""
    return profile(family, [], config, resources)


def _by_profiler(resources: Sequence[str], config: ProfileConfig) -> list[tuple[Profiler, list[str]]]:
    """The resources grouped by who measures them: one pass measures all of a profiler's."""
    groups: dict[str, tuple[Profiler, list[str]]] = {}
    for resource in dict.fromkeys(resources):
        profiler = profiler_of(resource, config)
        groups.setdefault(profiler.name, (profiler, []))[1].append(resource)
    return list(groups.values())


def cost_tables(space: SearchSpace, rows: Sequence[Cost], resource: str) -> dict[int, CostTable]:
    """The block prices of one resource, by resolution in pixels; raises IncompleteTableError for a gap."""
    sizes = space.resolutions
    return {size: CostTable.from_rows(rows, resource, space.num_choices, size) for size in sizes}


def count_networks(family: Family, genotypes: Sequence[Genotype], resources: Sequence[str]) -> list[dict[str, Any]]:
    """``{"genotype": "2-0-1-1", "flops": ..., "params": ...}`` for every network, from the exact counts of its blocks.

    Raises:
        SpaceError: for a genotype that is not of the space.
        UnknownNameError: for a resource that is not counted.
    """
    counted = [resource.name for resource in PROFILERS["counts"].resources]
    for resource in resources:
        if resource not in counted:
            raise UnknownNameError("resource", f"{resource!r}, which is not counted", f"one of: {', '.join(counted)}")
    from nas_core.costs.counting import count_parts

    rows = []
    for genotype in genotypes:
        counts = count_parts(family.parts(family.space.check(genotype)))  # parts are counted once per process
        rows.append({"genotype": str(genotype), **{resource: counts[resource] for resource in resources}})
    return rows


def extreme_genotypes(family: Family) -> tuple[Genotype, Genotype]:
    """(smallest, largest) network by counted multiply-adds that the rules allow; raises SpaceError if there is none."""
    rows = profile_blocks(family, ProfileConfig(), ["flops"])
    return _extreme_genotypes(family.space, list(cost_tables(family.space, rows, "flops").values()))


__all__ = [
    "ANY_DEVICE",
    "PROFILERS",
    "Additivity",
    "ProfileConfig",
    "Profiler",
    "additivity",
    "cost_tables",
    "count_networks",
    "extreme_genotypes",
    "is_measured",
    "is_measured_whole",
    "profile",
    "profile_blocks",
    "profiler_id",
    "profiler_of",
]
