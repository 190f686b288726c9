"""How fast networks are trained, beside loops written by hand of PyTorch's and timm's parts, on a folder of JPEG files.

``python -m tests.benchmarks.training_speed --json`` makes the files and trains two networks with two recipes in
seven ways, in turns, each in a process of its own: by a bare loop and by ours on decoded images in memory; by ours on
the file of decoded images that a node's workers map, whose pages are dropped before; by ours and by a bare loop that
decode as they go, by the same number of loader processes, the latter's ``timm.data.create_loader``. Network, optimizer,
rates, augmentation and averages are the same. A bare loop leaves the C library to give freed memory back to the kernel,
ours does not; ``kept`` is the bare loop on images in memory when it does not either, ``timm_kept`` the one with timm's
loader.

The last line is one JSON object. ``networks`` has for each, medians of the turns' ratios:

- ``bare``: our images/s over the bare loop's, both from memory (of CPU seconds, which stay meaningful on a machine
  that is busy with other things; of wall seconds on a GPU);
- ``streamed``: ours from the mapped file over ours from memory (wall);
- ``timm_loader``: ours over the bare loop with timm's loader, both decoding as they go (wall);
- ``loop_alone``, ``loader_alone``: as ``bare`` and ``timm_loader``, freed memory being kept by both;
- ``images_per_s`` of each way, of wall time.
"""

import argparse
import io
import itertools
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from nas_core.base.allocator import keep_freed_memory
from nas_core.training.loop import autocast, resolve_device, train
from nas_core.training.network import build_network
from nas_core.training.settings import Recipe
from nas_core.workloads.images.augmentation import augmented
from nas_core.workloads.images.cache import cache_folder
from nas_core.workloads.images.folder import ImageFolder
from nas_core.workloads.workload import Splits
from tests.benchmarks.conditions import conditions
from tests.spaces import nasbench_macro

from timm.data import create_dataset, create_loader  # isort: skip
from timm.data.mixup import Mixup  # isort: skip
from timm.models.vision_transformer import VisionTransformer  # isort: skip
from timm.utils import ModelEmaV3  # isort: skip

CLASSES, FILE_SIDE, SIDE = 10, 96, 48  # pixels as stored, and as trained on
HELD_OUT = 8  # images that are not trained on
WARM = 3  # steps that are not timed
WALL, CPU = 0, 1
LONGEST_S = 600  # of one run
EPOCHS = 2  # so that what happens between two is timed
WAYS = ("bare", "kept", "memory", "map", "stream", "timm", "timm_kept")

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]  # augmented, on the device


def convolutional() -> nn.Module:
    space = nasbench_macro(in_channels=3, stem_channels=8, head_channels=128, resolution=SIDE)
    return build_network(space.architecture(space.parse("1-2-1-0-1-1-2-1")), seed=0)


def transformer() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=SIDE, patch_size=6, in_chans=3, num_classes=CLASSES, embed_dim=96, depth=4, num_heads=3
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, object]]] = {
    "nasbench-macro, SGD": (convolutional, {"label_smoothing": 0.1}),
    "vit, AdamW, mixup, average": (
        transformer,
        {
            "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05, "mixup": 0.2, "label_smoothing": 0.1,
            "ema_decay": 0.99, "clip_norm": 1.0,
        },
    ),
}  # fmt: skip


@dataclass
class Clock:
    """Seconds of wall and of CPU time from step WARM to the last one."""

    device: torch.device
    steps: int
    stamps: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, done: int, total: int) -> None:
        if done in (WARM, self.steps):
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.stamps.append((time.perf_counter(), time.process_time()))

    @property
    def seconds(self) -> tuple[float, float]:
        (wall, cpu), (wall_end, cpu_end) = self.stamps
        return wall_end - wall, cpu_end - cpu


def make_images(root: Path, count: int) -> None:
    """JPEG files with some detail, about 4 kB each."""
    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("test", CLASSES)):
        for index in range(number):
            coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            image = np.asarray(coarse.resize((FILE_SIDE, FILE_SIDE), Image.Resampling.BICUBIC)).astype(np.int16)
            image = (image + rng.integers(-12, 13, image.shape)).clip(0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=85)
            path = root / split / f"class-{index % CLASSES}" / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buffer.getvalue())


def by_hand(network: nn.Module, recipe: Recipe, batches: Batches, clock: Clock) -> None:
    """A training as one writes it."""
    device = clock.device
    network = network.to(device).to(memory_format=torch.channels_last).train()
    parameters = list(network.parameters())
    decayed, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=True, foreach=True)
    else:
        optimizer = torch.optim.AdamW(groups, lr=recipe.lr, foreach=True)
    average = ModelEmaV3(network, decay=recipe.ema_decay) if recipe.ema_decay else None
    mixup = Mixup(recipe.mixup, label_smoothing=recipe.label_smoothing, num_classes=CLASSES) if recipe.mixup else None
    smoothing = 0.0 if mixup else recipe.label_smoothing
    total = torch.zeros((), device=device)
    for step, (batch, target) in enumerate(itertools.islice(batches, clock.steps)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * 0.5 * (1 + math.cos(math.pi * step / clock.steps))
        if mixup is not None:
            batch, target = mixup(batch, target)
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, recipe):
            outputs = network(batch.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(outputs.float(), target, label_smoothing=smoothing)
        loss.backward()
        total += loss.detach()
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, recipe.clip_norm, foreach=True)
        optimizer.step()
        if average is not None:
            average.update(network, step=step)
        clock(step + 1, clock.steps)


