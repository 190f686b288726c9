"""What a search may choose and must keep: the domain of channels, kernels and depths, and the limits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np

from nas_core.base.errors import ConfigError
from nas_core.base.yaml_text import read_yaml_file
from nas_core.deepmad.formulas import Batch, Floats, effectiveness, flops, params
from nas_core.deepmad.latency_table import LatencyTable
from nas_core.deepmad.structure import Skeleton, Structure, SuperBlock

RHO_TOLERANCE = 1e-12  # relative; the round-off of rho itself
MAX_DEPTH = 40  # of a super-block; no limit of practice reaches it, and a finite box is what the bounds need
FIRST_BLOCK_MAX_DEPTH = 3

Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockDomain:
    """What one super-block may be: inclusive ranges of channels and depth, and kernels in ascending order."""

    out: Range
    bottleneck: Range
    kernels: tuple[int, ...]
    depth: Range


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper bounds, None where there is none: FLOPs, parameters, rho, and latency by ``latency_table``."""

    flops: int | None = None
    params: int | None = None
    rho: float | None = None
    latency_us: int | None = None
    latency_table: LatencyTable | None = None

    def __post_init__(self) -> None:
        for name in ("flops", "params", "rho", "latency_us"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"limits.{name}", value, "a positive number")
        if (self.latency_us is None) != (self.latency_table is None):
            raise ConfigError("limits.latency_us", self.latency_us, "a limit together with a latency table")


@dataclass(frozen=True, kw_only=True)
class Domain:
    """All structures a search may answer.

    Channels are multiples of ``step``. Between super-blocks in <= out (if
    ``monotone``; guideline 3) and out <= ``growth`` in; inside one
    ``narrow`` out <= bottleneck <= ``wide`` out; 1.5 kernel <= input side.
    """

    skeleton: Skeleton
    stem: Range
    blocks: tuple[BlockDomain, ...]
    narrow: float
    wide: float
    growth: float | None = None
    monotone: bool = True
    step: int = 8

    def __post_init__(self) -> None:
        if len(self.blocks) != self.skeleton.num_blocks:
            raise ConfigError("domain.blocks", len(self.blocks), f"{self.skeleton.num_blocks}, one per stride")
        for name, (low, high) in self._ranges():
            if self.multiple_above(low) > self.multiple_below(high):
                raise ConfigError(f"domain.{name}", (low, high), f"a range with a multiple of {self.step}")
        for i, block in enumerate(self.blocks):
            side = self.skeleton.in_resolutions[i]
            if not block.kernels or any(k % 2 == 0 or k < 1 or 1.5 * k > side for k in block.kernels):
                raise ConfigError(f"domain.blocks.{i}.kernels", block.kernels, f"odd sizes of at most {side / 1.5:.1f}")
            if not 1 <= block.depth[0] <= block.depth[1]:
                raise ConfigError(f"domain.blocks.{i}.depth", block.depth, "a range from 1 on")

    def _ranges(self) -> Iterator[tuple[str, Range]]:
        yield "stem", self.stem
        for i, block in enumerate(self.blocks):
            yield f"blocks.{i}.out", block.out
            yield f"blocks.{i}.bottleneck", block.bottleneck

    def multiple_above(self, value: float) -> int:
        """Least multiple of the step that is at least ``value``."""
        return self.step * max(1, ceil(value / self.step - 1e-9))

    def multiple_below(self, value: float) -> int:
        """Greatest multiple of the step that is at most ``value``."""
        return self.step * floor(value / self.step + 1e-9)

    def violations(self, structure: Structure) -> list[str]:
        """Every rule of the domain that the structure breaks, in words; empty if it is in the domain."""
        if structure.skeleton != self.skeleton:
            return [f"skeleton {structure.skeleton} is not {self.skeleton}"]
        found = []
        if not self.stem[0] <= structure.stem <= self.stem[1] or structure.stem % self.step:
            found.append(f"stem {structure.stem} is no multiple of {self.step} in {self.stem}")
        for i, (c, block, free) in enumerate(zip(structure.in_channels, structure.blocks, self.blocks, strict=True)):
            found += [f"super-block {i}: {text}" for text in self._block_violations(c, block, free)]
        return found

    def _block_violations(self, c: int, block: SuperBlock, free: BlockDomain) -> Iterator[str]:
        o, b = block.out, block.bottleneck
        for name, value, (low, high) in (("out", o, free.out), ("bottleneck", b, free.bottleneck)):
            if not low <= value <= high or value % self.step:
                yield f"{name} {value} is no multiple of {self.step} in [{low}, {high}]"
        if block.kernel not in free.kernels:
            yield f"kernel {block.kernel} is not one of {free.kernels}"
        if not free.depth[0] <= block.depth <= free.depth[1]:
            yield f"depth {block.depth} is not in {free.depth}"
        if self.monotone and o < c:
            yield f"out {o} is below its input {c}"
        if self.growth is not None and o > self.growth * c:
            yield f"out {o} is over {self.growth:g} times its input {c}"
        if not self.narrow * o <= b + 1e-9 or b > self.wide * o + 1e-9:
            yield f"bottleneck {b} is outside {self.narrow:g} to {self.wide:g} times out {o}"

    def inside(self, batch: Batch) -> np.ndarray:
        """Which structures of the batch keep the ratios between channels; ranges are the caller's."""
        good = np.ones(len(batch), dtype=bool)
        for i in range(self.skeleton.num_blocks):
            c, o, b = batch.inputs(i), batch.out_SB[i], batch.bottleneck_SB[i]
            if self.monotone:
                good &= o >= c
            if self.growth is not None:
                good &= o <= self.growth * c
            good &= (b + 1e-9 >= self.narrow * o) & (b <= self.wide * o + 1e-9)
        return good


