"""The data sets by name, and the protocol each one's file implements. No torch here."""

import os
from pathlib import Path
from typing import Literal, Protocol

from nas_core.base.names import Names
from nas_core.workloads.images.tensors import RawImages
from nas_core.workloads.settings import DataConfig

Split = Literal["train", "test"]


class Source(Protocol):
    """Reads one data set from where it lies. ``check`` is cheap and says what is missing."""

    def shape(self, config: DataConfig) -> tuple[int, int, int]:
        """Channels, side in pixels and number of classes of the images as they are."""
        ...

    def num_train(self, config: DataConfig) -> int:
        """Images in the training split."""
        ...

    def class_names(self, config: DataConfig) -> tuple[str, ...]: ...

    def check(self, config: DataConfig) -> None:
        """Raises DataError, with the way to get them, if files are missing."""
        ...

    def read(self, config: DataConfig, split: Split, resolution: int) -> RawImages:
        """One split; ``resolution`` only matters to sets whose images differ in size."""
        ...


SOURCES = Names[Source]("data set")


def cache_folder() -> Path:
    """Where downloads and decoded images are kept: ``$XDG_CACHE_HOME/mathnas``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mathnas"
