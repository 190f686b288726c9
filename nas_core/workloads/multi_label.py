"""Several labels for an example, each there or not: their loss and metrics, from logits.

N = examples, L = labels. Outputs are logits, N L; targets are 0 or 1, N L. A
label counts as found where its logit is above 0. The values are those of
scikit-learn's functions of the same names, but that means over labels leave out
those that do not occur (of F1, nor are found), which count as 0 there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas_core.base.errors import DataError
from nas_core.workloads.metrics import Metric, Metrics, by_name
from nas_core.workloads.targets import Targets, divergence_of_labels, from_to, table

if TYPE_CHECKING:
    import torch

NO_CLASSES = "an example has several labels, not one class"


@dataclass(frozen=True, kw_only=True)
class LabelTargets(Targets):
    """Labels, any number of which an example may have."""

    are_logits: ClassVar[bool] = True
    refused: ClassVar[Mapping[str, str]] = {"mixup": NO_CLASSES, "cutmix": NO_CLASSES}

    @property
    def called(self) -> str:
        return f"{len(self.names)} labels, any number of them each"

    @property
    def metrics(self) -> Metrics:
        return MULTI_LABEL

    def loss(self, outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0) -> "torch.Tensor":
        """Mean binary cross-entropy over examples and labels; smoothing moves targets towards a half."""
        import torch.nn.functional as F

        smooth = targets.to(outputs.dtype) * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(outputs, smooth)

    def agreement(self, outputs: "torch.Tensor", taught: "torch.Tensor", temperature: float) -> "torch.Tensor":
        return divergence_of_labels(outputs, taught, temperature)

    def details(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> dict[str, Any]:
        right_L, examples_L, found_L = _counts(outputs, targets)
        average_L = _average_precisions(outputs, targets)
        rows = [
            (
                name,
                f"{int(examples_L[index]):,}",
                _percent(right_L[index], examples_L[index]),
                _percent(right_L[index], found_L[index]),
                _percent(2 * right_L[index], examples_L[index] + found_L[index]),
                f"{100 * float(average_L[index]):.1f} %" if examples_L[index] else "–",
            )
            for index, name in enumerate(self.names)
        ]
        head = ("label", "test examples", "found (recall)", "right when found (precision)", "F1", "average precision")
        return {"table": table(head, rows)}

    def shown(self, output: "torch.Tensor", target: "torch.Tensor") -> dict[str, Any]:
        return {"words": "\n".join(f"{what} {names}" for what, names in self.said(output, target).items())}

    def said(self, output: "torch.Tensor", target: "torch.Tensor") -> dict[str, str]:
        return {"has": self._named(target > 0.5), "found": self._named(output > 0)}

    def _named(self, has_L: "torch.Tensor") -> str:
        return ", ".join(name for name, has in zip(self.names, has_L.tolist(), strict=True) if has) or "none"

    def described(self, targets_N: np.ndarray) -> str:
        return f"{from_to(targets_N.sum(0))} per label, {targets_N.sum(1).mean():.3g} labels each"

    def check(self, by_split: Mapping[str, np.ndarray], place: str, thing: str = "example") -> None:
        for split, targets_NL in by_split.items():
            missing = [
                name for name, has in zip(self.names, np.any(targets_NL, axis=0).tolist(), strict=True) if not has
            ]
            if missing:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                found = f"no {split} {thing} with label {missing[0]}{more}"
                raise DataError(place, found, "one of each label and split at least")


def subset_accuracy(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Share of examples all of whose labels are right."""
    return float(((outputs > 0) == (targets > 0.5)).all(1).double().mean())


def hamming_accuracy(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Share of all labels of all examples that are right; one minus the Hamming loss."""
    return float(((outputs > 0) == (targets > 0.5)).double().mean())


def macro_f1(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Mean F1 over the labels that occur or are found."""
    right_L, examples_L, found_L = _counts(outputs, targets)
    both_L = examples_L + found_L
    occurs = both_L > 0
    return float((2 * right_L[occurs] / both_L[occurs]).mean()) if bool(occurs.any()) else 0.0


def micro_f1(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """F1 of all labels of all examples taken together; 0 where none is there and none is found."""
    right_L, examples_L, found_L = _counts(outputs, targets)
    both = float((examples_L + found_L).sum())
    return float(2 * right_L.sum()) / both if both else 0.0


def mean_average_precision(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Mean over the labels that occur of the average precision, examples ordered by their logit."""
    occurs = (targets > 0.5).any(0)
    return float(_average_precisions(outputs, targets)[occurs].mean()) if bool(occurs.any()) else 0.0


def binary_cross_entropy(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Mean negative log-likelihood of a label, nats."""
    import torch.nn.functional as F

    return float(F.binary_cross_entropy_with_logits(outputs.double(), targets.double()))


def _counts(outputs: "torch.Tensor", targets: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Per label: examples that have it and were found to, that have it, that were found to; as doubles."""
    has_NL, found_NL = targets > 0.5, outputs > 0
    right_L, examples_L, guesses_L = (each.double().sum(0) for each in (has_NL & found_NL, has_NL, found_NL))
    return right_L, examples_L, guesses_L


def _average_precisions(outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Per label: the mean over its examples of the precision at their rank; examples of one logit share a rank."""
    import torch

    values = []
    for logit_N, has_N in zip(outputs.double().T, (targets > 0.5).T, strict=True):
        order = logit_N.argsort(descending=True, stable=True)
        ranked, hits_N = logit_N[order], has_N[order].double().cumsum(0)
        last_of_tie = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool, device=ranked.device)])
        ends = last_of_tie.nonzero().flatten()
        hits = hits_N[ends]
        gained = torch.diff(hits, prepend=hits.new_zeros(1))
        values.append((gained * hits / (ends + 1)).sum() / hits[-1].clamp_min(1))
    return torch.stack(values)


def _percent(part: "torch.Tensor", whole: "torch.Tensor") -> str:
    return f"{100 * float(part / whole):.1f} %" if whole else "–"


MULTI_LABEL: Metrics = by_name(
    Metric(name="macro_f1", label="macro F1", higher_is_better=True, is_fraction=True, of=macro_f1),
    Metric(name="micro_f1", label="micro F1", higher_is_better=True, is_fraction=True, of=micro_f1),
    Metric(
        name="mean_average_precision",
        label="mean average precision",
        higher_is_better=True,
        is_fraction=True,
        of=mean_average_precision,
    ),
    Metric(
        name="subset_accuracy",
        label="subset accuracy",
        higher_is_better=True,
        is_fraction=True,
        counts_examples=True,
        of=subset_accuracy,
    ),
    Metric(
        name="hamming_accuracy",
        label="accuracy of labels",
        higher_is_better=True,
        is_fraction=True,
        of=hamming_accuracy,
    ),
    Metric(
        name="binary_cross_entropy",
        label="binary cross-entropy",
        higher_is_better=False,
        unit="nats",
        of=binary_cross_entropy,
    ),
)
