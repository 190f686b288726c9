"""All networks of a small table at once, vectorised: the route for pair terms where it fits.

One array entry per network, axis g = columns of group g. Sorting it once
answers every further question (top k, other exclusions) by reading on.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nas_core.program.additive import INFEASIBLE, Answer, Apart, Judge, best_allowed
from nas_core.program.linear import Floats, Ints, LinearProgram
from nas_core.program.pairwise import PairTerms
from nas_core.program.relaxation import FLOAT_ERROR
from nas_core.program.result import Status

MAX_NETWORKS = 500_000  # above, HiGHS is as fast and needs no memory
Entry = TypeVar("Entry", np.float64, np.int64)
RUN = 256  # networks converted at a time


def fits(lp: LinearProgram) -> bool:
    """Whether the networks are few enough to look at all of them."""
    return math.prod(int(size) for size in np.diff(lp.starts_G1)) <= MAX_NETWORKS


class EveryNetwork:
    """Every network of a program within its rows, by objective.

    Args:
        objective: [networks] linear values (pair terms included), and a function that gives
            the networks' summed entries of a [C] array -> [networks] objective values.
    """

    def __init__(
        self,
        lp: LinearProgram,
        terms: PairTerms,
        objective: Callable[[Floats, Callable[[Floats], Floats]], Floats],
    ) -> None:
        self.lp = lp
        self.sizes = tuple(np.diff(lp.starts_G1).tolist())
        linear = self._sums(lp.value_C).reshape(self.sizes) + self._pair_sums(terms)
        self.value = objective(linear.ravel(), self._sums)
        within = np.ones(len(self.value), dtype=bool)
        for row_C, limit in zip(lp.rows_KC, lp.limits_K, strict=True):
            within &= self._sums(row_C) <= limit
        self.within = np.flatnonzero(within)
        magnitude = float(np.abs(self.value).max()) + float(np.abs(lp.value_C).max()) * lp.num_groups
        self.error = FLOAT_ERROR * 10 * magnitude

    def _sums(self, entries_C: npt.NDArray[Entry]) -> npt.NDArray[Entry]:
        """[networks] sum of the entries of every network's columns."""
        total: npt.NDArray[Entry] = np.zeros(1, dtype=entries_C.dtype)
        for low, high in zip(self.lp.starts_G1[:-1], self.lp.starts_G1[1:], strict=True):
            total = (total[:, None] + entries_C[None, low:high]).ravel()
        return total

    def _pair_sums(self, terms: PairTerms) -> Floats:
        group_C, starts = self.lp.columns.group_C, self.lp.starts_G1
        matrices: dict[tuple[int, int], Floats] = {}
        for a, b, value in zip(terms.first_P.tolist(), terms.second_P.tolist(), terms.value_P.tolist(), strict=True):
            g, h = int(group_C[a]), int(group_C[b])
            matrix = matrices.setdefault((g, h), np.zeros((self.sizes[g], self.sizes[h])))
            matrix[a - starts[g], b - starts[h]] += value
        total = np.zeros(self.sizes)
        for (g, h), matrix in matrices.items():
            total += matrix.reshape([size if axis in (g, h) else 1 for axis, size in enumerate(self.sizes)])
        return total

    @cached_property
    def _order(self) -> Ints:
        return self.within[np.argsort(-self.value[self.within], kind="stable")]

    def best(self, judge: Judge, apart: Sequence[Apart]) -> Answer:
        """The best network that ``judge`` allows; ``judge`` decides among those the floats cannot tell apart."""
        for columns_SG in self._near_ties():
            choices = best_allowed(self.lp, columns_SG, judge, apart)
            if choices is not None:
                return Answer(status=Status.OPTIMAL, choices=choices, bound=math.inf, route="every network")
        return INFEASIBLE

    def _near_ties(self) -> Iterator[Ints]:
        value, low = self.value[self._order], 0
        while low < len(value):
            high = low + 1
            while high < len(value) and value[high] >= value[high - 1] - 2 * self.error and high - low < RUN:
                high += 1
            yield self._columns(self._order[low:high])
            low = high

    def without(self, forbidden: Collection[tuple[int, ...]]) -> npt.NDArray[np.bool_]:
        """[within] whether a network is not among some whole networks."""
        flat = []
        for choices in forbidden:
            try:
                columns_G = self.lp.columns.columns(choices)
            except KeyError:
                continue  # no network of the program
            flat.append(np.ravel_multi_index(tuple(columns_G - self.lp.starts_G1[:-1]), self.sizes))
        return ~np.isin(self.within, flat)

    def sums(self, entries_C: Ints) -> Ints:
        """[within] summed entries of the networks within the rows."""
        return self._sums(entries_C)[self.within]

    def choices(self, networks: Ints) -> list[tuple[int, ...]]:
        """The networks as choices, one per position."""
        return [self.lp.columns.choices(columns_G) for columns_G in self._columns(networks)]

    def _columns(self, networks: Ints) -> Ints:
        return np.stack(np.unravel_index(networks, self.sizes), axis=1) + self.lp.starts_G1[:-1]
