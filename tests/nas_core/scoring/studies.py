"""Tiny studies for the scorers' tests: 27 networks on 8 x 8 digits."""

import json
from pathlib import Path
from typing import Any

from nas_core.records.store import Store
from nas_core.scoring import Scorer
from nas_core.space.genotypes import SearchSpace
from nas_core.study.brought import family_of, scorer_of
from nas_core.study.config import StudyConfig, parse_config
from tests.spaces import tiny

RECIPE = {"epochs": 1, "batch_size": 64, "lr": 0.05, "augment": "none"}
SUPERNET = {"kind": "supernet", "recipe": RECIPE, "random_paths": 1, "calibration_examples": 256}
TRAIN = {"kind": "train", "recipe": RECIPE}


def study(scorer: dict[str, Any], **sections: Any) -> StudyConfig:
    data = {"kind": "digits", "validation_examples": 300, "train_examples": 600}
    return parse_config({"space": {"kind": "tiny"}, "data": data, "scorer": scorer, "seed": 3} | sections, "test")


def space_of(config: StudyConfig) -> SearchSpace:
    return family_of(config).space


def build_scorer(config: StudyConfig, store: Store | None = None) -> Scorer:
    """The study's scorer, on the CPU."""
    return scorer_of(config, family_of(config), store, "cpu")


def id_of(config: StudyConfig) -> str:
    return build_scorer(config).scorer_id


def table_file(folder: Path) -> Path:
    """A table of all 27 networks but 2-2-2, in NAS-Bench-Macro's JSON format."""
    table = {
        "".join(map(str, genotype.choices)): {"mean_acc": 80.0 + sum(genotype.choices), "params": 1}
        for genotype in tiny().genotypes()
        if genotype.choices != (2, 2, 2)
    }
    path = folder / "table.json"
    path.write_text(json.dumps(table))
    return path
