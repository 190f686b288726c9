"""What all sets of images share, whatever their targets: splits, tensors, augmentation. torch is loaded in methods."""

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nas_core.base.errors import DataError
from nas_core.workloads.classification import ClassTargets
from nas_core.workloads.images.holding import Holding, Way, hold, normalisation_of
from nas_core.workloads.images.pictures import encoded_picture
from nas_core.workloads.images.pixels import Pixels, StoredPixels
from nas_core.workloads.images.tensors import RawImages
from nas_core.workloads.metrics import Metrics
from nas_core.workloads.normalisation import Normalisation, known_normalisation
from nas_core.workloads.settings import ImageSettings
from nas_core.workloads.targets import Targets
from nas_core.workloads.workload import Footprint, Splits, Workload

if TYPE_CHECKING:
    import torch

    from nas_core.workloads.examples import Examples
    from nas_core.workloads.workload import Pair

log = logging.getLogger(__name__)

Split = Literal["train", "test"]
HELD = frozenset({"hold", "cache_gb", "loaders"})  # settings of how images are held, which change none of them


class ImageWorkload(Workload):
    """Images with targets of any kind. A set's class says where they are and how they are read."""

    Settings = ImageSettings
    version = 2
    places = frozenset({"path", "download", *HELD})
    in_fractions = True
    settings: ImageSettings

    # what a set says of itself

    @property
    @abstractmethod
    def targets(self) -> Targets:
        """What the images' targets are."""

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
        return self.targets.metrics

    @property
    def refused(self) -> Mapping[str, str]:
        return self.targets.refused

    @property
    def gives_logits(self) -> bool:
        return self.targets.are_logits

    @property
    def output_scale(self) -> Normalisation:
        return self.targets.scale

    def check(self, train_examples: int | None = None) -> None:
        self.check_files()
        self.settings.check_sizes(self.num_images(), train_examples)

    def num_examples(self) -> tuple[int, int]:
        return self.settings.num_examples(self.num_images())

    def load(self, shape: tuple[int, ...] | None = None) -> Splits:
        """Square images as uint8 N C H W with their targets; normalised by the training images' statistics.

        They are held as ``data.hold`` says, by their size where it says nothing.
        """
        wanted = _square(shape or self.sample.shape)
        self.check()
        pixels = self.pixels("train", wanted)
        way = self.holding.chosen(self._nbytes(wanted))
        log.info("%s: %s", self.name, self.held(wanted))
        self.settings.check_sizes(len(pixels))
        start, stop = self.settings.validation_examples, len(pixels)
        if self.settings.train_examples is not None:
            stop = start + self.settings.train_examples
        return self._splits(pixels.only(self.settings.order(len(pixels))), wanted, way, start, stop)

    def few(self, count: int, shape: tuple[int, ...] | None = None) -> Splits:
        """As ``load``, of each split the first ``count`` images at most, in memory; the others are not decoded."""
        wanted = _square(shape or self.sample.shape)
        pixels, start = self.pixels("train", wanted), self.settings.validation_examples
        order, stop = self.settings.order(len(pixels)), start + min(count, self.num_examples()[0])
        chosen = np.concatenate([order[: min(count, start)], order[start:stop]])
        return self._splits(pixels.only(chosen), wanted, "memory", min(count, start), len(chosen))

    def _splits(self, pixels: Pixels, wanted: tuple[int, int, int], way: Way, start: int, stop: int) -> Splits:
        """Of images in order: those before ``start`` are validated on, those from there to ``stop`` trained on."""
        images, targets = hold(pixels, self.holding, way), self._targets(pixels, way)
        train_images = images[start:stop]
        return Splits(
            train=(train_images, targets[start:stop]),
            validation=(images[:start], targets[:start]),
            prepare=self._preparation(wanted[0])
            or normalisation_of(train_images, lambda: pixels.only(np.arange(start, stop)).identity),
            output_names=self.targets.names,
            load_test=lambda: self._test(wanted, way),
        )

    def _preparation(self, channels: int) -> Normalisation | None:
        """The scale that the settings name; None for the training images' own."""
        if self.settings.normalise == "data":
            return None
        return known_normalisation(self.settings.normalise, channels)

    @property
    def identity(self) -> dict[str, Any]:
        known = super().identity
        if self.settings.normalise == "data":  # as it always was: ids stay what they were
            known["settings"].pop("normalise")
        return known

    def _test(self, shape: tuple[int, int, int], way: Way) -> "Pair":
        pixels = self.pixels("test", shape)
        return hold(pixels, self.holding, way), self._targets(pixels, way)

    def _targets(self, pixels: Pixels, way: Way) -> "torch.Tensor | Examples":
        import torch

        return torch.from_numpy(pixels.labels_N.astype(self.targets.dtype))

    def pixels(self, split: Split, shape: tuple[int, int, int]) -> Pixels:
        """The images of a split, of C H W."""
        raw = self.read(split, shape[1])
        return StoredPixels(raw=raw, labels_N=raw.labels_N, shape=shape)

    @property
    def holding(self) -> Holding:
        settings = self.settings
        return Holding(way=settings.hold, cache_bytes=int(settings.cache_gb * 1e9), loaders=settings.loaders)

    def held(self, shape: tuple[int, ...] | None = None) -> str:
        """How images of this shape are held, and how large they are all together, in words."""
        return self.holding.said(self._nbytes(_square(shape or self.sample.shape)))

    def footprint(self, shape: tuple[int, ...] | None = None) -> Footprint:
        wanted = _square(shape or self.sample.shape)
        nbytes = self._nbytes(wanted)
        match self.holding.chosen(nbytes):
            case "memory":
                return Footprint(own_bytes=nbytes)
            case "map":
                return Footprint(shared_bytes=nbytes, disk_bytes=nbytes, is_read_by="node")
            case _:
                return Footprint(is_read_by="use")

    def _nbytes(self, shape: tuple[int, int, int]) -> int:
        """Bytes of both splits, decoded, with what is a map of each image."""
        return (self.num_images() + self.num_test_images()) * (math.prod(shape) + self._map_bytes(shape))

    def _map_bytes(self, shape: tuple[int, int, int]) -> int:
        """Bytes of what is held of an image's target beside it."""
        return 0

    def num_test_images(self) -> int:
        """Images in the test split, as far as is known without reading them."""
        return 0

    def loss(self, outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0) -> "torch.Tensor":
        return self.targets.loss(outputs, targets, label_smoothing)

    def counted(self, targets: "torch.Tensor") -> "torch.Tensor | None":
        return self.targets.counted(targets)

    def reduced(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        return self.targets.reduced(outputs, targets)

    def augment(self, inputs: "torch.Tensor", kind: str, generator: "torch.Generator") -> "torch.Tensor":
        from nas_core.workloads.images.augmentation import augmented

        return augmented(inputs, kind, generator)

    def augment_stored(
        self, inputs: "torch.Tensor", policy: str, magnitude: int, mean: Sequence[float] = ()
    ) -> "torch.Tensor":
        from nas_core.workloads.images.policies import operated

        return operated(inputs, policy, magnitude, mean)

    def agreement(self, outputs: "torch.Tensor", taught: "torch.Tensor", temperature: float) -> "torch.Tensor":
        return self.targets.agreement(outputs, taught, temperature)

    def details(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> dict[str, Any]:
        return self.targets.details(outputs, targets)

    def shown(
        self, inputs: "torch.Tensor", outputs: "torch.Tensor", targets: "torch.Tensor"
    ) -> Sequence[Mapping[str, Any]]:
        """Each image with what it is and what it was taken for; none of classes, whose table says more."""
        said = [self.targets.shown(*each) for each in zip(outputs, targets, strict=True)]
        return [
            {**each, "pictures": [("input", encoded_picture(image.cpu().numpy())), *each.get("pictures", ())]}
            for image, each in zip(inputs, said, strict=True)
            if each
        ]

    def describe(self) -> Sequence[tuple[str, str]]:
        channels, height, width = self.sample.shape
        colours = {1: "gray", 3: "colour"}.get(channels, f"{channels} channels,")
        return [
            ("images", f"{colours} {height} x {width}, {self.targets.called}"),
            ("training split", f"{self.num_images():,} images"),
        ]


def _square(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels and the two sides, which are equal."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise DataError("input of the network", " x ".join(map(str, shape)), "channels x side x side, as images have")
    return shape[0], shape[1], shape[2]


class ImageClassification(ImageWorkload):
    """Images of one class each."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The classes, by number."""

    @property
    def targets(self) -> ClassTargets:
        return ClassTargets(names=self.class_names)
