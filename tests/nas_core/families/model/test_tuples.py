"""Blocks that give a tuple with one tensor in it are positions, as if they gave the tensor."""

import copy
import json
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from nas_core.families.model import rebuild
from nas_core.families.model.splitting import self_swap, split
from nas_core.families.model.tuples import tuples_of
from nas_core.families.trained_model import TrainedModel
from nas_core.workloads.workload import Sample

pytestmark = pytest.mark.situations

WIDTH, DEPTH = 16, 4
SAMPLE = Sample(shape=(3, 16, 16), num_outputs=5)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.all_head_size = 4, WIDTH
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, None]:
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        seen = nn.functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2)
        return self.out(seen.reshape(*x.shape[:2], self.all_head_size)), None


class Layer(nn.Module):
    """As HuggingFace's libraries write them: attention gives its weights as well, where they are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        attended, *more = self.attention(self.before(x), mask)
        x = x + attended
        return (x + self.down(torch.relu(self.up(self.after(x)))), *(each for each in more if each is not None))


class WithTorchs(nn.Module):
    """As in a CLIP: torch's attention, which asks whether its query is its key, and gives its weights or None."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor]:
        normed = self.before(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        return (x + self.mlp(self.after(x)),)


class ByName(Layer):
    """As HuggingFace's newer libraries call layers."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, WIDTH))
        del self.up, self.down

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        x = x + self.attention(mask=mask, x=self.before(x))[0]
        return (x + self.mlp(input=self.after(x)),)


class Model(nn.Module):
    def __init__(self, layer: type[nn.Module] = Layer) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.layers = nn.ModuleList(layer() for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            given = layer(tokens, None)
            tokens = given if isinstance(given, torch.Tensor) else given[0]
        outputs: torch.Tensor = self.head(tokens.mean(1))
        return outputs


class Pair(Layer):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        (given,) = super().forward(x, mask)
        return given, given


class Read(Model):
    """A model that reads something of its layers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.layers[1].up, nn.Linear)
        return super().forward(x)


