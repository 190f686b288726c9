"""Any folder of images with one sub-folder per class (``layouts`` says which)."""

import os
from abc import abstractmethod
from collections.abc import Hashable
from pathlib import Path

from nas_core.base.errors import DataError
from nas_core.workloads.images.encoded import EncodedImages
from nas_core.workloads.images.items import Listing
from nas_core.workloads.images.layouts import LAYOUT, folder_times, list_folder
from nas_core.workloads.workload import WORKLOADS


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
        if not path or not os.path.isdir(path):
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
        return tuple(folder_times(self.root()))
