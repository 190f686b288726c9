"""Encoded images in Parquet files."""

import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.workloads.images.parquet_images import ParquetImages


def png(value: int, mode: str = "RGB", size=(12, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, (value, 0, 0) if mode == "RGB" else value).save(buffer, "PNG")
    return buffer.getvalue()


def rows(count: int = 12, **changes) -> list[dict]:
    return [
        {"image": png(n), "label": n % 2, "split": "test" if n % 3 == 0 else "train", **changes} for n in range(count)
    ]


def write(path, rows, metadata=None, **options):
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, path, **options)


def images(path, **settings) -> ParquetImages:
    return ParquetImages(ParquetImages.Settings(path=str(path), **{"validation_examples": 2, **settings}))


def test_one_file_with_a_column_of_splits(tmp_path):
    write(tmp_path / "x.parquet", rows(), row_group_size=5)
    mine = images(tmp_path / "x.parquet")
    data = mine.load()
    assert mine.sample.shape == (3, 8, 8)
    assert data.train[0].shape == (6, 3, 8, 8)
    test, labels = data.load_test()
    assert test[:, 0, 0, 0].tolist() == [0, 3, 6, 9]
    assert labels.tolist() == [0, 1, 0, 1]
    assert dict(mine.describe())["splits"] == "rows by split: test 4, train 8"


def test_files_and_records_as_hugging_face_writes_them(tmp_path):
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    notes = {"huggingface": json.dumps({"info": {"features": features}})}
    for split, count in (("train", 8), ("validation", 4)):
        records = [{"image": {"bytes": png(n), "path": None}, "label": n % 2} for n in range(count)]
        write(tmp_path / f"{split}-00000-of-00001.parquet", records, notes)
    mine = images(tmp_path)
    assert mine.class_names == ("cat", "dog")
    assert [len(mine.contents().train), len(mine.contents().test)] == [8, 4]


def test_classes_by_name_and_columns_of_any_name(tmp_path):
    records = [{"jpg": png(n), "breed": ["eel", "ant"][n % 2]} for n in range(20)]
    write(tmp_path / "x.parquet", records)
    mine = images(tmp_path / "x.parquet", image="jpg", label="breed")
    assert mine.class_names == ("ant", "eel")
    assert "one row in 5 of each class is a test image" in dict(mine.describe())["splits"]
    data = mine.load()
    assert len(data.train[1]) + len(data.validation[1]) + len(data.load_test()[1]) == 20


def test_a_column_of_splits_that_is_not_there_is_said(tmp_path):
    write(tmp_path / "a.parquet", rows(6))
    with pytest.raises(DataError, match="columns image, label, split, expected also spilt"):
        images(tmp_path / "a.parquet", split="spilt").check()


def test_the_copy_of_encoded_images_falls_under_the_bound_of_the_cache(tmp_path, monkeypatch):
    """What was used last stays, others give way; a set that is larger than the cache may be is said."""
    monkeypatch.setenv("MATHNAS_CACHE", str(tmp_path / "cache"))
    sizes = []
    for number in range(4):
        write(tmp_path / f"{number}.parquet", rows(12))
        sizes.append((tmp_path / f"{number}.parquet").stat().st_size)
        images(tmp_path / f"{number}.parquet", cache_gb=2.5 * max(sizes) / 1e9).check()
        for path in (tmp_path / "cache" / "encoded").glob("*.arrow"):
            if path.stat().st_mtime > 1e9:
                os.utime(path, (number, number))
    kept = sorted(path.stat().st_mtime for path in (tmp_path / "cache" / "encoded").glob("*.arrow"))
    assert kept[-1] == 3
    assert len(kept) < 4
    write(tmp_path / "new.parquet", rows(12))
    with pytest.raises(DataError, match=r"data.cache_gb: found 1e-06, expected .* at least, for a copy"):
        images(tmp_path / "new.parquet", cache_gb=1e-6).check()


def test_broken_rows_are_named_and_can_be_left_out(tmp_path):
    records = rows(18)
    records[4]["image"], records[8]["image"] = b"x", None
    write(tmp_path / "x.parquet", records)
    with pytest.raises(DataError, match=r"2 of 18 images that cannot be read: x.parquet row 4 .*, x.parquet row 8"):
        images(tmp_path / "x.parquet").check()
    mine = images(tmp_path / "x.parquet", on_error="skip")
    assert len(mine.load().train[1]) == 12 - 2 - 2
    assert "2 of 18 images cannot be read: x.parquet row 4, x.parquet row 8" in dict(mine.describe())["left out"]


