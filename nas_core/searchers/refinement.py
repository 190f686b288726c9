"""Refinement: propose the most promising unevaluated networks, evaluate, refit, repeat.

Axes: K evaluated networks, N candidates, P places, D one-hot columns.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from nas_core.prediction.observations import observe
from nas_core.program import Budget, SelectionProblem, top_k
from nas_core.records.evaluations import CostTable, EvaluationTable
from nas_core.searchers.searcher import SEARCHERS, Knowledge, Searcher
from nas_core.searchers.settings import VerifyConfig
from nas_core.searchers.surrogate import Surrogate, choose_batch, is_among, surrogate
from nas_core.space.encoding import Encoding, all_codes
from nas_core.space.equivalence import equivalents, has_equivalents
from nas_core.space.genotypes import Genotype, SearchSpace
from nas_core.space.rules import allowed

ENUMERATE_UP_TO = 200_000  # networks of a space that are all scored; beyond, candidates are climbed to
SAMPLED = 5_000  # random networks a climb may start from
PROGRAM_STARTS = 20  # and networks the selection program adds, per resolution
PROGRAM_TIME_S = 20.0
CLIMBERS = 100  # best networks whose neighbours are looked at in each step
CLIMB_STEPS = 40


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of refinement. Metrics are in the metric's own unit and sign."""

    proposed: tuple[Genotype, ...]
    predicted: tuple[float, ...]
    measured: tuple[float | None, ...]
    incumbent: Genotype
    incumbent_metric: float
    improved: bool


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """The rounds so far and when to stop."""

    rounds: tuple[Round, ...] = field(default=())

    @property
    def num_evaluations(self) -> int:
        return sum(len(done.proposed) for done in self.rounds)

    def num_next(self, config: VerifyConfig) -> int:
        """How many networks the next round may evaluate; 0 when refinement is over."""
        return 0 if self.stop_reason(config) else min(config.per_round, config.evaluations - self.num_evaluations)

    def stop_reason(self, config: VerifyConfig) -> str | None:
        """Why refinement is over, or None: the budget is spent, or the choice stood for ``patience`` rounds."""
        if self.num_evaluations >= config.evaluations:
            return f"the budget of {config.evaluations} evaluations is spent"
        last = self.rounds[-config.patience :]
        if len(last) == config.patience and not any(done.improved for done in last):
            return f"the choice stood for {config.patience} round{'' if config.patience == 1 else 's'}"
        return None


@SEARCHERS.add
class SurrogateSearcher(Searcher):
    """The most promising networks by a surrogate of the ranks: predicted value and uncertainty both count."""

    name = "surrogate"

    def next(self, known: Knowledge, number: int) -> list[Genotype]:
        return propose(
            known.space,
            known.table,
            k=number,
            budgets=known.budgets,
            costs=known.costs,
            avoid=known.tried,
            seed=known.seed,
            round=known.round,
        )


def propose(
    space: SearchSpace,
    table: EvaluationTable,
    *,
    k: int,
    budgets: Sequence[Budget] = (),
    costs: Sequence[CostTable] = (),
    avoid: Collection[Genotype] = (),
    seed: int = 0,
    round: int = 0,
) -> list[Genotype]:
    """At most ``k`` unevaluated networks within the budgets, the most promising first.

    Predicted value and uncertainty both count, and later members of the batch
    take the earlier ones into account. Networks that compute what an evaluated,
    avoided or already proposed one computes are left out. Empty when nothing is left.
    """
    encoding, seen = Encoding.of(space), observe(space, table)
    model = surrogate(seen)
    codes_NP = _candidates(space, table, budgets, costs, model, np.random.default_rng([seed, round, 2]))
    blocked = {*table.genotypes, *avoid}
    several = has_equivalents(space)
    if several:
        blocked = {copy for genotype in blocked for copy in equivalents(space, genotype)}
    chosen = choose_batch(
        model,
        codes_NP,
        ~is_among(codes_NP, encoding.encode(blocked)),
        k,
        (lambda code_P: encoding.encode(equivalents(space, encoding.genotype(code_P)))) if several else None,
    )
    return [encoding.genotype(code_P) for code_P in codes_NP[chosen]]


