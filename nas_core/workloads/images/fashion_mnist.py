"""Fashion-MNIST: 60,000 + 10,000 gray 28 x 28 images in the original IDX files.

Found in ``data.path``, in Debian's package (`apt-get install
dataset-fashion-mnist`), or where torchvision's download puts them.
"""

import gzip
import struct
from pathlib import Path

import numpy as np

from nas_core.base.errors import DataError
from nas_core.workloads.images.sources import SOURCES, Split, cache_folder
from nas_core.workloads.images.tensors import RawImages
from nas_core.workloads.settings import DataConfig

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


class FashionMnist:
    def shape(self, config: DataConfig) -> tuple[int, int, int]:
        return 1, 28, 10

    def num_train(self, config: DataConfig) -> int:
        return 60_000

    def class_names(self, config: DataConfig) -> tuple[str, ...]:
        return CLASS_NAMES

    def check(self, config: DataConfig) -> None:
        if not config.download:
            _folder(config)

    def read(self, config: DataConfig, split: Split, resolution: int) -> RawImages:
        try:
            folder = _folder(config)
        except DataError:
            if not config.download:
                raise
            _download()
            folder = _folder(config)
        images = read_idx(_file(folder, f"{PREFIX[split]}-{IMAGES}"))
        labels = read_idx(_file(folder, f"{PREFIX[split]}-{LABELS}"))
        return RawImages(images_NHWC=images[..., None], labels_N=labels)


def _candidates(config: DataConfig) -> list[Path]:
    root = Path(config.path) if config.path else None
    if root is not None:
        return [root, root / "FashionMNIST" / "raw"]
    return [DEBIAN_FOLDER, cache_folder() / "FashionMNIST" / "raw"]


def _file(folder: Path, name: str) -> Path:
    """The file, unpacked or as .gz."""
    return folder / name if (folder / name).is_file() else folder / f"{name}.gz"


def _folder(config: DataConfig) -> Path:
    """The first folder that holds all four files."""
    names = [f"{prefix}-{kind}" for prefix in PREFIX.values() for kind in (IMAGES, LABELS)]
    for folder in _candidates(config):
        if all(_file(folder, name).is_file() for name in names):
            return folder
    where = "data.path" if config.path else "data: fashion-mnist"
    looked = " or ".join(map(str, _candidates(config)))
    raise DataError(where, f"not all of {', '.join(names)} in {looked}", "the four IDX files", HOW_TO_GET)


def _download() -> None:
    try:
        from nas_core.families.timm_compat import define_missing_operators

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


SOURCES.add("fashion-mnist")(FashionMnist())
