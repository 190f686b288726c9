"""How predictions agree with networks that were not used to fit, beside counting parameters and FLOPs."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nas_core.base.errors import IncompleteTableError
from nas_core.prediction.links import power_of_two
from nas_core.prediction.predictor import Predictor
from nas_core.records.evaluations import EvaluationTable
from nas_core.space.genotypes import Genotype

LEAST_HELD_OUT = 3  # networks below which no rank statistic is given
COUNTS = ("params", "flops")  # what a predictor is compared with


@dataclass(frozen=True, kw_only=True)
class RankStatistics:
    """Agreement of an ordering with the true one; ``kendall_top_half`` on the truly better half."""

    kendall: float
    spearman: float
    kendall_top_half: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Predicted against measured on ``n`` held-out networks.

    ``rmse`` and ``regret`` are in the metric's unit, ``rmse_refitted`` after
    adding the best constant; ``coverage_90`` is the share of measurements
    inside their interval (each as wide as the other held-out networks make it);
    ``regret`` how far the measured metric of the network predicted best lies
    from the best one. ``counts`` holds the rank statistics of ordering by
    parameters and by FLOPs.
    """

    n: int
    kendall: float
    spearman: float
    kendall_top_half: float
    rmse: float
    rmse_refitted: float
    coverage_90: float
    regret: float
    counts: Mapping[str, RankStatistics]
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def rank_statistics(guess_N: np.ndarray, truth_N: np.ndarray) -> RankStatistics:
    """Kendall's tau-b and Spearman's rho, 0 where an ordering is constant."""
    from scipy.stats import kendalltau, spearmanr  # two seconds to import, and selecting needs none of it

    top_N = truth_N >= np.median(truth_N)
    return RankStatistics(
        kendall=_correlation(kendalltau, guess_N, truth_N),
        spearman=_correlation(spearmanr, guess_N, truth_N),
        kendall_top_half=_correlation(kendalltau, guess_N[top_N], truth_N[top_N]),
    )


def _correlation(statistic: Any, guess_N: np.ndarray, truth_N: np.ndarray) -> float:
    if len(guess_N) < 2 or np.ptp(guess_N) == 0 or np.ptp(truth_N) == 0:
        return 0.0
    return float(statistic(guess_N, truth_N).statistic)


def calibrate(
    predictor: Predictor,
    table_heldout: EvaluationTable,
    costs_of: Callable[[Genotype], Mapping[str, float]],
) -> Calibration:
    """Agreement of the predictor with measured networks that it was not fitted to.

    If held-out networks helped to choose the predictor's settings, each is predicted by those chosen without it.
    ``costs_of`` a network may hold ``params`` and ``flops``: the orderings it is compared with.

    Raises:
        IncompleteTableError: with fewer than LEAST_HELD_OUT networks.
    """
    for genotype in table_heldout.genotypes:
        predictor.space.check_choices(genotype)
    guess_N, low_N, high_N = predictor.predict_apart(table_heldout)
    costs = [costs_of(genotype) for genotype in table_heldout.genotypes]
    counted = {name: np.array([each[name] for each in costs]) for name in COUNTS if costs and name in costs[0]}
    sign = table_heldout.sign
    ends = np.sort(np.stack([sign * low_N, sign * high_N]), axis=0)
    return compare(
        guess_N=sign * guess_N,
        low_N=ends[0],
        high_N=ends[1],
        truth_N=table_heldout.metric_K,
        counted=counted,
    )


def compare(
    *,
    guess_N: np.ndarray,
    low_N: np.ndarray,
    high_N: np.ndarray,
    truth_N: np.ndarray,
    counted: Mapping[str, np.ndarray],
) -> Calibration:
    """The calibration of predictions with intervals, all higher-is-better; see ``calibrate``."""
    count = len(truth_N)
    if count < LEAST_HELD_OUT:
        raise IncompleteTableError("held-out networks", count, f"{LEAST_HELD_OUT} at least", "Raise design.held_out.")
    error_N = guess_N - truth_N
    unit = power_of_two(error_N)  # squares of very large or small metrics are no floats
    mine = rank_statistics(guess_N, truth_N)
    counts = {name: rank_statistics(value_N, truth_N) for name, value_N in counted.items()}
    return Calibration(
        n=count,
        kendall=mine.kendall,
        spearman=mine.spearman,
        kendall_top_half=mine.kendall_top_half,
        rmse=unit * float(np.sqrt(np.mean((error_N / unit) ** 2))),
        rmse_refitted=unit * float(np.std(error_N / unit)),
        coverage_90=float(np.mean((truth_N >= low_N) & (truth_N <= high_N))),
        regret=float(truth_N.max() - truth_N[np.argmax(guess_N)]),
        counts=counts,
        verdict=_verdict(mine, counts, count),
    )


def _verdict(mine: RankStatistics, counts: Mapping[str, RankStatistics], count: int) -> str:
    """One honest sentence: whether the predictor orders networks better than counting does."""
    if not counts:
        return f"Kendall's tau {mine.kendall:.2f} on {count} held-out networks; no counts to compare with."
    name, best = max(counts.items(), key=lambda item: item[1].kendall)
    error = np.sqrt(2 * (2 * count + 5) / (9 * count * (count - 1)))  # of tau under independence
    figures = f"tau {mine.kendall:.2f} against {best.kendall:.2f} on {count} held-out networks"
    if mine.kendall <= best.kendall:
        return f"The predictor does not beat counting {name}: {figures}."
    if mine.kendall - best.kendall < error:
        return f"The predictor is ahead of counting {name}, but within the error of so few networks: {figures}."
    return f"The predictor beats counting {name}: {figures}."
