"""Tiny studies for the scorers' tests: 27 networks on 8 x 8 digits."""

import json
from pathlib import Path
from typing import Any

from nas_core.families import build_space
from nas_core.families.tiny import tiny
from nas_core.space.genotypes import SearchSpace
from nas_core.study.config import StudyConfig, parse_config

RECIPE = {"epochs": 1, "batch_size": 64, "lr": 0.05, "augment": "none"}
SUPERNET = {"kind": "supernet", "recipe": RECIPE, "random_paths": 1, "calibration_examples": 256}
TRAIN = {"kind": "train", "recipe": RECIPE}


def study(scorer: dict[str, Any], **sections: Any) -> StudyConfig:
    data = {"name": "digits", "validation_examples": 300, "train_examples": 600}
    return parse_config({"space": {"name": "tiny"}, "data": data, "scorer": scorer, "seed": 3} | sections, "test")


def space_of(config: StudyConfig) -> SearchSpace:
    return build_space(config.space)


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
