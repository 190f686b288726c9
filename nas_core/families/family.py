"""The protocol of families: m positions with n blocks each, and the network that each choice of blocks is.

No torch at import: a family's ``space`` is plain data, its modules are built when asked for.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from nas_core.base.identity import content_id
from nas_core.base.registry import Registered, Registry
from nas_core.base.settings import Section, named_paths
from nas_core.space.genotypes import Genotype, SearchSpace
from nas_core.workloads.workload import Sample

if TYPE_CHECKING:
    import torch
    from torch import nn

Shape = tuple[int, ...]


class Switched(Protocol):
    """A network, in eval mode, whose blocks are chosen by a genotype."""

    def choose(self, genotype: Genotype) -> None:
        """Become this genotype's network."""

    def __call__(self, *inputs: Any) -> Any:
        """The outputs of the network chosen."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a network that is built, counted and timed by itself.

    ``position`` is the position whose block it is part of, None for what every
    network has (stem, head, wiring). A position may have several parts, as an
    edge of a cell that is repeated. ``shapes`` are its inputs' shapes without
    the batch axis, on which there are ``rows`` for each example (the frames of a
    film, say). Parts of one ``key`` are equal: they are built and measured once.
    ``is_no_op`` says that it does nothing, and so costs nothing. ``beside_bytes`` are of activations at batch size 1
    that the network holds for later while the part runs: what goes past it.
    """

    position: int | None
    key: Hashable
    shapes: tuple[Shape, ...]
    build: "Callable[[], nn.Module]" = field(compare=False)
    dtype: str = "float32"
    is_no_op: bool = False
    beside_bytes: int = 0
    rows: int = 1


class Family(Registered, ABC):
    """A family of networks, made for the samples of one workload."""

    are_networks: ClassVar[bool] = True  # whether what is chosen can be built, timed and trained
    default_sample: ClassVar[Sample] = Sample(shape=(3, 32, 32), num_outputs=10)  # where no data decide

    def __init_subclass__(cls, **given: Any) -> None:
        """Its ``space`` names the code that builds the networks, where that is a plug-in's or a later version."""
        super().__init_subclass__(**given)
        if (own := cls.__dict__.get("space")) is not None and not getattr(own, "__isabstractmethod__", False):
            named = cached_property(lambda family: family._with_code(own.__get__(family, cls)))
            named.__set_name__(cls, "space")
            cls.space = named  # type: ignore[assignment]

    def __init__(self, settings: Section, sample: Sample | None = None) -> None:
        self.settings: Any = settings
        self.given = sample is not None  # by data; else the family's own sample serves
        self.sample = sample or self.default_sample

    def check(self) -> None:
        """Whether what the networks are made from is there, before anything is made of it; cheap.

        Raises:
            NasError: naming what is not there.
        """

    def notes(self) -> Sequence[str]:
        """What people should know of the networks before a run: sentences that it begins with."""
        return ()

    @property
    @abstractmethod
    def space(self) -> SearchSpace:
        """Positions, blocks and rules as plain data; the same settings and sample give the same space."""

    @abstractmethod
    def module(self, genotype: Genotype, generator: "torch.Generator | None" = None) -> "nn.Module":
        """The genotype's network with fresh weights, a function of the generator's state."""

    @abstractmethod
    def parts(self, genotype: Genotype) -> Sequence[Part]:
        """The network's parts in the order in which they run, whatever its topology; rules are not asked."""

    def _with_code(self, space: SearchSpace) -> SearchSpace:
        """The space with what else its networks depend on: other code, settings or files of it, other space."""
        code = FAMILIES.code(self.name) if self.name in FAMILIES else ""
        if not code:
            return space
        settings = self.settings.model_dump_json(exclude={"kind"})
        for path in named_paths(self.settings).values():  # known by what they hold, wherever they lie
            settings = settings.replace(json.dumps(path), '""')
        known = content_id({"code": code, "settings": settings, "files": FAMILIES.files(self.name, self.settings)})
        return replace(space, code=(*space.code, (f"family {self.name}", known)))

    @property
    def teacher(self) -> "nn.Module | None":
        """The trained model that the family's networks are made of, in eval mode; None where there is none."""
        return None

    @property
    def teacher_places(self) -> Sequence[str]:
        """Paths of the teacher's modules that blocks stand in for: each gives nearly what the teacher's gives."""
        return ()

    def switched(self) -> "Switched | None":
        """One network that becomes any genotype's, to time blocks where they stand; None where there is none."""
        return None

    def origin(self, genotype: Genotype) -> Mapping[str, Any]:
        """What ``architecture.json`` says of how the network is built without this code; JSON-able."""
        return {}

    def shared(self, seed: int) -> "nn.Module | None":
        """A network of which every genotype is a path, with fresh weights; None where the family has none.

        It is called as ``network(inputs, genotype=...)``; ``network.block(position, choice)`` is a block's module.
        """
        return None


FAMILIES = Registry[Family]("family", Family)
