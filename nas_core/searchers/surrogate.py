"""The next batch to evaluate: a surrogate of the ranks, an upper confidence bound, a batch that spreads.

The metric of what was evaluated is turned into normal scores (the rank link),
so that collapsed networks do not bend the fit and, as better networks come in,
the scale stretches where it matters. A Gaussian process on blocks and pairs
(``gaussian_process``) is fitted under a grid of settings, averaged by evidence;
candidates are valued by mean + BETA sd. Within a batch the variance, but not the mean, is
updated for the members already chosen (Desautels et al., 2014), which keeps
later members away from near-copies of earlier ones.

Axes: K rows fitted, N candidates, P places, D one-hot columns.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nas_core.prediction.gaussian_process import Kernel, Regression, half_solved, log_evidence, regress
from nas_core.prediction.links import normal_scores
from nas_core.prediction.observations import Observations
from nas_core.space.encoding import Encoding

BETA = 0.75  # standard deviations added to the mean
PAIRS = (0.2, 0.6, 2.0)
NOISES = (0.01, 0.05)
SHARED = (0.0, 0.4, 0.8)
SMOOTH = (0.0, 0.5, 0.95)
AVERAGED = 8  # settings of highest evidence whose predictions are averaged
LEAST_WEIGHT = 1e-3  # of the best setting's evidence, below which a setting is left out
SHORTLIST = 1_000  # candidates of highest mean for which the variance is worked out
DESIGN_CANDIDATES = 400  # random networks, at least, among which a balanced design is chosen
LEAST_DESIGN = 4  # networks of a balanced design: three can be cross-validated, and one may fail


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """Predicted normal score = mean + score . x + sum over place pairs, averaged over settings by their evidence.

    An average of pairwise programs is a pairwise program. ``best`` is the
    regression of highest evidence, which gives the variance.
    """

    best: Regression
    mean: float
    score_D: np.ndarray
    pair_DD: np.ndarray

    @property
    def encoding(self) -> Encoding:
        return self.best.encoding

    def mean_of(self, codes_NP: np.ndarray) -> np.ndarray:
        x_ND = self.encoding.one_hot(codes_NP)
        half_ND = x_ND @ (self.pair_DD / 2)
        return np.asarray(self.mean + x_ND @ self.score_D + np.einsum("nd,nd->n", half_ND, x_ND))


def surrogate(seen: Observations) -> Surrogate:
    """The regressions of normal scores over a grid of settings, weighted by their evidence."""
    score_K = normal_scores(seen.metric_K)
    shared = SHARED if seen.encoding.shares_blocks else (0.0,)
    smooth = SMOOTH if seen.encoding.ordered else (0.0,)
    data = seen.prepared()
    models = [
        regress(data, score_K, Kernel(pairs=pairs, noise=noise, shared=tau, smooth=sigma))
        for pairs, noise, tau, sigma in itertools.product(PAIRS, NOISES, shared, smooth)
    ]
    evidence = np.array([log_evidence(model) for model in models])
    weight = np.exp(evidence - evidence.max())
    kept = [index for index in np.argsort(-weight)[:AVERAGED] if weight[index] > LEAST_WEIGHT]
    share = weight[kept] / weight[kept].sum()
    terms = [models[index].terms for index in kept]
    return Surrogate(
        best=models[kept[0]],
        mean=float(sum(part * models[index].mean for part, index in zip(share, kept, strict=True))),
        score_D=np.sum([part * score_D for part, (score_D, _) in zip(share, terms, strict=True)], axis=0),
        pair_DD=np.sum([part * pair_DD for part, (_, pair_DD) in zip(share, terms, strict=True)], axis=0),
    )


def choose_batch(
    model: Surrogate,
    codes_NP: np.ndarray,
    open_N: np.ndarray,
    k: int,
    same_function: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[int]:
    """At most ``k`` rows of ``codes_NP`` among the open ones, in order of their upper confidence bound.

    ``same_function`` maps one row of choices to all rows of choices that
    compute the same; none of them follows it into the batch.
    """
    rows = _shortlist(model, codes_NP, open_N, k)
    codes_SP = codes_NP[rows]
    posterior = _Posterior(model, codes_SP)
    open_S = np.ones(len(rows), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < k and open_S.any():
        best = int(np.argmax(np.where(open_S, posterior.mean_S + BETA * posterior.sd, -np.inf)))
        chosen.append(int(rows[best]))
        open_S[best] = False
        if same_function is not None:
            open_S &= ~is_among(codes_SP, same_function(codes_SP[best]))
        posterior.condition_on(best)
    return chosen


def _shortlist(model: Surrogate, codes_NP: np.ndarray, open_N: np.ndarray, k: int) -> np.ndarray:
    """Open rows of highest posterior mean."""
    rows = np.flatnonzero(open_N)
    size = max(SHORTLIST, 10 * k)
    if len(rows) <= size:
        return rows
    mean_N = model.mean_of(codes_NP[rows])
    return np.asarray(rows[np.argpartition(-mean_N, size)[:size]])


class _Posterior:
    """Mean and deviation of the shortlist S, updated as members of a batch are taken for granted."""

    def __init__(self, averaged: Surrogate, codes_SP: np.ndarray) -> None:
        self.model = model = averaged.best
        self.mean_S = averaged.mean_of(codes_SP)
        self.phi_SF = model.features(model.encoding.one_hot(codes_SP))
        cross_SK = self._kernel(self.phi_SF, model.phi_KF)
        self.half_KS = half_solved(model.chol_KK, cross_SK.T)
        h_S = np.einsum("sf,sf->s", self.phi_SF, self.phi_SF)
        prior_S = h_S * (1 + model.kernel.pairs * h_S)
        self.share_S = np.maximum(prior_S - np.einsum("ks,ks->s", self.half_KS, self.half_KS), 0)

    def _kernel(self, phi_SF: np.ndarray, phi_KF: np.ndarray) -> np.ndarray:
        h_SK = phi_SF @ phi_KF.T
        return np.asarray(h_SK * (1 + self.model.kernel.pairs * h_SK))

    @property
    def sd(self) -> np.ndarray:
        return np.asarray(np.sqrt(self.model.variance * self.share_S))

    def condition_on(self, row: int) -> None:
        """Shrink the variance as if ``row`` had been measured at its predicted value."""
        own_S = self._kernel(self.phi_SF, self.phi_SF[row : row + 1])[:, 0] - self.half_KS.T @ self.half_KS[:, row]
        step_S = own_S / np.sqrt(self.share_S[row] + self.model.kernel.noise)
        self.half_KS = np.vstack([self.half_KS, step_S])
        self.share_S = np.maximum(self.share_S - step_S**2, 0)


def is_among(codes_NP: np.ndarray, listed_KP: np.ndarray) -> np.ndarray:
    """Which rows of ``codes_NP`` are a row of ``listed_KP``."""
    if len(listed_KP) == 0 or len(codes_NP) == 0:
        return np.zeros(len(codes_NP), dtype=bool)
    return np.asarray(np.isin(_keys(codes_NP), _keys(listed_KP)))


def _keys(codes_NP: np.ndarray) -> np.ndarray:
    """One comparable value per row."""
    rows = np.ascontiguousarray(codes_NP, dtype=np.int16)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()


def balanced_size(encoding: Encoding) -> int:
    """Networks of a balanced design: half as many as blocks, and enough for each block to occur once."""
    return max(encoding.num_columns // 2, *encoding.sizes, LEAST_DESIGN)


def balanced_rows(encoding: Encoding, codes_NP: np.ndarray, first: Sequence[int], num: int) -> list[int]:
    """``num`` rows, the given ``first`` ones included, in which every choice occurs about equally often.

    Greedy: each row is the one that holds most choices not seen so far, then the
    one whose choices occurred least and that shares least with its nearest
    chosen row. Every block is thus measured in several contexts, at half the
    evaluations of the one-swap design.
    """
    chosen = list(first)
    x_ND = encoding.one_hot(codes_NP)
    count_D = x_ND[chosen].sum(axis=0)
    nearest_N = (x_ND @ x_ND[chosen].T).max(axis=1)
    left_N = np.ones(len(codes_NP), dtype=bool)
    left_N[chosen] = False
    while len(chosen) < num and left_N.any():
        seen_N = x_ND @ (count_D - len(encoding.sizes) * (count_D == 0)) + 0.5 * nearest_N
        best = int(np.argmin(np.where(left_N, seen_N, np.inf)))
        left_N[best] = False
        chosen.append(best)
        count_D += x_ND[best]
        nearest_N = np.maximum(nearest_N, x_ND @ x_ND[best])
    return chosen
