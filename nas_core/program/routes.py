"""Which solver proves what, and why.

additive, few linear limits -> core search (``core``):
    the gap of the relaxation is tiny, so few combinations lie in it.
additive with strong rules, many priced limits or mass ties -> CP-SAT on the
columns that reduced-cost fixing leaves (``cpsat``):
    it has no limit on structure, and learns from the rules.
fractional, ratio -> a sequence of additive programs (``fractional``):
    exact without overflow, since floats only steer and exact fractions decide.
pair terms, few networks -> all of them at once, vectorised (``enumeration``):
    half a million take less time than one integer program, and top k comes free.
pair terms between neighbours only -> core search on the chain (``chain``):
    dynamic programming gives the flow form's bound in a fraction of its time.
other pair terms -> HiGHS on the flow form (``pairwise``):
    its relaxation is tight, that of CP-SAT's Boolean products is not.

The core search is tried first wherever it applies: it knows within a fraction
of the time whether it fits, and then CP-SAT takes over.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from nas_core.program import additive, chain, enumeration, fractional, pairwise
from nas_core.program.additive import Answer, Apart, Choices, Effort
from nas_core.program.exact import Value, evaluate, violations
from nas_core.program.linear import Floats, LinearProgram, TableProgram
from nas_core.program.matching import CoreTooLargeError
from nas_core.program.problem import SelectionProblem, Table
from nas_core.program.relaxation import Relaxation, relax
from nas_core.space.genotypes import Genotype


class TableSolver:
    """Finds the best network of one table, again and again."""

    def __init__(self, problem: SelectionProblem, table: Table, program: TableProgram | None = None) -> None:
        self.problem, self.table = problem, table
        self.program = TableProgram(problem, table) if program is None else program
        self._lp: LinearProgram | None = None
        self._relaxation: Relaxation | None = None
        self._terms: pairwise.PairTerms | None = None
        self._every: enumeration.EveryNetwork | None = None
        if self.program.columns is not None:
            self._prepare()

    def _prepare(self) -> None:
        assert self.program.columns is not None
        lp = self.program.linear(self.program.score_F, self.problem.budgets)
        if self.problem.pairs:
            self._terms = pairwise.PairTerms.of(self.problem.pairs, self.program.columns)
            lp = replace(lp, value_C=lp.value_C + self._terms.own_C)
        self._lp = lp
        if self.problem.objective.is_additive and not self.problem.pairs:
            self._relaxation = relax(lp)

    def with_problem(self, problem: SelectionProblem) -> "TableSolver":
        """The same table and rules under other limits."""
        return TableSolver(problem, self.table, self.program)

    @property
    def _has_pairs(self) -> bool:
        return self._terms is not None and len(self._terms.value_P) > 0

    def bound(self) -> float:
        """No network of this table has a higher value; infinite where that is not known cheaply."""
        if self._relaxation is None:
            return float("inf")
        return self._relaxation.bound + self._relaxation.error + self.table.base_score

    def key(self, choices: Choices) -> Value:
        """The exact value of a network: larger is better."""
        return evaluate(self.problem, Genotype(choices, self.table.resolution)).value

    def judge(self, choices: Choices) -> Value | None:
        """The exact value, or None if exact arithmetic finds a limit broken."""
        genotype = Genotype(choices, self.table.resolution)
        totals = evaluate(self.problem, genotype)
        return None if violations(self.problem, genotype, totals.costs) else totals.value

    def best(self, chosen: Sequence[Genotype], min_distance: int, effort: Effort) -> Answer:
        """The best network at least ``min_distance`` from the chosen ones; the bound is of the objective's value."""
        if self._lp is None:
            return additive.INFEASIBLE
        apart = self._apart(chosen, min_distance)
        objective = self.problem.objective
        if self._has_pairs and enumeration.fits(self._lp):
            return self._every_network(self._lp).best(self.judge, apart)
        if objective.is_additive:
            answer = self._maximise(self._lp, apart, effort, self._relaxation)
            return replace(answer, bound=answer.bound + self.table.base_score)
        return self._best_quotient(self._lp, apart, effort)

    def _every_network(self, lp: LinearProgram) -> enumeration.EveryNetwork:
        """All networks, looked at once and kept for the next question."""
        if self._every is None:
            assert self.program.columns is not None, "the caller looks"
            terms = self._terms or pairwise.PairTerms.of({}, self.program.columns)
            self._every = enumeration.EveryNetwork(lp, terms, self._objective_of_all)
        return self._every

    def every_network(self) -> enumeration.EveryNetwork | None:
        """All networks within the limits; None if there are too many or integers cannot tell which are within."""
        if self._lp is None or self._lp.is_relaxed or not enumeration.fits(self._lp):
            return None
        return self._every_network(self._lp)

    def _objective_of_all(self, linear: Floats, sums: Callable[[Floats], Floats]) -> Floats:
        """The objective of many networks from their linear values and a function that sums entries."""
        objective, base = self.problem.objective, self.table.base_score
        if objective.is_additive:
            return linear + base
        assert objective.resource is not None, "Objective checks it"
        assert self.program.columns is not None, "the caller looks"
        cost_C = self.program.columns.gather(self.program.cost_F(objective.resource)).astype(np.float64)
        divisor = sums(cost_C) + self.table.base_costs.get(objective.resource, 0.0)
        if objective.kind == "ratio":
            return (linear + base) / divisor
        assert objective.reference is not None, "Objective checks it"
        gain: Floats = linear * (objective.reference / divisor) ** objective.exponent
        return gain + base

    def _maximise(
        self, lp: LinearProgram, apart: Sequence[Apart], effort: Effort, relaxation: Relaxation | None = None
    ) -> Answer:
        if self._terms is not None and self._has_pairs:
            return self._best_with_pairs(lp, self._terms, apart, effort)
        return additive.best(lp, self.judge, apart, effort, relaxation)

    def _best_with_pairs(
        self, lp: LinearProgram, terms: pairwise.PairTerms, apart: Sequence[Apart], effort: Effort
    ) -> Answer:
        if chain.is_chain(lp, terms):
            try:
                prepared = chain.Chain(lp, terms)
                deadline = time.monotonic() + 0.5 * effort.left_s
                levels = prepared.levels(deadline)
                return additive.best_of_levels(
                    levels, lp, self.judge, apart, prepared.bound, prepared.error, "chain search"
                )
            except CoreTooLargeError:
                pass  # HiGHS has no limit on structure
        return pairwise.best(lp, terms, self.judge, apart, effort)

    def _best_quotient(self, lp: LinearProgram, apart: Sequence[Apart], effort: Effort) -> Answer:
        objective, columns = self.problem.objective, self.program.columns
        assert objective.resource is not None, "Objective checks it"
        assert columns is not None, "the caller looks"
        integers = self.program.integers(objective.resource)
        divisor_C: Floats = columns.gather(self.program.cost_F(objective.resource)).astype(np.float64)
        quotient = fractional.Quotient(
            offset=self.table.base_score if objective.kind == "ratio" else 0.0,
            base=self.table.base_costs.get(objective.resource, 0.0),
            divisor_C=divisor_C,
            divisor_int_C=columns.gather(integers.flat).astype(np.int64),
            scale=float(integers.scale),
            exponent=1.0 if objective.kind == "ratio" else objective.exponent,
        )
        factor, shift = self._from_quotient()
        answer = fractional.best(
            lp,
            quotient,
            self.judge,
            lambda choices: (float(self.key(choices)) - shift) / factor,
            lambda program, judge: self._maximise(program, apart, effort),
        )
        return replace(answer, bound=answer.bound * factor + shift)

    def _from_quotient(self) -> tuple[float, float]:
        """The objective is factor * q + shift."""
        objective = self.problem.objective
        if objective.kind == "ratio":
            return 1.0, 0.0
        assert objective.reference is not None, "Objective checks it"
        return float(objective.reference**objective.exponent), self.table.base_score

    def _apart(self, chosen: Sequence[Genotype], min_distance: int) -> list[Apart]:
        """What the forbidden and the chosen networks demand of this table's networks."""
        apart = [
            Apart(choices=genotype.choices, distance=1)
            for genotype in self.problem.forbidden
            if genotype.resolution in (None, self.table.resolution)
        ]
        for genotype in chosen:
            distance = min_distance - (genotype.resolution != self.table.resolution)
            if distance > 0:
                apart.append(Apart(choices=genotype.choices, distance=distance))
        return apart
