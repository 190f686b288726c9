"""The protocol of workloads: data with a loss and metrics. No torch at import."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nas_core.base.errors import UnknownNameError
from nas_core.base.registry import Registered, Registry
from nas_core.base.settings import Section
from nas_core.workloads.metrics import Metric, Metrics

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a family has to know of the data: shape of one input (without the batch axis), its type, outputs wanted.

    ``num_outputs`` is the number of classes of a classification, of numbers of a regression.
    """

    shape: tuple[int, ...]
    num_outputs: int
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A workload's examples in main memory, at one input size.

    ``train`` and ``validation`` are disjoint parts of the training split: pairs
    (inputs, targets) whose first axes agree. The test split is not here:
    ``load_test()`` reads it, so nothing that scores networks can touch it by accident.
    ``prepare`` turns stored inputs (uint8 images, say) into what a network takes.
    """

    train: "tuple[torch.Tensor, torch.Tensor]"
    validation: "tuple[torch.Tensor, torch.Tensor]"
    prepare: "Callable[[torch.Tensor], torch.Tensor]"
    load_test: "Callable[[], tuple[torch.Tensor, torch.Tensor]]" = field(repr=False)
    output_names: tuple[str, ...] = ()  # classes, or what the numbers are called


class Workload(Registered, ABC):
    """Data, a loss, metrics and an example of an input."""

    def __init__(self, settings: Section) -> None:
        self.settings: Any = settings

    @property
    @abstractmethod
    def sample(self) -> Sample:
        """Shape and type of an input, number of outputs; cheap, and needs no torch."""

    @property
    @abstractmethod
    def metrics(self) -> Metrics:
        """The metrics by name; the first is the one that networks are compared by unless the study names another."""

    @property
    def identity(self) -> dict[str, Any]:
        """What of the data a score depends on (where it lies does not matter): part of scorers' ids."""
        return dict(self.settings.model_dump(mode="json"))

    def check(self, train_examples: int | None = None) -> None:
        """Raises DataError, with what to do, if data are missing or splits larger than the set; cheap."""

    @abstractmethod
    def load(self, resolution: int, in_channels: int | None = None) -> Splits:
        """The examples, with the input size and channels that a network of the space expects."""

    @abstractmethod
    def loss(self, outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0) -> "torch.Tensor":
        """The mean loss of a batch, a scalar with gradients."""

    def augment(self, inputs: "torch.Tensor", kind: str, generator: "torch.Generator") -> "torch.Tensor":
        """A changed copy of prepared inputs, by ``Recipe.augment``; as they are where a workload has none."""
        return inputs

    def describe(self) -> Sequence[tuple[str, str]]:
        """What the report says of the data: (what, value) rows."""
        return ()


def metric_of(workload: Workload, name: str = "") -> Metric:
    """The metric of this name, or the workload's first; raises UnknownNameError if it has none of the name."""

    metrics = workload.metrics
    if not name:
        return next(iter(metrics.values()))
    if name not in metrics:
        raise UnknownNameError("metric", repr(name), f"one of: {', '.join(metrics)}")
    return metrics[name]


WORKLOADS = Registry[Workload]("workload", Workload)
