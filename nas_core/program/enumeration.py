"""All networks of a small table at once, vectorised: the route for pair terms where it fits.

One array entry per network, axis g = columns of group g. Sorting it once
answers every further question (top k, other exclusions) by reading on.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_core.program.additive import best_allowed
from nas_core.program.answers import INFEASIBLE, Answer, Apart, Choices, Judge
from nas_core.program.linear import EPSILON, Exact, Floats, Ints, LinearProgram, quotients
from nas_core.program.pairwise import PairTerms
from nas_core.program.result import Status

MAX_AXES = 64  # of numpy's arrays
MAX_NETWORKS = 500_000  # above, HiGHS is as fast and needs no memory


Objective = Callable[[Floats, Callable[[Exact], Exact]], tuple[Floats, float]]


def fits(lp: LinearProgram, most: int | None = None) -> bool:
    """Whether the networks are few enough to look at all of them."""
    sizes = map(int, np.diff(lp.starts_G1))
    return lp.num_groups <= MAX_AXES and math.prod(sizes) <= (MAX_NETWORKS if most is None else most)


class EveryNetwork:
    """Every network of a program within its rows, by objective.

    Args:
        decimals: of the scores and pair terms: integers are in units of 10^-decimals.
        objective: None to maximise summed scores and pair terms, which is done in integers; else gives
            the objective of summed scores, with a function that sums entries of a [C] array, and how
            large the terms are of which a value is the difference.
    """

    def __init__(
        self,
        lp: LinearProgram,
        terms: PairTerms,
        decimals: int,
        objective: Objective | None,
    ) -> None:
        assert lp.exact_C is not None, "scores are exact"
        self.lp = lp
        self.sizes = tuple(np.diff(lp.starts_G1).tolist())
        unit = int(lp.unit * 10**decimals)
        total = self._sums(lp.exact_C * unit).reshape(self.sizes) + self._pair_sums(terms)
        within = np.ones(total.size, dtype=bool)
        for row_C, limit in zip(lp.rows_KC, lp.limits_K, strict=True):
            within &= self._sums(row_C) <= limit
        self.within = np.flatnonzero(within)
        self.value: Floats
        self.error_N: Floats  # what rounding can hide in each value; grows with the value's size
        if objective is None:  # only the order counts
            self.value = _ranks(total.ravel())
            self.error_N = np.zeros(total.size)
        else:
            summed = total.ravel() + int(lp.offset * 10**decimals)
            self.value, besides = objective(quotients(summed, 10**decimals), self._sums)
            self.error_N = 16 * EPSILON * (np.abs(self.value) + besides)

    def _sums(self, entries_C: Exact) -> Exact:
        """[networks] sum of the entries of every network's columns."""
        total: Exact = np.zeros(1, dtype=entries_C.dtype)
        for low, high in zip(self.lp.starts_G1[:-1], self.lp.starts_G1[1:], strict=True):
            total = (total[:, None] + entries_C[None, low:high]).ravel()
        return total

    def _pair_sums(self, terms: PairTerms) -> Exact:
        group_C, starts = self.lp.columns.group_C, self.lp.starts_G1
        kind = terms.exact_P.dtype
        matrices: dict[tuple[int, int], Exact] = {}
        for a, b, value in zip(terms.first_P.tolist(), terms.second_P.tolist(), terms.exact_P.tolist(), strict=True):
            g, h = int(group_C[a]), int(group_C[b])
            matrix = matrices.setdefault((g, h), np.zeros((self.sizes[g], self.sizes[h]), dtype=kind))
            matrix[a - starts[g], b - starts[h]] += value
        total = np.zeros(self.sizes, dtype=kind)
        for (g, h), matrix in matrices.items():
            total = total + matrix.reshape([size if axis in (g, h) else 1 for axis, size in enumerate(self.sizes)])
        return total

    @cached_property
    def _order(self) -> Ints:
        return self.within[np.argsort(-self.value[self.within], kind="stable")]

    def best(self, judge: Judge, apart: Sequence[Apart]) -> Answer:
        """The best network that ``judge`` allows; ``judge`` decides among those the floats cannot tell apart."""
        for columns_SG in itertools.chain(self._tops(), self._near_ties()):
            choices = best_allowed(self.lp, columns_SG, judge, apart)
            if choices is not None:
                return Answer(status=Status.OPTIMAL, choices=choices, bound=math.inf, route="every network")
        return INFEASIBLE

    def _tops(self) -> Iterator[Ints]:
        """The networks of the highest value, without sorting all others; none where values are rounded."""
        if len(self.within) and not self.error_N.any():
            value = self.value[self.within]
            yield self._columns(self.within[value == value.max()])

    def ranked(self, judge: Judge) -> Iterator[tuple[Any, Choices]]:
        """Every network that ``judge`` allows, best first, with its key; equal ones by their choices."""
        for columns_SG in self._near_ties():
            judged = [(judge(choices), choices) for choices in map(self.lp.columns.choices, columns_SG)]
            allowed = [(key, choices) for key, choices in judged if key is not None]
            allowed.sort(key=lambda item: item[1])
            yield from sorted(allowed, key=lambda item: item[0], reverse=True)

    def _near_ties(self) -> Iterator[Ints]:
        """Runs whose order rounding may hide: every later network is certainly worse than each of the run."""
        value, error = self.value[self._order], self.error_N[self._order]
        low, count = 0, len(value)
        while low < count:
            high, least = low + 1, value[low] - error[low]
            while high < count and value[high] + error[high] >= least:
                least = min(least, value[high] - error[high])
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


def _ranks(numbers: Exact) -> Floats:
    """Equal ranks for equal numbers, higher ones for larger: the numbers themselves where floats carry them."""
    if numbers.dtype != object and max(int(numbers.max()), -int(numbers.min())) < 2**53:
        return numbers.astype(np.float64)
    order = np.argsort(numbers, kind="stable")
    sorted_numbers = numbers[order]
    ranks = np.zeros(len(numbers))
    ranks[order[1:]] = np.cumsum(sorted_numbers[1:] != sorted_numbers[:-1])
    return ranks
