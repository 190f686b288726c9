"""What a worker asks of a node, and how many of them a node holds. No Ray here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one worker asks of a node: CPUs, GPUs (fractions share one), custom resources.

    ``processes`` are so many workers that do one job together, on any nodes.
    """

    num_cpus: float = 1
    num_gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    processes: int = 1

    def as_options(self) -> dict[str, Any]:
        return {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "resources": dict(self.resources)}

    def as_demand(self) -> dict[str, float]:
        demand = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.resources}
        return {name: amount for name, amount in demand.items() if amount > 0}


def room(node: Mapping[str, float], demand: Mapping[str, float]) -> int:
    """How many workers of this demand a node can hold; one that asks for nothing fits once."""
    return min((int(node.get(name, 0.0) / amount + 1e-9) for name, amount in demand.items()), default=1)
