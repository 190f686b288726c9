"""Structures of the DeepMAD program as plain data: a stem, super-blocks, a head.

A structure is a 3x3 stride-2 stem, a chain of super-blocks (each ``depth``
inner blocks of one shape) and, in the MobileNet family, a 1x1 head. The
skeleton is what a search leaves alone: family, resolution, strides, head.
DeepMAD: arXiv 2303.02165.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nas_core.base.errors import DataError, SpaceError
from nas_core.base.identity import content_id

Family = Literal["resnet", "mobilenet"]
BLOCK_KIND: Mapping[Family, str] = {"resnet": "k1kxk1", "mobilenet": "k1dwsek1"}
DEFAULT_STRIDES: Mapping[Family, tuple[int, ...]] = {"resnet": (2, 2, 2, 1, 2), "mobilenet": (2, 2, 2, 2, 1)}
DEFAULT_HEAD: Mapping[Family, int | None] = {"resnet": None, "mobilenet": 1792}
STEM_KERNEL, STEM_STRIDE, LAYERS_PER_BLOCK = 3, 2, 3
IMAGE_CHANNELS = 3  # of colour images, where nothing else is said


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperBlock:
    """``depth`` inner blocks 1x1 - kxk - 1x1; only the first sees the input channels and the stride.

    ``kernel`` is the size of the middle convolution, dense in the ResNet
    family and depthwise (followed by squeeze-and-excitation) in the MobileNet one.
    """

    out: int
    bottleneck: int
    kernel: int
    depth: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """What a search leaves alone.

    ``resolution`` is the input's side in pixels, a multiple of the total
    stride; ``strides`` has one entry (1 or 2) per super-block; ``head`` is the
    number of channels of the 1x1 head, None where there is none; ``image_channels`` are what the stem takes.

    Raises:
        SpaceError: for a stride that is not 1 or 2, or a resolution that the strides do not divide.
    """

    family: Family
    resolution: int
    strides: tuple[int, ...]
    head: int | None = None
    image_channels: int = IMAGE_CHANNELS

    def __post_init__(self) -> None:
        if self.family not in BLOCK_KIND:
            raise SpaceError("family", repr(self.family), f"one of {', '.join(BLOCK_KIND)}")
        if not self.strides or any(stride not in (1, 2) for stride in self.strides):
            raise SpaceError("strides", self.strides, "a 1 or a 2 for every super-block, one at least")
        if self.resolution < 1 or self.resolution % self.total_stride:
            raise SpaceError("resolution", self.resolution, f"a multiple of the total stride, {self.total_stride}")
        if self.head is not None and self.head < 1:
            raise SpaceError("head", self.head, "at least 1 channel, or none")
        if self.image_channels < 1:
            raise SpaceError("image_channels", self.image_channels, "at least 1")

    @property
    def stem_params(self) -> int:
        """Parameters of the 3x3 stem and its norm, for each of its channels."""
        return 9 * self.image_channels + 2

    @property
    def stem_flops(self) -> int:
        """FLOPs of the stem, its norm and its activation, for each of its channels."""
        return (9 * self.image_channels + 3) * (self.resolution // STEM_STRIDE) ** 2

    @property
    def stem_width(self) -> int:
        """w = c k^2 of the stem's layer."""
        return 9 * self.image_channels

    @property
    def num_blocks(self) -> int:
        return len(self.strides)

    @property
    def total_stride(self) -> int:
        return STEM_STRIDE * int(np.prod(self.strides))

    @cached_property
    def in_resolutions(self) -> tuple[int, ...]:
        """Side of the input of every super-block, in pixels."""
        sides = [self.resolution // STEM_STRIDE]
        for stride in self.strides[:-1]:
            sides.append(sides[-1] // stride)
        return tuple(sides)

    @cached_property
    def out_resolutions(self) -> tuple[int, ...]:
        """Side of the output of every super-block, in pixels."""
        return tuple(side // stride for side, stride in zip(self.in_resolutions, self.strides, strict=True))

    @cached_property
    def stage_of_block(self) -> tuple[int, ...]:
        """Stage of every super-block. Stage 0 holds the stem; a stage ends before each stride-2 super-block."""
        stages, stage = [], 0
        for stride in self.strides:
            stage += stride == 2
            stages.append(stage)
        return tuple(stages)

    @property
    def num_stages(self) -> int:
        return self.stage_of_block[-1] + 1

    def last_block_of_stage(self, stage: int) -> int:
        """Index of the super-block that ends the stage; -1 where the stem alone is the stage."""
        return max((i for i, t in enumerate(self.stage_of_block) if t <= stage), default=-1)


@dataclass(frozen=True, kw_only=True)
class Structure:
    """A network: its skeleton, the stem's channels and the super-blocks in order."""

    skeleton: Skeleton
    stem: int
    blocks: tuple[SuperBlock, ...]

    def __post_init__(self) -> None:
        strides = tuple(block.stride for block in self.blocks)
        if strides != self.skeleton.strides:
            raise SpaceError("structure.blocks", f"strides {strides}", f"the skeleton's {self.skeleton.strides}")
        values = [self.stem, *(v for b in self.blocks for v in (b.out, b.bottleneck, b.kernel, b.depth))]
        if min(values) < 1:
            raise SpaceError("structure.blocks", min(values), "channels, kernels and depths of 1 at least")

    @property
    def in_channels(self) -> tuple[int, ...]:
        """Input channels of every super-block."""
        return (self.stem, *(block.out for block in self.blocks[:-1]))

    def as_rows(self) -> list[dict[str, Any]]:
        """One row per part, stem to head; the stem and the head have no bottleneck (None)."""
        kind = BLOCK_KIND[self.skeleton.family]
        stem = _row("stem", self.stem, None, STEM_KERNEL, 1, STEM_STRIDE)
        body = [_row(kind, b.out, b.bottleneck, b.kernel, b.depth, b.stride) for b in self.blocks]
        head = [] if self.skeleton.head is None else [_row("head", self.skeleton.head, None, 1, 1, 1)]
        return [stem, *body, *head]

    def as_dict(self) -> dict[str, Any]:
        channels = self.skeleton.image_channels
        return {
            "family": self.skeleton.family,
            "resolution": self.skeleton.resolution,
            **({} if channels == IMAGE_CHANNELS else {"image_channels": channels}),
            "structure": self.as_rows(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Structure":
        """The structure written as ``{"family", "resolution", "image_channels", "structure": [rows]}``.

        ``family`` may be left out where the rows say it; ``resolution`` is 224 where left out, ``image_channels`` 3.

        Raises:
            DataError: if rows, kinds or fields are missing or wrong.
            SpaceError: if strides and resolution do not go together.
        """
        try:
            rows = list(data["structure"])
            stem, body, head = _parts(rows)
            family = data.get("family") or _family_of(body)
            blocks = tuple(_block(row) for row in body)
            skeleton = Skeleton(
                family=family,
                resolution=int(data.get("resolution", 224)),
                strides=tuple(block.stride for block in blocks),
                head=None if head is None else int(head["out"]),
                image_channels=int(data.get("image_channels", IMAGE_CHANNELS)),
            )
            return cls(skeleton=skeleton, stem=int(stem["out"]), blocks=blocks)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                "structure", _missing(error), "rows with kind, out, bottleneck, kernel, depth, stride"
            ) from None

    @classmethod
    def read(cls, path: str | Path) -> "Structure":
        """The structure in a JSON file, as ``as_dict`` and ``mathnas design --json`` write it.

        Raises:
            DataError: if the file is missing or not such JSON.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:  # of Unicode and of JSON are ValueErrors
            raise DataError(str(path), str(error), "a JSON file with a structure") from None
        return cls.from_dict(data if isinstance(data, dict) else {"structure": data})


def _row(kind: str, out: int, bottleneck: int | None, kernel: int, depth: int, stride: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "out": out,
        "bottleneck": bottleneck,
        "kernel": kernel,
        "depth": depth,
        "stride": stride,
    }


def _parts(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]], Mapping[str, Any] | None]:
    """Stem, super-blocks and head of the rows."""
    if len(rows) < 2 or rows[0]["kind"] != "stem":
        raise DataError("structure", f"{len(rows)} rows", "a stem first, then super-blocks")
    head = rows[-1] if rows[-1]["kind"] == "head" else None
    body = rows[1:-1] if head is not None else rows[1:]
    return rows[0], body, head


def _family_of(body: Sequence[Mapping[str, Any]]) -> Family:
    kinds = {row["kind"] for row in body}
    for family, kind in BLOCK_KIND.items():
        if kinds == {kind}:
            return family
    raise DataError("structure.kind", sorted(kinds), f"one kind throughout, of {sorted(BLOCK_KIND.values())}")


def _block(row: Mapping[str, Any]) -> SuperBlock:
    return SuperBlock(
        out=int(row["out"]),
        bottleneck=int(row["bottleneck"]),
        kernel=int(row["kernel"]),
        depth=int(row["depth"]),
        stride=int(row["stride"]),
    )


@dataclass(frozen=True, kw_only=True)
class Published:
    """A structure the authors published, with the accuracy they state.

    ``flops_limit``, ``params_limit``, ``rho_limit`` and ``search_strides`` are
    those of the authors' search configuration, None where they gave none.
    """

    name: str
    structure: Structure
    top1: float  # percent on ImageNet-1k, README of the authors' code
    flops_limit: int
    params_limit: int
    rho_limit: float
    search_strides: tuple[int, ...]


def published() -> dict[str, Published]:
    """The seven published structures by name (R18, R34, R50, 29M-224, 29M-288, 50M, 89M)."""
    text = resources.files("nas_core.deepmad").joinpath("published.json").read_text(encoding="utf-8")
    return {row["name"]: _published(row) for row in json.loads(text)["structures"]}


def _published(row: Mapping[str, Any]) -> Published:
    blocks = tuple(SuperBlock(out=o, bottleneck=b, kernel=k, depth=n, stride=s) for o, b, k, n, s in row["blocks"])
    skeleton = Skeleton(
        family=row["family"],
        resolution=row["resolution"],
        strides=tuple(block.stride for block in blocks),
        head=row["head"],
    )
    return Published(
        name=row["name"],
        structure=Structure(skeleton=skeleton, stem=row["stem"], blocks=blocks),
        top1=row["top1"],
        flops_limit=int(row["flops_limit"]),
        params_limit=int(row["params_limit"]),
        rho_limit=row["rho_limit"],
        search_strides=tuple(row["search_strides"]),
    )


@dataclass(frozen=True, kw_only=True)
class DesignedNetwork:
    """A structure with the channels of its images and its classes; the closed forms count no classifier."""

    structure: Structure
    in_channels: int
    num_classes: int

    @property
    def resolution(self) -> int:
        """Side of the input images, pixels."""
        return self.structure.skeleton.resolution

    @property
    def label(self) -> str:
        """What tables call the network: its family and its structure's id."""
        return f"{self.structure.skeleton.family}-{content_id(self.structure.as_dict())}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able description, the ``architecture.json`` that travels with the trained network."""
        shape = {"in_channels": self.in_channels, "num_classes": self.num_classes}
        return {**self.structure.as_dict(), **shape}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "DesignedNetwork":
        """Raises as ``Structure.from_dict``."""
        return cls(
            structure=Structure.from_dict(data), in_channels=data["in_channels"], num_classes=data["num_classes"]
        )


def _missing(error: Exception) -> str:
    """What is wrong with the rows: a key that is not there by its name."""
    return f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
