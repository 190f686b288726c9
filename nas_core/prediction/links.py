"""Monotone links between the metric and the scale on which block effects add up.

A link keeps the order of networks, so maximising a linear function of link
values maximises the metric too. Metrics here are "higher is better"
(``EvaluationTable`` turns the others). K = evaluated networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from nas_core.base.errors import ConfigError

LinkName = Literal["identity", "log-error", "reciprocal-error", "log", "rank"]
ERROR_LINKS: tuple[LinkName, ...] = ("log-error", "reciprocal-error")

FLOOR = 1e-3  # error fraction added so that a perfect network has a finite link value
LOG_RANGE = (-700.0, 700.0)  # logarithms of which floats hold the exponential
PERCENT_ABOVE = 1.5  # metrics whose best exceeds this cannot be fractions


def fraction_scale(metric_K: np.ndarray) -> float | None:
    """1.0 if the metrics can be fractions, 100.0 if they can be percentages, None if neither.

    A metric with a negative value or one above 100 has no error to speak of.
    """
    low, high = float(np.min(metric_K)), float(np.max(metric_K))
    if low < 0 or high > 100:
        return None
    if high <= 1:
        return 1.0
    return 100.0 if high > PERCENT_ABOVE else None


def are_losses(metric_K: np.ndarray) -> bool:
    """Whether the metrics can be losses: above 0 before they were turned."""
    return bool(np.max(metric_K) < 0)


def power_of_two(value_N: np.ndarray) -> float:
    """A power of two of the largest value's size: divided by it, values keep their digits and are below 2."""
    return 2.0 ** max(-1022, int(np.frexp(np.max(np.abs(value_N)))[1]) - 1)  # of the smallest, what divides them


def normal_scores(metric_K: np.ndarray) -> np.ndarray:
    """Standard normal quantile of each value's average rank (from 1); ties share a score.

    Ranks by hand: importing scipy.stats for them takes a second of every selection.
    """
    _, group_K, size_G = np.unique(metric_K, return_inverse=True, return_counts=True)
    last_G = np.cumsum(size_G)
    rank_K = (last_G - (size_G - 1) / 2)[group_K]
    return np.array([NormalDist().inv_cdf(share) for share in (rank_K - 0.5) / len(metric_K)])


@dataclass(frozen=True, kw_only=True)
class Link:
    """A strictly increasing map from metric to link value, and its inverse.

    ``top`` is the metric of a perfect network where that is known (1 or 100; 0
    of what was turned), else infinity. ``knots`` are (metric, score) pairs of the rank link. ``unit`` is the power of
    two that identity counts metrics in, so that their squares are floats, too.
    """

    name: LinkName
    top: float
    bottom: float
    knots_metric: np.ndarray
    knots_value: np.ndarray
    unit: float = 1.0

    def forward(self, metric_N: np.ndarray) -> np.ndarray:
        metric_N = np.asarray(metric_N, dtype=float)
        match self.name:
            case "identity":
                return metric_N / self.unit
            case "log-error":
                return np.asarray(-np.log(1 - np.minimum(metric_N / self.top, 1) + FLOOR))
            case "reciprocal-error":
                return np.asarray(1 / (1 - np.minimum(metric_N / self.top, 1) + FLOOR))
            case "log":
                return np.asarray(-np.log(np.maximum(-metric_N, np.finfo(float).tiny)))
            case "rank":
                return _interpolate(metric_N, self.knots_metric, self.knots_value)

    def inverse(self, value_N: np.ndarray) -> np.ndarray:
        """The metric of a link value, kept inside what the metric can be."""
        value_N = np.asarray(value_N, dtype=float)
        match self.name:
            case "identity":
                metric_N = value_N * self.unit
            case "log-error":
                metric_N = self.top * (1 + FLOOR - np.exp(np.clip(-value_N, *LOG_RANGE)))
            case "reciprocal-error":
                # A value of 0 or less would be an error without bound: the worst attainable one stands for it.
                metric_N = self.top * (1 + FLOOR - 1 / np.maximum(value_N, 1 / (1 + FLOOR)))
            case "log":
                metric_N = -np.exp(np.clip(-value_N, *LOG_RANGE))
            case "rank":
                metric_N = _interpolate(value_N, self.knots_value, self.knots_metric)
        return np.asarray(np.clip(metric_N, self.bottom, self.top))


def _interpolate(at_N: np.ndarray, from_K: np.ndarray, to_K: np.ndarray) -> np.ndarray:
    """Piecewise linear through increasing knots; beyond them, the mean slope of the nearest quarter."""
    inside_N = np.interp(at_N, from_K, to_K)
    if len(from_K) < 2:
        return np.asarray(inside_N + (at_N - from_K[0]))
    quarter = max(1, (len(from_K) - 1) // 4)
    low = (to_K[quarter] - to_K[0]) / (from_K[quarter] - from_K[0])
    high = (to_K[-1] - to_K[-1 - quarter]) / (from_K[-1] - from_K[-1 - quarter])
    return np.asarray(
        inside_N + low * np.minimum(at_N - from_K[0], 0) + high * np.maximum(at_N - from_K[-1], 0), dtype=float
    )


def make_link(name: LinkName, metric_K: np.ndarray) -> Link:
    """The link fitted to the evaluated metrics.

    Raises:
        ConfigError: if an error link is asked for and the metric is no fraction or percentage, or ``log`` and it is
            no loss above 0.
    """
    scale = fraction_scale(metric_K)
    if name in ERROR_LINKS and scale is None:
        raise ConfigError(
            "predict.link",
            f"{name} for metrics between {np.min(metric_K):g} and {np.max(metric_K):g}",
            "identity or rank; error links need a fraction in [0, 1] or a percentage",
        )
    if name == "log" and not are_losses(metric_K):
        found = f"log for metrics of which the best is {np.max(metric_K):g}, the higher the better"
        raise ConfigError("predict.link", found, "auto, identity or rank; log needs losses above 0")
    knots, index = np.unique(metric_K, return_index=True)
    return Link(
        name=name,
        top=_top(name, metric_K),
        bottom=-np.inf if scale is None else 0.0,
        knots_metric=knots,
        knots_value=normal_scores(metric_K)[index],
        unit=power_of_two(metric_K),
    )


def _top(name: LinkName, metric_K: np.ndarray) -> float:
    """Numbers up to 100 need be no percentages: they are taken for that only where a link has to know an error."""
    scale = fraction_scale(metric_K)
    if scale is not None and (scale == 1 or name in ERROR_LINKS):
        return scale
    return 0.0 if np.max(metric_K) <= 0 else np.inf


def check_link(name: str, higher_is_better: bool) -> None:
    """Raises ConfigError for a link that no metric of this direction has: said before any is known."""
    if name == "log" and higher_is_better:
        raise ConfigError(
            "predict.link", name, "auto, identity or rank where more is better; log is for losses above 0"
        )
    if name in ERROR_LINKS and not higher_is_better:
        raise ConfigError(
            "predict.link", name, "auto, identity, log or rank where less is better; it is for accuracies"
        )


def possible_links(metric_K: np.ndarray) -> Sequence[LinkName]:
    """The links that are tried for this metric, see ``fraction_scale`` and ``are_losses``.

    Ranks are not tried for losses: where most networks are one swap from the base, a rank says how many networks lie
    between two, not how much is lost, and its sums do not order networks of many swaps.
    """
    if fraction_scale(metric_K) is not None:
        return ("identity", *ERROR_LINKS, "rank")
    return ("identity", "log") if are_losses(metric_K) else ("identity", "rank")
