"""The family of networks that a trained model can become: its own blocks, or cheaper ones made of them."""

import copy
import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationInfo, field_validator

from nas_core.base.errors import SpaceError
from nas_core.base.settings import PathText, Section, resolved_path
from nas_core.base.words import counted
from nas_core.families.family import FAMILIES, Family, Part
from nas_core.families.model.alternatives import ALTERNATIVES, Alternative
from nas_core.space.genotypes import BlockSpec, Genotype, Position, SearchSpace
from nas_core.workloads.workload import Sample

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nas_core.families.model.assembled import Assembled
    from nas_core.families.model.draft import Call, Original
    from nas_core.families.model.rebuild import Change
    from nas_core.families.model.reference import Reference
    from nas_core.families.model.splitting import Place, Split

OWN = BlockSpec.of("own")  # the model's own block: choice 0 of every position
LIBRARY: tuple[dict[str, Any], ...] = (
    {"kind": "narrower", "ratio": 0.75},
    {"kind": "narrower", "ratio": 0.5},
    {"kind": "narrower", "ratio": 0.25},
    {"kind": "fewer-heads", "ratio": 0.75},
    {"kind": "fewer-heads", "ratio": 0.5},
    {"kind": "fewer-heads", "ratio": 0.25},
    {"kind": "slimmer", "ratio": 0.5},
    {"kind": "depthwise-separable"},
    {"kind": "without", "branch": "attn"},
    {"kind": "without", "branch": "mlp"},
    {"kind": "linear"},
    {"kind": "shallower", "ratio": 0.5},
    {"kind": "skip"},
)
FEWEST = 2  # positions of a model that can be searched
LEAST_COVERED = 0.02  # of the model's cost, by those of them that have alternatives
MOST_NAMED = 6  # modules that are no positions, in a line


