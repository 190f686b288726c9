"""Batch augmentation against one image at a time."""

import pytest
import torch
import torch.nn.functional as F

from nas_core.workloads.images.augmentation import augmented, cut_out, flipped, shifted


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.rand(20, 3, 16, 16, generator=generator(1)) + 1


def test_shift_moves_each_image_by_its_own_offset(images):
    moved = shifted(images, generator())
    offsets = torch.randint(0, 5, (2, 20, 1), generator=generator())[..., 0]
    for image, result, row, column in zip(images, moved, *offsets.tolist(), strict=True):
        expected = F.pad(image, (2, 2, 2, 2))[:, row : row + 16, column : column + 16]
        assert torch.equal(result, expected)


def test_flip_mirrors_some(images):
    result = flipped(images, generator())
    kept = [torch.equal(a, b) for a, b in zip(images, result, strict=True)]
    mirrored = [torch.equal(a.flip(-1), b) for a, b in zip(images, result, strict=True)]
    assert all(a != b for a, b in zip(kept, mirrored, strict=True))
    assert 0 < sum(kept) < 20


def test_cutout_blanks_a_square_of_a_quarter_side_at_most(images):
    blank = (cut_out(images, generator()) == 0).all(1).sum((1, 2))
    assert int(blank.max()) <= 16
    assert int(blank.min()) >= 1


@pytest.mark.parametrize("kind", ["none", "crop", "crop-flip", "crop-flip-cutout"])
def test_every_kind_keeps_shape_and_input(images, kind):
    before = images.clone()
    assert augmented(images, kind, generator()).shape == images.shape
    assert torch.equal(images, before)
