"""The training loop: it learns, resumes bit for bit, and says when it diverges."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from nas_core.records.store import Store
from nas_core.training.checkpoint import Checkpoint
from nas_core.training.loop import TrainingDiverged, measure, outputs_of, train
from nas_core.training.network import build_network
from nas_core.training.recipes import RECIPES
from nas_core.training.settings import Recipe
from nas_core.workloads.classification import CLASSIFICATION
from nas_core.workloads.images.digits import Digits
from nas_core.workloads.settings import ImageSettings
from nas_core.workloads.workload import Splits
from tests.spaces import tiny

ACCURACY = CLASSIFICATION["accuracy"]
DIGITS = Digits(ImageSettings(validation_examples=300))


@pytest.fixture(scope="module")
def data() -> Splits:
    return DIGITS.load()


@pytest.fixture
def network():
    space = tiny()
    return build_network(space.architecture(space.parse("1-0-1")), seed=3)


RECIPE = Recipe(epochs=4, batch_size=64, augment="crop-flip-cutout", ema_decay=0.9, label_smoothing=0.1)


def fit(network, data, recipe=RECIPE, **arguments):
    return train(network, recipe, data, DIGITS, seed=5, device="cpu", **arguments)


def test_it_learns(network, data):
    fit(network, data, Recipe(epochs=6, batch_size=32, lr=0.05, augment="none"))
    assert measure(network, ACCURACY, data.validation, data.prepare, device="cpu") > 0.8


@pytest.mark.parametrize("name", RECIPES)
def test_every_published_recipe_trains(name, network, data):
    few = Splits(train=tuple(each[:96] for each in data.train), **shared(data))
    recipe = Recipe.model_validate({"name": name, "epochs": 2, "batch_size": 32})
    result = fit(network, few, recipe)
    assert result.steps == 6
    assert all(math.isfinite(row["loss"]) for row in result.history)


def shared(data):
    return {"validation": data.validation, "load_test": data.load_test, "prepare": data.prepare}


def test_same_seed_same_weights_and_global_generator_untouched(data):
    space, states = tiny(), []
    for _ in range(2):
        before = torch.get_rng_state()
        network = build_network(space.architecture(space.parse("0-1-0")), seed=3)
        after_build = torch.get_rng_state()
        fit(network, data, RECIPE.model_copy(update={"epochs": 1}))
        assert torch.equal(torch.get_rng_state(), after_build)
        states.append(network.state_dict())
        torch.set_rng_state(before)
        torch.rand(3)  # the global generator's state makes no difference
    assert all(torch.equal(first, second) for first, second in zip(*map(dict.values, states), strict=True))


class Killed(BaseException):
    """Stands for a signal: nothing may catch it."""


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_an_interrupted_run_ends_bit_equal_to_an_unbroken_one(data, tmp_path, ema_decay):
    space, recipe = tiny(), RECIPE.model_copy(update={"ema_decay": ema_decay, "epochs": 2})
    checkpoint = Checkpoint(store=Store(tmp_path), path="c.safetensors", run_id="a", every_s=0)

    def fresh():
        return build_network(space.architecture(space.parse("1-1-0")), seed=3)

    def kill_at(step):
        def on_step(done, total):
            if done == step:
                raise Killed

        return on_step

    unbroken, broken = fresh(), fresh()
    whole = fit(unbroken, data, recipe)
    for step in (7, 25):  # in the middle of both epochs
        with pytest.raises(Killed):
            fit(broken, data, recipe, checkpoint=checkpoint, on_step=kill_at(step))
        broken = fresh()
    parts = fit(broken, data, recipe, checkpoint=checkpoint)
    assert parts.history == whole.history
    assert parts.steps == whole.steps
    for name, tensor in unbroken.state_dict().items():
        assert torch.equal(tensor, broken.state_dict()[name]), name


def test_a_checkpoint_of_another_run_is_not_resumed(tmp_path):
    store = Store(tmp_path)
    Checkpoint(store=store, path="c", run_id="a").save({"x": torch.ones(1)}, {"step": 3})
    assert Checkpoint(store=store, path="c", run_id="b").load() is None
    tensors, state = Checkpoint(store=store, path="c", run_id="a").load()
    assert state == {"step": 3}
    assert torch.equal(tensors["x"], torch.ones(1))


def test_a_damaged_checkpoint_is_ignored(tmp_path):
    store = Store(tmp_path)
    checkpoint = Checkpoint(store=store, path="c", run_id="a")
    checkpoint.save({"x": torch.ones(10)}, {"step": 3})
    store.write_bytes("c", store.read_bytes("c")[:-7])
    assert checkpoint.load() is None


def test_divergence_is_an_error(network, data):
    with torch.no_grad():
        next(network.parameters()).fill_(math.inf)
    with pytest.raises(TrainingDiverged, match="epoch 1 of training: found loss nan"):
        fit(network, data)


class Greedy(nn.Module):
    """A network that does not fit into memory with more than 40 images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and len(images) > 40:
            raise torch.OutOfMemoryError("40 images are enough")
        return self.network(images)


