"""Images in memory, in a file that workers share, or decoded as they are needed: the same ones in the same order."""

import itertools
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.records.store import Store
from nas_core.training.checkpoint import Checkpoint
from nas_core.training.loop import outputs_of, train
from nas_core.training.network import build_network
from nas_core.training.settings import Recipe
from nas_core.workloads.examples import Examples, batches_of
from nas_core.workloads.images import holding
from nas_core.workloads.images.digits import Digits
from nas_core.workloads.images.folder import ImageFolder
from nas_core.workloads.images.holding import Holding
from nas_core.workloads.images.pixels import EncodedPixels
from tests.spaces import tiny

WAYS = ("memory", "map", "stream")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes that a network can tell apart, of images of several sizes."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, (label, name), index in itertools.product(("train", "test"), enumerate(("dark", "light")), range(30)):
        path = root / split / name / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(100 * label, 100 * label + 100, (*rng.integers(8, 20, 2), 3))
        Image.fromarray(noise.astype(np.uint8)).save(path)
    return root


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MATHNAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(holding, "CHUNK_BYTES", 8 * 3 * 8 * 8)  # eight images of the smallest size
    monkeypatch.setattr(holding, "SYNC_EVERY", 1)
    return tmp_path / "cache"


def workload(path, **settings) -> ImageFolder:
    return ImageFolder(ImageFolder.Settings(path=str(path), validation_examples=12, side=8, **settings))


def all_of(inputs) -> torch.Tensor:
    return torch.cat(list(batches_of(inputs, 7)))


def test_the_three_ways_give_the_same_images_in_the_same_order(photos, cache):
    loaded = [workload(photos, hold=way).load() for way in WAYS]
    first = loaded[0]
    for other in loaded[1:]:
        assert other.prepare == first.prepare
        for mine, theirs in ((first.train, other.train), (first.validation, other.validation)):
            assert torch.equal(all_of(mine[0]), all_of(theirs[0]))
            assert torch.equal(mine[1], theirs[1])
        for mine, theirs in zip(first.load_test(), other.load_test(), strict=True):
            assert torch.equal(*(all_of(each) if isinstance(each, Examples) else each for each in (mine, theirs)))
    assert isinstance(loaded[2].train[0], Examples)


def test_the_three_ways_train_the_same_network(photos, cache):
    """Bit for bit, an augmented training that is validated after each epoch."""
    space, states = tiny(in_channels=3, num_classes=2), []
    recipe = Recipe(epochs=2.5, batch_size=8, augment="crop-flip")
    for way in WAYS:
        mine = workload(photos, hold=way, loaders=2)
        data = mine.load(mine.sample.shape_at(8, 3))
        network = build_network(space.architecture(space.parse("1-0-1")), seed=3)
        train(
            network, recipe, data, mine, seed=5, device="cpu",
            validate=lambda n, d=data: {"mean": float(outputs_of(n, d.validation[0], d.prepare, device="cpu").mean())},
        )  # fmt: skip
        states.append(network.state_dict())
    for other in states[1:]:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(states[0].values(), other.values(), strict=True))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("way", ["map", "stream"])
def test_a_killed_training_goes_on_in_the_middle_of_an_epoch(photos, cache, tmp_path, way):
    """Bit for bit, though the batches that were announced and not taken are lost with the process."""
    space, mine = tiny(in_channels=3, num_classes=2), workload(photos, hold=way, loaders=2)
    recipe = Recipe(epochs=2.5, batch_size=8, augment="crop-flip", policy="trivial-augment", mixup=0.4)
    checkpoint = Checkpoint(store=Store(tmp_path / "store"), path="c.safetensors", run_id="a", every_s=0)

    def trained(killed_at=None, checkpoint=None):
        network = build_network(space.architecture(space.parse("1-0-1")), seed=3)
        data = mine.load(mine.sample.shape_at(8, 3))

        def on_step(done, total):
            if done == killed_at:
                raise Killed

        result = train(network, recipe, data, mine, seed=5, device="cpu", checkpoint=checkpoint, on_step=on_step)
        return result.history, network.state_dict()

    for killed_at in (3, 9):
        with pytest.raises(Killed):
            trained(killed_at, checkpoint)
    (history, state), (of_whole, whole) = trained(checkpoint=checkpoint), trained()
    assert history == of_whole
    assert all(torch.equal(tensor, whole[name]) for name, tensor in state.items())


def test_sets_that_are_no_files_are_held_alike(cache):
    loaded = [
        Digits(Digits.Settings(validation_examples=20, train_examples=50, hold=way)).load((3, 12, 12)) for way in WAYS
    ]
    for other in loaded[1:]:
        assert other.prepare == loaded[0].prepare
        assert torch.equal(all_of(loaded[0].train[0]), all_of(other.train[0]))
        assert torch.equal(loaded[0].validation[1], other.validation[1])


def test_how_a_set_is_held_is_no_part_of_what_is_scored(photos):
    identities = [workload(photos, hold=way, loaders=n, cache_gb=n).identity for n, way in enumerate(WAYS)]
    assert identities[0] == identities[1] == identities[2]


def test_the_first_way_that_fits_is_taken_and_said(photos, cache, monkeypatch, caplog):
    assert "in each worker's memory" in workload(photos).held()
    monkeypatch.setattr(holding, "MOST_IN_MEMORY", 1000)
    assert f"once per node in {cache / 'decoded'}" in workload(photos).held()
    assert "by loader processes" in workload(photos, cache_gb=1e-6).held()
    assert "by loader processes" in workload(photos, cache_gb=2e-5).held((3, 16, 16))
    with caplog.at_level("INFO"):
        assert isinstance(workload(photos, cache_gb=0).load().train[0], Examples)
    assert "by loader processes" in caplog.text
    monkeypatch.setenv("MATHNAS_CACHE", "/proc/nowhere")
    assert "by loader processes" in workload(photos).held()


