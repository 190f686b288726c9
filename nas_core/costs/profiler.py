"""The protocol of profilers, and the rows they write. No torch here."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from nas_core.base.identity import content_id
from nas_core.base.registry import Registered, Registry
from nas_core.base.settings import Section
from nas_core.families.family import Family
from nas_core.records.evaluations import FIXED_PART, WHOLE_NETWORK, Cost
from nas_core.records.resources import Resource, declare
from nas_core.space.genotypes import Genotype
from nas_core.space.rules import BlockId

ANY_DEVICE = "any"  # device of a cost that is the same everywhere


class Profiler(Registered, ABC):
    """What gives one or more resources of blocks and of whole networks.

    The class itself needs no torch; ``measure`` and ``device`` may import it.
    """

    resources: ClassVar[tuple[Resource, ...]]  # all given in one pass
    whole_networks: ClassVar[bool] = True  # whether it gives rows of whole networks, too
    needs_networks: ClassVar[bool] = False  # whether it measures torch modules, which plain choices are not

    def __init__(self, settings: Section) -> None:
        self.settings: Any = settings

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for resource in getattr(cls, "resources", ()):
            declare(resource)

    @property
    def identity(self) -> dict[str, Any]:
        """What of settings and libraries a value depends on: part of its ``profiler_id``."""
        return dict(self.settings.model_dump(mode="json", exclude={"kind"}))

    @property
    def needs_gpu(self) -> bool:
        """Whether only a GPU will do: a node with one is asked for."""
        return False

    @property
    def device(self) -> str:
        """Name of the device measured, or ANY_DEVICE; raises ConfigError if it is not there."""
        return ANY_DEVICE

    @property
    def measures_here(self) -> bool:
        """Whether values are measured by this process; else they are brought from another machine."""
        return True

    def check(self) -> None:
        """Raise ConfigError for what this machine cannot measure; cheap, no torch."""

    @abstractmethod
    def measure(
        self, family: Family, genotypes: Sequence[Genotype], resources: Sequence[str], *, blocks: bool
    ) -> list[Cost]:
        """A row per resource for every whole network of ``genotypes``, and with ``blocks`` for the space's parts.

        The parts are what every network has together, and every block, at every
        resolution. A measurement that failed is a row with ``status="failed"``
        and its message. Rows are made by ``RowWriter``.

        Raises:
            ConfigError: if the device is not there.
        """


PROFILERS = Registry[Profiler]("profiler", Profiler)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A value in its resource's unit, half the distance from its 10th to its 90th percentile, and how many repeats."""

    value: float
    spread: float = 0.0
    num_repeats: int = 1


Measured = Measurement | Exception  # an exception is why there is no value


@dataclass(frozen=True, kw_only=True)
class RowWriter:
    """Turns what one profiler measured of one family into rows: all of them alike."""

    profiler: Profiler
    family: Family
    device: str

    @classmethod
    def of(cls, profiler: Profiler, family: Family) -> "RowWriter":
        return cls(profiler=profiler, family=family, device=profiler.device)

    def block(self, block: BlockId, resolution: int, resource: str, measured: Measured) -> Cost:
        position, choice = block
        return self._row("", position, choice, resolution, resource, measured)

    def fixed_part(self, resolution: int, resource: str, measured: Measured) -> Cost:
        """What every network has: stem and head, say, together."""
        return self._row("", FIXED_PART, 0, resolution, resource, measured)

    def network(self, genotype: Genotype, resource: str, measured: Measured) -> Cost:
        resolution = self.family.space.resolution_of(genotype)
        return self._row(str(genotype), WHOLE_NETWORK, 0, resolution, resource, measured)

    def _row(
        self, genotype: str, position: int, choice: int, resolution: int, resource: str, measured: Measured
    ) -> Cost:
        settings = self.profiler.settings
        row = Cost(
            space_id=self.family.space.space_id,
            profiler_id=id_of(self.profiler, resource),
            device=self.device,
            genotype=genotype,
            position=position,
            choice=choice,
            resolution=resolution,
            resource=resource,
            status="failed",
            value=None,
            spread=0.0,
            num_repeats=0,
            batch_size=getattr(settings, "batch_size", 1),
            num_threads=getattr(settings, "num_threads", 1),
        )
        if isinstance(measured, Exception):
            return replace(row, message=f"{type(measured).__name__}: {measured}"[:500])
        value, spread = float(measured.value), float(measured.spread)
        if not math.isfinite(value):
            return replace(row, message=f"ValueError: {resource} is {value}")
        return replace(row, status="ok", num_repeats=measured.num_repeats, value=value, spread=spread)


def id_of(profiler: Profiler, resource: str) -> str:
    """``profiler_id`` of a profiler for one of its resources: settings, code, files (the device is its own column)."""
    known = PROFILERS.identity(profiler.name, profiler.settings)
    return content_id({"profiler": known, **profiler.identity, "resource": resource})
