"""Any folder of images with one sub-folder per class (``layouts`` says which)."""

import os
from abc import abstractmethod
from collections.abc import Hashable, Iterator
from pathlib import Path

from nas_core.base.errors import DataError
from nas_core.workloads.images.encoded import EncodedImages
from nas_core.workloads.images.items import Listing
from nas_core.workloads.images.layouts import LAYOUT, is_folder, is_system, list_folder
from nas_core.workloads.workload import WORKLOADS

WATCHED_LEVELS = 3  # the root, its splits, their classes


class FilesBelow(EncodedImages):
    """Images below one folder. A class says how they lie there."""

    @property
    @abstractmethod
    def layout(self) -> str:
        """What the folder has to be, as messages say it."""

    @property
    def label(self) -> str:
        """The folder's name: all folders are of one kind."""
        return f"folder {Path(self.settings.path or '').name}"

    @property
    def place(self) -> str:
        return str(self.root())

    def root(self) -> Path:
        path = self.settings.path
        if not path or not Path(path).is_dir():
            raise DataError("data.path", path or "nothing", self.layout)
        return Path(path).absolute()


@WORKLOADS.add
class ImageFolder(FilesBelow):
    """Any folder of images with one sub-folder per class, divided into train and test or not."""

    name = "folder"
    version = 4

    @property
    def layout(self) -> str:
        return f"a folder of images: {LAYOUT}"

    def listing(self) -> Listing:
        return list_folder(self.root())

    def state(self) -> Hashable:
        return tuple(_times(self.root()))


def _times(root: Path) -> Iterator[tuple[str, int]]:
    """When files came to or went from the folders of splits and classes."""
    waiting = [(str(root), 1)]
    while waiting:
        folder, level = waiting.pop()
        try:
            yield folder, os.stat(folder).st_mtime_ns
            if level < WATCHED_LEVELS:
                with os.scandir(folder) as entries:
                    waiting += [(e.path, level + 1) for e in entries if is_folder(e) and not is_system(e.name)]
        except OSError as error:
            raise DataError(folder, error.strerror or str(error), "a folder that can be read") from None
