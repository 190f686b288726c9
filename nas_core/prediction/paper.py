"""The paper's rule: block effects by differences, prediction by the FLOPs ratio (MathNAS Eq. 3-5).

    b_ij = mean over contexts of metric(context with b_i1) - metric(context with b_ij)   (Eq. 3, a loss)
    metric(N) = metric(base) - sum b_ij (Fbar / F(N))^p                                   (Eq. 5)

with p = 1 as printed, 0 for the additive rule of the authors' code. No
regression, no interval: what ``fit`` is compared with.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nas_core.base.errors import ConfigError, IncompleteTableError
from nas_core.prediction.predictor import ScoreTerms, flops_scale, mean_flops
from nas_core.records.evaluations import CostTable, EvaluationTable
from nas_core.space.encoding import Encoding
from nas_core.space.genotypes import Genotype, SearchSpace


@dataclass(frozen=True, kw_only=True)
class PaperRule:
    """Losses per block against the base's, ragged, in the metric's unit turned so that higher is better.

    ``num_pairs`` counts the evaluated pairs behind each loss; a block without a
    pair has loss 0 and ``num_pairs`` 0.
    """

    space: SearchSpace
    base: Genotype
    base_metric: float
    loss: tuple[tuple[float, ...], ...]
    num_pairs: tuple[tuple[int, ...], ...]
    exponent: float
    flops: CostTable | None
    sign: int

    @property
    def reference(self) -> float | None:
        return mean_flops(self.flops) if self.flops is not None else None

    def predict(self, genotypes: Iterable[Genotype]) -> np.ndarray:
        """The metric of each network, in its own unit and sign, shape [N]."""
        return self.sign * self.values(Encoding.of(self.space).encode(genotypes))

    def values(self, codes_NP: np.ndarray) -> np.ndarray:
        """Higher-is-better predictions for rows of choices."""
        loss_N = np.zeros(len(codes_NP))
        for position, losses in enumerate(self.loss):
            loss_N += np.asarray(losses)[codes_NP[:, position]]
        return np.asarray(self.base_metric - loss_N * flops_scale(self.flops, self.reference, self.exponent, codes_NP))

    def score_terms(self) -> ScoreTerms:
        """Eq. 6 as a selection program; scores are the negated losses."""
        score = tuple(tuple(-value for value in row) for row in self.loss)
        return ScoreTerms(
            score={self.base.resolution: score},
            base_score={self.base.resolution: self.base_metric},
            pairs={},
            exponent=self.exponent,
            reference=self.reference if self.exponent else None,
        )


def fit_paper(
    space: SearchSpace,
    table: EvaluationTable,
    *,
    base: Genotype,
    exponent: float = 1.0,
    flops: CostTable | None = None,
) -> PaperRule:
    """The paper's rule from every evaluated pair that differs in one block, one of the two being the base's.

    Raises:
        IncompleteTableError: if the base was not evaluated.
        ConfigError: for an exponent above 0 without FLOPs.
    """
    if exponent and flops is None:
        raise ConfigError("exponent", f"{exponent:g} without FLOPs", "0", "Profile the resource flops first.")
    metric = dict(zip(table.genotypes, (float(value) for value in table.metric_K), strict=True))
    if base not in metric:
        raise IncompleteTableError(f"base network {base}", "no evaluation", "one evaluation")
    loss, num_pairs = [], []
    for position, count in enumerate(space.num_choices):
        differences: list[list[float]] = [[] for _ in range(count)]
        for genotype, value in metric.items():
            choice = genotype.choices[position]
            context = metric.get(genotype.swap(position, base.choices[position]))
            if choice != base.choices[position] and context is not None:
                differences[choice].append(context - value)
        loss.append(tuple(float(np.mean(found)) if found else 0.0 for found in differences))
        num_pairs.append(tuple(map(len, differences)))
    return PaperRule(
        space=space,
        base=base,
        base_metric=metric[base],
        loss=tuple(loss),
        num_pairs=tuple(num_pairs),
        exponent=exponent,
        flops=flops,
        sign=table.sign,
    )
