"""Images as people have them: turned, transparent, of palettes, of print colours, of 16 bits, animated, odd shapes."""

import io
import itertools
import os

import numpy as np
import pytest
from PIL import Image

from nas_core.workloads.images.decoding import Facts, Fitting, decoded, facts_of, quiet, suffixes

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def shown(data, side: int = 8, channels: int = 3, **fitting) -> np.ndarray:
    with quiet():
        return decoded(data, side, channels, Fitting(**fitting))


def halves(mode: str, left, right, size: int = 8) -> Image.Image:
    image = Image.new(mode, (size, size), left)
    image.paste(right, (size // 2, 0, size, size))
    return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_upright(kind, orientation):
    """Pixels as a viewer shows them: those of Pillow's own transposition, whatever the format."""
    rng = np.random.default_rng(orientation)
    pixels = np.kron(rng.integers(0, 256, (2, 2, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    found = shown(encoded(image, kind, exif=exif, **options), side=32)
    turns = {1: 0, 3: 2, 6: 3, 8: 1, 2: 0, 4: 2, 5: 3, 7: 1}
    wanted = np.rot90(pixels[:, ::-1] if orientation in (2, 4, 5, 7) else pixels, turns[orientation])
    if orientation in (5, 7):
        wanted = np.rot90(pixels, turns[orientation])[:, ::-1]
    assert np.abs(found[4::8, 4::8].astype(int) - wanted[4::8, 4::8]).max() < 12


def test_sides_are_those_of_the_stored_image_whatever_its_turn():
    exif = Image.Exif()
    exif[0x0112] = 6
    facts = facts_of(encoded(Image.new("RGB", (20, 50)), "JPEG", exif=exif))
    assert facts == Facts(channels=3, shorter=20, longer=50)


@pytest.mark.parametrize(("background", "colour"), [("white", WHITE), ("#0000ff", BLUE)])
def test_transparency_is_on_the_background(background, colour):
    data = encoded(halves("RGBA", (255, 0, 0, 255), (0, 255, 0, 0)))
    found = shown(data, background=background)
    assert tuple(found[0, 0]) == RED
    assert tuple(found[0, 7]) == colour
    assert facts_of(data).transparent


def test_half_transparent_is_mixed():
    found = shown(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 128))), background="black")
    assert tuple(found[0, 0]) == (128, 0, 0)


@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_is_shown_in_its_colours(transparent):
    image = halves("P", 1, 2)
    image.putpalette([9, 9, 9, *RED, *BLUE])
    found = shown(encoded(image, transparency=2) if transparent else encoded(image))
    assert tuple(found[0, 0]) == RED
    assert tuple(found[0, 7]) == (WHITE if transparent else BLUE)


def test_print_colours():
    found = shown(encoded(halves("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)), "TIFF"))
    assert tuple(found[0, 0]) == RED
    assert tuple(found[0, 7]) == BLUE


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_gray_stays_gray(mode):
    facts = facts_of(encoded(Image.new(mode, (8, 8))))
    assert (facts.channels, facts.transparent) == (1, mode == "LA")


def test_gray_with_transparency_is_on_the_background():
    found = shown(encoded(halves("LA", (0, 255), (0, 0))), channels=1)
    assert [found[0, 0, 0], found[0, 7, 0]] == [0, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_keep_the_upper_eight(kind):
    ramp = np.arange(0, 65_536, 1024, dtype=np.uint16).reshape(8, 8)
    assert (shown(encoded(Image.fromarray(ramp), kind), channels=1)[..., 0] == ramp >> 8).all()


@pytest.mark.parametrize(
    "image",
    [Image.new("F", (8, 8), 0.5), Image.fromarray(np.full((8, 8), 70_000, np.int32))],
    ids=["floats", "32 bits"],
)
def test_other_depths_are_refused_at_once(image):
    with pytest.raises(ValueError, match="images of 8 or 16 bits are read"):
        facts_of(encoded(image, "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_counts(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    found = shown(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert np.abs(found[0, 0].astype(int) - RED).max() < 3


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_squares_are_timms(fit, interpolation):
    from nas_core.base.torchvision_compat import define_missing_operators

    define_missing_operators()
    from timm.data.transforms_factory import transforms_imagenet_eval

    rng, mode = np.random.default_rng(0), {"crop": "center", "pad": "border", "squash": "squash"}[fit]
    for size, side, crop_pct in itertools.product([(40, 30), (31, 77), (16, 16), (200, 90)], [16, 33], [1.0, 0.875]):
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
        theirs = transforms_imagenet_eval(
            side, crop_pct, mode, interpolation=interpolation, mean=(1, 1, 1), use_prefetcher=True
        )
        ours = shown(encoded(image), side, fit=fit, interpolation=interpolation, crop_pct=crop_pct)
        assert (np.asarray(theirs(image)).transpose(1, 2, 0) == ours).all()


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (1, 1)])
def test_extreme_shapes_take_no_more_memory_than_their_middle(size):
    assert (shown(encoded(Image.new("RGB", size, RED)), side=224) == RED).all()


def test_what_a_padded_image_is_filled_with():
    found = shown(encoded(Image.new("RGB", (8, 4), RED)), fit="pad", background="blue")
    assert [tuple(found[row, 4]) for row in (0, 1, 2, 5, 6, 7)] == [BLUE, BLUE, RED, RED, BLUE, BLUE]


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 13), (np.uint16, 4)])
def test_arrays_have_any_number_of_channels(tmp_path, dtype, channels):
    array = np.random.default_rng(0).integers(0, 256, (8, 8, channels)).astype(dtype) * dtype(1)
    array = array * dtype(256) if dtype == np.uint16 else array
    np.save(tmp_path / "image.npy", array)
    assert facts_of(tmp_path / "image.npy") == Facts(channels=channels, shorter=8, longer=8)
    found = shown(tmp_path / "image.npy", channels=channels)
    assert (found == (array >> 8 if dtype == np.uint16 else array)).all()


@pytest.mark.parametrize("array", [np.zeros((8, 8)), np.zeros((2, 2, 2, 2), np.uint8), np.array([{}], object)])
def test_other_arrays_are_refused(tmp_path, array):
    np.save(tmp_path / "image.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=r"."):
        facts_of(tmp_path / "image.npy")


@pytest.mark.parametrize("progressive", [False, True])
def test_every_cut_of_a_jpeg_that_cannot_be_shown_is_noticed(progressive):
    """The check reads at an eighth of the size; it must not pass what reading in full refuses."""
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 256, (64, 48, 3), np.uint8)), "JPEG", progressive=progressive)
    for length in range(0, len(data), 7):
        outcomes = []
        for read in (facts_of, shown):
            try:
                read(data[:length])
                outcomes.append(True)
            except Exception:
                outcomes.append(False)
        assert outcomes[0] == outcomes[1]
        assert not outcomes[0] or length > len(data) - 8


def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="regular"):
        facts_of(tmp_path / "pipe.png")


def test_suffixes_are_those_that_pillow_reads():
    assert {".jpg", ".jfif", ".jpe", ".png", ".webp", ".tif", ".bmp", ".gif", ".ppm", ".jp2", ".npy"} <= suffixes()
    assert not {".eps", ".pdf", ".mpg", ".h5", ".txt", ""} & suffixes()
