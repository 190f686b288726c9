"""The encoded images of a split, in order: their names, targets and contents. N = images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from nas_core.workloads.images.decoding import Encoded, Facts, digest_of, facts_of
from nas_core.workloads.targets import Targets

Self = TypeVar("Self", bound="Items")


@dataclass(frozen=True, kw_only=True, eq=False)
class Items(ABC):
    """Encoded images with a target each; goes to other processes as it is.

    ``labels_N`` are class numbers, or a row of what else the targets are.
    ``named`` says that names tell the targets, as of files in folders of classes.

    ``stamps_N2`` are size in bytes and time of the last change in nanoseconds
    of the file that an image lies in: as long as they stay, so does the image.
    """

    names_N: np.ndarray  # as messages name them
    labels_N: np.ndarray
    stamps_N2: np.ndarray
    named: ClassVar[bool] = False

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

    def facts(self, index: int) -> Facts:
        """What an image is, and the hash of its bytes; raises whatever is wrong with it."""
        content = self.content(index)
        return replace(facts_of(content), digest=digest_of(content))

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
    named: ClassVar[bool] = True

    def content(self, index: int) -> Encoded:
        return self.root / str(self.names_N[index])


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """What a set names, before anything is decoded: both splits, and what was left out.

    ``ignored`` counts what is no image, by what it is; ``notes`` are sentences
    on how the set was understood.
    """

    targets: Targets
    train: Items
    test: Items
    ignored: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
