"""Exact search where pair terms join neighbours only: the core search on a chain.

With the limits priced by lambda, the best network of a chain comes from dynamic
programming (Viterbi), and its value is the bound. Potentials to the end of the
chain turn every step (block i, then block j) into a loss >= 0 against that
bound; a network's losses and lambda . slack add up to how far it is below. So,
as in ``core``: list the first halves and the second halves that lose less than g,
match those that meet in the same block at the cut, let g grow until a network is found.

G = groups, in chain order; N = columns of a group; K = rows.
"""

import itertools
import time
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from nas_core.program.core import FIRST_COLUMNS, GROWTH, KEEP, MAX_KEEP, Level
from nas_core.program.halves import MAX_STATES, CoreTooLargeError, Half, Matches, Prices, spell, windows
from nas_core.program.linear import Floats, Ints, LinearProgram
from nas_core.program.pairwise import PairTerms
from nas_core.program.relaxation import FLOAT_ERROR, MAX_NESTED, minimise, without_smallest


def is_chain(lp: LinearProgram, terms: PairTerms) -> bool:
    """Whether every pair term joins a group with the next one."""
    group_C = lp.columns.group_C
    return bool((group_C[terms.second_P] - group_C[terms.first_P] == 1).all())


class Chain:
    """A program whose pair terms join neighbours, with its potentials at the best multipliers.

    Raises:
        CoreTooLargeError: if more than ``MAX_NESTED`` limits have a price, or the relaxation seems to have no solution.
    """

    def __init__(self, lp: LinearProgram, terms: PairTerms) -> None:
        self.lp = lp
        starts = lp.starts_G1.tolist()
        self.slices = [slice(low, high) for low, high in itertools.pairwise(starts)]
        sizes = [high - low for low, high in itertools.pairwise(starts)]
        self.pair_G = [np.zeros(shape) for shape in itertools.pairwise(sizes)]
        group_C = lp.columns.group_C
        for a, b, value in zip(terms.first_P.tolist(), terms.second_P.tolist(), terms.value_P.tolist(), strict=True):
            g = int(group_C[a])
            self.pair_G[g][a - starts[g], b - starts[g + 1]] += value
        self.magnitude = float(
            np.maximum.reduceat(np.abs(lp.value_C), lp.starts_G1[:-1]).sum() + sum(np.abs(p).max() for p in self.pair_G)
        )
        self.magnitude = self.magnitude or 1.0
        self.step = max(float(np.ptp(lp.value_C)), self.magnitude / len(sizes), 1e-300)
        self.scale_K = np.maximum(np.abs(lp.rows_KC).max(axis=1, initial=0).astype(np.float64), 1.0)
        self.priced = self._priced()
        self.duals_K = self._multipliers()
        self._set_potentials()

    def _priced(self) -> Ints:
        most_K = np.maximum.reduceat(self.lp.rows_KC, self.lp.starts_G1[:-1], axis=1).sum(axis=1)
        priced: Ints = np.flatnonzero(most_K > self.lp.limits_K)
        if len(priced) > MAX_NESTED:
            raise CoreTooLargeError
        return priced

    def _multipliers(self) -> Floats:
        found = minimise(self, len(self.priced))
        if found is None:
            raise CoreTooLargeError
        duals_K = np.zeros(len(self.lp.limits_K))
        duals_K[self.priced] = found / self.scale_K[self.priced]
        return without_smallest(duals_K)

    def at(self, lambda_K: Floats) -> tuple[float, Floats]:
        """The bound that multipliers (of scaled rows) prove, and its subgradient: the slack of the best network."""
        rows_KC = self.lp.rows_KC[self.priced] / self.scale_K[self.priced, None]
        limits_K = self.lp.limits_K[self.priced] / self.scale_K[self.priced]
        own_C = self.lp.value_C - lambda_K @ rows_KC
        reach, back = own_C[self.slices[0]], []
        for pair, part in zip(self.pair_G, self.slices[1:], strict=True):
            total = reach[:, None] + pair
            back.append(total.argmax(axis=0))
            reach = total.max(axis=0) + own_C[part]
        at = int(reach.argmax())
        value, columns = float(reach[at]), [self.slices[-1].start + at]
        for part, best in zip(self.slices[-2::-1], reversed(back), strict=True):
            at = int(best[at])
            columns.append(part.start + at)
        return value + float(lambda_K @ limits_K), limits_K - rows_KC[:, columns].sum(axis=1)

    def _set_potentials(self) -> None:
        """Losses: ``first_N`` of the first block, ``loss_G`` of a step, ``least_G`` of the best way through a block."""
        own_C = self.lp.value_C - self.duals_K @ self.lp.rows_KC
        to_end = [own_C[self.slices[-1]]]
        for pair, part in zip(reversed(self.pair_G), self.slices[-2::-1], strict=True):
            to_end.append(own_C[part] + (pair + to_end[-1]).max(axis=1))
        to_end.reverse()
        best = float(to_end[0].max())
        self.first_N = best - to_end[0]
        self.loss_G = [
            (to_end[g] - own_C[self.slices[g]])[:, None] - pair - to_end[g + 1] for g, pair in enumerate(self.pair_G)
        ]
        self.least_G = [self.first_N]
        for loss in self.loss_G:
            self.least_G.append((self.least_G[-1][:, None] + loss).min(axis=0))
        self.bound = best + float(self.duals_K @ self.lp.limits_K)
        largest_K = np.maximum.reduceat(np.abs(self.lp.rows_KC), self.lp.starts_G1[:-1], axis=1).sum(axis=1)
        priced = float(self.duals_K @ (np.abs(self.lp.limits_K) + largest_K))
        self.error = FLOAT_ERROR * (self.magnitude + priced)

    @cached_property
    def everything(self) -> float:
        """A loss that every network within the limits stays below."""
        least_K = np.minimum.reduceat(self.lp.rows_KC, self.lp.starts_G1[:-1], axis=1).sum(axis=1)
        slack = float(self.duals_K @ (self.lp.limits_K - least_K))
        steps = float(self.first_N.max()) + sum(float(loss.max()) for loss in self.loss_G)
        return (steps + slack) * (1 + 1e-9) + 2 * self.error + 1e-300

    def levels(self, deadline: float) -> Iterator[Level]:
        """All networks below ever larger losses, as ``core.levels``.

        Raises:
            CoreTooLargeError: if a level does not fit, or at the deadline.
        """
        least = np.sort(np.concatenate(self.least_G))
        index = min(FIRST_COLUMNS + self.lp.num_groups, len(least) - 1)
        g, keep = max(float(least[index]), self.everything * 1e-9), KEEP
        while keep <= MAX_KEEP:
            level = self._level(g, keep, deadline)
            yield level
            if level.is_everything:
                return
            if level.complete_to < g:
                keep *= 8
            else:
                g *= GROWTH
        raise CoreTooLargeError

    def _level(self, g: float, keep: int, deadline: float) -> Level:
        cut = len(self.slices) // 2
        left, left_node = self._first_halves(cut, g, deadline)
        right, right_node = self._second_halves(cut, g, deadline)
        prices = Prices(slack_K=self.lp.limits_K, duals_K=self.duals_K)
        found = Matches(g, prices, keep)
        for node in np.intersect1d(left_node, right_node):
            left_N, right_N = np.flatnonzero(left_node == node), np.flatnonzero(right_node == node)
            for pairs in windows(prices, _part(left, left_N), _part(right, right_N), g):
                if time.monotonic() > deadline:
                    raise CoreTooLargeError
                found.add(left, right, left_N[pairs[0]], right_N[pairs[1]])
        best_G = self.lp.starts_G1[:-1]  # every group is spelled by one of the halves
        columns_SG = spell(best_G, self.lp.columns.group_C, (left, found.left), (right, found.right))
        order = np.argsort(found.loss, kind="stable")
        return Level(
            columns_SG=columns_SG[order],
            loss_S=found.loss[order],
            complete_to=found.g if found.is_cut else g,
            is_everything=g >= self.everything and not found.is_cut,
        )

    def _first_halves(self, cut: int, g: float, deadline: float) -> tuple[Half, Ints]:
        """Beginnings up to and including group ``cut``, and the block each ends in."""
        grower = _Grower(self, deadline)
        node_S = np.flatnonzero(self.first_N < g)
        grower.start(self.first_N[node_S], self.slices[0].start + node_S)
        for group in range(cut):
            total = grower.loss_S[:, None] + self.loss_G[group][node_S]
            state, node_S = np.nonzero(total < g)
            grower.grow(state, total[state, node_S], self.slices[group + 1].start + node_S)
        return grower.half(), node_S

    def _second_halves(self, cut: int, g: float, deadline: float) -> tuple[Half, Ints]:
        """Ends after group ``cut``, and the block at the cut that each continues."""
        last = len(self.slices) - 1
        grower = _Grower(self, deadline)
        node_S = np.flatnonzero(self.least_G[last] < g)
        if last == cut:  # nothing comes after the cut
            grower.start_empty(len(node_S))
            return grower.half(), node_S
        grower.start(np.zeros(len(node_S)), self.slices[last].start + node_S)
        for group in range(last - 1, cut - 1, -1):
            total = grower.loss_S[:, None] + self.loss_G[group].T[node_S]
            state, node_S = np.nonzero(total + self.least_G[group] < g)
            column_N = self.slices[group].start + node_S if group > cut else None  # the cut's block is the first half's
            grower.grow(state, total[state, node_S], column_N)
        return grower.half(), node_S


