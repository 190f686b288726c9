"""Folders of images as they come: their layouts, what lies beside the images, what cannot be read."""

import hashlib
import itertools
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.study.study import Study
from nas_core.workloads import WORKLOADS
from nas_core.workloads.images import items
from nas_core.workloads.images.decoding import Facts
from nas_core.workloads.images.folder import ImageFolder
from tests.conftest import config_of


def folder(path, **settings) -> ImageFolder:
    return ImageFolder(ImageFolder.Settings(path=str(path), **{"validation_examples": 2, **settings}))


def fill(path, count=3, mode="RGB", size=(12, 8), suffix=".png"):
    path.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        colour = index * 5 if mode == "L" else (index * 5, 0, 0, 255)[: len(mode)]
        Image.new(mode, size, colour).save(path / f"{index}{suffix}", None if suffix != ".jfif" else "JPEG")


def fill_splits(root, train="train", test="test", classes=("cat", "dog"), **options):
    for split, name in itertools.product((train, test), classes):
        fill(root / split / name, **options)


# layouts


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN", "training"])
@pytest.mark.parametrize("test", ["test", "Test", "testing", "val", "valid", "Validation"])
def test_splits_are_known_by_the_names_that_people_give_them(tmp_path, train, test):
    fill_splits(tmp_path, train, test)
    found = folder(tmp_path)
    assert found.class_names == ("cat", "dog")
    assert [len(found.contents().train), len(found.contents().test)] == [6, 6]
    assert found.load().load_test()[1].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_class_may_be_called_like_a_split(tmp_path):
    for name in ("bus", "train"):
        fill(tmp_path / name, 9)
    assert folder(tmp_path).class_names == ("bus", "train")


def test_what_lies_beside_the_splits_is_said(tmp_path, caplog):
    fill_splits(tmp_path)
    fill(tmp_path / "val" / "cat")
    fill(tmp_path / "annotations")
    with caplog.at_level(logging.INFO):
        contents = folder(tmp_path).contents()
    assert contents.notes == ("val/ is not used: validation images are drawn from train/",)
    assert contents.left_out() == ["1 folder beside train/ and test/ (annotations)"]
    assert "val/ is not used" in caplog.text
    rows = dict(folder(tmp_path).describe())
    assert rows["splits"] == contents.notes[0]
    assert rows["left out"] == contents.left_out()[0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train", "Train", "test"], r"found Train/ and train/ in .*, expected one folder of these"),
        (["train"], r"found train/ alone in .*, expected one of test, testing, val, valid, validation beside it"),
        (["test"], r"found test/ alone in .*, expected train/ beside it"),
        (["val"], r"found val/ alone"),
    ],
)
def test_splits_that_are_not_understood(tmp_path, names, message):
    for name, label in itertools.product(names, ("a", "b")):
        fill(tmp_path / name / label)
    with pytest.raises(DataError, match=message):
        folder(tmp_path).check()


def test_without_splits_every_fifth_image_of_a_class_and_one_at_least_is_a_test_image(tmp_path):
    fill(tmp_path / "a", 60)
    fill(tmp_path / "b", 2)
    contents = folder(tmp_path).contents()
    names = set(contents.test.names_N)
    assert {n for n in contents.train.names_N if n.startswith("b")} | {n for n in names if n.startswith("b")} == {
        "b/0.png",
        "b/1.png",
    }
    assert len([name for name in names if name.startswith("b")]) == 1
    by_hash = {name for name in (f"a/{i}.png" for i in range(60)) if hashlib.sha256(name.encode()).digest()[0] % 5 == 0}
    assert {name for name in names if name.startswith("a")} == by_hash
    fill(tmp_path / "a", 80)
    assert names <= set(folder(tmp_path).contents().test.names_N)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("gone", ["empty", "missing"])
def test_a_class_without_images_in_a_split_is_named(tmp_path, split, gone):
    fill_splits(tmp_path, classes=("cat", "dog", "eel"))
    place = tmp_path / split / "dog"
    for path in place.iterdir():
        path.unlink()
    if gone == "missing":
        place.rmdir()
    with pytest.raises(DataError, match="class dog"):
        folder(tmp_path).check()


@pytest.mark.parametrize(("count", "words"), [(0, "no image of class b"), (1, "one image of class b")])
def test_a_class_too_small_to_be_divided_is_named(tmp_path, count, words):
    fill(tmp_path / "a", 9)
    fill(tmp_path / "b", count)
    with pytest.raises(DataError, match=f"{words}, expected two of each class"):
        folder(tmp_path).check()


