"""Reads a complete table of evaluated networks, described by a small YAML file.

    path: cifar10.parquet          # relative to the YAML file; ${MATHNAS_DATA} is expanded
    choices: [p0, p1, p2]          # one column a position, any values
    select_on: mean_acc            # metric seen by the search, higher is better
    report: mean_acc               # metric the rank and regret are computed on (default: select_on)
    costs:                         # name: column, or a column of another file joined on a key of both
      flops: flops
      raspi4_ms: {path: other.parquet, key: idx, column: raspi4}
    same_function: iso_id          # column in which networks that compute the same have the same value (optional)
    ordered: [p0]                  # positions whose choices, sorted, are in an order that means something (optional)

``${MATHNAS_DATA}`` falls back to the folder that ``tests.reference_data`` names.
Rows are networks (axis N); positions are axis P.
"""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from nas_core.base.errors import DataError
from nas_core.records.evaluations import CostTable
from nas_core.space.encoding import Encoding
from nas_core.space.genotypes import BlockSpec, Position, SearchSpace
from tests.reference_data import data_root


@dataclass(frozen=True, kw_only=True)
class NetworkTable:
    """A table of networks: choices as codes, two metrics (higher is better), costs by name."""

    name: str
    space: SearchSpace
    codes_NP: np.ndarray
    select_N: np.ndarray
    report_N: np.ndarray
    costs: Mapping[str, np.ndarray]

    @cached_property
    def encoding(self) -> Encoding:
        return Encoding.of(self.space)

    @cached_property
    def flops(self) -> CostTable | None:
        """The FLOPs as a price per block, None where they are no sum of such prices."""
        if "flops" not in self.costs:
            return None
        x_ND, flops_N = self.encoding.one_hot(self.codes_NP), self.costs["flops"]
        price_D = np.linalg.lstsq(x_ND, flops_N, rcond=None)[0]
        if np.abs(x_ND @ price_D - flops_N).max() > 1e-6 * np.abs(flops_N).max():
            return None
        block = tuple(tuple(map(float, row)) for row in np.split(price_D, self.encoding.offsets[1:]))
        return CostTable(resource="flops", device="", resolution=1, fixed=0.0, block=block)

    def allowed(self, limit: str | None) -> np.ndarray:
        """Which networks are within a limit such as ``flops=50%q`` (a quantile of the table) or ``flops=6e7``.

        Raises:
            DataError: for an unknown cost or a limit that is no number.
        """
        if not limit:
            return np.ones(len(self.codes_NP), dtype=bool)
        name, _, text = limit.partition("=")
        if name not in self.costs:
            raise DataError("--limit", repr(name), f"one of the table's costs: {', '.join(self.costs) or 'none'}")
        match = re.fullmatch(r"([0-9.eE+-]+)(%q)?", text.strip())
        if not match:
            raise DataError("--limit", repr(limit), "name=VALUE or name=QUANTILE%q, such as flops=50%q")
        value = float(match[1])
        bound = np.quantile(self.costs[name], value / 100) if match[2] else value
        return np.asarray(self.costs[name] <= bound)


def read_table(yaml_path: str | Path) -> NetworkTable:
    """The table a YAML file describes.

    Raises:
        DataError: for a missing file, key or column, or two rows with the same choices.
    """
    path = Path(yaml_path)
    if not path.exists():
        raise DataError("--table", str(path), "a YAML file")
    text = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key in ("path", "choices", "select_on"):
        if key not in text:
            raise DataError(f"{path}: {key}", "nothing", "a value")
    frame = _frame(path, text["path"])
    choices = [_column(frame, name, path) for name in text["choices"]]
    codes, space = _space(path.stem, choices, text.get("ordered") or ())
    if len(np.unique(codes, axis=0)) != len(codes):
        raise DataError(f"{path}: choices", "two rows with the same choices", "one row per network")
    if "same_function" in text:
        names = _column(frame, text["same_function"], path)
        space = replace(space, same_function=dict(zip(map(tuple, codes.tolist()), map(str, names), strict=True)))
    return NetworkTable(
        name=path.stem,
        space=space,
        codes_NP=codes,
        select_N=_column(frame, text["select_on"], path).to_numpy(dtype=float),
        report_N=_column(frame, text.get("report", text["select_on"]), path).to_numpy(dtype=float),
        costs={name: _cost(frame, spec, path) for name, spec in (text.get("costs") or {}).items()},
    )


def _frame(yaml_path: Path, name: str) -> pd.DataFrame:
    expanded = name.replace("${MATHNAS_DATA}", os.environ.get("MATHNAS_DATA") or str(data_root()))
    path = yaml_path.parent / expanded  # an absolute path stays what it is
    if not path.exists():
        raise DataError(f"{yaml_path}: path", str(path), "a Parquet file", "Set MATHNAS_DATA to the data's folder.")
    return pd.read_parquet(path)


def _column(frame: pd.DataFrame, name: str, yaml_path: Path) -> "pd.Series[Any]":
    if name not in frame:
        raise DataError(str(yaml_path), f"column {name!r}", f"one of {', '.join(map(str, frame.columns))}")
    return frame[name]


def _cost(frame: pd.DataFrame, spec: str | Mapping[str, str], yaml_path: Path) -> np.ndarray:
    if isinstance(spec, str):
        return _column(frame, spec, yaml_path).to_numpy(dtype=float)
    other = _frame(yaml_path, spec["path"]).set_index(spec["key"])
    keys = frame.get(spec["key"], frame.index)
    return _column(other, spec["column"], yaml_path).loc[keys].to_numpy(dtype=float)


def _space(name: str, columns: "list[pd.Series[Any]]", ordered: Collection[str] = ()) -> tuple[np.ndarray, SearchSpace]:
    """Integer codes, and a space whose blocks are the columns' values; equal values are equal blocks."""
    codes, positions = [], []
    for index, column in enumerate(columns):
        values, code_N = np.unique(column.to_numpy(), return_inverse=True)
        blocks = tuple(BlockSpec.of("value", value=str(value)) for value in values)
        label = str(column.name or index)
        positions.append(Position(name=label, blocks=blocks, ordered=label in ordered))
        codes.append(code_N)
    return np.stack(codes, axis=1).astype(np.int16), SearchSpace(name=name, positions=tuple(positions))
