"""The search space as plain data: positions, candidate blocks, genotypes, rules.

A network family has M positions in a row between a fixed stem and head;
position p offers n_p candidate blocks, so there are prod n_p networks (times
the number of input resolutions). Everything here is frozen, hashable, JSON-able
and free of torch: a worker rebuilds modules from it (``nas_core.families.assemble``).
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from nas_core.base.errors import SpaceError
from nas_core.base.identity import content_id

Scalar = int | float | str | bool
BlockId = tuple[int, int]  # (position, choice)
ABSENT = "absent"  # kind of the block that is not there: no layers, no cost
NO_OPS = ("identity", ABSENT)  # kinds that do nothing where the shape does not change


@dataclass(frozen=True, order=True)
class Genotype:
    """One choice per position, written ``2-0-1-1``, or ``2-0-1-1@192`` with its input resolution.

    ``resolution`` is in pixels, and None in a space that has one resolution.
    """

    choices: tuple[int, ...]
    resolution: int | None = None

    def __str__(self) -> str:
        text = "-".join(map(str, self.choices))
        return text if self.resolution is None else f"{text}@{self.resolution}"

    @classmethod
    def parse(cls, text: str) -> "Genotype":
        """The genotype written as ``text``.

        Raises:
            SpaceError: if the text is not integers joined by ``-``.
        """
        choices, at, resolution = text.strip().partition("@")
        try:
            numbers = tuple(int(part) for part in choices.split("-"))
            return cls(numbers, int(resolution) if at else None)
        except ValueError:
            raise SpaceError("genotype", repr(text), "integers joined by '-', such as 2-0-1-1") from None

    def swap(self, position: int, choice: int) -> "Genotype":
        """This genotype with another block at one position."""
        choices = (*self.choices[:position], choice, *self.choices[position + 1 :])
        return Genotype(choices, self.resolution)

    def distance(self, other: "Genotype") -> int:
        """Hamming distance: how many positions differ."""
        return sum(a != b for a, b in zip(self.choices, other.choices, strict=True))


@dataclass(frozen=True, order=True)
class BlockSpec:
    """A block's kind and parameters as plain data; ``nas_core.families`` builds it."""

    kind: str
    params: tuple[tuple[str, Scalar], ...] = ()

    @classmethod
    def of(cls, kind: str, **params: Scalar) -> "BlockSpec":
        return cls(kind, tuple(sorted(params.items())))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "BlockSpec":
        rest = dict(data)
        return cls.of(str(rest.pop("kind")), **rest)

    def as_dict(self) -> dict[str, Scalar]:
        return {"kind": self.kind, **dict(self.params)}

    def __str__(self) -> str:
        values = " ".join(f"{name}={value}" for name, value in self.params)
        return f"{self.kind} {values}".strip()


@dataclass(frozen=True, kw_only=True)
class Position:
    """A slot: its candidate blocks, and the shape change every candidate makes there."""

    name: str
    out_channels: int
    stride: int
    blocks: tuple[BlockSpec, ...]


