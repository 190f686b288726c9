"""Batch augmentation against one image at a time."""

import pytest
import torch
import torch.nn.functional as F

from nas_core.base.errors import DataError
from nas_core.workloads.images.augmentation import augmented, cut_out, flipped, resized_crop, shifted
from nas_core.workloads.images.policies import POLICIES, operated
from nas_core.workloads.part_draws import PartGenerator


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


def test_a_resized_crop_enlarges_a_part():
    """Of a ramp from left to right, and one from top to bottom, it makes less steep ones of its own slopes."""
    ramp = torch.arange(16.0).repeat(16, 1)
    images = torch.stack([ramp, ramp.T]).repeat(50, 1, 1, 1)
    crops = resized_crop(images, generator())
    width, height = (crops[:, 0].diff(dim=2)[:, 4:-4, 4:-4], crops[:, 1].diff(dim=1)[:, 4:-4, 4:-4])
    for slope in (width, height):
        assert torch.allclose(slope, slope[:, :1, :1].expand_as(slope), atol=1e-4)
    width, height = width[:, 0, 0], height[:, 0, 0]
    area, aspect = width * height, width / height
    assert area.min() >= 0.08 - 1e-4
    assert area.max() <= 1 + 1e-4
    assert ((aspect > 0.74) & (aspect < 1.34)).all()
    assert area.std() > 0.2
    assert crops.min() >= 0
    assert crops.max() <= 15


@pytest.mark.parametrize("nearest", [False, True])
def test_a_resized_crop_is_torchs_of_the_same_box(nearest):
    """Against torch's own grid of an affine map, one image at a time."""
    images = torch.rand(6, 2, 13, 13, generator=generator(1))
    area, aspect, *middles = torch.rand(4, 6, generator=generator())
    for number, result in enumerate(resized_crop(images, generator(), nearest)):
        root = ((4 / 3) ** (aspect[number] - 0.5), (4 / 3) ** (0.5 - aspect[number]))
        sizes = [min(1.0, float((0.08 + 0.92 * area[number]).sqrt() * each)) for each in root]
        theta = torch.zeros(1, 2, 3)
        for axis, (size, middle) in enumerate(zip(sizes, middles, strict=True)):
            theta[0, axis, axis], theta[0, axis, 2] = size, (1 - size) * (2 * middle[number] - 1)
        grid = F.affine_grid(theta, [1, 2, 13, 13], align_corners=False)
        mode = "nearest" if nearest else "bilinear"
        image = images[number : number + 1]
        expected = F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=False)
        assert torch.allclose(result, expected[0], atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", [*POLICIES, "rand-m9-mstd0.5-inc1", "rand-m9-n3-p1"])
def test_policies_change_each_image_in_its_own_way(policy, channels):
    image = torch.randint(0, 256, (1, channels, 16, 16), dtype=torch.uint8, generator=generator())
    images = image.repeat(12, 1, 1, 1)
    results = []
    with torch.random.fork_rng([]):
        for _ in range(2):
            torch.manual_seed(3)
            results.append(operated(images, policy, 15))
    assert torch.equal(*results)
    assert results[0].dtype == torch.uint8
    assert len({result.numpy().tobytes() for result in results[0]}) > 4
    assert torch.equal(images, image.repeat(12, 1, 1, 1))


def test_operations_are_for_bytes():
    with pytest.raises(DataError, match=r"recipe\.policy"):
        operated(torch.rand(2, 3, 8, 8), "rand-augment", 9)


@pytest.mark.parametrize("kind", ["none", "crop", "crop-flip", "crop-flip-cutout", "resized-crop-flip"])
def test_every_kind_keeps_shape_and_input(images, kind):
    before = images.clone()
    assert augmented(images, kind, generator()).shape == images.shape
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", ["crop-flip-cutout", "resized-crop-flip"])
def test_a_part_of_a_batch_is_changed_as_in_the_whole(kind):
    images, rows = torch.rand(9, 3, 16, 16), torch.tensor([0, 1, 7, 8])
    whole = augmented(images, kind, torch.Generator().manual_seed(5))
    generator = PartGenerator.of(torch.device("cpu"), 9, rows, seed=5, own_seed=6)
    state = generator.get_state()
    assert torch.equal(augmented(images[rows], kind, generator), whole[rows])
    generator.set_state(state)  # as for maps that change with their images
    assert torch.equal(augmented(images[rows], kind, generator), whole[rows])
    own = torch.rand(2, generator=generator)  # of an augmentation that knows only what it is given
    assert torch.equal(own, torch.rand(2, generator=torch.Generator().manual_seed(6)))
