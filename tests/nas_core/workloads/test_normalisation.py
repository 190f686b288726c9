"""Mean and deviation per channel of stored inputs."""

import numpy as np
import pytest
import torch

from nas_core.workloads.normalisation import Normalisation


def test_of_bytes_is_exact_however_they_are_divided():
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 3, 5, 4), np.uint8))
    whole = Normalisation.of(images)
    assert Normalisation.of_bytes(images.split(7)) == whole
    fractions = images.double().transpose(0, 1).reshape(3, -1) / 255
    assert whole.mean == pytest.approx(fractions.mean(1).tolist(), abs=1e-12)
    assert whole.std == pytest.approx(fractions.std(1).tolist(), abs=1e-12)


def test_a_constant_channel_has_a_deviation():
    assert Normalisation.of(torch.full((1, 1, 1, 1), 51, dtype=torch.uint8)).std == (1 / 255,)
    assert Normalisation.of(torch.ones(4, 2)).std == (1.0, 1.0)


def test_prepared_inputs_have_mean_0_and_deviation_1():
    for inputs in (torch.randn(200, 3), torch.randint(0, 256, (40, 2, 6, 6), dtype=torch.uint8)):
        prepared = Normalisation.of(inputs)(inputs).transpose(0, 1).flatten(1)
        assert torch.allclose(prepared.mean(1), torch.zeros(len(prepared)), atol=1e-5)
        assert torch.allclose(prepared.std(1), torch.ones(len(prepared)), atol=1e-5)


def test_large_numbers_have_a_finite_deviation():
    """Their squares are no numbers of 32 bits."""
    inputs = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e30, 1.0])
    prepared = Normalisation.of(inputs)(inputs)
    assert torch.allclose(prepared.std(0), torch.ones(2), atol=1e-4)
