"""Broken sets of other kinds than folders of classes: tables of images, rows, pairs. Read as a training reads them.

A set that is accepted has to be right: targets that fit the inputs, every row
or pair either used or said to be left out, the same set twice the same.
"""

import contextlib
import csv
import io
import logging
import os
import random
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from pydantic import ValidationError

from nas_core.base.errors import NasError
from nas_core.workloads import WORKLOADS, Workload
from nas_core.workloads.examples import in_memory
from tests.fuzz import pictures
from tests.fuzz.mutations import mutate_bytes

ODD = 0.04  # share of the settings that are none of the usual ones
ODD_CELLS = [
    "", " ", "nan", "NaN", "inf", "-inf", "1e400", "1e308", "-0", "0x10", "1,5", "1.5.2", "\0", "ü", "'", '"', "a\nb",
    "None", "true", "x" * 5000, "2024-01-01", "train", "test", "../../etc/passwd", "/etc/passwd", "|", "a||b", "9" * 40,
    "=1+1", "𝔠",
]  # fmt: skip
ODD_COLUMNS = ["", " ", "target", "split", "image", "a", "a", "x" * 300, "ü", "a\nb", "1", "Split", "TARGET", "\ufeffa"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32", "cp1252"]
SPLIT_WORDS = ["train", "test", "Train ", "TEST", "val", "validation", "", "trian", "0", "holdout"]
MASKS = ["L", "L", "L", "P", "1", "RGB", "I;16", "RGBA", "LA"]


def image_table(place: Path, rng: random.Random) -> None:
    """A CSV or Parquet file that names images, broken in one to five ways."""
    root = place / "set"
    table = _image_rows(root, rng)
    _broken_table(table, root / "images.csv", rng)
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        rng.choice([pictures._damage, pictures._remove, pictures._other_image, pictures._link, pictures._forbid])(
            root / "images", rng
        )
    columns = [name for name, _ in table]
    task, targets = rng.choice(
        [
            ("classification", ["kind"]),
            ("multi-label", ["wide", "tall"]),
            ("multi-label", ["tags"]),
            ("regression", ["size"]),
            ("regression", ["size", "height"]),
            (
                rng.choice(["classification", "multi-label", "regression"]),
                rng.sample(columns, min(len(columns), rng.randint(1, 3))),
            ),
        ]
    )
    fields = {
        "path": _path(root, "images.csv", rng),
        "images": _usually(rng, [str(root / "images")], [None, str(root), str(root / "none"), "/dev"]),
        "image": _usually(rng, ["image"], ["images", "kind", ""]),
        "split": _usually(rng, ["split"], ["Split", "kind", "image", "none"]),
        "task": task,
        "targets": _usually(rng, [targets], [[], ["none"], targets * 2, ["image"]]),
        "separator": _usually(rng, ["|"], [",", " ", "||"]),
        **_image_fields(rng),
    }
    _read("image-table", fields, root)


def rows(place: Path, rng: random.Random) -> None:
    """A CSV or Parquet file of numbers and categories, broken in one to five ways."""
    root = place / "set"
    root.mkdir(parents=True)
    count = rng.choice([6, 40, 40, 40, 40])
    table: list[tuple[str, list[Any]]] = [
        ("a", [round(rng.gauss(0, 1), 3) for _ in range(count)]),
        ("b", [rng.randint(0, 5) for _ in range(count)]),
        ("c", [rng.choice(["red", "green", "blue"]) for _ in range(count)]),
        ("kind", [rng.choice(["x", "y"]) for _ in range(count)]),
        ("yes", [rng.randint(0, 1) for _ in range(count)]),
        ("no", [rng.randint(0, 1) for _ in range(count)]),
        ("price", [round(rng.gauss(100, 20), 2) for _ in range(count)]),
        ("split", [rng.choice(["train", "train", "test"]) for _ in range(count)]),
    ]
    _broken_table(table, root / "rows.csv", rng)
    columns = [name for name, _ in table]
    task, targets = rng.choice(
        [
            ("classification", ["kind"]),
            ("multi-label", ["yes", "no"]),
            ("regression", ["price"]),
            ("regression", ["price", "a"]),
            (
                rng.choice(["classification", "multi-label", "regression"]),
                rng.sample(columns, min(len(columns), rng.randint(1, 3))),
            ),
        ]
    )
    some = rng.sample(columns, min(len(columns), 2))
    fields = {
        "path": _path(root, "rows.csv", rng),
        "task": task,
        "targets": _usually(rng, [targets], [[], ["none"], targets * 2]),
        "features": _usually(rng, [[]], [["a", "b"], ["a", "a"], some, ["none"], targets]),
        "ignore": _usually(rng, [[]], [["c"], some, ["none"], columns]),
        "categorical": _usually(rng, [[]], [["b"], some, ["none"], ["a"]]),
        "split": _usually(rng, ["split"], ["Split", "kind", "none"]),
        "on_error": rng.choice(["stop", "skip"]),
        "validation_examples": _usually(rng, [1, 2, 2], [4, 1000]),
    }
    _read("rows", fields, root)


def segmentation(place: Path, rng: random.Random) -> None:
    """Images and masks, broken in one to five ways."""
    root = place / "set"
    _pairs(root, "masks", rng)
    classes = rng.choice(
        [{}] * 6 + [{0: "ground", 1: "thing"}, {0: "ground", 1: "thing", 2: "more"}, {7: "far"}, {0: ""}]
    )
    fields = {
        "path": _path(root, "", rng),
        "masks": _usually(rng, ["masks"], ["images", "none", "..", "masks/a"]),
        "classes": classes,
        "ignore": rng.choice([None, None, 255, 0, 65535]),
        **_image_fields(rng),
    }
    _read("segmentation", fields, root)


def image_to_image(place: Path, rng: random.Random) -> None:
    """Images and what is to be made of them, broken in one to five ways."""
    root = place / "set"
    _pairs(root, "targets", rng)
    fields = {
        "path": _path(root, "", rng),
        "wanted": _usually(rng, ["targets"], ["images", "none", "", "Targets"]),
        **_image_fields(rng),
    }
    _read("image-to-image", fields, root)


# reading


def _usually(rng: random.Random, usual: list[Any], odd: list[Any]) -> Any:
    return rng.choice(odd if rng.random() < ODD else usual)


def _image_fields(rng: random.Random) -> dict[str, Any]:
    return {
        "validation_examples": _usually(rng, [1, 1, 2], [3, 1000]),
        "on_error": rng.choice(["stop", "skip", "skip"]),
        "fit": rng.choice(["crop", "pad", "squash"]),
        "crop_pct": rng.choice([1.0, 1.0, 0.875, 0.5]),
        "interpolation": rng.choice(["bilinear", "nearest", "lanczos"]),
        "background": rng.choice(["white", "#102030"]),
        "side": rng.choice([None, None, 7, 16]),
        "hold": rng.choice(["auto", "memory", "map", "stream"]),
        "loaders": 1,
    }


def _path(root: Path, name: str, rng: random.Random) -> str:
    usual = str(root / name) if name else str(root)
    return _usually(rng, [usual], [str(root / "nowhere"), str(root), "/dev/null", str(root / "images")])


def _read(kind: str, fields: dict[str, Any], root: Path) -> None:
    os.environ["MATHNAS_CACHE"] = str(root.parent / "cache")
    logging.getLogger("nas_core.workloads").setLevel(logging.ERROR)
    try:
        try:
            workload = WORKLOADS[kind](WORKLOADS[kind].Settings(**fields))
        except ValidationError as error:  # as a study's YAML says it
            raise NasError("data", str(error.errors()[0]["input"]), "what a study allows") from None
        _check(workload)
    finally:
        for folder, _, _ in os.walk(root):
            os.chmod(folder, 0o700)


def _check(workload: Workload) -> None:
    workload.check()
    sample = workload.sample
    data = workload.load()
    assert workload.describe()
    assert all(isinstance(value, str) and value for row in workload.describe() for value in row)
    outputs = torch.zeros(2, sample.num_outputs, *(sample.shape[1:] if sample.dense else ()))
    for inputs, targets in (data.train, data.validation, data.load_test()):
        assert len(inputs) == len(targets) > 0
        held, wanted = in_memory(inputs), in_memory(targets)
        assert tuple(held.shape[1:]) == sample.shape
        assert inputs is not data.train[0] or bool(torch.isfinite(data.prepare(held)).all())
        assert not wanted.is_floating_point() or bool(torch.isfinite(wanted).all())
        some = wanted[:2]
        loss = workload.loss(outputs[: len(some)], some)
        assert bool(torch.isfinite(loss)), "a loss that is no finite number"
        if sample.dense:
            assert wanted.shape[-2:] == held.shape[-2:]
    train, validation = workload.num_examples()
    assert (len(data.train[1]), len(data.validation[1])) == (train, validation)
    twin = type(workload)(workload.settings)
    assert workload.fingerprint() == twin.fingerprint()
    again = twin.load()
    assert torch.equal(in_memory(again.train[1]), in_memory(data.train[1]))
    few = twin.few(2)
    assert torch.equal(in_memory(few.train[0]), in_memory(data.train[0])[:2])


# tables


def _image_rows(root: Path, rng: random.Random) -> list[tuple[str, list[Any]]]:
    count = rng.choice([3, 12, 16, 16])
    names = []
    for index in range(count):
        name = rng.choice(["", "", "", "deep/", "ü/"]) + f"{index}.png"
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures._encoded(rng, "PNG", "RGB", (8, 8)))
        names.append(name)
    return [
        ("image", names),
        ("split", [rng.choice(["train", "train", "test"]) for _ in names]),
        ("kind", [rng.choice(["a", "b"]) for _ in names]),
        ("tags", [rng.choice(["x", "x|y", "", "y"]) for _ in names]),
        ("wide", [rng.randint(0, 1) for _ in names]),
        ("tall", [rng.randint(0, 1) for _ in names]),
        ("size", [rng.gauss(5, 2) for _ in names]),
        ("height", [rng.randint(1, 9) for _ in names]),
    ]


