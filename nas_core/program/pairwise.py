"""Pair terms between positions: HiGHS on the flow form.

For two groups with pair terms, z_ij = 1 if both blocks are taken. In the flow form
sum_j z_ij = x_i and sum_i z_ij = x_j, z >= 0 continuous; its relaxation is
far tighter than products of Booleans, which is what CP-SAT makes of it: HiGHS
proves (32, 20) several times sooner. HiGHS is reached through scipy:
highspy and ortools share symbols and cannot live in one process.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.program import additive, cpsat
from nas_core.program.answers import Answer, Apart, Choices, Effort, Judge
from nas_core.program.linear import Columns, Decimals, Exact, Floats, Ints, LinearProgram
from nas_core.program.problem import Pair
from nas_core.program.result import Status

if TYPE_CHECKING:
    from scipy import sparse

AGAIN, MOST_AGAIN_S = 2.0, 10.0  # time for showing it again: this share of HiGHS's, and seconds besides (9 x 6: 2 to 4)
TOLERANCE = 1e-5  # of the scaled objective: what HiGHS's own tolerances leave open
OBJECTIVE_SPREAD = 1e4  # HiGHS stops at an absolute gap of 1e-6, so at a relative one of 1e-10
HIGHS_TIME_LIMIT, HIGHS_INFEASIBLE = 1, 2  # statuses of scipy.optimize.milp


@dataclass(frozen=True, kw_only=True)
class PairTerms:
    """Pair terms between columns: ``first_P`` and ``second_P`` taken together add ``value_P``.

    ``own_C``: what a column adds by itself, from terms between positions that an ``equal`` rule ties together,
    in the scores' unit.
    """

    first_P: Ints
    second_P: Ints
    value_P: Floats
    exact_P: Exact  # integers in the scores' unit, 10^-decimals
    own_C: Exact
    decimals: int

    @classmethod
    def of(cls, pairs: Mapping[Pair, float], values: Decimals, columns: Columns) -> "PairTerms":
        """``values``: the pairs' numbers in integers, in the order of ``pairs``."""
        own_C, terms = np.zeros(columns.num_columns, dtype=values.integers.dtype), dict[tuple[int, int], int]()
        for (first, second), value in zip(pairs, values.integers.tolist(), strict=True):
            a, b = columns.column(first), columns.column(second)
            if a is None or b is None:
                continue
            if a == b:
                own_C[a] += value
            elif columns.group_C[a] != columns.group_C[b]:
                key = (min(a, b), max(a, b))
                terms[key] = terms.get(key, 0) + value
        index = np.array(list(terms), dtype=np.int64).reshape(-1, 2)
        exact = np.array(list(terms.values()), dtype=values.integers.dtype)
        floats = np.array([value / 10**values.decimals for value in terms.values()], dtype=np.float64)
        return cls(
            first_P=index[:, 0],
            second_P=index[:, 1],
            value_P=floats,
            exact_P=exact,
            own_C=own_C,
            decimals=values.decimals,
        )


def best(lp: LinearProgram, terms: PairTerms, judge: Judge, apart: Sequence[Apart], effort: Effort) -> Answer:
    """The network with the highest value, pair terms included (``own_C`` is already in the program's value)."""
    refused, started = list(apart), time.monotonic()
    while True:
        answer = _solve(lp, terms, refused, effort)
        if answer.choices is None or judge(answer.choices) is not None:
            break
        refused.append(Apart(choices=answer.choices, distance=1))
    if not answer.status.is_proven:
        return answer
    # HiGHS computes in floats, so what it calls proven is shown once more in whole numbers, if that is soon done.
    limit_s = min(effort.left_s, MOST_AGAIN_S + AGAIN * (time.monotonic() - started))
    again = replace(effort, deadline=time.monotonic() + limit_s)
    if answer.choices is None:
        any_network = additive.best(
            lp.with_floats(np.zeros(len(lp.value_C)), np.zeros(len(lp.value_C))), judge, apart, again
        )
        status = Status.STOPPED if any_network.choices is None else Status.FEASIBLE
        return (
            any_network
            if any_network.status is Status.INFEASIBLE
            else replace(any_network, status=status, bound=math.inf)
        )
    if _is_best(lp, terms, answer.choices, refused, again):
        return replace(answer, route=f"{answer.route}, CP-SAT")
    return replace(answer, status=Status.FEASIBLE)


def _is_best(lp: LinearProgram, terms: PairTerms, choices: Choices, apart: Sequence[Apart], effort: Effort) -> bool:
    """Whether whole numbers show that no network has a higher value."""
    if lp.exact_C is None:
        return False
    factor = int(lp.unit * 10**terms.decimals)  # both in the scores' unit
    values = [value * factor for value in lp.exact_C.tolist()]
    pairs = list(zip(terms.first_P.tolist(), terms.second_P.tolist(), terms.exact_P.tolist(), strict=True))
    taken = set(lp.columns.columns(choices).tolist())
    now = sum(values[c] for c in taken) + sum(value for a, b, value in pairs if a in taken and b in taken)
    return cpsat.nothing_above(lp, values, pairs, now, apart, effort)


