"""What reading a set of images ends in: uint8 images in memory, with the side and channels asked for.

N = images, C = channels, H = W = the side in pixels.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas_core.base.errors import DataError

if TYPE_CHECKING:
    import torch

GRAY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R 601 luma, what PIL uses for RGB -> L


@dataclass(frozen=True, kw_only=True, slots=True)
class RawImages:
    """One split as it lies on disk: ``images_NHWC`` uint8, ``labels_N`` int64."""

    images_NHWC: np.ndarray
    labels_N: np.ndarray


def to_tensors(raw: RawImages, resolution: int, in_channels: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """The split as uint8 N C H W and int64 labels, with the side and the channels that a space expects."""
    import torch

    images = torch.from_numpy(np.array(raw.images_NHWC.transpose(0, 3, 1, 2), order="C"))
    images = resized(with_channels(images, in_channels), resolution)
    return images.contiguous(), torch.from_numpy(raw.labels_N.astype(np.int64))


def with_channels(images: "torch.Tensor", in_channels: int) -> "torch.Tensor":
    """Gray images repeated over the channels, colour ones reduced to their luma; equal counts are left alone.

    Raises:
        DataError: for other numbers of channels.
    """
    import torch

    channels = images.shape[1]
    if channels == in_channels:
        return images
    if channels == 1:
        return images.expand(-1, in_channels, -1, -1)
    if (channels, in_channels) != (3, 1):
        raise DataError("input of the network", f"{in_channels} channels", f"{channels}, as the images have")
    gray = (images * torch.tensor(GRAY_WEIGHTS).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return gray.round().to(torch.uint8) if images.dtype == torch.uint8 else gray


def resized(images: "torch.Tensor", resolution: int) -> "torch.Tensor":
    """Images of another side, bilinear with antialiasing and of the same type; themselves where nothing changes.

    So are inputs that are no images: they have one size.
    """
    import torch.nn.functional as F

    if images.ndim != 4 or images.shape[-2:] == (resolution, resolution):
        return images
    return F.interpolate(images, size=(resolution, resolution), mode="bilinear", antialias=True)
