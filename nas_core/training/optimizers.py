"""Optimizers and learning rates of a recipe, by timm's factories; a rate follows from the step and the epochs' rows.

Nothing here has a state of its own but the optimizer, so a training that
resumes needs no more than its step and its history.
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas_core.base.errors import NasError
from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)
from nas_core.training.settings import Recipe, warmup_steps

from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers  # isort: skip
from timm.scheduler import create_scheduler_v2  # isort: skip
from timm.utils import dispatch_clip_grad  # isort: skip

Row = dict[str, float]
TIMMS_NAMES = {"linear": "poly", "constant": "step", "plateau": "step"}  # each with a decay rate of 1
ADAPTIVE = ("ad", "lamb", "lion", "muon")  # in the names of optimizers whose steps do not grow with gradients


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Steps of a recipe on a number of examples."""

    num_steps: int
    steps_per_epoch: int
    batch_size: int
    warmup_steps: int

    @classmethod
    def of(cls, recipe: Recipe, num_examples: int) -> "Schedule":
        """Whole batches only: the rest of an epoch's permutation is left out, another rest each epoch."""
        batch_size = min(recipe.batch_size, num_examples)
        batch_size -= recipe.mixes and batch_size % 2  # images are mixed in pairs
        if not batch_size:
            raise NasError("recipe.batch_size", "one image", "two at least, where images are mixed")
        steps_per_epoch = num_examples // batch_size
        num_steps = max(1, round(recipe.epochs * steps_per_epoch))
        return cls(
            num_steps=num_steps,
            steps_per_epoch=steps_per_epoch,
            batch_size=batch_size,
            warmup_steps=warmup_steps(recipe.warmup, num_steps, steps_per_epoch),
        )

    @property
    def num_epochs(self) -> int:
        return math.ceil(self.num_steps / self.steps_per_epoch)

    def ends_epoch(self, step: int) -> bool:
        return (step + 1) % self.steps_per_epoch == 0 or step + 1 == self.num_steps


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """The number of the epochs' rows that says whether a training gets better."""

    name: str = "loss"
    higher_is_better: bool = False

    def is_best(self, history: Sequence[Row]) -> bool:
        """Whether the last epoch is better than all before it."""
        return bool(history) and self.epochs_since_best(history) == 0

    def epochs_since_best(self, history: Sequence[Row]) -> int:
        """How many of the last epochs brought no improvement."""
        values = [row[self.name] if self.higher_is_better else -row[self.name] for row in history]
        return len(values) - 1 - values.index(max(values)) if values else 0


def rate_factor(recipe: Recipe, batch_size: int) -> float:
    """What the recipe's rates are multiplied with for this batch size, as in timm's train.py."""
    if recipe.lr_batch_size is None:
        return 1.0
    ratio = batch_size / recipe.lr_batch_size
    return math.sqrt(ratio) if any(name in recipe.optimizer for name in ADAPTIVE) else ratio


def make_optimizer(network: nn.Module, recipe: Recipe, rate: float | None = None) -> torch.optim.Optimizer:
    """The recipe's optimizer with ``rate`` (None: the recipe's), its groups by weight decay and layer.

    Weight decay touches matrices and kernels only: norms and biases have one axis, and what the network's
    ``no_weight_decay()`` names is left alone.

    Raises:
        NasError: if the installed timm has no such optimizer, or layers cannot be told apart.
    """
    if recipe.optimizer not in list_optimizers():
        found = f"{recipe.optimizer!r}, which the installed timm does not have"
        raise NasError("recipe.optimizer", found, "one that it has", "Install a newer timm.")
    if recipe.layer_decay is not None and not hasattr(network, "group_matcher"):
        expected = "a network whose `group_matcher` tells its layers, as timm's and those of chains do"
        raise NasError("recipe.layer_decay", type(network).__name__, expected)
    plain = recipe.optimizer == "sgd" and not recipe.momentum  # Nesterov's momentum needs one
    name = "momentum" if plain else recipe.optimizer
    given: dict[str, Any] = {"betas": recipe.betas, "eps": recipe.eps, "foreach": _foreach(name)}
    made: torch.optim.Optimizer = create_optimizer_v2(
        network,
        opt=name,
        lr=recipe.lr if rate is None else rate,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        layer_decay=recipe.layer_decay,
        **{key: value for key, value in given.items() if value is not None},
    )
    return made


def clip_gradients(parameters: Sequence[nn.Parameter], recipe: Recipe) -> None:
    """Clip what these parameters learn from by the recipe's norm, which is of all of them together."""
    if recipe.clip_norm is None:
        return
    if recipe.clip_mode == "norm":
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm, foreach=True)
    else:
        dispatch_clip_grad(parameters, recipe.clip_norm, mode=recipe.clip_mode)


def _foreach(name: str) -> bool | None:
    """All tensors at once, where the optimizer can: on a CPU, too, small networks gain by it."""
    return True if "foreach" in inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters else None


class Rates:
    """Sets an optimizer's learning rates by one of timm's schedules, whose unit of time is here the step.

    timm's own plateau keeps a state that no checkpoint of its holds and is about to go: here the factor is
    computed from the history, by torch's.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe, schedule: Schedule, monitor: Monitor) -> None:
        self.optimizer, self.recipe, self.schedule, self.monitor = optimizer, recipe, schedule, monitor
        factor, self.num_warmup = rate_factor(recipe, schedule.batch_size), schedule.warmup_steps
        self.least = recipe.min_lr * factor
        first = recipe.lr / max(1, self.num_warmup) if recipe.warmup_lr is None else recipe.warmup_lr
        falling = schedule.num_steps - self.num_warmup
        self.scheduler, _ = create_scheduler_v2(
            optimizer,
            sched=TIMMS_NAMES.get(recipe.schedule, recipe.schedule),
            num_epochs=falling,
            warmup_epochs=max(0, self.num_warmup - 1),
            warmup_lr=first * factor,
            warmup_prefix=True,
            min_lr=self.least,
            decay_epochs=self._decay_steps(falling),
            decay_rate=1.0 if recipe.schedule in TIMMS_NAMES else recipe.decay_rate,  # of poly it is the power
            step_on_epochs=False,
            updates_per_epoch=1,
        )

    def _decay_steps(self, falling: int) -> int:
        steps = max(1, round(self.recipe.decay_epochs * self.schedule.steps_per_epoch))
        return min(steps, falling) if self.recipe.schedule == "wsd" else steps

    def set(self, step: int, history: Sequence[Row]) -> None:
        """The rates of a step, after the epochs of ``history``."""
        # The last step of the warm-up and the first one after it have the peak rate.
        self.scheduler.step_update(step - (step >= self.num_warmup > 0))
        if self.recipe.schedule == "plateau" and step >= self.num_warmup and history:
            factor = self._plateaus(history)
            for group in self.optimizer.param_groups:
                group["lr"] = max(group["lr"] * factor, self.least * group.get("lr_scale", 1.0))

    def _plateaus(self, history: Sequence[Row]) -> float:
        rates = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        fall = torch.optim.lr_scheduler.ReduceLROnPlateau(
            rates,
            mode="max" if self.monitor.higher_is_better else "min",
            factor=self.recipe.decay_rate,
            patience=self.recipe.patience_epochs,
        )
        for row in history:
            fall.step(row[self.monitor.name])
        factor: float = rates.param_groups[0]["lr"]
        return factor

    @property
    def current(self) -> float:
        """The rate of the last layer, which is the largest."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)
