"""One encoded image, decoded: upright, 8 bits, opaque, with the channels and the side asked for. No torch.

An image is a file or its bytes, in a format that Pillow reads, one that it
opened already, or a ``.npy``
array of H W or H W C unsigned integers with any number of channels. Of an
animation the first frame counts. C = channels, H W = pixels.
"""

import hashlib
import io
import math
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeGuard

import numpy as np
from PIL import Image, ImageOps

Encoded = Path | bytes | Image.Image
Fit = Literal["crop", "pad", "squash"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]

ARRAY_SUFFIX, ARRAY_MAGIC = ".npy", b"\x93NUMPY"
# EPS starts a program; the others are names without a reader of their own
FIRST = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # what most images are, told by their first bytes
NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
MOST_CHANNELS = 1024
NOTES = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}  # what of an image may tell how it is held
ORIENTATION, LYING = 0x0112, 5  # of EXIF; from this value on an image lies on its side
MOST_MASK_VALUE = 65_535
WITH_ALPHA = (2, 4)  # channels of an image whose last one says how much of a pixel is seen
MOST_ENLARGED = 64  # images are scaled whole to so many times what is kept of them
GRAY_MODES = {"1", "L", "LA", "La"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What an image is: channels (1 gray, 3 colour, else those of an array), pixels of its sides, transparency.

    ``digest`` is the hash of its bytes. ``values`` says of an image with a map of
    targets what that holds, as numbers with spaces between them.
    """

    channels: int
    shorter: int
    longer: int
    transparent: bool = False
    digest: str = ""
    values: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitting:
    """How an image becomes a square: timm's evaluation transform, with its interpolations and crop percentage.

    ``crop`` scales the shorter side to ``side / crop_pct`` and cuts out the
    middle, ``pad`` scales the longer side and fills up with the background,
    ``squash`` scales both sides.
    """

    fit: Fit = "crop"
    interpolation: Interpolation = "bilinear"
    crop_pct: float = 1.0
    background: str = "white"


@cache
def formats() -> tuple[str, ...]:
    """The formats that are read, all that Pillow reads by itself, in the order in which they are tried."""
    Image.init()
    known = set(Image.OPEN) - NOT_READ
    return tuple(sorted(known, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name)))


@cache
def suffixes() -> frozenset[str]:
    """How the names of image files end, in lower case."""
    known = set(formats())
    return frozenset(end for end, name in Image.registered_extensions().items() if name in known) | {
        ".mpo",
        ARRAY_SUFFIX,
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Without Pillow's warnings on odd files: what cannot be read is an error. Around threads, not inside them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def facts_of(encoded: Encoded) -> Facts:
    """What the image is, known from reading all of it.

    Raises:
        Exception: whatever is wrong with the file; Pillow raises nearly anything.
    """
    if _is_array(encoded):
        height, width, channels = _array(encoded).shape
        return Facts(channels=channels, shorter=min(height, width), longer=max(height, width))
    with _opened(encoded) as image:
        sides = image.size
        # A JPEG's smallest scale reads every byte, and spares most of the arithmetic.
        image.draft(None, (1, 1))
        shown, transparent = _shown(image, "white")
        bands = len(shown.getbands())
        return Facts(channels=bands, shorter=min(sides), longer=max(sides), transparent=transparent)


def upright_size(encoded: Encoded) -> tuple[int, int]:
    """Width and height as the image is seen; raises as ``facts_of``."""
    if _is_array(encoded):
        height, width, _ = _array(encoded).shape
        return width, height
    with _opened(encoded) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(ORIENTATION, 1) >= LYING else (width, height)


def mask_of(encoded: Encoded) -> np.ndarray:
    """The values of a mask, H W: its numbers as stored, also of a palette, whatever colours they are shown in.

    Raises:
        Exception: whatever is wrong with the file, or a mask whose channels differ.
    """
    if _is_array(encoded):
        found = _mask_array(encoded)
    else:
        with _opened(encoded) as image:
            found = np.asarray(image)
    if found.dtype == bool:
        found = found.astype(np.uint8)
    if found.ndim == 3:
        if found.shape[2] in WITH_ALPHA:
            found = found[..., :-1]
        if (found[..., :3] != found[..., :1]).any():
            raise ValueError("a mask in colour; masks of one channel are read, one value per class")
        found = found[..., 0]
    if found.ndim != 2 or found.dtype.kind not in "ui" or found.min() < 0 or found.max() > MOST_MASK_VALUE:
        raise ValueError(f"a mask of {found.dtype}; whole numbers from 0 to {MOST_MASK_VALUE:,} are read")
    return found


def _mask_array(encoded: Path | bytes) -> np.ndarray:
    source = _regular(encoded) if isinstance(encoded, Path) else io.BytesIO(encoded)
    array: np.ndarray = np.load(source, allow_pickle=False)
    return array


def digest_of(encoded: Encoded) -> str:
    """Hash of an image's bytes, as they are stored; of an opened one that of its pixels."""
    if isinstance(encoded, Image.Image):
        data = f"{encoded.mode} {encoded.size}".encode() + encoded.tobytes()
    else:
        data = encoded if isinstance(encoded, bytes) else _regular(encoded).read_bytes()
    return hashlib.sha256(data).hexdigest()[:32]


def decoded(encoded: Encoded, side: int, channels: int, fitting: Fitting) -> np.ndarray:
    """The image as uint8 H W C of this side.

    Raises:
        Exception: whatever is wrong with the file.
    """
    if _is_array(encoded):
        array = _array(encoded)
        planes = [Image.fromarray(np.ascontiguousarray(array[..., band])) for band in range(array.shape[2])]
        fitted = [np.asarray(square(plane, side, fitting)) for plane in planes]
        return with_bands(np.stack(fitted, axis=-1), channels)
    with _opened(encoded) as image:
        shown, _ = _shown(image, fitting.background)
        found = np.asarray(square(shown, side, fitting))
    return with_bands(found if found.ndim == 3 else found[..., None], channels)


def with_bands(image_HWC: np.ndarray, channels: int) -> np.ndarray:
    """Gray repeated over the channels; raises ValueError where that is not enough."""
    if image_HWC.shape[2] not in (1, channels):
        raise ValueError(f"{image_HWC.shape[2]} channels where the set has {channels}")
    return np.broadcast_to(image_HWC, (*image_HWC.shape[:2], channels))


def square(image: Image.Image, side: int, fitting: Fitting) -> Image.Image:
    """The image, gray or colour of 8 bits, as a square; pixel for pixel timm's ``transforms_imagenet_eval``."""
    scale, (width, height) = math.floor(side / fitting.crop_pct), image.size
    if fitting.fit == "squash":
        new = scale, scale
    elif fitting.fit == "pad":
        ratio = max(width / scale, height / scale)
        new = max(1, round(width / ratio)), max(1, round(height / ratio))
    else:
        short = min(width, height)
        new = int(scale * width / short), int(scale * height / short)
    left, right = _middle(new[0], side)
    top, bottom = _middle(new[1], side)
    kept = right - left, bottom - top
    resample = Image.Resampling[fitting.interpolation.upper()]
    if new[0] * new[1] <= MOST_ENLARGED * side**2:
        middle = image if new == image.size else image.resize(new, resample)
        middle = middle if kept == new else middle.crop((left, top, right, bottom))
    else:  # the whole of 1 x 60,000 pixels would be gigabytes
        across, down = width / new[0], height / new[1]
        box = (left * across, top * down, min(right * across, width), min(bottom * down, height))
        middle = image.resize(kept, resample, box)
    if kept == (side, side):
        return middle
    whole = Image.new(middle.mode, (side, side), fitting.background)
    whole.paste(middle, ((side - kept[0]) // 2, (side - kept[1]) // 2))
    return whole


def _middle(length: int, side: int) -> tuple[int, int]:
    """From where to where the middle of a line reaches; all of one that is shorter than the side."""
    if length <= side:
        return 0, length
    start = round((length - side) / 2)
    return start, start + side


def _opened(encoded: Encoded) -> Image.Image:
    if isinstance(encoded, Image.Image):
        return encoded.copy()  # whoever reads it closes it
    return Image.open(_regular(encoded) if isinstance(encoded, Path) else io.BytesIO(encoded), formats=formats())


def _regular(path: Path) -> Path:
    """The path; opening a pipe would wait for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")
    return path


def _shown(image: Image.Image, background: str) -> tuple[Image.Image, bool]:
    """The image in mode L or RGB, upright, transparency on the background; and whether it has any."""
    upright = _upright(image)
    if upright.mode == "F":
        raise ValueError("gray values that are floats; images of 8 or 16 bits are read")
    if upright.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(upright))), False
    gray = upright.mode in GRAY_MODES
    if upright.has_transparency_data:
        below = Image.new("RGBA", upright.size, background)
        below.alpha_composite(_rgba(upright))
        return below.convert("L" if gray else "RGB"), True
    mode = "L" if gray else "RGB"
    return upright if upright.mode == mode else upright.convert(mode), False


def _upright(image: Image.Image) -> Image.Image:
    """The image as it is to be seen; itself where nothing tells of another way."""
    image.load()
    if not (NOTES & image.info.keys() or hasattr(image, "tag_v2")):
        return image
    try:
        return ImageOps.exif_transpose(image)
    except (OSError, MemoryError):
        raise
    except Exception:  # broken notes on an image say nothing of it
        return image.copy()


def _rgba(image: Image.Image) -> Image.Image:
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def _eight_bits(array: np.ndarray) -> np.ndarray:
    """Of 16 bits the upper eight; PIL's own conversion cuts off at 255."""
    if array.size and (array.min() < 0 or array.max() > 65_535):
        raise ValueError(f"values from {array.min()} to {array.max()}; images of 8 or 16 bits are read")
    return (array.astype(np.uint16) >> 8).astype(np.uint8)


def _is_array(encoded: Encoded) -> TypeGuard[Path | bytes]:
    if isinstance(encoded, bytes):
        return encoded.startswith(ARRAY_MAGIC)
    return isinstance(encoded, Path) and encoded.suffix.lower() == ARRAY_SUFFIX


def _array(encoded: Path | bytes) -> np.ndarray:
    """An array as uint8 H W C."""
    source = _regular(encoded) if isinstance(encoded, Path) else io.BytesIO(encoded)
    array = np.load(source, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{getattr(array, 'dtype', type(array).__name__)}; arrays of uint8 or uint16 are read")
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape or array.shape[2] > MOST_CHANNELS:
        found = " x ".join(map(str, array.shape))
        raise ValueError(f"an array of {found}; height x width, or height x width x channels, is read")
    return _eight_bits(array) if array.dtype == np.uint16 else array
