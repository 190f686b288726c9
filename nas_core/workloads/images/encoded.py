"""Base of sets whose images are encoded and of any size: files in folders, rows of a table, what a reader gives.

What such a set holds is decided over the whole set, once each of its images
was read.
"""

import hashlib
import logging
import os
import statistics
from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from nas_core.base.errors import DataError
from nas_core.workloads.classification import CLASSIFICATION, ClassTargets
from nas_core.workloads.images.census import Census, census
from nas_core.workloads.images.decoding import Fitting
from nas_core.workloads.images.image_classification import HELD, ImageWorkload, Split
from nas_core.workloads.images.items import Items, Listing
from nas_core.workloads.images.pixels import EncodedPixels, Pixels
from nas_core.workloads.images.tensors import RawImages
from nas_core.workloads.metrics import Metrics
from nas_core.workloads.settings import EncodedSettings
from nas_core.workloads.targets import Targets, check_filled, from_to
from nas_core.workloads.workload import Sample

log = logging.getLogger(__name__)

LARGEST_DEFAULT_SIDE = 224
SAID_BY_NAME = 5
ONE_OF = {
    "links to a folder above them": "link to a folder above it",
    "folders beside": "folder beside",
    "files or folders": "file or folder",
    "other members": "other member",
    "images": "image",
    "files": "file",
}
HELD_CONTENTS = 8  # sets that a process remembers


@dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
    """What a set holds: the images that can be read by split and class, what they are, and what is left out.

    ``broken`` says by name what is wrong with images that cannot be read,
    ``ignored`` counts what is no image by what it is, ``notes`` are sentences
    on how the set was understood. Sides are in pixels. ``content_id`` is of the
    images that can be read: their splits, their names below the set's place,
    their bytes, and their targets where the names do not tell them.
    """

    targets: Targets
    train: Items
    test: Items
    channels: int
    middle_side: int  # of the training images' shorter sides
    shortest_side: int
    longest_side: int
    num_gray: int
    num_transparent: int
    broken: Mapping[str, str]
    ignored: Mapping[str, int]
    notes: Sequence[str]
    content_id: str

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.targets.names

    @property
    def num_images(self) -> int:
        return len(self.train) + len(self.test)

    def left_out(self) -> list[str]:
        """Sentences on what of the set is not used, the broken images first; none where all of it is."""
        found = []
        if self.broken:
            names = _named(list(self.broken))
            found.append(
                f"{len(self.broken):,} of {self.num_images + len(self.broken):,} images cannot be read: {names}"
            )
        return found + [f"{count:,} {what if count > 1 else _one(what)}" for what, count in self.ignored.items()]

    def rows(self) -> list[tuple[str, str]]:
        """(what, value) for the report and a dry run."""
        said = [self.targets.described(items.labels_N) for items in (self.train, self.test)]
        counts = [
            f"{len(items):,} images{', ' * bool(words)}{words}"
            for items, words in zip((self.train, self.test), said, strict=True)
        ]
        rows = [("training split", counts[0]), ("test split", counts[1])]
        rows.append(("as stored", f"sides of {from_to([self.shortest_side, self.longest_side])} pixels"))
        if self.channels == 3 and self.num_gray:
            rows.append(("gray images, shown in colour", f"{self.num_gray:,}"))
        if self.num_transparent:
            rows.append(("transparent images", f"{self.num_transparent:,}"))
        if out := self.left_out():
            rows.append(("left out", "; ".join(out)))
        if self.notes:
            rows.append(("splits", "; ".join(self.notes)))
        return rows


