"""What a search is given: a table's networks, the metric it may see, and which networks are within the limit."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tests.benchmarks.tables import NetworkTable


@dataclass(frozen=True, kw_only=True)
class SearchTask:
    """One search problem: at most ``budget`` distinct evaluations. N rows, P positions."""

    table: NetworkTable
    allowed_N: np.ndarray
    budget: int

    @cached_property
    def allowed_rows(self) -> np.ndarray:
        return np.flatnonzero(self.allowed_N)

    @cached_property
    def _row_of(self) -> dict[bytes, int]:
        return {code_P.tobytes(): row for row, code_P in enumerate(self.table.codes_NP)}

    @property
    def codes(self) -> np.ndarray:
        return self.table.codes_NP

    @property
    def metric(self) -> np.ndarray:
        """The metric a search may look up for the rows it evaluates."""
        return self.table.select_N

    @property
    def num_choices(self) -> tuple[int, ...]:
        return self.table.space.num_choices

    @property
    def most(self) -> int:
        """Evaluations a search makes: its budget, or every allowed network if there are fewer."""
        return min(self.budget, len(self.allowed_rows))

    def row(self, code_P: np.ndarray) -> int | None:
        """The table's row of these choices, or None if the table lacks it or the limit excludes it."""
        row = self._row_of.get(np.ascontiguousarray(code_P, dtype=np.int16).tobytes())
        return row if row is not None and self.allowed_N[row] else None

    def neighbours(self, row: int) -> list[int]:
        """Allowed rows that differ from ``row`` in one choice."""
        found = []
        for position, count in enumerate(self.num_choices):
            for choice in range(count):
                if choice != self.codes[row, position]:
                    code_P = self.codes[row].copy()
                    code_P[position] = choice
                    other = self.row(code_P)
                    if other is not None:
                        found.append(other)
        return found


Search = Callable[[SearchTask, np.random.Generator], list[int]]
