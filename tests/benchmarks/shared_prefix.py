"""How much time shared prefixes save, and that they change no value.

``python -m tests.benchmarks.shared_prefix --json`` rates all one-swap
neighbours of a base network of the 8-position space with shared weights, once
network by network and once as a trie, alternately in one process. The last
line is one JSON object: ``ratio`` (median seconds of the shared way over the
plain way), ``max_abs_diff`` (largest difference of any logit) and the
conditions. Single-threaded CPU seconds are reported beside wall seconds: they
stay meaningful on a machine that is busy with other things.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from nas_core.families.nasbench_macro import nasbench_macro
from nas_core.families.shared_weights import SharedWeights
from nas_core.scoring.supernet import CALIBRATION_BATCH, SIDE_BY_SIDE_ON_GPU
from nas_core.scoring.supernet_pass import Activations, recalibrated_logits, shared_prefix_logits
from nas_core.space.genotypes import Genotype, SearchSpace
from nas_core.training.loop import resolve_device
from nas_core.workloads.images.tensors import Normalisation


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--base", default="2-2-2-2-2-2-2-2")
    parser.add_argument("--stem-channels", type=int, default=8)
    parser.add_argument("--head-channels", type=int, default=128)
    parser.add_argument("--resolution", type=int, default=14)
    parser.add_argument("--images", type=int, default=512, help="images rated")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--calibration", type=int, default=256, help="images that recalibrate statistics")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--side-by-side", type=int, default=0, help="0: 1 on a CPU, 16 on a GPU")
    return parser.parse_args()


def warmed_up(space: SearchSpace, device: torch.device) -> SharedWeights:
    """Shared weights with norms that scale and shift, so that a wrong statistic shows in the logits."""
    network = SharedWeights(space, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            elif name.endswith("weight") and parameter.ndim == 2:
                parameter.mul_(10)
    return network.to(device).to(memory_format=torch.channels_last).eval()


def random_images(space: SearchSpace, arguments: argparse.Namespace, device: torch.device) -> Activations:
    generator = torch.Generator().manual_seed(2)
    side, channels = space.resolutions[0], space.in_channels

    def batches(count: int, size: int) -> list[torch.Tensor]:
        images = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)
        normalised = Normalisation(mean=(0.5,) * channels, std=(0.3,) * channels).apply(images.to(device))
        return list(torch.split(normalised.contiguous(memory_format=torch.channels_last), size))

    return Activations(
        calibration=batches(arguments.calibration, CALIBRATION_BATCH),
        rated=batches(arguments.images, arguments.batch_size),
    )


def timed(run: Callable[[], Any], device: torch.device) -> tuple[float, float, Any]:
    """Wall and process CPU seconds, and the result."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    side_by_side = arguments.side_by_side or (SIDE_BY_SIDE_ON_GPU if device.type == "cuda" else 1)
    space = nasbench_macro(
        1, stem_channels=arguments.stem_channels, head_channels=arguments.head_channels, resolution=arguments.resolution
    )
    network, images = warmed_up(space, device), random_images(space, arguments, device)
    base = space.parse(arguments.base)
    genotypes = [base, *space.neighbours(base)]

    def plain() -> dict[Genotype, torch.Tensor]:
        return {genotype: recalibrated_logits(network, genotype, images) for genotype in genotypes}

    def shared() -> dict[Genotype, torch.Tensor]:
        results = shared_prefix_logits(network, genotypes, images, side_by_side)
        return {genotype: logits for genotype, logits in results.items() if isinstance(logits, torch.Tensor)}

    expected, found = plain(), shared()  # the warm-up, and what is compared
    difference = max(float((expected[g] - found[g]).abs().max()) for g in genotypes)
    runs = [(timed(plain, device)[:2], timed(shared, device)[:2]) for _ in range(arguments.repeats)]
    plain_s, shared_s = (statistics.median(run[way][0] for run in runs) for way in (0, 1))
    plain_cpu_s, shared_cpu_s = (statistics.median(run[way][1] for run in runs) for way in (0, 1))
    ratios = sorted(run[1][0] / run[0][0] for run in runs)
    return {
        "ratio": shared_s / plain_s,
        "max_abs_diff": difference,
        "cpu_ratio": shared_cpu_s / plain_cpu_s,
        "ratio_range": [ratios[0], ratios[-1]],
        "plain_s": plain_s,
        "shared_s": shared_s,
        "networks": len(genotypes),
        "max_abs_logit": max(float(logits.abs().max()) for logits in expected.values()),
        "space": space.name,
        **{key: value for key, value in vars(arguments).items() if key not in ("json", "device", "side_by_side")},
        "side_by_side": side_by_side,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    arguments = parse_arguments()
    result = measure(arguments)
    if not arguments.json:
        print(f"{result['networks']} networks: plain {result['plain_s']:.2f} s, shared {result['shared_s']:.2f} s")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
