"""Pairs of images by equal names: an image and its mask, or an image and what is to be made of it.

Understood are ``images/`` and ``masks/`` (or what the settings call them) in a
folder, or in each of ``train/`` and ``test/`` (or ``val/``) below it. Names are
equal but for their suffixes. Without splits one pair in five, by its name, is a test pair.
"""

import hashlib
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from nas_core.base.errors import DataError
from nas_core.workloads.columns import TEST_NAMES, TRAIN_NAMES, VALIDATION_NAMES
from nas_core.workloads.examples import Examples
from nas_core.workloads.image_to_image import IMAGE_TO_IMAGE, PictureTargets, counted, fractions, psnr
from nas_core.workloads.images.census import Census
from nas_core.workloads.images.decoding import (
    MOST_MASK_VALUE,
    Facts,
    digest_of,
    facts_of,
    mask_of,
    square,
    upright_size,
)
from nas_core.workloads.images.folder import FilesBelow
from nas_core.workloads.images.holding import Holding, Way, hold
from nas_core.workloads.images.items import FileItems, Listing
from nas_core.workloads.images.layouts import (
    TEST_SHARE,
    are_test,
    entries_of,
    folder_times,
    images_below,
    is_folder,
    stamp_of,
)
from nas_core.workloads.images.pixels import EncodedPixels, Pixels
from nas_core.workloads.metrics import Metrics
from nas_core.workloads.segmentation import IGNORED, MOST_CLASSES, SEGMENTATION, MaskTargets
from nas_core.workloads.settings import EncodedSettings
from nas_core.workloads.targets import Targets
from nas_core.workloads.workload import WORKLOADS, Sample

if TYPE_CHECKING:
    import torch

NO_SPLIT = f"no split in folders: one pair in {TEST_SHARE}, by its name, is a test pair"
UNPAIRED = "files without a partner of the same name"
SAID_BY_NAME = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class PairItems(FileItems):
    """Images, each with the file of its map; ``stamps_N2`` are of both files."""

    maps_N: np.ndarray  # paths of the maps, from the root
    are_masks: bool
    named: ClassVar[bool] = False

    def facts(self, index: int) -> Facts:
        """Of the image; ``values`` are of its map: the values of a mask, or the channels of an image.

        Raises:
            ValueError: if the two differ in size.
        """
        image, other = self.content(index), self.root / str(self.maps_N[index])
        facts = facts_of(image)
        if self.are_masks:
            mask = mask_of(other)
            size, values = mask.shape[::-1], " ".join(map(str, np.unique(mask)[: MOST_CLASSES + 2]))
        else:
            size, values = upright_size(other), str(facts_of(other).channels)
        if size != upright_size(image):
            apart = [" x ".join(map(str, each)) for each in (upright_size(image), size)]
            raise ValueError(f"{apart[0]} pixels, and {self.maps_N[index]} {apart[1]}")
        digest = hashlib.sha256(f"{digest_of(image)} {digest_of(other)}".encode()).hexdigest()[:32]
        return replace(facts, digest=digest, values=values)

    def maps(self) -> FileItems:
        """The maps' files, in the same order."""
        return FileItems(root=self.root, names_N=self.maps_N, labels_N=self.labels_N, stamps_N2=self.stamps_N2)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskPixels(EncodedPixels):
    """Class numbers of every pixel, of the side asked for: scaled without mixing; 255 where a pixel does not count."""

    values: tuple[int, ...]  # of the masks, by class number

    @property
    def identity(self) -> str:
        values = hashlib.sha256(str(self.values).encode()).hexdigest()[:12]
        return f"{super().identity}-{values}"

    def batch(self, index: Sequence[int]) -> np.ndarray:
        return np.stack([self._decoded(each) for each in index])[:, None]

    def decoded(self, index: int) -> np.ndarray:
        mask = mask_of(self.items.content(index))
        number_of = np.full(max(int(mask.max()), *self.values) + 1, IGNORED, dtype=np.uint8)
        number_of[list(self.values)] = np.arange(len(self.values))
        from PIL import Image

        fitting = replace(self.fitting, interpolation="nearest", background="white")  # which is 255
        return np.asarray(square(Image.fromarray(number_of[mask]), self.shape[1], fitting))


