"""Bayesian regression of link values on blocks and pairs of blocks, exact and closed-form.

The model is a Gaussian process with the kernel

    k(g, g') = s(g) s(g') (h + rho h^2)
    h(g, g') = (1 - tau) mean_p o_p(g_p, g'_p) + tau sum_b share_b(g) share_b(g')

on link values minus their mean, where share_b(g) is the share of positions that
hold block b. o_p(i, j) is 1 for equal choices and 0 for others: ridge regression
on one-hot blocks. Where the choices of a position are ordered, other choices are
alike by sigma exp(-d / LENGTH), d their distance as a share of the position's
range. The second part lets a block that is offered at several positions have an
effect in common; h^2 expands into products of two choices. So the posterior mean is exactly an
additive score per block plus one per pair of blocks: a selection program
(``Regression.terms``). s(g) = (Fbar / F(g))^p is MathNAS's FLOPs ratio (Eq. 4);
with p > 0 blocks are measured against the base network, as in Eq. 5.

Axes: K fitted networks, N any networks, P places, D one-hot columns
(``encoding``), F features of the kernel h.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas_core.space.encoding import Encoding

LENGTH = 0.5  # share of an ordered position's range over which choices stay alike
JITTER = 1e-9  # of the signal variance: keeps the Gram matrix factorable when two networks coincide


@dataclass(frozen=True)
class Kernel:
    """Settings of the kernel.

    ``pairs`` is rho, ``shared`` is tau, ``smooth`` is sigma; ``noise`` the noise
    variance of one evaluation as a share of the signal variance (the ridge).
    """

    pairs: float
    noise: float
    shared: float = 0.0
    smooth: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A fitted model. ``alpha_K`` = (K + noise)^-1 (y - mean); ``variance`` scales the kernel, in squared link units.

    ``phi_KF`` = (one-hot rows - origin) ``factor_DF``, so that h = phi phi^T.
    """

    kernel: Kernel
    encoding: Encoding
    origin_D: np.ndarray
    factor_DF: np.ndarray
    phi_KF: np.ndarray
    scale_K: np.ndarray
    noise_K: np.ndarray
    chol_KK: np.ndarray
    alpha_K: np.ndarray
    mean: float
    variance: float

    def features(self, x_ND: np.ndarray) -> np.ndarray:
        return np.asarray((x_ND - self.origin_D) @ self.factor_DF)

    def predict(self, x_ND: np.ndarray, scale_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and standard deviation of the link value (noise not included)."""
        phi_NF = self.features(x_ND)
        cross_NK = _kernel(phi_NF, self.phi_KF, self.kernel.pairs, scale_N, self.scale_K)
        half_KN = half_solved(self.chol_KK, cross_NK.T)
        h_N = np.einsum("nf,nf->n", phi_NF, phi_NF)
        prior_N = h_N * (1 + self.kernel.pairs * h_N) * scale_N**2
        variance_N = np.maximum(prior_N - np.einsum("kn,kn->n", half_KN, half_KN), 0)
        return self.mean + cross_NK @ self.alpha_K, np.sqrt(self.variance * variance_N)

    def predict_measured(self, x_ND: np.ndarray, scale_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As ``predict``, with the standard deviation of a measurement."""
        mean_N, sd_N = self.predict(x_ND, scale_N)
        return mean_N, np.sqrt(sd_N**2 + self.variance * self.kernel.noise)

    def covariance(self, x_ND: np.ndarray, scale_N: np.ndarray) -> np.ndarray:
        """Posterior covariance of the link values of N networks."""
        phi_NF = self.features(x_ND)
        cross_NK = _kernel(phi_NF, self.phi_KF, self.kernel.pairs, scale_N, self.scale_K)
        half_KN = half_solved(self.chol_KK, cross_NK.T)
        prior_NN = _kernel(phi_NF, phi_NF, self.kernel.pairs, scale_N, scale_N)
        return np.asarray(self.variance * (prior_NN - half_KN.T @ half_KN))

    @cached_property
    def terms(self) -> tuple[np.ndarray, np.ndarray]:
        """(score_D, pair_DD): link value = mean + s(g) (score . z + sum over places p < q of pair).

        z = one-hot row minus ``origin_D``. ``pair_DD`` is symmetric, zero within each place. Exact where
        ``origin_D`` is zero or the kernel has no pairs.
        """
        signed_K = self.alpha_K * self.scale_K
        score_D = self.factor_DF @ (signed_K @ self.phi_KF)
        if self.kernel.pairs == 0:
            return score_D, np.zeros((len(score_D), len(score_D)))
        product_FF = self.phi_KF.T @ (signed_K[:, None] * self.phi_KF)
        product_DD = self.kernel.pairs * self.factor_DF @ product_FF @ self.factor_DF.T
        place_D = self.encoding.place_of_column
        return score_D + np.diag(product_DD), np.where(place_D[:, None] == place_D, 0.0, 2 * product_DD)

    def mean_of(self, x_ND: np.ndarray) -> np.ndarray:
        """Posterior mean through ``terms``: cheaper than ``predict`` for many networks (scales of 1)."""
        score_D, pair_DD = self.terms
        half_ND = x_ND @ (pair_DD / 2)
        return np.asarray(self.mean + x_ND @ score_D + np.einsum("nd,nd->n", half_ND, x_ND))


def _kernel(
    phi_NF: np.ndarray, phi_KF: np.ndarray, pairs: float, scale_N: np.ndarray, scale_K: np.ndarray
) -> np.ndarray:
    h_NK = phi_NF @ phi_KF.T
    k_NK = h_NK if pairs == 0 else h_NK * (1 + pairs * h_NK)
    return np.asarray(k_NK * scale_N[:, None] * scale_K)


def _factor(encoding: Encoding, kernel: Kernel) -> np.ndarray:
    """factor_DF with h = (x factor) (x' factor)^T; the shared columns are left out where tau is 0."""
    places, shared = len(encoding.sizes), kernel.shared
    own_DD = _alike(encoding, kernel.smooth) * np.sqrt((1 - shared) / places)
    if shared == 0:
        return np.asarray(own_DD)
    return np.hstack([own_DD, encoding.label_rows * (np.sqrt(shared) / places)])


def _alike(encoding: Encoding, smooth: float) -> np.ndarray:
    """A factor of the o_p of all places, on the diagonal."""
    alike_DD = np.eye(encoding.num_columns)
    for place in encoding.ordered if smooth else ():
        begin, size = encoding.offsets[place], encoding.sizes[place]
        distance_CC = np.abs(np.subtract.outer(np.arange(size), np.arange(size))) / max(size - 1, 1)
        like_CC = (1 - smooth) * np.eye(size) + smooth * np.exp(-distance_CC / LENGTH)
        alike_DD[begin : begin + size, begin : begin + size] = np.linalg.cholesky(like_CC)
    return alike_DD


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Networks prepared for fitting: one-hot rows, FLOPs scale, noise multiplicity, groups."""

    encoding: Encoding
    x_KD: np.ndarray
    scale_K: np.ndarray
    origin_D: np.ndarray
    copies_K: np.ndarray  # rows that stand for one evaluation share its information: noise times copies
    group_K: np.ndarray  # equal for networks that compute the same function


# every new worker imports this module, and none of them fits: scipy is imported by the fit


def half_solved(chol_KK: np.ndarray, right_KN: np.ndarray) -> np.ndarray:
    """L^-1 R of the lower triangle L."""
    from scipy.linalg import solve_triangular

    return np.asarray(solve_triangular(chol_KK, right_KN, lower=True, check_finite=False))


def _solved(chol_KK: np.ndarray, right_KN: np.ndarray) -> np.ndarray:
    """(L L^T)^-1 R."""
    from scipy.linalg import cho_solve

    return np.asarray(cho_solve((chol_KK, True), right_KN, check_finite=False))


def _mean_and_alpha(chol_KK: np.ndarray, y_K: np.ndarray) -> tuple[float, np.ndarray]:
    """Generalised least-squares mean of y and (K + noise)^-1 (y - mean)."""
    solved_2K = _solved(chol_KK, np.stack([y_K, np.ones_like(y_K)], axis=1))
    mean = float(solved_2K[:, 0].sum() / solved_2K[:, 1].sum())
    return mean, solved_2K[:, 0] - mean * solved_2K[:, 1]


def regress(data: Fitted, y_K: np.ndarray, kernel: Kernel) -> Regression:
    """The posterior given link values ``y_K``; the signal variance is its maximum-likelihood value."""
    factor_DF = _factor(data.encoding, kernel)
    phi_KF = (data.x_KD - data.origin_D) @ factor_DF
    noise_K = (kernel.noise + JITTER) * data.copies_K
    gram_KK = _kernel(phi_KF, phi_KF, kernel.pairs, data.scale_K, data.scale_K)
    gram_KK[np.diag_indices_from(gram_KK)] += noise_K
    chol_KK = np.linalg.cholesky(gram_KK)
    mean, alpha_K = _mean_and_alpha(chol_KK, y_K)
    variance = max(float((y_K - mean) @ alpha_K) / max(len(y_K) - 1, 1), 1e-12)
    return Regression(
        kernel=kernel,
        encoding=data.encoding,
        origin_D=data.origin_D,
        factor_DF=factor_DF,
        phi_KF=phi_KF,
        scale_K=data.scale_K,
        noise_K=noise_K,
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
    precision_KK = _solved(model.chol_KK, np.eye(len(y_K)))
    variance_K = 1 / np.diag(precision_KK)  # right for networks that are alone in their group
    residual_K = model.alpha_K * variance_K
    for group in np.flatnonzero(np.bincount(data.group_K) > 1):
        rows = np.flatnonzero(data.group_K == group)
        block = np.linalg.inv(precision_KK[np.ix_(rows, rows)])
        residual_K[rows] = block @ model.alpha_K[rows]
        variance_K[rows] = np.diag(block)
    return y_K - residual_K, np.sqrt(model.variance * np.maximum(variance_K, 1e-12))
