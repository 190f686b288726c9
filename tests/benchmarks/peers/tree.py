"""UCT tree search over positions, after MCT-NAS (Su et al., 2021).

The tree's level p chooses the block of position p. A node's value mixes the
mean metric of its own subtree with that of the same block anywhere
("node communication"); hierarchical selection follows values only where a
node was visited often enough, and is uniform elsewhere.
"""

from collections import defaultdict

import numpy as np

from tests.benchmarks.peers.task import SearchTask

EXPLORATION = 0.1  # weight of the UCT bonus, in units of the metric's range so far
SHARED = 0.5  # weight of the block's own mean over the whole tree
TEMPERATURE = 0.05  # of prioritised sampling, in the same units


def tree_search(task: SearchTask, rng: np.random.Generator, prioritised: bool = False) -> list[int]:
    """Rows by repeated descent; ``prioritised`` samples children by softmax instead of taking the best."""
    tree = _Tree(task, rng, prioritised)
    return [tree.visit() for _ in range(task.most)]


def prioritised_tree_search(task: SearchTask, rng: np.random.Generator) -> list[int]:
    """Tree search whose children are sampled in proportion to their softmax."""
    return tree_search(task, rng, prioritised=True)


class _Tree:
    """Evaluated rows per prefix of choices and per block, and which rows are still open."""

    def __init__(self, task: SearchTask, rng: np.random.Generator, prioritised: bool) -> None:
        self.task, self.rng, self.prioritised = task, rng, prioritised
        self.open = np.array(task.allowed_N)
        self.found: list[int] = []
        self.rows_of: dict[tuple[int, ...], list[int]] = defaultdict(list)
        self.rows_with: dict[tuple[int, int], list[int]] = defaultdict(list)

    def visit(self) -> int:
        """Descend to one network not evaluated yet, evaluate it, record it."""
        rows, prefix = np.flatnonzero(self.open), ()
        for position in range(self.task.codes.shape[1]):
            choices_N = self.task.codes[rows, position]
            choice = self._descend(prefix, position, np.unique(choices_N))
            rows, prefix = rows[choices_N == choice], (*prefix, choice)
        return self._record(int(rows[0]))

    def _record(self, row: int) -> int:
        self.open[row] = False
        self.found.append(row)
        code_P = tuple(int(choice) for choice in self.task.codes[row])
        for depth, choice in enumerate(code_P):
            self.rows_of[code_P[: depth + 1]].append(row)
            self.rows_with[depth, choice].append(row)
        return row

    def _descend(self, prefix: tuple[int, ...], position: int, choices: np.ndarray) -> int:
        visits = len(self.rows_of[prefix]) if prefix else len(self.found)
        if visits < len(choices):  # hierarchical selection: too little is known here
            return int(self.rng.choice(choices))
        metrics = self.task.metric[self.found]
        low, span = metrics.min(), max(float(np.ptp(metrics)), 1e-12)
        values = np.array([self._value((*prefix, int(c)), position, int(c), visits, low, span) for c in choices])
        if self.prioritised and np.isfinite(values).all():
            weights = np.exp((values - values.max()) / TEMPERATURE)
            return int(self.rng.choice(choices, p=weights / weights.sum()))
        return int(choices[np.argmax(values + 1e-9 * self.rng.random(len(values)))])

    def _value(self, node: tuple[int, ...], position: int, choice: int, visits: int, low: float, span: float) -> float:
        own, shared = self.rows_of[node], self.rows_with[position, choice]
        if not shared:
            return np.inf
        block = float(np.mean(self.task.metric[shared]) - low) / span
        mine = float(np.mean(self.task.metric[own]) - low) / span if own else block
        bonus = EXPLORATION * np.sqrt(2 * np.log(max(visits, 2)) / (len(own) + 1))
        return (1 - SHARED) * mine + SHARED * block + bonus
