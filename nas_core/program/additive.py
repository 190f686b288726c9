"""Solves one table's additive program: relaxation, then the core search, then CP-SAT where the core is too large."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nas_core.program import core, cpsat
from nas_core.program.linear import Ints, LinearProgram
from nas_core.program.matching import CoreTooLargeError
from nas_core.program.relaxation import Relaxation, relax
from nas_core.program.result import Status

Choices = tuple[int, ...]
# Orders and refuses networks exactly: a key that is larger for better ones, None for one that is not allowed.
Judge = Callable[[Choices], object | None]


@dataclass(frozen=True, kw_only=True)
class Apart:
    """Networks must differ from ``choices`` in at least ``distance`` positions."""

    choices: Choices
    distance: int

    def allows(self, choices: Sequence[int]) -> bool:
        return sum(a != b for a, b in zip(self.choices, choices, strict=True)) >= self.distance


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What a solve may spend. ``deadline`` is a ``time.monotonic()``."""

    deadline: float
    workers: int = 1
    seed: int = 0

    @classmethod
    def seconds(cls, limit_s: float, workers: int = 1, seed: int = 0) -> "Effort":
        return cls(deadline=time.monotonic() + limit_s, workers=workers, seed=seed)

    @property
    def left_s(self) -> float:
        return max(0.0, self.deadline - time.monotonic())


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The best network of one table. ``bound``: no network of the program has a higher (linear) value."""

    status: Status
    choices: Choices | None
    bound: float  # in the objective's unit
    route: str


INFEASIBLE = Answer(status=Status.INFEASIBLE, choices=None, bound=-np.inf, route="relaxation")


def best(
    lp: LinearProgram, judge: Judge, apart: Sequence[Apart], effort: Effort, relaxation: Relaxation | None = None
) -> Answer:
    """The network with the highest value that ``judge`` allows.

    ``judge`` may order networks more exactly than the float value of the
    program does, and may refuse what only exact arithmetic can refuse. It must
    agree with the program's value up to the relaxation's ``error``.
    """
    relaxation = relax(lp) if relaxation is None else relaxation
    if relaxation is None:
        return INFEASIBLE
    if relaxation.seems_infeasible:  # floats say so; integers have to prove it
        return cpsat.best(lp, relaxation, judge, apart, effort)
    try:
        return _by_core(lp, relaxation, judge, apart, effort)
    except CoreTooLargeError:
        incumbent = _incumbent(lp, relaxation, judge, apart)
        if incumbent is not None and relaxation.bound - incumbent[1] <= 2 * relaxation.error:
            return Answer(status=Status.OPTIMAL, choices=incumbent[0], bound=relaxation.bound, route="bound attained")
        return cpsat.best(lp, relaxation, judge, apart, effort, incumbent)


def _incumbent(
    lp: LinearProgram, relaxation: Relaxation, judge: Judge, apart: Sequence[Apart]
) -> tuple[Choices, float] | None:
    """A good network and its value, without proof: mass ties are often at the bound already."""
    for columns_G in core.among_few(lp, relaxation).columns_SG:
        choices = best_allowed(lp, columns_G[None, :], judge, apart)
        if choices is not None:
            return choices, lp.value_of(columns_G)
    return None


def _by_core(lp: LinearProgram, relaxation: Relaxation, judge: Judge, apart: Sequence[Apart], effort: Effort) -> Answer:
    levels = core.levels(lp, relaxation, deadline=time.monotonic() + 0.5 * effort.left_s)
    return best_of_levels(levels, lp, judge, apart, relaxation.bound, relaxation.error, "core search")


def best_of_levels(
    levels: Iterable[core.Level],
    lp: LinearProgram,
    judge: Judge,
    apart: Sequence[Apart],
    bound: float,
    error: float,
    route: str,
) -> Answer:
    """The best allowed network of ever larger levels; infeasible if the last of them holds none.

    ``bound`` is what losses are counted from, ``error`` what rounding can hide in one.
    """
    for level in levels:
        for loss, columns_SG in _near_ties(level, error):
            choices = best_allowed(lp, columns_SG, judge, apart)
            if choices is not None:
                return Answer(status=Status.OPTIMAL, choices=choices, bound=bound - loss + error, route=route)
    return Answer(status=Status.INFEASIBLE, choices=None, bound=-np.inf, route=route)


def _near_ties(level: core.Level, error: float) -> Iterator[tuple[float, Ints]]:
    """The networks of a level in runs whose order the floats cannot tell; the last run only if it is complete."""
    loss_S = level.loss_S
    if not len(loss_S):
        return
    breaks = np.flatnonzero(np.diff(loss_S) > 2 * error) + 1
    edges = [0, *breaks.tolist(), len(loss_S)]
    for low, high in itertools.pairwise(edges):
        # A run that reaches the level's end may go on beyond; one that fills the whole level is a tie
        is_complete = level.is_everything or loss_S[high - 1] + 2 * error < level.complete_to or high - low >= core.KEEP
        if is_complete:
            yield float(loss_S[low]), level.columns_SG[low:high]


def best_allowed(lp: LinearProgram, columns_SG: Ints, judge: Judge, apart: Sequence[Apart]) -> Choices | None:
    """The best of some networks: highest key, then lexicographically first."""
    allowed = []
    for columns_G in columns_SG:
        choices = lp.columns.choices(columns_G)
        if all(other.allows(choices) for other in apart):
            key = judge(choices)
            if key is not None:
                allowed.append((key, choices))
    if not allowed:
        return None
    top = max(key for key, _ in allowed)  # type: ignore[type-var]  # keys of one judge are comparable
    return min(choices for key, choices in allowed if key == top)
