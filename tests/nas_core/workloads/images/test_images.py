"""Loading, splitting and refusing data."""

import gzip
import itertools
import struct
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.workloads import WORKLOADS
from nas_core.workloads.workload import Splits, Workload


def workload(name: str = "digits", **settings) -> Workload:
    return WORKLOADS[name](WORKLOADS[name].Settings(**settings))


def load(name: str, resolution: int, **settings) -> Splits:
    images = workload(name, **settings)
    return images.load(images.sample.shape_at(resolution, images.sample.shape[0]))


def test_naming_a_set_imports_no_torch():
    code = (
        "import sys; from nas_core.workloads import WORKLOADS; d = WORKLOADS['digits']; w = d(d.Settings());"
        "w.check(); w.num_examples(); w.describe(); w.identity, w.metrics, w.sample;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digits_have_the_asked_for_shape_and_disjoint_splits():
    digits = workload(validation_examples=300, train_examples=500)
    data = digits.load((3, 12, 12))
    images, labels = data.train
    assert images.shape == (500, 3, 12, 12)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert data.validation[0].shape == (300, 3, 12, 12)
    assert digits.num_examples() == (500, 300)
    images, labels = data.load_test()
    assert images.shape == (360, 3, 12, 12)
    assert len(labels.unique()) == digits.sample.num_outputs == len(data.output_names) == 10


def test_images_are_square():
    with pytest.raises(DataError, match="found 1 x 8 x 6, expected channels x side x side"):
        workload().load((1, 8, 6))


def test_splits_share_no_image():
    data = load("digits", 8, validation_examples=300)
    splits = [data.train[0], data.validation[0], data.load_test()[0]]
    assert sum(map(len, splits)) == 1797
    rows = [{image.numpy().tobytes() for image in split} for split in splits]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]


def test_validation_does_not_depend_on_how_many_images_train():
    all_of_them = workload(validation_examples=200)
    few, many = all_of_them.with_train_examples(100).load(), all_of_them.load()
    assert torch.equal(few.validation[0], many.validation[0])
    assert torch.equal(few.train[0], many.train[0][:100])


def test_split_follows_its_seed():
    first, second = (load("digits", 8, split_seed=seed).validation[1] for seed in (0, 1))
    assert not torch.equal(first, second)


def test_normalised_images_have_mean_0_and_deviation_1():
    data = load("digits", 8, validation_examples=300)
    images = data.prepare(data.train[0])
    assert float(images.mean()) == pytest.approx(0, abs=1e-4)
    assert float(images.std()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("field", ["validation_examples", "train_examples"])
def test_more_images_than_there_are_is_an_error_that_names_the_field(field):
    with pytest.raises(DataError, match=f"data.{field}: found 5000"):
        workload(**{field: 5000}).check()


def _write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def fashion_folder(tmp_path):
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 60), ("t10k", 20)):
        _write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), np.uint8))
        _write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", rng.integers(0, 10, count).astype(np.uint8))
    return tmp_path


def test_fashion_mnist_is_read_from_its_idx_files(fashion_folder):
    data = load("fashion-mnist", 14, path=str(fashion_folder), validation_examples=10)
    assert data.train[0].shape == (50, 1, 14, 14)
    assert data.load_test()[0].shape == (20, 1, 14, 14)


def test_missing_fashion_mnist_says_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        workload("fashion-mnist", path=str(tmp_path)).check()


def test_a_cut_file_is_named(fashion_folder):
    file = fashion_folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        load("fashion-mnist", 28, path=str(fashion_folder), validation_examples=10)


@pytest.fixture
def cifar_parquet(tmp_path, monkeypatch):
    import io

    monkeypatch.setenv("MATHNAS_CACHE", str(tmp_path / "cache" / "mathnas"))
    rows = []
    for index in range(30):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (index * 8, 0, 0)).save(buffer, "PNG")
        rows.append({"split": "test" if index % 3 == 0 else "train", "label": index % 10, "jpg": buffer.getvalue()})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "cifar.parquet")
    return tmp_path / "cifar.parquet"


def test_cifar10_parquet_is_decoded_once(cifar_parquet, tmp_path):
    cifar10 = workload("cifar10", path=str(cifar_parquet), validation_examples=5)
    first = cifar10.load()
    assert first.train[0].shape == (15, 3, 32, 32)
    assert first.load_test()[1].tolist() == [index % 10 for index in range(0, 30, 3)]
    assert len(list((tmp_path / "cache" / "mathnas").glob("*.npy"))) == 4
    assert torch.equal(cifar10.load().train[0], first.train[0])


def test_cifar10_binary_folder(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    record = np.concatenate([[7], np.full(1024, 10), np.full(1024, 20), np.full(1024, 30)]).astype(np.uint8)
    for name in [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]:
        (folder / name).write_bytes(record.tobytes() * 2)
    data = load("cifar10", 32, path=str(tmp_path), validation_examples=2)
    assert data.train[0][0, :, 0, 0].tolist() == [10, 20, 30]
    assert data.load_test()[1].tolist() == [7, 7]


def test_cifar10_with_a_wrong_parquet_names_the_columns(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="found columns a, expected also jpg, label, split"):
        workload("cifar10", path=str(tmp_path / "x.parquet")).check()


def _images(folder, count, mode="RGB", size=(20, 16)):
    folder.mkdir(parents=True)
    for index in range(count):
        color = index * 5 if mode == "L" else (index * 5, 0, 0)
        Image.new(mode, size, color).save(folder / f"{index}.png")


def test_folder_with_splits(tmp_path):
    for split, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            _images(tmp_path / split / name, count)
    folder = workload("folder", path=str(tmp_path), validation_examples=4)
    assert (folder.sample.shape, folder.sample.num_outputs) == ((3, 16, 16), 2)
    data = folder.load()
    assert data.output_names == ("cat", "dog")
    assert data.train[0].shape == (8, 3, 16, 16)
    assert data.load_test()[1].tolist() == [0, 0, 1, 1]


def test_folder_without_splits_makes_one_that_stays(tmp_path):
    _images(tmp_path / "a", 30, "L")
    _images(tmp_path / "b", 30, "L")
    data = load("folder", 8, path=str(tmp_path), validation_examples=5)
    num_test = len(data.load_test()[1])
    assert 0 < num_test < 30
    assert len(data.train[1]) == 60 - 5 - num_test
    assert data.train[0].shape[1] == 1


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"data\.path"):
        workload("folder", path=str(tmp_path / "none")).check()


def test_gray_images_of_16_bits_keep_their_grays(tmp_path):
    """PIL's own conversion to 8 bits cuts off at 255: nearly everything would be white."""
    ramp = np.linspace(0, 65_535, 64 * 64).astype(np.uint16).reshape(64, 64)
    for split, label in itertools.product(("train", "test"), ("a", "b")):
        (tmp_path / split / label).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(ramp).save(tmp_path / split / label / f"{number}.png")
    data = load("folder", 64, path=str(tmp_path), validation_examples=2)
    image = data.train[0][0].numpy()
    assert image.min() == 0
    assert image.max() == 255
    assert 120 < image.mean() < 135
