"""What is random in a training beside its augmentation: paths and outputs dropped, images mixed and erased.

All of it is timm's or torch's, which draw from global generators. `Draws` seeds
those at every step and gives them back as they were, so a step draws the same
whether or not the training was interrupted, and nothing outside notices.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nas_core.base.errors import NasError
from nas_core.base.identity import evaluation_seed
from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)
from nas_core.training.settings import Recipe

from timm.data.mixup import Mixup  # isort: skip
from timm.data.random_erasing import RandomErasing  # isort: skip
from timm.layers import DropPath  # isort: skip

PATHS = ("drop_path", "drop_path1", "drop_path2")  # what timm's blocks call the place of a dropped path


class Draws:
    """The global generators of torch (the CPU's and the device's), numpy and Python, lent to one training.

    Of several processes that train together each draws for its own examples, all but from numpy's generator: what
    that one is asked for, how much is mixed and where, is of a whole batch.
    """

    def __init__(self, seed: int, device: torch.device, rank: int = 0) -> None:
        self.seed, self.device, self.rank = seed, device, rank

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Afterwards they are as they were before."""
        devices = [self.device] if self.device.type == "cuda" else []
        of_numpy, of_python = np.random.get_state(), random.getstate()
        try:
            with torch.random.fork_rng(devices):
                yield
        finally:
            np.random.set_state(of_numpy)
            random.setstate(of_python)

    def start(self, step: int) -> None:
        """Seed them for a step."""
        purpose = f"dropout {step}"
        of_batch = evaluation_seed(self.seed, purpose)
        seed = evaluation_seed(self.seed, f"{purpose} of {self.rank}") if self.rank else of_batch
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(seed)
        np.random.seed(of_batch)
        random.seed(seed)


class Mixing:
    """Erases and mixes prepared images as a recipe says, targets with them."""

    def __init__(self, recipe: Recipe, num_outputs: int, device: torch.device) -> None:
        self.erasing = RandomErasing(recipe.erase, mode="pixel", device=str(device)) if recipe.erase else None
        self.mixup = None
        self.smooths = recipe.mixes  # mixed targets are smoothed here, and not once more by the loss
        if recipe.mixes:
            self.mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                prob=recipe.mix_probability,
                label_smoothing=recipe.label_smoothing,
                num_classes=num_outputs,
            )

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Changed inputs (in place), and targets as shares of the classes, B K, where they are mixed.

        Raises:
            NasError: for inputs that are no images, or targets that are no classes.
        """
        if self.erasing is not None:
            _must("recipe.erase", inputs.ndim == 4, "inputs that are no images")
            inputs = self.erasing(inputs)
        if self.mixup is not None:
            is_class = targets.ndim == 1 and not targets.is_floating_point()
            _must("recipe.mixup", inputs.ndim == 4 and is_class, "a workload that is no classification of images")
            inputs, targets = self.mixup(inputs, targets)
        return inputs, targets


def _must(where: str, holds: bool, found: str) -> None:
    if not holds:
        raise NasError(where, found, "0 for these data")


def drop_paths(network: nn.Module, rate: float) -> None:
    """Let the network's residual blocks be left out at random, the deeper the oftener (Huang et al. 2016).

    The first block never is, the last one with probability ``rate``. Blocks that stand for each other
    at one position of a supernet have one rate. A network without residual blocks, as a family may have some, is
    left as it is; that a whole family has none is for who knows the family to refuse.
    """
    layers = getattr(network, "positions", None) or getattr(network, "blocks", None)
    if not isinstance(layers, nn.ModuleList | nn.Sequential) or not any(map(_places, layers)):
        layers = [module for module in network.modules() if any(hasattr(module, name) for name in PATHS)]
    depth = len(layers) - 1
    for index, layer in enumerate(layers):
        for module, name in _places(layer):
            setattr(module, name, DropPath(rate * index / depth if depth else rate).train(module.training))


def has_paths(network: nn.Module) -> bool:
    """Whether any of the network's blocks has a place for a path that is left out."""
    return bool(_places(network))


def _places(layer: nn.Module) -> list[tuple[nn.Module, str]]:
    return [(module, name) for module in layer.modules() for name in PATHS if hasattr(module, name)]


@contextmanager
def dropout(network: nn.Module, rate: float) -> Iterator[None]:
    """Meanwhile the input of the network's last linear layer is dropped out in training mode.

    Raises:
        NasError: if it has no linear layer.
    """
    if not rate:
        yield
        return
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise NasError("recipe.dropout", f"{type(network).__name__} without a linear layer", "0 for this network")

    def drop(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (F.dropout(inputs[0], rate, module.training), *inputs[1:])

    hook = layers[-1].register_forward_pre_hook(drop)
    try:
        yield
    finally:
        hook.remove()
