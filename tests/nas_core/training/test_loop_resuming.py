"""Whatever the recipe: a training that was killed ends bit for bit as the unbroken one does."""

import json
import random
from typing import get_args

import numpy as np
import pytest
import torch

from nas_core.records.store import Store
from nas_core.training.checkpoint import Checkpoint
from nas_core.training.loop import measure, train
from nas_core.training.network import build_network
from nas_core.training.optimizers import Monitor
from nas_core.training.settings import Optimizer, Recipe
from nas_core.workloads.classification import CLASSIFICATION
from nas_core.workloads.images.digits import Digits
from nas_core.workloads.settings import ImageSettings
from tests.spaces import tiny

DIGITS = Digits(ImageSettings(validation_examples=100, train_examples=66))
PLAIN = {"epochs": 2.5, "batch_size": 16, "lr": 0.01, "augment": "none", "warmup": "3 steps"}
KILLED_AT = (3, 6)  # in the middle of both epochs of four steps

FEATURES = {
    "augment": {"augment": "crop-flip-cutout"},
    "resized crop": {"augment": "resized-crop-flip"},
    "rand-augment": {"policy": "rand-augment"},
    "timm's rand-augment": {"policy": "rand-m9-mstd0.5-inc1", "augment": "resized-crop-flip"},
    "trivial-augment": {"policy": "trivial-augment"},
    "auto-augment": {"policy": "auto-augment-cifar10"},
    "erase": {"erase": 0.7},
    "mixup": {"mixup": 0.4, "label_smoothing": 0.1},
    "cutmix": {"cutmix": 1.0, "mix_probability": 0.7},
    "both": {"mixup": 0.4, "cutmix": 1.0, "loss": "bce", "target_threshold": 0.2, "batch_size": 15},
    "repeats": {"repeats": 3},
    "drop path": {"drop_path": 0.5, "dropout": 0.3},
    "average": {"ema_decay": 0.9},
    "accumulate": {"accumulate": 3, "augment": "crop"},
    "scaled": {"precision": "float16", "clip_mode": "agc", "clip_norm": 0.1},
    "bfloat16": {"precision": "bfloat16", "clip_mode": "value", "clip_norm": 0.1},
    "layers": {"layer_decay": 0.7, "optimizer": "adamw"},
    "step": {"schedule": "step", "decay_epochs": 0.5, "decay_rate": 0.5},
    "linear": {"schedule": "linear", "min_lr": 1e-3, "warmup": "1 epoch"},
    "wsd": {"schedule": "wsd", "decay_epochs": 1},
    "plateau": {"schedule": "plateau", "patience_epochs": 0, "lr": 1.0, "epochs": 4},
    "contiguous": {"channels_last": False, "ema_decay": 0.9},
    "stops early": {"stop_after_epochs": 1, "lr": 3.0, "epochs": 20, "clip_norm": None},
}


@pytest.fixture(scope="module")
def data():
    return DIGITS.load()


class Killed(BaseException):
    """Stands for a signal: nothing may catch it."""


def trained(recipe, data, **arguments):
    space = tiny()
    network = build_network(space.architecture(space.parse("2-1-2")), seed=3)
    monitor = Monitor(name="accuracy", higher_is_better=True)

    def validate(network):
        value = measure(network, CLASSIFICATION["accuracy"], data.validation, data.prepare, device="cpu")
        return {"accuracy": value}

    result = train(
        network, recipe, data, DIGITS, seed=5, device="cpu", validate=validate, monitor=monitor, **arguments
    )  # fmt: skip
    return network, result


def killed_again_and_again(recipe, data, store):
    """The same training, in three pieces."""
    checkpoint = Checkpoint(store=store, path="c.safetensors", run_id="a", every_s=0)
    for step in KILLED_AT:

        def on_step(done, total, step=step):
            if done == step:
                raise Killed

        with pytest.raises(Killed):
            trained(recipe, data, checkpoint=checkpoint, on_step=on_step)
        random.seed(step), np.random.seed(step), torch.manual_seed(step)  # another process starts elsewhere
    return trained(recipe, data, checkpoint=checkpoint)


def check(recipe, data, tmp_path):
    whole, of_whole = trained(recipe, data)
    pieces, of_pieces = killed_again_and_again(recipe, data, Store(tmp_path))
    assert of_pieces.history == of_whole.history
    assert (of_pieces.steps, of_pieces.parts) == (of_whole.steps, of_whole.parts)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, pieces.state_dict()[name]), name
    return whole, of_whole


@pytest.fixture(scope="module")
def plain(data):
    """The network that a recipe without any feature trains."""
    return trained(Recipe(**PLAIN), data)[0]


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_every_optimizer(optimizer, data, tmp_path):
    rate = 3e-4 if optimizer in ("lion", "adopt", "adanw") else 0.01
    check(Recipe(**PLAIN | {"optimizer": optimizer, "lr": rate}), data, tmp_path)


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature(feature, data, tmp_path, plain):
    network, result = check(Recipe(**PLAIN | FEATURES[feature]), data, tmp_path)
    differs = [not torch.equal(a, b) for a, b in zip(plain.parameters(), network.parameters(), strict=True)]
    assert any(differs) or feature == "contiguous", "the feature does nothing"
    if feature == "stops early":
        assert result.steps < 20 * 4


def test_the_callers_generators_are_given_back(data):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    recipe = Recipe(**PLAIN | {"policy": "rand-augment", "mixup": 1.0, "erase": 1.0, "dropout": 0.5})
    space = tiny()
    network = build_network(space.architecture(space.parse("2-1-2")), seed=3)
    after_build = torch.get_rng_state()
    train(network, recipe, data, DIGITS, seed=5, device="cpu")
    assert torch.equal(torch.get_rng_state(), after_build)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


def test_a_checkpoint_is_tensors_and_json_alone(data, tmp_path):
    store = Store(tmp_path)
    checkpoint = Checkpoint(store=store, path="c.safetensors", run_id="a", every_s=0)
    trained(Recipe(**PLAIN | {"optimizer": "lamb", "ema_decay": 0.9}), data, checkpoint=checkpoint)
    tensors, state = checkpoint.load()
    assert {name.split(".")[0] for name in tensors} == {"network", "average", "optimizer", "loss_sum"}
    assert json.loads(json.dumps(state)) == state
