"""What the routes share: how networks are judged and kept apart, what a solve may spend, what it answers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nas_core.program.result import Status

Choices = tuple[int, ...]
# Orders and refuses networks exactly: a key that is larger for better ones, None for one that is not allowed.
Judge = Callable[[Choices], Any | None]


@dataclass(frozen=True, kw_only=True)
class Apart:
    """Networks must differ from ``choices`` in at least ``distance`` positions."""

    choices: Choices
    distance: int

    def allows(self, choices: Sequence[int]) -> bool:
        return sum(a != b for a, b in zip(self.choices, choices, strict=True)) >= self.distance


def _tell_nobody(num_proven: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What a solve may spend. ``deadline`` is a ``time.monotonic()``.

    ``tell`` is called now and then with the number of ranks that are proven by then.
    """

    deadline: float
    workers: int = 1
    seed: int = 0
    tell: Callable[[int], None] = _tell_nobody

    @classmethod
    def seconds(cls, limit_s: float, workers: int = 1, seed: int = 0) -> "Effort":
        return cls(deadline=time.monotonic() + limit_s, workers=workers, seed=seed)

    def share(self, part: float) -> "Effort":
        """A part of the time that is left."""
        return replace(self, deadline=time.monotonic() + part * self.left_s)

    @property
    def left_s(self) -> float:
        return max(0.0, self.deadline - time.monotonic())


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The best network of one table. ``bound``: no network of the program has a higher (linear) value.

    OPTIMAL and INFEASIBLE are proofs: shown in exact arithmetic, or in floats
    whose rounding is bounded and smaller than what it had to tell apart.
    """

    status: Status
    choices: Choices | None
    bound: float  # in the objective's unit
    route: str


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Allowed networks with their keys, best first; equal ones in the order of their choices.

    ``floor``: no other network has a higher value, so those above it are the best. Minus infinity
    where as many are listed as were asked for, or all.
    """

    networks: tuple[tuple[Any, Choices], ...]
    floor: Any  # comparable with the keys
    route: str


INFEASIBLE = Answer(status=Status.INFEASIBLE, choices=None, bound=-np.inf, route="limits and rules")
