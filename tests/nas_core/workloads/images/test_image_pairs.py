"""Images with masks or with images: real pairs, maps that move with their images, what is wrong in one line."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from nas_core.base.errors import DataError
from nas_core.families.family import FAMILIES
from nas_core.records.store import Store
from nas_core.space.genotypes import Genotype
from nas_core.training.checkpoint import Checkpoint
from nas_core.training.loop import measure_all, train
from nas_core.training.settings import Recipe
from nas_core.training.winner import _beside_untouched
from nas_core.workloads import WORKLOADS
from nas_core.workloads.examples import Examples
from nas_core.workloads.images.image_pairs import ImageToImage, Segmentation
from nas_core.workloads.segmentation import IGNORED
from tests.real_images import write_pairs
from tests.test_readme import ROOT

COUNT = 120


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), COUNT, noise=0.1)


@pytest.fixture
def few(tmp_path):
    return write_pairs(tmp_path / "few", 24)


def masks(path, **settings) -> Segmentation:
    return Segmentation(Segmentation.Settings(**{"path": str(path), "validation_examples": 4, **settings}))


def pictures(path, **settings) -> ImageToImage:
    return ImageToImage(ImageToImage.Settings(**{"path": str(path), "validation_examples": 4, **settings}))


def family(workload):
    kind = FAMILIES["yaml"]
    return kind(kind.Settings(file=str(ROOT / "flows/configs/dense-example.yaml")), workload.sample)


def test_masks_are_class_numbers_of_the_images_side(pairs):
    workload = masks(pairs, classes={0: "background", 1: "item"})
    assert workload.sample.shape == (1, 28, 28)
    assert (workload.sample.num_outputs, workload.sample.dense) == (2, True)
    inputs, targets = workload.load().load_test()
    assert targets.shape == (len(inputs), 28, 28)
    clean = pictures(pairs).load().load_test()[1]
    assert torch.equal(targets.bool(), clean[:, 0] > 30)
    assert workload.load((1, 14, 14)).train[1].shape[1:] == (14, 14)


@pytest.mark.parametrize("make", [masks, pictures])
def test_a_space_without_python_learns_them(pairs, make):
    workload = make(pairs)
    splits = workload.load()
    network = family(workload).module(Genotype((0, 3, 3)), torch.Generator().manual_seed(0))
    measured = [
        measure_all(network, workload.metrics, splits.load_test(), splits.prepare, device="cpu", workload=workload)
        for _ in (train(network, recipe, splits, workload, seed=0, device="cpu") for recipe in RECIPES)
    ]
    name = next(iter(workload.metrics))
    assert measured[1][name] > measured[0][name]
    if make is masks:
        assert measured[1][name] > 0.75
        return
    _, targets = splits.load_test()
    gray = torch.full(targets.shape, float(splits.train[1].float().mean()) / 255)
    assert measured[1][name] > workload.metrics[name].of(gray, targets) + 3


RECIPES = [Recipe(epochs=1, batch_size=16, lr=1e-6), Recipe(epochs=5, batch_size=16, lr=0.05, augment="crop-flip")]


@pytest.mark.parametrize("kind", ["crop-flip-cutout", "resized-crop-flip"])
@pytest.mark.parametrize("make", [masks, pictures])
def test_maps_move_with_their_images(few, make, kind):
    workload = make(few)
    inputs, targets = workload.load().train
    images = inputs.float() / 255  # so that zeros that come in are black
    moved, maps = workload.augment_both(images, targets, kind, torch.Generator().manual_seed(0))
    if make is pictures:  # without noise, the two are one image
        kept = ~maps.isnan()
        assert torch.allclose(moved[kept], maps[kept], atol=1e-5)
        assert 0.5 < kept.float().mean() <= 1
        return
    kept = maps != IGNORED
    agree = (maps[kept] == (moved[:, 0][kept] * 255 > 30)).float().mean()
    assert agree == 1 if "resized" not in kind else agree > 0.9
    assert set(maps.unique().tolist()) <= {0, 1, IGNORED}


def test_padded_pixels_do_not_count(tmp_path):
    for name, value in (("images", 90), ("masks", 1)):
        (tmp_path / name).mkdir()
        for index in range(10):
            array = np.full((12, 24), value, dtype=np.uint8)
            array[:, :8] = 0
            Image.fromarray(array).save(tmp_path / name / f"{index}.png")
    workload = masks(tmp_path, fit="pad", side=24, validation_examples=2)
    _, targets = workload.load().train
    assert (targets[:, :6] == IGNORED).all()
    assert (targets[:, 6:18, :8] == 0).all()
    assert (targets[:, 6:18, 8:] == 1).all()
    assert masks(tmp_path, side=6, validation_examples=2).load().train[1].unique().tolist() == [0, 1]


def test_values_of_a_palette_or_of_an_array_are_the_classes(few):
    for index, path in enumerate(sorted((few / "masks").iterdir())):
        values = np.array(Image.open(path)) * 7
        if index % 2:
            path.unlink()
            np.save(path.with_suffix(".npy"), values)
            continue
        image = Image.fromarray(values).convert("P")
        image.putdata(values.ravel().tolist())
        image.putpalette([200, 10, 10] * 256)  # every value looks alike
        image.save(path)
    assert masks(few).targets.names == ("0", "7")


@pytest.mark.parametrize("make", [masks, pictures])
def test_maps_are_held_as_their_images_are_and_train_the_same_network(few, make, tmp_path, monkeypatch):
    """In memory, mapped and streamed: the same pairs in the same order; killed and resumed within an epoch, too."""
    monkeypatch.setenv("MATHNAS_CACHE", str(tmp_path / "cache"))
    recipe, states = Recipe(epochs=2, batch_size=6, augment="crop-flip"), []

    def trained(way, killed_at=None, checkpoint=None):
        workload = make(few, hold=way, loaders=1)
        splits = workload.load()
        assert isinstance(splits.train[1], Examples) == isinstance(splits.train[0], Examples) == (way == "stream")
        network = family(workload).module(Genotype((0, 3, 3)), torch.Generator().manual_seed(0))

        def on_step(done, total):
            if done == killed_at:
                raise Killed

        train(network, recipe, splits, workload, seed=0, device="cpu", checkpoint=checkpoint, on_step=on_step)
        values = measure_all(
            network, workload.metrics, splits.validation, splits.prepare, device="cpu", workload=workload
        )
        return {**network.state_dict(), "metric": torch.tensor(list(values.values()))}

    states = [trained(way) for way in ("memory", "map", "stream")]
    checkpoint = Checkpoint(store=Store(tmp_path / "store"), path="c.safetensors", run_id="a", every_s=0)
    with pytest.raises(Killed):
        trained("stream", 3, checkpoint)
    states.append(trained("stream", checkpoint=checkpoint))
    for other in states[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in states[0].items())


class Killed(BaseException):
    pass


def test_a_pair_that_comes_to_a_nested_folder_is_seen(few):
    for name in ("images", "masks"):
        (few / name / "deep" / "er").mkdir(parents=True)
    before = masks(few).num_images() + masks(few).num_test_images()
    for name in ("images", "masks"):
        shutil.copy(few / name / "00003.png", few / name / "deep" / "er" / "new.png")
    assert masks(few).num_images() + masks(few).num_test_images() == before + 1


def test_what_is_no_image_is_counted_and_links_are_followed(few, tmp_path):
    (few / "masks" / "notes.txt").write_text("no mask")
    for name in ("images", "masks"):
        (few / name).rename(tmp_path / name)
        (few / name).mkdir()
        (few / name / "linked").symlink_to(tmp_path / name)
        (tmp_path / name / "above").symlink_to(tmp_path / name)
    workload = masks(few)
    assert workload.num_images() + workload.num_test_images() == 24
    assert "2 links to a folder above them" in workload.notes()[0]
    assert "1 .txt file" in workload.notes()[0]


def test_a_denoising_network_is_better_than_its_input(pairs):
    """By the example's space, whose networks begin with leaving images as they are; the report says what that gives."""
    workload = pictures(pairs, normalise="none")
    splits, kind = workload.load(), FAMILIES["yaml"]
    space = kind(kind.Settings(file=str(ROOT / "flows/configs/denoising-example.yaml")), workload.sample)
    network = space.module(Genotype((0, 3, 0)), torch.Generator().manual_seed(0))
    recipe = Recipe(epochs=8, batch_size=8, optimizer="adamw", lr=1e-2, weight_decay=0)
    train(network, recipe, splits, workload, seed=0, device="cpu")
    inputs, targets = splits.load_test()
    found = measure_all(network, workload.metrics, (inputs, targets), splits.prepare, device="cpu", workload=workload)
    untouched = workload.untouched(inputs, targets)
    left = workload.metrics["psnr"].of(untouched, targets)
    assert left == pytest.approx(workload.metrics["psnr"].of(inputs / 255, targets))
    assert found["psnr"] > left + 0.5
    rows = _beside_untouched(workload, untouched, (inputs, targets))["table"]["rows"]
    assert [row[1] for row in rows] == [f"{left:.4g} dB"] * 2


