"""CP-SAT as the prover: on the columns that reduced-cost fixing leaves.

Used where the core search does not fit (many priced limits, strong rules) and
to prove that no network is within the limits. The columns come in rounds: only
those that lose less than g, g growing until the best network found loses no
more than g, which proves it.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.program.linear import MAX_DECIMALS, Floats, Ints, LinearProgram
from nas_core.program.relaxation import Relaxation
from nas_core.program.result import Status

if TYPE_CHECKING:
    from nas_core.program.additive import Answer, Apart, Effort, Judge

SCORE_SCALE = 1 << 50  # integer units of the largest objective total: CP-SAT wants sums below 2^63
FIRST_COLUMNS = 3.0  # columns per group in the first round
ROUND_GROWTH = 4.0


class _Model:
    """Variables and rows of a program; the one owner of the CP-SAT model."""

    def __init__(self, lp: LinearProgram, apart: Sequence["Apart"]) -> None:
        from ortools.sat.python import cp_model

        self.lp, self.cp_model = lp, cp_model
        self.model = cp_model.CpModel()
        self.take_C = [self.model.new_bool_var("") for _ in range(lp.columns.num_columns)]
        for low, high in zip(lp.starts_G1[:-1].tolist(), lp.starts_G1[1:].tolist(), strict=True):
            self.model.add_exactly_one(self.take_C[low:high])
        for row_C, limit in zip(lp.rows_KC, lp.limits_K.tolist(), strict=True):
            self._add_row(row_C, limit)
        for other in apart:
            self.add_apart(other)

    def _add_row(self, row_C: Ints, limit: int) -> None:
        used = np.flatnonzero(row_C)
        total = self.cp_model.LinearExpr.weighted_sum([self.take_C[c] for c in used], row_C[used].tolist())
        self.model.add(total <= limit)

    def add_apart(self, apart: "Apart") -> None:
        """At most M - distance positions agree with the other network."""
        columns, weights = [], []
        for c, group in enumerate(self.lp.columns.group_C.tolist()):
            positions = self.lp.columns.groups[group]
            agree = sum(apart.choices[p] == self.lp.columns.choice_C[c] for p in positions)
            if agree:
                columns.append(self.take_C[c])
                weights.append(agree)
        total = self.cp_model.LinearExpr.weighted_sum(columns, weights)
        self.model.add(total <= len(apart.choices) - apart.distance)

    def minimise(self, loss_C: Ints) -> None:
        used = np.flatnonzero(loss_C)
        self.model.minimize(
            self.cp_model.LinearExpr.weighted_sum([self.take_C[c] for c in used], loss_C[used].tolist())
        )

    def solve(self, effort: "Effort") -> tuple[Any, Any]:
        solver = self.cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = max(effort.left_s, 0.01)
        solver.parameters.num_workers = effort.workers
        solver.parameters.random_seed = effort.seed
        return solver, solver.solve(self.model)

    def taken(self, solver: Any) -> Ints:
        """[G] the column taken in each group."""
        values = np.array([solver.boolean_value(take) for take in self.take_C])
        return np.flatnonzero(values)


def best(
    lp: LinearProgram,
    relaxation: Relaxation,
    judge: "Judge",
    apart: Sequence["Apart"],
    effort: "Effort",
    incumbent: tuple[tuple[int, ...], float] | None = None,
) -> "Answer":
    """The best network, by rounds of growing columns; see the module.

    ``incumbent``: a network and its value, if one is known: then one round proves.
    """
    from nas_core.program.additive import Answer, Apart

    loss_C, refused = relaxation.loss_C, list(apart)
    g = math.inf if relaxation.seems_infeasible else _first_round(lp, relaxation)
    if incumbent is not None:
        g = relaxation.bound - incumbent[1] + 2 * relaxation.error
    while True:
        kept = loss_C <= g
        round_lp = lp.keep(kept)
        model = _Model(round_lp, refused)
        scale = _scale(relaxation, lp)
        model.minimise(_loss_integers(round_lp, scale))
        solver, status = model.solve(effort)
        if status == model.cp_model.UNKNOWN:
            if incumbent is not None:
                bound = relaxation.bound + relaxation.error
                return Answer(status=Status.FEASIBLE, choices=incumbent[0], bound=bound, route="core search, stopped")
            return Answer(status=Status.STOPPED, choices=None, bound=relaxation.bound, route="CP-SAT")
        if status == model.cp_model.MODEL_INVALID:
            raise AssertionError(f"CP-SAT refuses the model: {model.model.validate()}")
        everything = bool(kept.all())
        if status == model.cp_model.INFEASIBLE:
            if everything:
                return Answer(status=Status.INFEASIBLE, choices=None, bound=-math.inf, route="CP-SAT")
            g = _larger(g, loss_C)
            continue
        taken_G = model.taken(solver)
        choices = round_lp.columns.choices(taken_G)
        if judge(choices) is None:
            refused.append(Apart(choices=choices, distance=1))
            continue
        value = float(round_lp.value_C[taken_G].sum())
        tops = float(np.maximum.reduceat(round_lp.value_C, round_lp.starts_G1[:-1]).sum())
        bound = tops - solver.best_objective_bound / scale + lp.num_groups / scale
        if status == model.cp_model.FEASIBLE:
            return Answer(
                status=Status.FEASIBLE,
                choices=choices,
                bound=max(min(bound, relaxation.bound), relaxation.bound - g),
                route="CP-SAT",
            )
        if everything or relaxation.bound - value <= g - relaxation.error:
            return Answer(status=Status.OPTIMAL, choices=choices, bound=bound, route="reduced-cost fixing, CP-SAT")
        g = relaxation.bound - value + 2 * relaxation.error


def _first_round(lp: LinearProgram, relaxation: Relaxation) -> float:
    count = int(FIRST_COLUMNS * lp.num_groups)
    if count >= len(relaxation.loss_C):
        return math.inf
    return float(np.partition(relaxation.loss_C, count)[count])


def _larger(g: float, loss_C: Floats) -> float:
    """A g that takes in several times more columns."""
    count = int(ROUND_GROWTH * np.count_nonzero(loss_C <= g))
    return math.inf if count >= len(loss_C) else float(np.partition(loss_C, count)[count])


def _scale(relaxation: Relaxation, lp: LinearProgram) -> float:
    """Integer units per unit of the objective."""
    starts = lp.starts_G1[:-1]
    spread = np.maximum.reduceat(lp.value_C, starts) - np.minimum.reduceat(lp.value_C, starts)
    total = float(spread.sum())
    for decimals in range(MAX_DECIMALS + 1):  # small integers where the values are short decimals
        scaled = lp.value_C * 10.0**decimals
        if total * 10.0**decimals < SCORE_SCALE and np.array_equal(np.rint(scaled) / 10.0**decimals, lp.value_C):
            return 10.0**decimals
    return SCORE_SCALE / total if total > 0 else 1.0


def _loss_integers(lp: LinearProgram, scale: float) -> Ints:
    """How far each column's value is below its group's best, in integer units."""
    top_G = np.maximum.reduceat(lp.value_C, lp.starts_G1[:-1])
    loss_C = np.repeat(top_G, np.diff(lp.starts_G1)) - lp.value_C
    return np.rint(loss_C * scale).astype(np.int64)