@FAMILIES.add
class TrainedModel(Family):
    """A trained model whose blocks may each stay, or become a cheaper one made of it."""

    name = "model"
    example = {"model": "nas_core.testing.example_model:small_network"}  # noqa: RUF012

    class Settings(Section):
        model: str = Field(
            description="Trained model: timm:NAME, package.module:factory, FILE.py:factory, mlflow:NAME@alias or "
            "FILE.pt2."
        )
        checkpoint: PathText | None = Field(
            None, description="File of its trained weights (.safetensors, .pth), for a model of timm's."
        )
        arguments: dict[str, Any] = Field(default_factory=dict, description="What its maker is called with.")
        positions: list[str] = Field(
            default_factory=list, description="Modules that may change, by path; empty: they are found."
        )
        only: list[str] = Field(
            default_factory=list,
            description="Where positions may be found: paths as layer3.*; empty: a backbone, or all.",
        )
        keep: list[str] = Field(default_factory=list, description="Modules that stay as they are: paths as layer1.*.")
        cut: bool | None = Field(
            None,
            description="Whether positions are what lies between two places where one tensor is all that passes, by "
            "the graph of the forward pass; empty: where modules give too little, or single layers only.",
        )
        wanted: int | None = Field(None, ge=2, le=1000, description="About so many positions; empty: as found.")
        in_channels: int | None = Field(
            None, ge=1, le=1000, description="Channels that it takes of images; empty: those of the data."
        )
        library: list[dict[str, Any]] = Field(
            [dict(row) for row in LIBRARY],
            description="Alternatives tried at every position, each a kind with settings.",
        )

        @field_validator("model")
        @classmethod
        def _is_beside_the_study(cls, model: str, info: ValidationInfo) -> str:
            place, colon, factory = model.rpartition(":")
            if model.endswith(".pt2"):
                return resolved_path(model, info)
            return f"{resolved_path(place, info)}:{factory}" if colon and place.endswith(".py") else model

        def what_was_edited(self, code: Mapping[str, str]) -> str:
            from nas_core.families.model.source import hash_of_source, hash_of_weights

            now = {"model": hash_of_source(self.model)}
            with suppress(OSError):  # a file that is gone changes nothing
                now["weights"] = hash_of_weights(self.checkpoint) if self.checkpoint else ""
            names = {"model": f"{self.model.rpartition(':')[0]} or what it imports", "weights": self.checkpoint}
            edited = [names[each] for each, found in now.items() if found and code.get(each, found) != found]
            return f"{edited[0]} was edited" if edited else ""

        @field_validator("library")
        @classmethod
        def _known(cls, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            for row in rows:
                alternative_of(row)
            return rows

    def __init__(self, settings: Section, sample: Sample | None = None) -> None:
        super().__init__(settings, sample)
        channels = self.settings.in_channels
        if channels is not None and self.sample.is_image:  # gray images for a model of colour ones, say
            self.sample = replace(self.sample, shape=(channels, *self.sample.shape[1:]))

    @cached_property
    def reference(self) -> "Reference":
        from nas_core.families.model.reference import Reference

        given, shape = self.settings, self.sample.shape
        return Reference(
            model=given.model,
            checkpoint=given.checkpoint,
            arguments=given.arguments,
            num_outputs=self.sample.num_outputs,
            in_channels=shape[0],
            side=shape[-1] if self.sample.is_image else None,
        )

    def check(self) -> None:
        self.reference.check()

    @property
    def own(self) -> "Reference":
        """The reference to the model as its positions need it."""
        own = self.structure.own
        return replace(self.reference, tuples=own.tuples, cut=own.cut, rows=own.rows)

    @cached_property
    def teacher(self) -> "nn.Module":
        """The trained model, in eval mode; raises DataError where its weights are missing or another model's."""
        self.check()  # first: looking for positions may take a minute
        return self.own.trained()

    @property
    def teacher_places(self) -> Sequence[str]:
        """Blocks: what a branch gives says little where another branch has gone, except beside the model's input."""
        return list(dict.fromkeys(place.block or place.path for place in self.structure.split.places))

    @cached_property
    def structure(self) -> "Structure":
        """Where the model can be changed and into what; found once per process."""
        key, code = self.settings.model_dump_json(exclude={"kind", "checkpoint"}), self._code_of_alternatives
        computation = (self.reference.computation, *code)
        return _structure(key, computation, self.sample.shape, self.sample.num_outputs, self.sample.dtype)

    @property
    def _code_of_alternatives(self) -> tuple[tuple[str, str], ...]:
        """(alternative, its code) of those that a plug-in brought, or of a later version."""
        kinds = sorted({row["kind"] for row in self.settings.library})
        return tuple((f"alternative {kind}", code) for kind in kinds if (code := ALTERNATIVES.code(kind)))

    @cached_property
    def space(self) -> SearchSpace:
        structure = self.structure
        positions = tuple(
            Position(name=place.name, blocks=(OWN, *(each.spec for each in candidates)))
            for place, candidates in zip(structure.split.places, structure.candidates, strict=True)
        )
        return SearchSpace(
            name=self.settings.model.partition(":")[2] or self.settings.model,
            in_channels=self.sample.shape[0],
            resolutions=(self.sample.shape[-1] if self.sample.is_image else 1,),
            num_classes=self.sample.num_outputs,
            positions=positions,
            code=(*self.reference.identity, *self._code_of_alternatives),
        )

    def notes(self) -> list[str]:
        """As of any family: alternatives that were asked for and stand nowhere, and weights that are shared no more."""
        structure, tried = self.structure, {_spec_of(alternative_of(row)) for row in LIBRARY}
        standing = {each.spec for row in structure.candidates for each in row}
        asked = dict.fromkeys(_spec_of(alternative_of(row)) for row in self.settings.library)
        found = []
        for spec in (spec for spec in asked if spec not in tried | standing):
            reasons = Counter(shorten(row[str(spec)], 200, placeholder=" ...") for row in structure.refused.values())
            found.append(f"{spec} stands at no position: {'; '.join(why for why, _ in reasons.most_common(3))}")
        if shared := self.reference.shared:
            names, more = ", ".join(list(shared)[:3]), f"{sum(shared.values()):,} parameters more than as it was given"
            found.append(f"Weights that layers share become each layer's own ({names}): {more}")
        return found

    def changes(self, genotype: Genotype) -> "dict[str, Change]":
        """What distinguishes the genotype's network from the model, as ``architecture.json`` has it."""
        from nas_core.families.model.assembling import on_paths

        found: dict[str, Change] = {}
        for place, candidate in self._chosen(genotype):
            found |= on_paths(place, candidate.changes)
        return found

    def switched(self) -> "Assembled":
        from nas_core.families.model.assembled import Assembled
        from nas_core.families.model.assembling import with_fresh_weights

        structure = self.structure
        paths = [place.path for place in structure.split.places]
        rows = [[with_fresh_weights(each.structure) for each in row] for row in structure.candidates]
        return Assembled(copy.deepcopy(structure.network), paths, rows).eval()

    def origin(self, genotype: Genotype) -> Mapping[str, Any]:
        """The model and its changes, by which ``rebuild.load`` builds the network with torch and timm alone."""
        return {"model": self.own.made_by, "changes": self.changes(genotype)}

    def module(self, genotype: Genotype, generator: "torch.Generator | None" = None) -> "nn.Module":
        """The network's structure: alternatives have fresh weights, the model's own blocks those its maker gives."""
        from nas_core.families.model.assembling import learning, with_fresh_weights

        network = copy.deepcopy(self.structure.network)
        for path, candidate in self._chosen(genotype):
            network.set_submodule(path, with_fresh_weights(candidate.structure, generator))
        return learning(network)  # what an alternative left alone, too, which the model holds still

    def _chosen(self, genotype: Genotype) -> "list[tuple[str, Candidate]]":
        structure = self.structure
        return [
            (place.path, candidates[choice - 1])
            for place, candidates, choice in zip(
                structure.split.places, structure.candidates, genotype.choices, strict=True
            )
            if choice
        ]

    def parts(self, genotype: Genotype) -> Sequence[Part]:
        structure = self.structure
        parts = [self._rest]
        for position, choice in enumerate(genotype.choices):
            place = structure.split.places[position]
            parts.append(self._part(position, choice, place))
        return parts

    @property
    def _rest(self) -> Part:
        """What every network has: the model with nothing where its positions are."""
        from nas_core.families.model.assembling import Stub

        def build() -> "nn.Module":
            network = copy.deepcopy(self.structure.network)
            for place in self.structure.split.places:
                network.set_submodule(place.path, Stub(place.out_shape))
            return network

        key = ("rest", self.structure.key)
        return Part(position=None, key=key, shapes=(self.sample.shape,), build=build, dtype=self.sample.dtype)

    def _part(self, position: int, choice: int, place: "Place") -> Part:
        from nas_core.families.model.assembling import InContext, with_fresh_weights

        structure = self.structure
        path = place.path

        def build() -> "nn.Module":
            if choice == 0:
                block = copy.deepcopy(structure.network.get_submodule(path))
            else:
                block = with_fresh_weights(structure.candidates[position][choice - 1].structure)
            return InContext(block, structure.calls[path])

        beside = self._beside[path]
        is_no_op = choice > 0 and structure.candidates[position][choice - 1].spec.kind == "skip"
        key = ("place", structure.key, position, choice)
        return Part(
            position=position,
            key=key,
            shapes=(place.in_shape,),
            build=build,
            is_no_op=is_no_op,
            beside_bytes=beside,
            rows=place.rows,
        )

    @cached_property
    def _beside(self) -> Mapping[str, int]:
        """Bytes that the model holds for later while it runs each position, by path; of one example."""
        import torch

        from nas_core.families.live_bytes import beside, without_values

        structure, dtype = self.structure, getattr(torch, self.sample.dtype)
        paths = [place.path for place in structure.split.places]

        def on(device: str) -> dict[str, int]:
            inputs = torch.zeros(1, *self.sample.shape, dtype=dtype, device=device)
            return beside(copy.deepcopy(structure.network).to(device), inputs, paths)

        return without_values(on)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An alternative that stands at a position: what makes it, what it changes, and its structure without weights."""

    spec: BlockSpec
    changes: "Mapping[str, Change]"
    structure: "nn.Module"

    @property
    def alternative(self) -> Alternative:
        return alternative_of(self.spec.as_dict())


@dataclass(frozen=True, kw_only=True)
class Structure:
    """A model's positions, how it calls them on an example, and the alternatives that stand at each.

    ``own`` refers to the model as its positions need it: out of tuples, cut into parts where blocks are no modules, or
    in rows of blocks where fewer positions are wanted.
    ``refused`` says for each position which alternatives do not stand there, and why.
    """

    key: str
    own: "Reference"
    network: "nn.Module"
    split: "Split"
    calls: "Mapping[str, Call]"
    candidates: tuple[tuple[Candidate, ...], ...]
    refused: Mapping[str, Mapping[str, str]]


@functools.lru_cache(maxsize=4)
def _structure(
    settings_json: str, computation: tuple[Any, ...], shape: tuple[int, ...], num_outputs: int, dtype: str
) -> Structure:
    from nas_core.families.model.arranging import arranged
    from nas_core.families.model.assembling import calls_of
    from nas_core.families.model.reference import Reference

    given = TrainedModel.Settings.model_validate(json.loads(settings_json))
    side = shape[-1] if len(shape) == 3 else None
    reference = Reference(
        model=given.model, arguments=given.arguments, num_outputs=num_outputs, in_channels=shape[0], side=side
    )
    inputs = _example(shape, dtype)
    best = arranged(given, reference, inputs)
    network, found = best.network, best.split
    _check_number(given, found)
    paths = [place.path for place in found.places]
    calls = calls_of(network, paths, inputs)
    with suppress(Exception):  # a model that takes so many at a time
        alone = calls_of(network, paths, inputs[:1])
        calls = {path: call.beside(alone[path]) for path, call in calls.items()}
    candidates, refused, places = list[tuple[Candidate, ...]](), {}, []
    unchanged: dict[str, str] = {}
    for place in found.places:
        stand, not_there = _candidates(_original(network, place, calls), given.library)
        refused[place.path] = not_there
        if stand:
            places.append(place)
            candidates.append(stand)
        else:
            unchanged[place.path] = "; ".join(dict.fromkeys(not_there.values()))
    if not places:
        why = "; ".join(f"{path}: {reason}" for path, reason in list(unchanged.items())[:3])
        raise SpaceError("space.library", f"no alternative that stands anywhere ({why})", "one at least")
    found = replace(found, places=tuple(places), left_out={**found.left_out, **unchanged})
    _check_share(given, found)
    return Structure(
        key=f"{settings_json} {computation} {shape} {num_outputs} {dtype}",
        own=best.own,
        network=network,
        split=found,
        calls=calls,
        candidates=tuple(candidates),
        refused=refused,
    )


def _check_number(given: TrainedModel.Settings, found: "Split") -> None:
    """Raises SpaceError where there is next to nothing to choose, with why what was asked for is no position."""
    if len(found.places) >= FEWEST:
        return
    why, advice = _why_left_out(given, found)
    words, expected = counted(len(found.places), "position") + why, f"{FEWEST} at least"
    if given.only:
        beside = f" beside space.keep {', '.join(given.keep)}" if given.keep else ""
        advice = advice or "Name more modules, or those around them: --only."
        raise SpaceError(f"space.only {', '.join(given.only)}{beside}", words, expected, advice)
    raise SpaceError(f"space.model {given.model}", words, expected, advice)


def _check_share(given: TrainedModel.Settings, found: "Split") -> None:
    """Raises SpaceError where the positions that alternatives stand at are next to nothing of the model.

    Those that were asked for by name may be.
    """
    if found.covered >= LEAST_COVERED or given.only or given.positions:
        return
    holding = f"{counted(len(found.places), 'position')} with {100 * found.covered:.1f} % of the model's cost"
    why, advice = _why_left_out(given, found)
    raise SpaceError(f"space.model {given.model}", holding + why, f"{100 * LEAST_COVERED:.0f} % at least", advice)


def _why_left_out(given: TrainedModel.Settings, found: "Split") -> tuple[str, str]:
    """Which modules are no positions, with why; and what could be done: both in words, or ""."""
    from nas_core.families.model.splitting import advice_on, outermost

    asked = {path: reason for path, reason in found.left_out.items() if _is_among(path, given.only)}
    listed = [f"{path}: {shorten(why, 150, placeholder=' ...')}" for path, why in outermost(asked).items()]
    more = [f"and {len(listed) - MOST_NAMED} more"] if len(listed) > MOST_NAMED else []
    return f" ({'; '.join([*listed[:MOST_NAMED], *more])})" if listed else "", advice_on(asked)


def _is_among(path: str, patterns: Sequence[str]) -> bool:
    """Whether the module matches one of the patterns, or is inside one that does; without any, all do."""
    from nas_core.families.model.splitting import around

    return not patterns or any(fnmatchcase(each, pattern) for each in around(path) for pattern in patterns)


def _original(network: "nn.Module", place: "Place", calls: "Mapping[str, Call]") -> "Original":
    from nas_core.families.model.draft import Original

    return Original(block=network.get_submodule(place.path), call=calls[place.path], is_branch=place.is_branch)


def _candidates(
    known: "Original", library: Sequence[Mapping[str, Any]]
) -> tuple[tuple[Candidate, ...], dict[str, str]]:
    """The alternatives that stand in the block's place, and why the others do not."""
    from nas_core.families.model.assembling import drafted, flops_of, is_identity, without_weights

    own = flops_of(known.block, known.call)
    found: list[Candidate] = []
    refused: dict[str, str] = {}
    for row in library:
        alternative = alternative_of(row)
        spec = _spec_of(alternative)
        try:
            draft = drafted(known, alternative)
        except SpaceError as error:
            refused[str(spec)] = str(error.found)
            continue
        flops = flops_of(draft.block, known.call)
        if flops >= own:
            refused[str(spec)] = "it computes no less"
            continue
        if flops and is_identity(draft):
            refused[str(spec)] = "it gives what it takes, as `skip` does without computing"
            continue
        if any(draft.changes == each.changes and _are_alike(alternative, each.alternative) for each in found):
            refused[str(spec)] = "the same block as another alternative's"
            continue
        found.append(Candidate(spec=spec, changes=draft.changes, structure=without_weights(draft.block)))
    return tuple(found), refused


def _spec_of(alternative: Alternative) -> BlockSpec:
    return BlockSpec.of(alternative.name, **alternative.settings.model_dump(mode="json"))


def _are_alike(one: Alternative, other: Alternative) -> bool:
    """Whether two alternatives of blocks of one structure give them the same weights; a plug-in's choose their own."""
    return (one.is_ours and other.is_ours) or _spec_of(one) == _spec_of(other)


def alternative_of(row: Mapping[str, Any]) -> Alternative:
    """The alternative that a row of the library names; raises ValueError for an unknown kind or setting."""
    given = {name: value for name, value in row.items() if name != "kind"}
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in ALTERNATIVES:
        raise ValueError(f"a kind with its settings, {ALTERNATIVES.in_words}")
    found = ALTERNATIVES[kind]
    return found(found.Settings.model_validate(given))


def _example(shape: tuple[int, ...], dtype: str) -> "torch.Tensor":
    """Two inputs, always the same: images from 0 to 1, which models with their preparation inside insist on."""
    import torch

    generator = torch.Generator().manual_seed(0)
    if getattr(torch, dtype).is_floating_point:
        draw = torch.rand if len(shape) == 3 else torch.randn
        return draw(2, *shape, generator=generator)
    return torch.randint(0, 2, (2, *shape), generator=generator)
