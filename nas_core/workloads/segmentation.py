"""A class for every pixel: its loss and metrics, from logits. torch is imported where they are computed.

N = examples, K = classes, H W = sides. Outputs are logits, N K H W; targets are
class numbers, N H W of uint8, 255 where a pixel does not count. ``counted``
turns both into counts per example, of which the metrics are computed: whole
maps of a split would fill the memory.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas_core.base.errors import DataError
from nas_core.workloads.metrics import Metric, Metrics, by_name
from nas_core.workloads.targets import Targets, table

if TYPE_CHECKING:
    import torch

IGNORED = 255  # class number of pixels that do not count
MOST_CLASSES = 255
SAID_BY_NAME = 12
NO_CLASSES = "a target is a map, which does not change with the image there"
# class colours in pictures: Okabe and Ito's (2008) and more of the kind, then hues that repeat
COLOURS = ("000000", "e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7", "999999", "7f3c8d", "a5aa99")
IGNORED_COLOUR = "ffffff"


@dataclass(frozen=True, kw_only=True)
class MaskTargets(Targets):
    """A class for every pixel; ``values`` are those of the masks, in the order of the classes."""

    values: tuple[int, ...]
    dtype: ClassVar[str] = "uint8"
    dense: ClassVar[bool] = True
    are_logits: ClassVar[bool] = True
    refused: ClassVar[Mapping[str, str]] = dict.fromkeys(("mixup", "cutmix", "policy", "loss"), NO_CLASSES)

    @property
    def called(self) -> str:
        shown = ", ".join(self.names[:SAID_BY_NAME]) + ", ..." * (len(self.names) > SAID_BY_NAME)
        return f"one of {len(self.names)} classes for every pixel: {shown}"

    @property
    def metrics(self) -> Metrics:
        return SEGMENTATION

    def loss(self, outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0) -> "torch.Tensor":
        """Mean cross-entropy over the pixels that count."""
        import torch.nn.functional as F

        total = F.cross_entropy(
            outputs, targets.long(), ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="sum"
        )
        return total / self.counted(targets).clamp_min(1)

    def counted(self, targets: "torch.Tensor") -> "torch.Tensor":
        return (targets != IGNORED).sum()

    def reduced(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        return counted(outputs, targets)

    def as_maps(self, targets: "torch.Tensor") -> "torch.Tensor":
        return ((targets.int() + 1) % (IGNORED + 1)).float()[:, None]

    def of_maps(self, maps: "torch.Tensor") -> "torch.Tensor":
        return ((maps[:, 0].round().int() + IGNORED) % (IGNORED + 1)).byte()

    def details(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> dict[str, Any]:
        both_K, found_K, true_K = _areas(counted(outputs, targets))
        all_pixels = float(true_K.sum())
        rows = [
            (
                name,
                _percent(true_K[index], all_pixels),
                _percent(both_K[index], found_K[index] + true_K[index] - both_K[index]),
                _percent(both_K[index], true_K[index]),
                _percent(both_K[index], found_K[index]),
            )
            for index, name in enumerate(self.names)
        ]
        return {
            "table": table(("class", "share of pixels", "IoU", "found (recall)", "right when found (precision)"), rows)
        }

    def shown(self, output: "torch.Tensor", target: "torch.Tensor") -> dict[str, Any]:
        from nas_core.workloads.images.pictures import encoded_picture

        found, true = output.argmax(0).byte().cpu(), target.byte().cpu()
        counts = true != IGNORED
        right = float((found == true)[counts].double().mean()) if bool(counts.any()) else 1.0
        both = (("mask", true), ("output", found))
        pictures = [(name, encoded_picture(each.numpy()[None], palette())) for name, each in both]
        return {"words": f"{100 * right:.1f} % of the pixels are right", "pictures": pictures}

    def check(self, by_split: Mapping[str, np.ndarray], place: str, thing: str = "example") -> None:
        if len(self.names) < 2:
            found = f"one class, {self.names[0]}" if self.names else "no class"
            raise DataError(place, f"masks of {found}", "two classes of pixels at least", "See data.ignore.")


def palette() -> np.ndarray:
    """The colour of each class number, 256 x 3."""
    hexes = [*COLOURS] + [COLOURS[1:][index % (len(COLOURS) - 1)] for index in range(256 - len(COLOURS))]
    hexes[IGNORED] = IGNORED_COLOUR
    return np.array([[int(each[at : at + 2], 16) for at in (0, 2, 4)] for each in hexes], dtype=np.uint8)


def counted(outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Counts of each example, N S with S = 3 K + 2, as doubles; what is counted already stays.

    Pixels of each class that are right, that were taken for it, that are of it; the summed negative
    log-likelihood in nats, and the pixels that count.
    """
    import torch
    import torch.nn.functional as F

    if outputs.ndim == 2:
        return outputs
    num_classes = outputs.shape[1]
    counts_NHW = targets != IGNORED
    found_NHW, true_NHW = outputs.argmax(1), targets.long().where(counts_NHW, 0)
    each_N = torch.arange(len(outputs), device=outputs.device)[:, None, None] * num_classes
    chosen = [(true_NHW, counts_NHW & (found_NHW == true_NHW)), (found_NHW, counts_NHW), (true_NHW, counts_NHW)]
    areas = [
        (each_N + classes)[which].bincount(minlength=len(outputs) * num_classes).view(-1, num_classes)
        for classes, which in chosen
    ]
    loss_NHW = F.cross_entropy(outputs, targets.long(), ignore_index=IGNORED, reduction="none")
    sums = [loss_NHW.double().sum((1, 2)), counts_NHW.sum((1, 2))]
    return torch.cat([*(area.double() for area in areas), *(each.double()[:, None] for each in sums)], dim=1)