def test_one_class_is_refused_and_the_folder_that_was_meant_is_named(tmp_path):
    fill_splits(tmp_path / "pets")
    with pytest.raises(DataError, match=r"one class, pets, .* two classes at least.* name .*pets in data.path"):
        folder(tmp_path).check()
    fill_splits(tmp_path / "one", classes=("cat",))
    with pytest.raises(DataError, match="one class, cat"):
        folder(tmp_path / "one").check()


# what lies among the images


def test_what_systems_leave_behind_is_no_image_and_no_class(tmp_path):
    fill_splits(tmp_path)
    before = folder(tmp_path).fingerprint()
    for place in (tmp_path, tmp_path / "train", tmp_path / "train" / "cat"):
        for name in ("._00001.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"):
            (place / name).write_bytes(b"\0")
        for name in ("__MACOSX", ".ipynb_checkpoints", "@eaDir"):
            fill(place / name / "cat")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("x")
    (tmp_path / "train" / "cat" / "README").write_text("x")
    contents = folder(tmp_path).contents()
    assert contents.class_names == ("cat", "dog")
    assert len(contents.train) == 6
    assert contents.left_out() == ["1 .txt file", "1 file without a suffix", "21 hidden and system files or folders"]
    assert folder(tmp_path).fingerprint() == before


@pytest.mark.parametrize("suffix", [".jfif", ".JPG", ".jpe", ".bmp", ".webp", ".tif", ".pgm", ".npy"])
def test_images_are_known_by_every_suffix_that_is_read(tmp_path, suffix):
    fill_splits(tmp_path, suffix=suffix if suffix not in (".npy", ".pgm") else ".png")
    if suffix == ".npy":
        for path in tmp_path.rglob("*.png"):
            np.save(path.with_suffix(".npy"), np.asarray(Image.open(path)))
            path.unlink()
    if suffix == ".pgm":
        for path in tmp_path.rglob("*.png"):
            Image.open(path).convert("L").save(path.with_suffix(".pgm"))
            path.unlink()
    contents = folder(tmp_path).contents()
    assert (len(contents.train), contents.left_out()) == (6, [])
    assert folder(tmp_path).load().load_test()[0].shape == (6, contents.channels, 8, 8)


def test_links_are_followed_and_a_circle_of_them_ends(tmp_path):
    fill_splits(tmp_path / "set")
    fill(tmp_path / "elsewhere", 4)
    (tmp_path / "set" / "train" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "train" / "cat" / "up").symlink_to(tmp_path / "set" / "train" / "cat")
    (tmp_path / "set" / "train" / "dog" / "self").symlink_to("self")
    contents = folder(tmp_path / "set").contents()
    assert len(contents.train) == 3 + 4 + 3
    assert contents.left_out() == ["1 file without a suffix", "1 link to a folder above it"]


@pytest.mark.parametrize(
    "name", ["a b", "ü", "𝔠𝔞𝔱", "%s", "{}", "-rf", "a'b\"c", "new\nline", "x" * 250], ids=lambda name: repr(name)[:12]
)
def test_classes_have_any_name(tmp_path, name):
    fill_splits(tmp_path, classes=(name, "z"))
    assert name in folder(tmp_path).load().output_names


def test_a_class_whose_name_is_no_text_is_refused(tmp_path):
    fill_splits(tmp_path)
    os.rename(os.fsencode(tmp_path / "train" / "cat"), os.fsencode(tmp_path / "train") + b"/c\xff")
    os.rename(os.fsencode(tmp_path / "test" / "cat"), os.fsencode(tmp_path / "test") + b"/c\xff")
    with pytest.raises(DataError, match="names of classes in UTF-8"):
        folder(tmp_path).check()


def test_an_image_may_have_any_name(tmp_path):
    fill_splits(tmp_path)
    os.rename(os.fsencode(tmp_path / "train" / "cat" / "0.png"), os.fsencode(tmp_path / "train" / "cat") + b"/\xff.png")
    assert len(folder(tmp_path).load().train[0]) == 4
    assert len(folder(tmp_path).load().train[0]) == 4  # as remembered


# the whole set decides


def test_one_colour_image_among_gray_ones_makes_the_set_colour(tmp_path):
    fill_splits(tmp_path, mode="L")
    fill(tmp_path / "train" / "dog", 1)
    contents = folder(tmp_path).contents()
    assert (contents.channels, contents.num_gray) == (3, 11)
    assert dict(folder(tmp_path).describe())["gray images, shown in colour"] == "11"


def test_a_gray_first_image_does_not_turn_a_set_gray(tmp_path):
    fill_splits(tmp_path)
    Image.new("L", (12, 8), 9).save(tmp_path / "train" / "cat" / "0.png")
    data = folder(tmp_path, validation_examples=1).load()
    images = data.train[0]
    assert images.shape[1] == 3
    assert {tuple(image[:, 0, 0].tolist()) for image in images} >= {(10, 0, 0)}


