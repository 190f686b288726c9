"""Families whose networks are chains: a stem, one block per position, a head. A family of them only says its space."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from nas_core.base.errors import DataError, SpaceError
from nas_core.base.registry import Registry
from nas_core.families.blocks import BLOCKS, HEADS, IMAGES, ROWS, STEMS, check_placed, kind_of
from nas_core.families.family import Family, Part
from nas_core.space.genotypes import BlockSpec, Genotype, Position, SearchSpace
from nas_core.space.rules import Rule
from nas_core.workloads.workload import Sample

if TYPE_CHECKING:
    import torch
    from torch import nn


SHAPES = {1: ROWS, 3: IMAGES}  # axes of an input


class Chain(Family):
    """Stem, blocks, head in a row; derive and say ``chain()``."""

    def chain(self) -> SearchSpace:
        """The space, with the sample's channels and number of outputs."""
        raise NotImplementedError

    @cached_property
    def space(self) -> SearchSpace:
        """The space, checked block by block; it knows the code of blocks that plug-ins brought."""
        if len(self.sample.shape) not in SHAPES:
            found, expected = f"inputs of shape {self.sample.shape}", f"images or rows, which family {self.name} takes"
            raise DataError("data", found, expected)
        space = self.chain()
        if self.given:
            check_takes(space, self.sample)
        return check_space(space)

    @property
    def in_channels(self) -> int:
        return self.sample.shape[0]

    def between(
        self,
        stem: BlockSpec,
        head: BlockSpec,
        positions: Sequence[Position],
        resolutions: Sequence[int],
        rules: Sequence[Rule] = (),
    ) -> SearchSpace:
        """The space of these positions in a row, with the family's name and the sample's channels and outputs."""
        return SearchSpace(
            name=self.name,
            in_channels=self.in_channels,
            resolutions=tuple(resolutions),
            num_classes=self.sample.num_outputs,
            stem=stem,
            head=head,
            positions=tuple(positions),
            rules=tuple(rules),
        )

    def module(self, genotype: Genotype, generator: "torch.Generator | None" = None) -> "nn.Module":
        from nas_core.families.assemble import assemble

        return assemble(self.space.architecture(genotype), generator)

    def parts(self, genotype: Genotype) -> Sequence[Part]:
        return chain_parts(self.space, genotype)

    def shared(self, seed: int) -> "nn.Module":
        from nas_core.families.shared_weights import SharedWeights

        return SharedWeights(self.space, seed)


def check_takes(space: SearchSpace, sample: Sample) -> None:
    """Raises DataError if the family takes other inputs, or its head gives other outputs, than the data have."""
    stem, head = space.ends
    wanted = SHAPES[len(sample.shape)]
    used: list[tuple[Registry, str]] = [(STEMS, stem.kind), (HEADS, head.kind)]  # type: ignore[type-arg]
    used += [(BLOCKS, block.kind) for position in space.positions for block in position.blocks]
    for kinds, name in used:
        if name in kinds and wanted not in kinds[name].takes:
            found = f"{wanted} of shape {' x '.join(map(str, sample.shape))}"
            others = ", ".join(each for each in kinds if wanted in kinds[each].takes)
            expected = (
                f"{' or '.join(sorted(kinds[name].takes))}, which {kinds.kind} {name} of space {space.name} takes"
            )
            raise DataError("data", found, expected, f"A YAML space may have {kinds.kind}s for {wanted}: {others}.")
    if head.kind in HEADS and HEADS[head.kind].dense != sample.dense:
        outputs = ("outputs per image", "outputs per pixel")
        dense = ", ".join(each for each in HEADS if HEADS[each].dense == sample.dense)
        advice = f"A YAML space may have such a head ({dense}); `space: {{kind: model}}` takes a model of your own."
        expected = f"{outputs[not sample.dense]}, which head {head.kind} of space {space.name} gives"
        raise DataError("data", f"data that want {outputs[sample.dense]}", expected, advice)
    if sample.dense and len(space.resolutions) > 1:
        found = f"{len(space.resolutions)} resolutions and data that want outputs per pixel"
        raise DataError(f"space {space.name}: resolutions", found, "one resolution, at which the maps are, too")


