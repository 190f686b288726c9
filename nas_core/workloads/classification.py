"""Classification: its loss and its metrics, from logits. torch is imported where they are computed.

N = examples, K = classes. Outputs are logits, N K; targets are class numbers, N.
The values are those of scikit-learn's functions of the same names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas_core.base.errors import DataError
from nas_core.workloads.metrics import Metric, Metrics, by_name
from nas_core.workloads.targets import Targets, from_to

if TYPE_CHECKING:
    import torch

MOST_GUESSES = 5
CONFIDENCE_BINS = 15
MOST_CONFUSED = 1000  # classes of which every pair is counted
SAID_BY_NAME = 5


@dataclass(frozen=True, kw_only=True)
class ClassTargets(Targets):
    """One class for every example."""

    dtype: ClassVar[str] = "int64"
    are_logits: ClassVar[bool] = True

    @property
    def called(self) -> str:
        return f"{len(self.names)} classes"

    @property
    def metrics(self) -> Metrics:
        return CLASSIFICATION

    def loss(self, outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0) -> "torch.Tensor":
        return classification_loss(outputs, targets, label_smoothing)

    def details(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> dict[str, Any]:
        return {"confusion": confusion(outputs, targets)} if outputs.shape[1] <= MOST_CONFUSED else {}

    def said(self, output: "torch.Tensor", target: "torch.Tensor") -> dict[str, str]:
        return {"class": self.names[int(target)], "taken for": self.names[int(output.argmax())]}

    def described(self, targets_N: np.ndarray) -> str:
        return f"{from_to(np.bincount(targets_N, minlength=len(self.names)))} per class"

    def check(self, by_split: Mapping[str, np.ndarray], place: str, thing: str = "example") -> None:
        """Two classes at least, and one example of each in every split."""
        if len(self.names) < 2:
            raise DataError(place, f"classes {', '.join(self.names) or 'none'}", "two classes at least")
        for split, targets_N in by_split.items():
            present = set(targets_N.tolist())
            empty = [name for label, name in enumerate(self.names) if label not in present]
            if empty:
                more = f" and {len(empty) - SAID_BY_NAME:,} more" if len(empty) > SAID_BY_NAME else ""
                found = f"no {split} {thing} of class {', '.join(empty[:SAID_BY_NAME])}{more} that can be read"
                raise DataError(place, found, "one of each class and split at least")


def class_numbers(words: Sequence[str], place: str, names: tuple[str, ...] = ()) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers of labels that are numbers from 0 on or names, and the names of all classes.

    ``names`` are those of numbered classes, where they are known.

    Raises:
        DataError: for a number that is none of a class.
    """
    if not all(re.fullmatch(r"[0-9]{1,18}", word) for word in words):
        known = tuple(sorted(set(words)))
        numbers = {name: number for number, name in enumerate(known)}
        return np.array([numbers[word] for word in words], dtype=np.int64), known
    labels = np.array(words, dtype=np.int64)
    count = int(labels.max(initial=-1)) + 1
    if names and count > len(names):
        raise DataError(place, f"label {count - 1}", f"numbers below {len(names)}, as many as there are names")
    if not names and count > len(labels):
        raise DataError(place, f"label {count - 1} in {len(labels):,} rows", "class numbers from 0 on")
    return labels, names or tuple(map(str, range(count)))


def classification_loss(
    outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0
) -> "torch.Tensor":
    """Mean cross-entropy of a batch."""
    import torch.nn.functional as F

    return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)


def accuracy(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Share of examples whose largest logit is the target's."""
    return float((outputs.argmax(1) == targets).double().mean())


def top5_accuracy(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Share of examples whose target is among the five largest logits; 1 where there are no more than five classes."""
    guesses_NG = outputs.topk(min(MOST_GUESSES, outputs.shape[1]), dim=1).indices
    return float((guesses_NG == targets[:, None]).any(1).double().mean())


def balanced_accuracy(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Mean over the classes that occur of the share of their examples that are recognised."""
    right_K, examples_K, _ = _counts(outputs, targets)
    occurs = examples_K > 0
    return float((right_K[occurs] / examples_K[occurs]).mean())


def macro_f1(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Mean F1 over the classes that occur or are predicted."""
    right_K, examples_K, guesses_K = _counts(outputs, targets)
    both_K = examples_K + guesses_K
    occurs = both_K > 0
    return float((2 * right_K[occurs] / both_K[occurs]).mean())


def cross_entropy(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Mean negative log-likelihood of the targets, nats."""
    import torch.nn.functional as F

    return float(F.cross_entropy(outputs.double(), targets))


def calibration_error(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Expected calibration error (Guo et al. 2017): how far confidence is from accuracy, mean over the examples.

    Examples are put into 15 bins of equal width by the probability of their guess.
    """
    import torch

    confidence_N, guesses_N = outputs.double().softmax(1).max(1)
    gap_N = (guesses_N == targets).double() - confidence_N
    bins_N = (confidence_N * CONFIDENCE_BINS).ceil().long().clamp(1, CONFIDENCE_BINS) - 1
    gaps = torch.zeros(CONFIDENCE_BINS, dtype=torch.double, device=outputs.device).index_add_(0, bins_N, gap_N)
    return float(gaps.abs().sum() / len(targets))


def confusion(outputs: "torch.Tensor", targets: "torch.Tensor") -> list[list[int]]:
    """Examples of each class (rows) by what they were taken for (columns)."""
    num_classes = outputs.shape[1]
    cells = (targets * num_classes + outputs.argmax(1)).bincount(minlength=num_classes**2)
    rows: list[list[int]] = cells.view(num_classes, num_classes).tolist()
    return rows


def _counts(outputs: "torch.Tensor", targets: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Per class: examples recognised, examples, guesses; as doubles (diagonal and margins of the confusion matrix)."""
    guesses_N, num_classes = outputs.argmax(1), outputs.shape[1]
    which = (targets[guesses_N == targets], targets, guesses_N)
    right_K, examples_K, guesses_K = (each.bincount(minlength=num_classes).double() for each in which)
    return right_K, examples_K, guesses_K


CLASSIFICATION: Metrics = by_name(
    Metric(
        name="accuracy", label="accuracy", higher_is_better=True, is_fraction=True, counts_examples=True, of=accuracy
    ),
    Metric(
        name="top5_accuracy",
        label="top-5 accuracy",
        higher_is_better=True,
        is_fraction=True,
        counts_examples=True,
        of=top5_accuracy,
    ),
    Metric(
        name="balanced_accuracy",
        label="balanced accuracy",
        higher_is_better=True,
        is_fraction=True,
        of=balanced_accuracy,
    ),
    Metric(name="macro_f1", label="macro F1", higher_is_better=True, is_fraction=True, of=macro_f1),
    Metric(name="cross_entropy", label="cross-entropy", higher_is_better=False, unit="nats", of=cross_entropy),
    Metric(
        name="calibration_error",
        label="calibration error",
        higher_is_better=False,
        is_fraction=True,
        of=calibration_error,
    ),
)