@pytest.mark.parametrize(
    "names",
    [
        ("train/0.parquet", "test/0.parquet"),
        ("data/Training/a-0.parquet", "data/valid/a-0.parquet"),
        ("pets-train-0.parquet", "pets_test.parquet"),
    ],
)
def test_splits_are_told_by_files_and_folders(tmp_path, names):
    for name, value in zip(names, (10, 200), strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, [{"image": png(value + n), "label": n % 2} for n in range(6)])
    data = images(tmp_path).load()
    assert len(data.train[1]) == 4
    assert data.train[0][:, 0].max() < 200 <= data.load_test()[0][:, 0].min()


def test_a_single_file_is_the_whole_set_whatever_it_is_called(tmp_path):
    write(tmp_path / "train.parquet", [{"image": png(n), "label": n % 2} for n in range(12)])
    assert "one row in 5 of each class is a test image" in images(tmp_path / "train.parquet").notes()[0]


def test_rows_without_a_label_are_named_and_can_be_left_out(tmp_path):
    for number in range(2):
        records = rows(18)
        records[7]["label"] = None if number else 1
        write(tmp_path / f"{number}.parquet", records)
    with pytest.raises(DataError, match=r"found 1 row without a label, 1.parquet row 7 first, .*data.on_error: skip"):
        images(tmp_path).check()
    mine = images(tmp_path, on_error="skip")
    assert "left out: 1 row of 36 without a label" in dict(mine.describe())["splits"]
    assert "1.parquet row 8" in mine.contents().train.names_N
    assert "1.parquet row 7" not in mine.contents().train.names_N
    index = mine.contents().train.names_N.tolist().index("1.parquet row 8")
    assert mine.contents().train.content(index) == png(8)


@pytest.mark.parametrize("label", ["²", "9" * 40, "-1", "1.5"])
def test_what_is_no_class_number_is_a_name(tmp_path, label):
    write(tmp_path / "x.parquet", [{**row, "label": label if row["label"] else "7"} for row in rows()])
    assert set(images(tmp_path / "x.parquet").class_names) == {label, "7"}


def test_a_changed_file_is_read_anew(tmp_path):
    write(tmp_path / "x.parquet", rows())
    before = images(tmp_path / "x.parquet").fingerprint()
    write(tmp_path / "x.parquet", [{**row, "image": png(200)} for row in rows(15)])
    mine = images(tmp_path / "x.parquet")
    assert (mine.load().train[0][:, 0] == 200).all()
    assert mine.fingerprint() != before


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"picture": b"", "label": 0}], "columns picture, label, expected also image"),
        ([{"image": 3, "label": 0}], "image of type int64, expected bytes"),
        (rows(6, label=None), "6 rows without a label"),
        (rows(6, label=3), "no train image of class 0, 1, 2"),
        (rows(6, label=10**9), "label 1000000000 in 6 rows"),
        (rows(6, split="train"), "the splits train, expected train, and one of test, validation"),
        (rows(6, label=0), "classes 0, expected two classes at least"),
    ],
)
def test_what_is_no_such_table(tmp_path, records, message):
    write(tmp_path / "x.parquet", records)
    with pytest.raises(DataError, match=message):
        images(tmp_path / "x.parquet").check()


def test_what_is_no_parquet(tmp_path):
    (tmp_path / "x.parquet").write_bytes(np.random.default_rng(0).bytes(300))
    for path, message in ((tmp_path / "x.parquet", "x.parquet: found"), (tmp_path / "none", r"data\.path")):
        with pytest.raises(DataError, match=message):
            images(path).check()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.parquet file in"):
        images(tmp_path / "empty").check()


def test_a_column_called_split_may_be_anything_where_files_tell(tmp_path):
    """One that is named counts: the settings' word is the last."""
    write(tmp_path / "train-0.parquet", rows(8, split="a", fold="train"))
    write(tmp_path / "test-0.parquet", [{**row, "fold": "test" if n else "train"} for n, row in enumerate(rows(4))])
    assert [len(images(tmp_path).contents().train), len(images(tmp_path).contents().test)] == [8, 4]
    assert len(images(tmp_path, split="fold").contents().train) == 9