def _broken_table(table: list[tuple[str, list[Any]]], path: Path, rng: random.Random) -> None:
    """The table written, after some of its cells, columns and bytes were changed."""
    for _ in range(rng.choice([0, 0, 1, 1, 1, 2, 4])):
        rng.choice(TABLE_BREAKS)(table, rng)
    if rng.random() < 0.25:
        _write_parquet(table, path, rng)
    else:
        _write_csv(table, path, rng)
    match rng.randrange(30):
        case 0:
            path.write_bytes(mutate_bytes(path.read_bytes(), rng))
        case 1:
            path.unlink()
            rng.choice([path.mkdir, lambda: path.symlink_to(path), lambda: os.mkfifo(path), lambda: None])()
        case 2:
            path.write_bytes(b"")
        case _:
            pass


def _write_csv(table: list[tuple[str, list[Any]]], path: Path, rng: random.Random) -> None:
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=_usually(rng, [",", ",", ";", "\t"], [":"]), lineterminator=rng.choice(["\n", "\r\n"])
    )
    writer.writerow([name for name, _ in table])
    writer.writerows(zip(*(cells for _, cells in table), strict=False))
    lines = text.getvalue()
    if rng.random() < 0.1:
        lines = lines.rstrip() + rng.choice([",1,2,3\n", '"\n', "\n\n\n", "x"])
    encoding = rng.choice(ENCODINGS) if rng.random() < 0.05 else "utf-8"
    path.write_bytes(lines.encode(encoding, "replace"))


