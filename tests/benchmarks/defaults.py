"""What a study with default settings evaluates, played on a listed table: its design, then rounds of verification.

The parts are the study's own (``balanced_rows``, ``fit``, ``surrogate``,
``choose_batch``) and so are the numbers (``DesignConfig``, ``VerifyConfig``);
only the space's networks are those of the table. Rows index the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas_core.prediction import Predictor, fit
from nas_core.prediction.observations import observe
from nas_core.prediction.settings import PredictConfig
from nas_core.records.evaluations import EvaluationTable
from nas_core.searchers.settings import DesignConfig, VerifyConfig
from nas_core.searchers.surrogate import (
    DESIGN_CANDIDATES,
    balanced_rows,
    balanced_size,
    choose_batch,
    is_among,
    surrogate,
)
from nas_core.space.equivalence import equivalents
from tests.benchmarks.tables import NetworkTable

DESIGN, VERIFY = DesignConfig(), VerifyConfig()


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a table: what a predictor is fitted to, and what is held out."""

    fitted: tuple[int, ...]
    held_out: tuple[int, ...]


def design_rows(table: NetworkTable, rng: np.random.Generator, kind: str = DESIGN.kind, size: int = 0) -> Rows:
    """A design around the largest network (by FLOPs), of the default size unless given, and held-out networks.

    ``random`` is the third kind. A one-swap design is as large as it is.
    """
    base = int(np.argmax(table.costs["flops"]))
    count = min(size or balanced_size(table.encoding), len(table.codes_NP))
    drawn = rng.permutation(len(table.codes_NP))
    drawn = drawn[drawn != base]
    match kind:
        case "balanced":
            pool = np.array([base, *drawn[: max(DESIGN_CANDIDATES, 4 * count)]])
            pool = pool[first_of_each_function(table, pool)]
            fitted = pool[balanced_rows(table.encoding, table.codes_NP[pool], [0], count)].tolist()
        case "one-swap":
            swaps = np.array(one_swap_rows(table.codes_NP, base))
            fitted = swaps[first_of_each_function(table, swaps)].tolist()
        case _:
            fitted = [base, *drawn[: count - 1].tolist()]
    rest = np.array([*fitted, *drawn[~np.isin(drawn, fitted)]])
    left = rest[first_of_each_function(table, rest)][len(fitted) :]
    return Rows(fitted=tuple(fitted), held_out=tuple(left[: DESIGN.held_out].tolist()))


def one_swap_rows(codes_NP: np.ndarray, base: int) -> list[int]:
    """The base and every row that differs from it in one place."""
    distance_N = (codes_NP != codes_NP[base]).sum(axis=1)
    return [base, *(int(row) for row in np.flatnonzero(distance_N == 1))]


def first_of_each_function(table: NetworkTable, rows: np.ndarray) -> np.ndarray:
    """Of rows, the indices of those whose function no earlier one computes."""
    if not table.space.same_function:
        return np.arange(len(rows))
    named = [table.space.same_function[tuple(code_P)] for code_P in table.codes_NP[rows].tolist()]
    return np.sort(np.unique(named, return_index=True)[1])


def measured(table: NetworkTable, rows: Sequence[int]) -> EvaluationTable:
    """The table's metric of rows."""
    genotypes = [table.encoding.genotype(code_P) for code_P in table.codes_NP[list(rows)]]
    return EvaluationTable.from_metrics(dict(zip(genotypes, table.select_N[list(rows)].tolist(), strict=True)))


def fitted_to(table: NetworkTable, rows: Sequence[int], held_out: Sequence[int] = ()) -> Predictor:
    """The predictor with default settings, fitted to rows; those held out help to choose its settings."""
    known, others = measured(table, rows), measured(table, held_out) if held_out else None
    return fit(table.space, known, PredictConfig(), base=known.genotypes[0], flops=table.flops, held_out=others)


def refined(table: NetworkTable, rows: Rows, allowed_N: np.ndarray, num_evaluations: int) -> list[int]:
    """The rows evaluated, in order: the design, the held-out, then rounds within what is allowed.

    As in a study, a round is the predictor's best network and those whose
    evaluation promises most; unlike in a study, rounds go on to the budget's end.
    """
    fitted, held_out = list(rows.fitted[:num_evaluations]), list(rows.held_out)[: num_evaluations - len(rows.fitted)]
    order = [*fitted, *held_out]
    allowed = np.flatnonzero(allowed_N)
    codes_NP = table.codes_NP[allowed]
    open_N = ~_alike(table, codes_NP, order)
    while len(order) < num_evaluations and open_N.any():
        count = min(VERIFY.per_round, num_evaluations - len(order))
        best = int(np.argmax(fitted_to(table, fitted, held_out).link_values(codes_NP)[0]))
        new = [best] if open_N[best] else []
        left_N = open_N & ~_alike(table, codes_NP, allowed[new])
        model = surrogate(observe(table.space, measured(table, order)))
        new += choose_batch(model, codes_NP, left_N, count - len(new), lambda code_P: _copies(table, code_P))
        fitted += allowed[new].tolist()
        order += allowed[new].tolist()
        open_N &= ~_alike(table, codes_NP, allowed[new])
    return order


def _copies(table: NetworkTable, code_P: np.ndarray) -> np.ndarray:
    return table.encoding.encode(equivalents(table.space, table.encoding.genotype(code_P)))


def _alike(table: NetworkTable, codes_NP: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """Which networks compute what a network in ``rows`` computes."""
    copies = [_copies(table, table.codes_NP[row]) for row in rows]
    return is_among(codes_NP, np.concatenate(copies)) if copies else np.zeros(len(codes_NP), dtype=bool)
