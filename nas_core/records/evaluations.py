"""The records everything is built on: one network measured once, one cost measured once.

``Evaluation`` rates a genotype, ``Cost`` prices a genotype or a block, ``Epoch``
is a point of the learning curve that led to an evaluation. All are plain rows
with a Parquet schema (``nas_core.records.store`` writes them). Block scores are
derived from evaluations (``nas_core.prediction``), never stored as the primary
record, so a network is not evaluated twice whatever asked for it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np

from nas_core.base.errors import IncompleteTableError
from nas_core.records.resources import Combine, combine_of
from nas_core.space.genotypes import Genotype

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
Status = Literal["ok", "failed"]
FIXED_PART = -1  # position of a Cost that prices the stem and the head together
WHOLE_NETWORK = -2  # position of a Cost that prices the network of its genotype


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One rating of one genotype by one scorer with one study seed.

    ``metric`` is as measured, in the unit that ``metric_name`` says (accuracies
    are fractions in [0, 1]), and None when ``status`` is ``failed``; ``message``
    then says why. ``split`` is the data it was measured on.
    """

    space_id: str
    scorer_id: str
    genotype: str
    seed: int
    status: Status
    metric: float | None
    metric_name: str
    higher_is_better: bool
    split: str
    num_examples: int
    wall_s: float
    device: str
    message: str = ""

    measured: ClassVar[str] = "metric"

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What identifies the measurement: two rows with one key are the same one."""
        return (self.space_id, self.scorer_id, self.genotype, self.seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One price of a block, of the fixed part or of a whole network, on one device.

    ``value`` is of ``num_repeats`` runs, in the unit of ``resource``
    (``resources``) and ``spread`` half the distance between its 10th and 90th
    percentile; both are exact and 0 for counts. ``position`` is FIXED_PART for
    stem and head, WHOLE_NETWORK with ``genotype`` set for a network.
    ``resolution`` is the input size in pixels.
    """

    space_id: str
    profiler_id: str
    device: str
    genotype: str
    position: int
    choice: int
    resolution: int
    resource: str
    status: Status
    value: float | None
    spread: float
    num_repeats: int
    batch_size: int
    num_threads: int
    message: str = ""

    measured: ClassVar[str] = "value"

    @property
    def key(self) -> tuple[str, str, str, str, int, int, int, str]:
        place = (self.genotype, self.position, self.choice, self.resolution)
        return (self.space_id, self.profiler_id, self.device, *place, self.resource)


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """The end of an epoch of the training that an evaluation is of.

    ``epoch`` counts from 1, ``step`` and ``lr`` are of the epoch's last step,
    ``loss`` is its mean training loss. ``metric`` is of the evaluation's split,
    None where it was not measured then.
    """

    space_id: str
    scorer_id: str
    genotype: str
    seed: int
    epoch: int
    step: int
    lr: float
    loss: float
    metric: float | None
    metric_name: str
    status: Status = "ok"  # of all of them: an epoch that fails is not written

    measured: ClassVar[str] = "loss"

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        return (self.space_id, self.scorer_id, self.genotype, self.seed, self.epoch)


Row = TypeVar("Row", Evaluation, Cost, Epoch)
RowType = type[Evaluation] | type[Cost] | type[Epoch]


def schema_of(row_type: RowType) -> "pa.Schema":
    """The Parquet schema of a record, from its fields' types."""
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), Status: pa.string()}
    types |= {float | None: pa.float64()}
    return pa.schema([pa.field(field.name, types[field.type]) for field in fields(row_type)])


def to_table(rows: Sequence[Row]) -> "pa.Table":
    """The rows as an Arrow table; all of one type, one at least."""
    import pyarrow as pa

    return pa.Table.from_pylist([asdict(row) for row in rows], schema=schema_of(type(rows[0])))


def wrong_with(table: "pa.Table", row_type: RowType) -> str:
    """What keeps the table from being rows of the type: columns, gaps, statuses, numbers; "" if nothing does."""
    import pyarrow.compute as pc

    schema = schema_of(row_type)
    if not table.schema.remove_metadata().equals(schema):
        known = {field.name: field.type for field in table.schema}
        wrong = [field.name for field in schema if known.get(field.name) != field.type]
        return f"column {wrong[0]} missing or of another type" if wrong else "other columns"
    measured = table[row_type.measured]
    gaps = [name for name in schema.names if table[name].null_count and name not in ("metric", "value")]
    if gaps:
        return f"nothing in column {gaps[0]}"
    statuses = set(table["status"].unique().to_pylist())
    if not statuses <= {"ok", "failed"}:
        return f"status {sorted(statuses - {'ok', 'failed'})[0]!r}"
    is_ok = pc.equal(table["status"], "ok")
    if not pc.all(pc.fill_null(pc.is_finite(measured.filter(is_ok)), False), min_count=0).as_py():
        return "a success without a finite number"
    return ""


def from_table(table: "pa.Table", row_type: type[Row]) -> list[Row]:
    return [row_type(**row) for row in table.to_pylist()]