def _write_parquet(table: list[tuple[str, list[Any]]], path: Path, rng: random.Random) -> None:
    arrays, names = [], []
    for name, cells in table:
        try:
            arrays.append(pa.array(cells))
        except (pa.ArrowException, TypeError, OverflowError, ValueError):  # cells of several types
            arrays.append(pa.array([None if cell is None else str(cell) for cell in cells]))
        names.append(name)
    if rng.random() < 0.2 and arrays:
        at = rng.randrange(len(arrays))
        odd = [
            pa.array([[1, 2]] * len(arrays[at])),
            pa.array([{"x": 1}] * len(arrays[at])),
            pa.array([b"\xff\xfe"] * len(arrays[at])),
            pa.array([None] * len(arrays[at])),
            pa.array(np.arange(len(arrays[at])).astype("datetime64[s]")),
            pa.array([True] * len(arrays[at])),
            pa.array(["x"] * len(arrays[at])).dictionary_encode(),
            pa.array(np.arange(len(arrays[at]), dtype=np.float16)),
            pa.array([["x", None]] * len(arrays[at])),
            pa.array(np.arange(len(arrays[at]), dtype=np.uint64) + 2**63),
        ]
        arrays[at] = rng.choice(odd)
    length = min(map(len, arrays), default=0)
    pq.write_table(pa.table([array[:length] for array in arrays], names=names), path)


