"""Folders of images: which files are images of which class and split. Nothing is decoded here.

Understood are, whatever the case of the names: ``train/CLASS/...`` and ``test/CLASS/...`` (``training``, ``testing``;
``val``, ``valid``, ``validation`` where there is no ``test``), and
``CLASS/...``. Without splits every fifth image of a class (by the hash of its
relative path) is a test image, so adding images moves none of the others.
"""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from nas_core.base.errors import DataError
from nas_core.workloads.classification import ClassTargets
from nas_core.workloads.columns import TEST_NAMES, TRAIN_NAMES, VALIDATION_NAMES, Told
from nas_core.workloads.images.decoding import suffixes
from nas_core.workloads.images.items import FileItems, Items, Listing
from nas_core.workloads.targets import Targets

LAYOUT = "train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE"

SYSTEM_NAMES = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "@eadir", "lost+found"}
SYSTEM_NAMES |= {"system volume information", "__pycache__"}
HIDDEN = "hidden and system files or folders"
LOOSE = "images outside of class folders"
CIRCLES = "links to a folder above them"
TEST_SHARE = 5  # every fifth image, where there are no splits


def list_folder(root: Path) -> Listing:
    """The images of a folder by class and split.

    Raises:
        DataError: for a layout that is not understood, one class only, or a
            class that is empty or missing in a split.
    """
    found = _Found(ignored=Counter(), notes=[])
    folders = _folders(root, found)
    train = _role(root, folders, TRAIN_NAMES)
    test = _role(root, folders, TEST_NAMES)
    validation = _role(root, folders, VALIDATION_NAMES)
    if train is None and not (test or validation):
        return _unsplit(root, folders, found)
    if train is None and not _has_folders(test or validation):
        return _unsplit(root, folders, found)  # a class that is called so
    if train is not None and not (test or validation) and not _has_folders(train):
        return _unsplit(root, folders, found)
    return _split(root, folders, train, test, validation, found)


@dataclass(kw_only=True)
class _Found:
    """What is met on the way."""

    ignored: Counter[str]
    notes: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    path: str  # from the root
    stamp: tuple[int, int]


def _split(
    root: Path, folders: Sequence[Path], train: Path | None, test: Path | None, validation: Path | None, found: _Found
) -> Listing:
    held = test or validation
    if train is None or held is None:
        there = f"{(train or held).name}/ alone in {root}"  # type: ignore[union-attr]
        wanted = (
            "train/ beside it" if train is None else f"one of {', '.join((*TEST_NAMES, *VALIDATION_NAMES))} beside it"
        )
        raise DataError("data.path", there, wanted, f"Understood are {LAYOUT}.")
    if test is not None and validation is not None:
        found.notes.append(f"{validation.name}/ is not used: validation images are drawn from {train.name}/")
    elif test is None:
        found.notes.append(f"{held.name}/ serves as the test split")
    others = [folder.name for folder in folders if folder not in (train, test, validation)]
    if others:
        found.ignored[f"folders beside {train.name}/ and {held.name}/ ({_some(others)})"] += len(others)
    by_class = {split: _by_class(root, split, found) for split in (train, held)}
    names = tuple(sorted(by_class[train]))
    _check_classes(names, train)
    unknown = sorted(set(by_class[held]) - set(names))
    if unknown:
        expected = f"the classes of {train.name}/: {_some(names)}"
        raise DataError(str(held), f"class {_some(unknown)}", expected)
    for split in (train, held):
        empty = [name for name in names if not by_class[split].get(name)]
        if empty:
            raise DataError(str(split), f"no image of class {_some(empty)}", "one of each class at least")
    return _listing(root, names, by_class[train], by_class[held], found)


def _unsplit(root: Path, folders: Sequence[Path], found: _Found) -> Listing:
    by_class = {folder.name: _files(root, folder, found) for folder in folders}
    names = tuple(sorted(by_class))
    _check_classes(names, root)
    few = [name for name in names if len(by_class[name]) < 2]
    if few:
        found_text = f"{'no image' if not by_class[few[0]] else 'one image'} of class {_some(few)}"
        raise DataError(str(root), found_text, "two of each class at least, one to train on and one to test on")
    parts = {name: _divided(files) for name, files in by_class.items()}
    found.notes.append(f"no split in folders: one image in {TEST_SHARE} of each class, by its name, is a test image")
    return _listing(
        root, names, {name: part[0] for name, part in parts.items()}, {n: p[1] for n, p in parts.items()}, found
    )


def _check_classes(names: Sequence[str], place: Path) -> None:
    if not names:
        raise DataError("data.path", f"no class folders in {place}", f"one per class: {LAYOUT}")
    if len(names) == 1:
        inside = _has_folders(place / names[0])
        advice = f"If the classes are inside, name {place / names[0]} in data.path." if inside else ""
        raise DataError("data.path", f"one class, {names[0]}, in {place}", "two classes at least", advice)
    broken = [name for name in names if not _is_text(name)]
    if broken:
        raise DataError("data.path", f"a class folder named {broken[0]!r}", "names of classes in UTF-8")


def _listing(
    root: Path,
    names: tuple[str, ...],
    train: dict[str, list[_File]],
    test: dict[str, list[_File]],
    found: _Found,
) -> Listing:
    ignored = dict(sorted(found.ignored.items()))
    return Listing(
        targets=ClassTargets(names=names),
        train=_items(root, [train[name] for name in names]),
        test=_items(root, [test[name] for name in names]),
        ignored=ignored,
        notes=tuple(found.notes),
    )


