"""Recipes by name, and what of them may be changed."""

import pytest
import yaml

from nas_core.base.errors import ConfigError
from nas_core.study.config import StudyConfig, parse_config, read_config
from nas_core.training.recipes import RECIPES
from nas_core.training.settings import Recipe, TrainConfig
from nas_core.workloads import WORKLOADS
from tests.nas_core.workloads.regression_study import diabetes


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_is_one_with_its_source(name):
    recipe = Recipe.model_validate(name)
    assert recipe.name == name
    assert {field: getattr(recipe, field) for field in RECIPES[name]()} == RECIPES[name]()
    assert "arXiv" in RECIPES[name].__doc__ or "timm" in RECIPES[name].__doc__
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_a_name_or_a_name_with_changes():
    given = {"train": {"recipe": "rsb-a3"}, "scorer": {"kind": "train", "recipe": {"name": "rsb-a3", "epochs": 20}}}
    config = parse_config(given, "test")
    assert (config.train.recipe.epochs, config.train.recipe.optimizer) == (100, "lamb")
    assert config.scorer.recipe == config.train.recipe.model_copy(update={"epochs": 20})


def test_fields_are_changed_from_the_command_line_too(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"train": {"recipe": "convnext"}}))
    recipe = read_config(path, {"train.recipe.epochs": "3"}).train.recipe
    assert (recipe.name, recipe.epochs, recipe.optimizer) == ("convnext", 3, "adamw")
    assert read_config(path, {"train.recipe": "deit"}).train.recipe.name == "deit"


def test_published_values():
    """Table 2 of arXiv 2110.00476, table 9 of 2012.12877, table 5 of 2201.03545."""
    a2, a3, deit, convnext = (Recipe.model_validate(name) for name in ("rsb-a2", "rsb-a3", "deit", "convnext"))
    assert [
        (r.epochs, r.lr, r.weight_decay, r.batch_size, r.repeats, r.drop_path, r.ema_decay)
        for r in (a2, a3, deit, convnext)
    ] == [
        (300, 5e-3, 0.02, 2048, 3, 0.05, None),
        (100, 8e-3, 0.02, 2048, 1, 0.0, None),
        (300, 1e-3, 0.05, 1024, 3, 0.1, None),
        (300, 4e-3, 0.05, 4096, 1, 0.1, 0.9999),
    ]
    policies = [Recipe.model_validate(name).policy for name in ("rsb-a2", "rsb-a3", "deit", "convnext", "mobilenetv3")]
    assert policies == [
        "rand-m7-mstd0.5-inc1",
        "rand-m6-mstd0.5-inc1",
        "rand-m9-mstd0.5-inc1",
        "rand-m9-mstd0.5-inc1",
        "rand-m9-mstd0.5",
    ]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("rsb-a9", "recipe.name: found 'rsb-a9'"),
        ("", "recipe.name"),
        ({"name": ["deit"]}, "recipe.name"),
        ({"name": "deit", "epoch": 3}, "recipe.epoch"),
        ({"warmup": "5 minutes"}, "recipe.warmup: found .5 minutes., expected an amount such as .10 %., .5 epochs. or"),
        ({"betas": [0.9, 1.5]}, "recipe.betas"),
        ({"optimizer": "sgdd"}, "recipe.optimizer"),
        ({"policy": "rand-m9-t3a"}, "recipe.policy: found 'rand-m9-t3a'.*such as rand-m9-mstd0.5-inc1"),
        ({"amp": "yes"}, "recipe.amp"),
        (3, "recipe"),
    ],
)
def test_what_is_wrong_is_said(recipe, said):
    with pytest.raises(ConfigError, match=said):
        parse_config({"train": {"recipe": recipe}}, "test")


def test_recipes_of_earlier_versions_are_understood():
    old = {"epochs": 3, "amp": False, "warmup_fraction": 0.05}
    assert Recipe.model_validate(old) == Recipe(epochs=3, precision="float32", warmup="5 %")
    assert Recipe.model_validate({"amp": True}) == Recipe()


@pytest.mark.situations
def test_a_name_chosen_on_a_form_counts_beside_what_the_form_fills_in():
    form = StudyConfig().model_dump(mode="json")  # a form sends every field
    form["scorer"]["recipe"]["name"] = "rsb-a3"
    form["train"]["recipe"] |= {"name": "deit", "epochs": 10}
    chosen = StudyConfig.model_validate(form)
    assert chosen.scorer.recipe == Recipe.model_validate("rsb-a3")
    assert chosen.train.recipe == Recipe.model_validate({"name": "deit", "epochs": 10})
    assert chosen.train.recipe.epochs == 10  # another field's default, but not what this form filled in
    for given in ({"name": "rsb-a3", "epochs": 30}, {"name": "rsb-a3", "epochs": 10, "label_smoothing": 0.1}):
        written = StudyConfig.model_validate({"train": {"recipe": given}})
        assert written.train.recipe.epochs == given["epochs"]
        assert StudyConfig.model_validate_json(written.model_dump_json()) == written


@pytest.mark.situations
def test_a_named_recipe_is_written_by_its_name_and_known_by_its_values():
    written = StudyConfig.model_validate({"train": {"recipe": {"name": "rsb-a3", "epochs": 20}}}).train
    assert written.model_dump()["recipe"] == {"name": "rsb-a3", "epochs": 20}
    assert written.inputs["recipe"]["optimizer"] == "lamb"
    assert written.recipe.identity == Recipe.model_validate({**written.recipe.values}).identity


def test_what_was_changed_of_a_named_recipe_is_written_whatever_is_left_out():
    """A change to what is any recipe's default is a change of this one."""
    recipe = Recipe.model_validate({"name": "rsb-a3", "optimizer": "sgd", "ema_decay": 0.99, "label_smoothing": 0.1})
    given = {"name": "rsb-a3", "optimizer": "sgd", "ema_decay": 0.99, "label_smoothing": 0.1}
    assert recipe.model_dump(exclude_none=True) == given
    assert recipe.model_dump(exclude_defaults=True).items() <= given.items()


def test_the_full_training_is_known_by_what_its_teachers_file_holds_and_not_by_how_often_it_is_stored(tmp_path):
    path = tmp_path / "teacher.pt2"
    known = []
    for held, every_s in ((b"one", 30), (b"one", 5), (b"other", 30)):
        path.write_bytes(held)
        given = {"recipe": {"teacher": {"model": str(path)}}, "checkpoint_every_s": every_s}
        known.append(TrainConfig.model_validate(given).inputs)
    assert known[0] == known[1] != known[2]


@pytest.mark.parametrize(
    ("kind", "augments"),
    [("folder", True), ("digits", True), ("segmentation", True), ("image-to-image", True), ("rows", False)],
)
def test_an_augmentation_is_said_of_data_that_are_augmented_only(kind, augments):
    given = {"path": "x"} if "path" in WORKLOADS[kind].Settings.model_fields else {}
    recipe = Recipe(augment="crop-flip").applied_to(WORKLOADS[kind](WORKLOADS[kind].Settings(**given)))
    assert ("crop-flip" in recipe.in_words) == augments


def test_data_of_ones_own_are_augmented_where_their_class_says_how():
    class Turned(type(diabetes())):
        def augment(self, inputs, kind, generator):
            return -inputs

    recipe = Recipe(augment="crop")
    assert recipe.applied_to(diabetes()) == Recipe(augment="none")
    assert recipe.applied_to(Turned(diabetes().settings)) == recipe