def from_memory(splits: Splits, recipe: Recipe, device: torch.device) -> Batches:
    """What the bare loop trains on."""
    images, labels = (each.to(device) for each in splits.train)
    generator = torch.Generator(device).manual_seed(0)
    while True:
        order = torch.randperm(len(images), generator=generator, device=device)
        for index in order[: len(order) // recipe.batch_size * recipe.batch_size].split(recipe.batch_size):
            yield augmented(splits.prepare(images[index]), recipe.augment, generator), labels[index]


def from_timm(folder: Path, splits: Splits, recipe: Recipe, device: torch.device, loaders: int) -> Batches:
    """The same by timm's loader: its transform for training without colour jitter is our resized crop and flip."""
    loader = create_loader(
        create_dataset("", root=str(folder), split="train"),
        input_size=(3, SIDE, SIDE),
        batch_size=recipe.batch_size,
        is_training=True,
        color_jitter=None,
        interpolation="bilinear",
        mean=splits.prepare.mean,
        std=splits.prepare.std,
        num_workers=loaders,
        pin_memory=device.type == "cuda",
        device=device,
    )
    while True:
        yield from loader


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """The ways to train on one folder of files."""

    folder: Path
    device: torch.device
    batch_size: int
    steps: int  # per run

    def apart(self, way: str, name: str) -> tuple[float, float]:
        """As ``run``, in a process of its own: what an allocator keeps of one way is no affair of the next one's."""
        context = multiprocessing.get_context("spawn" if self.device.type == "cuda" else "fork")
        answers = context.Queue()
        process = context.Process(target=_told, args=(self, way, name, answers))
        process.start()
        found = answers.get(timeout=LONGEST_S)
        process.join()
        return found

    def run(self, way: str, name: str) -> tuple[float, float]:
        """Wall and CPU seconds of the steps that are timed."""
        build, given = NETWORKS[name]
        recipe = Recipe(epochs=EPOCHS, batch_size=self.batch_size, warmup="0 %", augment="resized-crop-flip", **given)
        network, clock = build(), Clock(self.device, self.steps)
        if way.endswith("kept"):
            keep_freed_memory()
        hold = way if way in ("map", "stream") else "memory"
        if way == "map":
            drop_pages()
        workload = ImageFolder(
            ImageFolder.Settings(path=str(self.folder), validation_examples=HELD_OUT, hold=hold, loaders=self.loaders)
        )
        splits = workload.load((3, SIDE, SIDE))
        if way in ("bare", "kept"):
            by_hand(network, recipe, from_memory(splits, recipe, self.device), clock)
        elif way in ("timm", "timm_kept"):
            by_hand(network, recipe, from_timm(self.folder, splits, recipe, self.device, self.loaders), clock)
        else:
            train(network, recipe, splits, workload, seed=0, device=self.device, on_step=clock)
        return clock.seconds

    @property
    def loaders(self) -> int:
        return torch.get_num_threads()

    def measured(self, name: str, repeats: int) -> dict[str, object]:
        turns = list[dict[str, tuple[float, float]]]()  # wall and CPU seconds
        for turn in range(repeats):
            first = turn % len(WAYS)  # no way always follows the same other one
            turns.append({way: self.apart(way, name) for way in (*WAYS[first:], *WAYS[:first])})

        def ratio(slower: str, faster: str, kind: int) -> float:
            return round(statistics.median(turn[slower][kind] / turn[faster][kind] for turn in turns), 4)

        count = (self.steps - WARM) * self.batch_size
        walls = {way: statistics.median(turn[way][WALL] for turn in turns) for way in WAYS}
        alone = WALL if self.device.type == "cuda" else CPU
        return {
            "bare": ratio("bare", "memory", alone),
            "streamed": ratio("memory", "map", WALL),
            "timm_loader": ratio("timm", "stream", WALL),
            "loop_alone": ratio("kept", "memory", alone),
            "loader_alone": ratio("timm_kept", "stream", WALL),
            "images_per_s": {way: round(count / wall, 1) for way, wall in walls.items()},
        }


def _told(speeds: Speeds, way: str, name: str, answers: Any) -> None:
    answers.put(speeds.run(way, name))


def drop_pages() -> None:
    """Let the kernel forget what it read of the decoded images' files, as far as nobody maps them."""
    for path in (cache_folder() / "decoded").glob("*.u8"):
        with path.open("rb") as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=16, help=f"per epoch; {EPOCHS} epochs, {WARM} steps not timed")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MATHNAS_CACHE"] = str(Path(folder) / "cache")
        make_images(Path(folder) / "set", options.steps * options.batch_size + HELD_OUT)
        speeds = Speeds(
            folder=Path(folder) / "set",
            device=resolve_device(options.device),
            batch_size=options.batch_size,
            steps=EPOCHS * options.steps,
        )
        networks = {}
        for name in NETWORKS:
            networks[name] = speeds.measured(name, options.repeats)
            if not options.json:
                print(f"{name}: {networks[name]}", flush=True)
    used = {key: value for key, value in vars(options).items() if key != "json"}
    used |= {"threads": torch.get_num_threads(), "loaders": speeds.loaders, "side": SIDE}
    print(json.dumps({"networks": networks, "conditions": conditions(**used)}))


if __name__ == "__main__":
    main()