def default_domain(skeleton: Skeleton, **changes: object) -> Domain:
    """The authors' search domain for a skeleton's family, with ``changes`` to its fields.

    ResNet family: kernels {3, 5}, in <= out <= min(4 in, 2048), out/10 <= b <=
    out, stem <= 32. MobileNet family: kernels {3, 5, 7}, 1.5 out <= b <= 6
    out, out <= 1280, stem 16..32. Both: first depth <= 3, 1.5 k <= input side.
    """
    resnet = skeleton.family == "resnet"
    top, kernels = (2048, (3, 5)) if resnet else (1280, (3, 5, 7))
    blocks = tuple(
        BlockDomain(
            out=(8, top),
            bottleneck=(8, top if resnet else 6 * top),
            kernels=tuple(k for k in kernels if 1.5 * k <= side) or (1,),
            depth=(1, FIRST_BLOCK_MAX_DEPTH if i == 0 else MAX_DEPTH),
        )
        for i, side in enumerate(skeleton.in_resolutions)
    )
    domain = Domain(
        skeleton=skeleton,
        stem=(8, 32) if resnet else (16, 32),
        blocks=blocks,
        narrow=0.1 if resnet else 1.5,
        wide=1.0 if resnet else 6.0,
        growth=4.0 if resnet else None,
    )
    return replace(domain, **changes)  # type: ignore[arg-type]


def read_changes(domain: Domain, path: str | Path) -> Domain:
    """The domain with the changes of a YAML file, as ``with_changes`` takes them.

    Raises:
        ConfigError: for an unreadable file, an unknown key or a wrong value.
    """
    data = read_yaml_file(path) or {}
    if not isinstance(data, dict):
        raise ConfigError(str(path), type(data).__name__, "a mapping of the domain's fields")
    return with_changes(domain, data, str(path))


def with_changes(domain: Domain, data: Mapping[str, Any], source: str) -> Domain:
    """The domain with other ranges; ``source`` is what errors call them.

    ``stem``: [low, high]; ``step``, ``monotone``, ``growth``, ``narrow``,
    ``wide``; ``blocks``: one mapping per super-block (null for no change) of
    ``out``, ``bottleneck``, ``depth``: [low, high] or one number that fixes
    it, and ``kernels``: a list.

    Raises:
        ConfigError: for an unknown key or a wrong value.
    """
    known = {"stem", "step", "monotone", "growth", "narrow", "wide", "blocks"}
    if unknown := set(data) - known:
        raise ConfigError(f"{source}: {sorted(unknown)[0]}", "an unknown key", f"one of {sorted(known)}")
    changes: dict[str, object] = {key: value for key, value in data.items() if key not in ("stem", "blocks")}
    for key, value in changes.items():
        _check_rule(key, value, f"{source}: {key}")
    if "stem" in data:
        changes["stem"] = _range(data["stem"], f"{source}: stem")
    if "blocks" in data:
        rows = data["blocks"]
        if not isinstance(rows, list) or len(rows) != len(domain.blocks):
            raise ConfigError(f"{source}: blocks", rows, f"a list of {len(domain.blocks)}")
        pairs = zip(domain.blocks, rows, strict=True)
        changes["blocks"] = tuple(_changed(b, row or {}, f"{source}: blocks.{i}") for i, (b, row) in enumerate(pairs))
    return replace(domain, **changes)  # type: ignore[arg-type]


