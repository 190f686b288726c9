"""One table's program on the route that serves its shape; ``ROUTES.md`` says which, and why."""

import itertools
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from nas_core.program import additive, chain, cpsat, enumeration, fractional, pairwise
from nas_core.program.answers import INFEASIBLE, Answer, Apart, Choices, Effort, Ranking
from nas_core.program.exact import Value, evaluate, exact, rounded_up, violations
from nas_core.program.halves import CoreTooLargeError
from nas_core.program.linear import MAX_TOTAL, Exact, Floats, LinearProgram, TableProgram, quotients
from nas_core.program.problem import SelectionProblem, Table
from nas_core.program.relaxation import Relaxation, relax
from nas_core.program.result import Status
from nas_core.space.genotypes import Genotype

AGAIN_SHARE = 0.5  # of the time left, for showing in whole numbers what HiGHS found in floats
CHAIN_SHARE = 0.5  # of the time left, for the levels of a chain of pair terms
MAX_COLUMNS = 3_000  # whose pair terms fit a table
FEW_NETWORKS = 20_000  # quotients of which are looked at sooner than one linear program is solved for each


class TableSolver:
    """Finds the best network of one table, again and again."""

    def __init__(self, problem: SelectionProblem, table: Table, program: TableProgram | None = None) -> None:
        self.problem, self.table = problem, table
        self.program = TableProgram(problem, table) if program is None else program
        self._lp: LinearProgram | None = None
        self._terms: pairwise.PairTerms | None = None
        self._own_chain: chain.Chain | None = None
        self._every: enumeration.EveryNetwork | None = None
        if self.program.columns is not None:
            self._prepare()

    def _prepare(self) -> None:
        program, pairs = self.program, self.problem.pairs
        assert program.columns is not None
        terms = pairwise.PairTerms.of(pairs, program.pair_values, program.columns) if pairs else None
        lp = self._lp = program.linear(self.problem.budgets, None if terms is None else terms.own_C)
        if lp is None:
            return
        if terms is not None and lp.columns is not program.columns:  # some blocks left
            terms = pairwise.PairTerms.of(pairs, program.pair_values, lp.columns)
        self._terms = terms

    @property
    def has_networks(self) -> bool:
        """False if the rules or one limit alone leave none."""
        return self._lp is not None

    def with_problem(self, problem: SelectionProblem) -> "TableSolver":
        """The same table and rules under other limits."""
        return TableSolver(problem, self.table, self.program)

    @property
    def _has_pairs(self) -> bool:
        return self._terms is not None and len(self._terms.value_P) > 0

    @cached_property
    def _relaxation(self) -> Relaxation | None:
        if self._lp is None or self.problem.pairs or not self.problem.objective.is_additive:
            return None
        return relax(self._lp)

    def bound(self) -> float:
        """No network of this table has a higher value; infinite where that is not known cheaply."""
        if self._lp is None:
            return -float("inf")
        if self._relaxation is None:
            return float("inf")
        return self._total(self._relaxation.bound + self._relaxation.error)

    def _total(self, linear: float) -> float:
        """A bound on the program's value as one on the objective's: what a network can be worth at most."""
        if not np.isfinite(linear):
            return linear
        assert self._lp is not None, "the caller looks"
        if self._lp.exact_C is None or self._has_pairs:
            return rounded_up(self._exact_total(Fraction(linear)))
        return rounded_up(self._exact_total(math.floor(Fraction(linear) / self._lp.unit) * self._lp.unit))

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
            return INFEASIBLE
        apart = self._apart(chosen, min_distance)
        objective = self.problem.objective
        if self._is_listed(self._lp):
            return self._every_network(self._lp).best(self.judge, apart)
        if objective.is_additive:
            answer = self._maximise(self._lp, apart, effort, self._relaxation)
            return replace(answer, bound=self._total(answer.bound))
        return self._best_quotient(self._lp, apart, effort)

    def _is_listed(self, lp: LinearProgram) -> bool:
        """Whether looking at all networks is the quickest way."""
        if self._has_pairs:
            return enumeration.fits(lp)
        return not self.problem.objective.is_additive and enumeration.fits(lp, FEW_NETWORKS)

    def ranking(self, count: int, effort: Effort) -> Ranking | None:
        """The best ``count`` allowed networks in order, if they can be listed; None if another way has to find them."""
        if self._lp is None:
            return Ranking(networks=(), floor=-float("inf"), route="limits and rules")
        lp = self._lp
        if self._is_listed(lp):
            networks: list[tuple[Value, Choices]] = []
            floor: Value | float = -float("inf")
            for key, choices in itertools.islice(self._every_network(lp).ranked(self.judge), count):
                networks.append((key, choices))
                if effort.left_s == 0:
                    floor = key
                    break
            return Ranking(networks=tuple(networks), floor=floor, route="every network")
        if self._has_pairs:
            return self._ranked_chain(lp, count, effort)
        refused = {other.choices for other in self._apart((), 1)}
        if not self.problem.objective.is_additive:
            return self._ranked_quotients(lp, refused, count, effort)
        return additive.ranking(lp, self.judge, refused, count, effort, self._exact_total)

    def _exact_total(self, linear: Fraction) -> Fraction:
        """A value of the program as one of the objective."""
        assert self._lp is not None, "the caller looks"
        return linear + self._lp.offset + exact(self.table.base_score)

    def _every_network(self, lp: LinearProgram) -> enumeration.EveryNetwork:
        """All networks, looked at once and kept for the next question."""
        if self._every is None:
            terms = self._terms or pairwise.PairTerms.of({}, self.program.pair_values, lp.columns)
            objective = None if self.problem.objective.is_additive else self._objective_of_all
            self._every = enumeration.EveryNetwork(lp, terms, self.program.scores.decimals, objective)
        return self._every

    def every_network(self) -> enumeration.EveryNetwork | None:
        """All networks within the limits; None if there are too many or integers cannot tell which are within."""
        if self._lp is None or self._lp.is_relaxed or not enumeration.fits(self._lp):
            return None
        return self._every_network(self._lp)

    def _objective_of_all(self, gain: Floats, sums: Callable[[Exact], Exact]) -> tuple[Floats, float]:
        """The objective of many networks from their summed scores; see ``EveryNetwork``."""
        objective, base = self.problem.objective, self.table.base_score
        assert objective.resource is not None, "Objective checks it"
        assert self._lp is not None, "the caller looks"
        costs = self.program.decimals(objective.resource)
        fixed = exact(self.table.base_costs.get(objective.resource, 0.0)) * costs.scale
        totals = sums(self._lp.columns.gather(costs.integers))
        if fixed.denominator > 1 or abs(fixed.numerator) > MAX_TOTAL:
            totals = totals.astype(object) * fixed.denominator
        divisor = quotients(totals + fixed.numerator, 10**costs.decimals * fixed.denominator)
        if objective.kind == "ratio":
            return (gain + base) / divisor, 2 * abs(base) / float(divisor.min())
        assert objective.reference is not None, "Objective checks it"
        return gain * (objective.reference / divisor) ** objective.exponent + base, 2 * abs(base)

    def _maximise(
        self, lp: LinearProgram, apart: Sequence[Apart], effort: Effort, relaxation: Relaxation | None = None
    ) -> Answer:
        if self._terms is not None and self._has_pairs:
            return self._best_with_pairs(lp, self._terms, apart, effort)
        return additive.best(lp, self.judge, apart, effort, relaxation)

    def _best_with_pairs(
        self, lp: LinearProgram, terms: pairwise.PairTerms, apart: Sequence[Apart], effort: Effort
    ) -> Answer:
        prepared = self._chain(lp) if effort.left_s > 0 else None
        if prepared is not None:
            try:
                levels = prepared.levels(time.monotonic() + CHAIN_SHARE * effort.left_s)
                return additive.best_of_levels(levels, lp, self.judge, apart, prepared, "chain search")
            except CoreTooLargeError:
                pass  # HiGHS has no limit on structure
        if effort.left_s == 0:
            return Answer(status=Status.STOPPED, choices=None, bound=math.inf, route="chain search")
        return pairwise.best(lp, terms, self.judge, apart, effort)

    def _best_quotient(self, lp: LinearProgram, apart: Sequence[Apart], effort: Effort) -> Answer:
        quotient = self._quotient(lp)
        factor, shift = self._from_quotient()
        answer = fractional.best(
            lp,
            quotient,
            self.judge,
            self._as_quotient,
            lambda program, judge: self._maximise(program, apart, effort),
            effort.deadline,
            may_shrink=not self._has_pairs,
        )
        found = answer.choices if self._has_pairs and answer.status is Status.FEASIBLE else None
        is_linear = quotient.exponent == 1
        if found is not None and is_linear and self._none_above(lp, found, apart, effort.share(AGAIN_SHARE)):
            answer = replace(answer, status=Status.OPTIMAL, bound=self._as_quotient(found))
        return replace(answer, bound=float(np.nextafter(answer.bound * factor + shift, np.inf)))

    def _quotient(self, lp: LinearProgram) -> fractional.Quotient:
        objective, columns = self.problem.objective, lp.columns
        assert objective.resource is not None, "Objective checks it"
        costs, base = self.program.decimals(objective.resource), self.table.base_costs.get(objective.resource, 0.0)
        exact_C = columns.gather(costs.integers)
        top = sum(np.maximum.reduceat(np.abs(exact_C), lp.starts_G1[:-1]).tolist())
        bits = max(0, int(top).bit_length() - 61)
        return fractional.Quotient(
            offset=float(lp.offset) + (self.table.base_score if objective.kind == "ratio" else 0.0),
            base=base,
            divisor_C=quotients(exact_C, 10**costs.decimals),
            divisor_int_C=(exact_C >> bits).astype(np.int64),
            scale=float(costs.scale / 2**bits),
            inexact=lp.num_groups if bits else 0,
            exponent=1.0 if objective.kind == "ratio" else objective.exponent,
        )

    def _chain(self, lp: LinearProgram) -> chain.Chain | None:
        """A program with this table's pair terms as a chain; None if it is none. That of the table itself is kept."""
        if self._terms is None or not chain.is_chain(lp, self._terms):
            return None
        if lp is self._lp and self._own_chain is not None:
            return self._own_chain
        try:
            made = chain.Chain(lp, self._terms)
        except CoreTooLargeError:
            return None
        if lp is self._lp:
            self._own_chain = made
        return made

    def _ranked_chain(self, lp: LinearProgram, count: int, effort: Effort) -> Ranking | None:
        """Where pair terms join neighbours and nothing divides."""
        prepared = self._chain(lp) if self.problem.objective.is_additive else None
        if prepared is None or self._terms is None:
            return None
        refused = {other.choices for other in self._apart((), 1)}
        keyed = additive.Keyed(lp, self.judge, refused, self._exact_total, self._worth_with_pairs(lp, self._terms))
        levels = prepared.levels(time.monotonic() + CHAIN_SHARE * effort.left_s)
        return additive.ranking_of_levels(levels, prepared, keyed, count, "chain search")

    def _worth_with_pairs(self, lp: LinearProgram, terms: pairwise.PairTerms) -> additive.Worth | None:
        """The values of networks, pair terms included; None where they do not fit."""
        count, decimals = lp.columns.num_columns, self.program.scores.decimals
        if lp.integers_C is None or terms.exact_P.dtype == object or count > MAX_COLUMNS:
            return None
        factor = int(lp.unit * 10**decimals)
        total = factor * -int(np.minimum.reduceat(lp.integers_C, lp.starts_G1[:-1]).sum())
        if total + sum(map(abs, terms.exact_P.tolist())) >= MAX_TOTAL:
            return None
        pairs_CC = np.zeros((count, count), dtype=np.int64)
        pairs_CC[terms.first_P, terms.second_P] = terms.exact_P
        return additive.Worth(lp.integers_C * factor, Fraction(1, 10**decimals), pairs_CC)

    def _ranked_quotients(
        self, lp: LinearProgram, refused: Collection[Choices], count: int, effort: Effort
    ) -> Ranking | None:
        refuses = additive.Keyed(lp, self.judge, refused, self._exact_total, None).refuses
        lister = fractional.Lister(lp, self._quotient(lp), refuses if refused or lp.is_relaxed else None, effort)
        try:
            most = lister.run(count)
        except CoreTooLargeError:
            return None
        values = lister.quotients()
        least = np.sort(values)[-min(count, len(values))] if len(values) else 0.0
        near_SG = lister.columns_SG[values >= least - 2 * lister.error]
        networks = [(self.judge(choices), choices) for choices in map(lp.columns.choices, near_SG)]
        allowed = [(key, choices) for key, choices in networks if key is not None]
        allowed.sort(key=lambda item: item[1])
        allowed.sort(key=lambda item: item[0], reverse=True)
        factor, shift = self._from_quotient()
        floor = float(np.nextafter(most * factor + shift, np.inf)) if np.isfinite(most) else most
        return Ranking(networks=tuple(allowed[:count]), floor=floor, route="parametric ranking")

    def _as_quotient(self, choices: Choices) -> float:
        factor, shift = self._from_quotient()
        return (float(self.key(choices)) - shift) / factor

    def _none_above(self, lp: LinearProgram, choices: Choices, apart: Sequence[Apart], effort: Effort) -> bool:
        """Whether whole numbers show that no quotient of pair terms and scores is above a network's.

        With S the scores and terms, F the divisor: (base + S) / F > q is S - q F > -base, and
        base + S reference / F > q is reference S - (q - base) F > 0.
        """
        objective, base = self.problem.objective, exact(self.table.base_score)
        assert objective.resource is not None, "Objective checks it"
        assert lp.exact_C is not None, "scores are exact"
        assert self._terms is not None, "there are pair terms"
        q, costs = Fraction(self.key(choices)), self.program.decimals(objective.resource)
        fixed = exact(self.table.base_costs.get(objective.resource, 0.0))
        of_score, of_cost, limit = Fraction(1), q, q * fixed - base
        if objective.kind == "fractional":
            of_score, of_cost = exact(float(objective.reference or 1.0)), q - base
            limit = of_cost * fixed
        limit -= of_score * lp.offset
        per_score, per_term = of_score * lp.unit, of_score / self.program.scores.scale
        per_cost = of_cost / costs.scale
        unit = math.lcm(per_score.denominator, per_term.denominator, per_cost.denominator, limit.denominator)
        gathered = lp.columns.gather(costs.integers).tolist()
        values = [
            int(unit * per_score) * score - int(unit * per_cost) * cost
            for score, cost in zip(lp.exact_C.tolist(), gathered, strict=True)
        ]
        terms = self._terms
        pairs = [
            (a, b, int(unit * per_term) * value)
            for a, b, value in zip(terms.first_P.tolist(), terms.second_P.tolist(), terms.exact_P.tolist(), strict=True)
        ]
        return cpsat.nothing_above(lp, values, pairs, math.floor(unit * limit), apart, effort)

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
