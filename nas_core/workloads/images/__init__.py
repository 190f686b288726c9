"""Images for scoring and training: `load_data`, and what can be said of a set without loading it.

Scoring sees the training split only, divided into train and validation; the
test split is read when somebody calls ``ImageData.test``. torch is imported
where images are loaded, not here.
"""

import numpy as np

from nas_core.base.errors import DataError
from nas_core.training.settings import FullTrainingConfig
from nas_core.workloads.images import cifar10, digits, fashion_mnist, folder  # noqa: F401  (they register themselves)
from nas_core.workloads.images.sources import SOURCES
from nas_core.workloads.images.tensors import ImageData, Normalisation, normalisation_of, resized, to_tensors
from nas_core.workloads.settings import DataConfig

__all__ = ["ImageData", "Normalisation", "check_data", "data_shape", "load_data", "resized"]


def data_shape(config: DataConfig) -> tuple[int, int, int]:
    """Channels, side in pixels and number of classes of the set's images as they are.

    Raises:
        DataError: for an image folder that is not there; the other sets need no files for this.
    """
    return SOURCES[config.name].shape(config)


def check_data(config: DataConfig, train: FullTrainingConfig | None = None) -> None:
    """Raises DataError if files are missing or the splits asked for, here or by a full training, exceed the set."""
    source = SOURCES[config.name]
    source.check(config)
    num_images = source.num_train(config)
    _check_sizes(config, num_images)
    if train is not None:
        wanted = config.model_copy(update={"train_examples": train.train_examples})
        _check_sizes(wanted, num_images, "train.train_examples")


def _check_sizes(config: DataConfig, num_images: int, field: str = "data.train_examples") -> None:
    left = num_images - config.validation_examples
    if left < 1:
        raise DataError(
            "data.validation_examples", config.validation_examples, f"fewer than the {num_images} training images"
        )
    if config.train_examples is not None and config.train_examples > left:
        expected = f"at most {left}, what validation leaves of {num_images}"
        raise DataError(field, config.train_examples, expected)


def load_data(config: DataConfig, resolution: int, in_channels: int | None = None) -> ImageData:
    """The set with square images of side ``resolution`` and ``in_channels`` channels (None: its own).

    The validation images depend on ``split_seed`` and their number alone, so
    trainings on more or fewer images are validated on the same ones.

    Raises:
        DataError: if files are missing or broken, or hold too few images.
    """
    source = SOURCES[config.name]
    check_data(config)
    channels = in_channels or source.shape(config)[0]
    raw = source.read(config, "train", resolution)
    _check_sizes(config, len(raw.labels_N))
    validation, train = _split(config, len(raw.labels_N))
    images, labels = to_tensors(raw, resolution, channels)
    train_images = images[train]
    return ImageData(
        train_images=train_images,
        train_labels=labels[train],
        validation_images=images[validation],
        validation_labels=labels[validation],
        normalisation=normalisation_of(train_images),
        num_classes=source.shape(config)[2],
        in_channels=channels,
        class_names=source.class_names(config),
        load_test=lambda: to_tensors(source.read(config, "test", resolution), resolution, channels),
    )


def _split(config: DataConfig, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the validation and of the training images."""
    order = np.random.default_rng(config.split_seed).permutation(num_images)
    held_out, rest = np.split(order, [config.validation_examples])
    return held_out, rest[: config.train_examples]