def _items(root: Path, by_class: Sequence[Sequence[_File]]) -> FileItems:
    files = [file for mine in by_class for file in mine]
    return FileItems(
        root=root,
        names_N=np.array([file.path for file in files], dtype=object),
        labels_N=np.repeat(np.arange(len(by_class)), [len(mine) for mine in by_class]),
        stamps_N2=np.array([file.stamp for file in files], dtype=np.int64).reshape(-1, 2),
    )


def are_test(names: Sequence[str]) -> list[bool]:
    """Which images of a class are test images, by their names: one in five, and one of each kind at least."""
    hashes = [hashlib.sha256(os.fsencode(name)).digest() for name in names]
    is_test = [digest[0] % TEST_SHARE == 0 for digest in hashes]
    if len(names) > 1 and (all(is_test) or not any(is_test)):
        is_test[hashes.index(min(hashes))] ^= True
    return is_test


def listed(items: Items, targets: Targets, told: Told | None, said: Sequence[str], no_split: str) -> Listing:
    """Both splits as they are told apart (``told_splits``), else one item in five of each class: ``no_split``."""
    if told is None:
        train, test = items.divided(are_test)
        return Listing(targets=targets, train=train, test=test, notes=(*said, no_split))
    is_train_N, is_test_N, notes = told
    return Listing(targets=targets, train=items.only(is_train_N), test=items.only(is_test_N), notes=(*said, *notes))


def _divided(files: Sequence[_File]) -> tuple[list[_File], list[_File]]:
    """Training and test images of a class."""
    is_test = are_test([file.path for file in files])
    return (
        [file for file, test in zip(files, is_test, strict=True) if not test],
        [file for file, test in zip(files, is_test, strict=True) if test],
    )


# walking


def _role(root: Path, folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    mine = [folder for folder in folders if folder.name.lower() in names]
    if len(mine) > 1:
        found = f"{' and '.join(f'{folder.name}/' for folder in mine)} in {root}"
        raise DataError("data.path", found, f"one folder of these: {', '.join(names)}")
    return mine[0] if mine else None


def _folders(folder: Path, found: _Found) -> list[Path]:
    """The visible sub-folders, sorted; what else lies there is counted."""
    folders = []
    for entry in entries_of(folder):
        if is_system(entry.name):
            found.ignored[HIDDEN] += 1
        elif is_folder(entry):
            folders.append(folder / entry.name)
        else:
            found.ignored[_kind(entry.name) or LOOSE] += 1
    return sorted(folders)


def _has_folders(folder: Path | None) -> bool:
    return folder is not None and any(is_folder(entry) and not is_system(entry.name) for entry in entries_of(folder))


def _by_class(root: Path, split: Path, found: _Found) -> dict[str, list[_File]]:
    return {folder.name: _files(root, folder, found) for folder in _folders(split, found)}


def _files(root: Path, folder: Path, found: _Found) -> list[_File]:
    """Every image below the folder, links followed, in the order of their paths."""
    entries = images_below(folder, found.ignored)
    files = [_File(path=os.path.relpath(entry.path, root), stamp=stamp_of(entry)) for entry in entries]
    return sorted(files, key=lambda file: file.path)


def folder_times(root: Path) -> Iterator[tuple[str, int]]:
    """Every folder below the root, itself among them, and when files came to it or went: cheap after the first time."""
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(str(root), frozenset())]
    while waiting:
        folder, above = waiting.pop()
        try:
            status = os.stat(folder)
        except OSError as error:
            raise DataError(folder, error.strerror or str(error), "a folder that can be read") from None
        here = status.st_dev, status.st_ino
        if here not in above:
            yield folder, status.st_mtime_ns
            waiting += [(inside, above | {here}) for inside in _folders_inside(folder, status.st_mtime_ns)]


@lru_cache(maxsize=100_000)
def _folders_inside(folder: str, changed_ns: int) -> tuple[str, ...]:
    """The visible folders in one; asked again once something came or went."""
    return tuple(entry.path for entry in entries_of(folder) if is_folder(entry) and not is_system(entry.name))


def images_below(top: Path, ignored: Counter[str]) -> Iterator[os.DirEntry[str]]:
    """Images below a folder; a link back to a folder above it is not followed again. What is no image is counted."""
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(str(top), frozenset())]
    while waiting:
        folder, above = waiting.pop()
        status = os.stat(folder)
        here = status.st_dev, status.st_ino
        if here in above:
            ignored[CIRCLES] += 1
            continue
        for entry in entries_of(folder):
            if is_system(entry.name):
                ignored[HIDDEN] += 1
            elif is_folder(entry):
                waiting.append((entry.path, above | {here}))
            elif kind := _kind(entry.name):
                ignored[kind] += 1
            else:
                yield entry


def is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def entries_of(folder: str | Path) -> list[os.DirEntry[str]]:
    """What lies in a folder; raises DataError if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(str(folder), error.strerror or str(error), "a folder that can be read") from None


def stamp_of(entry: os.DirEntry[str] | Path) -> tuple[int, int]:
    """Size and time of change; of what cannot be asked, or is no file, one that no file has."""
    try:
        status = entry.stat()
    except OSError:
        return -1, -1
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (-1, -1)


def is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _kind(name: str) -> str:
    """What a file is by its name, if that is no image; "" for an image."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in suffixes():
        return ""
    return f"{suffix} files" if suffix and _is_text(suffix) else "files without a suffix"


def _is_text(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
