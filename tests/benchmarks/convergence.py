"""Where SGD does not train well and AdamW does: a small ViT and a small ConvNeXt on Fashion-MNIST.

``python -m tests.benchmarks.convergence --json`` trains both from scratch with
each optimizer at several peak rates, the same epochs, batches, augmentation and
seed, and measures the accuracy on held-out images of the training split. The
last line is one JSON object: per network and optimizer the accuracy at each
rate and the best of them, and the conditions.
"""

import argparse
import json
from collections.abc import Callable

import torch
from torch import nn

from nas_core.training.loop import measure, resolve_device, train
from nas_core.training.settings import Recipe
from nas_core.workloads.classification import CLASSIFICATION
from nas_core.workloads.images.fashion_mnist import FashionMnist
from nas_core.workloads.settings import ImageSettings
from tests.benchmarks.conditions import conditions

from timm.models.convnext import ConvNeXt  # isort: skip
from timm.models.vision_transformer import VisionTransformer  # isort: skip

SIDE, CLASSES = 32, 10  # images are enlarged to it
RATES = {"sgd": (0.02, 0.1, 0.5), "adamw": (5e-4, 2e-3, 5e-3)}
DECAY = {"sgd": 5e-4, "adamw": 0.05}


def vit() -> nn.Module:
    """As vit_tiny, with fewer and narrower layers: 64 patches of 4 x 4 pixels."""
    return VisionTransformer(
        img_size=SIDE, patch_size=4, in_chans=1, num_classes=CLASSES, embed_dim=64, depth=4, num_heads=2
    )


def convnext() -> nn.Module:
    """As convnext_atto, with narrower and fewer layers: 16 x 16 patches of 2 x 2 pixels."""
    return ConvNeXt(in_chans=1, num_classes=CLASSES, patch_size=2, depths=(1, 1, 2, 1), dims=(24, 48, 96, 96))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"vit": vit, "convnext": convnext}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--images", type=int, default=5000, help="trained on")
    parser.add_argument("--validation", type=int, default=2000, help="images measured on")
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    settings = ImageSettings(train_examples=options.images, validation_examples=options.validation)
    workload, device = FashionMnist(settings), resolve_device(options.device)
    data = workload.load((1, SIDE, SIDE))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in options.networks:
        found[name] = {}
        for optimizer, rates in RATES.items():
            accuracies = {}
            for rate in rates:
                torch.manual_seed(options.seed)  # timm's modules draw their first weights from the global generator
                network = NETWORKS[name]()
                recipe = Recipe(
                    epochs=options.epochs, batch_size=options.batch_size, optimizer=optimizer, lr=rate,
                    weight_decay=DECAY[optimizer], augment="crop-flip", label_smoothing=0.1, clip_norm=1.0,
                )  # fmt: skip
                train(network, recipe, data, workload, seed=options.seed, device=device)
                accuracy = measure(network, CLASSIFICATION["accuracy"], data.validation, data.prepare, device=device)
                accuracies[f"{rate:g}"] = round(accuracy, 4)
                if not options.json:
                    print(f"{name}, {optimizer}, rate {rate:g}: {accuracy:.4f}", flush=True)
            found[name][optimizer] = {**accuracies, "best": max(accuracies.values())}
    used = {key: value for key, value in vars(options).items() if key != "json"}
    print(json.dumps({"accuracy": found, "conditions": conditions(**used, threads=torch.get_num_threads())}))


if __name__ == "__main__":
    main()
