"""How fast the training loop is beside a bare loop of PyTorch's and timm's parts, on images that stay in memory.

``python -m tests.benchmarks.training_speed --json`` trains two networks with
two recipes, ours and the bare loop in turns in one process: the same network,
optimizer, rates, augmentation and averages, written as one writes them by hand.
The last line is one JSON object: ``networks`` has for each ``bare``, our
images/s over the bare loop's (medians of CPU seconds, which stay meaningful on
a machine that is busy with other things; of wall seconds on a GPU), both
figures in images/s of wall time, and the conditions.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from nas_core.training.loop import autocast, resolve_device, train
from nas_core.training.network import build_network
from nas_core.training.settings import Recipe
from nas_core.workloads.images.augmentation import augmented
from nas_core.workloads.images.digits import Digits
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.settings import ImageSettings
from nas_core.workloads.workload import Splits
from tests.benchmarks.conditions import conditions
from tests.spaces import nasbench_macro

from timm.data.mixup import Mixup  # isort: skip
from timm.models.vision_transformer import VisionTransformer  # isort: skip
from timm.utils import ModelEmaV3  # isort: skip

CLASSES, SIDE = 10, 28
WARM = 3  # steps that are not timed
PREPARE = Normalisation(mean=(0.29,), std=(0.35,))


def convolutional() -> nn.Module:
    space = nasbench_macro(in_channels=1, stem_channels=8, head_channels=128, resolution=SIDE)
    return build_network(space.architecture(space.parse("1-2-1-0-1-1-2-1")), seed=0)


def transformer() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=SIDE, patch_size=4, in_chans=1, num_classes=CLASSES, embed_dim=96, depth=4, num_heads=3
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, object]]] = {
    "nasbench-macro, SGD": (convolutional, {"augment": "crop-flip", "label_smoothing": 0.1}),
    "vit, AdamW, mixup, average": (
        transformer,
        {
            "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05, "augment": "crop-flip", "mixup": 0.2,
            "label_smoothing": 0.1, "ema_decay": 0.99, "clip_norm": 1.0,
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


def bare(network: nn.Module, recipe: Recipe, images: torch.Tensor, labels: torch.Tensor, clock: Clock) -> None:
    """The same training as one writes it by hand."""
    device, batch_size = clock.device, recipe.batch_size
    images, labels = images.to(device), labels.to(device)
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
    generator = torch.Generator(device).manual_seed(0)
    per_epoch = len(images) // batch_size
    total = torch.zeros((), device=device)
    for step in range(clock.steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(images), generator=generator, device=device)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * 0.5 * (1 + math.cos(math.pi * step / clock.steps))
        index = order[step % per_epoch * batch_size :][:batch_size]
        batch, target = augmented(PREPARE(images[index]), recipe.augment, generator), labels[index]
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


def ours(network: nn.Module, recipe: Recipe, images: torch.Tensor, labels: torch.Tensor, clock: Clock) -> None:
    splits = Splits(
        train=(images, labels), validation=(images[:1], labels[:1]), load_test=lambda: (images, labels), prepare=PREPARE
    )
    classify = Digits(ImageSettings())  # for its loss and augmentation, which all image sets share
    train(network, recipe, splits, classify, seed=0, device=clock.device, on_step=clock)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=23, help=f"per run, of which {WARM} are not timed")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    device, generator = resolve_device(options.device), torch.Generator().manual_seed(0)
    count = options.batch_size * max(1, options.steps // 2)  # two epochs, so that the end of one is timed, too
    images = torch.randint(0, 256, (count, 1, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    networks = {}
    for name, (build, given) in NETWORKS.items():
        recipe = Recipe(
            epochs=options.steps * options.batch_size / count, batch_size=options.batch_size, warmup="0 %", **given
        )
        seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": []}
        for _ in range(options.repeats):
            for way, run in (("ours", ours), ("bare", bare)):
                clock = Clock(device, options.steps)
                run(build(), recipe, images, labels, clock)
                seconds[way].append(clock.seconds)
        walls, cpus = ({way: statistics.median(each[i] for each in seconds[way]) for way in seconds} for i in (0, 1))
        timed = walls if device.type == "cuda" else cpus
        num_images = (options.steps - WARM) * options.batch_size
        rates = {f"{way}_images_per_s": round(num_images / wall, 1) for way, wall in walls.items()}
        networks[name] = {"bare": round(timed["bare"] / timed["ours"], 4), **rates}
        if not options.json:
            print(f"{name}: {networks[name]}")
    used = {key: value for key, value in vars(options).items() if key != "json"}
    print(json.dumps({"networks": networks, "conditions": conditions(**used, threads=torch.get_num_threads())}))


if __name__ == "__main__":
    main()
