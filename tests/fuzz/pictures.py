"""Broken sets of images: names, modes, sizes, cuts, links, permissions. Read as a training reads them.

A set that is accepted has to be right: every image that its folders name is
either there, in its class and its split, or said to be left out.
"""

import io
import logging
import os
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError

from nas_core.base.errors import NasError
from nas_core.workloads.images.decoding import suffixes
from nas_core.workloads.images.folder import ImageFolder
from tests.fuzz.mutations import mutate_bytes

MODES = ["RGB", "RGB", "RGB", "L", "LA", "P", "RGBA", "CMYK", "1", "I;16", "I", "F", "YCbCr"]
KINDS = {
    "PNG": ".png", "JPEG": ".jpg", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp", "PPM": ".ppm",
    "ICO": ".ico", "TGA": ".tga", "JPEG2000": ".jp2", "SGI": ".sgi", "PCX": ".pcx", "QOI": ".qoi", "AVIF": ".avif",
}  # fmt: skip
SIZES = [(8, 8), (8, 8), (12, 9), (9, 16), (1, 1), (1, 40), (300, 2), (33, 31), (64, 64), (2000, 1)]
SPLITS = [("train", "test"), ("Train", "Test"), ("training", "valid"), ("TRAIN", "val"), ("train", "validation"), None]
ODD_NAMES = [
    "a b", "ü", "𝔠", "%s", "{x}", "-rf", "~", "$HOME", "new\nline", "tab\t", "x" * 200, "'", '"', "con", "a.png", "..x",
    "train", "test", "val", "__MACOSX", ".hidden", "0", "None", "\u202eabc", "a\\b", "c\udcff", "Thumbs.db",
]  # fmt: skip
JUNK = [
    ".DS_Store",
    "._0.png",
    "Thumbs.db",
    "desktop.ini",
    "README",
    "notes.txt",
    "labels.csv",
    "x.heic",
    "x.pdf",
    ".x",
]


def image_set(place: Path, rng: random.Random) -> None:
    """A set made, broken in one to six ways, and read under settings of any kind."""
    os.environ["MATHNAS_CACHE"] = str(place / "cache")
    logging.getLogger("nas_core.workloads").setLevel(logging.ERROR)
    root = place / "set"
    _make(root, rng)
    for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 5])):
        rng.choice(BREAKS)(root, rng)
    try:
        _read(ImageFolder(_settings(root, rng)))
    finally:
        for folder, _, _ in os.walk(root):
            os.chmod(folder, 0o700)


def _settings(root: Path, rng: random.Random) -> ImageFolder.Settings:
    fields = {
        "path": str(root),
        "validation_examples": rng.choice([1, 1, 2, 2, 2, 2, 3, 1000]),
        "on_error": rng.choice(["stop", "skip", "skip", "skip"]),
        "fit": rng.choice(["crop", "pad", "squash"]),
        "crop_pct": rng.choice([1.0, 1.0, 1.0, 0.95, 0.9, 0.875, 0.875, 0.5, 0.06, 0.01]),
        "interpolation": rng.choice(["bilinear", "bicubic", "nearest", "lanczos"]),
        "background": rng.choice([*["white", "black", "#102030", "hsl(0, 100%, 50%)"] * 3, "no colour"]),
        "side": rng.choice([None, None, 1, 7, 16]),
    }
    try:
        return ImageFolder.Settings(**fields)
    except ValidationError as error:  # as a study's YAML says it
        raise NasError("data", str(error.errors()[0]["input"]), "what a study allows") from None


def _read(workload: ImageFolder) -> None:
    try:
        workload.check()
    except NasError:
        if workload.settings.on_error == "skip":
            raise
        # what stops one way is found again, or can be left out
        workload = type(workload)(workload.settings.model_copy(update={"on_error": "skip"}))
        workload.check()
        raise
    sample, contents = workload.sample, workload.contents()
    _check_counts(workload)
    data = workload.load()
    test, labels = data.load_test()
    for images, targets in ((*data.train,), (*data.validation,), (test, labels)):
        assert images.dtype == torch.uint8
        assert tuple(images.shape[1:]) == sample.shape
        assert len(images) == len(targets) > 0
        assert 0 <= int(targets.min()) <= int(targets.max()) < sample.num_outputs == len(contents.class_names)
        assert bool(torch.isfinite(data.prepare(images)).all())
    assert len(data.train[1]) + len(data.validation[1]) == workload.num_images()
    assert len(labels) == len(contents.test)
    assert all(isinstance(value, str) and value for row in workload.describe() for value in row)
    assert workload.fingerprint() == type(workload)(workload.settings).fingerprint()


