"""The search space as plain data: positions, candidate blocks, genotypes.

A network family has M positions in a row between a fixed stem and head;
position p offers n_p candidate blocks, so there are prod n_p networks (times
the number of input resolutions). Everything here is frozen, hashable, JSON-able
and free of torch: a worker rebuilds modules from it (``nas_core.families.assemble``).
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from nas_core.base.errors import SpaceError
from nas_core.base.identity import content_id
from nas_core.space.rules import BlockId as BlockId
from nas_core.space.rules import Rule as Rule
from nas_core.space.rules import count_allowed

Scalar = int | float | str | bool
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
    """A slot: its candidate blocks, and in a chain the shape change every candidate makes there.

    ``ordered`` says that the blocks are listed in an order that means something
    (widths, kernel sizes): neighbours in it are expected to do alike.
    """

    name: str
    out_channels: int = 0
    stride: int = 1
    blocks: tuple[BlockSpec, ...]
    ordered: bool = False


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


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """M ordered positions, each with its candidate blocks, between a fixed stem and head.

    Where the networks are no chains, only positions and rules say what there is
    to choose, and the family builds what it means: ``stem`` and ``head`` are None.
    ``code`` names the plug-ins' code that the blocks are built by, with its hash.
    ``resolutions`` are square input sizes in pixels; with more than one, a
    genotype names its own. Optional depth is an ``absent`` block and ``implies``
    rules (``absent_to_end``; MathNAS Eq. 9). ``same_function`` names, by its
    choices, the function a network computes, where that is known beyond what
    the blocks say; it is knowledge about the space and no part of its identity.
    """

    name: str
    positions: tuple[Position, ...]
    rules: tuple[Rule, ...] = ()
    in_channels: int = 0
    resolutions: tuple[int, ...] = (1,)
    num_classes: int = 0
    stem: BlockSpec | None = None
    head: BlockSpec | None = None
    code: tuple[tuple[str, str], ...] = ()
    same_function: Mapping[tuple[int, ...], str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.positions or not all(position.blocks for position in self.positions):
            raise SpaceError(f"space {self.name}", "a position without blocks", "one block at least per position")
        if not self.resolutions or len(set(self.resolutions)) != len(self.resolutions):
            raise SpaceError(f"space {self.name}.resolutions", self.resolutions, "distinct sizes, one at least")
        for index, position in enumerate(self.positions):
            if len(set(position.blocks)) != len(position.blocks):
                raise SpaceError(f"space {self.name}, position {index}", "the same block twice", "distinct blocks")
        for index, rule in enumerate(self.rules):
            rule.check(self.num_choices, f"space {self.name}: rules[{index}]")

    @property
    def num_positions(self) -> int:
        return len(self.positions)

    @cached_property
    def num_choices(self) -> tuple[int, ...]:
        """n_p for every position."""
        return tuple(len(position.blocks) for position in self.positions)

    @cached_property
    def num_networks(self) -> int:
        """Those that the rules allow, at every resolution (``count_allowed`` says of how many ties)."""
        return math.prod(count_allowed(self.rules, self.num_choices)) * len(self.resolutions)

    @cached_property
    def function_members(self) -> dict[str, list[tuple[int, ...]]]:
        """The choices of the networks that ``same_function`` gives one name."""
        members: dict[str, list[tuple[int, ...]]] = {}
        for choices, name in self.same_function.items():
            members.setdefault(name, []).append(choices)
        return members

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
                **({"ordered": True} if p.ordered else {}),  # left out where it is not: ids stay what they were
            }
            for p in self.positions
        ]
        return {
            "name": self.name,
            "in_channels": self.in_channels,
            "resolutions": list(self.resolutions),
            "num_classes": self.num_classes,
            "stem": self.stem.as_dict() if self.stem else None,
            "positions": positions,
            "head": self.head.as_dict() if self.head else None,
            "rules": [rule.as_dict() for rule in self.rules],
            **({"code": [list(pair) for pair in self.code]} if self.code else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "SearchSpace":
        positions = tuple(
            Position(
                name=str(row.get("name", index)),
                out_channels=int(row["out_channels"]),
                stride=int(row.get("stride", 1)),
                blocks=tuple(BlockSpec.from_dict(block) for block in row["blocks"]),
                ordered=bool(row.get("ordered", False)),
            )
            for index, row in enumerate(data["positions"])
        )
        return cls(
            name=str(data["name"]),
            in_channels=int(data["in_channels"]),
            resolutions=tuple(int(size) for size in data["resolutions"]),
            num_classes=int(data["num_classes"]),
            stem=BlockSpec.from_dict(data["stem"]) if data["stem"] else None,
            head=BlockSpec.from_dict(data["head"]) if data["head"] else None,
            positions=positions,
            rules=tuple(Rule.from_dict(row) for row in data.get("rules", ())),
            code=tuple((str(kind), str(code)) for kind, code in data.get("code", ())),
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
    def genotype_resolutions(self) -> tuple[int | None, ...]:
        """What a genotype may name: nothing where there is one resolution only."""
        return self.resolutions if len(self.resolutions) > 1 else (None,)

    def genotypes(self) -> Iterator[Genotype]:
        """Every network the rules allow, in lexicographic order."""
        for resolution in self.genotype_resolutions:
            for choices in itertools.product(*map(range, self.num_choices)):
                genotype = Genotype(choices, resolution)
                if self.allows(genotype):
                    yield genotype

    def sample(self, rng: np.random.Generator, attempts: int = 10_000) -> Genotype:
        """A uniformly random network that the rules allow; where few do, one that a random search finds.

        Raises:
            SpaceError: if none turns up in ``attempts`` draws, nor in as many steps of the search.
        """
        for _ in range(attempts):
            choices = tuple(int(rng.integers(count)) for count in self.num_choices)
            resolution = self.genotype_resolutions[int(rng.integers(len(self.resolutions)))]
            genotype = Genotype(choices, resolution)
            if self.allows(genotype):
                return genotype
        resolution = self.genotype_resolutions[int(rng.integers(len(self.resolutions)))]
        return Genotype(self._searched(rng, attempts), resolution)

    def _searched(self, rng: np.random.Generator, attempts: int) -> tuple[int, ...]:
        """Choices that the rules allow, position by position in random order, back where they allow none."""
        choices: list[int] = []
        untried = [rng.permutation(self.num_choices[0]).tolist()]
        for _ in range(attempts):
            while untried and not untried[-1]:
                untried.pop()
                del choices[-1:]
            if not untried:
                break
            beginning = (*choices, int(untried[-1].pop()))
            if not all(rule.allows(beginning) for rule in self.rules):
                continue
            if len(beginning) == self.num_positions:
                return beginning
            choices.append(beginning[-1])
            untried.append(rng.permutation(self.num_choices[len(beginning)]).tolist())
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
        stem, head = self.ends
        return Architecture(
            space_id=self.space_id,
            genotype=genotype,
            in_channels=self.in_channels,
            resolution=self.resolution_of(genotype),
            num_classes=self.num_classes,
            stem=stem,
            blocks=tuple(self.placed[position][choice] for position, choice in enumerate(genotype.choices)),
            head=head,
        )

    @property
    def is_chain(self) -> bool:
        """Whether the networks are a stem, one block per position and a head in a row."""
        return self.stem is not None and self.head is not None

    @property
    def ends(self) -> tuple[BlockSpec, BlockSpec]:
        """Stem and head; raises SpaceError for a space that is no chain."""
        if self.stem is None or self.head is None:
            raise SpaceError(f"space {self.name}", "no stem or no head", "a chain of blocks between a stem and a head")
        return self.stem, self.head

    @cached_property
    def placed(self) -> tuple[tuple[PlacedBlock, ...], ...]:
        """In a chain, every candidate block with its shape, whether or not the rules allow a network with it."""
        first = int(dict(self.ends[0].params).get("out_channels", self.in_channels))
        widths = (first, *(position.out_channels for position in self.positions))
        return tuple(
            tuple(
                PlacedBlock(block=block, in_channels=width, out_channels=place.out_channels, stride=place.stride)
                for block in place.blocks
            )
            for width, place in zip(widths, self.positions, strict=False)
        )

    def sides(self, first: int) -> tuple[int, ...]:
        """In a chain, the side in pixels of what reaches each position and then the head, ``first`` from the stem."""
        strides = (position.stride for position in self.positions)
        return tuple(itertools.accumulate(strides, lambda side, stride: -(-side // stride), initial=first))
