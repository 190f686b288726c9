"""The source of a plug-in that brings one of each kind; the tests write it into a folder of their own."""

PACKAGE = {
    "__init__.py": '''"""A team's own: one of each of the six kinds, and the shortcuts."""

from . import families, rates, works  # noqa: F401
''',
    "families.py": '''"""A block of our own, and a family shaped like a cell."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from nas_core import FAMILIES, BlockSpec, Family, Part, Position, Sample, SearchSpace, Section, block


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


@FAMILIES.add
class CellFamily(Family):
    """A cell of three edges over vectors, for regression."""

    name = "vector-cell"
    default_sample = Sample(shape=(10,), num_outputs=1)

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

from nas_core import SEARCHERS, Searcher, resource, scorer, within_limits


@scorer("weights", metric="weight_norm", higher_is_better=False)
def weights(module, *, power: Annotated[float, "Power of the norm."] = 2.0) -> float:
    """How large the fresh weights are: less is better."""
    total = sum(float((p.detach().abs() ** power).sum()) for p in module.parameters())
    return total ** (1 / power)


@resource("price_eur", unit="euro")
def price(block) -> float:
    """What a block costs to buy."""
    return {"zero": 0.0, "linear": 1.0, "gelu": 3.0}.get(block["kind"], 2.0)


@SEARCHERS.add
class Alphabetical(Searcher):
    """The first networks in the order of their names."""

    name = "alphabetical"

    def next(self, known, number):
        found = [g for g in known.space.genotypes() if g not in known.tried and within_limits(known, g)]
        return found[:number]
''',
    "works.py": '''"""A regression workload: diabetes progression, bundled with scikit-learn."""

import torch
from torch.nn.functional import mse_loss

from nas_core import Metric, Sample, dataset_workload


def mean_error(outputs, targets):
    return float((outputs - targets).abs().mean())


mae = Metric(name="mae", label="mean absolute error", higher_is_better=False, of=mean_error, unit="points")


@dataset_workload(
    "diabetes",
    sample=Sample(shape=(10,), num_outputs=1),
    loss=mse_loss,
    metrics=[mae],
    example={"validation_examples": 50},
)
def diabetes(settings):
    """How far diabetes goes in a year, from ten measurements of 442 patients."""
    from sklearn.datasets import load_diabetes

    inputs, targets = load_diabetes(return_X_y=True)
    inputs = torch.tensor(inputs, dtype=torch.float32)
    targets = torch.tensor(targets, dtype=torch.float32)[:, None] / 100
    rows = torch.utils.data.TensorDataset(inputs, targets)
    return torch.utils.data.Subset(rows, range(350)), torch.utils.data.Subset(rows, range(350, 442))
''',
}
STUDY = {
    "name": "own",
    "plugins": ["./teamnas"],
    "space": {"kind": "vector-cell", "width": 6},
    "data": {"kind": "diabetes", "validation_examples": 50},
    "scorer": {"kind": "train", "recipe": {"epochs": 2, "batch_size": 32, "lr": 0.02, "augment": "none"}, "batch": 4},
    "searcher": {"kind": "alphabetical"},
    "design": {"held_out": 2},
    "profile": {"resources": ["flops", "params", "price_eur"]},
    "select": {"limits": ["price_eur<=7"], "top": 2},
    "verify": {"evaluations": 2, "per_round": 2},
    "train": {"recipe": {"epochs": 2, "batch_size": 32, "lr": 0.02, "augment": "none"}, "compare_random": 0},
}
