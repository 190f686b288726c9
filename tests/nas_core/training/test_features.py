"""How far what blocks give is from what they are to give."""

import pytest
import torch
import torch.nn.functional as F

from nas_core.training.features import relative_error, spread, squared_error


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("other", [torch.channels_last, torch.contiguous_format])
def test_the_gradient_lies_in_memory_as_what_is_given(layout, other):
    """Else every layer before it is many times slower."""
    generator = torch.Generator().manual_seed(0)
    given, wanted = (torch.randn(2, 8, 5, 5, generator=generator) for _ in range(2))
    plain = F.mse_loss(given, wanted)
    given, wanted = given.contiguous(memory_format=layout).requires_grad_(), wanted.contiguous(memory_format=other)
    if layout == other:
        torch.testing.assert_close(squared_error(given, wanted), plain)
    error = relative_error(given, wanted)
    torch.testing.assert_close(error, plain / spread(wanted))
    (gradient,) = torch.autograd.grad(error, given)
    assert gradient.stride() == given.stride()


def test_what_is_no_image_is_compared_as_it_is():
    given, wanted = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    torch.testing.assert_close(squared_error(given, wanted), F.mse_loss(given, wanted))
