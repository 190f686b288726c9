"""A block of a trained model while an alternative to it is made: a copy that is changed, and the changes written down.

B = examples, on axis 0 of every input; the layout of images and tokens is the model's own.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from nas_core.families.model.rebuild import Attention, Change, SelfAttention, described
from nas_core.families.model.tracing import copied
from nas_core.families.model.widths import (
    CONVOLUTIONS,
    WIDTHS_OF_HEADS,
    Table,
    Width,
    channel_axis,
    first_input,
    heads_in,
    indices,
    out_width,
    widths,
)

NUM_ROWS = 3  # layers of attention's that have a row for each channel of all heads: to queries, keys and values
SAME = 1e-3  # of the largest value: what rounding may make of a sum of as many channels in another order
ROUNDED_DOWN_AT_MOST = 0.9  # of the width asked for: rounding to the device's liking takes no more


@dataclass(frozen=True, kw_only=True)
class Call:
    """How a model calls one of its blocks: the first input is what flows, the rest is context that stays."""

    inputs: torch.Tensor
    context: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)
    constant: frozenset[int] = frozenset()  # which leaves of the context have no row for each example

    def run(self, block: nn.Module) -> torch.Tensor:
        """The block's output; what it is given stays as it is, also where it changes that."""
        inputs, context, named = copied((self.inputs, self.context, dict(self.named)))
        output: torch.Tensor = block(inputs, *context, **named)
        return output

    def in_full(self) -> "Call":
        """The same call with all its values in full precision."""
        inputs, context, named = tree_map(in_full, (self.inputs, self.context, dict(self.named)))
        return replace(self, inputs=inputs, context=context, named=named)

    def beside(self, other: "Call") -> "Call":
        """This call, told by one for another number of examples which context has no row for each example."""
        here, there = (tree_leaves((each.context, dict(each.named))) for each in (self, other))
        both = enumerate(zip(here, there, strict=False))
        constant = (index for index, (one, another) in both if _shape(one) == _shape(another))
        return replace(self, constant=frozenset(constant))

    def on(self, inputs: torch.Tensor) -> "Call":
        """The same call with other inputs; context that has a row per example is repeated for as many."""
        leaves, spec = tree_flatten((self.context, dict(self.named)))
        fitted = [each if index in self.constant else self._fitted(each, inputs) for index, each in enumerate(leaves)]
        context, named = tree_unflatten(fitted, spec)
        return Call(inputs=inputs, context=context, named=named)

    def _fitted(self, value: Any, inputs: torch.Tensor) -> Any:
        if value is self.inputs:  # the keys and values of torch's attention, say
            return inputs
        here, count = len(self.inputs), len(inputs)
        if not isinstance(value, torch.Tensor) or not value.ndim or here in (1, count) or value.shape[0] % here:
            return value
        rows = value.reshape(here, -1, *value.shape[1:])  # several for each example, where it has a mask for each head
        return rows[:1].expand(count, *rows.shape[1:]).flatten(0, 1)