class _Grower:
    """Half networks under construction; state 0 is empty."""

    def __init__(self, chain: Chain, deadline: float) -> None:
        self.rows_CK, self.deadline = chain.lp.rows_KC.T, deadline
        self.loss_S = np.zeros(0)
        self.change_SK: Ints = np.zeros((0, self.rows_CK.shape[1]), dtype=np.int64)
        self.state_S: Ints = np.zeros(0, dtype=np.int64)
        self.parents, self.columns, self.count = [np.zeros(1, dtype=np.int64)], [np.full(1, -1)], 1

    def start(self, loss_S: Floats, column_S: Ints) -> None:
        self.loss_S, self.change_SK = loss_S, self.rows_CK[column_S]
        self.state_S = self._record(np.zeros(len(column_S), dtype=np.int64), column_S)

    def start_empty(self, count: int) -> None:
        self.loss_S = np.zeros(count)
        self.change_SK = np.zeros((count, self.rows_CK.shape[1]), dtype=np.int64)
        self.state_S = np.zeros(count, dtype=np.int64)

    def grow(self, parent_S: Ints, loss_S: Floats, column_S: Ints | None) -> None:
        """Replace the states by extensions of them; without columns they only take the loss."""
        if len(parent_S) > MAX_STATES or time.monotonic() > self.deadline:
            raise CoreTooLargeError
        self.loss_S, self.change_SK = loss_S, self.change_SK[parent_S]
        self.state_S = self.state_S[parent_S]
        if column_S is not None:
            self.change_SK = self.change_SK + self.rows_CK[column_S]
            self.state_S = self._record(self.state_S, column_S)

    def _record(self, parent_S: Ints, column_S: Ints) -> Ints:
        self.parents.append(parent_S)
        self.columns.append(column_S)
        states: Ints = np.arange(self.count, self.count + len(column_S))
        self.count += len(column_S)
        return states

    def half(self) -> Half:
        return Half(
            self.loss_S, self.change_SK, self.state_S, np.concatenate(self.parents), np.concatenate(self.columns)
        )


def _part(half: Half, index_N: Ints) -> Half:
    return Half(half.loss_S[index_N], half.change_SK[index_N], half.state_S[index_N], half.parent_T, half.column_T)