def test_the_side_is_the_middle_one_of_the_set_or_as_set(tmp_path):
    fill_splits(tmp_path)
    Image.new("RGB", (900, 700)).save(tmp_path / "train" / "cat" / "0.png")
    assert folder(tmp_path).sample.shape == (3, 8, 8)
    assert folder(tmp_path, side=5).load().train[0].shape[1:] == (3, 5, 5)
    assert dict(folder(tmp_path).describe())["as stored"] == "sides of 8 to 900 pixels"
    for path in tmp_path.rglob("*.png"):
        Image.new("RGB", (900, 700)).save(path)
    os.utime(tmp_path)
    assert folder(tmp_path).sample.shape == (3, 224, 224)


def test_numbers_of_channels_that_do_not_go_together_are_named(tmp_path):
    fill_splits(tmp_path)
    np.save(tmp_path / "train" / "cat" / "x.npy", np.zeros((8, 8, 5), np.uint8))
    with pytest.raises(DataError, match=r"3 channels in 12 \(train/cat/0.png\); 5 channels in 1 \(train/cat/x.npy\)"):
        folder(tmp_path).check()


def test_sets_of_many_channels(tmp_path):
    for split, name, index in itertools.product(("train", "test"), "ab", range(3)):
        (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / split / name / f"{index}.npy", np.full((8, 8, 13), index, np.uint8))
    found = folder(tmp_path)
    assert found.sample.shape == (13, 8, 8)
    assert found.describe()[0][1] == "13 channels, 8 x 8, 2 classes"
    assert found.load().train[0].shape == (4, 13, 8, 8)


# images that cannot be read


@pytest.fixture
def broken(tmp_path):
    fill_splits(tmp_path, count=4)
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "test" / "dog" / "1.png").write_bytes((tmp_path / "test" / "dog" / "2.png").read_bytes()[:40])
    (tmp_path / "test" / "dog" / "3.png").unlink()
    (tmp_path / "test" / "dog" / "3.png").symlink_to("nowhere")
    return tmp_path


def test_what_cannot_be_read_is_named_and_counted_before_anything_is_computed(broken):
    message = r"3 of 16 images that cannot be read: train/cat/0.png \(.+\), test/dog/1.png, test/dog/3.png, expected"
    for question in (folder(broken).check, lambda: folder(broken).sample, folder(broken).load):
        with pytest.raises(DataError, match=message):
            question()
    with pytest.raises(DataError, match=r"Mend them, or set data.on_error: skip"):
        folder(broken).check()


def test_it_can_be_left_out_and_that_is_said(broken, caplog):
    found = folder(broken, on_error="skip")
    sentence = "3 of 16 images cannot be read: train/cat/0.png, test/dog/1.png, test/dog/3.png"
    with caplog.at_level(logging.INFO):
        data = found.load()
    assert sentence in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]  # a run says it, once
    assert found.notes() == [f"{broken}: left out: {sentence}"]
    assert dict(found.describe())["left out"] == sentence
    assert found.num_examples() == (5, 2)
    assert len(data.load_test()[1]) == 6
    whole = found.identity
    for name in ("train/cat/0.png", "test/dog/1.png", "test/dog/3.png"):
        (broken / name).unlink()
    assert folder(broken).identity == whole  # what was left out is no part of the data


def test_a_class_of_which_nothing_is_left_is_named(broken):
    for path in (broken / "test" / "dog").iterdir():
        path.unlink()
        path.write_bytes(b"x")
    with pytest.raises(DataError, match="no test image of class dog that can be read"):
        folder(broken, on_error="skip").check()


def test_an_image_is_read_once_and_then_known_by_its_size_and_time(tmp_path, monkeypatch):
    fill_splits(tmp_path)
    read = []

    def look(content):
        read.append(content)
        return Facts(channels=3, shorter=8, longer=12)

    monkeypatch.setattr(items, "facts_of", look)
    folder(tmp_path).check()
    assert len(read) == 12
    (tmp_path / "new.txt").write_text("x")  # the process looks again
    folder(tmp_path).check()
    assert len(read) == 12
    fill(tmp_path / "test" / "cat", 4, size=(20, 30))
    folder(tmp_path).check()
    assert len(read) == 16


def test_a_damaged_memory_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("MATHNAS_CACHE", str(tmp_path / "cache"))
    fill_splits(tmp_path / "set")
    folder(tmp_path / "set").check()
    [remembered] = (tmp_path / "cache" / "checked").glob("*.parquet")
    remembered.write_bytes(b"PAR1")
    os.utime(tmp_path / "set")
    folder(tmp_path / "set").check()
    assert remembered.stat().st_size > 100


