"""Modules exchanged in place, and the proof that a model hears of none of it.

A module can be exchanged where the model does nothing with it but call it: an
opaque copy, which only calls the original, must change no bit of the output.
"""

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from nas_core.base.errors import SpaceError
from nas_core.families.model.tracing import Inputs, copied, evaluating

HEARD = "a hook hears what it is given, or gives"
SHOWN = 3  # of a model's buffers, in a line


@contextmanager
def exchanged(model: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """The model with other modules at some paths; afterwards its own are back."""
    own = {path: model.get_submodule(path) for path in modules}
    try:
        for path, module in modules.items():
            model.set_submodule(path, module)
        yield
    finally:
        for path, module in own.items():
            model.set_submodule(path, module)


def reasons_against(model: nn.Module, inputs: Inputs, paths: Sequence[str]) -> dict[str, str]:
    """The modules that opaque copies cannot stand for, each with the reason; all others can, together, bit for bit.

    Raises:
        SpaceError: if the model's output holds no tensor, or differs when it is asked twice.
    """
    reasons = {path: HEARD for path in paths if _is_heard(model.get_submodule(path))}
    with evaluating(model):
        expected = copied(model(copied(inputs)))
        if not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(expected)):
            found = f"an output of type {type(expected).__name__}"
            raise SpaceError(f"model {type(model).__name__}", found, "a tensor, or tensors in tuples, lists and dicts")
        while blamed := _blamed(model, inputs, [path for path in paths if path not in reasons], expected):
            reasons |= blamed
    return reasons


def check_copies(model: nn.Module, inputs: Inputs) -> None:
    """Whether a copy of the model computes by itself, as every network that is made of the model does.

    Raises:
        SpaceError: if it cannot be copied, or its copy computes with what is the model's.
    """
    where, expected = f"model {type(model).__name__}", "a model of which a copy computes by itself"
    advice = (
        "A function that holds `self`, such as a lambda or a hook made in __init__, goes on with the first model's."
    )
    try:
        another = copy.deepcopy(model)
    except Exception as error:
        found = f"one that cannot be copied ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise SpaceError(where, found, expected, "Does it keep a tensor of a forward pass?") from None
    watch, failed = _Watch(model), ""
    others = inputs.flip(0) if isinstance(inputs, torch.Tensor) else inputs[::-1]
    with evaluating(model), evaluating(another):
        try:
            wanted, again = (copied(model(copied(others))) for _ in range(2))
            model(copied(inputs))  # what it keeps of a pass is not of these examples
        except Exception:  # inputs that it does not take are said where it is split
            return
        try:
            with watch:
                outputs = another(copied(others))
        except Exception as error:
            failed = f"a copy that stops ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    if watch.met:
        failed = f"a copy that computes with the first one's {', '.join(sorted(watch.met)[:3])}"
    elif not failed and _same(wanted, again) and not _same(outputs, wanted):
        failed = "a copy that computes with something of the first one's"
    if failed:
        raise SpaceError(where, failed, expected, advice)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves __init_subclass__ untyped
    """Notes which of a model's parameters and buffers anything is computed with."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        tensors = (*model.named_parameters(), *model.named_buffers())
        self._names = {tensor.untyped_storage()._cdata: name for name, tensor in tensors}
        self.met: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = (leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.Tensor))
        self.met |= {self._names[place] for each in given if (place := each.untyped_storage()._cdata) in self._names}
        return func(*args, **(kwargs or {}))


def _blamed(model: nn.Module, inputs: Inputs, paths: list[str], expected: Any) -> dict[str, str]:
    """At least one of the paths with its reason, unless all can be exchanged together."""
    failed = _Trial(model, inputs, paths, expected)
    if not failed.reason or failed.blamed:
        return failed.blamed
    if _Trial(model, inputs, [], expected).reason:
        found, advice = "two outputs for one input", ""
        if written := _written_buffers(model, inputs):
            more = f" and {len(written) - SHOWN} more" if len(written) > SHOWN else ""
            found += f", as it changes buffers when it is called: {', '.join(written[:SHOWN])}{more}"
            advice = "Change them where `self.training` is true only."
        expected = "the same output each time, in evaluation mode"
        raise SpaceError(f"model {type(model).__name__}", found, expected, advice)
    # the shortest head of the list that cannot be exchanged: its last is to blame, without it the others pass
    passing, failing = 0, len(paths)
    while failing - passing > 1:
        middle = (passing + failing) // 2
        trial = _Trial(model, inputs, paths[:middle], expected)
        if trial.reason:
            failing, failed = middle, trial
        else:
            passing = middle
    guilty = paths[failing - 1]
    return {guilty: failed.reason_of(guilty)}


def _written_buffers(model: nn.Module, inputs: Inputs) -> list[str]:
    """Names of the buffers that have other values after the model was called."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(copied(inputs))
    return [name for name, buffer in model.named_buffers() if name not in before or not _equal(buffer, before[name])]