def test_a_file_is_made_once_and_goes_on_where_it_was_broken_off(photos, cache, monkeypatch):
    made, real = [], EncodedPixels.batch

    def batch(self, index):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(len(index))
        return real(self, index)

    monkeypatch.setattr(holding, "usable_cpus", lambda: 1)
    monkeypatch.setattr(EncodedPixels, "batch", batch)
    with pytest.raises(KeyboardInterrupt):
        workload(photos, hold="map").load()
    assert not list((cache / "decoded").glob("*.u8"))
    monkeypatch.setattr(EncodedPixels, "batch", lambda self, index: made.append(len(index)) or real(self, index))
    data = workload(photos, hold="map").load()
    assert 60 <= sum(made) <= 60 + 2 * 8  # what was under way when it was broken off
    monkeypatch.setattr(EncodedPixels, "batch", real)
    assert torch.equal(data.train[0], workload(photos, hold="memory").load().train[0])
    monkeypatch.setattr(EncodedPixels, "batch", batch)
    assert torch.equal(workload(photos, hold="map").load().train[0], data.train[0])
    assert [path.suffix for path in (cache / "decoded").iterdir() if path.suffix != ".lock"] == [".u8"]


def test_files_give_way_to_others_those_first_that_were_not_used_for_long(photos, cache):
    one = 60 * 3 * 8 * 8
    for number, side in enumerate((8, 7, 6)):
        mine = workload(photos, hold="map", cache_gb=2 * one / 1e9)
        mine.load((3, side, side))
        for path in (cache / "decoded").glob("*.u8"):
            if path.stat().st_mtime > 1e9:
                os.utime(path, (number, number))
        workload(photos, hold="map").load()
    assert sorted(path.stat().st_size for path in (cache / "decoded").glob("*.u8")) == [60 * 3 * 36, one]


def test_changed_images_are_decoded_anew(photos, cache, tmp_path):
    import shutil

    shutil.copytree(photos, tmp_path / "set")
    before = workload(tmp_path / "set", hold="map").load().train[0].clone()
    for path in (tmp_path / "set" / "train").rglob("*.jpg"):
        Image.new("RGB", (9, 9), "red").save(path)
    os.utime(tmp_path / "set")
    after = workload(tmp_path / "set", hold="map").load().train[0]
    assert not torch.equal(before, after)
    assert (after[:, 0] > 250).all()


@pytest.mark.parametrize("way", WAYS)
def test_an_image_that_breaks_after_the_check_is_named(photos, cache, tmp_path, way):
    import shutil

    shutil.copytree(photos, tmp_path / "set")
    mine = workload(tmp_path / "set", hold=way)
    mine.check()
    for path in (tmp_path / "set" / "train").rglob("*.jpg"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"set, train/.*jpg: found no image"):
        all_of(mine.load().train[0])


def test_a_full_disk_makes_batches_as_they_are_needed(photos, cache, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(holding.os, "truncate", full)
    data = workload(photos, hold="map").load()
    assert isinstance(data.train[0], Examples)
    assert "No space left on device" in caplog.text


def test_two_workers_at_once_make_one_file(photos, cache, monkeypatch):
    made, real = [], EncodedPixels.batch
    monkeypatch.setattr(EncodedPixels, "batch", lambda self, index: made.append(len(index)) or real(self, index))
    workload(photos).check()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: workload(photos, hold="map").load().train[0], range(2))
    assert torch.equal(first, second)
    assert sum(made) == 60


def test_a_batch_that_was_not_announced_is_made_when_it_is_asked_for(photos, cache):
    inputs = workload(photos, hold="stream").load().train[0]
    inputs.expect([torch.tensor([0, 1]), torch.tensor([2])])
    assert torch.equal(inputs[torch.tensor([5, 3])], all_of(inputs)[[5, 3]])
    assert inputs[3:9].shape == (6, 3, 8, 8)
    assert len(inputs[40:9]) == 0


def test_loaders_stay_from_epoch_to_epoch_and_end_with_the_last(photos, cache):
    inputs = workload(photos, hold="stream", loaders=2).load().train[0]
    images, before = all_of(inputs), set(multiprocessing.active_children())
    announced, processes = [[torch.tensor([n, n + 1]) for n in range(start, 40, 2)] for start in (0, 1)], []
    for batches in (announced[0], announced[1], announced[0]):
        inputs.expect(batches)
        for index in batches[:5]:  # the others are made, and not taken
            assert torch.equal(inputs[index], images[index])
        processes.append(set(multiprocessing.active_children()) - before)
    assert processes[0] == processes[1] == processes[2]
    assert len(processes[0]) == 2
    inputs.expect([])
    assert not set(multiprocessing.active_children()) - before


def test_loaders_end_without_what_their_parent_does_at_its_end(photos, cache, monkeypatch):
    """Prefect's services would end the process with an error, which then is said of the loader."""

    def fails():
        raise AssertionError("this is for the parent's end")

    monkeypatch.setattr(threading, "_threading_atexits", [fails])
    inputs = workload(photos, hold="stream", loaders=2).load().train[0]
    before = set(multiprocessing.active_children())
    inputs.expect([torch.tensor([0, 1]), torch.tensor([2])])
    loaders = set(multiprocessing.active_children()) - before
    inputs.expect([])
    assert [loader.exitcode for loader in loaders] == [0, 0]


def test_ways_by_size(cache):
    holding_ = Holding(way="auto", cache_bytes=10**12)
    assert holding_.chosen(10) == "memory"
    assert holding_.chosen(10**18) == "stream"
    assert Holding(way="stream").chosen(10) == "stream"