def test_a_batch_that_does_not_fit_is_split_once(network, data):
    assert fit(Greedy(network), data, Recipe(epochs=0.2, batch_size=64)).parts == 2
    with pytest.raises(torch.OutOfMemoryError):
        fit(Greedy(network), data, Recipe(epochs=0.2, batch_size=128))


IN_LITTLE_MEMORY = """
import resource, sys
import torch
from torch import nn
from nas_core.training.settings import Recipe
from nas_core.workloads.settings import ImageSettings
from nas_core.workloads.images.digits import Digits
from nas_core.training.loop import train

torch.set_num_threads(1)
channels = int(sys.argv[1])
digits = Digits(ImageSettings(validation_examples=300, train_examples=64))
data = digits.load()
network = nn.Sequential(nn.Conv2d(1, channels, 1), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(channels, 10))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 700_000_000,) * 2)
recipe = Recipe(epochs=1, batch_size=64, augment="none")
trained = train(network, recipe, data, digits, seed=0, device="cpu")
print(trained.parts)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
@pytest.mark.parametrize(("channels", "said"), [(1000, "1\n"), (30_000, "2\n"), (200_000, "can't allocate memory")])
def test_the_processors_memory_runs_out(channels, said):
    """64 images of 8 x 8 take 16 kB a channel: 700 MB hold no batch at 30,000, and no half of one at 200,000."""
    done = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY, str(channels)], capture_output=True, text=True, timeout=120
    )
    assert said in done.stdout + done.stderr


def test_half_batches_have_the_whole_batch_gradient():
    torch.manual_seed(0)
    data = DIGITS.with_train_examples(64).load()
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    recipe = Recipe(epochs=1, batch_size=64, augment="none")
    fit(networks[0], data, recipe)
    split = Greedy(networks[1])
    assert fit(split, data, recipe).parts == 2
    assert torch.allclose(networks[0][1].weight, networks[1][1].weight, atol=1e-7)


def test_dropout_resumes_and_repeats_too(data):
    def run():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
        fit(network, data, Recipe(epochs=0.5, batch_size=64))
        return network[2].weight

    first = run()
    torch.rand(5)
    assert torch.equal(first, run())


def test_outputs_do_not_depend_on_the_batch_size(network, data):
    inputs = data.validation[0][:50]
    one = outputs_of(network, inputs, data.prepare, batch_size=50, device="cpu")
    many = outputs_of(network, inputs, data.prepare, batch_size=7, device="cpu")
    assert torch.allclose(one, many, atol=1e-5)


def test_weights_that_are_moved_for_validation_are_trained_further(data):
    """A weight of one by one by one counts as no channels-last one, so it is copied when the network is moved."""
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))
    recipe = RECIPE.model_copy(update={"ema_decay": None, "epochs": 3})

    def validate(trained):
        return {"right": measure(trained, ACCURACY, data.validation, data.prepare, device="cpu")}

    result = fit(network, data, recipe, validate=validate)
    assert [0 <= row["right"] <= 1 for row in result.history] == [True] * 3


@pytest.mark.parametrize("channels", [3, 8])
def test_strided_convolutions_of_few_channels_and_one_pixel_are_trained(channels):
    """Channels last torch's backward pass of them ends the process."""
    network = nn.Sequential(
        nn.Conv2d(3, channels, 1),
        nn.Conv2d(channels, 16, 1, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )
    inputs = torch.randint(0, 256, (32, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pair = (inputs, torch.arange(32) % 4)
    few = Splits(train=pair, validation=pair, load_test=lambda: pair)
    recipe = Recipe(epochs=3, batch_size=16)
    train(network, recipe, few, Digits(ImageSettings()), seed=0, device="cpu")
    assert network[1].weight.grad.is_contiguous()
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