def in_full(value: Any) -> Any:
    """A tensor of half precision in full precision; anything else as it is."""
    is_half = isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if is_half else value


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Original:
    """A block of a trained model, and what every alternative to it asks of it, found once.

    ``call`` runs the block on an example, ``samples`` are inputs (B x ...) by
    which importance is told and weights are fitted, on whatever device; without them weights decide.
    ``is_branch``: what it gives is added to what goes past it.
    """

    block: nn.Module
    call: Call
    samples: Call | None = None
    is_branch: bool = False
    _outputs: dict[str, torch.Tensor] = field(default_factory=dict, init=False, repr=False)  # by path

    @cached_property
    def widths(self) -> list[Width]:
        """The widths that can be cut: with half of one the block gives what it gives with the other half silenced."""
        with torch.no_grad():
            return [found for width in self._inside if (found := self._as_it_can_be_cut(width)) is not None]

    @cached_property
    def _inside(self) -> list[Width]:
        with torch.no_grad():
            return widths(self.block, self.call.run)

    @cached_property
    def opened(self) -> "Original | None":
        """The same block with attention as layers whose heads can be cut; None where it has none that has to be."""
        return self._with_torchs_opened() or self._as_attention()

    def _as_attention(self) -> "Original | None":
        """A block that is attention of its input to itself, and whose class knows how wide all heads are together."""
        if any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((self.call.context, dict(self.call.named)))):
            return None  # a mask, perhaps
        for width in self._inside:
            if width.heads_of is None or width in self.widths:
                continue
            module = self.block.get_submodule(width.heads_of)
            if width.tables or [*module.parameters(recurse=False)]:
                continue  # it does more than look, however little that is here
            drops = getattr(module, "dropout", 0.0)
            *rows, out = (cast(nn.Linear, self.block.get_submodule(cut.path)) for cut in width.cuts)
            one, other, values = rows if len(rows) == NUM_ROWS else _thirds(rows[0])
            for queries, keys in ((one, other), (other, one)):  # rows do not say which is which
                with torch.no_grad(), suppress(Exception):  # layers or inputs of other kinds
                    dropout = drops if isinstance(drops, float) else 0.0
                    made = SelfAttention.of_layers((queries, keys, values, out), width.units, dropout)
                    if are_alike(self.call.run(made), self.call.run(self.block)):
                        return replace(self, block=made)
        return None

    def _with_torchs_opened(self) -> "Original | None":
        block = copy.deepcopy(self.block)
        found = [path for path, module in block.named_modules() if path and _can_be_opened(module)]
        if not found:
            return None
        with torch.no_grad():
            for path in found:
                attention = block.get_submodule(path)
                assert isinstance(attention, nn.MultiheadAttention)
                block.set_submodule(path, Attention.of(attention))
            try:
                output, wanted = self.call.run(block), self.call.run(self.block)
            except Exception:  # masks of its own, or weights of attention that are used
                return None
        return replace(self, block=block) if are_alike(output, wanted) else None

    def _as_it_can_be_cut(self, width: Width) -> Width | None:
        """The width with those of its tables that go with it: an axis may be as long as there are heads by chance."""
        weights = dict(self.block.named_parameters())
        learnt = tuple(each for each in width.tables if ".".join(filter(None, (each.path, each.name))) in weights)
        variants = (replace(width, tables=tables) for tables in dict.fromkeys((width.tables, learnt, ())))
        return next((variant for variant in variants if self._can_be_cut(variant)), None)

    def _can_be_cut(self, width: Width) -> bool:
        each = width.units // width.parts
        kept = [part * each + unit for part in range(width.parts) for unit in range((each + 1) // 2)]
        draft = Draft(self)
        try:
            draft.keep(width, kept)
            output = self.call.run(draft.block)
        except Exception:  # a class whose forward pass knows the width
            return False
        wanted = self._silenced(width, kept)
        if not _leaves_apart(self.block, width):  # a norm over channels sees which are left out
            return output.shape == wanted.shape
        return are_alike(output, wanted)

    def _silenced(self, width: Width, kept: Sequence[int]) -> torch.Tensor:
        """What the block gives where only these units reach what takes the width."""
        with ExitStack() as stack:
            for cut in width.cuts:
                if cut.side == "columns":
                    silence = _silencing(indices(cut, width, kept))
                    layer = self.block.get_submodule(cut.path)
                    stack.callback(layer.register_forward_pre_hook(silence, with_kwargs=True).remove)
            return self.call.run(self.block)

    @cached_property
    def alone(self) -> Call | None:
        """The call with the first example only; None where the block takes so many at a time as it is called with."""
        call = self.call.on(self.call.inputs[:1])
        with torch.no_grad(), suppress(Exception):
            if tuple(call.run(self.block).shape) == (1, *self.shapes[1]):
                return call
        return None

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of what goes in and what comes out, without the batch axis."""
        with torch.no_grad():
            return tuple(self.call.inputs.shape[1:]), tuple(self.call.run(self.block).shape[1:])

    @cached_property
    def beside_samples(self) -> nn.Module:
        """The block where its samples are."""
        assert self.samples is not None
        place = self.samples.inputs.device
        return self.block if place == self.call.inputs.device else copy.deepcopy(self.block).to(place)

    @cached_property
    def power(self) -> dict[str, torch.Tensor]:
        """Path of a layer that mixes channels -> mean square of what it takes of the samples, by channel."""
        assert self.samples is not None
        power: dict[str, torch.Tensor] = {}

        def look(path: str) -> Callable[..., None]:
            def hook(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
                first = first_input(inputs, named)
                axis = channel_axis(layer, first) % first.ndim
                power[path] = first.pow(2).mean([each for each in range(first.ndim) if each != axis]).cpu()

            return hook

        with torch.no_grad(), hooked(self.beside_samples, (*CONVOLUTIONS, nn.Linear), look):
            self.samples.run(self.beside_samples)
        return power

    def output_of(self, path: str) -> torch.Tensor:
        """What the block, or its layer at the path, gives for the samples."""
        if path not in self._outputs:
            self._outputs[path] = self._given_by(path)
        return self._outputs[path]

    def _given_by(self, path: str) -> torch.Tensor:
        assert self.samples is not None
        kept: list[torch.Tensor] = []
        block = self.beside_samples
        handle = block.get_submodule(path).register_forward_hook(lambda _, __, output: kept.append(output.clone()))
        try:
            output = self.samples.run(block)
        finally:
            handle.remove()
        return kept[-1] if path else output


class Draft:
    """A copy of a block that alternatives change; ``changes`` says how, by paths within the block.

    ``is_solved``: it is one linear map, and samples enough say which is best, so that training cannot better it.
    """

    def __init__(self, known: Original) -> None:
        self.known = known
        self.block = copy.deepcopy(known.block)
        self.changes: dict[str, Change] = {}
        self.is_solved = False

    def open(self) -> None:
        """Have attention of torch's as layers, where the block has some; before anything else is changed."""
        if not self.changes and self.known.opened is not None:
            self.known = self.known.opened
            self.block = copy.deepcopy(self.known.block)

    def settle(self) -> None:
        """Write down what was opened and changed as it is now, in one piece."""
        for path, module in self.block.named_modules():
            inner = [each for each in self.changes if not path or f"{each}.".startswith(f"{path}.")]
            if isinstance(module, Attention) and inner:
                first = min(list(self.changes).index(each) for each in inner)
                rows = [(each, change) for each, change in self.changes.items() if each not in inner]
                rows.insert(min(first, len(rows)), (path, {"put": described(module)}))
                self.changes = dict(rows)

    @property
    def original(self) -> nn.Module:
        return self.known.block

    @property
    def call(self) -> Call:
        return self.known.call

    @property
    def widths(self) -> list[Width]:
        return self.known.widths

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of what goes in and what comes out, without the batch axis."""
        return self.known.shapes

    def layers(self, *kinds: type[nn.Module]) -> Iterator[tuple[str, Any]]:
        """Layers of these classes with their paths, in order; but for those whose weights torch's attention reads."""
        read = {each.out_proj for each in self.block.modules() if isinstance(each, nn.MultiheadAttention)}
        for path, layer in self.block.named_modules():
            if isinstance(layer, kinds) and layer not in read:
                yield path, layer

    def put(self, path: str, module: nn.Module) -> None:
        """Let the module stand at the path; "" is the whole block."""
        if path:
            self.block.set_submodule(path, module)
        else:
            self.block = module
        gone = [each for each in self.changes if not path or f"{each}.".startswith(f"{path}.")]
        self.changes = {each: change for each, change in self.changes.items() if each not in gone}
        self.changes[path] = {"put": described(module)}

    def set(self, path: str, **values: Any) -> None:
        """Set attributes of the module at the path."""
        module = self.block.get_submodule(path)
        for name, value in values.items():
            setattr(module, name, value)
        before = self.changes.get(path, {})
        kept = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        is_put = "put" in before  # by this draft: it is described as it is now
        self.changes[path] = {"put": described(module)} if is_put else {"set": {**before.get("set", {}), **kept}}

    # widths

    def narrow(self, width: Width, units: int) -> None:
        """Keep so many units of the width, those that contribute most; of its parts, as many of each."""
        self.keep(width, _best(self.importance(width), units, width.parts))

    def keep(self, width: Width, kept: Sequence[int]) -> None:
        """Keep these units of the width."""
        for cut in width.cuts:
            self._cut(cut.path, cut.side, indices(cut, width, kept))
        for table in width.tables:
            self._slice(table, indices(table, width, kept))
            if table.path != width.heads_of:
                self.set(table.path, **_shapes_of(self.block.get_submodule(table.path), width.units, len(kept)))
        if width.heads_of is not None:
            module = self.block.get_submodule(width.heads_of)
            size = width.size(next(cut for cut in width.cuts if cut.side == "columns"))
            known = {name: getattr(module, name) for name in WIDTHS_OF_HEADS if hasattr(module, name)}
            values = {name: len(kept) * size for name, value in known.items() if value == width.units * size}
            for count in (1, size // width.group):  # that many heads share one of keys
                values |= dict.fromkeys(heads_in(module, width.units * count), len(kept) * count)
            self.set(width.heads_of, **values)

    def _slice(self, table: Table, kept: torch.Tensor) -> None:
        """Keep these slices of a tensor that has some for each head."""
        module: Any = self.block.get_submodule(table.path)
        tensor = getattr(module, table.name)
        fresh = tensor.detach().index_select(table.axis, kept.to(tensor.device)).clone()
        setattr(module, table.name, nn.Parameter(fresh) if isinstance(tensor, nn.Parameter) else fresh)
        module._non_persistent_buffers_set.discard(table.name)  # saved, as other weights are

    def importance(self, width: Width) -> torch.Tensor:
        """How much each unit contributes to what takes the width: mean square of the channel times its columns'."""
        total = torch.zeros(width.units)
        for cut in width.cuts:
            if cut.side != "columns":
                continue
            layer = self.original.get_submodule(cut.path)
            reached = _square(layer.weight, 1)  # type: ignore[arg-type]
            if self.known.samples is not None:
                reached = reached * self.known.power[cut.path]
            by_unit = reached.reshape(cut.fold, width.units, -1, width.group).cpu()
            if self.known.samples is None:
                by_unit = by_unit * self._rows(width).reshape(width.units, 1, width.group)
            total += by_unit.sum((0, 2, 3))
        return total

    def _rows(self, width: Width) -> torch.Tensor:
        """Square norms of what makes the channels, where there are no samples."""
        total = torch.zeros(width.channels)
        for cut in width.cuts:
            if cut.side == "rows":
                rows = _square(self.original.get_submodule(cut.path).weight, 0)  # type: ignore[arg-type]
                total += rows.reshape(cut.fold, width.units, -1, width.group).sum((0, 2)).flatten().cpu()
        return total

    def _cut(self, path: str, side: str, kept: torch.Tensor) -> None:
        layer: Any = self.block.get_submodule(path)
        size = out_width(layer)
        with torch.no_grad():
            for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
                axis = 1 if side == "columns" else _axis_of(tensor, size)
                if axis is None or tensor.ndim <= axis:
                    continue
                fresh = tensor.index_select(axis, kept.to(tensor.device)).clone()
                is_weight = isinstance(tensor, nn.Parameter)
                setattr(layer, name, nn.Parameter(fresh) if is_weight else fresh)
                layer._non_persistent_buffers_set.discard(name)  # a table of the model's that is none any more: saved
        count = len(kept)
        taken = {"in_channels": count, "in_features": count} if side != "rows" else {}
        given = {"out_channels": count, "out_features": count} if side != "columns" else {}
        if side == "each":
            grouped = isinstance(layer, CONVOLUTIONS)
            given |= {"groups": layer.groups * count // size} if grouped else {}
            given |= {"num_features": count, "num_channels": count}
            if isinstance(layer, nn.GroupNorm):
                given |= {"num_groups": max(1, layer.num_groups * count // size)}
            if hasattr(layer, "normalized_shape"):
                self.set(path, normalized_shape=(count,))
        self.set(path, **{name: value for name, value in (taken | given).items() if hasattr(layer, name)})


@contextmanager
def hooked(
    block: nn.Module, kinds: tuple[type[nn.Module], ...], look: Callable[[str], Callable[..., None]]
) -> Iterator[None]:
    """Calls ``look(path)`` before every layer of these kinds runs."""
    handles = [
        layer.register_forward_pre_hook(look(path), with_kwargs=True)
        for path, layer in block.named_modules()
        if isinstance(layer, kinds)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def rounded(units: int, ratio: float, multiple: int) -> int:
    """A share of the units, as a multiple that the device likes where that leaves most of it."""
    wanted = max(1, round(units * ratio))
    down = wanted // multiple * multiple
    return down if down >= ROUNDED_DOWN_AT_MOST * wanted else wanted


def are_alike(output: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Equal but for rounding."""
    return output.shape == wanted.shape and float((output - wanted).abs().max()) <= SAME * float(wanted.abs().max())


def _thirds(layer: nn.Linear) -> list[nn.Linear]:
    """A layer to queries, keys and values as three."""
    rows = len(layer.weight) // NUM_ROWS
    parts = [nn.Linear(layer.in_features, rows, bias=layer.bias is not None) for _ in range(NUM_ROWS)]
    for index, part in enumerate(parts):
        own = {name: tensor[index * rows : (index + 1) * rows] for name, tensor in layer.state_dict().items()}
        part.to(layer.weight).load_state_dict(own)
    return parts


def _can_be_opened(module: nn.Module) -> bool:
    if type(module) is not nn.MultiheadAttention or module.num_heads < 2:
        return False
    return module._qkv_same_embed_dim and module.bias_k is None and not module.add_zero_attn


def _shapes_of(module: nn.Module, units: int, kept: int) -> dict[str, Any]:
    """What a module that has a tensor with a slice for each head says of its sizes, with so many of the heads."""
    sides = {"in_features", "out_features"} & vars(module).keys()
    return {name: kept for name in sides if getattr(module, name) == units} | {
        name: tuple(kept if each == units else each for each in value)
        for name, value in vars(module).items()
        if isinstance(value, tuple) and value.count(units) == 1 and not name.startswith("_")
    }


def _axis_of(tensor: torch.Tensor, size: int) -> int | None:
    """Where the tensor's channels are: first, or at the one axis that is not 1; None where it has none."""
    if not tensor.ndim or size not in tensor.shape:
        return None
    return 0 if tensor.shape[0] == size else tensor.shape.index(size) if tensor.numel() == size else None


def _leaves_apart(block: nn.Module, width: Width) -> bool:
    """Whether the layers within the width treat each of its units apart, beyond doubt."""
    known = (*CONVOLUTIONS, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
    layers = [block.get_submodule(cut.path) for cut in width.cuts if cut.side == "each"]
    return all(
        isinstance(layer, known) and not (isinstance(layer, nn.GroupNorm) and layer.num_groups == 1) for layer in layers
    )


def _silencing(kept: torch.Tensor) -> Callable[..., Any]:
    """A hook that sets all channels but these of what its layer takes to 0."""

    def silence(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        first = first_input(inputs, named)
        axis = channel_axis(layer, first) % first.ndim
        mask = first.new_zeros(first.shape[axis]).index_fill_(0, kept.to(first.device), 1.0)
        shape = [-1 if each == axis else 1 for each in range(first.ndim)]
        masked = first * mask.reshape(shape)
        return tree_map(lambda leaf: masked if leaf is first else leaf, (inputs, named))

    return silence


def _best(importance: torch.Tensor, count: int, parts: int) -> list[int]:
    """Indices of the most important units, in order; of each part as many."""
    rows = importance.reshape(parts, -1)
    kept = torch.topk(rows, count // parts, dim=1).indices + torch.arange(parts)[:, None] * rows.shape[1]
    return sorted(kept.flatten().tolist())


def _square(weight: torch.Tensor, axis: int) -> torch.Tensor:
    """Square norm of each slice along the axis."""
    norms: torch.Tensor = weight.detach().pow(2).sum([each for each in range(weight.ndim) if each != axis])
    return norms
