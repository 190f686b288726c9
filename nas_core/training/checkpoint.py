"""Checkpoints without pickle: one safetensors file whose header carries the JSON part of the state.

One file, written whole through the store, so tensors and JSON can never
belong to different steps.
"""

import hashlib
import json
import logging
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as st

from nas_core.base.errors import StoreError
from nas_core.records.store import Store

log = logging.getLogger(__name__)
JSON_KEY = "state"
TEXTS, CHECKSUM = "__metadata__", "sha256"  # in a file's header: its texts, one of which is told by its tensors


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a training keeps its state, and how often.

    ``every_s`` seconds pass between two saves at least; ``run_id`` names what
    is trained (recipe, data, seed): a state of another run is not resumed.
    """

    store: Store
    path: str
    run_id: str
    every_s: float = 30.0

    def save(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        text = json.dumps({"run_id": self.run_id, **state})
        self.store.write_bytes(self.path, pack(tensors, {JSON_KEY: text}))

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The saved tensors (on the CPU) and state; None if there is none of this run."""
        if not self.store.exists(self.path):
            return None
        try:
            tensors, metadata = unpack(self.store.read_bytes(self.path))
            state = json.loads(metadata[JSON_KEY])
        except (ValueError, KeyError) as error:
            log.warning("checkpoint %s is unreadable (%s): training starts afresh", self.path, error)
            return None
        if state.pop("run_id", None) != self.run_id:
            log.info("checkpoint %s is of another training: this one starts afresh", self.path)
            return None
        return tensors, state

    def remove(self) -> None:
        self.store.delete(self.path)


def pack(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The tensors and texts as one safetensors file."""
    # safetensors wants plain contiguous tensors, none of them shared; strides are the reader's affair.
    plain, seen = dict[str, torch.Tensor](), set[int]()
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
        memory = here.untyped_storage().data_ptr()
        plain[name] = here.clone() if memory in seen else here
        seen.add(memory)
    header, values = _parts(bytes(st.save(plain)))
    header[TEXTS] = {**(metadata or {}), CHECKSUM: _checksum(values)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return struct.pack("<Q", len(text)) + text + values


def unpack(data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and texts of a safetensors file; ValueError if it is damaged."""
    try:
        tensors, (header, values) = st.load(data), _parts(data)
    except (SafetensorError, struct.error) as error:
        raise ValueError(str(error)) from None
    texts = dict(header.get(TEXTS, {}))
    if texts.pop(CHECKSUM, None) not in (None, _checksum(values)):  # files of other programs have none
        raise ValueError("its checksum is another")
    return tensors, texts


def stored_weights(store: Store, path: str) -> dict[str, torch.Tensor]:
    """Weights that a scorer keeps in the study's store; a damaged file is set aside, so that they are made again.

    Not here: they were made with other threads, and by one worker for all.

    Raises:
        StoreError: if they are damaged, or not there.
    """
    try:
        return unpack(store.read_bytes(path))[0]
    except FileNotFoundError:  # or another worker has set it aside
        found = "no file"
    except ValueError as error:
        found = f"a damaged file ({error})"
        with suppress(FileNotFoundError):
            store.set_aside(path, found)
    raise StoreError(store.uri(path), found, "trained weights", "The same command makes them again.")


def _parts(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """The header of a safetensors file, and the bytes of its tensors."""
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), memoryview(data)[8 + length :]


def _checksum(values: memoryview) -> str:
    return hashlib.sha256(values).hexdigest()
