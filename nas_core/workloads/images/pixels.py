"""The images of a split as pixels of one shape, made as they are asked for. N C H W: images, channels, sides."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from nas_core.base.errors import DataError
from nas_core.base.identity import content_id
from nas_core.workloads.images.census import what_is_wrong
from nas_core.workloads.images.decoding import Fitting, decoded
from nas_core.workloads.images.items import Items
from nas_core.workloads.images.tensors import RawImages, to_tensors

VERSION = 1  # raised when the same files become other pixels
Self = TypeVar("Self", bound="Pixels")


@dataclass(frozen=True, kw_only=True, eq=False)
class Pixels(ABC):
    """Images of a split in an order; ``shape`` is C H W. Goes to other processes as it is."""

    labels_N: np.ndarray
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def nbytes(self) -> int:
        return len(self) * int(np.prod(self.shape))

    @property
    @abstractmethod
    def identity(self) -> str:
        """Content id of what the pixels are made from, their order included."""

    @abstractmethod
    def only(self: Self, chosen: np.ndarray) -> Self:
        """The images of these numbers, in this order."""

    @abstractmethod
    def batch(self, index: Sequence[int]) -> np.ndarray:
        """uint8 N C H W; raises DataError for an image that cannot be read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredPixels(Pixels):
    """Images that lie in memory as they were stored."""

    raw: RawImages

    @property
    def identity(self) -> str:
        content = hashlib.sha256(np.ascontiguousarray(self.raw.images_NHWC).data).hexdigest()
        return content_id({"content": content, "shape": list(self.shape), "version": VERSION})

    def only(self, chosen: np.ndarray) -> "StoredPixels":
        raw = RawImages(images_NHWC=self.raw.images_NHWC[chosen], labels_N=self.raw.labels_N[chosen])
        return replace(self, labels_N=self.labels_N[chosen], raw=raw)

    def batch(self, index: Sequence[int]) -> np.ndarray:
        chosen = np.asarray(index)
        some = RawImages(images_NHWC=self.raw.images_NHWC[chosen], labels_N=self.raw.labels_N[chosen])
        pixels: np.ndarray = to_tensors(some, self.shape[1], self.shape[0])[0].numpy()
        return pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedPixels(Pixels):
    """Images that are decoded as they are asked for; ``channels`` are those of the set."""

    items: Items
    channels: int
    fitting: Fitting
    place: str

    @property
    def identity(self) -> str:
        stamps = self.items.stamps_N2.tolist()
        files = [
            [name.encode("utf-8", "surrogateescape").hex(), *stamp]
            for name, stamp in zip(self.items.names_N, stamps, strict=True)
        ]
        return content_id(
            {
                "place": self.place,
                "files": content_id({"files": files}),
                "shape": list(self.shape),
                "channels": self.channels,
                "fitting": [getattr(self.fitting, name) for name in self.fitting.__dataclass_fields__],
                "version": VERSION,
            }
        )

    def only(self, chosen: np.ndarray) -> "EncodedPixels":
        return replace(self, labels_N=self.labels_N[chosen], items=self.items.only(chosen))

    def batch(self, index: Sequence[int]) -> np.ndarray:
        images = np.stack([self._decoded(each) for each in index])
        some = RawImages(images_NHWC=images, labels_N=self.labels_N[np.asarray(index)])
        pixels: np.ndarray = to_tensors(some, self.shape[1], self.shape[0])[0].numpy()
        return pixels

    def decoded(self, index: int) -> np.ndarray:
        """One image as H W C, or a map as H W; raises whatever is wrong with it."""
        return decoded(self.items.content(index), self.shape[1], self.channels, self.fitting)

    def _decoded(self, index: int) -> np.ndarray:
        try:
            return self.decoded(index)
        except Exception as error:
            where = f"{self.place}, {self.items.names_N[index]}"
            raise DataError(where, what_is_wrong(error), "an image, as it was when the set was checked") from None
