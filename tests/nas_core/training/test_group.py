"""Several processes train as one would, over real gloo: same losses, whoever is killed, however many go on."""

import multiprocessing
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import nn

from nas_core.base.errors import NasError
from nas_core.records.store import Store
from nas_core.scoring import supernet_weights
from nas_core.training.checkpoint import Checkpoint, unpack
from nas_core.training.group import Group, current
from nas_core.training.loop import measure_all, train
from nas_core.training.network import build_network
from nas_core.training.settings import OWN, Recipe
from nas_core.training.teacher import OwnModel
from nas_core.workloads.images.digits import Digits
from nas_core.workloads.segmentation import IGNORED, MaskTargets
from nas_core.workloads.settings import ImageSettings
from tests.nas_core.scoring.studies import SUPERNET, build_scorer, study
from tests.spaces import tiny

DIGITS = Digits(ImageSettings(validation_examples=101, train_examples=66))
PLAIN = {"epochs": 25, "batch_size": 33, "lr": 0.003, "augment": "none"}  # shares of 17 and 16, 50 steps
CHANGED = {
    **PLAIN,
    "epochs": 4,
    "batch_size": 32,
    "augment": "crop-flip-cutout",
    "mixup": 0.4,
    "cutmix": 1.0,
    "ema_decay": 0.9,
    "accumulate": 2,
}
KILLED_AT = 7
WAIT_S = 120


def trained(recipe, folder=None, killed_at=None, sync_norm=True):
    """What the training's epochs were, and the weights; rank 1 kills itself before a step's update."""
    space, data, group = tiny(), DIGITS.load(), current()
    network = build_network(space.architecture(space.parse("2-1-2")), seed=3)
    checkpoint = folder and Checkpoint(store=Store(folder), path="c.safetensors", run_id="a", every_s=0)

    def before_update(step):
        if step == killed_at and group.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def validate(network):
        return measure_all(network, DIGITS.metrics, data.validation, data.prepare, device="cpu", group=group)

    result = train(
        network, Recipe(**recipe), data, DIGITS, seed=5, device="cpu", checkpoint=checkpoint, validate=validate,
        before_update=before_update, group=group, sync_norm=sync_norm,
    )  # fmt: skip
    return result.history, network.state_dict()


def shared(folder, killed_at=None):
    """What the epochs of a supernet's training were, and its weights; the leader kills itself after a step."""
    supernet_weights.CHECKPOINT_EVERY_S = 0
    recipe = {"epochs": 2, "batch_size": 100, "lr": 0.01, "augment": "crop"}  # 12 steps of four networks each
    scorer = build_scorer(study({**SUPERNET, "recipe": recipe, "random_paths": 2}), Store(str(folder)))

    def on_progress(done, total, note):
        if done == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    scorer.prepare(on_progress)
    if not current().leads:
        return [], {}
    history = scorer.store.read_json(scorer.weights_path.replace(".safetensors", ".history.json"))
    return history, unpack(scorer.store.read_bytes(scorer.weights_path))[0]


class Maps(Digits):
    """Digits with a class for every pixel: of the first images nearly none count, as where a crop laid borders bare."""

    masks = MaskTargets(names=("dark", "bright"), values=(0, 1))

    def load(self, shape=None):
        splits = super().load(shape)
        images = splits.train[0][:8]
        masks = (images[:, 0] > images.float().mean()).byte()
        masks[:4, 1:] = IGNORED
        return replace(splits, train=(images, masks))

    def loss(self, outputs, targets, label_smoothing=0.0):
        return self.masks.loss(outputs, targets, label_smoothing)

    def counted(self, targets):
        return self.masks.counted(targets)


def mapped(accumulate):
    """The losses and weights of a network of maps that learns by parts of a batch, also from a teacher's maps."""
    data = Maps(ImageSettings(validation_examples=101))
    torch.manual_seed(0)
    teacher, network = (nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1)) for _ in range(2))
    taught = {"model": OWN, "weight": 0.5}
    recipe = Recipe(epochs=6, batch_size=8, lr=0.5, augment="none", accumulate=accumulate, teacher=taught)
    own = OwnModel(network=lambda: teacher.eval())
    result = train(network, recipe, data.load(), data, seed=0, device="cpu", own_teacher=own, group=current())
    return [row["loss"] for row in result.history], network.state_dict()


