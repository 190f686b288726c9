"""Evaluated networks as rows to fit: each with the genotypes that compute the same, grouped by function.

Axes: K rows (evaluated networks and their equivalents), P places.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas_core.prediction.gaussian_process import Fitted
from nas_core.records.evaluations import EvaluationTable
from nas_core.space.encoding import Encoding
from nas_core.space.equivalence import equivalents, function_id, has_equivalents
from nas_core.space.genotypes import SearchSpace

MOST_ROWS = 8  # genotypes one evaluation stands for in a fit; a table may name hundreds


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Rows to fit. One evaluation of a function with c genotypes is c rows of c times the noise each."""

    encoding: Encoding
    codes_KP: np.ndarray
    metric_K: np.ndarray
    copies_K: np.ndarray
    group_K: np.ndarray
    first_K: np.ndarray  # True on the rows that were evaluated, False on their equivalents

    def prepared(self) -> Fitted:
        """The rows for an additive regression."""
        return Fitted(
            encoding=self.encoding,
            x_KD=self.encoding.one_hot(self.codes_KP),
            scale_K=np.ones(len(self.codes_KP)),
            origin_D=np.zeros(self.encoding.num_columns),
            copies_K=self.copies_K,
            group_K=self.group_K,
        )


def observe(space: SearchSpace, table: EvaluationTable, groups: Sequence[str] | None = None) -> Observations:
    """The observations of a table; ``groups`` labels its networks (default: by what they compute).

    Raises:
        SpaceError: for a network that is not of the space's shape.
    """
    encoding = Encoding.of(space)
    several = has_equivalents(space)
    labels = (
        list(groups) if groups is not None else [function_id(space, space.check_choices(g)) for g in table.genotypes]
    )
    evaluated = set(table.genotypes)
    genotypes, source, first = [], [], []
    for index, genotype in enumerate(table.genotypes):
        others = [g for g in equivalents(space, genotype)[1:] if g not in evaluated] if several else []
        others = others[:: max(1, -(-len(others) // (MOST_ROWS - 1)))]
        genotypes += [genotype, *others]
        source += [index] * (1 + len(others))
        first += [True, *(False for _ in others)]
    source_K = np.array(source)
    return Observations(
        encoding=encoding,
        codes_KP=encoding.encode(genotypes),
        metric_K=table.metric_K[source_K],
        copies_K=np.bincount(source_K)[source_K].astype(float),
        group_K=np.unique(np.array(labels), return_inverse=True)[1][source_K],
        first_K=np.array(first),
    )