def _odd_cells(table: list[tuple[str, list[Any]]], rng: random.Random) -> None:
    _, cells = rng.choice(table)
    for _ in range(rng.choice([1, 1, 3, len(cells)])):
        if cells:
            cells[rng.randrange(len(cells))] = rng.choice(ODD_CELLS)


def _one_value(table: list[tuple[str, list[Any]]], rng: random.Random) -> None:
    _, cells = rng.choice(table)
    cells[:] = [rng.choice([*ODD_CELLS, 0, 1, "a"])] * len(cells)


def _other_column(table: list[tuple[str, list[Any]]], rng: random.Random) -> None:
    table.insert(rng.randint(0, len(table)), (rng.choice(ODD_COLUMNS), list(rng.choice(table)[1])))


def _rename_column(table: list[tuple[str, list[Any]]], rng: random.Random) -> None:
    at = rng.randrange(len(table))
    table[at] = (rng.choice(ODD_COLUMNS), table[at][1])


def _drop_column(table: list[tuple[str, list[Any]]], rng: random.Random) -> None:
    if len(table) > 1:
        del table[rng.randrange(len(table))]


def _no_rows(table: list[tuple[str, list[Any]]], rng: random.Random) -> None:
    keep = rng.choice([0, 1, 2])
    for _, cells in table:
        del cells[keep:]


def _twice(table: list[tuple[str, list[Any]]], rng: random.Random) -> None:
    for _, cells in table:
        cells += cells[: rng.choice([1, 1, len(cells)])]


def _other_splits(table: list[tuple[str, list[Any]]], rng: random.Random) -> None:
    words = rng.sample(SPLIT_WORDS, rng.randint(1, 3))
    for name, cells in table:
        if name == "split":
            cells[:] = [rng.choice(words) for _ in cells]


def _many_values(table: list[tuple[str, list[Any]]], rng: random.Random) -> None:
    _, cells = rng.choice(table)
    cells[:] = [f"value {index}" for index in range(len(cells))]


def _huge(table: list[tuple[str, list[Any]]], rng: random.Random) -> None:
    _, cells = rng.choice(table)
    cells[:] = [rng.choice([1, -1]) * 10.0 ** rng.choice([20, 38, 39, 200, 308]) for _ in cells]


TABLE_BREAKS: list[Callable[[list[tuple[str, list[Any]]], random.Random], None]] = [
    *(_odd_cells,) * 5, _one_value, _other_column, _other_column, _rename_column, _drop_column, _no_rows, _twice,
    *(_other_splits,) * 2, _many_values, *(_huge,) * 2,
]  # fmt: skip


# pairs


def _pairs(root: Path, maps: str, rng: random.Random) -> None:
    splits = rng.choice([("",), ("",), ("train", "test"), ("Train", "Test"), ("training", "val"), ("train",)])
    size = rng.choice([(8, 8), (8, 8), (12, 9)])
    for split in splits:
        for index in range(rng.choice([2, 6, 10])):
            name = rng.choice(["", "", "", "deep/", "deep/er/"]) + f"{index}"
            for folder in ("images", maps):
                path = root / split / folder / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if folder == "masks":
                    path.write_bytes(_mask(rng, "L", size, 2))
                else:
                    path.write_bytes(pictures._encoded(rng, "PNG", "RGB", size))
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        rng.choice([*pictures.BREAKS, *(_other_mask,) * 8, *PAIR_BREAKS * 2])(root, rng)