def member(rank, folder, calls):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = [work(*arguments) for work, *arguments in calls]
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def together(folder, *calls):
    """Results of each of two processes, and their exit codes."""
    folder.mkdir()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once
    processes = [context.Process(target=member, args=(rank, str(folder), calls)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(WAIT_S)
    results = [torch.load(path) if (path := folder / f"{rank}.pt").exists() else None for rank in (0, 1)]
    return results, [process.exitcode for process in processes]


def values(history):
    return torch.tensor([[row[name] for name in ("loss", "accuracy", "cross_entropy")] for row in history])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    calls = [(trained, PLAIN), (trained, CHANGED), (trained, PLAIN, None, None, False), (shared, folder / "shared")]
    found, codes = together(folder / "whole", *calls, (mapped, 1))
    assert codes == [0, 0]
    return found


def test_two_processes_have_the_same_state(runs):
    for one, other in zip(*(found[:3] for found in runs), strict=True):
        assert one[0] == other[0]
        assert all(torch.equal(tensor, other[1][name]) for name, tensor in one[1].items())


def test_two_processes_train_as_one_does(runs):
    plain, changed, own_statistics = (values(history) for history, _ in runs[0][:3])
    one = values(trained(PLAIN)[0])
    assert len(one) == 25
    assert torch.allclose(plain, one, atol=1e-4, rtol=0)
    assert not torch.allclose(own_statistics, one, atol=1e-3, rtol=0)  # what sync_norm is for
    assert torch.allclose(own_statistics[-1], one[-1], atol=0.2, rtol=0)
    assert torch.allclose(changed, values(trained(CHANGED)[0]), atol=1e-4, rtol=0)


def test_pixels_count_alike_in_whatever_part_of_a_batch_they_are(runs):
    losses, weights = mapped(1)
    for found, others in (mapped(2), runs[0][4], runs[1][4]):
        assert found == pytest.approx(losses, rel=1e-4)
        assert all(torch.allclose(tensor, others[name], atol=1e-5) for name, tensor in weights.items())


def test_one_is_killed_and_two_or_one_go_on(runs, tmp_path):
    _, codes = together(tmp_path / "killed", (trained, PLAIN, tmp_path, KILLED_AT))
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, None)  # does not wait for ever
    alone = tmp_path / "alone"
    shutil.copytree(tmp_path, alone, ignore=shutil.ignore_patterns("killed"))
    (resumed, _), codes = together(tmp_path / "resumed", (trained, PLAIN, tmp_path))
    assert codes == [0, 0]
    assert resumed[0][0] == runs[0][0][0], "bit for bit"
    by_one, weights = trained(PLAIN, alone)
    assert torch.allclose(values(by_one), values(resumed[0][0]), atol=1e-4, rtol=0)
    assert by_one[: KILLED_AT // 2] == resumed[0][0][: KILLED_AT // 2], "not trained from the start"
    assert weights.keys() == resumed[0][1].keys()


def test_shared_weights_are_the_same_by_two_by_one_and_by_one_that_goes_on(runs, tmp_path):
    """Of a supernet, whose blocks' gradients are evened out; the leader is killed, and one process goes on."""
    history, weights = runs[0][3]
    assert [row["epoch"] for row in history] == [1, 2]
    _, codes = together(tmp_path / "killed", (shared, tmp_path, KILLED_AT))
    assert codes[0] == -signal.SIGKILL
    for folder in (tmp_path / "whole", tmp_path):
        by_one, found = shared(folder)
        assert [row["loss"] for row in by_one] == pytest.approx([row["loss"] for row in history], abs=1e-4)
        assert all(torch.allclose(tensor, found[name], atol=1e-4) for name, tensor in weights.items())


@pytest.mark.parametrize(("batch", "size"), [(33, 2), (32, 3), (7, 3), (64, 1), (10, 5)])
def test_shares_of_a_batch_are_disjoint_and_whole(batch, size):
    groups = [Group() for _ in range(size)]
    for rank, group in enumerate(groups):
        group.rank, group.size = rank, size
    rows = [group.rows(batch).tolist() for group in groups]
    assert sorted(row for each in rows for row in each) == list(range(batch))
    assert all(len(each) >= 2 for each in rows)
    if batch % 2 == 0:  # mixed in pairs
        assert all(each == [batch - 1 - row for row in reversed(each)] for each in rows)


def test_a_batch_that_is_too_small_for_all_is_refused():
    group = Group()
    group.size = 4
    with pytest.raises(NasError, match=r"recipe.batch_size: found 7, expected 8 at least"):
        group.check(7)
    with pytest.raises(NasError, match=r"a multiple of 8"):
        group.check(12, alike=True)
