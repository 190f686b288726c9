"""Recipes by name: values that somebody published, with their source. Fields given beside the name win.

Rates hold for the batch size published (``lr_batch_size``) and are scaled to the one used. What a source
has and this loop has not is said; what belongs to a network (its resolution, its layer scale) is no recipe's.

RandAugment is timm's, as the sources name it, after crop and flip; where it turns, shears or moves, pixels are mixed
bilinearly, in most sources bicubically, as are crops. Where there is a policy, timm leaves out the colour jitter,
whatever its command line says. Rates for other batch sizes are scaled as timm's train.py does it, whatever the source
says of it.
"""

from collections.abc import Callable
from typing import Any

Values = dict[str, Any]
RECIPES: dict[str, Callable[[], Values]] = {}


def named(name: str) -> Callable[[Callable[[], Values]], Callable[[], Values]]:
    """File the function's values under a name; its docstring says where they are from."""

    def file(function: Callable[[], Values]) -> Callable[[], Values]:
        assert name not in RECIPES, name
        RECIPES[name] = function
        return function

    return file


@named("rsb-a2")
def rsb_a2() -> Values:
    """ResNet strikes back, procedure A2: 300 epochs (Wightman, Touvron, Jégou 2021, arXiv 2110.00476, table 2).

    As MMPretrain's ``resnet50_8xb256-rsb-a2-300e_in1k`` has it. Threshold of the targets and first rate as in the
    hyperparameters published with timm.
    """
    return {**rsb_a3(), "epochs": 300, "lr": 5e-3, "policy": "rand-m7-mstd0.5-inc1", "repeats": 3, "drop_path": 0.05}


@named("rsb-a3")
def rsb_a3() -> Values:
    """ResNet strikes back, procedure A3: 100 epochs (Wightman, Touvron, Jégou 2021, arXiv 2110.00476, table 2).

    Trained at 160 and tested at 224 pixels there; here at the network's resolution. Otherwise as ``rsb-a2``.
    """
    return {
        "epochs": 100,
        "batch_size": 2048,
        "lr": 8e-3,
        "lr_batch_size": 2048,
        "optimizer": "lamb",
        "weight_decay": 0.02,
        "schedule": "cosine",
        "warmup": "5 epochs",
        "warmup_lr": 1e-4,
        "min_lr": 1e-6,
        "loss": "bce",
        "target_threshold": 0.2,
        "augment": "resized-crop-flip",
        "policy": "rand-m6-mstd0.5-inc1",
        "mixup": 0.1,
        "cutmix": 1.0,
        "clip_norm": None,
    }


@named("deit")
def deit() -> Values:
    """Data-efficient image transformers (Touvron et al. 2021, arXiv 2012.12877, table 9).

    First and last rate are facebookresearch/deit's. It keeps an average of the weights, too (0.99996), but what it
    evaluates and publishes are the weights themselves.
    """
    return {
        "epochs": 300,
        "batch_size": 1024,
        "lr": 1e-3,
        "lr_batch_size": 1024,
        "optimizer": "adamw",
        "weight_decay": 0.05,
        "schedule": "cosine",
        "warmup": "5 epochs",
        "warmup_lr": 1e-6,
        "min_lr": 1e-5,
        "label_smoothing": 0.1,
        "augment": "resized-crop-flip",
        "policy": "rand-m9-mstd0.5-inc1",
        "mixup": 0.8,
        "cutmix": 1.0,
        "erase": 0.25,
        "repeats": 3,
        "drop_path": 0.1,
        "clip_norm": None,
    }


@named("convnext")
def convnext() -> Values:
    """A ConvNet for the 2020s, ConvNeXt-T on ImageNet-1K (Liu et al. 2022, arXiv 2201.03545, table 5).

    The first and the last rate are facebookresearch/ConvNeXt's. Larger ConvNeXts drop more paths: 0.4 (S), 0.5 (B and
    L).
    """
    return {
        "epochs": 300,
        "batch_size": 4096,
        "lr": 4e-3,
        "lr_batch_size": 4096,
        "optimizer": "adamw",
        "weight_decay": 0.05,
        "schedule": "cosine",
        "warmup": "20 epochs",
        "warmup_lr": 0.0,
        "min_lr": 1e-6,
        "label_smoothing": 0.1,
        "augment": "resized-crop-flip",
        "policy": "rand-m9-mstd0.5-inc1",
        "mixup": 0.8,
        "cutmix": 1.0,
        "erase": 0.25,
        "drop_path": 0.1,
        "ema_decay": 0.9999,
        "clip_norm": None,
    }


@named("mobilenetv3")
def mobilenetv3() -> Values:
    """MobileNetV3-Large of timm, 75.8 % on ImageNet (timm's documentation, "Training scripts").

    RMSProp as TensorFlow has it, steps of 2.4 epochs. What the command does not say is train.py's of then (warm-up,
    smoothing). Without the noise of the rate.
    """
    return {
        "epochs": 600,
        "batch_size": 1024,
        "lr": 0.064,
        "lr_batch_size": 1024,
        "optimizer": "rmsproptf",
        "eps": 1e-3,
        "weight_decay": 1e-5,
        "schedule": "step",
        "decay_epochs": 2.4,
        "decay_rate": 0.973,
        "warmup": "3 epochs",
        "warmup_lr": 1e-6,
        "label_smoothing": 0.1,
        "augment": "resized-crop-flip",
        "policy": "rand-m9-mstd0.5",
        "erase": 0.2,
        "dropout": 0.2,
        "drop_path": 0.2,
        "ema_decay": 0.9999,
        "clip_norm": None,
    }


@named("airbench")
def airbench() -> Values:
    """94 % on CIFAR-10 in 3.29 seconds (Jordan 2024, arXiv 2404.00498), the repository's airbench94 from plain parts.

    Its rate of 11.5 per 1024 examples and its decay of 0.0153 are of a summed loss, decoupled from momentum and rate:
    as SGD of a mean loss they are 1.5 and 1.33e-3. Crops shift by up to four pixels of zeros, there by two of the
    mirrored image; norms and biases do not decay, there they do. Without what makes its network (whitening, scaled
    biases), flips that alternate, lookahead, and several views of a test image.
    """
    return {
        "epochs": 9.9,
        "batch_size": 1024,
        "lr": 1.5,
        "lr_batch_size": 1024,
        "optimizer": "sgd",
        "momentum": 0.85,
        "weight_decay": 1.33e-3,
        "schedule": "linear",
        "warmup": "23 %",
        "warmup_lr": 0.3,
        "min_lr": 0.105,
        "label_smoothing": 0.2,
        "augment": "crop-flip",
        "clip_norm": None,
    }


@named("resnet-cifar")
def resnet_cifar() -> Values:
    """ResNets of 20 to 56 layers on CIFAR-10 (He et al. 2015, arXiv 1512.03385, section 4.2): 64,000 steps of 128.

    The rate falls along a cosine, there in two steps, at a half and at three quarters of the training; it rises for
    one epoch first, there for ResNet-110 only. Norms and biases do not decay, there they do.
    """
    return {
        "epochs": 164,
        "batch_size": 128,
        "lr": 0.1,
        "lr_batch_size": 128,
        "optimizer": "momentum",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "warmup": "1 epochs",
        "augment": "crop-flip",
        "clip_norm": None,
    }
