"""Images by timm's readers: the same as those of the folder that they were packed from."""

import itertools
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.workloads.images.folder import ImageFolder
from nas_core.workloads.images.timm_images import Source, TimmImages, _dataset, _items


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, name, index in itertools.product(("train", "validation"), ("cat", "dog"), range(6)):
        path = root / split / name / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (10, 12, 3), np.uint8)).save(path)
    return root


def images(kind=TimmImages, **settings):
    return kind(kind.Settings(**{"validation_examples": 2, **settings}))


def pixels(pair) -> set[bytes]:
    return {image.numpy().tobytes() + bytes([int(label)]) for image, label in zip(*pair, strict=True)}


@pytest.mark.parametrize("kind", ["folder", "tar", "torch/folder"])
def test_readers_give_what_the_folder_gives(photos, tmp_path, kind):
    path, dataset = photos, ""
    if kind == "tar":
        path = tmp_path
        for split in ("train", "validation"):
            with tarfile.open(tmp_path / f"{split}.tar", "w") as tar:
                tar.add(photos / split, arcname=split)
    elif kind == "torch/folder":
        dataset = kind
    mine = images(dataset=dataset, path=str(path))
    theirs = images(ImageFolder, path=str(photos))
    assert mine.class_names == theirs.class_names
    assert mine.sample == theirs.sample
    data, other = mine.load(), theirs.load()
    assert pixels(data.load_test()) == pixels(other.load_test())
    both = [pixels(each.train) | pixels(each.validation) for each in (data, other)]
    assert both[0] == both[1]


def test_one_tar_is_divided(photos, tmp_path):
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(photos / "train", arcname="all")
    mine = images(path=str(tmp_path / "all.tar"))
    contents = mine.contents()
    assert (len(contents.train) + len(contents.test), contents.class_names) == (12, ("cat", "dog"))
    assert not set(contents.train.names_N) & set(contents.test.names_N)
    assert "one image in 5 of each class" in dict(mine.describe())["splits"]


def test_tars_are_read_by_loader_processes(photos, tmp_path):
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(photos / "train", arcname="all")
    first, second = (images(path=str(tmp_path / "all.tar"), hold=way, loaders=2).load() for way in ("memory", "stream"))
    index = torch.arange(len(first.train[1]))
    second.train[0].expect(index.split(3))
    assert all(torch.equal(second.train[0][some], first.train[0][some]) for some in index.split(3))


def test_a_process_that_is_forked_reads_a_tar_through_its_own_handle(photos, tmp_path):
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(photos / "train", arcname="all")
    source = Source("", str(tmp_path / "all.tar"), "train", False, "")
    items, _ = _items(source)
    first = items.content(0)
    handle = _dataset(source).reader.tar_state.tf.fileobj.fileno()
    here = os.lseek(handle, 0, os.SEEK_CUR)
    if (child := os.fork()) == 0:
        os._exit(0 if items.content(len(items) - 1) != first else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert os.lseek(handle, 0, os.SEEK_CUR) == here


@pytest.mark.parametrize("num_tars", [1, 2])
def test_a_tar_that_is_no_longer_read_is_closed(photos, tmp_path, num_tars):
    path = tmp_path / "inner.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(photos / "train", arcname="all")
    if num_tars == 2:
        path = tmp_path / "outer.tar"
        with tarfile.open(path, "w") as tar:
            tar.add(tmp_path / "inner.tar", arcname="inner.tar")
    source = Source("", str(path), "train", False, "")
    assert _items(source)[0].content(0)
    state = _dataset(source).reader.tar_state
    handles = [each.tf for each in (state, *state.children.values())]
    assert [handle.closed for handle in handles] == [False] * num_tars
    _dataset.cache_clear()
    assert [handle.closed for handle in handles] == [True] * num_tars


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"data\.path: found nothing"),
        ({"path": "/nowhere"}, "found /nowhere"),
        ({"dataset": "torch/nothing", "path": "/tmp"}, "Unknown torchvision dataset nothing"),
        ({"dataset": "hfds/nothing", "path": "/tmp"}, "a set that timm.data.create_dataset finds"),
        ({"dataset": "wds/nothing", "path": "/tmp"}, "a set that timm.data.create_dataset finds"),
    ],
)
def test_what_timm_does_not_find(settings, message):
    with pytest.raises(DataError, match=message):
        images(**settings).check()
