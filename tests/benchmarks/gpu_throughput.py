"""What the fast paths give on a GPU: training throughput, and prefixes run side by side.

``python -m tests.benchmarks.gpu_throughput --json`` trains one network on
random images in full precision, with bfloat16 autocast, and compiled, then
rates all one-swap neighbours of a base one by one and in groups. The last line
is one JSON object with images per second, seconds, and the conditions.
"""

import argparse
import json
import statistics
import time

import torch

from nas_core.scoring.supernet_pass import recalibrated_logits, shared_prefix_logits
from nas_core.training.loop import resolve_device, train
from nas_core.training.network import build_network
from nas_core.training.settings import Recipe
from nas_core.workloads.images.digits import Digits
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.settings import ImageSettings
from nas_core.workloads.workload import Splits
from tests.benchmarks.shared_prefix import random_images, timed, warmed_up
from tests.spaces import nasbench_macro

WAYS = {
    "fp32": {"precision": "float32"},
    "bf16": {"precision": "bfloat16"},
    "bf16_compiled": {"precision": "bfloat16", "compile": True},
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--genotype", default="2-2-2-2-2-2-2-2")
    parser.add_argument("--stem-channels", type=int, default=32)
    parser.add_argument("--head-channels", type=int, default=1280)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--calibration", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=60, help="timed training steps, after as many warm-up steps")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--groups", nargs="*", type=int, default=[1, 4, 16, 64])
    return parser.parse_args()


def training_rate(arguments: argparse.Namespace, device: torch.device, way: str) -> float:
    """Images per second, augmentation and optimizer included; the first half of the steps warms up."""
    space = nasbench_macro(
        in_channels=3,
        stem_channels=arguments.stem_channels,
        head_channels=arguments.head_channels,
        resolution=arguments.resolution,
    )
    network = build_network(space.architecture(space.parse(arguments.genotype)), seed=0)
    count = arguments.batch_size * arguments.steps
    generator = torch.Generator().manual_seed(0)
    side = arguments.resolution
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    recipe = Recipe(epochs=2, batch_size=arguments.batch_size, augment="crop-flip-cutout", **WAYS[way])
    splits = Splits(
        train=(images, labels),
        validation=(images[:1], labels[:1]),
        load_test=lambda: (images[:1], labels[:1]),
        prepare=Normalisation(mean=(0.5,) * 3, std=(0.25,) * 3),
    )
    classify = Digits(ImageSettings())  # for its loss and augmentation, which all image sets share
    ends: list[float] = []  # an epoch's end reads the loss, so it waits for the device
    train(
        network,
        recipe,
        splits,
        classify,
        seed=0,
        device=device,
        on_epoch=lambda row: ends.append(time.perf_counter()),
    )
    return count / (ends[1] - ends[0])


def rating_seconds(arguments: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Median seconds to rate a base and its neighbours: plainly, and as a trie in groups of several sizes."""
    space = nasbench_macro(
        in_channels=3,
        stem_channels=arguments.stem_channels,
        head_channels=arguments.head_channels,
        resolution=arguments.resolution,
    )
    network, images = warmed_up(space, device), random_images(space, arguments, device)
    base = space.parse(arguments.genotype)
    genotypes = [base, *space.neighbours(base)]

    def plain() -> None:
        for genotype in genotypes:
            recalibrated_logits(network, genotype, images)

    ways = {"plain": plain}
    for group in arguments.groups:
        ways[f"side_by_side_{group}"] = lambda group=group: shared_prefix_logits(network, genotypes, images, group)
    for run in ways.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, run in ways.items():
            seconds[name].append(timed(run, device)[0])
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    arguments = parse_arguments()
    device = resolve_device(arguments.device)
    result = {
        "training_images_per_s": {way: training_rate(arguments, device, way) for way in arguments.ways},
        "rating_s": rating_seconds(arguments, device),
        **{key: value for key, value in vars(arguments).items() if key not in ("json", "device")},
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    if not arguments.json:
        print(json.dumps(result, indent=2))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
