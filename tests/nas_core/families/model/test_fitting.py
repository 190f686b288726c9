"""Weights by least squares: which rows of the samples they are fitted to."""

import pytest
import torch
from torch import nn

from nas_core.families.model.fitting import MOST_ROWS, rows_of


@pytest.mark.parametrize("side", [4, 16])
def test_every_column_of_the_images_is_among_the_rows(side):
    """Borders, which see zeros, are as frequent as they are: every so many rows would be the same columns always."""
    count = 4 * MOST_ROWS // side**2
    column = torch.arange(side).float().expand(count, 1, side, side)
    layer = nn.Conv2d(1, 1, 1)
    features, targets = rows_of(layer, column, column)
    assert len(features) == len(targets) == MOST_ROWS
    assert torch.equal(features, targets)
    shares = torch.bincount(features[:, 0].long(), minlength=side) / MOST_ROWS
    assert shares.tolist() == pytest.approx([1 / side] * side, rel=0.15)
