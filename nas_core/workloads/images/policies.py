"""Augmentation policies: operations drawn for each image, by torchvision's transforms, on uint8 images.

Those with a name are torchvision's; ``rand-m9-mstd0.5-inc1`` and the like is RandAugment as timm's command line has
it, of torchvision's operations. They draw from torch's global generator, which a training seeds for each step.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nas_core.base.errors import DataError
from nas_core.base.torchvision_compat import define_missing_operators

define_missing_operators()

from torchvision.transforms import InterpolationMode, v2  # noqa: E402
from torchvision.transforms.v2 import functional  # noqa: E402

POLICIES: dict[str, Callable[[int], v2.Transform]] = {
    "rand-augment": lambda magnitude: v2.RandAugment(magnitude=magnitude),
    "trivial-augment": lambda _: v2.TrivialAugmentWide(),
    "auto-augment-imagenet": lambda _: v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET),
    "auto-augment-cifar10": lambda _: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
    "auto-augment-svhn": lambda _: v2.AutoAugment(v2.AutoAugmentPolicy.SVHN),
}
MOST_LEVEL = 10.0  # timm's levels: shares of each operation's range are tenths
UNIFORM = 100.0  # from this deviation on levels are drawn evenly
GRAY = 128.0  # what comes in from outside an image, where its mean is not known
MOST_BYTE = 255


def operated(images: torch.Tensor, policy: str, magnitude: int, mean: Sequence[float] = ()) -> torch.Tensor:
    """A changed copy of the B C H W uint8 images, each by operations of its own.

    ``magnitude`` (0 to 30) is that of ``rand-augment``. ``mean`` of the channels, as shares of full brightness, is
    what comes in from outside an image, of timm's policy; torchvision's have black there.

    Raises:
        DataError: for images that are not stored as bytes, or neither gray nor colour.
    """
    if images.dtype != torch.uint8 or images.shape[1] not in (1, 3):
        found = f"images of {images.shape[1]} channels as {images.dtype}"
        raise DataError("recipe.policy", found, "gray or colour images of bytes for these data, or none")
    if policy in POLICIES:
        operate = POLICIES[policy](magnitude)
        return torch.stack([operate(image) for image in images])
    return RandAugment.of(policy)(images, [round(MOST_BYTE * each) for each in mean] or [GRAY] * images.shape[1])


# timm's


@dataclass(frozen=True, kw_only=True, slots=True)
class RandAugment:
    """timm's ``rand_augment_transform``: operations per image, each applied or not, at a level that is drawn.

    ``increasing``: the higher a level, the stronger is every operation; else some are as TensorFlow's were at first.
    Cubuk et al. 2019, arXiv 1909.13719, apply all of them, at one level.
    """

    magnitude: float = MOST_LEVEL
    deviation: float = 0.0
    most: float = MOST_LEVEL
    layers: int = 2
    probability: float = 0.5
    increasing: bool = False

    @classmethod
    def of(cls, text: str) -> "RandAugment":
        """That of a text as ``rand-m9-mstd0.5-inc1``, the form of ``Recipe.policy``."""
        found = {key: float(value) for key, value in re.findall(r"-([a-z]+)([0-9.]+)", text)}
        fields = {"m": "magnitude", "mstd": "deviation", "mmax": "most", "p": "probability"}
        known = {fields[key]: value for key, value in found.items() if key in fields}
        return cls(**known, layers=int(found.get("n", 2)), increasing=bool(found.get("inc", 0)))

    def __call__(self, images: torch.Tensor, fill: Sequence[float]) -> torch.Tensor:
        operations = INCREASING if self.increasing else PLAIN
        size = len(images), self.layers
        chosen = torch.randint(len(operations), size).tolist()
        applied, turned = ((torch.rand(size) < share).tolist() for share in (self.probability, 0.5))
        levels = self._levels(size)
        changed = []
        for index, image in enumerate(images):
            for layer in range(self.layers):
                if applied[index][layer]:
                    sign = -1.0 if turned[index][layer] else 1.0
                    image = operations[chosen[index][layer]](image, levels[index][layer], sign, fill)
            changed.append(image)
        return torch.stack(changed)

    def _levels(self, size: tuple[int, int]) -> list[list[float]]:
        """As shares of the operations' ranges."""
        if self.deviation > UNIFORM:
            levels = self.magnitude * torch.rand(size)
        else:
            levels = self.magnitude + self.deviation * torch.randn(size)
        found: list[list[float]] = (levels.clamp(0, self.most) / MOST_LEVEL).tolist()
        return found


