"""timm's RandAugment: each operation beside timm's own, on PIL images, and how often it is applied."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)
from nas_core.workloads.images import policies
from nas_core.workloads.images.policies import RandAugment, operated

from timm.data import auto_augment  # isort: skip

ALIKE = ["AutoContrast", "Equalize", "Invert", "Rotate", "SolarizeAdd", "ShearX", "ShearY"]
ALIKE += ["TranslateXRel", "TranslateYRel"]
ADJUSTED = ["Color", "Contrast", "Brightness", "Sharpness"]
NAMES = {
    "plain": [*ALIKE, "Posterize", "Solarize", *ADJUSTED],
    "increasing": [*ALIKE, "PosterizeIncreasing", "SolarizeIncreasing", *(f"{name}Increasing" for name in ADJUSTED)],
}
MOVES = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}
AT_THE_BORDER = 0.06  # share of the pixels that two libraries mix with what lies outside in their own way


@pytest.fixture(scope="module")
def image():
    coarse = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    return F.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 255).round().to(torch.uint8)[0]


@pytest.mark.parametrize("kind", NAMES)
def test_every_operation_is_timms(image, kind, monkeypatch):
    operations = {"plain": policies.PLAIN, "increasing": policies.INCREASING}[kind]
    assert sorted(NAMES[kind]) == sorted(
        auto_augment._RAND_INCREASING_TRANSFORMS if kind == "increasing" else auto_augment._RAND_TRANSFORMS
    )
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy())
    hparams = {"img_mean": (90, 128, 200), "interpolation": Image.Resampling.BILINEAR}
    for operation, name in zip(operations, NAMES[kind], strict=True):
        for level in (3.0, 7.0, 9.5):
            for sign in (1.0, -1.0):
                monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value, sign=sign: sign * value)
                theirs = auto_augment.AugmentOp(name, prob=1.0, magnitude=level, hparams=hparams)(pillow)
                ours = operation(image, level / 10, sign, [90.0, 128.0, 200.0]).permute(1, 2, 0).numpy()
                apart = np.abs(np.asarray(theirs).astype(int) - ours)
                far = (apart > 1).mean()
                assert far <= (AT_THE_BORDER if name in MOVES else 0), (name, level, sign, far)


def test_levels_that_leave_nothing_or_all(image):
    """Where timm's posterize ends in an error of Pillow's, and torchvision's solarize in one of its own."""
    posterize, solarize = policies.INCREASING[9:11]
    assert not posterize(image, 1.0, 1.0, []).any()
    assert torch.equal(solarize(image, 0.0, 1.0, []), image)
    assert torch.equal(policies.PLAIN[10](image, 1.0, 1.0, []), image)


def test_a_half_of_the_operations_is_applied(image, monkeypatch):
    counted = [lambda image, level, sign, fill: image + 1] * 15
    monkeypatch.setattr(policies, "INCREASING", counted)
    images = torch.zeros(4000, 1, 2, 2, dtype=torch.uint8)
    torch.manual_seed(0)
    applied = operated(images, "rand-m9-mstd0.5-inc1", 9)[:, 0, 0, 0]
    shares = [(applied == number).float().mean().item() for number in (0, 1, 2)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert (operated(images, "rand-m9-n3-p1-inc1", 9) == 3).all()


def test_levels_are_drawn():
    torch.manual_seed(0)
    levels = torch.tensor(RandAugment.of("rand-m9-mstd0.5")._levels((4000, 2)))
    assert 10 * levels.mean().item() == pytest.approx(9, abs=0.05)
    assert (10 * levels.std().item(), levels.max().item()) == (pytest.approx(0.5, abs=0.02), 1.0)
    assert torch.tensor(RandAugment.of("rand-m6")._levels((9, 2))).unique().tolist() == pytest.approx([0.6])
    even = torch.tensor(RandAugment.of("rand-m8-mstd101")._levels((4000, 2)))
    assert (even.min().item(), even.max().item()) == (pytest.approx(0, abs=0.01), pytest.approx(0.8, abs=0.01))


def test_what_comes_in_is_the_mean(image):
    images = image[None].repeat(60, 1, 1, 1)
    moved = policies.ALIKE[7:8]  # to the left or right
    mean = (0.2, 0.5, 0.9)
    fill = torch.tensor([51, 128, 230], dtype=torch.uint8)
    torch.manual_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policies, "INCREASING", moved)
        changed = operated(images, "rand-m9-p1-inc1-n1", 9, mean)
    columns = [(each == fill[:, None, None]).all(dim=(0, 1)) for each in changed]
    assert all(found.any() for found in columns)
