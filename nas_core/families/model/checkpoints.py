"""Files of trained weights, as people and frameworks write them.

A file may hold a state dict or something around one: under ``state_dict``,
``model_state_dict`` or any other name, averaged weights beside the plain ones,
every name behind a prefix (``module.``, ``model.``, ``_orig_mod.``). Nothing is
looked for by a list of such names: what is taken is what has all of the model's weights.
"""

import argparse
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nas_core.base.errors import DataError

State = Mapping[str, torch.Tensor]
EXPECTED = "a state dict, saved by torch.save or as .safetensors"
AVERAGED = ("ema", "averag", "swa")  # in the names of weights that are preferred to plain ones beside them
COUNTER = "num_batches_tracked"  # of normalisation; old files lack it, and nothing is computed with it
SHOWN = 3
# what stands beside weights in many files: the command line's arguments, the best accuracy as numpy's number
NUMBERS = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)]
HARMLESS: list[Any] = [argparse.Namespace, np._core.multiarray.scalar, np.dtype, *NUMBERS]  # type: ignore[attr-defined]


def load_weights(model: nn.Module, path: str, expected: str) -> None:
    """Fill the model with the weights in the file, all of which it has to have; ``expected`` says whose they should be.

    Raises:
        DataError: for a file that cannot be read, weights of another model, or weights that are no finite numbers.
    """
    where = f"space.checkpoint {path}"
    if Path(path).suffix in (".npz", ".npy"):
        return _of_numpy(model, path, where, expected)
    states = list(_states(_read(path, where)))
    if not states:
        raise DataError(where, "no weights by name", EXPECTED)
    own = model.state_dict()
    matching = (found for state in states if (found := _matched(state, own)) is not None)
    state = next(matching, states[0])
    wrong = [f"{name}: {_size(state[name])}, not {_size(own[name])}" for name in own if _differs(name, state, own)]
    if wrong:
        raise DataError(where, _listed("weights of other shapes", wrong), expected)
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise DataError(where, _difference(state, own), expected) from None
    broken = [name for name, weight in state.items() if weight.is_floating_point() and not weight.isfinite().all()]
    if broken:
        raise DataError(where, _listed("weights that are NaN or infinite", broken), "finite weights")


def _of_numpy(model: nn.Module, path: str, where: str, expected: str) -> None:
    """A foreign file, which some of timm's models read."""
    from timm.models import load_checkpoint

    try:
        load_checkpoint(model, path)
    except Exception as error:  # whatever the file makes it raise
        raise DataError(where, _one_line(error), expected) from None


def _read(path: str, where: str) -> Any:
    data = Path(path).read_bytes()
    if not data:
        raise DataError(where, "an empty file", EXPECTED)
    try:
        if data[8:9] == b"{":
            from safetensors.torch import load

            return load(data)
        if _is_script(data):
            raise DataError(where, "a TorchScript archive", EXPECTED)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except DataError:
        raise
    except Exception as error:  # torch and safetensors raise whatever the file makes them raise
        raise DataError(where, _why(data, error), EXPECTED, "Reading other objects would run their code.") from None


def _is_script(data: bytes) -> bool:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return False
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _why(data: bytes, error: Exception) -> str:
    _, is_object, name = str(error).partition("GLOBAL ")
    if is_object:
        return f"a pickled {name.split()[0]}"
    if zipfile.is_zipfile(io.BytesIO(data)) or data[:2] in (b"PK", b"\x80\x02", b"\x80\x04") or data[8:9] == b"{":
        return f"a damaged file, or one that holds no weights: {_one_line(error)}"
    return "a file that holds no weights"


def _one_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0]


def _states(found: Any) -> Iterator[State]:
    """The mappings of names to tensors, averaged ones first, then the outermost."""
    if not isinstance(found, Mapping):
        return
    inner = [name for name, value in found.items() if isinstance(value, Mapping)]
    averaged = [name for name in inner if any(word in str(name).lower() for word in AVERAGED)]
    for name in averaged:
        yield from _states(found[name])
    own = {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if own:
        yield own
    for name in inner:
        if name not in averaged:
            yield from _states(found[name])


def _matched(state: State, own: State) -> State | None:
    """The model's weights in the state, by the model's names; None where some are missing or the state has more.

    What stands beside the prefix that they have in common, such as a loss's own weights, is left out.
    """
    needed = [name for name in own if not name.endswith(COUNTER)]
    for prefix in {name.removesuffix(needed[0]) for name in state if name.endswith(needed[0])}:
        under = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if all(name in under for name in needed) and all(name in own for name in under):
            return {**own, **under}
    return None


def _differs(name: str, state: State, own: State) -> bool:
    return name in state and state[name].shape != own[name].shape


def _size(weight: torch.Tensor) -> str:
    return " x ".join(map(str, weight.shape)) or "one number"


def _difference(state: State, own: State) -> str:
    missing, more = [name for name in own if name not in state], [name for name in state if name not in own]
    parts = [_listed(f"without {len(missing)} of the model's {len(own)} weights", missing)] if missing else []
    parts += [_listed(f"with {len(more)} that the model does not have", more)] if more else []
    return f"weights {' and '.join(parts)}" if parts else "weights that the model does not take"


def _listed(what: str, names: list[str]) -> str:
    return f"{what} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