@dataclass(frozen=True, kw_only=True)
class PlacedBlock:
    """A block with the shape its position gives it."""

    block: BlockSpec
    in_channels: int
    out_channels: int
    stride: int

    @property
    def is_no_op(self) -> bool:
        return self.block.kind in NO_OPS and self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A genotype resolved to blocks: all that is needed to build the network."""

    space_id: str
    genotype: Genotype
    in_channels: int
    resolution: int
    num_classes: int
    stem: BlockSpec
    blocks: tuple[PlacedBlock, ...]
    head: BlockSpec

    @property
    def label(self) -> str:
        """What tables call the network."""
        return str(self.genotype)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able description, the ``architecture.json`` that travels with a trained winner."""
        blocks = [
            {**b.block.as_dict(), "in_channels": b.in_channels, "out_channels": b.out_channels, "stride": b.stride}
            for b in self.blocks
        ]
        return {
            "space_id": self.space_id,
            "genotype": str(self.genotype),
            "in_channels": self.in_channels,
            "resolution": self.resolution,
            "num_classes": self.num_classes,
            "stem": self.stem.as_dict(),
            "blocks": blocks,
            "head": self.head.as_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Architecture":
        blocks = []
        for row in data["blocks"]:
            shape = {key: row[key] for key in ("in_channels", "out_channels", "stride")}
            spec = BlockSpec.from_dict({key: value for key, value in row.items() if key not in shape})
            blocks.append(PlacedBlock(block=spec, **shape))
        return cls(
            space_id=data["space_id"],
            genotype=Genotype.parse(data["genotype"]),
            in_channels=data["in_channels"],
            resolution=data["resolution"],
            num_classes=data["num_classes"],
            stem=BlockSpec.from_dict(data["stem"]),
            blocks=tuple(blocks),
            head=BlockSpec.from_dict(data["head"]),
        )

    @cached_property
    def function_id(self) -> str:
        """Id of what the network computes: equal for genotypes that differ only in no-op blocks."""
        data = self.as_dict()
        rows = [row for row, placed in zip(data["blocks"], self.blocks, strict=True) if not placed.is_no_op]
        return content_id({**data, "genotype": "", "space_id": "", "blocks": rows})


RuleKind = Literal["forbid", "require", "implies", "at_most", "equal"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A linear rule between choices.

    ``forbid``: not all of ``blocks`` together (one block: never that block).
    ``require``: at least one of ``blocks``.
    ``implies``: if ``blocks[0]`` is taken, then one of ``blocks[1:]`` is.
    ``at_most``: at most ``count`` of ``blocks``.
    ``equal``: every position in ``positions`` takes the same choice index.
    """

    kind: RuleKind
    blocks: tuple[BlockId, ...] = ()
    count: int = 1
    positions: tuple[int, ...] = ()

    def allows(self, choices: Sequence[int]) -> bool:
        taken = [choices[position] == choice for position, choice in self.blocks]
        match self.kind:
            case "forbid":
                return not all(taken)
            case "require":
                return any(taken)
            case "implies":
                return not taken[0] or any(taken[1:])
            case "at_most":
                return sum(taken) <= self.count
            case "equal":
                return len({choices[position] for position in self.positions}) <= 1

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "blocks": [list(block) for block in self.blocks],
            "count": self.count,
            "positions": list(self.positions),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Rule":
        blocks = tuple((int(p), int(c)) for p, c in data.get("blocks", ()))
        positions = tuple(int(p) for p in data.get("positions", ()))
        return cls(kind=data["kind"], blocks=blocks, count=int(data.get("count", 1)), positions=positions)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """M ordered positions, each with its candidate blocks, between a fixed stem and head.

    ``resolutions`` are square input sizes in pixels; with more than one, a
    genotype names its own. Optional depth is an ``absent`` block and ``implies``
    rules (``absent_to_end``; MathNAS Eq. 9).
    """

    name: str
    in_channels: int
    resolutions: tuple[int, ...]
    num_classes: int
    stem: BlockSpec
    head: BlockSpec
    positions: tuple[Position, ...]
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        if not self.positions or not all(position.blocks for position in self.positions):
            raise SpaceError(f"space {self.name}", "a position without blocks", "one block at least per position")
        if not self.resolutions or len(set(self.resolutions)) != len(self.resolutions):
            raise SpaceError(f"space {self.name}.resolutions", self.resolutions, "distinct sizes, one at least")
        for index, position in enumerate(self.positions):
            if len(set(position.blocks)) != len(position.blocks):
                raise SpaceError(f"space {self.name}, position {index}", "the same block twice", "distinct blocks")
        for rule in self.rules:
            self._check_rule(rule)

    def _check_rule(self, rule: Rule) -> None:
        for position, choice in rule.blocks:
            if not (0 <= position < self.num_positions and 0 <= choice < self.num_choices[position]):
                raise SpaceError(f"space {self.name}, rule {rule.kind}", (position, choice), "a block of the space")
        if any(not 0 <= position < self.num_positions for position in rule.positions):
            raise SpaceError(f"space {self.name}, rule {rule.kind}", rule.positions, "positions of the space")

    @property
    def num_positions(self) -> int:
        return len(self.positions)

    @cached_property
    def num_choices(self) -> tuple[int, ...]:
        """n_p for every position."""
        return tuple(len(position.blocks) for position in self.positions)

    @cached_property
    def num_networks(self) -> int:
        """prod n_p times the number of resolutions, rules not applied."""
        return math.prod(self.num_choices) * len(self.resolutions)

    @cached_property
    def space_id(self) -> str:
        return content_id(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        positions = [
            {
                "name": p.name,
                "out_channels": p.out_channels,
                "stride": p.stride,
                "blocks": [b.as_dict() for b in p.blocks],
            }
            for p in self.positions
        ]
        return {
            "name": self.name,
            "in_channels": self.in_channels,
            "resolutions": list(self.resolutions),
            "num_classes": self.num_classes,
            "stem": self.stem.as_dict(),
            "positions": positions,
            "head": self.head.as_dict(),
            "rules": [rule.as_dict() for rule in self.rules],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "SearchSpace":
        positions = tuple(
            Position(
                name=str(row.get("name", index)),
                out_channels=int(row["out_channels"]),
                stride=int(row.get("stride", 1)),
                blocks=tuple(BlockSpec.from_dict(block) for block in row["blocks"]),
            )
            for index, row in enumerate(data["positions"])
        )
        return cls(
            name=str(data["name"]),
            in_channels=int(data["in_channels"]),
            resolutions=tuple(int(size) for size in data["resolutions"]),
            num_classes=int(data["num_classes"]),
            stem=BlockSpec.from_dict(data["stem"]),
            head=BlockSpec.from_dict(data["head"]),
            positions=positions,
            rules=tuple(Rule.from_dict(row) for row in data.get("rules", ())),
        )

    def check(self, genotype: Genotype) -> Genotype:
        """The genotype itself if it is a network of this space.

        Raises:
            SpaceError: for a wrong length, choice, resolution or a broken rule.
        """
        where = f"genotype {self.check_choices(genotype)}"
        allowed = self.resolutions if len(self.resolutions) > 1 else (None,)
        if genotype.resolution not in allowed:
            raise SpaceError(f"{where}, resolution", genotype.resolution, f"one of {allowed}")
        if not self.allows(genotype):
            raise SpaceError(where, "a network that the space's rules exclude", "a network that they allow")
        return genotype

    def check_choices(self, genotype: Genotype) -> Genotype:
        """The genotype itself if its choices are blocks of this space, whatever the rules say of them together.

        Raises:
            SpaceError: for a wrong length or choice.
        """
        where = f"genotype {genotype}"
        if len(genotype.choices) != self.num_positions:
            raise SpaceError(where, f"{len(genotype.choices)} choices", f"{self.num_positions}, one per position")
        for position, (choice, count) in enumerate(zip(genotype.choices, self.num_choices, strict=True)):
            if not 0 <= choice < count:
                raise SpaceError(f"{where}, position {position}", choice, f"0 to {count - 1}")
        return genotype

    def allows(self, genotype: Genotype) -> bool:
        """Whether every rule of the space holds for the genotype."""
        return all(rule.allows(genotype.choices) for rule in self.rules)

    def parse(self, text: str) -> Genotype:
        """The network of this space written as ``text``; raises SpaceError if there is none."""
        return self.check(Genotype.parse(text))

    def resolution_of(self, genotype: Genotype) -> int:
        return self.resolutions[0] if genotype.resolution is None else genotype.resolution

    @property
    def _genotype_resolutions(self) -> tuple[int | None, ...]:
        return self.resolutions if len(self.resolutions) > 1 else (None,)

    def genotypes(self) -> Iterator[Genotype]:
        """Every network the rules allow, in lexicographic order."""
        for resolution in self._genotype_resolutions:
            for choices in itertools.product(*map(range, self.num_choices)):
                genotype = Genotype(choices, resolution)
                if self.allows(genotype):
                    yield genotype

    def sample(self, rng: np.random.Generator, attempts: int = 10_000) -> Genotype:
        """A uniformly random network that the rules allow.

        Raises:
            SpaceError: if none turns up in ``attempts`` draws.
        """
        for _ in range(attempts):
            choices = tuple(int(rng.integers(count)) for count in self.num_choices)
            resolution = self._genotype_resolutions[int(rng.integers(len(self.resolutions)))]
            genotype = Genotype(choices, resolution)
            if self.allows(genotype):
                return genotype
        raise SpaceError(f"space {self.name}.rules", f"no network in {attempts} draws", "rules some networks satisfy")

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """The networks that differ from ``genotype`` in one block and that the rules allow."""
        swaps = (
            genotype.swap(position, choice)
            for position, count in enumerate(self.num_choices)
            for choice in range(count)
            if choice != genotype.choices[position]
        )
        return [swap for swap in swaps if self.allows(swap)]

    def architecture(self, genotype: Genotype) -> Architecture:
        """The genotype's blocks with their shapes.

        Raises:
            SpaceError: if the genotype is not of this space.
        """
        self.check(genotype)
        placed, in_channels = [], int(dict(self.stem.params).get("out_channels", self.in_channels))
        for position, choice in zip(self.positions, genotype.choices, strict=True):
            placed.append(
                PlacedBlock(
                    block=position.blocks[choice],
                    in_channels=in_channels,
                    out_channels=position.out_channels,
                    stride=position.stride,
                )
            )
            in_channels = position.out_channels
        return Architecture(
            space_id=self.space_id,
            genotype=genotype,
            in_channels=self.in_channels,
            resolution=self.resolution_of(genotype),
            num_classes=self.num_classes,
            stem=self.stem,
            blocks=tuple(placed),
            head=self.head,
        )


def absent_to_end(blocks: Sequence[BlockId]) -> tuple[Rule, ...]:
    """Rules that make depth optional: once absent, absent to the end of ``blocks`` (MathNAS Eq. 9).

    ``blocks`` are the absent blocks of consecutive positions, in order.
    """
    return tuple(Rule(kind="implies", blocks=pair) for pair in itertools.pairwise(blocks))