def check_space(space: SearchSpace, source: str = "") -> SearchSpace:
    """The space, if every stem, block and head of it can be built; with the code that plug-ins' kinds depend on.

    Raises:
        SpaceError: with the position and block that cannot.
    """
    source = source or f"space {space.name}"
    for name, value in (("in_channels", space.in_channels), ("num_classes", space.num_classes)):
        if value < 1:
            raise SpaceError(f"{source}: {name}", value, "1 or more")
    if min(space.resolutions) < 1:
        raise SpaceError(f"{source}: resolutions", space.resolutions, "pixels, 1 or more")
    stem, head = space.ends
    kind_of(STEMS, stem, f"{source}: stem")
    for index, row in enumerate(space.placed):
        known: dict[str, int] = {}
        for choice, placed in enumerate(row):
            where = f"{source}: positions[{index}].blocks[{choice}]"
            given = f"{placed.block.kind} {check_placed(placed, where).settings!r}"  # with what is left to its default
            if given in known:
                raise SpaceError(where, f"{placed.block}, the same as blocks[{known[given]}]", "distinct blocks")
            known[given] = choice
    kind_of(HEADS, head, f"{source}: head")
    return replace(space, code=tuple(sorted(_brought_code(space))))


def _brought_code(space: SearchSpace) -> set[tuple[str, str]]:
    """(kind, its code) of every kind of the space that a plug-in brought, or of a later version: other space."""
    stem, head = space.ends
    used: list[tuple[Registry, str]] = [(STEMS, stem.kind), (HEADS, head.kind)]  # type: ignore[type-arg]
    used += [(BLOCKS, block.kind) for position in space.positions for block in position.blocks]
    return {(f"{kinds.kind} {name}", code) for kinds, name in used if (code := kinds.code(name))}


def chain_parts(space: SearchSpace, genotype: Genotype) -> list[Part]:
    """Stem, the genotype's blocks, head, each with the shape that reaches it."""
    return list(_walk(space, genotype))


def _walk(space: SearchSpace, genotype: Genotype) -> Iterator[Part]:
    from nas_core.families.assemble import build_block, build_head, build_stem

    stem, head = space.ends
    side = space.resolution_of(genotype)
    are_rows = ROWS in STEMS[stem.kind].takes
    first = () if are_rows else (side, side)
    yield _part(None, ("stem", stem), (space.in_channels, *first), lambda: build_stem(stem, space.in_channels))
    sides = () if are_rows else space.sides(stem_side(stem, space.in_channels, side))
    for position, choice in enumerate(space.check_choices(genotype).choices):
        placed = space.placed[position][choice]
        pixels = () if are_rows else (sides[position],) * 2
        part = _part(position, placed, (placed.in_channels, *pixels), lambda placed=placed: build_block(placed))  # type: ignore[misc]
        yield replace(part, is_no_op=placed.is_no_op)
    width, last = space.positions[-1].out_channels, () if are_rows else (sides[-1],) * 2
    key = ("head", head, space.num_classes)
    part = _part(None, key, (width, *last), lambda: build_head(head, space.in_channels, width, space.num_classes))
    beside = ((space.in_channels, *first),) if kind_of(HEADS, head).adds_input else ()
    yield replace(part, shapes=(*part.shapes, *beside))


def _part(position: int | None, key: Hashable, shape: tuple[int, ...], build: "Callable[[], nn.Module]") -> Part:
    return Part(position=position, key=(key, shape), shapes=(shape,), build=build)


@lru_cache(maxsize=10_000)
def stem_side(stem: BlockSpec, in_channels: int, resolution: int) -> int:
    """Side in pixels of what the stem hands on; it is run on torch's meta device, which computes nothing."""
    import torch

    from nas_core.families.assemble import build_stem

    with torch.device("meta"), torch.no_grad():
        images = torch.empty(1, in_channels, resolution, resolution)
        return int(build_stem(stem, in_channels).eval()(images).shape[-1])