def _areas(counts_NS: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Pixels of each class in the whole split: right, taken for it, of it."""
    both_K, found_K, true_K = counts_NS[:, :-2].sum(0).view(3, -1)
    return both_K, found_K, true_K


def mean_iou(counts_NS: "torch.Tensor") -> float:
    """Mean intersection over union, of the whole split, over the classes that occur or are found."""
    both_K, found_K, true_K = _areas(counts_NS)
    union_K = found_K + true_K - both_K
    occurs = union_K > 0
    return float((both_K[occurs] / union_K[occurs]).mean()) if bool(occurs.any()) else 1.0


def mean_dice(counts_NS: "torch.Tensor") -> float:
    """Mean Dice coefficient (F1 of pixels) over the classes that occur or are found."""
    both_K, found_K, true_K = _areas(counts_NS)
    sum_K = found_K + true_K
    occurs = sum_K > 0
    return float((2 * both_K[occurs] / sum_K[occurs]).mean()) if bool(occurs.any()) else 1.0


def pixel_accuracy(counts_NS: "torch.Tensor") -> float:
    """Share of the pixels that count whose class is right."""
    both_K, _, true_K = _areas(counts_NS)
    return float(both_K.sum() / true_K.sum().clamp_min(1))


def cross_entropy(counts_NS: "torch.Tensor") -> float:
    """Mean negative log-likelihood of the pixels that count, nats."""
    return float(counts_NS[:, -2].sum() / counts_NS[:, -1].sum().clamp_min(1))


def _of_counts(of: "Callable[[torch.Tensor], float]") -> "Callable[[torch.Tensor, torch.Tensor], float]":
    return lambda outputs, targets: of(counted(outputs, targets))


def _percent(part: "torch.Tensor", whole: "torch.Tensor | float") -> str:
    return f"{100 * float(part / whole):.1f} %" if whole else "–"


SEGMENTATION: Metrics = by_name(
    Metric(name="mean_iou", label="mean IoU", higher_is_better=True, is_fraction=True, of=_of_counts(mean_iou)),
    Metric(
        name="pixel_accuracy",
        label="pixel accuracy",
        higher_is_better=True,
        is_fraction=True,
        of=_of_counts(pixel_accuracy),
    ),
    Metric(name="mean_dice", label="mean Dice", higher_is_better=True, is_fraction=True, of=_of_counts(mean_dice)),
    Metric(
        name="cross_entropy", label="cross-entropy", higher_is_better=False, unit="nats", of=_of_counts(cross_entropy)
    ),
)
