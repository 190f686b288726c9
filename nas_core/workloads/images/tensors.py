"""What every loader ends in: uint8 images in memory, their splits and their normalisation.

N = images, C = channels, H = W = the side in pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

GRAY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R 601 luma, what PIL uses for RGB -> L


@dataclass(frozen=True, kw_only=True, slots=True)
class RawImages:
    """One split as it lies on disk: ``images_NHWC`` uint8, ``labels_N`` int64."""

    images_NHWC: np.ndarray
    labels_N: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalisation:
    """Mean and standard deviation per channel of the training images, as fractions of full brightness."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, images: "torch.Tensor") -> "torch.Tensor":
        """Float images with mean 0 and deviation 1 from uint8 N C H W images; on their device."""
        import torch

        scale, shift = _scale_and_shift(self, images.device)
        return torch.addcmul(shift, images.float(), scale)


@lru_cache(maxsize=64)
def _scale_and_shift(normalisation: Normalisation, device: "torch.device") -> "tuple[torch.Tensor, torch.Tensor]":
    """Factor and summand of pixels, 1 C 1 1; kept on the device, since sending them at every step would wait for it."""
    import torch

    with torch.inference_mode(False):  # the first caller may rate networks, the next one train
        std = torch.tensor(normalisation.std, dtype=torch.float64)
        mean = torch.tensor(normalisation.mean, dtype=torch.float64)
        scale, shift = (1 / (255 * std)).float(), (-mean / std).float()
        return scale.view(1, -1, 1, 1).to(device), shift.view(1, -1, 1, 1).to(device)


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """A data set at one resolution, uint8 N C H W with int64 labels, in main memory.

    ``train`` and ``validation`` are disjoint parts of the training split. The
    test images are not here: ``test()`` loads them, so nothing that scores
    networks can touch them by accident.
    """

    train_images: "torch.Tensor"
    train_labels: "torch.Tensor"
    validation_images: "torch.Tensor"
    validation_labels: "torch.Tensor"
    normalisation: Normalisation
    num_classes: int
    in_channels: int
    class_names: tuple[str, ...]
    load_test: Callable[[], "tuple[torch.Tensor, torch.Tensor]"] = field(repr=False)

    def test(self) -> "tuple[torch.Tensor, torch.Tensor]":
        """Images and labels of the test split, read now."""
        return self.load_test()


def to_tensors(raw: RawImages, resolution: int, in_channels: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """The split as uint8 N C H W and int64 labels, with the side and the channels that a space expects."""
    import torch

    images = torch.from_numpy(np.array(raw.images_NHWC.transpose(0, 3, 1, 2), order="C"))
    images = resized(with_channels(images, in_channels), resolution)
    return images.contiguous(), torch.from_numpy(raw.labels_N.astype(np.int64))


def with_channels(images: "torch.Tensor", in_channels: int) -> "torch.Tensor":
    """Gray images repeated over the channels, colour ones reduced to their luma; equal counts are left alone."""
    import torch

    channels = images.shape[1]
    if channels == in_channels:
        return images
    if channels == 1:
        return images.expand(-1, in_channels, -1, -1)
    assert (channels, in_channels) == (3, 1), f"no conversion from {channels} to {in_channels} channels"
    weights = torch.tensor(GRAY_WEIGHTS).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True).round().to(torch.uint8)


def resized(images: "torch.Tensor", resolution: int) -> "torch.Tensor":
    """Images of another side, bilinear with antialiasing and of the same type; themselves where nothing changes."""
    import torch.nn.functional as F

    if images.shape[-1] == resolution and images.shape[-2] == resolution:
        return images
    return F.interpolate(images, size=(resolution, resolution), mode="bilinear", antialias=True)


def normalisation_of(images: "torch.Tensor") -> Normalisation:
    """Per-channel mean and deviation of uint8 images; a constant channel gets deviation 1/255."""
    channels = range(images.shape[1])
    # One channel at a time: a float copy of the whole set would be four times its size.
    values = [images[:, channel].float() for channel in channels]
    mean = tuple(float(v.mean()) / 255 for v in values)
    std = tuple(max(float(v.std()), 1.0) / 255 for v in values)
    return Normalisation(mean=mean, std=std)
