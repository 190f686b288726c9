"""The closed forms against slow obvious ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_core.prediction.gaussian_process import LENGTH, Fitted, Kernel, cross_validate, log_evidence, regress
from nas_core.space.encoding import Encoding, all_codes

ENCODING = Encoding((3, 2, 4), labels=(0, 1, 2, 0, 1, 0, 1, 2, 3), ordered=frozenset({0, 2}))
KERNELS = [Kernel(pairs, noise, shared) for pairs in (0.0, 0.7) for noise in (0.01, 0.3) for shared in (0.0, 0.5)]
KERNELS += [Kernel(pairs, 0.1, shared, smooth=0.6) for pairs in (0.0, 0.7) for shared in (0.0, 0.5)]


def rows(encoding: Encoding, codes_KP: np.ndarray) -> Fitted:
    """Networks none of which have equivalents."""
    count = len(codes_KP)
    return Fitted(
        encoding=encoding,
        x_KD=encoding.one_hot(codes_KP),
        scale_K=np.ones(count),
        origin_D=np.zeros(encoding.num_columns),
        copies_K=np.ones(count),
        group_K=np.arange(count),
    )


def example(count: int = 12, seed: int = 0) -> tuple[Fitted, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes_KP = all_codes(ENCODING.sizes)[rng.choice(24, count, replace=False)]
    return replace(rows(ENCODING, codes_KP), group_K=np.arange(count) // 2), rng.normal(size=count)


def slow_gram(data: Fitted, kernel: Kernel) -> np.ndarray:
    """The kernel as its docstring states it, network by network."""
    labels = np.array(ENCODING.labels)
    gram = np.empty((len(data.x_KD),) * 2)
    for i, one in enumerate(data.x_KD):
        for j, other in enumerate(data.x_KD):
            equal = sum(slow_alike(one, other, place, kernel.smooth) for place in range(3)) / 3
            shares = [
                (one[labels == label].sum() / 3) * (other[labels == label].sum() / 3)
                for label in range(labels.max() + 1)
            ]
            h = (1 - kernel.shared) * equal + kernel.shared * sum(shares)
            gram[i, j] = h + kernel.pairs * h**2
    return gram


def slow_alike(one: np.ndarray, other: np.ndarray, place: int, smooth: float) -> float:
    """o_p of the choices of two one-hot rows."""
    at = slice(int(ENCODING.offsets[place]), int(ENCODING.offsets[place]) + ENCODING.sizes[place])
    i, j = int(np.argmax(one[at])), int(np.argmax(other[at]))
    if i == j:
        return 1.0
    distance = abs(i - j) / (ENCODING.sizes[place] - 1)
    return smooth * float(np.exp(-distance / LENGTH)) if place in ENCODING.ordered else 0.0


@pytest.mark.parametrize("kernel", KERNELS)
def test_posterior_is_that_of_the_stated_kernel(kernel):
    data, y_K = example()
    model = regress(data, y_K, kernel)
    gram_KK = slow_gram(data, kernel)
    precision_KK = np.linalg.inv(gram_KK + kernel.noise * np.eye(len(y_K)))
    mean = precision_KK.sum(axis=0) @ y_K / precision_KK.sum()
    expected_K = mean + gram_KK @ precision_KK @ (y_K - mean)
    mean_K, sd_K = model.predict(data.x_KD, np.ones(len(y_K)))
    assert np.allclose(mean_K, expected_K, atol=1e-6)
    variance_KK = gram_KK - gram_KK @ precision_KK @ gram_KK
    assert np.allclose(sd_K**2, model.variance * np.diag(variance_KK), atol=1e-6)
    assert np.allclose(model.covariance(data.x_KD, np.ones(len(y_K))), model.variance * variance_KK, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_terms_are_the_posterior_mean(kernel):
    data, y_K = example()
    model = regress(data, y_K, kernel)
    x_ND = ENCODING.one_hot(all_codes(ENCODING.sizes))
    assert np.allclose(model.mean_of(x_ND), model.predict(x_ND, np.ones(len(x_ND)))[0])


@pytest.mark.parametrize("kernel", KERNELS)
def test_cross_validation_is_refitting_without_the_group(kernel):
    data, y_K = example()
    model = regress(data, y_K, kernel)
    left_out_K, sd_K = cross_validate(model, data, y_K)
    gram_KK = slow_gram(data, kernel)
    for group in np.unique(data.group_K):
        out, rest = data.group_K == group, data.group_K != group
        inverse = np.linalg.inv(gram_KK[np.ix_(rest, rest)] + kernel.noise * np.eye(rest.sum()))
        cross = gram_KK[np.ix_(out, rest)]
        expected = model.mean + cross @ inverse @ (y_K[rest] - model.mean)
        variance = np.diag(gram_KK[np.ix_(out, out)] - cross @ inverse @ cross.T) + kernel.noise
        assert np.allclose(left_out_K[out], expected, atol=1e-5)
        assert np.allclose(sd_K[out] ** 2, model.variance * variance, atol=1e-5)


def test_evidence_prefers_the_kernel_that_made_the_data():
    rng = np.random.default_rng(1)
    encoding = Encoding((3,) * 6)
    codes_KP = all_codes(encoding.sizes)[rng.choice(729, 80, replace=False)]
    data = rows(encoding, codes_KP)
    y_K = data.x_KD @ rng.normal(size=18) + 0.01 * rng.normal(size=80)
    quiet, loud = (log_evidence(regress(data, y_K, Kernel(0.0, noise))) for noise in (0.001, 1.0))
    assert quiet > loud


@given(st.integers(0, 1000))
def test_copies_carry_the_information_of_one(seed):
    """A network listed c times at c times the noise predicts like a network listed once."""
    data, y_K = example(6, seed)
    twice = replace(
        data,
        x_KD=np.repeat(data.x_KD, 2, axis=0),
        scale_K=np.ones(12),
        copies_K=np.full(12, 2.0),
        group_K=np.repeat(np.arange(6), 2),
    )
    kernel = Kernel(0.5, 0.1)
    once, doubled = regress(data, y_K, kernel), regress(twice, np.repeat(y_K, 2), kernel)
    assert np.allclose(once.mean_of(data.x_KD), doubled.mean_of(data.x_KD), atol=1e-5)
