"""The form in which a model is looked at: whatever it is, it computes what the model does."""

import torch

from nas_core.families.trained_model import TrainedModel
from nas_core.workloads.workload import Sample

TAPPED = """
import torch
from torch import nn
from nas_core.testing.example_model import Residual

class Tapped(nn.Module):
    def __init__(self, in_channels, num_outputs):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.layers = nn.Sequential(*(Residual(8) for _ in range(8)))
        self.head = nn.Linear(8, num_outputs)

    def forward(self, x):
        x, found = self.stem(x), 0
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in (1, 3):
                found = found + x.mean((2, 3))
        return self.head(found + x.mean((2, 3)))

def build(in_channels, num_outputs):
    torch.manual_seed(0)
    return Tapped(in_channels, num_outputs)
"""


def test_blocks_that_are_known_by_their_number_are_not_put_into_rows(tmp_path):
    """In rows of blocks the taps would be elsewhere: another network, and nothing would say so."""
    (tmp_path / "tapped.py").write_text(TAPPED)
    model = f"{tmp_path}/tapped.py:build"
    family = TrainedModel(TrainedModel.Settings(model=model, wanted=4), Sample(shape=(3, 8, 8), num_outputs=4))
    inputs = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(family.teacher(inputs), family.reference.fresh()(inputs))
