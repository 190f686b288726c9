"""Any folder of images: one sub-folder per class, under ``train`` and ``test`` or without a split.

``val`` or ``validation`` serves where there is no ``test``. Without a split,
every fifth image (by the hash of its relative path) is a test image, so adding
images moves none of the others.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas_core.base.errors import DataError
from nas_core.base.identity import content_id
from nas_core.workloads.images.image_classification import ImageClassification, Split
from nas_core.workloads.images.tensors import RawImages
from nas_core.workloads.settings import ImageSettings
from nas_core.workloads.workload import WORKLOADS, Sample

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
TEST_NAMES = ("test", "val", "validation")
LAYOUT = "train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE"


@WORKLOADS.add
class ImageFolder(ImageClassification):
    """Any folder of images with one sub-folder per class, divided into train and test or not."""

    name = "folder"
    places = frozenset({"download"})  # another folder holds other images

    @property
    def label(self) -> str:
        """The folder's name: all folders are of one kind."""
        return f"folder {Path(self.settings.path or '').name}"

    @property
    def sample(self) -> Sample:
        """Channels and shorter side of the first image; 1 channel only if it is gray."""
        channels, side = _first_image(_root(self.settings))
        return Sample(shape=(channels, side, side), num_outputs=len(self.class_names))

    @property
    def class_names(self) -> tuple[str, ...]:
        return _class_names(_root(self.settings))

    def num_images(self) -> int:
        return len(_files(_root(self.settings), "train"))

    def fingerprint(self) -> str:
        """Content id of the names and sizes of the folder's files."""
        root = _root(self.settings)
        files = (path for path in root.rglob("*") if path.is_file())
        return content_id({"files": sorted((str(path.relative_to(root)), path.stat().st_size) for path in files)})

    def check_files(self) -> None:
        root = _root(self.settings)
        for split in ("train", "test"):
            if not _files(root, split):
                raise DataError("data.path", f"no {split} images in {root}", LAYOUT)

    def read(self, split: Split, resolution: int) -> RawImages:
        channels = self.sample.shape[0]
        files = _files(_root(self.settings), split)
        images = np.stack([_open_square(path, resolution, "L" if channels == 1 else "RGB") for path, _ in files])
        return RawImages(
            images_NHWC=images.reshape(len(files), resolution, resolution, channels),
            labels_N=np.array([label for _, label in files]),
        )


def _first_image(root: Path) -> tuple[int, int]:
    """Its channels and its shorter side."""
    from PIL import Image

    files = _files(root, "train")
    if not files:
        raise DataError("data.path", f"no train images in {root}", LAYOUT)
    first = files[0][0]
    try:
        with Image.open(first) as image:
            if image.mode == "F":
                raise DataError(str(first), "gray values that are floats", "images of 8 or 16 bits")
            gray = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
            return (1 if gray else 3), min(image.size)
    except OSError as error:
        raise DataError(str(first), str(error), "an image that PIL reads") from None


def _root(settings: ImageSettings) -> Path:
    if not settings.path or not Path(settings.path).is_dir():
        raise DataError("data.path", settings.path or "nothing", f"a folder of images: {LAYOUT}")
    root = Path(settings.path)
    if not _class_names(root):
        raise DataError("data.path", f"no sub-folders in {root}", f"one per class: {LAYOUT}")
    return root


def _sub_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


@lru_cache(maxsize=8)
def _class_names(root: Path) -> tuple[str, ...]:
    return tuple(_sub_folders(root / "train" if (root / "train").is_dir() else root))


@lru_cache(maxsize=16)
def _files(root: Path, split: Split) -> tuple[tuple[Path, int], ...]:
    """Paths and labels of a split, sorted."""
    if not (root / "train").is_dir():
        return tuple(item for item in _listed(root, root) if _is_test(item[0].relative_to(root)) == (split == "test"))
    if split == "train":
        return tuple(_listed(root / "train", root))
    test = next((root / name for name in TEST_NAMES if (root / name).is_dir()), None)
    return tuple(_listed(test, root)) if test else ()


def _listed(folder: Path, root: Path) -> list[tuple[Path, int]]:
    names = _class_names(root)
    unknown = set(_sub_folders(folder)) - set(names)
    if unknown:
        raise DataError(str(folder), f"class {min(unknown)}", f"the classes of the training split: {', '.join(names)}")
    return [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]


def _is_test(relative: Path) -> bool:
    return hashlib.sha256(relative.as_posix().encode()).digest()[0] % 5 == 0


def _open_square(path: Path, side: int, mode: str) -> np.ndarray:
    """The image scaled to its shorter side and cropped at the centre."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            bytes_of = _eight_bits(image) if image.mode.startswith("I") else image
            return np.asarray(ImageOps.fit(bytes_of.convert(mode), (side, side), Image.Resampling.BILINEAR))
    except OSError as error:
        raise DataError(str(path), str(error), "an image that PIL reads") from None


def _eight_bits(image: "Image.Image") -> "Image.Image":
    """Of 16 bits the upper eight; PIL's own conversion cuts off at 255."""
    from PIL import Image

    return Image.fromarray((np.asarray(image).clip(0, 65_535) >> 8).astype(np.uint8))
