"""What all sets of images with one class each share: splits, tensors, loss, metrics. torch is imported in methods."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from nas_core.base.errors import DataError
from nas_core.workloads.classification import CLASSIFICATION, classification_loss, confusion
from nas_core.workloads.images.tensors import RawImages, to_tensors
from nas_core.workloads.metrics import Metrics
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.settings import ImageSettings
from nas_core.workloads.workload import Splits, Workload

if TYPE_CHECKING:
    import torch

Split = Literal["train", "test"]
MOST_CONFUSED = 1000  # classes of which every pair is counted


class ImageClassification(Workload):
    """Images of one class each. A set's class says where they are and how they are read."""

    Settings = ImageSettings
    places = frozenset({"path", "download"})
    settings: ImageSettings

    # what a set says of itself

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The classes, by number."""

    @abstractmethod
    def num_images(self) -> int:
        """Images in the training split."""

    @abstractmethod
    def read(self, split: Split, resolution: int) -> RawImages:
        """One split; ``resolution`` only matters to sets whose images differ in size."""

    def check_files(self) -> None:
        """Raises DataError, with the way to get them, if files are missing; cheap."""

    # what follows

    @property
    def metrics(self) -> Metrics:
        return CLASSIFICATION

    def check(self, train_examples: int | None = None) -> None:
        self.check_files()
        self.settings.check_sizes(self.num_images(), train_examples)

    def num_examples(self) -> tuple[int, int]:
        return self.settings.num_examples(self.num_images())

    def load(self, shape: tuple[int, ...] | None = None) -> Splits:
        """Square images as uint8 N C H W with int64 labels; normalised by the training images' statistics."""
        channels, resolution = _square(shape or self.sample.shape)
        self.check()
        raw = self.read("train", resolution)
        self.settings.check_sizes(len(raw.labels_N))
        train, validation = self.settings.divided(len(raw.labels_N))
        images, labels = to_tensors(raw, resolution, channels)
        train_images = images[train]
        return Splits(
            train=(train_images, labels[train]),
            validation=(images[validation], labels[validation]),
            prepare=Normalisation.of(train_images),
            output_names=self.class_names,
            load_test=lambda: to_tensors(self.read("test", resolution), resolution, channels),
        )

    def loss(self, outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0) -> "torch.Tensor":
        return classification_loss(outputs, targets, label_smoothing)

    def augment(self, inputs: "torch.Tensor", kind: str, generator: "torch.Generator") -> "torch.Tensor":
        from nas_core.workloads.images.augmentation import augmented

        return augmented(inputs, kind, generator)

    def augment_stored(self, inputs: "torch.Tensor", policy: str, magnitude: int) -> "torch.Tensor":
        from nas_core.workloads.images.policies import operated

        return operated(inputs, policy, magnitude)

    def details(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> dict[str, Any]:
        return {"confusion": confusion(outputs, targets)} if outputs.shape[1] <= MOST_CONFUSED else {}

    def describe(self) -> Sequence[tuple[str, str]]:
        channels, height, width = self.sample.shape
        colours = {1: "gray", 3: "colour"}.get(channels, f"{channels} channels,")
        return [
            ("images", f"{colours} {height} x {width}, {len(self.class_names)} classes"),
            ("training split", f"{self.num_images():,} images"),
        ]


def _square(shape: tuple[int, ...]) -> tuple[int, int]:
    """Channels and side."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise DataError("input of the network", " x ".join(map(str, shape)), "channels x side x side, as images have")
    return shape[0], shape[1]
