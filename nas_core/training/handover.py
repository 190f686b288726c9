"""A trained network's files for whoever uses it: weights with a stand-alone loader, an ONNX file, a program.

What is written loads without any code of ours: ``load.py`` is
``families/model/rebuild.py``, copied. B = examples of a batch.
"""

import hashlib
import inspect
import json
import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from nas_core.base.errors import ConfigError, NasError
from nas_core.base.onnx_files import WAYS, Session, Way, onnx_bytes, with_output_shape
from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)
from nas_core.families.model import rebuild
from nas_core.families.model.source import source_files
from nas_core.records.store import Store
from nas_core.training.export import Deployed, deployed, exported_bytes
from nas_core.training.handed_over import DESCRIPTION, HASH, hash_in
from nas_core.training.loop import value_of
from nas_core.training.winner import check_files, load_deployed
from nas_core.workloads.examples import batches_of, in_memory
from nas_core.workloads.metrics import Metric
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.workload import Sample, Workload

Format = Literal["safetensors", "onnx", "pt2"]
FORMATS: tuple[Format, ...] = get_args(Format)
WEIGHTS, PROGRAM = rebuild.WEIGHTS, rebuild.PROGRAM
ONNX, LOADER, CARD, SOURCE = "model.onnx", "load.py", "README.md", rebuild.SOURCE
ASIDE = ".mathnas-new"  # folder in which files are written before they are put in place
EXAMPLE_BATCH = 2  # a batch of 1 would be taken for a constant
CHECKED_BATCH, CHECKED = 25, 400  # test examples that the ONNX file is compared on
CHECKED_VALUES = 100_000_000  # of their inputs or outputs at most: of large maps fewer are compared, a batch at least
CLOSE = 1e-4  # relative to the largest output


@dataclass(frozen=True, kw_only=True)
class OnnxCheck:
    """How far the ONNX file agrees with torch on test examples, in batches of another size than it was made with.

    ``worst`` is the largest difference of an output, relative to the largest
    output. ``metrics`` are (torch's, the file's) by name. ``passed_over`` says
    of a way that was tried before why its file was not taken.
    """

    way: Way
    num_examples: int
    batch_size: int
    worst: float
    metrics: Mapping[str, tuple[float, float]]
    passed_over: Mapping[Way, str] = field(default_factory=dict)

    @property
    def wrong(self) -> str:
        """What does not agree; "" if all does."""
        if not self.worst <= CLOSE:
            return f"outputs that differ from torch's by {self.worst:.1e} of the largest"
        apart = [name for name, (one, other) in self.metrics.items() if abs(one - other) > CLOSE * max(1.0, abs(one))]
        return f"another {apart[0].replace('_', ' ')} than torch's" if apart else ""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A folder's files by name; how the ONNX file was checked; formats that there are not, and why."""

    folder: Path
    contents: Mapping[str, bytes]
    check: OnnxCheck | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, int]:
        """Their sizes in bytes."""
        return {name: len(data) for name, data in self.contents.items()}


def formats_of(text: str) -> tuple[Format, ...]:
    """The formats named, separated by commas; raises ConfigError for an unknown one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise ConfigError("--format", repr(name), f"one or more of: {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in names) or FORMATS


def check_folder(folder: Path) -> None:
    """Raises ConfigError where nothing can be written to the folder: it is said before files are made for it."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        (folder / ASIDE).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / ASIDE)
        for each in missing:  # it may yet turn out that there is nothing to put there
            each.rmdir()
    except OSError as error:
        raise _not_written(folder, error) from None


