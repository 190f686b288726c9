"""Scores of other images than today's are not taken for today's."""

import pytest
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.study.fingerprints import check_same_data
from nas_core.study.study import Study
from tests.conftest import config_of


def test_images_that_were_added_are_noticed(tmp_path):
    for number in range(12):
        for split in ("train", "test"):
            path = tmp_path / "images" / split / str(number % 2) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (16, 16), number).save(path)
    config = config_of(data={"name": "folder", "path": str(tmp_path / "images"), "validation_examples": 2})
    study = Study.create(config, str(tmp_path / "study"))
    check = (study.scorer.workload, study.scorer_id, study.store)
    check_same_data(*check)
    check_same_data(*check)
    Image.new("L", (16, 16), 99).save(tmp_path / "images/train/0/more.png")
    with pytest.raises(DataError, match="other files than when"):
        check_same_data(*check)
