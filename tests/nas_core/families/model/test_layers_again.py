"""An exported program has the layers again that it was made of, and parts that what flows comes first to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas_core.base.onnx_files import onnx_bytes
from nas_core.families.model.layers_again import with_layers
from nas_core.families.trained_model import TrainedModel
from nas_core.space.genotypes import Genotype
from nas_core.testing.example_model import small_network
from nas_core.training.export import AS_TENSORS, deployed, exported_bytes
from nas_core.workloads.images.decoding import Fitting
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.workload import Sample

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own use of what it deprecates
LAYERS: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 9)),
    (lambda: nn.Conv2d(4, 6, (3, 1), padding="same", bias=False), (4, 9, 9)),
    (lambda: nn.Conv2d(4, 8, 3, dilation=2, groups=2), (4, 9, 9)),
    (lambda: nn.Conv3d(4, 6, 2), (4, 5, 5, 5)),
    (lambda: nn.Linear(4, 6), (5, 4)),
    (lambda: nn.LayerNorm((5, 4)), (5, 4)),
    (lambda: nn.LayerNorm(4, elementwise_affine=False, eps=1e-3), (5, 4)),
    (lambda: nn.GroupNorm(2, 4), (4, 5, 5)),
    (lambda: nn.BatchNorm2d(4, eps=1e-3), (4, 5, 5)),
    (lambda: nn.BatchNorm2d(4, affine=False), (4, 5, 5)),
    (lambda: nn.BatchNorm1d(4), (4,)),
    (lambda: nn.BatchNorm1d(4), (4, 5)),
    (lambda: nn.BatchNorm3d(4), (4, 2, 5, 5)),
    (lambda: nn.ReLU(inplace=True), (4, 5)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS, ids=[str(make()).partition("(")[0] for make, _ in LAYERS])
def test_a_layer_is_what_it_was(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = make().eval()
    for tensor in [*layer.parameters(), *layer.buffers()]:
        if tensor.is_floating_point():
            tensor.data.copy_(torch.rand(tensor.shape) + 0.5)
    network, inputs = nn.Sequential(layer, nn.Flatten()), torch.randn(3, *shape)
    program = torch.export.unflatten(torch.export.export(network, (inputs,)))
    again = with_layers(program).get_submodule("0")
    assert type(again) is type(layer)
    assert repr(again).replace(", inplace=True", "") == repr(layer).replace("inplace=True", "")
    assert all(torch.equal(again.state_dict()[name], value) for name, value in layer.state_dict().items())
    with torch.no_grad():
        assert torch.equal(program(inputs), network(inputs))


class FixedFilter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(4, 4, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.weight)


def test_a_filter_that_is_no_parameter_stays_as_it_was() -> None:
    network, inputs = nn.Sequential(FixedFilter(), nn.Conv2d(4, 2, 1)).eval(), torch.randn(2, 4, 6, 6)
    program = with_layers(torch.export.unflatten(torch.export.export(network, (inputs,))))
    assert [type(each) for each in program.children()][1] is nn.Conv2d
    with torch.no_grad():
        assert torch.equal(program(inputs), network(inputs))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, 4, 4).permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, 16)
        given: torch.Tensor = self.proj(out)
        return given


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(16), Attention(), nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.head = nn.Conv2d(1, 16, 2, stride=2), nn.Linear(16, 10)
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.head(x.mean(1))
        return out


def _residual() -> nn.Module:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = (x + self.body(x)).relu()
            return out

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), *(Residual() for _ in range(4)), *head)


def _family(network: nn.Module, folder: Path) -> tuple[TrainedModel, torch.Tensor]:
    inputs = torch.randn(4, 1, 8, 8)
    batch: Any = ({0: torch.export.Dim("batch", min=1, max=1024)},)
    torch.export.save(torch.export.export(network.eval(), (inputs,), dynamic_shapes=batch), folder / "model.pt2")
    settings = TrainedModel.Settings(model=str(folder / "model.pt2"))
    return TrainedModel(settings, Sample(shape=(1, 8, 8), num_outputs=10)), inputs


@pytest.mark.parametrize("make", [_residual, Transformer])
def test_blocks_of_a_program_can_be_made_narrower(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = make().eval()
    family, inputs = _family(network, tmp_path)
    kinds = [[block.kind for block in position.blocks] for position in family.space.positions]
    narrower = [row.index("narrower") if "narrower" in row else 0 for row in kinds]
    assert sum(each > 0 for each in narrower) >= 3
    whole, smaller = (
        family.module(Genotype(tuple(choices))).eval() for choices in ([0] * len(narrower), narrower)
    )  # fresh weights
    assert smaller(inputs[:3]).shape == (3, 10)
    assert sum(each.numel() for each in smaller.parameters()) < sum(each.numel() for each in whole.parameters())
    with torch.no_grad():
        assert torch.equal(family.reference.trained()(inputs[:2]), network(inputs[:2]))
    assert torch.export.export(smaller, (inputs,)) is not None


@pytest.mark.parametrize("fitting", [Fitting(), Fitting(fit="pad"), Fitting(interpolation="nearest"), AS_TENSORS])
@torch.no_grad()
def test_a_network_that_was_handed_over_is_a_model_like_others(tmp_path: Path, fitting: Fitting) -> None:
    prepare = Normalisation(mean=(0.4,) * 3, std=(0.3,) * 3)
    given = deployed(small_network(3, 5).eval(), prepare, (3, 16, 16), fitting)
    (tmp_path / "model.pt2").write_bytes(exported_bytes(given))
    sample = Sample(shape=(3, 16, 16), num_outputs=5)
    family = TrainedModel(TrainedModel.Settings(model=str(tmp_path / "model.pt2")), sample)
    images = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(family.teacher(images), given(images))
    base = Genotype((0,) * family.space.num_positions)
    larger = torch.rand(3, 3, 20, 30)
    torch.testing.assert_close(family.teacher(larger), given(larger))
    # what it asserts of its inputs, how it tells bytes from floats and how it makes them square no trace could write
    assert onnx_bytes(family.module(base).eval(), [images], "trace")
