"""The configuration to begin with: made of what is registered."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from flows.init_command import commented_config
from nas_core.base.registry import summary_of
from nas_core.families import FAMILIES
from nas_core.scoring import SCORERS
from nas_core.searchers import SEARCHERS
from nas_core.study.config import StudyConfig
from nas_core.workloads import WORKLOADS

SECTIONS = {"space": FAMILIES, "data": WORKLOADS, "scorer": SCORERS, "searcher": SEARCHERS}


def test_kinds_come_first_and_all_of_them_are_described():
    text = " ".join(commented_config().replace("#", " ").split())
    read = yaml.safe_load(commented_config())
    for section, registry in SECTIONS.items():
        assert next(iter(read[section])) == "kind"
        for name in registry:
            assert f"{name} {summary_of(registry[name])}" in text


def test_what_a_profiler_can_be_told_is_there():
    assert yaml.safe_load(commented_config())["profile"]["profilers"]["latency"]["repeats"] == 30


def _paths(section: Any, to: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(section, dict):
        for key, value in section.items():
            if key != "kind":  # names what the others are settings of
                yield (*to, key)
                yield from _paths(value, (*to, key))


def _without(section: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    first, *rest = path
    kept = {key: value for key, value in section.items() if key != first}
    return {**kept, first: _without(section[first], tuple(rest))} if rest else kept


@pytest.mark.parametrize("scorer", [None, {"kind": "distil"}, {"kind": "supernet", "final_recipe": {"epochs": 3}}])
def test_what_is_deleted_is_as_it_was_shown(scorer: dict[str, Any] | None) -> None:
    shown = yaml.safe_load(commented_config())
    if scorer is not None:
        shown["scorer"] = StudyConfig.model_validate({"scorer": scorer}).model_dump(mode="json")["scorer"]
    whole = StudyConfig.model_validate(shown)
    chosen = {("scorer",), ("scorer", "final_recipe")}  # no defaults, where a scorer was named
    paths = [path for path in _paths(shown) if not (scorer and (path in chosen or path[:2] in chosen))]
    assert ("train", "recipe", "ema_decay") in paths
    for path in paths:
        assert StudyConfig.model_validate(_without(shown, path)) == whole, ".".join(path)


@pytest.mark.parametrize(
    ("section", "as_it_was"),
    [
        ("train", {"label_smoothing": 0.1, "augment": "crop-flip", "ema_decay": 0.998}),
        ("scorer", {"optimizer": "adamw", "lr": 1e-3, "batch_size": 64, "weight_decay": 0.0, "clip_norm": None}),
    ],
)
def test_one_setting_of_a_recipe_leaves_the_others_as_they_were(section: str, as_it_was: dict[str, Any]) -> None:
    scorer = {"kind": "distil", "recipe": {"epochs": 20}}
    config = StudyConfig.model_validate({"scorer": scorer, "train": {"recipe": {"epochs": 20}}})
    recipe = getattr(config, section).recipe
    assert {field: getattr(recipe, field) for field in ("epochs", *as_it_was)} == {"epochs": 20, **as_it_was}