class EncodedImages(ImageWorkload):
    """A set of encoded images. Its class says where they are."""

    Settings = EncodedSettings
    places = frozenset({"path", "download", "on_error", *HELD})  # the same images are the same data wherever they lie
    settings: EncodedSettings
    _held: ClassVar[dict[Hashable, Contents]] = {}

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the set lies, as messages name it."""

    @abstractmethod
    def listing(self) -> Listing:
        """The images by split and class, not yet read.

        Raises:
            DataError: if the set is not there or is not understood.
        """

    @abstractmethod
    def state(self) -> Hashable:
        """What changes when images come or go; cheap.

        Raises:
            DataError: if the set is not there.
        """

    def contents(self) -> Contents:
        """What the set holds; each image is read once for it, and the answer kept.

        Raises:
            DataError: if the set is not there or not understood, or naming the
                images that cannot be read, unless they are to be skipped.
        """
        key = self._key
        if key not in self._held:
            while len(self._held) >= HELD_CONTENTS:
                del self._held[next(iter(self._held))]
            self._held[key] = self._counted()
        return self._held[key]

    @property
    def _key(self) -> Hashable:
        return type(self), self.settings.model_dump_json(), self.state()

    def _counted(self) -> Contents:
        listing = self.listing()
        found = census(self.place, (listing.train, listing.test))
        broken = _broken(listing, found)
        if broken and self.settings.on_error == "stop":
            raise _unreadable(self.place, broken, sum(len(each.facts) for each in found))
        counts = {split: int(each.is_sound.sum()) for split, each in zip(("train", "test"), found, strict=True)}
        check_filled(counts, self.place, "image that can be read")
        contents = _contents(self.understood(listing, found), found, broken, self.place)
        for sentence in (*contents.left_out(), *contents.notes):
            log.info("%s: %s", self.place, sentence)
        return contents

    def understood(self, listing: Listing, found: Sequence[Census]) -> Listing:
        """The listing, once each image was read: of some sets only that tells what the targets are."""
        return listing

    # what a set of images says of itself

    @property
    def identity(self) -> dict[str, Any]:
        """What the images are, not where."""
        return {**super().identity, "content": self.contents().content_id}

    def fingerprint(self) -> str:
        self._held.pop(self._key, None)  # an image that is overwritten changes no folder
        return self.contents().content_id

    @property
    def sample(self) -> Sample:
        """Channels that all images can be shown with; the side that is set, else the middle of their shorter sides."""
        contents = self.contents()
        side = self.settings.side or min(contents.middle_side, LARGEST_DEFAULT_SIDE)
        return Sample(shape=(contents.channels, side, side), num_outputs=len(contents.targets.names))

    @cached_property
    def targets(self) -> Targets:
        """What they were when first asked for: every batch's loss asks, and a look at folders takes milliseconds."""
        return self.contents().targets

    @property
    def metrics(self) -> Metrics:
        """Of classes, without a look at the images: a report is written where they are gone."""
        return CLASSIFICATION

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, by number; none where targets are no classes."""
        return self.targets.names if isinstance(self.targets, ClassTargets) else ()

    def num_images(self) -> int:
        return len(self.contents().train)

    def check_files(self) -> None:
        self.contents()

    def describe(self) -> Sequence[tuple[str, str]]:
        images, *_ = super().describe()
        settings = self.settings
        fitted = (
            f"{settings.fit}, {settings.interpolation}, crop percentage {settings.crop_pct:g}, on {settings.background}"
        )
        return [images, *self.contents().rows(), ("made square by", fitted)]

    def notes(self) -> Sequence[str]:
        contents = self.contents()
        out = contents.left_out()
        sentences = [f"left out: {'; '.join(out)}"] if out else []
        return [f"{self.place}: {sentence}" for sentence in (*sentences, *contents.notes)]

    @property
    def fitting(self) -> Fitting:
        settings = self.settings
        return Fitting(
            fit=settings.fit,
            interpolation=settings.interpolation,
            crop_pct=settings.crop_pct,
            background=settings.background,
        )

    def pixels(self, split: Split, shape: tuple[int, int, int]) -> Pixels:
        contents = self.contents()
        items = contents.train if split == "train" else contents.test
        return EncodedPixels(
            labels_N=items.labels_N,
            shape=shape,
            items=items,
            channels=contents.channels,
            fitting=self.fitting,
            place=self.place,
        )

    def read(self, split: Split, resolution: int) -> RawImages:
        """All images of a split at once."""
        pixels = self.pixels(split, (self.contents().channels, resolution, resolution))
        images = pixels.batch(range(len(pixels)))
        return RawImages(images_NHWC=images.transpose(0, 2, 3, 1), labels_N=pixels.labels_N)

    def num_test_images(self) -> int:
        return len(self.contents().test)


def _broken(listing: Listing, found: Sequence[Census]) -> dict[str, str]:
    return {
        _shown(items.names_N[index]): error
        for items, each in zip((listing.train, listing.test), found, strict=True)
        for index, error in sorted(each.errors.items())
    }


def _unreadable(place: str, broken: Mapping[str, str], num_images: int) -> DataError:
    name, error = next(iter(broken.items()))
    others = list(broken)[1:]
    found = f"{len(broken):,} of {num_images:,} images that cannot be read: {name} ({error})"
    found += f", {_named(others)}" if others else ""
    return DataError(
        place, found, "images that Pillow reads", "Mend them, or set data.on_error: skip to leave them out."
    )


def _contents(listing: Listing, found: Sequence[Census], broken: Mapping[str, str], place: str) -> Contents:
    train, test = (
        items.only(each.is_sound) if each.errors else items
        for items, each in zip((listing.train, listing.test), found, strict=True)
    )
    listing.targets.check({"train": train.labels_N, "test": test.labels_N}, place, "image")
    facts = [each for part in found for each in part.facts if each is not None]
    sides = [each.shorter for each in found[0].facts if each is not None]
    return Contents(
        targets=listing.targets,
        train=train,
        test=test,
        channels=_channels(listing, found, place),
        middle_side=statistics.median_low(sides),
        shortest_side=min(each.shorter for each in facts),
        longest_side=max(each.longer for each in facts),
        num_gray=sum(each.channels == 1 for each in facts),
        num_transparent=sum(each.transparent for each in facts),
        broken=broken,
        ignored=listing.ignored,
        notes=listing.notes,
        content_id=_content_id(listing, found),
    )


def _content_id(listing: Listing, found: Sequence[Census]) -> str:
    """Hash of split, name, bytes and target of every image that can be read, in order."""
    digest = hashlib.sha256()
    for split, items, each in zip(("train", "test"), (listing.train, listing.test), found, strict=True):
        targets = () if items.named else [np.asarray(label).tobytes() for label in items.labels_N]
        for index, (name, facts) in enumerate(zip(items.names_N, each.facts, strict=True)):
            if facts is not None:
                parts = [split.encode(), os.fsencode(str(name)), facts.digest.encode(), *targets[index : index + 1]]
                digest.update(b"\0".join(parts) + b"\n")
    return digest.hexdigest()[:12]


def _channels(listing: Listing, found: Sequence[Census], place: str) -> int:
    """Those that all images can be shown with: gray ones in colour, or as arrays have them."""
    numbers = Counter(facts.channels for each in found for facts in each.facts if facts is not None)
    if set(numbers) <= {1, 3}:
        return max(numbers)
    if len(numbers) == 1:
        return next(iter(numbers))
    first: dict[int, str] = {}
    for items, each in zip((listing.train, listing.test), found, strict=True):
        for name, facts in zip(items.names_N, each.facts, strict=True):
            if facts is not None:
                first.setdefault(facts.channels, _shown(name))
    words = "; ".join(f"{number} channels in {count:,} ({first[number]})" for number, count in sorted(numbers.items()))
    raise DataError(place, f"images of {words}", "one number of channels, or gray and colour")


def _shown(name: str) -> str:
    """A file's name in one line, bytes that are no UTF-8 replaced."""
    return " ".join(name.encode("utf-8", "replace").decode().split())


def _named(names: Sequence[str]) -> str:
    more = len(names) - SAID_BY_NAME
    return ", ".join(map(_shown, names[:SAID_BY_NAME])) + (f" and {more:,} more" if more > 0 else "")


def _one(what: str) -> str:
    """What is counted, where there is one of it: ``.txt file`` of ``.txt files``."""
    many = next((many for many in ONE_OF if many in what), "")
    return what.replace(many, ONE_OF.get(many, ""), 1)
