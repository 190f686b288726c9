"""Smaller networks made of a model by one number: what they are, and where the number comes from."""

import copy

import pytest
import torch
from torch import nn

from nas_core.base.errors import SpaceError
from nas_core.families.model.pruning import NARROWEST, differences, narrowed, nearest, pruned, shapes_beside, siblings
from nas_core.families.model.rebuild import changed, reshape
from nas_core.testing.example_model import small_network

from timm.models.vision_transformer import VisionTransformer  # isort: skip


@pytest.fixture
def model():
    return small_network(3, 10).eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def rebuilt(model, made):
    """The network from its description and weights alone."""
    fresh = changed(copy.deepcopy(model), made.changes)
    network = reshape(fresh, shapes_beside(made.network, fresh))
    network.load_state_dict(made.network.state_dict())
    return network.eval()


def test_every_block_is_as_much_narrower_and_described_by_its_changes(model, images):
    made = narrowed(model, ["1", "2", "3"], 0.5, images)
    assert [made.network.get_submodule(f"{path}.body.0").out_channels for path in "123"] == [8, 8, 8]
    with torch.no_grad():
        assert torch.equal(made.network.eval()(images), rebuilt(model, made)(images))
    other = narrowed(model, ["1", "2", "3"], 0.5, images, fitted=False)
    assert {n: t.shape for n, t in other.network.state_dict().items()} == {
        n: t.shape for n, t in made.network.state_dict().items()
    }


def test_of_a_transformer_the_heads_are_as_much_fewer():
    model = VisionTransformer(img_size=8, patch_size=4, num_classes=5, embed_dim=24, depth=2, num_heads=4).eval()
    images = torch.randn(8, 3, 8, 8)
    made = narrowed(model, ["blocks.0", "blocks.1"], 0.5, images)
    assert [(each.attn.num_heads, each.mlp.fc1.out_features) for each in made.network.blocks] == [(2, 48), (2, 48)]
    with torch.no_grad():
        assert torch.equal(made.network.eval()(images), rebuilt(model, made)(images))


def test_a_layer_without_an_inside_is_narrowed_with_what_it_stands_in(model, images):
    made = narrowed(model, ["1.body.0", "1.body.3", "2"], 0.5, images)
    assert [made.network.get_submodule(f"{path}.body.0").out_channels for path in "123"] == [8, 8, 16]
    with pytest.raises(SpaceError, match="no block with an inside"):
        narrowed(model, ["0"], 0.5, images)


def test_what_a_layer_stands_in_may_give_something_else_than_a_tensor(images):
    """As the backbones of torchvision's segmenters do."""

    class Backbone(nn.Sequential):
        def forward(self, x):
            return {"out": super().forward(x)}

    class Segmenter(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = Backbone(*list(small_network(3, 10))[:-1])
            self.head = nn.Conv2d(16, 5, 1)

        def forward(self, x):
            return self.head(self.backbone(x)["out"])

    model = Segmenter().eval().requires_grad_(False)
    made = narrowed(model, [f"backbone.{place}" for place in range(4)], 0.5, images)
    assert [made.network.backbone[place].body[0].out_channels for place in (1, 2, 3)] == [8, 8, 8]
    assert made.network.backbone[0].out_channels == 16


def test_what_torch_pruning_cuts_is_described_by_plain_changes(model, images):
    pytest.importorskip("torch_pruning")
    before = copy.deepcopy(model.state_dict())
    made = pruned(model, 0.5, images)
    assert made.changes["1.body.0"] == {"set": {"in_channels": 8, "out_channels": 8}}
    assert made.network.get_submodule("4.2").out_features == 10  # the classifier stays
    with torch.no_grad():
        assert torch.equal(made.network(images), rebuilt(model, made)(images))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_differences_are_of_plain_attributes():
    one, other = nn.Sequential(nn.Conv2d(4, 4, 3), nn.LayerNorm(4)), nn.Sequential(nn.Conv2d(4, 2, 3), nn.LayerNorm(2))
    assert differences(one, other) == {"0": {"set": {"out_channels": 2}}, "1": {"set": {"normalized_shape": [2]}}}
    assert differences(one, copy.deepcopy(one)) == {}


def test_the_nearest_share_is_the_largest_that_keeps_the_limit():
    share = nearest(lambda share: share, lambda share: share / 0.4)
    assert 0.4 * 0.98 <= share <= 0.4
    assert nearest(lambda share: share, lambda share: 2.0 + share) < 2 * NARROWEST
    assert nearest(lambda share: share, lambda share: 2.0 if share < 0.1 else 1.2 + share) == pytest.approx(
        0.14, abs=0.01
    )
    assert nearest(lambda share: share, lambda share: 0.1) > 0.99


@pytest.mark.parametrize(
    ("name", "near", "far"),
    [
        ("resnet34", ["resnet18", "resnet10t"], ["resnet34", "seresnet18", "resnext50_32x4d"]),
        ("convnext_tiny", ["convnext_nano"], ["convnextv2_nano"]),
        ("efficientnet_b1", ["efficientnet_b0"], ["efficientnet_lite0"]),
        ("vit_small_patch16_224", ["vit_tiny_patch16_224"], ["vit_tiny_patch16_384"]),
    ],
)
def test_siblings_are_named_alike(name, near, far):
    found = siblings(name)
    assert set(near) <= set(found)
    assert not set(far) & set(found)