class ByMode(Layer):
    """In training it gives the tensor."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        given = super().forward(x, mask)
        return given[0] if self.training else given


def seeded(model: type[nn.Module] = Model, *given: Any) -> nn.Module:
    torch.manual_seed(0)
    return model(*given).eval()


def build() -> nn.Module:
    return seeded()


def with_torchs() -> nn.Module:
    return seeded(Model, WithTorchs)


def by_name() -> nn.Module:
    return seeded(Model, ByName)


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_modules_are_taken_out_of_their_tuples_and_the_model_gives_the_same_bits():
    model, plain = seeded(), seeded()
    forms = tuples_of(model, images())
    assert forms == {f"layers.{index}.attention": (2, 0) for index in range(DEPTH)} | {
        f"layers.{index}": (1, 0) for index in range(DEPTH)
    }
    again = rebuild.untupled(seeded(), dict(sorted(forms.items())))  # as a file has them
    assert torch.equal(model(images()), plain(images()))
    assert torch.equal(again(images(7)), plain(images(7)))
    assert list(again.state_dict()) == list(model.state_dict())


@torch.no_grad()
def test_their_positions_pass_the_swap_and_are_called_what_they_are():
    model = seeded()
    tuples_of(model, images())
    found = split(model, images())
    assert {place.kind for place in found.places[1:-1]} <= {"Layer", "Attention"}
    assert not self_swap(model, images(), found)


@torch.no_grad()
def test_what_takes_its_tensor_by_name_is_a_position_too():
    model, plain = seeded(Model, ByName), seeded(Model, ByName)
    forms = tuples_of(model, images())
    assert forms["layers.1.attention"] == (2, 0, "x")
    assert forms["layers.1.mlp"] == (0, 0, "input")
    assert torch.equal(model(images()), plain(images()))
    again = rebuild.untupled(seeded(Model, ByName), json.loads(json.dumps(forms)))  # as a file has them
    assert torch.equal(again(images(7)), plain(images(7)))
    found = split(model, images())
    assert [place.name for place in found.places if place.is_branch] == [
        f"layers.{index}.{branch}" for index in range(DEPTH) for branch in ("attention", "mlp")
    ]
    assert not self_swap(model, images(), found)


def test_what_gives_several_tensors_or_is_read_stays_as_it_is():
    assert set(tuples_of(seeded(Model, Pair), images())) == {f"layers.{index}.attention" for index in range(DEPTH)}
    assert set(tuples_of(seeded(Model, ByMode), images())) == {f"layers.{index}.attention" for index in range(DEPTH)}
    read = seeded(Read)
    assert "layers.1" not in tuples_of(read, images())
    assert torch.equal(read(images()), seeded()(images()))


def test_a_network_made_of_such_blocks_is_built_again_from_plain_data():
    family = TrainedModel(TrainedModel.Settings.model_validate({"model": f"{__file__}:build"}), SAMPLE)
    assert torch.equal(family.teacher(images()), seeded()(images()))
    names = [position.name for position in family.space.positions]
    assert names == ["patches", *(f"layers.{index}" for index in range(DEPTH))]
    kinds = {block.kind for position in family.space.positions[1:] for block in position.blocks}
    assert kinds == {"own", "narrower", "fewer-heads", "slimmer", "linear", "skip"}
    for choices in ("0-1-2-3-4", "0-4-5-6-7", "0-7-8-9-9"):
        genotype = family.space.parse(choices)
        network, origin = family.module(genotype).eval(), copy.deepcopy(family.origin(genotype))
        again = rebuild.changed(rebuild.made(origin["model"]), origin["changes"])
        again = rebuild.fill(again, load(save(network.state_dict()))).eval()
        assert torch.equal(again(images()), network(images()))
        assert sum(map(torch.numel, network.parameters())) < sum(map(torch.numel, family.teacher.parameters()))


def test_torchs_attention_is_a_branch_with_fewer_heads():
    family = TrainedModel(TrainedModel.Settings.model_validate({"model": f"{__file__}:with_torchs"}), SAMPLE)
    blocks = {position.name: {block.kind for block in position.blocks} for position in family.space.positions}
    assert list(blocks) == [
        "patches",
        *(f"layers.{i}.{branch}" for i in range(DEPTH) for branch in ("attention", "mlp")),
    ]
    assert blocks["layers.2.attention"] == {"own", "fewer-heads", "linear", "skip"}
    assert blocks["layers.2.mlp"] == {"own", "narrower", "linear", "skip"}
    torch.testing.assert_close(family.teacher(images()), with_torchs()(images()))


def test_networks_of_what_takes_its_tensor_by_name_are_built_again_from_plain_data():
    family = TrainedModel(TrainedModel.Settings.model_validate({"model": f"{__file__}:by_name"}), SAMPLE)
    blocks = {position.name: {block.kind for block in position.blocks} for position in family.space.positions}
    assert blocks["layers.2.attention"] == {"own", "fewer-heads", "linear", "skip"}
    assert blocks["layers.2.mlp"] == {"own", "narrower", "linear", "skip"}
    genotype = family.space.parse("0-1-2-2-3-3-1-2-1")
    network, origin = family.module(genotype), json.loads(json.dumps(family.origin(genotype)))
    again = rebuild.changed(rebuild.made(origin["model"]), origin["changes"])
    again = rebuild.fill(again, load(save(network.state_dict()))).eval()
    assert torch.equal(again(images()), network.eval()(images()))


def test_positions_named_by_hand_may_be_such_modules():
    given = {"model": f"{__file__}:build", "positions": ["layers.1", "layers.2.attention", "layers.3.attention.query"]}
    family = TrainedModel(TrainedModel.Settings.model_validate(given), SAMPLE)
    names = [position.name for position in family.space.positions]
    assert names == ["layers.1", "layers.2.attention", "layers.3.attention.query"]


def test_patterns_mean_the_modules_that_the_model_s_maker_knows():
    def names(**given):
        settings = TrainedModel.Settings.model_validate({"model": f"{__file__}:build", **given})
        return [position.name for position in TrainedModel(settings, SAMPLE).space.positions]

    assert names(only=["layers.*.attention"]) == [f"layers.{index}.attention" for index in range(DEPTH)]
    assert names(keep=["layers.0", "layers.2.attention"]) == ["patches", "layers.1", "layers.3"]
