"""A study as a user of ours makes one: a space in YAML and a folder of images beside it, small enough for tests."""

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

SPACE = """\
name: mine
resolutions: [8]
stem: {kind: conv, kernel: 3, out_channels: 8}
positions:
  - {name: a, out_channels: 8, blocks: [identity, conv, {kind: mbconv, expand: 2}]}
  - {name: b, out_channels: 16, stride: 2, blocks: [identity, conv, {kind: mbconv, expand: 2}]}
  - {name: c, out_channels: 16, blocks: [identity, conv, {kind: mbconv, expand: 2}]}
head: {kind: conv-pool-linear, channels: 16}
"""
EDITED = SPACE.replace("expand: 2", "expand: 4")
RECIPE = {"epochs": 4, "batch_size": 16, "lr": 0.1, "augment": "none"}
ALL_IMAGES = 1797  # with which networks differ in what they learn


def written(folder: Path, num_images: int = 600, **sections) -> Path:
    """``study.yaml`` with its space and its images, digits of three classes, beside it; returns its path.

    ``num_images`` are those looked at, of ten classes.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index, (image, target) in enumerate(zip(digits.images[:num_images], digits.target[:num_images], strict=True)):
        if target < 3:
            place = folder / "images" / ("test" if index % 4 == 0 else "train") / f"digit{target}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15.9).astype(np.uint8)).save(place / f"{index}.png")
    (folder / "space.yaml").write_text(SPACE)
    study = {
        "name": "mine",
        "space": {"kind": "yaml", "file": "space.yaml"},
        "data": {"kind": "folder", "path": "images", "validation_examples": 60},
        "scorer": {"kind": "supernet", "recipe": RECIPE, "random_paths": 2, "calibration_examples": 64},
        "design": {"held_out": 3},
        "profile": {"resources": ["flops", "params"]},
        "select": {"limits": ["flops<=70%"], "top": 3},
        "verify": {"evaluations": 2, "per_round": 2},
        "train": {"recipe": RECIPE, "compare_random": 1},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump({**study, **sections}))
    return folder / "study.yaml"