def within(
    encoding: Encoding, codes_NP: np.ndarray, budgets: Sequence[Budget], costs: Sequence[CostTable]
) -> np.ndarray:
    """Which networks are within every budget; ``costs`` has a table per resource (and resolution)."""
    mask_N = np.ones(len(codes_NP), dtype=bool)
    for budget in budgets:
        total_N = _resource_totals(encoding, codes_NP, [table for table in costs if table.resource == budget.resource])
        mask_N &= budget.is_kept_by(total_N)
    return mask_N


def _resource_totals(encoding: Encoding, codes_NP: np.ndarray, tables: Sequence[CostTable]) -> np.ndarray:
    if not encoding.resolutions:
        return tables[0].totals(codes_NP)
    by_resolution = {table.resolution: table.totals(codes_NP) for table in tables}
    total_RN = np.stack([by_resolution[resolution] for resolution in encoding.resolutions])
    return np.asarray(total_RN[codes_NP[:, -1], np.arange(len(codes_NP))])


def _candidates(
    space: SearchSpace,
    table: EvaluationTable,
    budgets: Sequence[Budget],
    costs: Sequence[CostTable],
    model: Surrogate,
    rng: np.random.Generator,
) -> np.ndarray:
    """Allowed networks within the budgets: all of a small space, the promising ones of a large one."""
    encoding = model.encoding

    def allowed_ones(codes_NP: np.ndarray) -> np.ndarray:
        mask_N = allowed(space.rules, codes_NP) & within(encoding, codes_NP, budgets, costs)
        return np.asarray(codes_NP[mask_N])

    if encoding.num_networks <= ENUMERATE_UP_TO:
        return allowed_ones(all_codes(encoding.sizes))
    sample_NP = np.stack([rng.integers(size, size=SAMPLED, dtype=np.int16) for size in encoding.sizes], axis=1)
    start_NP = allowed_ones(np.concatenate([_program_codes(model, space, budgets, costs), sample_NP]))
    return climb(model, np.concatenate([start_NP, allowed_ones(encoding.encode(table.genotypes))]), allowed_ones)


def _program_codes(
    model: Surrogate, space: SearchSpace, budgets: Sequence[Budget], costs: Sequence[CostTable]
) -> np.ndarray:
    """The networks of highest additive score that satisfy rules and budgets, by the selection program.

    Pair terms are left to the climb that starts here: the program's part is to
    be inside tight limits, where random networks are not.
    """
    encoding = model.encoding
    # A block's expected pair terms beside a uniformly random rest stand for its pairs.
    score_D = model.score_D + model.pair_DD @ (1 / np.repeat(encoding.sizes, encoding.sizes))
    places = np.split(score_D, encoding.offsets[1:])
    score = tuple(tuple(map(float, row)) for row in places[: space.num_positions])
    found: list[Genotype] = []
    for resolution in encoding.resolutions or (None,):
        mine = {table.resource: table for table in costs if resolution in (None, table.resolution)}
        problem = SelectionProblem(
            score=score,
            costs={name: table.block for name, table in mine.items()},
            base_costs={name: table.fixed for name, table in mine.items()},
            budgets=tuple(budgets),
            rules=space.rules,
        )
        result = top_k(problem, PROGRAM_STARTS, time_limit_s=PROGRAM_TIME_S)
        found += [Genotype(selection.genotype.choices, resolution) for selection in result.selections]
    return encoding.encode(found)


def climb(model: Surrogate, start_NP: np.ndarray, allowed_ones: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The start networks and every one-swap neighbour met while climbing the predicted value from the best of them."""
    if not len(start_NP):
        return start_NP
    encoding = model.encoding
    known_NP = np.unique(start_NP, axis=0)
    for _ in range(CLIMB_STEPS):
        mean_N = model.mean_of(known_NP)
        best_NP = known_NP[np.argsort(-mean_N)[:CLIMBERS]]
        swaps_NP = np.concatenate([_swaps(encoding, code_P) for code_P in best_NP])
        grown_NP = np.unique(np.concatenate([known_NP, allowed_ones(swaps_NP)]), axis=0)
        if len(grown_NP) == len(known_NP):
            break
        known_NP = grown_NP
    return known_NP


def _swaps(encoding: Encoding, code_P: np.ndarray) -> np.ndarray:
    """Every code that differs from ``code_P`` in one place."""
    swaps_DP = np.repeat(code_P[None], encoding.num_columns, axis=0)
    columns = np.arange(encoding.num_columns)
    place_D = encoding.place_of_column
    swaps_DP[columns, place_D] = columns - encoding.offsets[place_D]
    return swaps_DP