def test_without_a_cache_it_works_as_well(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MATHNAS_CACHE", str(tmp_path / "file" / "cache"))
    fill_splits(tmp_path / "set")
    assert len(folder(tmp_path / "set").load().train[0]) == 4


def test_settings_that_are_no_colour_or_scale(tmp_path):
    from pydantic import ValidationError

    for wrong in ({"background": "puce-ish"}, {"interpolation": "cubic"}, {"crop_pct": 0}, {"fit": "stretch"}):
        with pytest.raises(ValidationError):
            WORKLOADS["folder"].Settings(path=str(tmp_path), **wrong)


# what a set is known by


def _rewrite(path, pixel):
    """Another image of as many bytes, as old as the one before."""
    stamp, before = path.stat(), path.read_bytes()
    Image.new("RGB", (12, 8), pixel).save(path, "BMP")
    assert len(path.read_bytes()) == len(before)
    return stamp


@pytest.mark.situations
def test_the_same_images_are_the_same_data_wherever_and_whenever_they_lie(tmp_path, monkeypatch):
    fill_splits(tmp_path / "here")
    known = folder(tmp_path / "here").identity
    shutil.copytree(tmp_path / "here", tmp_path / "elsewhere" / "copy")
    (tmp_path / "link").symlink_to(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "elsewhere" / "copy", tmp_path / "link", "here", "elsewhere/../here/"):
        assert folder(path).identity == known, path
    (tmp_path / "here").rename(tmp_path / "moved")
    for path in (tmp_path / "moved").rglob("*.png"):
        os.utime(path, (1, 1))
    assert folder(tmp_path / "moved").identity == known
    assert "moved" not in str(known)


@pytest.mark.situations
def test_other_bytes_names_or_splits_are_other_data(tmp_path):
    def identity(name, change):
        fill_splits(tmp_path / name, suffix=".bmp")
        change(tmp_path / name)
        return str(folder(tmp_path / name).identity)

    def swapped(root):
        one, other = root / "train" / "cat" / "0.bmp", root / "test" / "cat" / "1.bmp"
        one.write_bytes(other.read_bytes())

    changes = {
        "nothing": lambda root: None,
        "bytes of the same size": lambda root: _rewrite(root / "train" / "cat" / "0.bmp", (9, 9, 9)),
        "an image of the other split": swapped,
        "a name": lambda root: (root / "train" / "cat" / "0.bmp").rename(root / "train" / "cat" / "zero.bmp"),
        "a class": lambda root: [(root / split / "dog").rename(root / split / "wolf") for split in ("train", "test")],
        "one image more": lambda root: fill(root / "train" / "cat", 4, suffix=".bmp"),
    }
    found = [identity(name, change) for name, change in changes.items()]
    assert len(set(found)) == len(changes)


@pytest.mark.situations
def test_a_file_is_not_read_again_while_its_size_and_time_stay(tmp_path):
    fill_splits(tmp_path / "set", suffix=".bmp")
    path = tmp_path / "set" / "train" / "cat" / "0.bmp"
    known = folder(tmp_path / "set").identity
    stamp = _rewrite(path, (9, 9, 9))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    ImageFolder._held.clear()  # as in another process
    assert folder(tmp_path / "set").identity == known
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    ImageFolder._held.clear()
    assert folder(tmp_path / "set").identity != known


@pytest.mark.situations
def test_another_path_to_the_same_images_reuses_what_was_evaluated(tmp_path):
    fill_splits(tmp_path / "here", count=8)
    shutil.copytree(tmp_path / "here", tmp_path / "there")

    def study(place):
        data = {"kind": "folder", "path": str(tmp_path / place), "validation_examples": 4}
        recipe = {"epochs": 1}
        train = {"train_examples": None, "compare_random": 0}
        config = config_of(data=data, scorer={"kind": "train", "recipe": recipe}, train=train)
        return Study.create(config, str(tmp_path / "study"))

    first = study("here")
    genotype = next(iter(first.space.genotypes()))
    first.store.add_evaluations([first.scorer.rows.ok(genotype, 0.5, 4, 1.0)])
    second = study("there")
    assert second.scorer_id == first.scorer_id
    assert [row.genotype for row in second.evaluations()] == [str(genotype)]
    assert second.inputs_of("train") == first.inputs_of("train")


def test_the_loss_of_a_batch_looks_at_no_files(tmp_path):
    fill_splits(tmp_path)
    found = folder(tmp_path)
    examples = found.load()
    shutil.rmtree(tmp_path)
    targets = examples.train[1][:2]
    assert float(found.loss(torch.zeros(2, 2), targets)) == pytest.approx(np.log(2))
    assert found.reduced(torch.zeros(2, 2), targets).shape == (2, 2)
