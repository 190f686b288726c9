"""Fashion-MNIST: 60,000 + 10,000 gray 28 x 28 images in the original IDX files.

Found in ``data.path``, in Debian's package (`apt-get install
dataset-fashion-mnist`), or where torchvision's download puts them.
"""

import gzip
import struct
from pathlib import Path

import numpy as np

from nas_core.base.errors import DataError
from nas_core.workloads.images.cache import cache_folder
from nas_core.workloads.images.image_classification import ImageClassification, Split
from nas_core.workloads.images.tensors import RawImages
from nas_core.workloads.settings import ImageSettings
from nas_core.workloads.workload import WORKLOADS, Sample

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
PREFIX = {"train": "train", "test": "t10k"}
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
HOW_TO_GET = "`apt-get install dataset-fashion-mnist`, or set data.download=true, or name their folder in data.path."


@WORKLOADS.add
class FashionMnist(ImageClassification):
    """Fashion-MNIST: 60,000 + 10,000 gray 28 x 28 images of clothes."""

    name = "fashion-mnist"
    sample = Sample(shape=(1, 28, 28), num_outputs=10)
    class_names = CLASS_NAMES

    def num_images(self) -> int:
        return 60_000

    def num_test_images(self) -> int:
        return 10_000

    def check_files(self) -> None:
        if not self.settings.download:
            _folder(self.settings)

    def read(self, split: Split, resolution: int) -> RawImages:
        try:
            folder = _folder(self.settings)
        except DataError:
            if not self.settings.download:
                raise
            _download()
            folder = _folder(self.settings)
        images = read_idx(_file(folder, f"{PREFIX[split]}-{IMAGES}"))
        labels = read_idx(_file(folder, f"{PREFIX[split]}-{LABELS}"))
        return RawImages(images_NHWC=images[..., None], labels_N=labels)


def _candidates(settings: ImageSettings) -> list[Path]:
    root = Path(settings.path) if settings.path else None
    if root is not None:
        return [root, root / "FashionMNIST" / "raw"]
    return [DEBIAN_FOLDER, cache_folder() / "FashionMNIST" / "raw"]


def _file(folder: Path, name: str) -> Path:
    """The file, unpacked or as .gz."""
    return folder / name if (folder / name).is_file() else folder / f"{name}.gz"


def _folder(settings: ImageSettings) -> Path:
    """The first folder that holds all four files."""
    names = [f"{prefix}-{kind}" for prefix in PREFIX.values() for kind in (IMAGES, LABELS)]
    for folder in _candidates(settings):
        if all(_file(folder, name).is_file() for name in names):
            return folder
    where = "data.path" if settings.path else "data: fashion-mnist"
    looked = " or ".join(map(str, _candidates(settings)))
    raise DataError(where, f"not all of {', '.join(names)} in {looked}", "the four IDX files", HOW_TO_GET)


def _download() -> None:
    try:
        from nas_core.base.torchvision_compat import define_missing_operators

        define_missing_operators()
        from torchvision.datasets import FashionMNIST

        FashionMNIST(str(cache_folder()), download=True)
    except Exception as error:  # torchvision raises whatever urllib, the disk or its own import raises
        raise DataError(
            "data: fashion-mnist", f"download failed: {error}", "a network connection", HOW_TO_GET
        ) from None


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in an IDX file (http://yann.lecun.com/exdb/mnist), plain or gzipped.

    Raises:
        DataError: if the file is cut short or is no IDX file of bytes.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, ndim = struct.unpack_from(">HBB", raw)
        shape = struct.unpack_from(f">{ndim}I", raw, 4)
        assert (zero, kind) == (0, 8), "not an IDX file of unsigned bytes"
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)
    except (OSError, EOFError, struct.error, ValueError, AssertionError) as error:
        raise DataError(str(path), str(error), "a whole IDX file", HOW_TO_GET) from None
