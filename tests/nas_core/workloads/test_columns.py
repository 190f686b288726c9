"""Tables as people have them, and what is wrong with them in one line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nas_core.base.errors import DataError
from nas_core.workloads.columns import Wanted, names_of, read_columns, told_splits


def table(tmp_path, text: str, **options):
    path = tmp_path / "x.csv"
    path.write_text(text)
    return read_columns(path, **options)


def targets(columns, task: str, *names: str, **options):
    return Wanted(task=task, columns=names, **options).of(columns, np.ones(len(columns), dtype=bool))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_whatever_its_delimiter(tmp_path, delimiter):
    text = "\ufeffid,x,split\n007,1.5,train\n008,2,test\n".replace(",", delimiter)
    columns = table(tmp_path, text, texts=["id"])
    assert columns.names == ("id", "x", "split")
    assert columns.texts("id") == ["007", "008"]
    assert columns.numbers("x").tolist() == [1.5, 2]
    is_train, is_test, notes = columns.splits("split")
    assert (is_train.tolist(), is_test.tolist()) == ([True, False], [False, True])
    assert notes == ["rows by split: test 1, train 1"]


@pytest.mark.parametrize(("encoding", "byte"), [("latin-1", "0xe9"), ("utf-16", "0xff")])
def test_a_csv_in_another_encoding_is_told_how_to_save_it(tmp_path, encoding, byte):
    (tmp_path / "x.csv").write_bytes("name,x\ncafé,1\n".encode(encoding))
    with pytest.raises(DataError, match=rf"found byte {byte}, which is no UTF-8 text, .* Save the CSV file as UTF-8"):
        read_columns(tmp_path / "x.csv")


def test_parquet_is_told_by_its_content(tmp_path):
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "x.csv")
    assert read_columns(tmp_path / "x.csv").numbers("x").tolist() == [1, 2]


def test_labels_in_one_column_or_in_several(tmp_path):
    columns = table(tmp_path, "tags,a,b\na|b,1,1\n,0,0\nb,0,1\n", texts=["tags"])
    one, has = targets(columns, "multi-label", "tags")
    several, also = targets(columns, "multi-label", "a", "b")
    assert one.names == several.names == ("a", "b")
    assert has.tolist() == also.tolist() == [[1, 1], [0, 0], [0, 1]]


def test_classes_are_in_order_of_their_numbers(tmp_path):
    found, numbers = targets(table(tmp_path, "kind\n10\n9\n10\n", texts=["kind"]), "classification", "kind")
    assert (found.names, numbers.tolist()) == (("9", "10"), [1, 0, 1])


@pytest.mark.parametrize(
    ("text", "task", "names", "words"),
    [
        ("x,y\n1,2\n", "regression", ["z"], "data.targets: found 'z', no column of .*expected of: x, y"),
        ("x,y\n1,a\n", "regression", ["y"], "column y: found 'a' in row 2, expected numbers"),
        ("x,y\n1,\n2,3\n3,\n", "regression", ["y"], r"column y: found nothing in row 2 \(2 such rows\)"),
        ("x,y\n1,inf\n", "regression", ["y"], "column y: found inf in row 2"),
        ("x,y\n1,0\n2,2\n", "multi-label", ["x", "y"], "column x: found 2 in row 3, expected 0 or 1"),
        ("x,y\n1,a\n2,a\n", "multi-label", ["y"], "column y: found one label, a, expected two labels at least"),
        ("x,y\n1,a\n", "classification", ["x", "y"], "data.targets: found x, y, expected one column of classes"),
        ("x,y\n1,\n2,b\n", "classification", ["y"], "column y: found nothing in row 2"),
    ],
)  # fmt: skip
def test_what_is_no_target_is_said_with_its_place(tmp_path, text, task, names, words):
    with pytest.raises(DataError, match=words):
        targets(table(tmp_path, text, texts=names if task == "classification" else ()), task, *names)


def test_cells_that_are_no_texts_are_refused_whatever_they_are_for(tmp_path):
    pq.write_table(pa.table({"split": [["train"], ["test"]], "y": [{"a": 1}, {"a": 2}]}), tmp_path / "x")
    columns = read_columns(tmp_path / "x")
    with pytest.raises(DataError, match=r"column split: found values of type list<.*, expected texts or numbers"):
        columns.splits("split")
    for task in ("multi-label", "classification"):
        with pytest.raises(DataError, match=r"column y: found values of type struct<.*, expected texts or numbers"):
            targets(columns, task, "y")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,y\n", "found no rows"),
        ("", "expected a CSV or Parquet file"),
        ("x,x\n1,2\n", "two columns 'x'"),
        ("x,y\n1,2,3\n", "Expected 2 columns, got 3"),
        ("x,split\n1,train\n2,train\n", "the splits train, expected train, and one of test"),
    ],
)
def test_a_table_that_is_none(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        table(tmp_path, text).splits("split")


def test_numbers_are_those_that_networks_compute_with(tmp_path):
    with pytest.raises(DataError, match=r"column x: found 1e\+39 in row 3, expected 3.4e\+38 at most"):
        table(tmp_path, "x\n1\n1e39\n").numbers("x")
    assert table(tmp_path, "x\n1\n-3e38\n").numbers("x")[1] == -3e38


def test_files_are_told_apart_by_their_folders_where_there_are_several():
    assert names_of([Path("/a/train/0.parquet"), Path("/a/test/0.parquet")]) == ["train/0.parquet", "test/0.parquet"]
    assert names_of([Path("/a/0.parquet"), Path("/a/1.parquet")]) == ["0.parquet", "1.parquet"]
    assert names_of([Path("/a/0.parquet")]) == ["0.parquet"]


def test_numbers_of_rows_that_pandas_writes_are_no_column(tmp_path):
    frame = pd.DataFrame({"a": range(8), "b": range(8)})
    frame[frame.a % 3 > 0].to_parquet(tmp_path / "t.parquet")
    assert "__index_level_0__" in pq.read_schema(tmp_path / "t.parquet").names
    assert read_columns(tmp_path / "t.parquet").names == ("a", "b")


def test_texts_are_texts_whatever_they_are_stored_as(tmp_path):
    """Views and categories, too: their empty cells are left out as those of any text."""
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        words = pa.array(["a", " ", None, "007"]).cast(kind)
        pq.write_table(pa.table({"x": words, "y": [1, 2, 3, 4]}), tmp_path / "x.parquet")
        kept, said = read_columns(tmp_path / "x.parquet").whole(["x"])
        assert (kept.texts("x"), kept.rows_N.tolist()) == (["a", "007"], [1, 4])
        assert said == ["left out: 2 of 4 rows, which have an empty cell"]


def test_names_in_the_head_of_a_csv_may_have_spaces_around_them(tmp_path):
    assert table(tmp_path, 'x, "id" , id2\n1,007,008\n', texts=["id", "id2"]).texts("id2") == ["008"]


def test_splits_that_nothing_is_done_with_are_said():
    _, is_test, said = told_splits(["train", "val", "test", "spare"], "x.csv")
    assert is_test.tolist() == [False, False, True, False]
    assert said[1] == "not used: spare, val, and validation rows are drawn from the training rows"
    assert told_splits(["train", "val"], "x.csv")[2] == ["rows by split: train 1, val 1"]
