"""Metrics by name, each with its direction: what networks are compared by, and what reports call it. No torch here.

N = examples, K = classes. Outputs and targets are torch tensors; every metric
is a function of a whole split, not a mean over batches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that says how good a network's outputs are.

    ``of(outputs, targets)`` gives it for a whole split. ``is_fraction`` marks
    values in [0, 1] that people read as percent; ``unit`` names any other unit.
    """

    name: str  # as in rows, YAML and JSON: `macro_f1`
    label: str  # as people read it: `macro F1`
    higher_is_better: bool
    of: Callable[["torch.Tensor", "torch.Tensor"], float]
    is_fraction: bool = False
    unit: str = ""


Metrics = Mapping[str, Metric]  # the first is the workload's own
