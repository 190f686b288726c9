"""An image for an image: PSNR as it is defined, pixels that do not count."""

import math

import pytest
import torch

from nas_core.workloads.image_to_image import IMAGE_TO_IMAGE, PictureTargets, counted

TARGETS = PictureTargets(names=("gray",))


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 256, (4, 1, 8, 8), generator=generator).byte()
    return (targets.float() / 255 + 0.1 * torch.randn(targets.shape, generator=generator)), targets


def test_psnr_is_the_mean_over_the_images(pair):
    outputs, targets = pair
    errors = [float(((o.clamp(0, 1) - t / 255.0) ** 2).mean()) for o, t in zip(outputs, targets, strict=True)]
    expected = sum(-10 * math.log10(error) for error in errors) / len(errors)
    assert IMAGE_TO_IMAGE["psnr"].of(outputs, targets) == pytest.approx(expected, rel=1e-5)
    assert IMAGE_TO_IMAGE["rmse"].of(outputs, targets) == pytest.approx(math.sqrt(sum(errors) / 4), rel=1e-5)
    assert IMAGE_TO_IMAGE["psnr"].of(counted(outputs, targets), targets) == pytest.approx(expected, rel=1e-5)


def test_equal_images_are_as_good_as_is_said(pair):
    targets = pair[1]
    assert IMAGE_TO_IMAGE["psnr"].of(targets / 255.0, targets) == pytest.approx(100)


def test_pixels_that_came_in_do_not_count(pair):
    outputs, targets = pair
    moved = TARGETS.as_maps(targets)
    moved[:, :, :4] = 0
    wanted = TARGETS.of_maps(moved)
    assert wanted[:, :, :4].isnan().all()
    kept = outputs[:, :, 4:], targets[:, :, 4:]
    assert float(TARGETS.loss(outputs, wanted)) == pytest.approx(float(TARGETS.loss(*kept)), rel=1e-5)
