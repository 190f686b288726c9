"""Metrics by name, each with its direction: what networks are compared by, and what reports call it. No torch here.

Outputs and targets are torch tensors; every metric is a function of a whole
split, not a mean over batches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas_core.base.errors import PluginError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What a number is called, in which unit it is, and which way is better.

    ``is_fraction`` marks values in [0, 1] that people read as percent; ``unit``
    names any other unit. ``counts_examples`` says that the value is the share
    of examples that are right, so that the chance in it is known.
    """

    name: str  # as in rows, YAML and JSON: `macro_f1`
    label: str  # as people read it: `macro F1`
    higher_is_better: bool
    is_fraction: bool = False
    unit: str = ""
    counts_examples: bool = False

    @classmethod
    def called(cls, name: str, higher_is_better: bool = True) -> "Measure":
        """A measure of which nothing is known but the name."""
        return cls(name=name, label=name.replace("_", " "), higher_is_better=higher_is_better)


@dataclass(frozen=True, kw_only=True)
class Metric(Measure):
    """A number that says how good a network's outputs are: ``of(outputs, targets)`` of a whole split."""

    of: Callable[["torch.Tensor", "torch.Tensor"], float]

    @property
    def measure(self) -> Measure:
        """What can be written down of it."""
        return Measure(**{name: getattr(self, name) for name in Measure.__dataclass_fields__})


Metrics = Mapping[str, Metric]  # the first is the workload's own


def by_name(*metrics: Metric) -> Metrics:
    """The metrics in their order; raises PluginError where two have one name: results are known by it."""
    found: dict[str, Metric] = {}
    for metric in metrics:
        if metric.name in found:
            advice = "`Metric(name=..., of=...)` gives one a name of its own."
            raise PluginError(f"metric {metric.name}", "the name twice", "one name for one metric", advice)
        found[metric.name] = metric
    return found
