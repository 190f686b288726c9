"""Files of trained weights, as people and frameworks write them.

A file may hold a state dict or something around one: under ``state_dict``,
``model_state_dict`` or any other name, averaged weights beside the plain ones,
every name behind a prefix (``module.``, ``model.``, ``_orig_mod.``). Nothing is
looked for by a list of such names: what is taken is what has all of the model's weights.
Names decide only where a file has several such sets.
"""

import argparse
import pathlib
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nas_core.base.errors import DataError

State = Mapping[str, Any]  # tensors, and what else a module keeps in its state
EXPECTED = "a state dict, saved by torch.save or as .safetensors"
AVERAGED = frozenset(("ema", "swa", "average", "averaged", "avg"))  # words for weights preferred to plain ones
PLAIN = frozenset(("state", "dict", "model", "net", "network", "params", "weights", "module", "shadow", "trainer"))
COMPILED = "_orig_mod."  # what torch.compile writes before the names of a module's weights, wherever it stands
COUNTER = "num_batches_tracked"  # of normalisation; old files lack it, and nothing is computed with it
MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # at the beginning of what torch.save wrote before it wrote zip archives
LONGEST_HEADER = 100_000_000  # bytes, of .safetensors
PROGRAM = "an exported program"
SHOWN = 3
# what stands beside weights in many files: the command line's arguments with its paths, numpy's numbers and arrays
NUMBERS = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.uint32)]
MADE = [np._core.multiarray._reconstruct, np._core.multiarray.scalar]  # type: ignore[attr-defined]
OLD = [(maker, f"numpy.core.multiarray.{maker.__name__}") for maker in MADE]  # as numpy 1 wrote them
HARMLESS: list[Any] = [argparse.Namespace, pathlib.PosixPath, np.ndarray, np.dtype, *NUMBERS, *MADE, *OLD]


def load_weights(model: nn.Module, path: str, expected: str) -> None:
    """Fill the model with the weights in the file, all of which it has to have; ``expected`` says whose they should be.

    Averaged weights are taken where there are plain ones, too.

    Raises:
        DataError: for a file that cannot be read, weights of another model, several models' of which none is meant
            more than the others, or weights that are no finite numbers.
    """
    where = f"space.checkpoint {path}"
    if Path(path).suffix in (".npz", ".npy") and hasattr(model, "load_pretrained"):
        _of_numpy(model, path, where, expected)
    else:
        content = _read(Path(path), where)
        own = model.state_dict()
        found = sorted(_found(content, own), key=_Found.order)
        for wrapper in _wrappers(own) if found and found[0].missing else ():
            found = sorted([*found, *_found(content, own, wrapper)], key=_Found.order)
        if not found:
            raise DataError(where, _nothing(content), EXPECTED)
        try:
            model.load_state_dict(found[0].state)
        except Exception:  # a module's own hooks raise what they like
            raise DataError(where, found[0].difference(own), expected) from None
        others = [other.name for other in found[1:] if found[0].is_rivalled_by(other)]
        if others:
            advice = "Save the one that you mean in a file of its own."
            raise DataError(where, _listed("several sets of weights", [found[0].name, *others]), "one", advice)
    broken = not_finite(model)
    if broken:
        raise DataError(where, _listed("weights that are NaN or infinite", broken), "finite weights")


def not_finite(model: nn.Module) -> list[str]:
    """The names of the weights that are NaN or infinite; a buffer may be -inf, as masks are."""
    weights = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return [
        name
        for name, value in model.state_dict().items()
        if isinstance(value, torch.Tensor) and not _is_finite(value, is_mask=name not in weights)
    ]


def _is_finite(value: torch.Tensor, *, is_mask: bool) -> bool:
    if not value.is_floating_point():
        return True
    value = value.float() if value.itemsize == 1 else value  # torch has no isfinite for 8 bits
    return bool((value.isfinite() | value.isneginf() if is_mask else value.isfinite()).all())


def _of_numpy(model: nn.Module, path: str, where: str, expected: str) -> None:
    """A foreign file, which some of timm's models read."""
    from timm.models import load_checkpoint

    try:
        load_checkpoint(model, path)
    except Exception as error:  # whatever the file makes it raise
        raise DataError(where, one_line(error), expected) from None


def _read(path: Path, where: str) -> Any:
    try:
        foreign = what_it_is(path)
    except OSError as error:
        raise DataError(where, error.strerror or one_line(error), EXPECTED) from None
    if foreign:
        raise DataError(where, foreign, EXPECTED)
    try:
        if _is_safetensors(path):
            from safetensors.torch import load_file

            return load_file(path)
        with path.open("rb") as file, torch.serialization.safe_globals(HARMLESS):  # torch would go by the path's suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise whatever the file makes them raise
        _, is_object, name = str(error).partition("GLOBAL ")
        if not is_object:
            raise DataError(where, "a file that is damaged, cut short or no checkpoint", EXPECTED) from None
        advice = "Save the weights alone, torch.save(model.state_dict(), FILE): reading other objects runs their code."
        raise DataError(where, f"a pickled {name.split()[0]}", EXPECTED, advice) from None


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER


