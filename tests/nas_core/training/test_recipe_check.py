"""What would stop a training at its beginning is said before anything is computed, with the setting and what may be."""

import pytest
from torch import nn

from nas_core.base.errors import ConfigError
from nas_core.base.fetching import FETCHERS
from nas_core.training.export import deployed, exported_bytes
from nas_core.training.network import build_network
from nas_core.training.recipe_check import check_recipe
from nas_core.training.recipes import RECIPES
from nas_core.training.settings import Recipe
from nas_core.workloads.images.digits import Digits
from nas_core.workloads.images.image_pairs import Segmentation
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.settings import ImageSettings
from tests.real_images import write_pairs
from tests.spaces import tiny

DIGITS = Digits(ImageSettings(validation_examples=101, train_examples=66))
SHAPE = (1, 8, 8)


def network(genotype="2-1-2"):
    space = tiny()
    return build_network(space.architecture(space.parse(genotype)), seed=0)


def check(recipe, *networks, shape=SHAPE, **given):
    check_recipe(Recipe.model_validate(recipe), "train.recipe", DIGITS, shape, networks=networks, **given)


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    folder = write_pairs(tmp_path_factory.mktemp("pairs"), 40)
    return Segmentation(Segmentation.Settings(path=str(folder), validation_examples=8))


def test_all_that_makes_no_sense_with_maps_is_named_at_once(masks):
    words = (
        "train.recipe.mixup: found 0.8, expected none for data of kind segmentation: a target is a map, which does not "
        "change with the image there. So has to be cutmix 0, policy none."
    )
    with pytest.raises(ConfigError) as caught:
        check_recipe(Recipe(name="deit"), "train.recipe", masks, (3, 28, 28))
    assert str(caught.value) == words
    rest = {"name": "deit", "mixup": 0, "cutmix": 0, "policy": "none"}
    check_recipe(Recipe.model_validate(rest), "train.recipe", masks, (3, 28, 28))


@pytest.mark.parametrize("name", RECIPES)
def test_published_recipes_serve_classes_of_images(name):
    check(name, network())


@pytest.mark.parametrize(
    ("recipe", "networks", "given", "words"),
    [
        ({"mixup": 0.2, "batch_size": 1}, [], {}, "train.recipe.batch_size: found one image, expected two at least"),
        ({"batch_size": 30, "accumulate": 2}, [], {"workers": 2, "sync_norm": True},
         "train.recipe.batch_size: found 30, expected a multiple of 4"),
        ({"batch_size": 200}, [], {"workers": 40}, "train.recipe.batch_size: found 66, expected 80 at least"),
        ({"policy": "rand-m9"}, [], {"shape": (5, 8, 8)},
         "train.recipe.policy: found images of 5 channels as torch.uint8, expected gray or colour images"),
        ({"dropout": 0.1}, [nn.Conv2d(1, 1, 1)], {}, "train.recipe.dropout: found Conv2d without a linear layer"),
        ({"layer_decay": 0.5}, [nn.Linear(2, 2)], {}, "train.recipe.layer_decay: found Linear, expected a network"),
        ({"drop_path": 0.1}, [nn.Linear(2, 2)], {}, "train.recipe.drop_path: found 0.1, expected 0: no block of these"),
        ({"teacher": {"model": "own"}}, [], {}, "train.recipe.teacher.model: found own, expected another teacher"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(recipe, networks, given, words):
    with pytest.raises(ConfigError) as caught:
        check(recipe, *networks, **given)
    assert str(caught.value).startswith(words)


def test_one_network_with_residual_blocks_is_enough():
    check({"drop_path": 0.1}, network("0-0-0"), network("0-0-0"), network())
    check({"drop_path": 0.1})  # nothing is known of networks yet


@pytest.mark.parametrize(
    ("outputs", "side", "words"),
    [
        (7, 8, "train.recipe.teacher: found outputs of 7, expected 10, as the data want"),
        (10, 6, "which says of inputs of 1 x 8 x 8"),
        (10, 8, ""),
    ],
)
def test_a_teacher_is_asked_once(tmp_path, outputs, side, words):
    module = nn.Sequential(nn.Flatten(), nn.Linear(side**2, outputs))
    path = tmp_path / "program.pt2"
    path.write_bytes(
        exported_bytes(deployed(module, Normalisation(mean=(), std=()), (side**2,) if side < 8 else SHAPE))
    )
    recipe = {"teacher": {"model": str(path)}}
    if not words:
        return check(recipe)
    with pytest.raises(ConfigError, match=words):
        check(recipe)


def test_a_teacher_by_its_uri_is_not_fetched(monkeypatch):
    monkeypatch.setitem(FETCHERS, "models", lambda uri: pytest.fail(f"{uri} is fetched"))
    check({"teacher": {"model": "models:/nobody@champion"}})


@pytest.mark.parametrize("model", ["nosuch.py:build", "s3://bucket/model"])
def test_a_teacher_that_nobody_fetches_is_refused(model):
    with pytest.raises(ConfigError, match=f"train.recipe.teacher.model: found '{model}', expected a file, a model of"):
        check({"teacher": {"model": model}})
