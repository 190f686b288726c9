"""The next batch to evaluate, from a pool of candidates and what was evaluated so far.

Axes: K evaluated networks, N candidates, P places, D one-hot columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas_core.prediction.encoding import Encoding
from nas_core.prediction.links import normal_scores
from nas_core.prediction.regression import Fitted, Kernel, Regression, log_evidence, regress

PAIRS = 0.6
NOISES = (0.003, 0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Pool:
    """Candidates, every one within the limits and rules."""

    encoding: Encoding
    codes_NP: np.ndarray

    @cached_property
    def one_hot(self) -> np.ndarray:
        return self.encoding.one_hot(self.codes_NP)


def next_batch(
    pool: Pool,
    *,
    evaluated_KP: np.ndarray,
    metric_K: np.ndarray,
    blocked_KP: np.ndarray,
    k: int,
    rng: np.random.Generator,
    copies: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[int]:
    """Rows of the pool to evaluate next, at most ``k``, best first."""
    open_N = ~is_among(pool.codes_NP, blocked_KP)
    model = surrogate(pool.encoding, evaluated_KP, metric_K)
    mean_N, sd_N = model.predict(pool.one_hot, np.ones(len(pool.codes_NP)))
    value_N = np.where(open_N, mean_N + sd_N, -np.inf)
    chosen: list[int] = []
    while len(chosen) < k and np.isfinite(value_N).any():
        best = int(np.argmax(value_N))
        chosen.append(best)
        value_N[best] = -np.inf
        if copies is not None:
            value_N[is_among(pool.codes_NP, copies(pool.codes_NP[best]))] = -np.inf
    return chosen


def is_among(codes_NP: np.ndarray, listed_KP: np.ndarray) -> np.ndarray:
    """Which rows of ``codes_NP`` are a row of ``listed_KP``."""
    if len(listed_KP) == 0 or len(codes_NP) == 0:
        return np.zeros(len(codes_NP), dtype=bool)
    return np.asarray(np.isin(_keys(codes_NP), _keys(listed_KP)))


def _keys(codes_NP: np.ndarray) -> np.ndarray:
    """One comparable value per row."""
    rows = np.ascontiguousarray(codes_NP, dtype=np.int16)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()


def surrogate(encoding: Encoding, codes_KP: np.ndarray, metric_K: np.ndarray) -> Regression:
    """The model of normal scores with the ridge of highest evidence."""
    count = len(codes_KP)
    data = Fitted(
        encoding=encoding,
        x_KD=encoding.one_hot(codes_KP),
        scale_K=np.ones(count),
        origin_D=np.zeros(encoding.num_columns),
        copies_K=np.ones(count),
        group_K=np.arange(count),
    )
    models = [regress(data, normal_scores(metric_K), Kernel(PAIRS, noise)) for noise in NOISES]
    return max(models, key=log_evidence)