def _check_counts(workload: ImageFolder) -> None:
    """The plain way: every file below a class folder whose name ends as an image's is used, or said to be broken."""
    contents, root = workload.contents(), Path(workload.settings.path)
    used = [*contents.train.names_N, *contents.test.names_N]
    assert len(set(used)) == len(used)
    for items in (contents.train, contents.test):
        for name, label in zip(items.names_N, items.labels_N, strict=True):
            assert contents.class_names[label] in Path(name).parts
            assert not any(part.startswith(".") or part == "__MACOSX" for part in Path(name).parts)
    if any(path.is_symlink() for path in root.rglob("*")):
        return  # rglob does not follow them
    files = [
        path.relative_to(root).parts
        for path in root.rglob("*")
        if not path.is_dir() and path.suffix.lower() in suffixes() and path.name != "Thumbs.db"
    ]
    visible = [parts for parts in files if not any(p.startswith(".") or p in ("__MACOSX", "Thumbs.db") for p in parts)]
    is_split = Path(used[0]).parts[0] not in contents.class_names or len(Path(used[0]).parts) > 2
    tops = {Path(name).parts[0] for name in used}
    expected = [parts for parts in visible if parts[0] in tops and len(parts) > (2 if is_split else 1)]
    if len(tops) == 2 or not is_split:
        assert contents.num_images + len(contents.broken) == len(expected)


# making


def _make(root: Path, rng: random.Random) -> None:
    splits = rng.choice(SPLITS)
    for split in splits or ("",):
        for name in ("a", "b", "c")[: rng.choice([1, *[2, 3] * 6])]:
            for index in range(rng.randint(1, 4) if splits else rng.randint(1, 8)):
                kind = rng.choice(["PNG", "PNG", "JPEG"])
                path = root / split / name / f"{index}{KINDS[kind]}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_encoded(rng, kind, "RGB", (8, 8)))


def _encoded(rng: random.Random, kind: str, mode: str, size: tuple[int, int]) -> bytes:
    noise = Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1]))
    if mode in ("I;16", "I", "F"):
        gray = np.asarray(noise.convert("L"))
        image = Image.fromarray(
            (gray.astype(np.uint16) * 257) if mode == "I;16" else gray.astype("<i4" if mode == "I" else "<f4")
        )
    else:
        image = noise.convert(mode)
    options = {}
    if rng.random() < 0.2:
        exif = Image.Exif()
        exif[0x0112] = rng.choice([1, 3, 6, 8, 5, 0, 99])
        options["exif"] = exif.tobytes() if rng.random() < 0.7 else rng.randbytes(30)
    if rng.random() < 0.1:
        options |= {"save_all": True, "append_images": [image.copy()]}
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **options)
    except Exception:  # a format that has no such mode, or notes that it does not take
        buffer = io.BytesIO()
        noise.save(buffer, "PNG")
    return buffer.getvalue()


# breaking: each changes one thing of the folder in place


def _files(root: Path, rng: random.Random) -> Path:
    files = sorted(path for path in root.rglob("*") if path.is_file() or path.is_symlink())
    return rng.choice(files) if files else root / "none"


def _folder(root: Path, rng: random.Random) -> Path:
    return rng.choice(sorted([root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]))


def _other_image(root: Path, rng: random.Random) -> None:
    kind = rng.choice(list(KINDS))
    path = (
        _folder(root, rng)
        / f"{rng.choice(['x', 'y', '0'])}{rng.choice([KINDS[kind], KINDS[kind].upper(), '.png', '.JFIF'])}"
    )
    if not path.is_dir():
        path.write_bytes(_encoded(rng, kind, rng.choice(MODES), rng.choice(SIZES)))


