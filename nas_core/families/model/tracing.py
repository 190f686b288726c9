"""What a model does with one input: which module is called inside which, with which tensors, and what it costs.

One forward pass with hooks is recorded as a tree of calls. Two tensors are
the same where their memory and its version are: a view is what it is a view
of, and what an operation changed in place is another tensor.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from nas_core.base.errors import SpaceError
from nas_core.base.fast_path import without_fast_path
from nas_core.families.model.rebuild import InTuple, OutOfTuple

# examples as a model takes them: on axis 0 of a tensor, or, as detectors want them, one by one in a list
Inputs = torch.Tensor | Sequence[Any]


def copied(inputs: Inputs) -> Any:
    """The examples with copies of their tensors: a model may work in place. One that stands twice is copied once."""
    copies: dict[int, torch.Tensor] = {}

    def copy_of(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) not in copies:
            copies[id(leaf)] = leaf.clone()
        return copies[id(leaf)]

    return tree_map(copy_of, inputs)


@dataclass(frozen=True)
class Seen:
    """A tensor at one moment: its memory, the version of what stands there, and its shape with axis 0."""

    memory: int
    version: int
    shape: tuple[int, ...] = field(compare=False)


@dataclass(frozen=True)
class Sum:
    """An addition of two tensors of one shape."""

    parts: tuple[Seen, Seen]
    total: Seen


@dataclass(kw_only=True, eq=False)
class Call:
    """One call of a module; ``taken`` is its first argument, ``given`` its output, where each is a tensor."""

    path: str
    module_type: type[nn.Module]
    index: int  # in the order in which calls begin
    flops: float = 0.0  # multiply-adds per example, those of inner calls included
    taken: Seen | None = None
    given: Seen | None = None
    flaw: str = ""  # why the module cannot be exchanged; empty: it can
    inner: list["Call"] = field(default_factory=list)  # the calls made directly inside, in order
    sums: list[Sum] = field(default_factory=list)  # made directly inside, in order
    scaled: dict[Seen, Seen] = field(default_factory=dict)  # products with numbers or smaller tensors: of what each is

    def everything(self) -> Iterator["Call"]:
        """The call and all calls inside it, in the order in which they begin."""
        yield self
        for call in self.inner:
            yield from call.everything()

    @property
    def is_chain(self) -> bool:
        """Whether each inner call takes what the one before it gave, from this one's input up to its output."""
        at = self.taken
        for call in self.inner:
            if at is None or call.taken != at:
                return False
            at = call.given
        return bool(self.inner) and at is not None and at == self.given

    @property
    def branches(self) -> list["Call"]:
        """The inner calls whose outputs are added, one after another, to what this takes until that is what it gives.

        Scales and layers that cost nothing, such as norms, may stand between. Empty where it does something else, too.
        """
        layers = ((call.given, call.taken) for call in self.inner if not call.flops and call.given != call.taken)
        free: dict[Seen | None, Seen | None] = dict([*self.scaled.items(), *layers])
        makers = {call.given: call for call in self.inner if call.flops}

        def source(seen: Seen | None) -> Seen | None:
            while seen in free:
                seen = free[seen]
            return seen

        passing, found = {self.taken}, []
        for each in self.sums:
            one, other = map(source, each.parts)
            if one not in passing:
                one, other = other, one
            if one not in passing:
                continue
            passing.add(each.total)
            if other not in passing:
                found.append(makers.get(other))
        if source(self.given) not in passing or None in found:
            return []
        return [call for call in found if call is not None]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards all flags and buffers are what they were."""
    training = {module: module.training for module in model.modules()}
    buffers = [
        (module, name, buffer, buffer.clone(), buffer._version)
        for module in training
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was)  # the method: some models drop what they remember of their weights here
        for module, flag in training.items():
            module.training = flag
        with torch.no_grad():
            for module, name, buffer, kept, version in buffers:
                if buffer._version != version:
                    buffer.copy_(kept)
                module._buffers[name] = buffer


def trace(model: nn.Module, inputs: Inputs) -> Call:
    """The tree of calls of one forward pass in evaluation mode, the model itself at its root, with path "".

    Costs are multiply-adds per example, counted by torch's own formulas, halved.

    Raises:
        SpaceError: if the model does not run on the inputs.
    """
    with evaluating(model):
        root = _run(model, inputs)
        _mark(root, len(inputs), _of_another_batch(model, inputs))
    return root


def _run(model: nn.Module, inputs: Inputs) -> Call:
    recorder = _Recorder()
    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(partial(recorder.begin, path), with_kwargs=True))
        handles.append(module.register_forward_hook(recorder.end, with_kwargs=True))
    try:
        with without_fast_path(), recorder:
            model(copied(inputs))
    except Exception as error:
        found, advice = f"{type(error).__name__}: {error}", IN_FULL if any(map(str(error).count, OTHERS)) else ""
        raise SpaceError(
            f"model {type(model).__name__}", found, f"a model that runs on {_text(inputs)}", advice
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    for call in recorder.root.everything():
        call.flops /= 2 * len(inputs)  # formulas count multiplications and additions apart
    return recorder.root


def _of_another_batch(model: nn.Module, inputs: Inputs) -> Call | None:
    """The calls on one example, or two of it where there is one; None for a model of a fixed batch."""
    twice = torch.cat([inputs, inputs]) if isinstance(inputs, torch.Tensor) else [*inputs, *inputs]
    other = inputs[:1] if len(inputs) > 1 else twice
    try:
        return _run(model, other)
    except SpaceError:
        return None


def _mark(root: Call, batch: int, other: Call | None) -> None:
    """Say of each call why its module cannot be exchanged, where it cannot."""
    calls = list(root.everything())
    times = Counter(call.path for call in calls)
    others: Mapping[str, Call] = {call.path: call for call in other.everything()} if other else {}
    for call in calls:
        if times[call.path] > 1:
            call.flaw = f"{CALLED} {times[call.path]} times"
        elif not call.flaw and call is not root and call.path in others:
            call.flaw = _batch_flaw(call, others[call.path], batch, 1 if batch > 1 else 2)


def _batch_flaw(call: Call, other: Call, batch: int, other_batch: int) -> str:
    """Axis 0 has to grow with the number of examples (windows of an image, put there, do)."""
    for here, there in ((call.taken, other.taken), (call.given, other.given)):
        assert here is not None
        if there is None or here.shape[:1] != tuple(size * batch // other_batch for size in there.shape[:1]):
            return "axis 0 of its input or output is not that of the examples"
    return ""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves __init_subclass__ untyped
    """Keeps the calls that hooks report, and counts what is computed between them."""

    root: Call

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._open: list[Call] = []
        self._stores: list[list[tuple[str, int]]] = []  # of the open calls, as they began
        self._num_calls = 0
        self._flops = 0
        self._alive: list[torch.Tensor] = []  # so that no two tensors are seen at one address

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = self._operands(func, args)
        result = func(*args, **(kwargs or {}))
        if before:
            self._note(before, self._seen(result), is_sum=func._overloadpacket in _SUMS)
        if formula := _FORMULAS.get(func._overloadpacket):
            self._flops += formula(*args, **(kwargs or {}), out_val=result)
        return result

    def _operands(self, func: Any, args: tuple[Any, ...]) -> list[Seen]:
        """Of a sum or a product the larger operand, or both where they are equally large."""
        if not self._open or func._overloadpacket not in (*_SUMS, *_PRODUCTS):
            return []
        tensors = [each for each in args[:2] if isinstance(each, torch.Tensor)]
        most = max((each.numel() for each in tensors), default=0)
        return [self._seen(each) for each in tensors if each.numel() == most]

    def _note(self, operands: list[Seen], given: Seen, *, is_sum: bool) -> None:
        if given in operands:  # worked in place: its version is set once this is over
            given = replace(given, version=given.version + 1)
        if is_sum and len(operands) > 1:
            self._open[-1].sums.append(Sum((operands[0], operands[1]), given))
        elif not is_sum and len(operands) == 1:
            self._open[-1].scaled[given] = operands[0]

    def begin(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = Call(path=path, module_type=class_of(module), index=self._num_calls, flops=-self._flops)
        self._num_calls += 1
        if args and isinstance(args[0], torch.Tensor):
            call.taken = self._seen(args[0])
        if call.taken is None:
            call.flaw = "its first argument is no tensor"
        elif not args[0].is_floating_point():
            call.flaw = f"its first argument is of type {args[0].dtype}"
        if self._open:
            self._open[-1].inner.append(call)
        else:
            self.root = call
        self._open.append(call)
        self._stores.append(_stores_among((args, kwargs)))

    def end(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call = self._open.pop()
        call.flops += self._flops
        before, after = self._stores.pop(), _stores_among((args, kwargs))
        if grown := [name for (name, here), (_, there) in zip(before, after, strict=False) if here != there]:
            call.flaw = call.flaw or f"it stores tensors in a {grown[0]} that it is given ({WITHOUT_CACHE})"
        if isinstance(output, torch.Tensor):
            call.given = self._seen(output)
        else:
            num_tensors = sum(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(output))
            call.flaw = call.flaw or f"it returns a {type(output).__name__} of {num_tensors} tensors"
        if type(module) is InTuple:  # no more than a frame: what is in it is called by what calls it
            self._open[-1].inner[-1:] = call.inner
        elif type(module) is OutOfTuple:
            (framed,) = call.inner
            call.module_type, call.inner = framed.module_type, framed.inner
            call.sums, call.scaled = framed.sums, framed.scaled

    def _seen(self, tensor: torch.Tensor) -> Seen:
        self._alive.append(tensor)
        return Seen(tensor.untyped_storage()._cdata, tensor._version, tuple(tensor.shape))


def _stores_among(arguments: Any) -> list[tuple[str, int]]:
    """Objects that can hold tensors: the class of each, and how many numbers it holds."""
    objects = (leaf for leaf in tree_leaves(arguments) if hasattr(leaf, "__dict__"))
    kept = (each for each in objects if not isinstance(each, torch.Tensor | nn.Module))
    return [(type(each).__name__, _numbers_in(each, STORED_DEPTH)) for each in kept]


def _numbers_in(value: Any, depth: int) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, Mapping):
        inner = list(value.values())
    else:
        inner = list(
            value if isinstance(value, list | tuple) else vars(value).values() if hasattr(value, "__dict__") else ()
        )
    return sum(_numbers_in(each, depth - 1) for each in inner) if depth else 0


def class_of(module: nn.Module) -> type[nn.Module]:
    """The module's class; a module made of a graph has one of its own, below that which is meant."""
    own = type(module)
    return own.__bases__[0] if isinstance(module, torch.fx.GraphModule) else own


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    flops: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return flops