def _check_rule(key: str, value: object, where: str) -> None:
    """Raises ConfigError unless the value can be that rule's."""
    if key == "monotone":
        if not isinstance(value, bool):
            raise ConfigError(where, repr(value), "true or false")
    elif key == "growth" and value is None:
        return
    elif isinstance(value, bool) or not isinstance(value, int if key == "step" else int | float):
        raise ConfigError(where, repr(value), "a whole number" if key == "step" else "a number")
    elif not (0 < value < 1e6):
        raise ConfigError(where, value, "a positive number below 1e6")


def _changed(block: BlockDomain, row: Mapping[str, object], where: str) -> BlockDomain:
    known = {"out", "bottleneck", "depth", "kernels"}
    if unknown := set(row) - known:
        raise ConfigError(f"{where}.{sorted(unknown)[0]}", "an unknown key", f"one of {sorted(known)}")
    changes: dict[str, object] = {k: _range(v, f"{where}.{k}") for k, v in row.items() if k != "kernels"}
    if "kernels" in row:
        kernels = row["kernels"]
        if not isinstance(kernels, list) or not all(isinstance(k, int) for k in kernels):
            raise ConfigError(f"{where}.kernels", kernels, "a list of whole numbers")
        changes["kernels"] = tuple(sorted(kernels))
    return replace(block, **changes)  # type: ignore[arg-type]


def _range(value: object, where: str) -> Range:
    ends: list[Any] = value if isinstance(value, list) else [value, value]
    if len(ends) != 2 or not all(isinstance(end, int) for end in ends):
        raise ConfigError(where, value, "[low, high] or one whole number")
    return int(ends[0]), int(ends[1])


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What a verified structure uses of each limit; ``broken`` lists what it breaks, in words."""

    usage: Mapping[str, float]
    limit: Mapping[str, float]
    broken: tuple[str, ...] = field(default=())

    @property
    def slack(self) -> dict[str, float]:
        """Limit minus usage, in each limit's unit."""
        return {name: limit - self.usage[name] for name, limit in self.limit.items()}


def usages(batch: Batch, limits: Limits) -> dict[str, Floats]:
    """Exact use of every limit that is set, per structure of the batch."""
    out: dict[str, Floats] = {}
    if limits.flops is not None:
        out["flops"] = flops(batch).astype(float)
    if limits.params is not None:
        out["params"] = params(batch).astype(float)
    if limits.rho is not None:
        out["rho"] = effectiveness(batch)
    if limits.latency_us is not None and limits.latency_table is not None:
        out["latency_us"] = limits.latency_table.total_us(batch)
    return out


def limit_values(limits: Limits) -> dict[str, float]:
    """The limits that are set, by name."""
    names = ("flops", "params", "rho", "latency_us")
    return {name: getattr(limits, name) for name in names if getattr(limits, name) is not None}


def within(batch: Batch, limits: Limits) -> np.ndarray:
    """Which structures of the batch keep every limit, exactly (rho to round-off)."""
    bound = limit_values(limits)
    good = np.ones(len(batch), dtype=bool)
    for name, used_B in usages(batch, limits).items():
        slack = RHO_TOLERANCE * bound[name] if name == "rho" else 0.0
        good &= used_B <= bound[name] + slack
    return good


def verify(structure: Structure, domain: Domain, limits: Limits) -> Check:
    """Every rule and limit checked with the exact evaluator; knows no solver."""
    batch = Batch.of([structure])
    bound = limit_values(limits)
    usage = {name: float(used[0]) for name, used in usages(batch, limits).items()}
    broken = domain.violations(structure)
    if not within(batch, limits)[0]:
        over = [name for name, value in usage.items() if value > bound[name]]
        broken += [f"{name} {usage[name]:g} is over its limit {bound[name]:g}" for name in over]
    return Check(usage=usage, limit=bound, broken=tuple(broken))