def _solve(lp: LinearProgram, terms: PairTerms, apart: Sequence[Apart], effort: Effort) -> Answer:
    from scipy import sparse
    from scipy.optimize import Bounds, LinearConstraint, milp

    form = _FlowForm(lp, terms)
    value = np.concatenate([lp.value_C, form.value_Z])
    scale = OBJECTIVE_SPREAD / max(float(np.ptp(lp.value_C)) + float(np.ptp(np.append(form.value_Z, 0.0))), 1e-300)
    count = len(value)
    kept_apart = lp.with_apart(apart)
    rows, limits = kept_apart.rows_KC.astype(np.float64), kept_apart.limits_K.astype(np.float64)
    norm = np.maximum(np.abs(rows).max(axis=1, initial=0.0), 1.0)
    upper = sparse.csr_matrix(np.pad(rows / norm[:, None], ((0, 0), (0, count - rows.shape[1]))))
    answer = milp(
        -value * scale,
        integrality=np.concatenate([np.ones(len(lp.value_C)), np.zeros(len(form.value_Z))]),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(form.equalities(), form.right_side, form.right_side),
            LinearConstraint(upper, -np.inf, limits / norm),
        ],
        options={"mip_rel_gap": 0.0, "time_limit": max(effort.left_s, 0.01)},
    )
    return _answer(lp, answer, scale)


def _answer(lp: LinearProgram, answer: Any, scale: float) -> Answer:
    """HiGHS's result as an Answer; statuses as scipy documents them."""
    status, x = answer.status, answer.x
    if status == HIGHS_INFEASIBLE:
        return Answer(status=Status.INFEASIBLE, choices=None, bound=-math.inf, route="HiGHS, flow form")
    bound = math.inf if answer.mip_dual_bound is None else (TOLERANCE - answer.mip_dual_bound) / scale
    if x is None:
        return Answer(status=Status.STOPPED, choices=None, bound=bound, route="HiGHS, flow form")
    taken_C = x[: len(lp.value_C)]
    columns = [
        int(low + np.argmax(taken_C[low:high])) for low, high in zip(lp.starts_G1[:-1], lp.starts_G1[1:], strict=True)
    ]
    proven = Status.FEASIBLE if status == HIGHS_TIME_LIMIT else Status.OPTIMAL
    return Answer(status=proven, choices=lp.columns.choices(columns), bound=bound, route="HiGHS, flow form")


class _FlowForm:
    """The z variables of every two groups with terms, after the x variables, and the equalities of both."""

    def __init__(self, lp: LinearProgram, terms: PairTerms) -> None:
        self.lp = lp
        starts, group_C = lp.starts_G1, lp.columns.group_C
        first_group, second_group = group_C[terms.first_P], group_C[terms.second_P]
        self.blocks = sorted(set(zip(first_group.tolist(), second_group.tolist(), strict=True)))
        sizes = [int((starts[g + 1] - starts[g]) * (starts[h + 1] - starts[h])) for g, h in self.blocks]
        self.offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.value_Z = np.zeros(self.offsets[-1])
        number = {block: index for index, block in enumerate(self.blocks)}
        for a, b, g, h, value in zip(
            terms.first_P, terms.second_P, first_group, second_group, terms.value_P, strict=True
        ):
            width = starts[h + 1] - starts[h]
            self.value_Z[self.offsets[number[int(g), int(h)]] + (a - starts[g]) * width + (b - starts[h])] += value
        num_links = sum(int(starts[g + 1] - starts[g] + starts[h + 1] - starts[h]) for g, h in self.blocks)
        self.right_side = np.concatenate([np.ones(lp.num_groups), np.zeros(num_links)])

    def equalities(self) -> "sparse.csr_matrix[np.float64]":
        """One column per group, then sum_j z_ij = x_i and sum_i z_ij = x_j."""
        from scipy import sparse

        starts, num_x = self.lp.starts_G1, len(self.lp.value_C)
        rows, columns, values = [self.lp.columns.group_C], [np.arange(num_x)], [np.ones(num_x)]
        row = self.lp.num_groups
        for (g, h), offset in zip(self.blocks, self.offsets[:-1].tolist(), strict=True):
            n, m = int(starts[g + 1] - starts[g]), int(starts[h + 1] - starts[h])
            z = num_x + offset + np.arange(n * m)
            i, j = np.divmod(np.arange(n * m), m)
            rows += [row + i, row + n + j, row + np.arange(n + m)]
            x = np.concatenate([starts[g] + np.arange(n), starts[h] + np.arange(m)])
            columns += [z, z, x]
            values += [np.ones(n * m), np.ones(n * m), -np.ones(n + m)]
            row += n + m
        matrix = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
        return sparse.csr_matrix(matrix, shape=(row, num_x + len(self.value_Z)))
