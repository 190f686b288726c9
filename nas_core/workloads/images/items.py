"""The encoded images of a split, in order: their names, classes and contents. N = images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nas_core.workloads.images.decoding import Encoded

Self = TypeVar("Self", bound="Items")


@dataclass(frozen=True, kw_only=True, eq=False)
class Items(ABC):
    """Encoded images with one class each; goes to other processes as it is.

    ``stamps_N2`` are size in bytes and time of the last change in nanoseconds
    of the file that an image lies in: as long as they stay, so does the image.
    """

    names_N: np.ndarray  # as messages name them
    labels_N: np.ndarray
    stamps_N2: np.ndarray

    def __len__(self) -> int:
        return len(self.labels_N)

    def only(self: Self, chosen: np.ndarray) -> Self:
        """Those of these indices, or where it is true."""
        per_image: dict[str, Any] = {
            name: getattr(self, name)[chosen] for name in self.__dataclass_fields__ if name.split("_")[-1][0] == "N"
        }
        return replace(self, **per_image)

    def divided(self: Self, are_test: Callable[[Sequence[str]], Sequence[bool]]) -> tuple[Self, Self]:
        """Training and test images of a set without splits, class by class, by their names."""
        is_test_N = np.zeros(len(self), dtype=bool)
        for label in np.unique(self.labels_N):
            mine = np.flatnonzero(self.labels_N == label)
            is_test_N[mine] = are_test(self.names_N[mine].tolist())
        return self.only(~is_test_N), self.only(is_test_N)

    @abstractmethod
    def content(self, index: int) -> Encoded:
        """The file or the bytes of an image.

        Raises:
            OSError: if it cannot be read.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class FileItems(Items):
    """Images that are files below a folder; their names are the paths from there."""

    root: Path

    def content(self, index: int) -> Encoded:
        return self.root / str(self.names_N[index])


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """What a set names, before anything is decoded: both splits, and what was left out.

    ``ignored`` counts what is no image, by what it is; ``notes`` are sentences
    on how the set was understood.
    """

    class_names: tuple[str, ...]
    train: Items
    test: Items
    ignored: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
