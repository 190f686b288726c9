"""What the targets of a workload are: classes, labels, numbers, maps. One class each. No torch at import.

A set of data has one of them, and with it a loss, metrics, and what a report
says of a trained network. N = examples, O = outputs of an example.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas_core.base.errors import DataError
from nas_core.workloads.metrics import Metrics
from nas_core.workloads.normalisation import Normalisation

if TYPE_CHECKING:
    import torch

POWERS = (-7.0, 5.0)  # of e: by what logits are multiplied at least and at most
MOST_POINTS = 1000  # of a scatter that is kept of a trained network


@dataclass(frozen=True, kw_only=True)
class Targets(ABC):
    """Loss, metrics and words for targets of one kind; ``names`` are of the outputs, in order."""

    names: tuple[str, ...]
    dtype: ClassVar[str] = "float32"  # as a workload gives them to the loss
    dense: ClassVar[bool] = False  # whether there is one for every pixel
    are_logits: ClassVar[bool] = False  # as `Workload.gives_logits`
    refused: ClassVar[Mapping[str, str]] = {}  # as `Workload.refused`

    @property
    @abstractmethod
    def metrics(self) -> Metrics:
        """The metrics by name, the one that networks are compared by first."""

    @abstractmethod
    def loss(self, outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0) -> "torch.Tensor":
        """The mean loss of a batch, a scalar with gradients."""

    def counted(self, targets: "torch.Tensor") -> "torch.Tensor | None":
        """As `Workload.counted`."""
        return None

    def agreement(self, outputs: "torch.Tensor", taught: "torch.Tensor", temperature: float) -> "torch.Tensor":
        """As `Workload.agreement`."""
        return divergence(outputs, taught, temperature)

    @property
    def scale(self) -> Normalisation:
        """Mean and deviation in which a network's outputs are; nothing where they are as people read them."""
        return Normalisation()

    def reduced(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """As `Workload.reduced`."""
        return outputs

    def as_maps(self, targets: "torch.Tensor") -> "torch.Tensor":
        """Dense targets as B C H W of floats, in which a pixel that is 0 in all channels does not count."""
        raise NotImplementedError

    def of_maps(self, maps: "torch.Tensor") -> "torch.Tensor":
        """The dense targets that these are the maps of."""
        raise NotImplementedError

    def details(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> dict[str, Any]:
        """As `Workload.details`."""
        return {}

    def shown(self, output: "torch.Tensor", target: "torch.Tensor") -> dict[str, Any]:
        """One example in a report: ``words`` and ``pictures``, as `Workload.shown`; nothing where a table says more."""
        return {}

    @property
    @abstractmethod
    def called(self) -> str:
        """How many of what there are, for a line on the data."""

    def said(self, output: "torch.Tensor", target: "torch.Tensor") -> dict[str, str]:
        """One example's target and what a network made of it, by what these are called."""
        return {}

    def described(self, targets_N: np.ndarray) -> str:
        """The targets of a split in words, after its number of examples."""
        return ""

    def check(self, by_split: Mapping[str, np.ndarray], place: str, thing: str = "example") -> None:
        """Raises DataError if a split lacks what both need; ``thing`` is what messages call an example."""
        return


def check_filled(counts: Mapping[str, int], place: str, thing: str) -> None:
    """Raises DataError if one of the splits has no example; ``thing`` is what messages call one."""
    for split, count in counts.items():
        if not count:
            raise DataError(place, f"no {split} {thing}", "one of each split at least")


def divergence(outputs: "torch.Tensor", taught: "torch.Tensor", temperature: float) -> "torch.Tensor":
    """Mean KL divergence of classes (axis 1) from a teacher's, nats, times the temperature's square."""
    import torch.nn.functional as F

    mine, theirs = (F.log_softmax(each / temperature, 1) for each in (outputs, taught))
    total = F.kl_div(mine, theirs, reduction="sum", log_target=True)
    return temperature**2 * total / (outputs.numel() // outputs.shape[1])


def divergence_of_labels(outputs: "torch.Tensor", taught: "torch.Tensor", temperature: float) -> "torch.Tensor":
    """Mean binary cross-entropy with a teacher's probabilities, each of its own, times the temperature's square."""
    import torch.nn.functional as F

    wanted = (taught / temperature).sigmoid()
    return temperature**2 * F.binary_cross_entropy_with_logits(outputs / temperature, wanted)


def calibrated_loss(outputs: "torch.Tensor", loss_of: "Callable[[torch.Tensor], torch.Tensor]") -> float:
    """The loss of logits times the number above 0 that makes it lowest: temperature scaling (Guo et al., 2017).

    What a network loses by being too sure of what it takes for right is left
    out. One of the N examples and two more is taken to be the opposite of what
    it is (as Platt, 1999, smooths targets), else a network without an error would have
    to be infinitely sure, and all such would be alike.
    """
    from scipy.optimize import minimize_scalar

    doubt = 1.0 / (outputs.numel() // outputs.shape[1] + 2)

    def doubted(power: float) -> float:
        scaled = outputs * math.exp(power)
        return (1.0 - doubt) * float(loss_of(scaled)) + doubt * float(loss_of(-scaled))

    found = minimize_scalar(doubted, bounds=POWERS, method="bounded", options={"xatol": 1e-3})
    return float(loss_of(outputs * math.exp(found.x)))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    """A table of details, as reports show it."""
    return {"head": list(head), "rows": [list(row) for row in rows]}


def spread(count: int, most: int) -> list[int]:
    """At most so many of the first ``count`` numbers, evenly apart, always the same."""
    return sorted({round(at) for at in np.linspace(0, count - 1, min(count, most))}) if count else []


def from_to(values: "Sequence[int] | np.ndarray") -> str:
    """``3 to 40``, or ``7`` where all are alike."""
    least, most = int(min(values)), int(max(values))
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
