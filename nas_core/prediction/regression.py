"""Bayesian regression of link values on blocks and pairs of blocks, exact and closed-form.

The model is a Gaussian process with the kernel

    k(g, g') = s(g) s(g') (h + rho h^2),   h(g, g') = sum_p w_p [g_p = g'_p],   sum_p w_p = 1

on link values minus their mean. h is ridge regression on one-hot blocks; h^2
expands into products of two choices, so the posterior mean is exactly an
additive score per block plus one per pair of blocks: a selection program
(``Regression.terms``). s(g) = (Fbar / F(g))^p is MathNAS's FLOPs ratio (Eq. 4);
with p > 0 blocks are measured against the base network, as in Eq. 5.

Axes: K fitted networks, N any networks, P places, D one-hot columns (``encoding``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

from nas_core.prediction.encoding import Encoding

JITTER = 1e-9  # of the signal variance: keeps the Gram matrix factorable when two networks coincide


@dataclass(frozen=True)
class Kernel:
    """Settings of the kernel.

    ``pairs`` is rho; ``noise`` the noise variance of one evaluation as a share
    of the signal variance (the ridge); ``relevance_P`` are the weights w_p,
    equal if empty. ``from_base`` subtracts the base's blocks (for exponents > 0).
    """

    pairs: float
    noise: float
    relevance_P: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A fitted model. ``weights_D`` = w_p / 1 per column, ``alpha_K`` = (K + noise)^-1 (y - mean).

    ``variance`` scales the kernel, in squared link units.
    """

    kernel: Kernel
    encoding: Encoding
    origin_D: np.ndarray
    weights_D: np.ndarray
    x_KD: np.ndarray
    scale_K: np.ndarray
    chol_KK: np.ndarray
    alpha_K: np.ndarray
    mean: float
    variance: float

    def cross(self, x_ND: np.ndarray, scale_N: np.ndarray) -> np.ndarray:
        return _kernel(x_ND - self.origin_D, self.x_KD, self.weights_D, self.kernel.pairs, scale_N, self.scale_K)

    def predict(self, x_ND: np.ndarray, scale_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and standard deviation of the link value (noise not included)."""
        cross_NK = self.cross(x_ND, scale_N)
        mean_N = self.mean + cross_NK @ self.alpha_K
        half_KN = solve_triangular(self.chol_KK, cross_NK.T, lower=True, check_finite=False)
        prior_N = _prior(x_ND - self.origin_D, self.weights_D, self.kernel.pairs, scale_N)
        variance_N = np.maximum(prior_N - np.einsum("kn,kn->n", half_KN, half_KN), 0)
        return mean_N, np.sqrt(self.variance * variance_N)

    def covariance(self, x_ND: np.ndarray, scale_N: np.ndarray) -> np.ndarray:
        """Posterior covariance of the link values of N networks."""
        z_ND = x_ND - self.origin_D
        half_KN = solve_triangular(self.chol_KK, self.cross(x_ND, scale_N).T, lower=True, check_finite=False)
        prior_NN = _kernel(z_ND, z_ND, self.weights_D, self.kernel.pairs, scale_N, scale_N)
        return np.asarray(self.variance * (prior_NN - half_KN.T @ half_KN))

    @cached_property
    def terms(self) -> tuple[np.ndarray, np.ndarray]:
        """(score_D, pair_DD): link value = mean + s(g) (score . z + sum over place pairs p < q of pair).

        z = one-hot row minus ``origin_D``. ``pair_DD`` is symmetric with zero blocks on each place's diagonal.
        """
        signed_K = self.alpha_K * self.scale_K
        score_D = self.weights_D * (signed_K @ self.x_KD)
        if self.kernel.pairs == 0:
            return score_D, np.zeros((len(score_D), len(score_D)))
        product_DD = self.kernel.pairs * np.outer(self.weights_D, self.weights_D)
        product_DD *= self.x_KD.T @ (signed_K[:, None] * self.x_KD)
        same_place_DD = self.encoding.place_of_column[:, None] == self.encoding.place_of_column
        return score_D + np.diag(product_DD), np.where(same_place_DD, 0.0, 2 * product_DD)


def _kernel(
    z_ND: np.ndarray, z_KD: np.ndarray, weights_D: np.ndarray, pairs: float, scale_N: np.ndarray, scale_K: np.ndarray
) -> np.ndarray:
    h_NK = (z_ND * weights_D) @ z_KD.T
    k_NK = h_NK if pairs == 0 else h_NK * (1 + pairs * h_NK)
    return np.asarray(k_NK * scale_N[:, None] * scale_K)


def _prior(z_ND: np.ndarray, weights_D: np.ndarray, pairs: float, scale_N: np.ndarray) -> np.ndarray:
    h_N = (z_ND**2) @ weights_D
    return np.asarray((h_N + pairs * h_N**2) * scale_N**2)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Networks prepared for fitting: one-hot rows, FLOPs scale, noise multiplicity, groups."""

    encoding: Encoding
    x_KD: np.ndarray
    scale_K: np.ndarray
    origin_D: np.ndarray
    copies_K: np.ndarray  # rows that stand for one evaluation share its information: noise times copies
    group_K: np.ndarray  # equal for networks that compute the same function


def _weights(encoding: Encoding, relevance_P: Sequence[float]) -> np.ndarray:
    relevance = np.array(relevance_P) if len(relevance_P) else np.ones(len(encoding.sizes))
    return np.asarray((relevance / relevance.sum())[encoding.place_of_column])


def _mean_and_alpha(chol_KK: np.ndarray, y_K: np.ndarray) -> tuple[float, np.ndarray]:
    """Generalised least-squares mean of y and (K + noise)^-1 (y - mean)."""
    solved_2K = cho_solve((chol_KK, True), np.stack([y_K, np.ones_like(y_K)], axis=1), check_finite=False)
    mean = float(solved_2K[:, 0].sum() / solved_2K[:, 1].sum())
    return mean, solved_2K[:, 0] - mean * solved_2K[:, 1]


def regress(data: Fitted, y_K: np.ndarray, kernel: Kernel) -> Regression:
    """The posterior given link values ``y_K``; the signal variance is its maximum-likelihood value."""
    weights_D = _weights(data.encoding, kernel.relevance_P)
    z_KD = data.x_KD - data.origin_D
    gram_KK = _kernel(z_KD, z_KD, weights_D, kernel.pairs, data.scale_K, data.scale_K)
    gram_KK[np.diag_indices_from(gram_KK)] += (kernel.noise + JITTER) * data.copies_K
    chol_KK = np.linalg.cholesky(gram_KK)
    mean, alpha_K = _mean_and_alpha(chol_KK, y_K)
    variance = max(float((y_K - mean) @ alpha_K) / max(len(y_K) - 1, 1), 1e-12)
    return Regression(
        kernel=kernel,
        encoding=data.encoding,
        origin_D=data.origin_D,
        weights_D=weights_D,
        x_KD=z_KD,
        scale_K=data.scale_K,
        chol_KK=chol_KK,
        alpha_K=alpha_K,
        mean=mean,
        variance=variance,
    )


def log_evidence(model: Regression) -> float:
    """Log marginal likelihood with the signal variance maximised out (constants dropped)."""
    count = len(model.alpha_K)
    return -0.5 * count * float(np.log(model.variance)) - float(np.log(np.diag(model.chol_KK)).sum())


def cross_validate(model: Regression, data: Fitted, y_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave-one-group-out mean and standard deviation (noise included) of every fitted link value.

    Closed form: with Q = (K + noise)^-1 and a group G, the left-out residual is
    Q_GG^-1 (Q (y - mean))_G and its covariance Q_GG^-1; the mean stays that of
    all networks, and so does the kernel.
    """
    precision_KK = cho_solve((model.chol_KK, True), np.eye(len(y_K)), check_finite=False)
    residual_K, variance_K = np.empty(len(y_K)), np.empty(len(y_K))
    for group in np.unique(data.group_K):
        rows = np.flatnonzero(data.group_K == group)
        block = np.linalg.inv(precision_KK[np.ix_(rows, rows)])
        residual_K[rows] = block @ model.alpha_K[rows]
        variance_K[rows] = np.diag(block)
    return y_K - residual_K, np.sqrt(model.variance * np.maximum(variance_K, 1e-12))
