"""Networks as ONNX files: the same outputs for any batch, and one line for what ONNX does not have."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from nas_core.base.errors import NasError
from nas_core.base.onnx_files import WAYS, Session, onnx_bytes, with_output_shape


class Eigenvalues(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x).real


@pytest.mark.parametrize("way", WAYS)
def test_a_file_gives_what_the_network_gives_for_any_batch(way, capfd):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    session = Session(onnx_bytes(network, [torch.randn(2, 3, 8, 8)], way), num_threads=1)
    for count in (1, 2, 7):
        inputs = torch.randn(count, 3, 8, 8)
        with torch.no_grad():
            np.testing.assert_allclose(session(inputs.numpy()), network(inputs).numpy(), atol=1e-5)
    assert capfd.readouterr() == ("", "")


class Cells(nn.Conv2d):
    """Outputs of two axes, as a detector has them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("way", WAYS)
def test_the_batch_is_the_one_axis_of_the_output_that_a_file_leaves_open(way):
    data = onnx_bytes(Cells(3, 5, 1).eval(), [torch.randn(2, 3, 4, 4)], way)
    named = with_output_shape(data, (16, 5))
    batch, *axes = onnx.load_from_string(named).graph.output[0].type.tensor_type.shape.dim
    assert (batch.dim_param, [axis.dim_value for axis in axes]) == ("batch", [16, 5])
    assert Session(named)(np.zeros((3, 3, 4, 4), np.float32)).shape == (3, 16, 5)


class AnyNumber(nn.Sequential):
    """Takes its inputs by no name, as what is loaded from an exported program does."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(*inputs)


@pytest.mark.parametrize("any_batch", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_a_network_may_take_its_inputs_by_no_name(way, any_batch):
    network, inputs = AnyNumber(nn.Linear(3, 2)).eval(), torch.randn(5, 3)
    session = Session(onnx_bytes(network, [inputs], way, any_batch=any_batch))
    with torch.no_grad():
        np.testing.assert_allclose(session(inputs.numpy()), network(inputs).numpy(), atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_an_operator_that_onnx_does_not_have_is_named(way):
    with pytest.raises(NasError, match=r"ONNX: found the operator aten.{1,2}linalg_eig\w*, expected") as caught:
        onnx_bytes(Eigenvalues().eval(), [torch.randn(2, 4, 4)], way)
    assert len(str(caught.value).splitlines()) == 1


class Spectrum(nn.Module):
    """Which a trace cannot write."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(x).abs()


def test_a_way_that_fails_prints_nothing(capfd):
    network, inputs = Spectrum().eval(), [torch.randn(2, 4)]
    with pytest.raises(NasError):
        onnx_bytes(network, inputs, "trace")
    assert capfd.readouterr() == ("", "")
    assert onnx_bytes(network, inputs, "program")


@pytest.mark.parametrize("way", WAYS)
def test_torchs_own_transformer_is_written_both_ways(way):
    """Its fast path is one operator, which a trace does not know."""
    torch.manual_seed(0)
    network = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
    ).eval()
    inputs = torch.randn(3, 5, 8)
    with torch.no_grad():
        expected = network(inputs).numpy()
    found = Session(onnx_bytes(network, [inputs[:2]], way))(inputs.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()
