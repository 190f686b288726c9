"""Regression: its loss and its metrics. torch is imported where they are computed.

Outputs and targets are numbers, N or N O (O = numbers per example); a mean is
over all of them.
"""

from typing import TYPE_CHECKING

from nas_core.workloads.metrics import Metric, Metrics, by_name

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
