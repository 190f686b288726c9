"""`mathnas export`: the files of a finished study's winner, for use without any of this."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas_core.base.errors import NasError
from nas_core.study.finished import (
    FileLatency,
    Finished,
    file_latency,
    is_timed_by_torch,
    is_timed_on_gpu,
    weights_latency,
)

if TYPE_CHECKING:
    from nas_core.training.handover import Format, Written


def handed_over(done: Finished, folder: Path, formats: "Collection[Format]") -> list[str]:
    """Write the winner's files and its card into the folder; returns what was written and how to load it.

    Raises:
        NasError: if the folder cannot be written, the test examples are not there, or the winner's files are not
            as they were trained.
    """
    from nas_core.report.card import card, in_words
    from nas_core.training.handover import check_folder, files_of, write

    check_folder(folder)
    files = files_of(done.store, done.winner, done.workload, folder, formats)
    latency = _latency(done, files)
    write(files, card(done, files, latency))
    return in_words(done, files, latency)


def _latency(done: Finished, written: "Written") -> list[FileLatency] | str:
    """The latency of the file that the study's limits are for, and of the ONNX file; or why it was not measured."""
    from nas_core.training.handover import ONNX, WEIGHTS

    found = list[FileLatency]()
    try:
        by_torch = is_timed_by_torch(done)
        if by_torch and WEIGHTS in written.files:
            found.append(weights_latency(done))
        if written.check is None:
            return found or f"there is no {ONNX}"
        if not found or not is_timed_on_gpu(done):
            file = file_latency(done, written.contents[ONNX], written.check.way)
            found.append(replace(file, kept={}) if by_torch else file)
    except NasError as error:
        return found or f"{error.where}: {error.found}"
    return found
