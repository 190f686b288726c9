"""Augmentation policies: operations drawn for each image, by torchvision's transforms, on stored uint8 images.

They draw from torch's global generator, which a training seeds for each step.
"""

from collections.abc import Callable

import torch

from nas_core.base.errors import DataError
from nas_core.base.torchvision_compat import define_missing_operators

define_missing_operators()

from torchvision.transforms import v2  # noqa: E402

POLICIES: dict[str, Callable[[int], v2.Transform]] = {
    "rand-augment": lambda magnitude: v2.RandAugment(magnitude=magnitude),
    "trivial-augment": lambda _: v2.TrivialAugmentWide(),
    "auto-augment-imagenet": lambda _: v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET),
    "auto-augment-cifar10": lambda _: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
    "auto-augment-svhn": lambda _: v2.AutoAugment(v2.AutoAugmentPolicy.SVHN),
}


def operated(images: torch.Tensor, policy: str, magnitude: int) -> torch.Tensor:
    """A changed copy of the B C H W uint8 images, each by operations of its own.

    ``magnitude`` (0 to 30) is RandAugment's.

    Raises:
        DataError: for images that are not stored as bytes, or neither gray nor colour.
    """
    if images.dtype != torch.uint8 or images.shape[1] not in (1, 3):
        found = f"images of {images.shape[1]} channels as {images.dtype}"
        raise DataError("recipe.policy", found, "gray or colour images of bytes for these data, or none")
    operate = POLICIES[policy](magnitude)
    return torch.stack([operate(image) for image in images])
