"""Blocks fitted one after another to what really comes in: networks come nearer to the model, which stays as it is."""

import copy

import pytest
import torch
from torch import nn

from nas_core.families.batch_norm import average_statistics, forget_statistics, norms_of
from nas_core.families.model.draft import Call
from nas_core.families.model.reconstruction import Reconstruction, fit_block
from nas_core.families.trained_model import TrainedModel
from nas_core.space.genotypes import Genotype
from nas_core.workloads.workload import Sample
from tests.benchmarks import teachers

import timm  # isort: skip
from timm.models.convnext import ConvNeXtBlock  # isort: skip

SAMPLE = Sample(shape=(1, 28, 28), num_outputs=5)
MAKERS = ("resnet", "mobilenet", "convnext", "vit")


def _images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def _distance(network: nn.Module, model: nn.Module, inputs: torch.Tensor) -> float:
    with torch.no_grad():
        return float((network(inputs) - model(inputs)).pow(2).mean())


def _model(maker: str) -> tuple[TrainedModel, nn.Module]:
    torch.manual_seed(0)
    family = TrainedModel(TrainedModel.Settings(model=f"{teachers.__file__}:{maker}"), SAMPLE)
    model = family.module(Genotype((0,) * family.space.num_positions))
    norms = norms_of(model)
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)  # the last ones of blocks begin with zeros
        forget_statistics(norms)
        average_statistics(norms, 0)
        model(_images(256, 0))
    return family, model.eval()


def _narrowed(family: TrainedModel, model: nn.Module) -> nn.Module:
    """The model with blocks of half the width, of any weights, at two of its positions."""
    choices = [0] * family.space.num_positions
    halves = [
        (place, choice)
        for place, position in enumerate(family.space.positions)
        for choice, block in enumerate(position.blocks)
        if block.kind == "narrower" and block.as_dict()["ratio"] == 0.5
    ]
    for place, choice in halves[:2]:
        choices[place] = choice
    network = family.module(Genotype(tuple(choices)), torch.Generator().manual_seed(1))
    own, mine = model.state_dict(), network.state_dict()
    network.load_state_dict(
        {name: own[name] if own[name].shape == value.shape else value for name, value in mine.items()}
    )
    return network.eval()


@pytest.mark.parametrize("maker", MAKERS)
def test_a_network_comes_nearer_to_the_model_on_inputs_that_it_was_not_fitted_to(maker: str) -> None:
    family, model = _model(maker)
    network, before = _narrowed(family, model), copy.deepcopy(model.state_dict())
    plain = copy.deepcopy(network)
    Reconstruction(model, family.teacher_places, _images(64, 2)).fit(network)
    assert _distance(network, model, _images(32, 3)) < 0.9 * _distance(plain, model, _images(32, 3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("maker", ["convnext", "vit"])
def test_the_model_itself_stays_bit_for_bit(maker: str) -> None:
    family, model = _model(maker)
    network = copy.deepcopy(model)
    Reconstruction(model, family.teacher_places, _images(16, 2)).fit(network)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in network.state_dict().items())


def test_statistics_are_of_what_comes_in() -> None:
    """In training mode, where those of the batch count, the network gives the same: its training starts from there."""
    family, model = _model("mobilenet")
    network, inputs = _narrowed(family, model), _images(64, 2)
    Reconstruction(model, family.teacher_places, inputs).fit(network)
    with torch.no_grad():
        evaluated = network(inputs)
        for norm in (each for each in network.stages.modules() if isinstance(each, nn.BatchNorm2d)):
            norm.train()
        assert torch.allclose(network(inputs), evaluated, rtol=1e-2, atol=1e-2 * float(evaluated.std()))


def test_a_block_whose_layers_see_tokens_is_fitted() -> None:
    torch.manual_seed(0)
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, img_size=56).eval()
    _expect_fitted(model.get_submodule("layers.0.blocks.1"), torch.randn(4, 14, 14, 96))


def test_a_block_whose_layers_see_channels_last_is_fitted() -> None:
    torch.manual_seed(0)
    _expect_fitted(ConvNeXtBlock(8, ls_init_value=0.5).eval(), torch.randn(4, 8, 10, 10))


def _expect_fitted(block: nn.Module, inputs: torch.Tensor) -> None:
    other, call = copy.deepcopy(block), Call(inputs=inputs)
    with torch.no_grad():
        other.mlp.fc1.weight *= 0.7  # type: ignore[union-attr, operator]
        wanted = call.run(block)
        before = float((call.run(other) - wanted).pow(2).mean())
        fit_block(other, call, wanted)
        assert float((call.run(other) - wanted).pow(2).mean()) < 0.5 * before


@pytest.mark.parametrize("spoiled", ["conv2", "downsample.0"])
def test_of_two_branches_that_are_added_both_are_fitted(spoiled: str) -> None:
    """The shortcut's layer is the last that runs."""
    torch.manual_seed(0)
    block = timm.create_model("resnet18", num_classes=5).eval().get_submodule("layer2.0")
    block.bn2.weight.data.fill_(1.0)  # type: ignore[union-attr, operator]
    other, call = copy.deepcopy(block), Call(inputs=torch.randn(64, 64, 14, 14))
    with torch.no_grad():
        layer = other.get_submodule(spoiled)
        layer.weight += 0.5 * torch.randn_like(layer.weight) * layer.weight.std()
        wanted = call.run(block)
        before = float((call.run(other) - wanted).pow(2).mean())
        fit_block(other, call, wanted)
        assert float((call.run(other) - wanted).pow(2).mean()) < 0.5 * before


def test_a_block_that_does_more_with_its_last_layer_stays_as_it_is() -> None:
    """Of a squeeze-and-excitation the scale depends on what is scaled."""
    torch.manual_seed(0)
    model = timm.create_model("seresnet18", num_classes=5).eval()
    block, inputs = model.get_submodule("layer1.0"), torch.randn(4, 64, 8, 8)
    before = copy.deepcopy(block.state_dict())
    with torch.no_grad():
        fit_block(block, Call(inputs=inputs), torch.randn(4, 64, 8, 8))
    names = {name for name, _ in block.named_parameters()}
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items() if name in names)
