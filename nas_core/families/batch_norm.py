"""Running statistics of batch normalisation, set anew from some batches; other normalisations have none."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def norms_of(module: nn.Module) -> list[_BatchNorm]:
    """The module's layers with running statistics."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def forget_statistics(norms: Iterable[_BatchNorm]) -> None:
    for norm in norms:
        norm.reset_running_stats()


def average_statistics(norms: Iterable[_BatchNorm], index: int) -> None:
    """From the next batch on: the statistics are averages over batches 0 to ``index``, which it is."""
    for norm in norms:
        norm.train()
        norm.momentum = 1.0 / (index + 1)