def what_it_is(path: Path) -> str:
    """What a file is that is no file of weights, as its bytes say; empty where it may be one."""
    with path.open("rb") as file:
        start = file.read(256)
    if not start:
        return "an empty file"
    if _is_safetensors(path):  # the length that it begins with may have the first bytes of any other
        return ""
    if start.startswith(b"PK"):
        return _archive(path)
    if start.startswith(b"\x80"):
        return "" if MAGIC in start[:40] else "a pickle that torch.save did not write"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS instead of the file, which 'git lfs pull' fetches"
    if start.isascii() and all(byte >= ord(" ") or byte in b"\t\r\n" for byte in start):
        return f"a text file that begins with {' '.join(start.decode().split())[:40]!r}"
    return ""


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile:
        return "a file that is cut short"
    if names & {"archive_format", "serialized_exported_program.json"}:
        return PROGRAM
    if "constants.pkl" in names:
        return "a TorchScript archive"
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive"
    return "" if "data.pkl" in names else "a zip archive that torch.save did not write"


def one_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0]


def _nothing(content: Any) -> str:
    if isinstance(content, Mapping) and content:
        return _listed("no weights by name, but entries", [str(name) for name in content])
    kind = "dict without entries" if isinstance(content, Mapping) else type(content).__name__
    return f"no weights by name, but a {kind}"


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Weights in a file by the model's names."""

    name: str  # of what holds them in the file, with the prefix of their names
    prefix: str
    state: State
    missing: Sequence[str]  # of the model's names
    differing: Sequence[str]  # names of what has another shape than the model's

    def order(self) -> tuple[int, int, bool, int, int]:
        """Less for what is more likely to be meant."""
        words = set(re.split(r"[^a-z0-9]+", self.name.lower())) - {""}
        unusual = len(words - AVERAGED - PLAIN)
        size = len(self.state) if self.missing else 0
        return len(self.missing), len(self.differing), not words & AVERAGED, unusual, -size

    def is_rivalled_by(self, other: "_Found") -> bool:
        """Whether nothing says which of the two is meant, and they are not the same."""
        if self.order() != other.order():
            return False
        return self.state.keys() != other.state.keys() or not all(
            name.endswith(COUNTER) or _is_same(value, other.state[name]) for name, value in self.state.items()
        )

    def difference(self, own: State) -> str:
        more = [self.prefix + name for name in self.state if name not in own]
        shapes = [f"{name}: {_size(self.state[name])}, not {_size(own[name])}" for name in self.differing]
        parts = []
        if self.missing:
            whole = sum(not name.endswith(COUNTER) for name in own)
            parts.append(_listed(f"without {len(self.missing)} of the model's {whole} weights", self.missing))
        if more:
            parts.append(_listed(f"with {len(more)} that the model does not have", more))
        if shapes:
            parts.append(_listed("of other shapes", shapes))
        return f"weights {' and '.join(parts)}" if parts else "weights that the model does not take"


def _wrappers(own: State) -> list[str]:
    """What all names begin with: of a module around the model that the weights are of."""
    first = next(iter(own), "")
    prefixes = [first[: dot.end()] for dot in re.finditer(r"\.", first)]
    return [prefix for prefix in prefixes if all(name.startswith(prefix) for name in own)]


def _found(content: Any, own: State, wrapper: str = "") -> Iterator[_Found]:
    """What may be the model's weights: of every mapping to tensors, what has most of them behind one prefix.

    ``wrapper`` is a prefix that the model's names have and the file's do not.
    """
    names = {name.removeprefix(wrapper).replace(COMPILED, ""): name for name in own}
    counters = {name: value for name, value in own.items() if name.endswith(COUNTER)}
    for holder, entries in _states(content):
        state = {name.replace(COMPILED, ""): value for name, value in entries.items()}
        for prefix in _prefixes(state, names):
            behind = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            kept = {
                names.get(name, name): value
                for name, value in behind.items()
                if isinstance(value, torch.Tensor) or name in names
            }
            yield _Found(
                name=f"{holder}.{prefix}".strip(".") or "the file itself",
                prefix=prefix,
                state={**counters, **kept},
                missing=[name for name in own if name not in kept and name not in counters],
                differing=[name for name, value in kept.items() if name in own and _shape(value) != _shape(own[name])],
            )


def _states(content: Any) -> Iterator[tuple[str, State]]:
    """The mappings of names to tensors with the names on the way to them, the outermost first."""
    waiting, seen = [("", content)], set[int]()
    for holder, value in waiting:
        if not isinstance(value, Mapping) or id(value) in seen:
            continue
        seen.add(id(value))
        if any(isinstance(entry, torch.Tensor) for entry in value.values()):
            yield holder, {str(name): entry for name, entry in value.items()}
        waiting += [(f"{holder}.{name}".strip("."), entry) for name, entry in value.items()]


def _prefixes(state: State, names: Mapping[str, str]) -> Sequence[str]:
    """Those behind which most of the names are found; none where that is not even half of them."""
    behind = Counter[str]()
    for name in state:
        ends = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
        behind.update(name[:end] for end in ends if name[end:] in names)
    most = max(behind.values(), default=0)
    return [prefix for prefix, count in behind.items() if count == most] if 2 * most >= max(1, len(names)) else [""]


def _is_same(value: Any, other: Any) -> bool:
    if not isinstance(value, torch.Tensor) or not isinstance(other, torch.Tensor):
        return True  # what else a module keeps is none of its weights
    return value.dtype == other.dtype and torch.equal(value, other)


def _shape(value: Any) -> Sequence[int]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _size(value: Any) -> str:
    return " x ".join(map(str, _shape(value))) or "one number"


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
