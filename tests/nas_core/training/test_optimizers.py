"""Optimizers, their groups and their rates, beside the formulas that they stand for."""

import math

import pytest
import torch
from torch import nn

from nas_core.base.errors import NasError
from nas_core.training.network import build_network
from nas_core.training.optimizers import Monitor, Rates, Schedule, make_optimizer, rate_factor
from nas_core.training.settings import Recipe
from tests.spaces import tiny


@pytest.fixture
def network():
    space = tiny()
    return build_network(space.architecture(space.parse("1-0-1")), seed=3)


def rates(recipe, num_examples=105, history=(), steps=None, monitor=None):
    """The rate of every step."""
    schedule = Schedule.of(recipe, num_examples)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=recipe.lr * rate_factor(recipe, schedule.batch_size))
    setter, found = Rates(optimizer, recipe, schedule, monitor or Monitor()), []
    for step in range(schedule.num_steps if steps is None else steps):
        setter.set(step, history[: step // schedule.steps_per_epoch])
        found.append(setter.current)
    return found


def test_schedule_rises_then_falls_to_almost_nothing():
    found = rates(Recipe(epochs=10, batch_size=10, lr=1.0, warmup="10 %"))
    assert len(found) == 100
    assert max(found) == found[9] == found[10] == 1.0
    assert found[0] == pytest.approx(0.1)
    assert found[-1] < 0.001


def test_the_cosine_is_the_cosine():
    found = rates(Recipe(epochs=3, batch_size=10, lr=0.3, warmup="6 steps"))
    for step, rate in enumerate(found):
        expected = (step + 1) / 6 if step < 6 else 0.5 * (1 + math.cos(math.pi * (step - 6) / 24))
        assert rate == pytest.approx(0.3 * expected)


@pytest.mark.parametrize(
    ("warmup", "steps"), [("0 %", 0), ("25%", 10), ("2 epochs", 20), ("1 epoch", 10), ("7 steps", 7), ("9 epochs", 39)]
)
def test_warmups_are_in_epochs_steps_or_percent(warmup, steps):
    assert Schedule.of(Recipe(epochs=4, batch_size=10, warmup=warmup), 105).warmup_steps == steps


def test_steps_a_line_and_a_plateau():
    given = {"epochs": 5, "batch_size": 10, "lr": 1.0, "warmup": "0 %"}
    falls = rates(Recipe(**given, schedule="step", decay_epochs=2, decay_rate=0.5))
    assert falls == pytest.approx([1] * 20 + [0.5] * 20 + [0.25] * 10)
    assert rates(Recipe(**given, schedule="linear", min_lr=0.5))[::25] == pytest.approx([1.0, 0.75])
    assert rates(Recipe(**given, schedule="constant")) == [1.0] * 50
    history = [{"x": value} for value in (0.1, 0.2, 0.2, 0.2, 0.3)]
    recipe = Recipe(**given, schedule="plateau", patience_epochs=1, decay_rate=0.1)
    found = rates(recipe, history=history, monitor=Monitor(name="x", higher_is_better=True))
    assert found == pytest.approx([1.0] * 40 + [0.1] * 10)  # two epochs without improvement are one too many


def test_rates_follow_the_batch_size_as_in_timm():
    for optimizer, factor in (("sgd", 0.25), ("adamw", 0.5), ("lamb", 0.5), ("rmsproptf", 0.25)):
        recipe = Recipe(optimizer=optimizer, lr=0.4, lr_batch_size=256, batch_size=64, warmup="0 %", min_lr=0.01)
        assert rates(recipe, num_examples=6400)[0] == pytest.approx(0.4 * factor)
        assert rates(recipe, num_examples=6400)[-1] == pytest.approx(0.01 * factor, rel=1e-3)


def test_norms_and_biases_do_not_decay(network):
    others, decayed = make_optimizer(network, Recipe()).param_groups
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in others["params"])
    assert (others["weight_decay"], decayed["weight_decay"]) == (0, 5e-4)


def test_layers_have_rates_of_their_own(network):
    optimizer = make_optimizer(network, Recipe(layer_decay=0.5))
    scales = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    found = {
        name.split(".")[0] + name.split(".")[1] * name.startswith("blocks"): scales[id(p)]
        for name, p in network.named_parameters()
    }
    with_weights = [index for index, block in enumerate(network.blocks) if list(block.parameters())]
    depth = len(with_weights) + 1
    expected = {"stem": 0.5**depth, "head": 1.0}
    expected |= {f"blocks{index}": 0.5 ** (depth - 1 - place) for place, index in enumerate(with_weights)}
    assert found == pytest.approx(expected)
    with pytest.raises(NasError, match="group_matcher"):
        make_optimizer(nn.Linear(2, 2), Recipe(layer_decay=0.5))


def test_epochs_since_the_best():
    history = [{"loss": value} for value in (3.0, 1.0, 2.0, 1.0)]
    assert Monitor().epochs_since_best(history) == 2
    assert Monitor(name="loss", higher_is_better=True).epochs_since_best(history) == 3
    assert Monitor().epochs_since_best([]) == 0


def test_mixed_batches_are_even():
    assert Schedule.of(Recipe(batch_size=15, mixup=0.1), 100).batch_size == 14
    with pytest.raises(NasError, match="batch_size"):
        Schedule.of(Recipe(batch_size=1, mixup=0.1), 100)
