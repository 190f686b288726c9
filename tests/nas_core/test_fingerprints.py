"""Fingerprints: scores of other data than today's are not taken for today's."""

import pytest

from nas_core.config import parse_config
from nas_core.errors import DataError
from nas_core.fingerprints import check_same_inputs
from nas_core.study import Study


def test_another_table_of_the_same_name_is_refused(tabular_config, macro_table, tmp_path):
    study = Study.create(tabular_config, str(tmp_path / "study"))
    check_same_inputs(study)
    check_same_inputs(study)
    macro_table.write_bytes(macro_table.read_bytes() + b"more")
    with pytest.raises(DataError, match=r"table\.parquet: found other content than when"):
        check_same_inputs(study)


def test_images_that_were_added_are_noticed(tmp_path):
    images = tmp_path / "images"
    (images / "train").mkdir(parents=True)
    (images / "train/a.png").write_bytes(b"1")
    config = parse_config({"data": {"name": "folder", "path": str(images)}, "space": {"name": "tiny"}}, "test")
    study = Study.__new__(Study)
    study.__init__(config, Study.create(parse_config({}, "test"), str(tmp_path / "study")).store)
    study.__dict__["scorer_id"] = "scorer"
    check_same_inputs(study)
    (images / "train/b.png").write_bytes(b"2")
    with pytest.raises(DataError, match="other content"):
        check_same_inputs(study)
