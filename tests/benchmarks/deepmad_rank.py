"""Does the score rank real networks? Kendall tau on Fashion-MNIST, beside counting the parameters.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.deepmad_rank --json

Random ResNet-family structures at 24 x 24 pixels with FLOPs alike (within 2 %)
and rho <= 0.5 are drawn, ``--structures`` of them picked at even quantiles of
the score, and all trained alike for ``--seeds`` seeds. The accuracy is the mean
over seeds on the test images. Intervals are percentile bootstraps over the
structures. About ten minutes on one core; whatever comes out is printed.
"""

import argparse
import gzip
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import nn

from nas_core.deepmad.domain import BlockDomain, Domain
from nas_core.deepmad.formulas import PAPER, TINYNAS, Batch, effectiveness, flops, params
from nas_core.deepmad.polish import to_batch
from nas_core.deepmad.realise import build
from nas_core.deepmad.structure import Skeleton, Structure
from tests.benchmarks.conditions import conditions

FOLDER = Path("/usr/share/datasets/fashion-mnist")
SIDE, FLOPS, FLOPS_BAND, RHO = 24, 3_000_000, 0.02, 0.5
TRAIN_IMAGES, EPOCHS, BATCH, LEARNING_RATE = 6_000, 3, 64, 3e-3
BOOTSTRAPS = 4000


def images(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images, N x 3 x 24 x 24 (grey in all channels), and labels N."""
    prefix = {"train": "train", "test": "t10k"}[split]
    with gzip.open(FOLDER / f"{prefix}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(FOLDER / f"{prefix}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)
    x = (torch.from_numpy(pixels.astype(np.float32)) / 255.0 - 0.286) / 0.353
    x = nn.functional.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
    return x.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(labels)


def domain() -> Domain:
    skeleton = Skeleton(family="resnet", resolution=SIDE, strides=(2, 1, 1, 1, 2))
    kernels = [(3, 5), (3,), (3,), (3,), (3,)]
    depths = [(1, 3), (1, 6), (1, 6), (1, 6), (1, 6)]
    blocks = tuple(
        BlockDomain(out=(16, 256), bottleneck=(8, 96), kernels=k, depth=d) for k, d in zip(kernels, depths, strict=True)
    )
    return Domain(skeleton=skeleton, stem=(16, 24), blocks=blocks, narrow=0.1, wide=1.0, growth=4.0)


def draw(count: int, rng: np.random.Generator) -> Batch:
    """``count`` structures of equal FLOPs at even quantiles of the tinynas score."""
    free, kept = domain(), []
    while sum(len(batch) for batch in kept) < 20 * count:
        n = 200_000
        stem = 8 * rng.integers(2, 4, n)
        outs = np.sort(8 * np.exp(rng.uniform(np.log(2), np.log(32.99), (n, 5))).astype(int), axis=1)
        bottlenecks = 8 * np.maximum(1, np.rint(outs * np.exp(rng.uniform(np.log(0.1), 0, (n, 5))) / 8)).astype(int)
        kernels = np.column_stack([rng.choice(block.kernels, n) for block in free.blocks])
        depths = np.column_stack([rng.integers(b.depth[0], b.depth[1] + 1, n) for b in free.blocks])
        batch = to_batch(free, np.column_stack([stem, outs, bottlenecks, kernels, depths]))
        good = free.inside(batch) & (np.abs(flops(batch) / FLOPS - 1) < FLOPS_BAND) & (effectiveness(batch) <= RHO)
        kept.append(batch.take(good))
    rows = [batch.structure(i) for batch in kept for i in range(len(batch))]
    pool = Batch.of(rows)
    order = np.argsort(TINYNAS.score(pool))
    return pool.take(order[np.linspace(0, len(order) - 1, count).round().astype(int)])


def accuracy(structure: Structure, seed: int, train: Any, test: Any) -> float:
    """Test accuracy after the common short training."""
    torch.manual_seed(seed)
    net = build(structure, num_classes=10)
    x, y = train
    steps = EPOCHS * (len(x) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    net.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        for at in range(0, len(x) - BATCH + 1, BATCH):
            index = order[at : at + BATCH]
            loss = nn.functional.cross_entropy(net(x[index]), y[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        right = [
            (net(test[0][at : at + 500]).argmax(1) == test[1][at : at + 500]) for at in range(0, len(test[0]), 500)
        ]
    return float(torch.cat(right).float().mean())


def tau(values: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Kendall tau-b with a 90 % percentile bootstrap interval over the structures."""
    draws = []
    for _ in range(BOOTSTRAPS):
        index = rng.integers(len(values), size=len(values))
        value = kendalltau(values[index], truth[index]).statistic
        if np.isfinite(value):
            draws.append(value)
    low, high = np.quantile(draws, [0.05, 0.95])
    return {"tau": float(kendalltau(values, truth).statistic), "low": float(low), "high": float(high)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line (always printed)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(args.seed)
    batch = draw(args.structures, rng)
    x, y = images("train")
    train, test = (x[:TRAIN_IMAGES], y[:TRAIN_IMAGES]), images("test")
    begin, found = time.process_time(), np.zeros((len(batch), args.seeds))
    for i in range(len(batch)):
        for s in range(args.seeds):
            found[i, s] = accuracy(batch.structure(i), s, train, test)
        row = f"{i:3d} score {TINYNAS.score(batch)[i]:9.1f} params {params(batch)[i]:8d} accuracy {found[i].round(4)}"
        print(row, f"{time.process_time() - begin:.0f} CPU s", file=sys.stderr, flush=True)
    truth = found.mean(axis=1)
    measures = {
        "tinynas": TINYNAS.score(batch),
        "paper": PAPER.score(batch),
        "tinynas without its depth penalty": TINYNAS.score(batch) + TINYNAS.penalty(batch),
        "parameters": params(batch).astype(float),
    }
    answer = {
        "kendall_tau": {name: tau(values, truth, rng) for name, values in measures.items()},
        "accuracy": found.tolist(),
        "flops": flops(batch).tolist(),
        **{name: values.tolist() for name, values in measures.items()},
        "interval": "90 % percentile bootstrap over structures",
        "seed_std": float(found.std(axis=1, ddof=1).mean()) if args.seeds > 1 else None,
        "conditions": conditions(
            data="Fashion-MNIST, 24 x 24", train_images=TRAIN_IMAGES, epochs=EPOCHS, seeds=args.seeds, batch=BATCH
        ),
        "cpu_s": time.process_time() - begin,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
