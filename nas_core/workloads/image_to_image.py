"""An image for an image, such as one without noise: its loss and metrics. torch is imported where they are computed.

N C H W: examples, channels, sides. Outputs are fractions of full brightness;
targets are uint8, or fractions with NaN where a pixel does not count. ``counted``
turns both into sums per example, of which the metrics are computed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.workloads.metrics import Metric, Metrics, by_name
from nas_core.workloads.targets import Targets

if TYPE_CHECKING:
    import torch

FULL_BYTE = 255
LEAST_ERROR = 1e-10  # mean squared error of images that are equal, for all that is said: 100 dB
NO_CLASSES = "a target is an image, not a class"


@dataclass(frozen=True, kw_only=True)
class PictureTargets(Targets):
    """An image of the input's sides."""

    dtype: ClassVar[str] = "uint8"
    dense: ClassVar[bool] = True
    refused: ClassVar[Mapping[str, str]] = dict.fromkeys(("mixup", "cutmix", "policy", "loss"), NO_CLASSES)

    @property
    def called(self) -> str:
        return f"an image of {len(self.names)} channel{'s' * (len(self.names) > 1)} for each"

    @property
    def metrics(self) -> Metrics:
        return IMAGE_TO_IMAGE

    def loss(self, outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0) -> "torch.Tensor":
        """Mean squared error of the pixels that count, as fractions of full brightness."""
        wanted = fractions(targets)
        counts = ~wanted.isnan()
        return ((outputs - wanted.nan_to_num()) * counts).square().sum() / counts.sum().clamp_min(1)

    def counted(self, targets: "torch.Tensor") -> "torch.Tensor":
        return (~fractions(targets).isnan()).sum()

    def reduced(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        return counted(outputs, targets)

    def agreement(self, outputs: "torch.Tensor", taught: "torch.Tensor", temperature: float) -> "torch.Tensor":
        """Mean squared difference; brightness has no temperature."""
        return (outputs - taught).square().mean()

    def as_maps(self, targets: "torch.Tensor") -> "torch.Tensor":
        import torch

        values = fractions(targets)
        return torch.cat([values, torch.ones_like(values[:, :1])], dim=1)

    def of_maps(self, maps: "torch.Tensor") -> "torch.Tensor":
        return maps[:, :-1].masked_fill(maps[:, -1:] < 0.5, float("nan"))

    def shown(self, output: "torch.Tensor", target: "torch.Tensor") -> dict[str, Any]:
        from nas_core.workloads.images.pictures import encoded_picture

        found = (output.clamp(0, 1) * FULL_BYTE).round().byte().cpu()
        both = (("target", target.byte().cpu()), ("output", found))
        pictures = [(name, encoded_picture(each.numpy())) for name, each in both]
        return {"words": f"{psnr(counted(output[None], target[None])):.1f} dB", "pictures": pictures}


def fractions(targets: "torch.Tensor") -> "torch.Tensor":
    return targets if targets.is_floating_point() else targets.float() / FULL_BYTE


def counted(outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Of each example the sums of squared and of absolute errors, and what they are over: N 3, as doubles.

    Outputs are cut to what an image can have. What is counted already stays.
    """
    import torch

    if outputs.ndim == 2:
        return outputs
    wanted = fractions(targets)
    counts = ~wanted.isnan()
    error = (outputs.clamp(0, 1) - wanted.nan_to_num()).double() * counts
    return torch.stack([each.flatten(1).sum(1) for each in (error.square(), error.abs(), counts.double())], dim=1)


def psnr(sums_N3: "torch.Tensor") -> float:
    """Peak signal-to-noise ratio, dB: the mean over the images of -10 log10 of their mean squared error."""
    error_N = sums_N3[:, 0] / sums_N3[:, 2].clamp_min(1)
    return float(-10 * error_N.clamp_min(LEAST_ERROR).log10().mean())


def mean_absolute_error(sums_N3: "torch.Tensor") -> float:
    """Mean absolute error of a pixel, as a fraction of full brightness."""
    return float(sums_N3[:, 1].sum() / sums_N3[:, 2].sum().clamp_min(1))


def rmse(sums_N3: "torch.Tensor") -> float:
    """Root of the mean squared error of a pixel, as a fraction of full brightness."""
    return float((sums_N3[:, 0].sum() / sums_N3[:, 2].sum().clamp_min(1)).sqrt())


def _of_sums(of: "Callable[[torch.Tensor], float]") -> "Callable[[torch.Tensor, torch.Tensor], float]":
    return lambda outputs, targets: of(counted(outputs, targets))


IMAGE_TO_IMAGE: Metrics = by_name(
    Metric(name="psnr", label="PSNR", higher_is_better=True, unit="dB", of=_of_sums(psnr)),
    Metric(
        name="mean_absolute_error",
        label="mean absolute error",
        higher_is_better=False,
        of=_of_sums(mean_absolute_error),
    ),
    Metric(name="rmse", label="RMSE", higher_is_better=False, of=_of_sums(rmse)),
)