class OneChannel(Examples):
    """Examples of one channel, without the axis of channels: N H W."""

    def __init__(self, examples: Examples) -> None:
        self.examples, self.shape = examples, (examples.shape[0], *examples.shape[2:])

    def to(self, device: "torch.device | str") -> "OneChannel":
        return OneChannel(self.examples.to(device))

    def part(self, start: int, stop: int) -> "OneChannel":
        return OneChannel(self.examples.part(start, stop))

    def batch(self, index: "torch.Tensor") -> "torch.Tensor":
        return self.examples.batch(index)[:, 0]

    def expect(self, batches: "Sequence[torch.Tensor]") -> None:
        self.examples.expect(batches)


class PairSettings(EncodedSettings):
    """What the folders are called."""

    images: str = Field("images", min_length=1, description="Folder of the images, below each split's.")


class ImagePairs(FilesBelow):
    """Images with a map each. A class says what the maps are."""

    are_masks: ClassVar[bool]
    settings: Any

    @property
    @abstractmethod
    def maps_folder(self) -> str:
        """What the folder of the maps is called."""

    @property
    def sample(self) -> Sample:
        return replace(super().sample, dense=True)

    def state(self) -> Hashable:
        return tuple(
            times for pair in self._folders(self.root()).values() for folder in pair for times in folder_times(folder)
        )

    def listing(self) -> Listing:
        root, ignored = self.root(), Counter[str]()
        found = {split: self._pairs(root, *pair, ignored) for split, pair in self._folders(root).items()}
        if "" in found:
            whole = found[""]
            is_test_N = np.array(are_test(whole.names_N.tolist()), dtype=bool)
            parts, notes = (whole.only(~is_test_N), whole.only(is_test_N)), [NO_SPLIT]
        else:
            parts, notes = (found["train"], found["test"]), self._said_of_splits(root)
        return Listing(targets=self.no_targets(), train=parts[0], test=parts[1], ignored=ignored, notes=notes)

    @property
    def holding(self) -> Holding:
        return replace(super().holding, streams=2)

    def no_targets(self) -> Targets:
        """What the targets are before the maps are looked at."""
        return PictureTargets(names=())

    @property
    def layout(self) -> str:
        return f"a folder with {self.settings.images}/ and {self.maps_folder}/, or train/ and test/ with both"

    def _folders(self, root: Path) -> dict[str, tuple[Path, Path]]:
        """Folders of images and of maps, of each split; of all under "" where there are no splits."""
        names = self.settings.images, self.maps_folder
        splits = {"train": _first(root, TRAIN_NAMES), "test": _first(root, (*TEST_NAMES, *VALIDATION_NAMES))}
        folders = {split: folder for split, folder in splits.items() if folder} or {"": root}
        if len(folders) == 1 and "" not in folders:
            raise DataError("data.path", f"{next(iter(folders))}/ alone in {root}", "train/ and test/, or neither")
        for folder in folders.values():
            for name in names:
                if not os.path.isdir(folder / name):
                    raise DataError("data.path", f"no {name}/ in {folder}", f"{names[0]}/ and {names[1]}/")
        return {split: (folder / names[0], folder / names[1]) for split, folder in folders.items()}

    def _said_of_splits(self, root: Path) -> list[str]:
        test, validation = _first(root, TEST_NAMES), _first(root, VALIDATION_NAMES)
        if validation is None:
            return []
        if test is None:
            return [f"{validation.name}/ serves as the test split"]
        return [f"{validation.name}/ is not used: validation pairs are drawn from the training pairs"]

    def _pairs(self, root: Path, images: Path, maps: Path, ignored: Counter[str]) -> PairItems:
        one, other = _files(images, ignored), _files(maps, ignored)
        alone = [str((one | other)[stem].relative_to(root)) for stem in sorted(one.keys() ^ other.keys())]
        if alone and self.settings.on_error == "stop":
            more = f" and {len(alone) - SAID_BY_NAME} more" if len(alone) > SAID_BY_NAME else ""
            what = UNPAIRED if len(alone) > 1 else UNPAIRED.replace("files", "file", 1)
            found = f"{len(alone):,} {what}: {', '.join(alone[:SAID_BY_NAME])}{more}"
            advice = "Mend them, or set data.on_error: skip to leave them out."
            raise DataError(self.place, found, f"a file in {maps.name}/ for each in {images.name}/", advice)
        if alone:
            ignored[UNPAIRED] += len(alone)
        stems = sorted(one.keys() & other.keys())
        if not stems:
            raise DataError(self.place, f"no pair in {images.name}/ and {maps.name}/", "files of equal names in both")
        return PairItems(
            root=root,
            names_N=np.array([str(one[stem].relative_to(root)) for stem in stems], dtype=object),
            maps_N=np.array([str(other[stem].relative_to(root)) for stem in stems], dtype=object),
            labels_N=np.zeros(len(stems), dtype=np.int64),
            stamps_N2=np.array([_stamp(one[stem], other[stem], self.are_masks) for stem in stems]).reshape(-1, 2),
            are_masks=self.are_masks,
        )

    def _targets(self, pixels: Pixels, way: Way) -> "torch.Tensor | Examples":
        """The maps of the images, held as these are."""
        assert isinstance(pixels, EncodedPixels)
        assert isinstance(pixels.items, PairItems)
        return hold(self.map_pixels(pixels, pixels.items.maps()), self.holding, way)

    def _map_bytes(self, shape: tuple[int, int, int]) -> int:
        return self._map_channels * shape[1] * shape[2]

    @property
    @abstractmethod
    def _map_channels(self) -> int:
        """Bytes of a map's pixel."""

    @abstractmethod
    def map_pixels(self, images: EncodedPixels, items: FileItems) -> EncodedPixels:
        """The maps as pixels of the images' side."""

    def augment_both(
        self, inputs: "torch.Tensor", targets: "torch.Tensor", kind: str, generator: "torch.Generator"
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """Image and map changed alike; what comes in at borders, or is blanked, does not count."""
        from nas_core.workloads.images.augmentation import augmented

        state = generator.get_state()
        images = augmented(inputs, kind, generator)
        generator.set_state(state)
        maps = augmented(self.targets.as_maps(targets), kind, generator, nearest=self.are_masks)
        return images, self.targets.of_maps(maps)


@WORKLOADS.add
class Segmentation(ImagePairs):
    """Images and masks of equal names: a class for every pixel, told by the masks' values."""

    name = "segmentation"
    are_masks = True
    metrics: ClassVar[Metrics] = SEGMENTATION

    class Settings(PairSettings):
        masks: str = Field("masks", min_length=1, description="Folder of the masks, below each split's.")
        classes: dict[Annotated[int, Field(ge=0, le=MOST_MASK_VALUE)], str] = Field(
            default_factory=dict,
            description="Names of the masks' values, {0: background, 255: item}; empty: the values that are there.",
        )
        ignore: int | None = Field(
            None, ge=0, le=MOST_MASK_VALUE, description="Value of pixels that do not count; empty: all do."
        )

    @property
    def maps_folder(self) -> str:
        return str(self.settings.masks)

    def understood(self, listing: Listing, found: Sequence[Census]) -> Listing:
        """With the classes that the masks' values are; raises DataError for a value that is none."""
        settings = self.settings
        by_split = [_values(each) for each in found]
        known = set(settings.classes) or set(by_split[0])
        known.discard(settings.ignore)
        if len(known) > MOST_CLASSES:
            advice = "Masks are files without loss (PNG), one value per class."
            raise DataError(self.place, f"{len(known)} mask values or more", f"{MOST_CLASSES} classes at most", advice)
        for items, values, each in zip((listing.train, listing.test), by_split, found, strict=True):
            for value in sorted(set(values) - known - {settings.ignore}):
                where = [name for name, facts in zip(items.names_N, each.facts, strict=True) if _has(facts, value)]
                more = f" and {len(where) - 1:,} more" if len(where) > 1 else ""
                expected = f"one of: {', '.join(map(str, sorted(known)[:20]))}"
                advice = "Name it in data.classes, or in data.ignore."
                raise DataError(self.place, f"the mask value {value} of {where[0]}{more}", expected, advice)
        values_K = tuple(sorted(known))
        names = tuple(settings.classes.get(value, str(value)) for value in values_K)
        return replace(listing, targets=MaskTargets(names=names, values=values_K))

    def _targets(self, pixels: Pixels, way: Way) -> "torch.Tensor | Examples":
        maps = super()._targets(pixels, way)
        return OneChannel(maps) if isinstance(maps, Examples) else maps[:, 0]

    @property
    def _map_channels(self) -> int:
        return 1

    def map_pixels(self, images: EncodedPixels, items: FileItems) -> EncodedPixels:
        assert isinstance(self.targets, MaskTargets)
        return MaskPixels(
            labels_N=items.labels_N,
            shape=(1, *images.shape[1:]),
            items=items,
            channels=1,
            fitting=images.fitting,
            place=images.place,
            values=self.targets.values,
        )


@WORKLOADS.add
class ImageToImage(ImagePairs):
    """Images and images of equal names: what is to be made of each, such as one without noise."""

    name = "image-to-image"
    are_masks = False
    metrics: ClassVar[Metrics] = IMAGE_TO_IMAGE

    class Settings(PairSettings):
        wanted: str = Field("targets", min_length=1, description="Folder of the images to be made, below each split's.")

    @property
    def maps_folder(self) -> str:
        return str(self.settings.wanted)

    def understood(self, listing: Listing, found: Sequence[Census]) -> Listing:
        channels = sorted({value for each in found for value in _values(each)})
        if not set(channels) <= {1, 3} and len(channels) > 1:
            raise DataError(self.place, f"targets of {channels} channels", "one number of channels, or gray and colour")
        number = max(channels, default=1)
        names = {1: ("gray",), 3: ("red", "green", "blue")}.get(number, tuple(map(str, range(number))))
        return replace(listing, targets=PictureTargets(names=names))

    @property
    def _map_channels(self) -> int:
        return len(self.targets.names)

    def untouched(self, inputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor | None":
        return counted(fractions(inputs), targets) if inputs.shape == targets.shape else None

    def shown(
        self, inputs: "torch.Tensor", outputs: "torch.Tensor", targets: "torch.Tensor"
    ) -> Sequence[Mapping[str, Any]]:
        """With how near the image itself is, which is what doing nothing would give."""
        shown = super().shown(inputs, outputs, targets)
        if inputs.shape != targets.shape:
            return shown
        both = zip(shown, fractions(inputs), targets, strict=True)
        return [
            {**each, "words": f"{each['words']}\nthe input itself {psnr(counted(image[None], target[None])):.1f} dB"}
            for each, image, target in both
        ]

    def map_pixels(self, images: EncodedPixels, items: FileItems) -> EncodedPixels:
        number = len(self.targets.names)
        shape = (number, *images.shape[1:])
        return replace(images, labels_N=items.labels_N, shape=shape, items=items, channels=number)


def _first(root: Path, names: Sequence[str]) -> Path | None:
    """The folder below ``root`` that has the first of these names, in letters of either case."""
    below = {entry.name.lower(): Path(entry.path) for entry in entries_of(root) if is_folder(entry)}
    return next((below[name] for name in names if name in below), None)


def _files(folder: Path, ignored: Counter[str]) -> dict[str, Path]:
    """The images below a folder by their names without suffix, from there."""
    found: dict[str, Path] = {}
    for path in sorted(Path(entry.path) for entry in images_below(folder, ignored)):
        stem = str(path.relative_to(folder).with_suffix(""))
        if stem in found:
            raise DataError(str(folder), f"{found[stem].name} and {path.name}", "one file of a name")
        found[stem] = path
    return found


def _stamp(image: Path, other: Path, are_masks: bool) -> tuple[int, int]:
    """Two numbers that change with either file."""
    known = [(str(path), *stamp_of(path)) for path in (image, other)]
    digest = hashlib.sha256(f"{known} {are_masks}".encode()).digest()
    return int.from_bytes(digest[:7], "big"), int.from_bytes(digest[7:14], "big")


def _values(census: Census) -> list[int]:
    return sorted({int(value) for facts in census.facts if facts is not None for value in facts.values.split()})


def _has(facts: Facts | None, value: int) -> bool:
    return facts is not None and str(value) in facts.values.split()
