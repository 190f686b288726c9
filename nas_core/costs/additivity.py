"""How additive a measured cost is: sums over blocks against whole networks, and a correction. No torch here.

A sum of separately measured blocks misses what a network adds or saves as a
whole (caches that stay warm, launch overhead). ``Additivity`` says how much
that is, and an affine map fitted to measured networks corrects the sums; it
keeps the order of networks, and the corrected price is still a sum over blocks.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nas_core.base.errors import IncompleteTableError
from nas_core.records.evaluations import WHOLE_NETWORK, Cost, CostTable
from nas_core.space.genotypes import Genotype

MIN_NETWORKS = 3  # an affine map through two points has no residual


@dataclass(frozen=True, kw_only=True)
class Additivity:
    """Agreement of block sums (``predicted``) with measured networks, in the resource's unit, n networks.

    ``r2`` is the share of the measured values' variance that the sums explain
    as they are (negative where their mean would do better), ``kendall`` the
    rank correlation (NaN where all values are equal), ``worst_relative_error``
    the largest |predicted - measured| / measured.

    The correction is measured ~ slope x predicted + intercept, by least squares
    of the relative error. ``corrected_relative_error`` is its RMS relative error
    on networks left out of the fit one at a time, ``corrected_worst_relative_error``
    the largest of these errors. ``usable`` says whether the map is a correction
    at all: a positive slope, and smaller left-out errors than without it.
    """

    resource: str
    device: str
    resolution: int
    n: int
    r2: float
    kendall: float
    worst_relative_error: float
    relative_error: float
    slope: float
    intercept: float
    corrected_relative_error: float
    corrected_worst_relative_error: float
    genotypes: tuple[str, ...]
    predicted: tuple[float, ...]
    measured: tuple[float, ...]

    @property
    def usable(self) -> bool:
        return self.slope > 0 and self.corrected_relative_error < self.relative_error

    def corrected(self, table: CostTable) -> CostTable:
        """The table with the correction applied, if it is ``usable``: every block by the slope, stem and head by both.

        It may be used at other resolutions of the space and device than the one it was fitted at.
        """
        if not self.usable:
            return table
        blocks = tuple(tuple(self.slope * price for price in row) for row in table.block)
        return replace(table, fixed=self.slope * table.fixed + self.intercept, block=blocks)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "usable": self.usable}


def additivity(block_table: CostTable, network_rows: Sequence[Cost]) -> Additivity:
    """Compares the table's sums with the measured whole networks among ``network_rows``.

    Rows of other resources and resolutions than the table's, and failed ones, are left out.

    Raises:
        IncompleteTableError: if fewer than three networks remain.
    """
    rows = [row for row in network_rows if _is_comparable(row, block_table)]
    if len(rows) < MIN_NETWORKS:
        where = f"{block_table.resource} of whole networks"
        raise IncompleteTableError(where, f"{len(rows)} measurements", f"{MIN_NETWORKS} at least")
    predicted = np.array([block_table.total(Genotype.parse(row.genotype)) for row in rows])
    measured = np.array([float(row.value or 0.0) for row in rows])
    error = np.abs(predicted - measured) / measured
    slope, intercept = _affine(predicted, measured)
    left_out = _left_out_errors(predicted, measured)
    return Additivity(
        resource=block_table.resource,
        device=block_table.device,
        resolution=block_table.resolution,
        n=len(rows),
        r2=_r2(predicted, measured),
        kendall=_kendall(predicted, measured),
        worst_relative_error=float(error.max()),
        relative_error=float(np.sqrt(np.mean(error**2))),
        slope=slope,
        intercept=intercept,
        corrected_relative_error=float(np.sqrt(np.mean(left_out**2))),
        corrected_worst_relative_error=float(left_out.max()),
        genotypes=tuple(row.genotype for row in rows),
        predicted=tuple(predicted.tolist()),
        measured=tuple(measured.tolist()),
    )


def _is_comparable(row: Cost, table: CostTable) -> bool:
    same = (row.resource, row.resolution, row.device) == (table.resource, table.resolution, table.device)
    return same and row.position == WHOLE_NETWORK and row.status == "ok" and bool(row.value)


def _r2(predicted: np.ndarray, measured: np.ndarray) -> float:
    total = float(np.sum((measured - measured.mean()) ** 2))
    return 1.0 - float(np.sum((measured - predicted) ** 2)) / total if total else float("nan")


def _kendall(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Kendall's tau-b, NaN where either is constant; by hand, since importing scipy.stats takes seconds."""
    first, second = (np.sign(values[:, None] - values[None, :]) for values in (predicted, measured))
    norm = float(np.sqrt(np.sum(first**2) * np.sum(second**2)))
    return float(np.sum(first * second)) / norm if norm else float("nan")


def _affine(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of least relative error; where the sums are all equal, the slope through zero."""
    if np.ptp(predicted) == 0.0:
        return float(np.mean(measured / predicted)), 0.0
    slope, intercept = np.polyfit(predicted, measured, 1, w=1.0 / measured)
    return float(slope), float(intercept)


def _left_out_errors(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Relative error of every network under the map fitted to the others."""
    errors = np.empty(len(measured))
    for left_out in range(len(measured)):
        others = np.arange(len(measured)) != left_out
        slope, intercept = _affine(predicted[others], measured[others])
        errors[left_out] = abs(slope * predicted[left_out] + intercept - measured[left_out]) / measured[left_out]
    return errors
