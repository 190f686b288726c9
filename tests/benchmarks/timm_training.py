"""Whether networks end as well as in a loop of timm's parts: CIFAR-10, one small ResNet, one recipe, some seeds.

``python -m tests.benchmarks.timm_training --json`` trains the network by the recipe ``airbench`` with single fields
changed, by ours and by a loop as timm's ``train.py`` has it (the script is in no package): ``create_loader``,
``create_optimizer_v2``, ``create_scheduler_v2``, ``Mixup``, ``SoftTargetCrossEntropy``, ``ModelEmaV3``, torchvision's
crop and flip of one image at a time. Both start from the same weights and see the same images in as many epochs, in
an order and with draws of their own. The accuracy on the test split is of the averaged weights.

The last line is one JSON object: accuracies by seed, mean and deviation of both, the difference of the means (ours
less timm's, in points) with its 95 % interval (Welch), and whether that holds 0. CIFAR-10 is read from the folder
that ``tests.reference_data`` names. On one core a training on 20,000 images takes two minutes.
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch
from PIL import Image
from scipy import stats
from torch import nn
from torch.utils.data import Dataset

from nas_core.base.torchvision_compat import define_missing_operators
from nas_core.training.loop import average_of, measure, train
from nas_core.training.network import build_network
from nas_core.training.optimizers import rate_factor
from nas_core.training.settings import Recipe
from nas_core.workloads.images.cifar10 import Cifar10
from nas_core.workloads.settings import ImageSettings
from nas_core.workloads.workload import Splits, metric_of
from tests.benchmarks.conditions import conditions
from tests.reference_data import data_root
from tests.spaces import resnet

define_missing_operators()

from timm.data import create_loader  # noqa: E402
from timm.data.mixup import Mixup  # noqa: E402
from timm.data.transforms import MaybePILToTensor  # noqa: E402
from timm.loss import SoftTargetCrossEntropy  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.scheduler import create_scheduler_v2  # noqa: E402
from torchvision import transforms  # noqa: E402

CLASSES, SIDE, SHIFT = 10, 32, 4
CHANGED = {"batch_size": 256, "mixup": 0.2, "ema_decay": 0.99}
WARMUP_SHARE = 0.23  # of the recipe's steps


def network_of(seed: int) -> nn.Module:
    """Three basic blocks of 16, 32 and 64 channels: 12.5 M multiply-adds, 78,042 parameters."""
    space = resnet(stem_channels=16, stages=3, depth=1, resolution=SIDE)
    return build_network(space.architecture(space.parse("0-0-0")), seed=seed)


class Pictures(Dataset[tuple[object, int]]):
    """Images as timm's loader takes them: one at a time, from PIL."""

    def __init__(self, splits: Splits, fill: tuple[int, ...]) -> None:
        images, labels = splits.train
        self.images_NHWC, self.labels = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        self.own = transforms.Compose(
            [transforms.RandomCrop(SIDE, SHIFT, fill=fill), transforms.RandomHorizontalFlip(), MaybePILToTensor()]
        )
        self.transform: object = None  # the loader sets one, which enlarges parts

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[object, int]:
        return self.own(Image.fromarray(self.images_NHWC[index])), self.labels[index]


def by_ours(network: nn.Module, recipe: Recipe, splits: Splits, workload: Cifar10, seed: int) -> nn.Module:
    train(network, recipe, splits, workload, seed=seed, device="cpu")
    return network


def by_timm(network: nn.Module, recipe: Recipe, splits: Splits, workload: Cifar10, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    np.random.seed(seed)
    network = network.to(memory_format=torch.channels_last).train()
    fill = tuple(round(255 * mean) for mean in splits.prepare.mean)
    loader = create_loader(
        Pictures(splits, fill),
        input_size=(3, SIDE, SIDE),
        batch_size=recipe.batch_size,
        is_training=True,
        mean=splits.prepare.mean,
        std=splits.prepare.std,
        num_workers=0,
        device=torch.device("cpu"),
    )
    factor, warmup = rate_factor(recipe, recipe.batch_size), WARMUP_SHARE * recipe.epochs
    optimizer = create_optimizer_v2(
        network, opt="sgd", lr=recipe.lr * factor, weight_decay=recipe.weight_decay, momentum=recipe.momentum
    )
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="poly",
        decay_rate=1.0,  # the power
        num_epochs=recipe.epochs - warmup,
        warmup_epochs=warmup,
        warmup_lr=recipe.warmup_lr * factor,
        warmup_prefix=True,
        min_lr=recipe.min_lr * factor,
        step_on_epochs=False,
        updates_per_epoch=len(loader),
    )
    mixup = Mixup(recipe.mixup, label_smoothing=recipe.label_smoothing, num_classes=CLASSES)
    loss_of, average = SoftTargetCrossEntropy(), average_of(network, recipe.ema_decay)  # timm's, with its warm-up
    step = 0
    for _ in range(round(recipe.epochs)):
        for inputs, targets in loader:
            scheduler.step_update(step)
            inputs, targets = mixup(inputs, targets)
            optimizer.zero_grad()
            loss_of(network(inputs.contiguous(memory_format=torch.channels_last)), targets).backward()
            optimizer.step()
            step += 1
            average.update(network, step=step)
    return average.module


WAYS = {"ours": by_ours, "timm": by_timm}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=20_000, help="trained on")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    path = data_root() / "cifar10" / "cifar10_jpg.parquet"
    workload = Cifar10(ImageSettings(path=str(path), train_examples=options.images))
    splits = workload.load()
    test = splits.load_test()
    recipe = Recipe.model_validate({"name": "airbench", "epochs": options.epochs, **CHANGED})
    accuracies: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(options.seeds):
        for way, trained in WAYS.items():
            began = time.process_time()
            network = trained(network_of(seed), recipe, splits, workload, seed)
            accuracy = 100 * measure(network, metric_of(workload, "accuracy"), test, splits.prepare, device="cpu")
            accuracies[way].append(round(accuracy, 2))
            if not options.json:
                print(f"{way}, seed {seed}: {accuracy:.2f} % ({time.process_time() - began:.0f} CPU s)", flush=True)
    difference = statistics.mean(accuracies["ours"]) - statistics.mean(accuracies["timm"])
    low, high = stats.ttest_ind(accuracies["ours"], accuracies["timm"], equal_var=False).confidence_interval()
    figures = {
        "accuracy_pct": accuracies,
        "mean_and_deviation": {
            way: [round(statistics.mean(each), 2), round(statistics.stdev(each), 2)] for way, each in accuracies.items()
        },
        "difference_points": round(difference, 2),
        "interval_95": [round(float(low), 2), round(float(high), 2)],
        "within_noise": bool(low <= 0 <= high),
    }
    used = {key: value for key, value in vars(options).items() if key != "json"}
    used |= {"recipe": recipe.model_dump(), "threads": torch.get_num_threads()}
    print(json.dumps({**figures, "conditions": conditions(**used)}))


if __name__ == "__main__":
    main()
