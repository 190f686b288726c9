"""Refinement: propose the most promising unevaluated networks, evaluate, refit, repeat.

Axes: K evaluated networks, N candidates, P places, D one-hot columns.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from nas_core.config import PredictConfig, VerifyConfig
from nas_core.evaluations import CostTable, EvaluationTable
from nas_core.prediction.encoding import Encoding, all_codes, allowed, totals
from nas_core.prediction.equivalence import equivalents, has_equivalents
from nas_core.prediction.search import Pool, next_batch
from nas_core.program.problem import Budget
from nas_core.space import Genotype, SearchSpace

ENUMERATE_UP_TO = 200_000  # networks of a space that are all scored; beyond, candidates are sampled and climbed to


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
            return f"the choice stood for {config.patience} round(s)"
        return None

    def with_round(
        self,
        *,
        proposed: Sequence[Genotype],
        predicted: Sequence[float],
        measured: Sequence[float | None],
        incumbent: Genotype,
        incumbent_metric: float,
        improved: bool,
    ) -> "Refinement":
        """The record with one more round."""
        done = Round(
            proposed=tuple(proposed),
            predicted=tuple(predicted),
            measured=tuple(measured),
            incumbent=incumbent,
            incumbent_metric=incumbent_metric,
            improved=improved,
        )
        return Refinement(rounds=(*self.rounds, done))


def propose(
    space: SearchSpace,
    table: EvaluationTable,
    config: PredictConfig,
    *,
    base: Genotype,
    k: int,
    budgets: Sequence[Budget] = (),
    costs: Sequence[CostTable] = (),
    avoid: Collection[Genotype] = (),
    flops: CostTable | None = None,
    seed: int = 0,
    round: int = 0,
) -> list[Genotype]:
    """At most ``k`` unevaluated networks within the budgets, the most promising first.

    Predicted value and uncertainty both count, and later members of the batch
    take the earlier ones into account. Networks that compute what an evaluated,
    avoided or already proposed one computes are left out. Empty when nothing is left.
    """
    encoding = Encoding.of(space)
    rng = np.random.default_rng([seed, round, 2])
    codes_NP = _candidate_codes(space, encoding, table, rng)
    open_N = allowed(space.rules, codes_NP) & within(encoding, codes_NP, budgets, costs)
    pool = Pool(encoding=encoding, codes_NP=codes_NP[open_N])
    blocked = {*table.genotypes, *avoid}
    if has_equivalents(space):
        blocked = {copy for genotype in blocked for copy in equivalents(space, genotype)}
    chosen = next_batch(
        pool,
        evaluated_KP=encoding.encode(table.genotypes),
        metric_K=table.metric_K,
        blocked_KP=encoding.encode(blocked),
        k=k,
        rng=rng,
        copies=lambda code_P: encoding.encode(equivalents(space, encoding.genotype(code_P))),
    )
    return [encoding.genotype(code_P) for code_P in pool.codes_NP[chosen]]


def within(
    encoding: Encoding, codes_NP: np.ndarray, budgets: Sequence[Budget], costs: Sequence[CostTable]
) -> np.ndarray:
    """Which networks are within every budget; ``costs`` has a table per resource (and resolution)."""
    mask_N = np.ones(len(codes_NP), dtype=bool)
    for budget in budgets:
        total_N = _resource_totals(encoding, codes_NP, [table for table in costs if table.resource == budget.resource])
        if budget.at_most is not None:
            mask_N &= total_N <= budget.at_most * (1 + 1e-12)
        if budget.at_least is not None:
            mask_N &= total_N >= budget.at_least * (1 - 1e-12)
    return mask_N


def _resource_totals(encoding: Encoding, codes_NP: np.ndarray, tables: Sequence[CostTable]) -> np.ndarray:
    if not encoding.resolutions:
        return totals(tables[0], codes_NP)
    by_resolution = {table.resolution: totals(table, codes_NP) for table in tables}
    total_RN = np.stack([by_resolution[resolution] for resolution in encoding.resolutions])
    return np.asarray(total_RN[codes_NP[:, -1], np.arange(len(codes_NP))])


def _candidate_codes(
    space: SearchSpace, encoding: Encoding, table: EvaluationTable, rng: np.random.Generator
) -> np.ndarray:
    if encoding.num_networks <= ENUMERATE_UP_TO:
        return all_codes(encoding.sizes)
    sample_NP = np.stack([rng.integers(size, size=20_000, dtype=np.int16) for size in encoding.sizes], axis=1)
    return np.unique(sample_NP, axis=0)