Operation = Callable[[torch.Tensor, float, float, Sequence[float]], torch.Tensor]  # image, level, sign, fill


def _moved(image: torch.Tensor, fill: Sequence[float], shift: Sequence[float], shear: Sequence[float]) -> torch.Tensor:
    """Moved by pixels to the left and up, sheared around the first pixel; as PIL's affine transform."""
    degrees = [math.degrees(math.atan(each)) for each in shear]
    moved: torch.Tensor = functional.affine(
        image,
        angle=0.0,
        translate=[-each for each in shift],
        scale=1.0,
        shear=degrees,
        interpolation=InterpolationMode.BILINEAR,
        fill=list(fill),
        center=[0.0, 0.0],
    )
    return moved


def _rotated(image: torch.Tensor, level: float, sign: float, fill: Sequence[float]) -> torch.Tensor:
    turned: torch.Tensor = functional.rotate(
        image, sign * level * 30.0, interpolation=InterpolationMode.BILINEAR, fill=list(fill)
    )
    return turned


def _posterized(image: torch.Tensor, bits: int) -> torch.Tensor:
    return image if bits >= 8 else functional.posterize(image, max(bits, 0))


def _solarized(image: torch.Tensor, threshold: int) -> torch.Tensor:
    return image if threshold > MOST_BYTE else functional.solarize(image, max(threshold, 0))


def _brightened_where_dark(image: torch.Tensor, level: float) -> torch.Tensor:
    more = min(128, int(level * 110))
    return torch.where(image < 128, image + more, image)  # at most 255


def _factor(level: float, sign: float) -> float:
    return max(0.1, 1.0 + sign * 0.9 * level)


ALIKE: list[Operation] = [
    lambda image, level, sign, fill: functional.autocontrast(image),
    lambda image, level, sign, fill: functional.equalize(image),
    lambda image, level, sign, fill: functional.invert(image),
    _rotated,
    lambda image, level, sign, fill: _brightened_where_dark(image, level),
    lambda image, level, sign, fill: _moved(image, fill, [0.0, 0.0], [sign * level * 0.3, 0.0]),
    lambda image, level, sign, fill: _moved(image, fill, [0.0, 0.0], [0.0, sign * level * 0.3]),
    lambda image, level, sign, fill: _moved(image, fill, [sign * level * 0.45 * image.shape[-1], 0.0], [0.0, 0.0]),
    lambda image, level, sign, fill: _moved(image, fill, [0.0, sign * level * 0.45 * image.shape[-2]], [0.0, 0.0]),
]
ADJUST = (
    functional.adjust_saturation,
    functional.adjust_contrast,
    functional.adjust_brightness,
    functional.adjust_sharpness,
)
INCREASING: list[Operation] = [
    *ALIKE,
    lambda image, level, sign, fill: _posterized(image, 4 - int(level * 4)),
    lambda image, level, sign, fill: _solarized(image, 256 - int(level * 256)),
    *(lambda image, level, sign, fill, adjust=adjust: adjust(image, _factor(level, sign)) for adjust in ADJUST),
]
PLAIN: list[Operation] = [
    *ALIKE,
    lambda image, level, sign, fill: _posterized(image, int(level * 4)),
    lambda image, level, sign, fill: _solarized(image, int(level * 256)),
    *(lambda image, level, sign, fill, adjust=adjust: adjust(image, 0.1 + 1.8 * level) for adjust in ADJUST),
]
