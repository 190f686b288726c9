"""CP-SAT as the prover: on the columns that reduced-cost fixing leaves.

Used where the core search does not fit (many priced limits, strong rules) and
to prove that no network is within the limits. The columns come in rounds: only
those that lose less than g, g growing until the best network found loses no
more than g, which proves it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nas_core.base.interruptible import solve_interruptibly
from nas_core.program.answers import Answer, Apart, Choices, Effort, Judge
from nas_core.program.linear import Floats, Ints, LinearProgram
from nas_core.program.relaxation import Relaxation
from nas_core.program.result import Status

ROUTE = "reduced-cost fixing, CP-SAT"
MAX_LOSS = 1 << 60  # integer units of all columns' losses together: CP-SAT wants this below 2^63
MAX_BITS = 60  # of a row's summed coefficients
MAX_NEAR = 50  # networks that only rounding puts above another, looked at one by one
ROUNDED_LOSS = 1 << 52  # where the losses are rounded
FIRST_COLUMNS = 3.0  # columns per group in the first round
ROUND_GROWTH = 4.0


class _Model:
    """Variables and rows of a program; the one owner of the CP-SAT model."""

    def __init__(self, lp: LinearProgram, apart: Sequence[Apart]) -> None:
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
        """Rounded down where CP-SAT could not add all coefficients up: it then admits all that is within the limit."""
        bits = max(0, sum(row_C.tolist()).bit_length() - MAX_BITS)
        row_C, limit = row_C >> bits, limit >> bits
        used = np.flatnonzero(row_C)
        total = self.cp_model.LinearExpr.weighted_sum([self.take_C[c] for c in used], row_C[used].tolist())
        self.model.add(total <= limit)

    def add_apart(self, apart: Apart) -> None:
        self._add_row(*self.lp.columns.apart_row(apart))

    def minimise(self, loss_C: Ints, most: int | None) -> None:
        """Least summed loss; with ``most``, only networks that lose no more."""
        used = np.flatnonzero(loss_C)
        total = self.cp_model.LinearExpr.weighted_sum([self.take_C[c] for c in used], loss_C[used].tolist())
        if most is not None and most < int(loss_C.sum()):
            self.model.add(total <= most)
        self.model.minimize(total)

    def solve(self, effort: Effort) -> tuple[Any, Any]:
        solver = self.cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = max(effort.left_s, 0.01)
        solver.parameters.num_workers = effort.workers
        solver.parameters.random_seed = effort.seed
        return solver, solve_interruptibly(solver, self.model)

    def taken(self, solver: Any) -> Ints:
        """[G] the column taken in each group."""
        values = np.array([solver.boolean_value(take) for take in self.take_C])
        return np.flatnonzero(values)


def nothing_above(
    lp: LinearProgram,
    values: Sequence[int],
    pairs: Sequence[tuple[int, int, int]],
    least: int,
    apart: Sequence[Apart],
    effort: Effort,
) -> bool:
    """Whether it is proven that no network has a higher value than ``least``, in whole numbers.

    ``values``: of the columns; ``pairs``: (column, column, what taking both adds).
    """
    total = sum(map(abs, values)) + sum(abs(value) for _, _, value in pairs)
    bits = max(0, total.bit_length() - MAX_BITS)  # what does not fit is rounded up, so that nothing above is lost
    model = _Model(lp, apart)
    take, cp = model.take_C, model.model
    both, beside = [], dict[tuple[int, int], list[Any]]()
    for a, b, value in pairs:
        together = cp.new_bool_var("")
        both.append(together)
        if value < 0:
            cp.add_bool_or(together, ~take[a], ~take[b])
            continue
        for column, other in ((a, b), (b, a)):  # of a group's columns one is taken, so their pairs with it exclude
            beside.setdefault((column, int(lp.columns.group_C[other])), []).append(together)
    for (column, _), together in beside.items():
        cp.add(sum(together) <= take[column])
    weights = [-(-value >> bits) for value in (*values, *(value for _, _, value in pairs))]
    cp.add(model.cp_model.LinearExpr.weighted_sum([*take, *both], weights) >= -(-(least + 1) >> bits))
    for _ in range(MAX_NEAR):
        solver, status = model.solve(effort)
        if status not in (model.cp_model.OPTIMAL, model.cp_model.FEASIBLE):
            return bool(status == model.cp_model.INFEASIBLE)
        taken = set(model.taken(solver).tolist())
        if sum(values[c] for c in taken) + sum(v for a, b, v in pairs if a in taken and b in taken) > least:
            return False
        model.add_apart(Apart(choices=lp.columns.choices(sorted(taken)), distance=1))
    return False


def best(
    lp: LinearProgram,
    relaxation: Relaxation,
    judge: Judge,
    apart: Sequence[Apart],
    effort: Effort,
    incumbent: Choices | None = None,
) -> Answer:
    """The best network, by rounds of growing columns; see the module.

    ``incumbent``: an allowed network, if one is known: then one round proves.
    """
    return _Rounds(lp, relaxation, judge, apart, effort).run(incumbent)


class _Rounds:
    def __init__(
        self, lp: LinearProgram, relaxation: Relaxation, judge: Judge, apart: Sequence[Apart], effort: Effort
    ) -> None:
        self.lp, self.relaxation, self.judge, self.effort = lp, relaxation, judge, effort
        self.refused = list(apart)
        self.choices: Choices | None = None
        self.key: Any = None

    def run(self, incumbent: Choices | None) -> Answer:
        loss_C = self.relaxation.loss_C
        bound = self.relaxation.bound + self.relaxation.error
        g = math.inf if self.relaxation.seems_infeasible else _first_round(self.lp, self.relaxation)
        if incumbent is not None:
            self._take(incumbent)
            g = self._needed()
        while True:
            kept = loss_C <= g
            round_lp = self.lp.keep(kept)
            scaled = _Scaled(round_lp)
            model = _Model(round_lp, self.refused)
            model.minimise(scaled.loss_C, self._most(round_lp, scaled))
            solver, status = model.solve(self.effort)
            if status == model.cp_model.MODEL_INVALID:
                raise AssertionError(f"CP-SAT refuses the model: {model.model.validate()}")
            if status in (model.cp_model.OPTIMAL, model.cp_model.FEASIBLE):
                bound = min(bound, max(scaled.bound(solver), self.relaxation.bound - g + self.relaxation.error))
                is_better = self._take(round_lp.columns.choices(model.taken(solver)))
                is_best = status == model.cp_model.OPTIMAL and is_better and scaled.is_exact
                if is_best and (kept.all() or self._needed() <= g):
                    return self._proven()
            if status in (model.cp_model.UNKNOWN, model.cp_model.FEASIBLE):
                return self._stopped(bound)
            if status == model.cp_model.INFEASIBLE:  # nothing better among these columns
                if kept.all() or self.choices is not None:
                    return self._proven()
                g = _larger(g, loss_C)
            elif self.choices is not None:
                g = self._needed()

    def _take(self, choices: Choices) -> bool:
        """Note a network, which is not looked for again; returns whether it is the best allowed one so far."""
        key: Any = self.judge(choices)
        self.refused.append(Apart(choices=choices, distance=1))
        if key is None or (self.choices is not None and not self._is_better(choices, key)):
            return False
        self.choices, self.key = choices, key
        return True

    def _is_better(self, choices: Choices, key: Any) -> bool:
        """By the program's value; ``judge`` decides where rounding could hide the order."""
        more = self.lp.value_of(self.lp.columns.columns(choices)) - self._value()
        return bool(key > self.key) if abs(more) <= 2 * self.relaxation.error else more > 0

    def _needed(self) -> float:
        """The loss that columns of a network better than the best found stay below."""
        return self.relaxation.bound - self._value() + 2 * self.relaxation.error

    def _value(self) -> float:
        assert self.choices is not None, "the caller looks"
        return self.lp.value_of(self.lp.columns.columns(self.choices))

    def _most(self, lp: LinearProgram, scaled: "_Scaled") -> int | None:
        """The integer loss that a better network has at most."""
        if self.choices is None:
            return None
        total = int(scaled.loss_C[lp.columns.columns(self.choices)].sum())
        return total - 1 if scaled.is_exact else total + scaled.slack

    def _proven(self) -> Answer:
        if self.choices is None:
            return Answer(status=Status.INFEASIBLE, choices=None, bound=-math.inf, route=ROUTE)
        return Answer(status=Status.OPTIMAL, choices=self.choices, bound=self._value() + self.lp.rounding, route=ROUTE)

    def _stopped(self, bound: float) -> Answer:
        status = Status.STOPPED if self.choices is None else Status.FEASIBLE
        return Answer(status=status, choices=self.choices, bound=bound, route=ROUTE)