def test_splits_in_folders(few):
    for split, count in (("train", 18), ("Test", 6)):
        for name in ("images", "masks"):
            (few / split / name).mkdir(parents=True)
            for path in sorted((few / name).glob("*.png"))[:count]:
                path.rename(few / split / name / path.name)
    shutil.rmtree(few / "images")
    shutil.rmtree(few / "masks")
    workload = masks(few)
    assert (workload.num_images(), workload.num_test_images()) == (18, 6)


def test_masks_of_gray_with_alpha(few):
    """What alpha says is nothing of classes."""
    before = masks(few).load().train[1]
    for path in (few / "masks").iterdir():
        image = Image.open(path).convert("L")
        image.putalpha(200)
        image.save(path)
    assert torch.equal(masks(few).load().train[1], before)


def test_a_value_that_does_not_count(few):
    path = few / "masks" / "00003.png"
    values = np.array(Image.open(path))
    values[:5] = 255
    Image.fromarray(values).save(path)
    with pytest.raises(DataError, match=r"the mask value 255 of images/00003.png, expected one of: 0, 1"):
        masks(few, classes={0: "background", 1: "item"}).check()
    workload = masks(few, ignore=255)
    assert workload.targets.names == ("0", "1")
    splits = workload.load()
    both = torch.cat([splits.train[1], splits.validation[1], splits.load_test()[1]])
    assert int((both == IGNORED).sum()) == 5 * 28


