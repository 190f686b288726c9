"""The memory that activations take while a module runs."""

import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves __init_subclass__ untyped
    """Follows the storages that operations create until nothing refers to them.

    ``now`` are the bytes alive at this moment, ``peak`` the most at once; the module's weights are none of them.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        tensors = [*module.parameters(), *module.buffers()]
        self._seen = {tensor.untyped_storage()._cdata for tensor in tensors}
        self.now = self.peak = 0
        for tensor in inputs:
            self._follow(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        # A normalisation also returns statistics that only training keeps (and only the meta device allocates).
        activations = result[0] if "norm" in func.__name__ and isinstance(result, tuple) else result
        for leaf in tree_leaves(activations):
            if isinstance(leaf, torch.Tensor):
                self._follow(leaf)
        return result

    def _follow(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, num_bytes = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += num_bytes
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key, num_bytes)

    def _release(self, key: int, num_bytes: int) -> None:
        self._seen.discard(key)
        self.now -= num_bytes

    def follows(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor's memory is among what is counted."""
        return tensor.untyped_storage()._cdata in self._seen


def without_values(run: Callable[[str], T]) -> T:
    """What ``run`` gives on torch's meta device, which computes nothing; on the CPU where it asks for values."""
    try:
        return run("meta")
    except (RuntimeError, TypeError):  # what else is wrong the CPU says as well
        return run("cpu")


def beside(network: nn.Module, inputs: torch.Tensor, paths: Collection[str]) -> dict[str, int]:
    """Bytes that are alive when the modules at these paths are called, beside what they take: held for later.

    The network is run in eval mode where the inputs are; the largest of several calls of a module counts.
    """
    found = dict.fromkeys(paths, 0)
    with ExitStack() as stack, torch.no_grad(), LiveBytes(network, [inputs]) as alive:
        for path in paths:

            def look(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any], path: str = path) -> None:
                first = next(leaf for leaf in tree_leaves((given, named)) if isinstance(leaf, torch.Tensor))
                own = first.untyped_storage().nbytes() if alive.follows(first) else 0
                found[path] = max(found[path], alive.now - own)

            module = network.get_submodule(path)
            stack.callback(module.register_forward_pre_hook(look, with_kwargs=True).remove)
        network(inputs)
    return found
