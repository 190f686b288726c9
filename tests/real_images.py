"""Small real sets for tests, made of images that are installed: Fashion-MNIST's, else scikit-learn's digits."""

import csv
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from nas_core.workloads import WORKLOADS
from nas_core.workloads.images.fashion_mnist import DEBIAN_FOLDER

SIDE = 28
MOST = 2000


@lru_cache(maxsize=1)
def garments(count: int = MOST) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The first test images, N 28 28 of uint8, their classes, and the classes' names."""
    known = WORKLOADS["fashion-mnist" if DEBIAN_FOLDER.is_dir() else "digits"]
    workload = known(known.Settings())
    split = "test" if DEBIAN_FOLDER.is_dir() else "train"
    raw = workload.read(split, SIDE)
    images = [np.asarray(Image.fromarray(image[..., 0]).resize((SIDE, SIDE))) for image in raw.images_NHWC[:count]]
    return np.stack(images), raw.labels_N[:count], workload.class_names


def write_image_table(folder: Path, count: int) -> Path:
    """Images in ``folder/images`` and a CSV beside it: a class, labels (two ways) and numbers of each.

    The numbers are of the image itself: how much of it is bright, and how high its middle of brightness lies.
    """
    images, labels, _ = (each[:count] for each in garments())
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        name = f"{index:05}.png"
        Image.fromarray(image).save(folder / "images" / name)
        bright = image > 100
        has = {"wide": np.ptp(np.flatnonzero(bright.any(0))) >= 18, "tall": np.ptp(np.flatnonzero(bright.any(1))) >= 22}
        has |= {"pale": image.mean() >= 75, "lopsided": abs(image[:, :14].mean() - image[:, 14:].mean()) > 12}
        tags = "|".join(tag for tag, holds in has.items() if holds)
        share = 100 * bright.mean()
        height = (image.sum(1) * np.arange(SIDE)).sum() / image.sum()
        flags = [int(each) for each in has.values()]
        split = "test" if index % 5 == 0 else "train"
        rows.append([name, split, garment_name(label), tags, *flags, f"{share:.3f}", f"{height:.3f}"])
    path = folder / "images.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["image", "split", "kind", "tags", "wide", "tall", "pale", "lopsided", "bright_pct", "middle_px"]
        )
        writer.writerows(rows)
    return path


def garment_name(label: int) -> str:
    return garments()[2][int(label)]


def write_pairs(folder: Path, count: int, noise: float = 0.0) -> Path:
    """``images/`` with what a network sees, ``masks/`` (0 background, 1 item) and ``targets/`` (without noise)."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks", "targets"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(garments()[0][:count]):
        seen = np.clip(image + rng.normal(0, 255 * noise, image.shape), 0, 255).astype(np.uint8)
        for name, picture in (("images", seen), ("targets", image), ("masks", (image > 30).astype(np.uint8))):
            Image.fromarray(picture).save(folder / name / f"{index:05}.png")
    return folder