def _attention_on_cpu(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> int:
    return _attention(query.shape, key.shape, value.shape)


def _recurrent(inputs: Sequence[int], into: Sequence[int], within: Sequence[int], *_: Any, **__: Any) -> int:
    """Of all steps of an LSTM's layer: its inputs and its state by a matrix each."""
    return 2 * math.prod(inputs[:-1]) * (math.prod(into) + math.prod(within))


def _recurrent_on_cpu(inputs: torch.Tensor, into: torch.Tensor, within: torch.Tensor, *_: Any, **__: Any) -> int:
    return _recurrent(inputs.shape, into.shape, within.shape)


_SUMS = (torch.ops.aten.add, torch.ops.aten.add_)
_PRODUCTS = (torch.ops.aten.mul, torch.ops.aten.mul_)

_CPU_KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
OTHERS = ("BFloat16", "Half", "Double", "(double)")  # types than float32, as torch's errors name them
CALLED = "it is called"  # so many times
ONE_CALL = (
    "What is called for several inputs, none of which waits for another's output, can be called once: put them in one "
    "batch (torch.cat), split what comes out."
)
WITHOUT_CACHE = "a cache: make the model without, such as by `use_cache=False`"
STORED_DEPTH = 4  # of objects in objects: a cache has a list of layers, each with its tensors
IN_FULL = (
    "Its weights are brought to float32, so its forward pass must not cast to another type by itself; "
    "x.to(self.stem.weight.dtype), say, casts to what they are."
)
_CPU_LSTM = torch.ops.aten.mkldnn_rnn_layer
# of torch's formulas, by shapes: what its counter has to be told
LEFT_OUT = {_CPU_KERNEL: _attention, _CPU_LSTM: _recurrent}
_FORMULAS: dict[Any, Any] = {**flop_registry, _CPU_KERNEL: _attention_on_cpu, _CPU_LSTM: _recurrent_on_cpu}


def _text(inputs: Inputs) -> str:
    if not isinstance(inputs, torch.Tensor):
        return f"a list of {len(inputs)}, each {_text(inputs[0])}" if len(inputs) else "an empty list"
    return f"a {inputs.dtype} tensor of shape {tuple(inputs.shape)}".replace("torch.", "")
