"""Random search and local search."""

import numpy as np

from tests.benchmarks.peers.task import SearchTask


def random_search(task: SearchTask, rng: np.random.Generator) -> list[int]:
    """Allowed networks in random order."""
    return [int(row) for row in rng.choice(task.allowed_rows, task.most, replace=False)]


def local_search(task: SearchTask, rng: np.random.Generator) -> list[int]:
    """First-improvement hill climbing over one-swap neighbours, restarted at random (White et al., 2021)."""
    seen: dict[int, None] = {}
    restarts = iter(int(row) for row in rng.permutation(task.allowed_rows))
    while len(seen) < task.most:
        current: int | None = next(row for row in restarts if row not in seen)
        while current is not None and len(seen) < task.most:
            seen[current] = None
            current = _first_better(task, current, seen, rng)
    return list(seen)[: task.most]


def _first_better(task: SearchTask, current: int, seen: dict[int, None], rng: np.random.Generator) -> int | None:
    """The first neighbour, in random order, that is better; those looked at join ``seen``."""
    for row in rng.permutation(task.neighbours(current)):
        if len(seen) >= task.most:
            return None
        known = int(row) in seen
        seen[int(row)] = None
        if not known and task.metric[row] > task.metric[current]:
            return int(row)
    return None
