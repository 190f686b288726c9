"""Regression: its loss and its metrics. torch is imported where they are computed.

Outputs and targets are numbers, N or N O (O = numbers per example); a mean is
over all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas_core.base.errors import DataError
from nas_core.workloads.metrics import Metric, Metrics, by_name
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.targets import MOST_POINTS, Targets, spread, table

if TYPE_CHECKING:
    import torch


def regression_loss(outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0) -> "torch.Tensor":
    """Mean squared error of a batch; there are no labels to smooth."""
    import torch.nn.functional as F

    return F.mse_loss(outputs, targets.reshape(outputs.shape).to(outputs.dtype))


def mean_absolute_error(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    return float(_errors(outputs, targets).abs().mean())


def rmse(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Root of the mean squared error."""
    return float(_errors(outputs, targets).square().mean().sqrt())


def r2(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
    """Share of the targets' variance that is explained, a mean over the O numbers; 1 at best, no lower bound."""
    flat = targets.double().reshape(len(targets), -1)
    residual_O = _errors(outputs, targets).reshape(flat.shape).square().sum(0)
    total_O = (flat - flat.mean(0)).square().sum(0)
    return float((1 - residual_O / total_O).mean())


def _errors(outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    return outputs.double() - targets.double().reshape(outputs.shape)


REGRESSION: Metrics = by_name(
    Metric(name="mean_absolute_error", label="mean absolute error", higher_is_better=False, of=mean_absolute_error),
    Metric(name="rmse", label="RMSE", higher_is_better=False, of=rmse),
    Metric(name="r2", label="R²", higher_is_better=True, of=r2),
)


def number_metrics(names: Sequence[str], scale: Callable[[], Normalisation]) -> Metrics:
    """Of one number the error in its unit first; of several R², which has no unit, and means over all units.

    ``scale``, what outputs are in units of, is asked for when outputs are measured: metrics are named without the data.
    """
    known = [replace(each, of=_in_units(each.of, scale)) for each in REGRESSION.values()]
    if len(names) == 1:
        return by_name(*known)
    several = f" (mean over {len(names)} numbers)"
    errors = (replace(each, label=each.label + several) for each in known if each.name != "r2")
    return by_name(*(each for each in known if each.name == "r2"), *errors)


def _in_units(
    of: "Callable[[torch.Tensor, torch.Tensor], float]", scale: Callable[[], Normalisation]
) -> "Callable[[torch.Tensor, torch.Tensor], float]":
    return lambda outputs, targets: of(scale().undone(outputs.double()), targets)


NO_CLASSES = "targets are numbers, not classes"


@dataclass(frozen=True, kw_only=True)
class NumberTargets(Targets):
    """Numbers, each with its own unit; networks learn them in units of the training targets' deviation.

    ``mean`` and ``std`` are those of the training split's targets. Targets and
    metrics are as people read them; only a network's outputs are scaled, unless
    it gives them ``in_units``, as a model may that was trained elsewhere.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    in_units: bool = False
    refused: ClassVar[Mapping[str, str]] = {"mixup": NO_CLASSES, "cutmix": NO_CLASSES, "loss": NO_CLASSES}

    @classmethod
    def of(cls, names: Sequence[str], targets_NO: np.ndarray, *, in_units: bool = False) -> "NumberTargets":
        """Those of the training split; a number that is always the same is left as it is."""
        std_O = targets_NO.std(0)
        return cls(
            names=tuple(names),
            mean=tuple(map(float, targets_NO.mean(0))),
            std=tuple(float(std) or 1.0 for std in std_O),
            in_units=in_units,
        )

    @property
    def called(self) -> str:
        return f"numbers: {', '.join(self.names)}"

    @property
    def metrics(self) -> Metrics:
        return number_metrics(self.names, lambda: self.scale)

    @property
    def standard(self) -> Normalisation:
        return Normalisation(mean=self.mean, std=self.std)

    @property
    def scale(self) -> Normalisation:
        """What outputs are scaled by."""
        return Normalisation() if self.in_units else self.standard

    def _standardised(self, outputs: "torch.Tensor") -> "torch.Tensor":
        return self.standard(outputs) if self.in_units else outputs

    def loss(self, outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0) -> "torch.Tensor":
        """Mean squared error in units of the training targets' deviation."""
        return regression_loss(self._standardised(outputs), self.standard(targets.to(outputs.dtype)))

    def agreement(self, outputs: "torch.Tensor", taught: "torch.Tensor", temperature: float) -> "torch.Tensor":
        """Mean squared difference in units of that deviation; numbers have no temperature."""
        return regression_loss(self._standardised(outputs), self._standardised(taught))

    def details(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> dict[str, Any]:
        found_NO, true_NO = self.scale.undone(outputs.double()).cpu(), targets.double().cpu()
        chosen = spread(len(true_NO), MOST_POINTS)
        rows, scatter = [], []
        for index, name in enumerate(self.names):
            found_N, true_N = found_NO[:, index], true_NO[:, index]
            pair = found_N[:, None], true_N[:, None]
            values = [mean_absolute_error(*pair), rmse(*pair), r2(*pair)]
            rows.append((name, *(f"{value:.4g}" for value in (true_N.mean(), true_N.std(correction=0), *values))))
            scatter.append({"name": name, "true": true_N[chosen].tolist(), "predicted": found_N[chosen].tolist()})
        head = ("number", "mean", "standard deviation", "mean absolute error", "RMSE", "R²")
        return {"table": table(head, rows), "scatter": scatter}

    def shown(self, output: "torch.Tensor", target: "torch.Tensor") -> dict[str, Any]:
        pairs = zip(self.names, target.tolist(), self._found(output), strict=True)
        return {"words": "\n".join(f"{name} {true:.4g}, found {value:.4g}" for name, true, value in pairs)}

    def said(self, output: "torch.Tensor", target: "torch.Tensor") -> dict[str, str]:
        pairs = zip(self.names, target.tolist(), self._found(output), strict=True)
        return {
            key: f"{each:.4g}"
            for name, true, value in pairs
            for key, each in ((name, true), (f"{name}, predicted", value))
        }

    def _found(self, output: "torch.Tensor") -> list[float]:
        found: list[float] = self.scale.undone(output.double()[None])[0].tolist()
        return found

    def described(self, targets_N: np.ndarray) -> str:
        pairs = zip(self.names, targets_N.min(0), targets_N.max(0), strict=True)
        return "; ".join(f"{name} from {least:.4g} to {most:.4g}" for name, least, most in pairs)

    def check(self, by_split: Mapping[str, np.ndarray], place: str, thing: str = "example") -> None:
        for split, targets_NO in by_split.items():
            for index, name in enumerate(self.names):
                if len(np.unique(targets_NO[:, index])) < 2:
                    found = f"{name} {targets_NO[0, index]:g} in every {split} {thing}"
                    raise DataError(place, found, "two values at least in each split")
