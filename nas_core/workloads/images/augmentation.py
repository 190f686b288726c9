"""Augmentation of a whole batch at once, on the device the images are on.

B = images of a batch, C = channels, H = W = side in pixels. Works on normalised
float images, so the zeros that come in at the borders are the mean colour.
"""

import math

import torch
import torch.nn.functional as F

from nas_core.workloads.part_draws import for_batch

SHIFT_SHARE = 8  # crop shifts by up to side / 8 pixels
LEAST_AREA, MOST_ASPECT = 0.08, 4 / 3  # of a resized crop
CUTOUT_SHARE = 4  # cutout blanks a square of side / 4 pixels


def augmented(images: torch.Tensor, kind: str, generator: torch.Generator, nearest: bool = False) -> torch.Tensor:
    """A changed copy of the B C H W images; ``kind`` as in ``Recipe.augment``. No host synchronisation.

    ``nearest``: values are numbers of something, and are not mixed.
    """
    if kind == "none":
        return images
    crops = kind.startswith("resized-crop")
    images = resized_crop(images, generator, nearest) if crops else shifted(images, generator)
    if "flip" in kind:
        images = flipped(images, generator)
    if "cutout" in kind:
        images = cut_out(images, generator)
    return images


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image moved by a random number of pixels in both directions, zeros coming in."""
    batch, _, side, _ = images.shape
    most = max(1, side // SHIFT_SHARE)
    rows_B, columns_B = _integers(0, 2 * most + 1, images, generator)[:, :, 0]
    # Views of every place to cut from: whole images are copied, a quarter of the time of picking pixels.
    places = F.pad(images, (most,) * 4).unfold(2, side, 1).unfold(3, side, 1)
    return places[torch.arange(batch, device=images.device), :, rows_B, columns_B]


def resized_crop(images: torch.Tensor, generator: torch.Generator, nearest: bool = False) -> torch.Tensor:
    """A random part of each image at the image's size (Szegedy et al. 2015): 8 to 100 % of its area, 3:4 to 4:3.

    Bilinear. A part that would not fit is cut to the image, where torchvision draws once more.
    """
    draws_4B = _shares(4, images, generator)
    area_B = LEAST_AREA + (1 - LEAST_AREA) * draws_4B[0]
    root_B = torch.exp(math.log(MOST_ASPECT) * (draws_4B[1] - 0.5))  # of the aspect, from root 3/4 to root 4/3
    size_2B = (area_B.sqrt() * torch.stack([root_B, 1 / root_B])).clamp(max=1)
    middle_2B = (1 - size_2B) * (2 * draws_4B[2:] - 1)  # of the part, in coordinates from -1 to 1
    side = images.shape[-1]
    line_W = (2 * torch.arange(side, device=images.device) + 1) / side - 1  # middles of pixels
    columns_BW, rows_BH = middle_2B[:, :, None] + size_2B[:, :, None] * line_W
    # As `F.affine_grid`, which takes longer than all the rest, of what is no rotation.
    grid_BHW2 = torch.stack(
        [columns_BW[:, None, :].expand(-1, side, -1), rows_BH[:, :, None].expand(-1, -1, side)], dim=-1
    )
    mode = "nearest" if nearest else "bilinear"
    return F.grid_sample(images, grid_BHW2, mode=mode, padding_mode="border", align_corners=False)


def flipped(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image mirrored left to right with probability a half."""
    flip_B = _shares(1, images, generator)[0] < 0.5
    return torch.where(flip_B[:, None, None, None], images.flip(-1), images)


def cut_out(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random square of each image blanked (DeVries and Taylor, 2017)."""
    side = images.shape[-1]
    size = max(1, side // CUTOUT_SHARE)
    start_2B = _integers(1 - size, side, images, generator)
    line_1H = torch.arange(side, device=images.device)[None]
    inside_2BH = (line_1H >= start_2B) & (line_1H < start_2B + size)
    blank = inside_2BH[0][:, None, :, None] & inside_2BH[1][:, None, None, :]
    return images.masked_fill(blank, 0.0)


def _shares(count: int, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Uniform numbers from 0 to 1, count B."""

    def draw(batch: int, source: torch.Generator) -> torch.Tensor:
        return torch.rand(count, batch, generator=source, device=images.device)

    return for_batch(draw, len(images), generator)


def _integers(low: int, high: int, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Two uniform integers from low to below high for each image, 2 B 1."""

    def draw(batch: int, source: torch.Generator) -> torch.Tensor:
        return torch.randint(low, high, (2, batch), generator=source, device=images.device)

    return for_batch(draw, len(images), generator)[:, :, None]