class _Trial:
    """One run with opaque copies: the reason why it failed, or "", and whom that names beyond doubt."""

    def __init__(self, model: nn.Module, inputs: Inputs, paths: Sequence[str], expected: Any) -> None:
        self._copies = {path: Opaque(model.get_submodule(path)) for path in paths}
        self.reason = ""
        self.blamed: dict[str, str] = {}
        try:
            with exchanged(model, self._copies):
                output = model(copied(inputs))
        except Exception as error:
            self.reason = f"with a copy of it the model stops: {type(error).__name__}: {error}"
            self.blamed = {
                path: self.reason_of(path) for path, stand_in in self._copies.items() if _missed(error, stand_in)
            }
            return
        calls = {path: stand_in.num_calls for path, stand_in in self._copies.items() if stand_in.num_calls != 1}
        if calls:
            self.reason = "not each copy is called once"
            self.blamed = {path: f"a copy at its path is called {count} times" for path, count in calls.items()}
        elif not _same(output, expected):
            self.reason = "with a copy of it the output differs"

    def reason_of(self, path: str) -> str:
        """What went wrong, told of the module at the path."""
        reads = self._copies[path].reads
        return f"its .{reads[-1]} is read" if reads else self.reason


def first_name(module: nn.Module) -> str:
    """What the module calls its first argument, or "" where it has no name for one."""
    known = iter(inspect.signature(module.forward).parameters.values())
    first = next(known, None)
    return first.name if first is not None and first.kind is first.POSITIONAL_OR_KEYWORD else ""


def first_argument(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A call's first argument, also where it is given by its name; None without one."""
    return args[0] if args else kwargs.get(first_name(module))


class Opaque(nn.Module):
    """Calls a module, and has nothing of it that another could read.

    The module gets its own copy of the first argument, so that one which
    changes its input in place is found out where that input is read again.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._inside = [module]  # in a list: no submodule, so no parameters or children of it are to be seen
        self.num_calls = 0
        self.reads: list[str] = []  # what was asked for and the module would have had

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module makes of the tensor, with all further arguments as they are."""
        self.num_calls += 1
        first = first_argument(self._inside[0], args, kwargs)
        if isinstance(first, torch.Tensor):
            own = first.clone()  # wherever it stands: torch's attention asks whether its query is its key
            args, kwargs = tree_map(lambda leaf: own if leaf is first else leaf, (args, kwargs))
        return self._inside[0](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        inside = self.__dict__.get("_inside")
        if inside and hasattr(inside[0], name):
            self.reads.append(name)
        raise AttributeError(f"an exchanged module has no {name}", name=name, obj=self)


def _is_heard(module: nn.Module) -> bool:
    """Whether hooks of the model's maker hear of it or of what is in it: what stands in its place they would not.

    torch's own, which make a layer's weights, do not count.
    """
    hooks = (
        hook for each in module.modules() for hook in (*each._forward_hooks.values(), *each._forward_pre_hooks.values())
    )
    return any(not str(getattr(hook, "__module__", "")).startswith("torch.") for hook in hooks)


def _missed(error: Exception, stand_in: Opaque) -> bool:
    """Whether the error says that the copy lacks what its original has."""
    return isinstance(error, AttributeError) and error.obj is stand_in and error.name in stand_in.reads


def _same(found: Any, expected: Any) -> bool:
    """Equal in form and bit for bit; what is not a number is equal to itself."""
    (leaves, form), (others, other_form) = tree_flatten(found), tree_flatten(expected)
    return form == other_form and all(map(_equal, leaves, others))


def _equal(found: Any, expected: Any) -> bool:
    if not isinstance(found, torch.Tensor) or not isinstance(expected, torch.Tensor):
        return type(found) is type(expected)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    return bool(((found == expected) | ((found != found) & (expected != expected))).all())