def _other_mask(root: Path, rng: random.Random) -> None:
    """A mask of another size, mode or with other values, perhaps in another format."""
    path = pictures._files(root, rng)
    if path.is_file() and not path.is_symlink():
        size = rng.choice([(8, 8), (8, 8), (8, 8), (12, 9), (9, 8), (1, 1)])
        data = _mask(rng, rng.choice(MASKS), size, rng.choice([1, 2, 3, 256]))
        path.write_bytes(data)


def _mask(rng: random.Random, mode: str, size: tuple[int, int], num_values: int) -> bytes:
    values = np.array([rng.randrange(num_values) for _ in range(size[0] * size[1])], dtype=np.uint8).reshape(size[::-1])
    if mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16) * rng.choice([1, 257, 300]))
    elif mode == "P":
        image = Image.fromarray(values)
        image.putpalette([rng.randrange(256) for _ in range(3 * rng.choice([2, 16, 256]))])
    elif mode == "1":
        image = Image.fromarray(values > 0)
    else:
        image = Image.fromarray(values).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, rng.choice(["PNG", "PNG", "PNG", "TIFF"]))
    return buffer.getvalue()


def _one_of(root: Path, folder: str, rng: random.Random) -> Path | None:
    """A file of images, or of maps (any other folder)."""
    known = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    chosen = [path for path in known if ("images" in path.parts) == (folder == "images")]
    return rng.choice(chosen) if chosen else None


def _map_of_arrays(root: Path, rng: random.Random) -> None:
    """A map, or all of them, as an array of some type, shape and values."""
    folder = rng.choice(["maps", "maps", "maps", "images"])
    kind = rng.choice([bool, np.uint8, np.uint8, np.uint16, np.int64, np.int8, np.float32, np.uint64, "U3", object])
    shape = rng.choice([(8, 8), (8, 8), (8, 8), (8, 8, 1), (8, 8, 3), (1, 8, 8), (9, 12), (8, 8, 5), (0, 8), ()])
    most = rng.choice([2, 3, 200, 60_000, 10**9])
    one = _one_of(root, folder, rng)
    every = rng.random() < 0.4
    for path in sorted(root.rglob("*")):
        is_meant = path == one or (every and ("images" in path.parts) == (folder == "images"))
        if is_meant and path.is_file() and not path.is_symlink():
            count = int(np.prod(shape))
            values = np.array([rng.randrange(most) for _ in range(count)]).reshape(shape)
            with np.errstate(all="ignore"):
                array = (values - rng.choice([0, 0, 0, 1])).astype(kind)
            path.unlink()
            np.save(path.with_suffix(".npy"), array, allow_pickle=True)


def _turned(root: Path, rng: random.Random) -> None:
    """A note on how an image, its map, or both, are to be held."""
    image = _one_of(root, "images", rng)
    if image is None:
        return
    twins = [path for path in root.rglob(f"{image.stem}.*") if path.is_file() and not path.is_symlink()]
    orientation = rng.choice([1, 3, 5, 6, 8])
    for path in rng.choice([twins, [image], [path for path in twins if path != image]]):
        with contextlib.suppress(Exception):  # broken before
            with Image.open(path) as opened:
                picture = opened.copy()
            exif = Image.Exif()
            exif[0x0112] = orientation
            picture.save(path, "PNG", exif=exif.tobytes())


def _lossy(root: Path, rng: random.Random) -> None:
    """Maps with loss: values that nobody drew."""
    for path in [path for path in root.rglob("*.png") if "images" not in path.parts and not path.is_symlink()]:
        with contextlib.suppress(Exception):  # broken before
            with Image.open(path) as opened:
                picture = opened.convert("L")
            path.unlink()
            picture.save(path.with_suffix(rng.choice([".jpg", ".webp"])), quality=rng.choice([30, 95]))


def _frames(root: Path, rng: random.Random) -> None:
    """An animated image or map."""
    path = _one_of(root, rng.choice(["images", "maps"]), rng)
    if path is not None:
        frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (0, 1, 1)]
        kind, suffix = rng.choice([("GIF", ".gif"), ("TIFF", ".tif"), ("WEBP", ".webp"), ("PNG", ".png")])
        path.unlink()
        frames[0].save(path.with_suffix(suffix), kind, save_all=True, append_images=frames[1:])


