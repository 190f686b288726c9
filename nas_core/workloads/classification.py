"""Classification: its loss and its metrics, from logits. torch is imported where they are computed.

N = examples, K = classes. Outputs are logits, N K; targets are class numbers, N.
The values are those of scikit-learn's functions of the same names.
"""

from typing import TYPE_CHECKING

from nas_core.workloads.metrics import Metric, Metrics, by_name

if TYPE_CHECKING:
    import torch

MOST_GUESSES = 5


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
    counts_KK = confusion(outputs, targets)
    examples_K = counts_KK.sum(1)
    occurs = examples_K > 0
    return float((counts_KK.diagonal()[occurs] / examples_K[occurs]).mean())


def macro_f1(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Mean F1 over the classes that occur or are predicted."""
    counts_KK = confusion(outputs, targets)
    both_K = counts_KK.sum(0) + counts_KK.sum(1)
    occurs = both_K > 0
    return float((2 * counts_KK.diagonal()[occurs] / both_K[occurs]).mean())


def cross_entropy(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Mean negative log-likelihood of the targets, nats."""
    import torch.nn.functional as F

    return float(F.cross_entropy(outputs.double(), targets))


def confusion(outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """How often class i (row) was taken for class j (column), K K, as doubles."""
    num_classes = outputs.shape[1]
    pairs = targets * num_classes + outputs.argmax(1)
    return pairs.bincount(minlength=num_classes**2).reshape(num_classes, num_classes).double()


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
)
