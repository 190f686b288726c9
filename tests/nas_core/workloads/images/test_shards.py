"""Images in WebDataset's shards: the same as those that were packed, in any order, and what is wrong in one line."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.workloads.images import shards
from nas_core.workloads.images.shards import Shards


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, members, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def samples(values, label=lambda value: str(value % 2).encode(), ending="cls"):
    return [member for n in values for member in ((f"{n:05}.png", png(n)), (f"{n:05}.{ending}", label(n))) if member[1]]


def images(path, **settings):
    return Shards(Shards.Settings(path=str(path), **{"validation_examples": 2, **settings}))


@pytest.fixture
def folder(tmp_path):
    """Two training shards and one of validation images, with captions beside some."""
    write(tmp_path / "train-0000.tar", [*samples(range(6)), ("00000.txt", b"a caption")])
    write(tmp_path / "train-0001.tar", samples(range(6, 12)))
    write(tmp_path / "val-0000.tar", samples(range(200, 206)))
    return tmp_path


@pytest.mark.parametrize("hold", ["memory", "stream"])
def test_images_are_those_that_were_packed(folder, hold):
    mine = images(folder, hold=hold, loaders=2)
    data = mine.load()
    test, labels = data.load_test()
    index = torch.tensor([5, 0, 3])
    assert test[index][:, 0, 0, 0].tolist() == [205, 200, 203]
    assert labels.tolist() == [0, 1] * 3
    inputs, targets = data.train
    found = inputs[torch.arange(len(targets))][:, 0, 0, 0]
    assert (found % 2 == targets).all()
    assert set(found.tolist()) < set(range(12))
    assert dict(mine.describe())["splits"] == "rows by split: train 12, val 6"
    assert mine.notes()[0].endswith("left out: 1 other member of shards")


def test_splits_are_told_by_folders_or_drawn(tmp_path):
    write(tmp_path / "a" / "train" / "0.tar", samples(range(6)))
    write(tmp_path / "a" / "test" / "0.tar", samples(range(6)))
    assert [
        len(part) for part in (images(tmp_path / "a").contents().train, images(tmp_path / "a").contents().test)
    ] == [6, 6]
    mine = images(tmp_path / "a" / "train" / "0.tar")
    assert "one sample in 5 of each class is a test image" in mine.notes()[0]
    assert len(mine.contents().train) + len(mine.contents().test) == 6


def test_classes_by_name_and_of_json(tmp_path):
    write(tmp_path / "names.tar", samples(range(12), lambda n: [b"cat\n", b"dog"][n % 2]))
    assert images(tmp_path / "names.tar").class_names == ("cat", "dog")
    write(tmp_path / "notes.tar", samples(range(12), lambda n: json.dumps({"kind": n % 3}).encode(), "json"))
    assert images(tmp_path / "notes.tar", label="json:kind").class_names == ("0", "1", "2")


def test_images_without_a_label_are_named_and_can_be_left_out(tmp_path):
    write(tmp_path / "x.tar", samples(range(18), lambda n: b"" if n == 7 else str(n % 2).encode()))
    with pytest.raises(DataError, match=r"found 1 image without a label, x.tar/00007.png first, .*`cls` beside each"):
        images(tmp_path / "x.tar").check()
    mine = images(tmp_path / "x.tar", on_error="skip")
    assert "left out: 1 image of 18 without a label" in mine.notes()[0]
    assert len(mine.contents().train) + len(mine.contents().test) == 17


def test_a_broken_image_is_named(tmp_path):
    write(tmp_path / "x.tar", [*samples(range(12)), ("00012.png", b"x"), ("00012.cls", b"1")])
    with pytest.raises(DataError, match=r"1 of 13 images that cannot be read: x.tar/00012.png"):
        images(tmp_path / "x.tar").check()


def test_places_are_looked_up_once_until_a_shard_changes(folder, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("MATHNAS_CACHE", str(tmp_path_factory.mktemp("cache")))
    first = images(folder).contents()
    monkeypatch.setattr(Shards, "_held", {})  # as in another process
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_samples_of", None)
        assert images(folder).contents().content_id == first.content_id
    write(folder / "val-0000.tar", samples(range(210, 214)))
    changed = images(folder)
    assert changed.contents().content_id != first.content_id
    assert changed.load().load_test()[0][:, 0, 0, 0].tolist() == [210, 211, 212, 213]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "no .tar file in"),
        (lambda path: write(path / "a.tar", samples(range(4)), "w:gz"), "expected a tar, whole and not compressed"),
        (lambda path: write(path / "a.tar", [("a.txt", b"x")]), "no image in the shards"),
        (lambda path: write(path / "a.tar", [(f"{n}.png", png(n)) for n in range(4)]), "4 images without a label"),
        (lambda path: None, "data.path: found"),
    ],
)
def test_what_are_no_shards_is_said(tmp_path, make, words):
    make(tmp_path / "set")
    with pytest.raises(DataError, match=words):
        images(tmp_path / "set").check()


@pytest.mark.parametrize("share", [0.3, 0.77])
def test_a_shard_that_was_cut_off_is_named(tmp_path, share):
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)) for _ in range(8)]
    members = []
    for n, image in enumerate(noise):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        members += [(f"{n}.png", buffer.getvalue()), (f"{n}.cls", str(n % 2).encode())]
    path = tmp_path / "x.tar"
    write(path, members)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"x.tar.*found unexpected end of data, expected a tar, whole"):
        images(path).check()