def files_of(
    store: Store, row: Mapping[str, Any], workload: Workload, folder: Path, formats: Collection[Format] = FORMATS
) -> Written:
    """The trained network of a row of ``training.json`` as files for the folder, which ``write`` puts there.

    A file that cannot be had is said, not raised. The loader is among them where what it reads is.

    Raises:
        DataError: if the test examples are not there.
        StoreError: if one of the network's files is gone, or not as it was trained.
    """
    check_files(store, row)
    module, _ = load_deployed(store, row["name"])
    weights = store.read_bytes(row["weights_path"])
    description = {**store.read_json(row["architecture_path"]), HASH: hashlib.sha256(weights).hexdigest()}
    contents = {DESCRIPTION: f"{json.dumps(description, indent=1)}\n".encode()}
    check, refused = None, {}
    if "safetensors" in formats:
        contents[WEIGHTS] = weights
    if "pt2" in formats:
        if row["program_path"]:
            contents[PROGRAM] = store.read_bytes(row["program_path"])
        else:
            refused["pt2"] = "torch.export cannot follow this network"
    if "onnx" in formats:
        try:
            contents[ONNX], check = checked_onnx(module, workload, row["metric_name"])
        except NasError as error:
            refused["onnx"] = str(error.found)
    is_made = WEIGHTS in contents and _is_made_by_loader(description)
    if is_made or PROGRAM in contents:
        contents[LOADER] = inspect.getsource(rebuild).encode()
    if is_made:
        contents |= _source(store, row["name"], description)
    return Written(folder=folder, contents=contents, check=check, refused=refused)


def write(files: Written, card: str) -> None:
    """Put the files and their card into the folder; what is there of another network is deleted then.

    No file there changes where they cannot be written. The description, which says whose files they are, comes last.

    Raises:
        ConfigError: if the folder cannot be written.
    """
    folder, contents = files.folder, {**files.contents, CARD: card.encode()}
    others = [] if hash_in(folder) in (None, json.loads(contents[DESCRIPTION])[HASH]) else _files_in(folder)
    try:
        _write_all(folder, contents)
    except OSError as error:
        raise _not_written(folder, error) from None
    for path in others:
        if str(path.relative_to(folder)) not in contents:
            path.unlink()


def _not_written(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"folder {folder}", error.strerror or str(error), "a folder that can be written")


def remove(folder: Path) -> None:
    """Delete the files that ``write`` has left in the folder, and the folder where nothing else is in it."""
    if hash_in(folder) is None:
        return
    for path in (*_files_in(folder), folder / CARD, folder / DESCRIPTION):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / SOURCE, ignore_errors=True)
    with suppress(OSError):  # something else is there
        folder.rmdir()


def _files_in(folder: Path) -> list[Path]:
    """The files there that are of one network and of no other, and what loads them."""
    named = [folder / name for name in (WEIGHTS, ONNX, PROGRAM, LOADER)]
    return [path for path in (*named, *(folder / SOURCE).rglob("*")) if path.is_file()]


def _is_made_by_loader(description: Mapping[str, Any]) -> bool:
    """Whether ``rebuild.load`` can make the network and give it its weights; else it takes the program."""
    return "changes" in description and not description["model"]["name"].startswith("mlflow:")


def _source(store: Store, name: str, description: Mapping[str, Any]) -> dict[str, bytes]:
    """The file that makes the model, and what it imports beside it, as they were when the network was trained."""
    folder = f"winner/{name}/"
    kept = {path.removeprefix(folder): store.read_bytes(path) for path in store.paths(f"{folder}{rebuild.SOURCE}")}
    return kept or source_files(description.get("model", {}))  # what earlier versions trained has none


def _write_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write all aside, then put all in place: what is there stays whole where the disk is full."""
    aside = folder / ASIDE
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    try:
        for name, data in contents.items():
            for path in (aside / name, folder / name):
                path.parent.mkdir(parents=True, exist_ok=True)
            (aside / name).write_bytes(data)
            if (folder / name).is_dir():
                raise IsADirectoryError(f"{name} is a folder there")
        for name in sorted(contents, key=lambda name: name == DESCRIPTION):
            (aside / name).replace(folder / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def prepared(module: Deployed) -> nn.Module:
    """The network as a device calls it: floats of the network's own size in (images: fractions), outputs out."""
    mean, std = module.mean.flatten().tolist(), module.std.flatten().tolist()
    scale = module.scale.mean, module.scale.std
    return rebuild.Prepared(module.network, mean, std, 1 + len(module.input_shape), scale).eval()