def deduplicated(rows: Iterable[Row]) -> list[Row]:
    """One row per key, in order of first appearance: a success wins over a failure, then the first wins."""
    kept: dict[tuple[object, ...], Row] = {}
    for row in rows:
        if row.key not in kept or (kept[row.key].status == "failed" and row.status == "ok"):
            kept[row.key] = row
    return list(kept.values())


@dataclass(frozen=True, kw_only=True)
class EvaluationTable:
    """Evaluated networks as arrays, averaged over seeds; higher is always better.

    K = networks. ``metric_K`` is turned (negated) on load if the scorer's
    metric is one to minimise; ``sign`` turns it back for display.
    """

    genotypes: tuple[Genotype, ...]
    metric_K: np.ndarray
    num_seeds_K: np.ndarray
    metric_name: str
    sign: int

    @classmethod
    def from_rows(cls, rows: Sequence[Evaluation]) -> "EvaluationTable":
        """The table of the successful rows.

        Raises:
            IncompleteTableError: if no row succeeded.
        """
        usable = [row for row in deduplicated(rows) if row.status == "ok"]
        if not usable:
            reason = rows[0].message if rows else "none was made"
            raise IncompleteTableError(
                "evaluations", f"{len(rows)} rows, no success ({reason})", "one success at least"
            )
        sign = 1 if usable[0].higher_is_better else -1
        by_genotype: dict[Genotype, list[float]] = {}
        for row in usable:
            assert row.metric is not None
            by_genotype.setdefault(Genotype.parse(row.genotype), []).append(sign * row.metric)
        return cls(
            genotypes=tuple(by_genotype),
            metric_K=np.array([float(np.mean(values)) for values in by_genotype.values()]),
            num_seeds_K=np.array([len(values) for values in by_genotype.values()]),
            metric_name=usable[0].metric_name,
            sign=sign,
        )

    @classmethod
    def from_metrics(cls, metrics: Mapping[Genotype, float], metric_name: str = "metric") -> "EvaluationTable":
        """The table of known values, higher is better."""
        return cls(
            genotypes=tuple(metrics),
            metric_K=np.array(list(metrics.values()), dtype=float),
            num_seeds_K=np.ones(len(metrics), dtype=int),
            metric_name=metric_name,
            sign=1,
        )

    def __len__(self) -> int:
        return len(self.genotypes)


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """Prices of every block at one resolution: a network's is the sum, or the largest, of its parts'.

    ``combine`` says which; ``fixed`` is the price of stem and head. ``block`` is
    ragged, one tuple of values per position; units as the resource's.
    """

    resource: str
    device: str
    resolution: int
    fixed: float
    block: tuple[tuple[float, ...], ...]

    @classmethod
    def from_rows(cls, rows: Sequence[Cost], resource: str, num_choices: Sequence[int], resolution: int) -> "CostTable":
        """The table of one resource at one resolution, on the device that most of the rows are from.

        Raises:
            IncompleteTableError: naming the first block that has no price.
        """
        mine = _on_one_device([row for row in rows if row.resource == resource and row.resolution == resolution])
        priced = {(row.position, row.choice): row.value for row in mine if row.status == "ok" and not row.genotype}
        wanted = [(FIXED_PART, 0), *((p, c) for p, count in enumerate(num_choices) for c in range(count))]
        for place in wanted:
            if priced.get(place) is None:
                failures = [row.message for row in mine if (row.position, row.choice) == place and row.message]
                found = failures[0] if failures else "no price"
                name = "stem and head" if place[0] == FIXED_PART else f"position {place[0]}, choice {place[1]}"
                raise IncompleteTableError(f"{resource} of {name}", found, "one measurement", "Run `mathnas profile`.")
        values: dict[tuple[int, int], float] = {place: float(priced[place] or 0.0) for place in wanted}
        return cls(
            resource=resource,
            device=mine[0].device,
            resolution=resolution,
            fixed=values[FIXED_PART, 0],
            block=tuple(tuple(values[p, c] for c in range(count)) for p, count in enumerate(num_choices)),
        )

    @property
    def combine(self) -> Combine:
        return combine_of(self.resource)

    def total(self, genotype: Genotype) -> float:
        """The network's price, predicted from its blocks."""
        taken = [row[choice] for row, choice in zip(self.block, genotype.choices, strict=True)]
        return max(self.fixed, *taken) if self.combine == "max" else math.fsum((self.fixed, *taken))

    def totals(self, codes_NP: np.ndarray) -> np.ndarray:
        """``total`` of each row of choices, in the same unit; columns beyond the positions are ignored."""
        combined: np.ufunc = np.maximum if self.combine == "max" else np.add
        total_N = np.full(len(codes_NP), self.fixed)
        for position, prices in enumerate(self.block):
            combined(total_N, np.asarray(prices)[codes_NP[:, position]], out=total_N)
        return total_N

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _on_one_device(rows: Sequence[Cost]) -> list[Cost]:
    """The rows of the device with the most successes: prices of two machines do not add up."""
    devices = [row.device for row in rows if row.status == "ok"] or [row.device for row in rows]
    most = max(dict.fromkeys(devices), key=devices.count, default="")
    return [row for row in rows if row.device == most]
