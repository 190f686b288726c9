"""A latency table that a user brings: what one inner block costs on a device, by its shape (``LatencyTable.read``).

Nothing here measures: the shapes of a domain are too many to time them all, so
which ones stand in the file is the user's choice. A network's latency is the
sum over its inner blocks, so it is linear in the discrete choices; a shape that
is not in the table may not be chosen.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nas_core.base.errors import DataError
from nas_core.deepmad.formulas import Batch, Floats
from nas_core.deepmad.structure import Skeleton

# (input channels, out, bottleneck, kernel, stride, input side in pixels)
BlockShape = tuple[int, int, int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """``block_us``: microseconds of one inner block by shape; ``fixed_us``: stem, head and classifier together."""

    device: str
    block_us: Mapping[BlockShape, float]
    fixed_us: float = 0.0

    @cached_property
    def shapes(self) -> frozenset[BlockShape]:
        return frozenset(self.block_us)

    def total_us(self, batch: Batch) -> Floats:
        """Latency of every structure in microseconds; infinite where a shape was not measured."""
        total_B = np.full(len(batch), self.fixed_us)
        skeleton = batch.skeleton
        for i, stride in enumerate(skeleton.strides):
            side, out_side = skeleton.in_resolutions[i], skeleton.out_resolutions[i]
            rows = zip(
                batch.inputs(i),
                batch.out_SB[i],
                batch.bottleneck_SB[i],
                batch.kernel_SB[i],
                batch.depth_SB[i],
                strict=True,
            )
            for j, (c, o, b, k, n) in enumerate(rows):
                first = self.block_us.get((int(c), int(o), int(b), int(k), stride, side), np.inf)
                rest = self.block_us.get((int(o), int(o), int(b), int(k), 1, out_side), np.inf) if n > 1 else 0.0
                total_B[j] += first + (n - 1) * rest
        return total_B

    def least_us_per_flop(self, skeleton: Skeleton) -> Floats:
        """Per super-block, the least time per FLOP of any measured inner block there (S values).

        Latency >= fixed_us + sum of these times the super-blocks' FLOPs: what a relaxation may use of the table.
        """
        rate_S = np.full(skeleton.num_blocks, np.inf)
        for i, stride in enumerate(skeleton.strides):
            side, out_side = skeleton.in_resolutions[i], skeleton.out_resolutions[i]
            for (c, o, b, k, s, r), us in self.block_us.items():
                if (s, r) == (stride, side):
                    rate_S[i] = min(rate_S[i], us / _inner_flops(skeleton, c, o, b, k, s, r, first=True))
                if (s, r) == (1, out_side) and c == o:
                    rate_S[i] = min(rate_S[i], us / _inner_flops(skeleton, c, o, b, k, s, r, first=False))
        if not np.isfinite(rate_S).all():
            missing = int(np.argmax(~np.isfinite(rate_S)))
            raise DataError(
                "latency table", f"no shape for super-block {missing}", "measured shapes for every super-block"
            )
        return rate_S

    @classmethod
    def read(cls, path: str | Path) -> "LatencyTable":
        """The table in a JSON file.

        ``{"device", "fixed_us", "blocks": [{"in", "out", "bottleneck",
        "kernel", "stride", "side", "us"}, ...]}``.

        Raises:
            DataError: if the file is missing or not such JSON.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
            names = ("in", "out", "bottleneck", "kernel", "stride", "side")
            rows = {_shape(row, names): float(row["us"]) for row in data["blocks"]}
            return cls(device=str(data["device"]), block_us=rows, fixed_us=float(data.get("fixed_us", 0.0)))
        except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise DataError(str(path), repr(error), "a JSON latency table: device, fixed_us, blocks") from None


def _inner_flops(skeleton: Skeleton, c: int, o: int, b: int, k: int, s: int, r: int, *, first: bool) -> float:
    """FLOPs of one inner block (``formulas.flops``); the first of a super-block may have a projection."""
    middle = b * ((b if skeleton.family == "resnet" else 1) * k * k + 3) + b * o + 3 * o
    total = s * s * b * (c + 3) + middle
    if first and skeleton.family == "resnet":
        total += (c + 3) * o + (4 * c if s == 2 else 0)
    return float(total * (r // s) ** 2)


def _shape(row: Mapping[str, Any], names: tuple[str, ...]) -> BlockShape:
    c, o, b, k, s, side = (int(row[name]) for name in names)
    return c, o, b, k, s, side