def _first_round(lp: LinearProgram, relaxation: Relaxation) -> float:
    count = int(FIRST_COLUMNS * lp.num_groups)
    if count >= len(relaxation.loss_C):
        return math.inf
    return float(np.partition(relaxation.loss_C, count)[count])


def _larger(g: float, loss_C: Floats) -> float:
    """A g that takes in several times more columns."""
    count = int(ROUND_GROWTH * np.count_nonzero(loss_C <= g))
    return math.inf if count >= len(loss_C) else float(np.partition(loss_C, count)[count])


class _Scaled:
    """Losses in integers: exactly where they are small enough, else rounded down in the smallest unit that is.

    ``slack``: by how much the integer loss of a better network may exceed that of a worse one.
    """

    def __init__(self, lp: LinearProgram) -> None:
        integers = lp.integers_C
        self.is_exact = integers is not None and -float(integers.astype(np.float64).sum()) < MAX_LOSS
        if self.is_exact:
            assert integers is not None, "it is exact"
            self.loss_C: Ints = -integers
            self.unit, self.slack = float(lp.unit), 0
        else:
            self.unit = float(-lp.value_C.sum()) / ROUNDED_LOSS or 1.0
            self.loss_C = np.floor(-lp.value_C / self.unit).astype(np.int64)
            self.slack = lp.num_groups + 2 + math.ceil(2 * lp.rounding / self.unit)

    def bound(self, solver: Any) -> float:
        """No network of the model has a higher value."""
        return float(np.nextafter(-solver.best_objective_bound * self.unit * (1 - 1e-15), math.inf))