def checked_onnx(module: Deployed, workload: Workload, metric: str) -> tuple[bytes, OnnxCheck]:
    """The ONNX file of the first way whose outputs on real examples are torch's, and by how much they differ.

    Raises:
        NasError: if no way leads to one; it says what each ended with.
    """
    passed_over = dict[Way, str]()
    for way in WAYS:
        try:
            data = onnx_file(module, way)
            check = _compared(data, way, module, workload, metric, passed_over)
        except NasError as error:
            passed_over[way] = str(error.found)
            continue
        if not check.wrong:
            return data, check
        passed_over[way] = check.wrong
    found = "; ".join(dict.fromkeys(passed_over.values()))
    raise NasError("model.onnx", found, "a network that ONNX can hold", "The other files are written.")


def onnx_file(module: Deployed, way: Way) -> bytes:
    """The network's ONNX file, made in this way; raises NasError where it leads to none. It is not checked."""
    network, example = prepared(module), module.example(EXAMPLE_BATCH)
    data = onnx_bytes(network, [example], way)
    with torch.no_grad():
        return with_output_shape(data, network(example).shape[1:])


def why_no_onnx(network: nn.Module, sample: Sample) -> str:
    """Why no ONNX file that runs can be made of a network that takes such inputs; "" if one can."""
    module = deployed(network, Normalisation(), sample.shape, dtype=sample.dtype)
    why = ""
    for way in WAYS:
        try:
            outputs_of_file(onnx_file(module, way), [module.example(EXAMPLE_BATCH)])
        except NasError as error:
            why = str(error.found)
        else:
            return ""
    return why


def why_no_program(network: nn.Module, sample: Sample) -> str:
    """Why no .pt2 program can be made of a network that takes such inputs; "" if one can."""
    try:
        exported_bytes(deployed(network, Normalisation(), sample.shape, dtype=sample.dtype))
    except NasError as error:
        return str(error.found)
    return ""


def _compared(
    data: bytes, way: Way, module: Deployed, workload: Workload, metric: str, passed_over: Mapping[Way, str]
) -> OnnxCheck:
    inputs, targets = workload.load(module.input_shape).load_test()
    count, network = num_compared(module.input_shape, workload.sample, len(targets)), prepared(module)
    kind: torch.dtype = getattr(torch, module.dtype)
    batches = [Normalisation()(batch).to(kind) for batch in batches_of(inputs[:count], CHECKED_BATCH)]
    with torch.no_grad():
        expected = torch.cat([network(batch) for batch in batches])
    found, wanted = outputs_of_file(data, batches), in_memory(targets[:count])
    both = {name: workload.metrics[name] for name in (metric, next(iter(workload.metrics)))}
    return OnnxCheck(
        way=way,
        num_examples=count,
        batch_size=CHECKED_BATCH,
        worst=_worst(expected, found),
        metrics={name: _pair(each, module.scale(expected), module.scale(found), wanted) for name, each in both.items()},
        passed_over=dict(passed_over),
    )


def num_compared(shape: Sequence[int], sample: Sample, available: int) -> int:
    """Test examples of this shape on which the ONNX file and torch are compared."""
    outputs = math.prod(sample.outputs_for(shape))
    return min(available, CHECKED, max(CHECKED_BATCH, CHECKED_VALUES // max(math.prod(shape), outputs)))


def outputs_of_file(data: bytes, batches: Sequence[torch.Tensor]) -> torch.Tensor:
    """Outputs of an ONNX file for batches B x ..., by ONNX Runtime; raises NasError if it does not run the file."""
    try:
        session = Session(data)
        outputs = [session(batch.numpy()) for batch in batches]
    except Exception as error:  # ONNX Runtime's own, one class for each kind
        words = " ".join(str(error).split())[:200]
        raise NasError("model.onnx", f"ONNX Runtime's {type(error).__name__}: {words}", "a file that runs") from None
    return torch.from_numpy(np.concatenate(outputs))


def _worst(expected: torch.Tensor, found: torch.Tensor) -> float:
    if expected.shape != found.shape:
        return float("inf")
    return float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-12))


def _pair(metric: Metric, expected: torch.Tensor, found: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
    if expected.shape != found.shape:
        return float("nan"), float("nan")
    return value_of(metric, expected, targets), value_of(metric, found, targets)


def load(folder: str | Path, *, prepared: bool = True) -> nn.Module:
    """The network of a folder that `mathnas export` or `mathnas shrink` wrote; ``rebuild.load`` says the rest."""
    return rebuild.load(folder, prepared=prepared)
