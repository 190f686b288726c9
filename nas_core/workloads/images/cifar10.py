"""CIFAR-10: 50,000 + 10,000 colour 32 x 32 images.

Read from the binary distribution's folder (``cifar-10-batches-bin``), from
torchvision's folder (``cifar-10-batches-py``), or from a Parquet file with the
columns ``split`` (train/test), ``label`` and ``jpg`` (any encoding PIL reads).
"""

import io
import os
from pathlib import Path
from uuid import uuid4

import numpy as np

from nas_core.base.errors import DataError
from nas_core.base.identity import content_id
from nas_core.workloads.images.cache import cache_folder
from nas_core.workloads.images.image_classification import ImageClassification, Split
from nas_core.workloads.images.tensors import RawImages
from nas_core.workloads.settings import ImageSettings
from nas_core.workloads.workload import WORKLOADS, Sample

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
BINARY_FILES = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
RECORD_BYTES = 1 + 3 * 32 * 32
HOW_TO_GET = (
    "Set data.download=true, or unpack https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz "
    "and name the folder that holds it, or a Parquet file of images, in data.path."
)


@WORKLOADS.add
class Cifar10(ImageClassification):
    """CIFAR-10: 50,000 + 10,000 colour 32 x 32 images."""

    name = "cifar10"
    sample = Sample(shape=(3, 32, 32), num_outputs=10)
    class_names = CLASS_NAMES

    def num_images(self) -> int:
        return 50_000

    def num_test_images(self) -> int:
        return 10_000

    def check_files(self) -> None:
        place = _place(self.settings)
        if place is not None and place.is_file():
            _check_columns(place)
        elif place is None and not self.settings.download:
            raise _missing(self.settings)

    def read(self, split: Split, resolution: int) -> RawImages:
        place = _place(self.settings)
        if place is None and self.settings.download:
            _download()
            place = _place(self.settings)
        if place is None:
            raise _missing(self.settings)
        if place.is_file():
            return _read_parquet(place, split)
        return _read_binary(place, split) if place.name == BINARY else _read_torchvision(place.parent, split)


def _missing(settings: ImageSettings) -> DataError:
    where = "data.path" if settings.path else "data: cifar10"
    root = settings.path or cache_folder()
    return DataError(where, f"neither {BINARY} nor {PYTHON} in {root}", "CIFAR-10's files", HOW_TO_GET)


def _place(settings: ImageSettings) -> Path | None:
    """The Parquet file, or the folder of one of the two distributions."""
    root = Path(settings.path) if settings.path else cache_folder()
    if root.is_file():
        return root
    for folder in (root / BINARY, root / PYTHON, root):
        if folder.name in (BINARY, PYTHON) and folder.is_dir():
            return folder
    return None


def _read_binary(folder: Path, split: Split) -> RawImages:
    """Records of one label byte and 3 x 32 x 32 pixel bytes."""
    records = []
    for name in BINARY_FILES[split]:
        try:
            records.append(np.fromfile(folder / name, np.uint8).reshape(-1, RECORD_BYTES))
        except (OSError, ValueError) as error:
            raise DataError(str(folder / name), str(error), "a whole CIFAR-10 binary batch", HOW_TO_GET) from None
    rows = np.concatenate(records)
    return RawImages(images_NHWC=rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels_N=rows[:, 0])


def _read_torchvision(root: Path, split: Split) -> RawImages:
    # torchvision compares every file with its published MD5 before it unpickles it.
    try:
        from nas_core.base.torchvision_compat import define_missing_operators

        define_missing_operators()
        from torchvision.datasets import CIFAR10

        data = CIFAR10(str(root), train=split == "train", download=False)
    except Exception as error:
        raise DataError(str(root / PYTHON), str(error), "torchvision's CIFAR-10 folder", HOW_TO_GET) from None
    return RawImages(images_NHWC=data.data, labels_N=np.array(data.targets))


def _download() -> None:
    """The binary distribution into the cache: it holds no pickles."""
    try:
        from nas_core.base.torchvision_compat import define_missing_operators

        define_missing_operators()
        from torchvision.datasets.utils import download_and_extract_archive

        url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
        download_and_extract_archive(url, str(cache_folder()), md5="c32a1d4ab5d03f1284b67883e8d87530")
    except Exception as error:  # torchvision raises whatever urllib, the disk or its own import raises
        raise DataError("data: cifar10", f"download failed: {error}", "a network connection", HOW_TO_GET) from None


def _check_columns(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise DataError(str(path), str(error), "a Parquet file", HOW_TO_GET) from None
    missing = {"split", "label", "jpg"} - set(names)
    if missing:
        raise DataError(str(path), f"columns {', '.join(names)}", f"also {', '.join(sorted(missing))}", HOW_TO_GET)


def _read_parquet(path: Path, split: Split) -> RawImages:
    """The split's images, decoded once: the arrays are kept in the cache where that can be written."""
    _check_columns(path)
    stat = path.stat()
    key = content_id({"path": str(path.resolve()), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "split": split})
    images_file, labels_file = (cache_folder() / f"cifar10-{key}-{part}.npy" for part in ("images", "labels"))
    try:
        return RawImages(
            images_NHWC=np.load(images_file, allow_pickle=False), labels_N=np.load(labels_file, allow_pickle=False)
        )
    except (OSError, ValueError):
        raw = _decode(path, split)
    _keep(images_file, raw.images_NHWC)
    _keep(labels_file, raw.labels_N)
    return raw


def _decode(path: Path, split: Split) -> RawImages:
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(path, columns=["label", "jpg"], filters=[("split", "=", split)])
    if not len(table):
        raise DataError(str(path), f"no rows with split={split}", "the splits train and test", HOW_TO_GET)
    blobs = table["jpg"].to_pylist()
    images = np.empty((len(blobs), 32, 32, 3), np.uint8)
    for index, blob in enumerate(blobs):
        try:
            images[index] = np.asarray(Image.open(io.BytesIO(blob)).convert("RGB"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}, {split} image {index}", str(error), "a 32 x 32 image") from None
    return RawImages(images_NHWC=images, labels_N=table["label"].to_numpy())


def _keep(path: Path, array: np.ndarray) -> None:
    """Writes the array whole or not at all; a cache that cannot be written only costs time."""
    temporary = path.with_name(f".{uuid4().hex}.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(temporary, array)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
