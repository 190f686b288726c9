"""What is dropped, mixed and erased: where, how often, and what it is refused for."""

import numpy as np
import pytest
import torch
from torch import nn

from nas_core.base.errors import NasError
from nas_core.families.shared_weights import SharedWeights
from nas_core.training.network import build_network
from nas_core.training.settings import Recipe
from nas_core.training.stochastic import DropPath, Mixing, drop_paths, dropout, has_paths
from tests.spaces import mobile, tiny

CPU = torch.device("cpu")


def rates(network):
    return [module.drop_prob for module in network.modules() if isinstance(module, DropPath)]


def test_paths_are_dropped_the_deeper_the_oftener():
    space = mobile()
    network = build_network(space.architecture(space.sample(np.random.default_rng(0))), seed=0)
    drop_paths(network, 0.4)
    found = rates(network)
    assert found == sorted(found)
    assert (min(found), max(found)) == (0.0, 0.4)


def test_blocks_of_one_position_have_one_rate():
    network = SharedWeights(tiny(), 0)
    drop_paths(network, 0.3)
    by_position = [set(rates(position)) for position in network.positions]
    assert all(len(found) <= 1 for found in by_position)
    assert max(max(found) for found in by_position if found) <= 0.3


def test_dropping_leaves_weights_and_rating_as_they_are():
    space, images = tiny(), torch.rand(2, 1, 8, 8)
    network = build_network(space.architecture(space.parse("2-1-2")), seed=0).eval()
    names, before = list(network.state_dict()), network(images)
    drop_paths(network, 0.9)
    with dropout(network, 0.9):
        assert torch.equal(network(images), before)
        network.train()
        assert not torch.allclose(network(images), network(images))
    assert list(network.state_dict()) == names


def test_a_network_without_residual_blocks_is_left_as_it_is():
    space, images = tiny(), torch.rand(2, 1, 8, 8)
    plain = build_network(space.architecture(space.parse("0-0-0")), seed=0)
    residual = build_network(space.architecture(space.parse("2-1-2")), seed=0)
    assert (has_paths(plain), has_paths(residual)) == (False, True)
    before = plain.eval()(images)
    drop_paths(plain, 0.5)
    assert torch.equal(plain.train().eval()(images), before)


def test_a_network_without_a_linear_layer_says_so():
    with pytest.raises(NasError, match=r"recipe\.dropout"), dropout(nn.ReLU(), 0.1):
        pass


def test_mixed_targets_are_shares_of_the_classes():
    images, labels = torch.rand(8, 3, 4, 4), torch.arange(8) % 5
    mixed, shares = Mixing(Recipe(mixup=1.0, label_smoothing=0.1), 5, CPU)(images.clone(), labels)
    assert shares.shape == (8, 5)
    assert torch.allclose(shares.sum(1), torch.ones(8))
    assert not torch.equal(mixed, images)


def test_a_rectangle_is_erased_and_the_rest_left():
    images = torch.zeros(16, 3, 8, 8)
    erased, labels = Mixing(Recipe(erase=1.0), 5, CPU)(images, torch.arange(16))
    changed = (erased != 0).any(1).sum((1, 2))
    assert ((changed > 0) & (changed < 64)).all()
    assert torch.equal(labels, torch.arange(16))


@pytest.mark.parametrize("recipe", [{"mixup": 0.1}, {"cutmix": 1.0}, {"erase": 0.5}])
def test_numbers_are_not_mixed(recipe):
    with pytest.raises(NasError, match=r"recipe\."):
        Mixing(Recipe(**recipe), 1, CPU)(torch.rand(4, 10), torch.rand(4, 1))