def _damage(root: Path, rng: random.Random) -> None:
    path = _files(root, rng)
    if path.is_file() and not path.is_symlink():
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))


def _array(root: Path, rng: random.Random) -> None:
    shape = rng.choice([(8, 8), (8, 8, 3), (8, 8, 5), (0, 8), (8,), (2, 8, 8, 3)])
    array = np.zeros(shape, rng.choice([np.uint8, np.uint8, np.uint16, np.float32]))
    path = _folder(root, rng) / "z.npy"
    if not path.exists():
        np.save(path, array)


def _all_arrays(root: Path, rng: random.Random) -> None:
    channels = rng.choice([1, 2, 13])
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            path.unlink()
            np.save(
                path.with_suffix(".npy"), np.frombuffer(rng.randbytes(64 * channels), np.uint8).reshape(8, 8, channels)
            )


def _rename(root: Path, rng: random.Random) -> None:
    path = rng.choice([_files(root, rng), _folder(root, rng)])
    new = path.with_name(rng.choice(ODD_NAMES) + (path.suffix if rng.random() < 0.5 else ""))
    if path != root and (path.exists() or path.is_symlink()) and not new.exists():
        os.rename(path, new)


def _remove(root: Path, rng: random.Random) -> None:
    path = _files(root, rng)
    if path.is_symlink() or path.is_file():
        path.unlink()


def _empty(root: Path, rng: random.Random) -> None:
    for path in list(_folder(root, rng).iterdir()):
        if path.is_file() or path.is_symlink():
            path.unlink()


def _add_folder(root: Path, rng: random.Random) -> None:
    path = _folder(root, rng) / rng.choice(ODD_NAMES)
    if not path.exists() and not path.is_symlink():
        path.mkdir()


def _deep(root: Path, rng: random.Random) -> None:
    path = _folder(root, rng)
    path = path.joinpath(*["d"] * rng.choice([3, 30, 300]))
    path.mkdir(parents=True, exist_ok=True)
    (path / "deep.png").write_bytes(_encoded(rng, "PNG", "RGB", (8, 8)))


def _junk(root: Path, rng: random.Random) -> None:
    path = _folder(root, rng) / rng.choice(JUNK)
    if not path.exists():
        path.write_bytes(rng.randbytes(rng.randint(0, 40)))


def _link(root: Path, rng: random.Random) -> None:
    path = _folder(root, rng) / rng.choice(["link.png", "link", "link.jpg"])
    target = rng.choice(
        [
            _files(root, rng),
            _folder(root, rng),
            path.with_name("nowhere"),
            path,
            "/dev/zero",
            "/dev/null",
            "/proc/self/mem",
        ]
    )
    if not path.exists() and not path.is_symlink():
        path.symlink_to(target)


def _special(root: Path, rng: random.Random) -> None:
    path = _folder(root, rng) / "pipe.png"
    if not path.exists():
        os.mkfifo(path)


def _forbid(root: Path, rng: random.Random) -> None:
    path = rng.choice([_files(root, rng), _folder(root, rng)])
    if path.exists() and not path.is_symlink():
        os.chmod(path, rng.choice([0, 0o200, 0o400]))


def _move_up(root: Path, rng: random.Random) -> None:
    path = _files(root, rng)
    if (
        path.is_file()
        and not (path.parent.parent / path.name).exists()
        and root in path.parents
        and path.parent != root
    ):
        os.rename(path, path.parent.parent / path.name)


def _swap(root: Path, rng: random.Random) -> None:
    """A file where a folder was, a folder where a file was."""
    path = _files(root, rng)
    if path.is_file() and not path.is_symlink():
        path.unlink()
        path.mkdir()


BREAKS = [
    *(_other_image,) * 6, *(_damage,) * 5, _array, _all_arrays, *(_rename,) * 3, _remove, _empty, _add_folder, _deep,
    *(_junk,) * 2, *(_link,) * 3, _special, _forbid, _move_up, _swap,
]  # fmt: skip