def small(path):
    Image.open(path).resize((20, 28)).save(path)


def broken(path):
    path.write_bytes(b"no image")


def colourful(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (28, 28, 3), dtype=np.uint8)).save(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (small, r"1 of 24 images that .*: images/00003.png \(28 x 28 pixels, and masks/00003.png 20 x 28\)"),
        (broken, r"images/00003.png \(no image, as far as Pillow knows\)"),
        (colourful, "a mask in colour; masks of one channel are read"),
        (lambda path: path.unlink(), "1 file without a partner of the same name: images/00003.png"),
    ],
)  # fmt: skip
def test_a_mask_that_does_not_fit_is_named_and_can_be_left_out(few, change, words):
    change(few / "masks" / "00003.png")
    with pytest.raises(DataError, match=words):
        masks(few).check()
    workload = masks(few, on_error="skip")
    assert workload.num_images() + workload.num_test_images() == 23
    assert "left out" in workload.notes()[0]


def test_what_is_no_set_of_pairs_is_said(few):
    with pytest.raises(DataError, match=r"data.path: found nothing, expected a folder with images/ and masks/"):
        Segmentation(Segmentation.Settings()).check()
    with pytest.raises(DataError, match="no labels/ in"):
        masks(few, masks="labels").check()
    for path in (few / "masks").iterdir():
        Image.fromarray(np.zeros((28, 28), dtype=np.uint8)).save(path)
    with pytest.raises(DataError, match="found masks of one class, 0, expected two classes"):
        masks(few).check()


@pytest.mark.parametrize("make", [masks, pictures])
def test_one_pair_cannot_be_both_trained_and_tested_on(tmp_path, make):
    with pytest.raises(DataError, match=r"found no (train|test) image that can be read, expected one of each split"):
        make(write_pairs(tmp_path / "one", 1)).check()


@pytest.mark.parametrize("value", [-1, 65_536])
def test_a_class_is_a_value_that_masks_can_have(value):
    with pytest.raises(ValidationError, match="classes"):
        masks("", classes={0: "background", value: "item"})


def test_examples_are_shown_side_by_side(few):
    for make, names in ((masks, ["input", "mask", "output"]), (pictures, ["input", "target", "output"])):
        workload = make(few)
        inputs, targets = workload.load().load_test()
        outputs = torch.rand(2, workload.sample.num_outputs, 28, 28)
        shown = workload.shown(inputs[:2], outputs, targets[:2])
        assert [name for name, _ in shown[0]["pictures"]] == names


@pytest.mark.situations
@pytest.mark.parametrize("make", [masks, pictures])
def test_a_link_to_itself_beside_the_folders_is_none(few, make):
    (few / "link").symlink_to(few / "link")
    assert make(few).num_images()


@pytest.mark.situations
@pytest.mark.parametrize("kind", ["folder", "segmentation", "image-table", "rows", "parquet", "timm"])
def test_a_path_that_no_system_allows_is_a_clear_error(kind):
    settings = WORKLOADS[kind].Settings(path="x" * 5000)
    with pytest.raises(DataError, match=r"data\.path"):
        WORKLOADS[kind](settings).check()


@pytest.mark.parametrize(("loaders", "each"), [(1, 1), (2, 1), (4, 2)])
def test_images_and_maps_that_are_streamed_share_the_loader_processes(few, loaders, each):
    streamed = masks(few, hold="stream", loaders=loaders).load().train
    images, maps = streamed[0], streamed[1].examples
    batches = torch.arange(8).split(2)
    for stream in (images, maps):
        stream.expect(batches)
        assert stream._loader.num_workers == each
        assert len([stream.batch(index) for index in batches]) == len(batches)
        stream.expect([])


def test_a_third_split_is_said(few):
    for split in ("train", "test", "val"):
        shutil.copytree(few / "images", few / split / "images")
        shutil.copytree(few / "masks", few / split / "masks")
    assert "val/ is not used: validation pairs are drawn from the training pairs" in masks(few).notes()[0]
    shutil.rmtree(few / "test")
    assert "val/ serves as the test split" in masks(few).notes()[0]


def test_metrics_of_pairs_are_named_without_them():
    assert next(iter(masks("/gone").metrics)) == "mean_iou"
    assert next(iter(pictures("/gone").metrics)) == "psnr"