def _one_value_everywhere(root: Path, rng: random.Random) -> None:
    """Every map, or those of one folder, all of one value, which may be the one that does not count."""
    value = rng.choice([0, 0, 1, 255, 65535])
    folder = rng.choice(["", "train", "test"])
    for path in root.rglob("*.png"):
        if "images" not in path.parts and folder in ("", *path.parts) and not path.is_symlink() and path.is_file():
            kind = np.uint16 if value > 255 else np.uint8
            with contextlib.suppress(OSError):
                Image.fromarray(np.full((8, 8), value, kind)).save(path)


def _same_stem(root: Path, rng: random.Random) -> None:
    """Two files of one stem, or of stems that some file systems or people hold for one."""
    path = _one_of(root, rng.choice(["images", "maps"]), rng)
    if path is not None:
        other = rng.choice(
            [
                path.with_suffix(".bmp"), path.with_name(path.stem.upper() + "A" + path.suffix),
                path.with_name(path.name.replace(".", "..")), path.with_name(f"{path.stem} {path.suffix}"),
                path.with_name(unicodedata.normalize("NFD", "ü") + path.suffix), path.with_name("ü" + path.suffix),
                path.with_name(f"{path.stem}_mask{path.suffix}"), path.with_suffix(""),
            ]
        )  # fmt: skip
        if not other.exists():
            other.write_bytes(path.read_bytes())


def _unicode_names(root: Path, rng: random.Random) -> None:
    """An image and its map, one name composed, the other decomposed, as two systems write it."""
    image = _one_of(root, "images", rng)
    if image is not None:
        for path, form in zip(sorted(root.rglob(f"{image.stem}.*")), ("NFC", "NFD", "NFC", "NFD"), strict=False):
            if path.is_file() and not path.is_symlink():
                os.rename(path, path.with_name(unicodedata.normalize(form, "früh") + path.suffix))


def _other_folder(root: Path, rng: random.Random) -> None:
    """A folder of maps or images that is a link, a file, empty, or called otherwise."""
    folders = [path for path in sorted(root.rglob("*")) if path.is_dir() and not path.is_symlink()]
    known = [path for path in folders if path.name in ("images", "masks", "targets")]
    if not known:
        return
    path, away = rng.choice(known), root.parent / f"away-{rng.random()}"
    match rng.randrange(6):
        case 0:
            os.rename(path, path.with_name("elsewhere"))
            path.symlink_to(path.with_name("elsewhere"))
        case 1:
            os.rename(path, path.with_name(path.name.capitalize()))
        case 2:
            os.rename(path, away)
            path.write_bytes(b"")
        case 3:
            os.rename(path, away)
            path.mkdir()
        case 4:
            os.chmod(path, 0)
        case _:
            os.rename(path, away)
            path.symlink_to(rng.choice([path.parent, path.with_name("images"), path, Path("/proc/self/fd")]))


def _too_large(root: Path, rng: random.Random) -> None:
    """A header that promises more pixels than there are, or than fit into a memory."""
    path = _one_of(root, rng.choice(["images", "maps"]), rng)
    if path is not None:
        side = rng.choice([9, 60_000, 2**31 - 1])
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        chunk = b"IHDR" + header
        data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        path.write_bytes(data + path.read_bytes()[33:])


def _other_target(root: Path, rng: random.Random) -> None:
    """A map in any mode and format that images have."""
    path = _one_of(root, "maps", rng)
    if path is not None:
        kind = rng.choice(list(pictures.KINDS))
        size = rng.choice([(8, 8), (8, 8), (8, 8), (12, 9), (8, 7)])
        path.unlink()
        path.with_suffix(pictures.KINDS[kind]).write_bytes(
            pictures._encoded(rng, kind, rng.choice(pictures.MODES), size)
        )


PAIR_BREAKS = [
    *(_map_of_arrays,) * 3, _turned, _turned, _lossy, _frames, *(_one_value_everywhere,) * 2, *(_same_stem,) * 2,
    _unicode_names, _other_folder, _too_large, *(_other_target,) * 2,
]  # fmt: skip
