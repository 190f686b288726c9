"""Regularised (ageing) evolution (Real et al., 2019)."""

from collections import deque

import numpy as np

from tests.benchmarks.peers.task import SearchTask

POPULATION = 10  # the best of 10, 20, 30 and 50 at 50 to 100 evaluations on the tables at hand
SAMPLE = 5  # better than 2; the whole population, a greedy climb, is better still: ``greedy_evolution``
MUTATION_TRIES = 100  # draws of one parent's children before a random network takes their place


def regularised_evolution(
    task: SearchTask, rng: np.random.Generator, population: int = POPULATION, sample: int = SAMPLE
) -> list[int]:
    """Tournament selection, one random swap, the oldest dies; an evaluated child is drawn again, at no cost."""
    seen = [int(row) for row in rng.choice(task.allowed_rows, min(population, task.most), replace=False)]
    alive = deque(seen, maxlen=population)
    known = set(seen)
    while len(seen) < task.most:
        rivals = rng.choice(len(alive), min(sample, len(alive)), replace=False)
        parent = max((alive[int(index)] for index in rivals), key=lambda row: task.metric[row])
        child = _new_child(task, parent, known, rng)
        known.add(child)
        seen.append(child)
        alive.append(child)
    return seen


def greedy_evolution(task: SearchTask, rng: np.random.Generator) -> list[int]:
    """The tournament is the whole population: the best of the last ten is always the parent."""
    return regularised_evolution(task, rng, sample=POPULATION)


def _new_child(task: SearchTask, parent: int, known: set[int], rng: np.random.Generator) -> int:
    for _ in range(MUTATION_TRIES):
        code_P = task.codes[parent].copy()
        position = int(rng.integers(len(code_P)))
        code_P[position] = rng.integers(task.num_choices[position])
        row = task.row(code_P)
        if row is not None and row not in known:
            return row
    return int(rng.choice([row for row in task.allowed_rows if row not in known]))
