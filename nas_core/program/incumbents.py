"""A good network without proof: local search and meetings in the middle, in turns.

With few limits or far from a good network exchanges are quickest, with five or more limits
meetings; which it is shows as they go: the next turn belongs to what has been fruitless for the
shortest time. With more than ``MANY_ROWS`` limits, from a first network on, neither is a match for
a walk in and out of the limits.

G = groups, C = columns.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence

import numpy as np

from nas_core.program import core
from nas_core.program.answers import Apart, Choices, Effort, Judge
from nas_core.program.exchange import Exchanges
from nas_core.program.halves import CoreTooLargeError
from nas_core.program.linear import Ints, LinearProgram
from nas_core.program.meeting import Meetings
from nas_core.program.oscillation import Oscillation
from nas_core.program.relaxation import Relaxation

MANY_ROWS = 15  # with a price, beyond which halves never met
FEW_COLUMNS, GIVE_UP = 400, 0.03  # columns of a program that is given up after so many fruitless turns per column


def good_network(
    lp: LinearProgram,
    relaxation: Relaxation,
    judge: Judge,
    apart: Sequence[Apart],
    effort: Effort,
    start: Choices | None = None,
) -> Choices | None:
    """The best network found in the time; None if none was (or none better than ``start``)."""
    best, best_value = None, -np.inf
    for columns_G in networks(lp, relaxation, apart, effort.deadline, effort.seed, start):
        choices, value = lp.columns.choices(columns_G), lp.value_of(columns_G)
        if value > best_value and all(other.allows(choices) for other in apart) and judge(choices) is not None:
            best, best_value = choices, value
    return best


def networks(
    lp: LinearProgram,
    relaxation: Relaxation,
    apart: Sequence[Apart],
    deadline: float,
    seed: int = 0,
    start: Choices | None = None,
) -> Iterator[Ints]:
    """[G] columns of networks within the rows, ever better, until the deadline (the first comes whatever it says).

    ``start``: a network within the rows to go on from.
    """
    turns = _Turns(lp.with_apart(apart), relaxation, np.random.default_rng(seed), deadline)
    best_G = None if start is None else lp.columns.columns(start)
    value = -np.inf if best_G is None else lp.value_of(best_G)
    if not apart and best_G is None:
        with contextlib.suppress(CoreTooLargeError):
            yield from core.among_few(lp, relaxation).columns_SG[:1]
    while value < relaxation.bound and not turns.is_over:
        before = value
        for found_G in turns.next(best_G):
            if lp.value_of(found_G) > value:
                best_G, value = found_G, lp.value_of(found_G)
                yield best_G
        turns.note(is_better=value > before)


class _Turns:
    """Whose turn it is, and what the turns brought."""

    def __init__(self, lp: LinearProgram, relaxation: Relaxation, rng: np.random.Generator, deadline: float) -> None:
        self.num_columns, self.deadline = lp.columns.num_columns, deadline
        self.exchanges, self.meetings = Exchanges(lp, relaxation, rng), Meetings(lp, relaxation, rng)
        self.oscillation = Oscillation(lp, relaxation, rng)
        if np.count_nonzero(relaxation.duals_K) > MANY_ROWS:
            self.ways = ["oscillation"]
        else:
            self.ways = ["quarters"] * self.meetings.has_quarters + ["halves", "exchange"]
        self.spent_s, self.fruitless_s = (dict.fromkeys([*self.ways, "exchange"], 0.0) for _ in range(2))
        self.fruitless: dict[str, int] = {}  # turns since a better network, of the ways taken
        self.way, self.started = "", time.monotonic()

    def next(self, best_G: Ints | None) -> Iterator[Ints]:
        """Networks within the rows, of the next turn."""
        self.started = time.monotonic()
        if best_G is None:  # only exchanges find a first network
            self.way = "exchange"
        else:
            self.way = min(self.ways, key=lambda way: (self.fruitless_s[way], self.spent_s[way]))
        if self.way == "exchange" or best_G is None:
            yield from self.exchanges.turn(best_G, self.deadline)
            return
        if self.way == "oscillation":
            yield from self.oscillation.turn(best_G, self.deadline)
            return
        meet = self.meetings.by_halves if self.way == "halves" else self.meetings.by_quarters
        found_G = meet(best_G, self.deadline)
        if found_G is not None:
            yield found_G

    def note(self, *, is_better: bool) -> None:
        """What the turn brought."""
        spent_s = time.monotonic() - self.started
        self.spent_s[self.way] += spent_s
        self.fruitless_s[self.way] = 0.0 if is_better else self.fruitless_s[self.way] + spent_s
        if is_better:
            self.fruitless = dict.fromkeys(self.fruitless, 0)
        counts = not is_better and (self.way != "exchange" or self.exchanges.was_wide)
        self.fruitless[self.way] = self.fruitless.get(self.way, 0) + counts

    @property
    def is_over(self) -> bool:
        """At the deadline, or where a small program gave nothing for long."""
        if not self.fruitless:  # the first turn is always taken
            return False
        is_exhausted = min(self.fruitless.values()) >= GIVE_UP * self.num_columns
        return time.monotonic() >= self.deadline or (self.num_columns <= FEW_COLUMNS and is_exhausted)
