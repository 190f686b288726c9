"""The protocol of profilers, and the rows they write. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from nas_core.base.identity import content_id
from nas_core.costs.settings import ProfileConfig
from nas_core.records.evaluations import FIXED_PART, WHOLE_NETWORK, Cost
from nas_core.space.genotypes import BlockId, Genotype, SearchSpace

ANY_DEVICE = "any"  # device of a cost that is the same everywhere


class Profiler(Protocol):
    """What measures one or more resources of blocks and of whole networks.

    The class itself needs no torch; its ``measure`` and ``device`` may import it.
    """

    @property
    def resources(self) -> tuple[str, ...]:
        """The resources it measures, all in one pass."""

    def settings(self, config: ProfileConfig) -> dict[str, object]:
        """What of the configuration, code and libraries a value depends on: its ``profiler_id`` is made of it."""

    def device(self, config: ProfileConfig) -> str:
        """Name of the device measured, or ANY_DEVICE; raises ConfigError if it is not there."""

    def measure(
        self,
        space: SearchSpace,
        genotypes: Sequence[Genotype],
        config: ProfileConfig,
        resources: Sequence[str],
        *,
        blocks: bool,
    ) -> list[Cost]:
        """A row per resource for every whole network of ``genotypes``, and with ``blocks`` for the space's parts.

        The parts are stem and head together, and every block, at every
        resolution. A measurement that failed is a row with ``status="failed"``
        and its message.

        Raises:
            ConfigError: if the device is not there.
        """


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A value in its resource's unit, half the distance from its 10th to its 90th percentile, and how many repeats."""

    value: float
    spread: float = 0.0
    num_repeats: int = 1


Measured = Measurement | Exception  # an exception is why there is no value


@dataclass(frozen=True, kw_only=True)
class RowWriter:
    """Turns what one profiler measured of one space into rows: all of them alike."""

    profiler: Profiler
    space: SearchSpace
    config: ProfileConfig
    device: str

    @classmethod
    def of(cls, profiler: Profiler, space: SearchSpace, config: ProfileConfig) -> "RowWriter":
        return cls(profiler=profiler, space=space, config=config, device=profiler.device(config))

    def block(self, block: BlockId, resolution: int, resource: str, measured: Measured) -> Cost:
        position, choice = block
        return self._row("", position, choice, resolution, resource, measured)

    def fixed_part(self, resolution: int, resource: str, measured: Measured) -> Cost:
        """Stem and head together."""
        return self._row("", FIXED_PART, 0, resolution, resource, measured)

    def network(self, genotype: Genotype, resource: str, measured: Measured) -> Cost:
        resolution = self.space.resolution_of(genotype)
        return self._row(str(genotype), WHOLE_NETWORK, 0, resolution, resource, measured)

    def _row(
        self, genotype: str, position: int, choice: int, resolution: int, resource: str, measured: Measured
    ) -> Cost:
        settings = self.profiler.settings(self.config)
        row = Cost(
            space_id=self.space.space_id,
            profiler_id=id_of(settings, resource),
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
            batch_size=self.config.batch_size if "batch_size" in settings else 1,
            num_threads=self.config.num_threads if "num_threads" in settings else 1,
        )
        if isinstance(measured, Exception):
            return replace(row, message=f"{type(measured).__name__}: {measured}"[:500])
        numbers = {"value": float(measured.value), "spread": float(measured.spread)}
        return replace(row, status="ok", num_repeats=measured.num_repeats, **numbers)  # type: ignore[arg-type]


def id_of(settings: dict[str, object], resource: str) -> str:
    """``profiler_id`` of a profiler's settings for one of its resources."""
    return content_id({**settings, "resource": resource})
