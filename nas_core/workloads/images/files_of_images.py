"""What sets whose images lie in files of many have in common: the files, and images without a label."""

import os
from abc import ABC
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import ClassVar

from nas_core.base.errors import DataError
from nas_core.workloads.columns import LEAVE_OUT
from nas_core.workloads.images.encoded import EncodedImages
from nas_core.workloads.images.layouts import is_system


class FilesOfImages(EncodedImages, ABC):
    """Encoded images in one file of many, or in a folder of such files; ``ending`` is theirs."""

    ending: ClassVar[str]
    wanted: ClassVar[str]  # what data.path has to be, in words

    @property
    def place(self) -> str:
        return str(self._path())

    def state(self) -> Hashable:
        return tuple(self._stamps())

    def _path(self) -> Path:
        path = self.settings.path
        if not path or not os.path.exists(path):
            raise DataError("data.path", path or "nothing", self.wanted)
        return Path(path).absolute()

    def _stamps(self) -> list[tuple[Path, tuple[int, int]]]:
        """The files in order, with size and time of change."""
        root = self._path()
        files = [root] if root.is_file() else sorted(p for p in root.rglob(f"*{self.ending}") if not is_system(p.name))
        if not files:
            raise DataError("data.path", f"no {self.ending} file in {root}", self.wanted)
        return [(path, (path.stat().st_size, path.stat().st_mtime_ns)) for path in files]

    def _said_of_unlabelled(self, names: Sequence[str], num_in_all: int, what: str, expected: str) -> list[str]:
        """What is to be said of ``what`` (an image, a row) without a label, by their names.

        Raises:
            DataError: naming the first, unless they are to be left out.
        """
        if not len(names):
            return []
        many = f"{len(names):,} {what}{'s' * (len(names) > 1)}"
        if self.settings.on_error == "stop" or len(names) == num_in_all:
            raise DataError(self.place, f"{many} without a label, {names[0]} first", expected, LEAVE_OUT)
        return [f"left out: {many} of {num_in_all:,} without a label"]
