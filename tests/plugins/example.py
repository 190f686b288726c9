"""The source of a plug-in that brings one of each kind; the tests write it into a folder of their own."""

PACKAGE = {
    "__init__.py": '''"""A team's own: one of each of the six kinds, and the shortcuts."""

from teamnas import families, rates, works  # noqa: F401
''',
    "families.py": '''"""A block of our own, and a family shaped like a cell."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from nas_core import BlockSpec, Family, Part, Position, SearchSpace, Section, block, families


@block("ghost")
class Ghost(nn.Module):
    """A cheap block: half of the channels by convolution, half by a depthwise one."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, kernel: Annotated[int, "Side of the kernel."] = 3
    ) -> None:
        super().__init__()
        half = max(1, out_channels // 2)
        self.first = nn.Conv2d(in_channels, half, kernel, stride, kernel // 2)
        self.rest = nn.Conv2d(half, out_channels - half, kernel, 1, kernel // 2)

    def forward(self, x):
        x = self.first(x)
        return torch.cat([x, self.rest(x)], 1).relu()


OPERATIONS = ("zero", "linear", "gelu")


def operation(name: str, width: int) -> nn.Module:
    if name == "zero":
        return nn.Identity()
    return nn.Sequential(nn.Linear(width, width), nn.GELU() if name == "gelu" else nn.Identity())


class Cell(nn.Module):
    def __init__(self, stem, left, right, last, head) -> None:
        super().__init__()
        self.stem, self.left, self.right, self.last, self.head = stem, left, right, last, head

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.last(self.left(x) + self.right(x)))


@families.add
class CellFamily(Family):
    """A cell of three edges over vectors, for regression."""

    name = "vector-cell"

    class Settings(Section):
        width: int = Field(8, ge=2, le=512, description="Width of the cell.")

    @property
    def space(self) -> SearchSpace:
        blocks = tuple(BlockSpec.of(name) for name in OPERATIONS)
        positions = tuple(Position(name=name, blocks=blocks) for name in ("left", "right", "last"))
        return SearchSpace(name=self.name, positions=positions)

    def parts(self, genotype):
        width = self.settings.width
        yield self._part(None, "stem", self.sample.shape, lambda: nn.Linear(self.sample.shape[0], width))
        for position, choice in enumerate(genotype.choices):
            name = OPERATIONS[choice]
            yield self._part(position, name, (width,), lambda name=name: operation(name, width))
        yield self._part(None, "head", (width,), lambda: nn.Linear(width, self.sample.num_outputs))

    def _part(self, position, name, shape, build):
        key = (name, shape, self.settings.width, self.sample.num_outputs)
        return Part(position=position, key=key, shapes=(shape,), build=build)

    def module(self, genotype, generator=None):
        modules = [part.build() for part in self.parts(genotype)]
        stem, left, right, last, head = modules
        network = Cell(stem, left, right, last, head)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1, generator=generator)
        return network
''',
    "rates.py": '''"""Two scorers from functions, a resource, and a searcher."""

from typing import Annotated

from nas_core import Searcher, resource, scorer, searchers


@scorer("weights", metric="weight_norm", higher_is_better=False)
def weights(module, *, power: Annotated[float, "Power of the norm."] = 2.0) -> float:
    """How large the fresh weights are: less is better."""
    total = sum(float((p.abs() ** power).sum()) for p in module.parameters())
    return total ** (1 / power)


@resource("price_eur", unit="euro")
def price(block) -> float:
    """What a block costs to buy."""
    return {"zero": 0.0, "linear": 1.0, "gelu": 3.0}.get(block["kind"], 2.0)


@searchers.add
class Alphabetical(Searcher):
    """The first networks in the order of their names."""

    name = "alphabetical"

    def next(self, known, number):
        from nas_core import within_limits

        found = [g for g in known.space.genotypes() if g not in known.tried and within_limits(known, g)]
        return found[:number]
''',
    "works.py": '''"""A regression workload: diabetes progression, bundled with scikit-learn."""

from nas_core import DatasetWorkload, workloads


@workloads.add
class Diabetes(DatasetWorkload):
    """How far diabetes goes in a year, from ten measurements (scikit-learn)."""

    name = "diabetes"
''',
}
