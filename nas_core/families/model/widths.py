"""Which channels exist inside a block only, and what has to be cut where some of them are left out.

They are found by marking: one channel of a layer's output becomes NaN, and
wherever a NaN arrives the channel arrives. A layer that mixes channels
(convolution, linear) is where the mark ends: its columns go with the channel. A
layer that treats each channel apart (normalisation, depthwise convolution)
hands it on: its own rows go, too. A mark that reaches the block's output is of
a width that others see, and is left alone. So nothing here knows any block's class.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

Run = Callable[[nn.Module], torch.Tensor]  # calls a block as its model calls it
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# what classes call their number of heads (of queries, keys and values), and that of the channels of all of them
THREE = 3  # queries, keys and values
HEADS = ("num_heads", "n_heads", "heads", "n_head", "nhead", "num_attention_heads", "num_key_value_heads", "n_kv_heads")
WIDTHS_OF_HEADS = (
    *("attn_dim", "all_head_size", "all_head_dim", "inner_dim", "dim", "embed_dim", "split_size", "hidden_size"),
    "in_features",
)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A layer's side that has the channels: ``rows`` of what it gives, ``columns`` of what it takes, or ``each``.

    Of a layer with ``fold`` times the width, channel u stands at u, u + width, ...
    ``size`` channels of it belong to a unit of the width, where these are not as many as the width's ``group``.
    """

    path: str
    side: str
    fold: int = 1
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Table:
    """A tensor with a slice for each head, or ``size`` of them, along an axis: positions, scales, biases of queries.

    ``fold`` as of a ``Cut``.
    """

    path: str
    name: str
    axis: int
    size: int = 1
    fold: int = 1


@dataclass(frozen=True, kw_only=True)
class Width:
    """Channels inside a block, ``group`` of which go together: those of a head, or of a convolution's group.

    They stand in so many equal ``parts``, of each of which as many stay: heads that are as many as before.
    ``tables`` go with heads.
    """

    channels: int
    group: int
    cuts: tuple[Cut, ...]
    heads_of: str | None = None  # the attention module whose heads the groups are
    parts: int = 1
    tables: tuple[Table, ...] = ()

    @property
    def units(self) -> int:
        return self.channels // self.group

    def size(self, cut: Cut) -> int:
        """Channels of the cut layer that belong to a unit, of each fold."""
        return cut.size or self.group


def mixes(layer: nn.Module) -> bool:
    """Whether every channel that goes out depends on all that come in."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, CONVOLUTIONS) and layer.groups == 1)


def first_input(inputs: Sequence[Any], named: Mapping[str, Any]) -> torch.Tensor:
    """The tensor that a layer is called with, whether by its place or by its name."""
    found: torch.Tensor = next(each for each in (*inputs, *named.values()) if isinstance(each, torch.Tensor))
    return found


def widths(block: nn.Module, run: Run) -> list[Width]:
    """The widths inside the block, in the order of its layers; ``run`` calls it on an example. Eval mode, no gradients.

    Attention's inner width is there as heads (``heads_of``) where its class says how many it has: with one layer whose
    rows stand as queries, keys and values of all heads, or with layers of their own for the three.
    """
    with sdpa_kernel(SDPBackend.MATH):  # fused kernels may drop a NaN
        return list(_widths(block, run))


def _widths(block: nn.Module, run: Run) -> Iterator[Width]:
    candidates = itertools.chain(_heads(block), _shared_heads(block))
    heads = [width for width in candidates if _are_apart(block, run, width)]
    yield from heads
    of_heads = {cut.path for width in heads for cut in width.cuts if cut.side == "rows"}
    producers = [path for path, layer in block.named_modules() if mixes(layer) and path and path not in of_heads]
    several = dict[str, dict[str, set[int]]]()
    reached = {path: cuts for path in producers if (cuts := _reached(block, run, path, several))}
    outside = _fed_from_outside(block, run)
    for width in _joined(block, reached):
        if outside & {cut.path for cut in width.cuts if cut.side != "rows"}:
            continue
        if parts := _parts(block, width, several):
            whole = _whole_heads(block, width, parts, several)
            is_heads = whole is not None and _are_apart(block, run, whole)
            yield whole if whole is not None and is_heads else replace(width, parts=parts)


def _parts(block: nn.Module, width: Width, several: Mapping[str, Mapping[str, set[int]]]) -> int:
    """In how many equal parts, such as heads, the width's channels stand; 0 where they do in another way.

    A channel of a query or a key reaches all that its head gives, and nothing of other heads.
    """
    found = {tuple(sorted(each)) for cut in width.cuts for each in several.get(cut.path, {}).values()}
    found.discard(tuple(range(width.channels)))
    if not found:
        return 1
    size = len(next(iter(found)))
    in_order = all(each == tuple(range(each[0], each[0] + size)) and each[0] % size == 0 for each in found)
    folded = any(cut.fold > 1 for cut in width.cuts)
    return width.channels // size if in_order and not folded and width.group == 1 and width.channels % size == 0 else 0


def _whole_heads(
    block: nn.Module, width: Width, parts: int, several: Mapping[str, Mapping[str, set[int]]]
) -> Width | None:
    """The width of values with that of queries and keys, by heads; None where no module says how many it has."""
    columns = [cut.path for cut in width.cuts if cut.side == "columns"]
    others = [path for path in several.get(columns[0], {}) if out_width(block.get_submodule(path)) == width.channels]
    around = [path.split(".") for path in (columns[0], *others)]  # the projection may stand beside what has the heads
    owners = (".".join(names[:depth]) for names in around for depth in range(len(names) - 1, -1, -1))
    owner = next((path for path in owners if heads_in(block.get_submodule(path), parts)), None)
    sides = sorted(cut.side for cut in width.cuts)
    if parts == 1 or sides != ["columns", "rows"] or len(others) != 2 or owner is None:
        return None
    rows = [*others, *(cut.path for cut in width.cuts if cut.side == "rows")]
    cuts = (*(Cut(path=path, side="rows") for path in rows), Cut(path=columns[0], side="columns"))
    whole = Width(channels=width.channels, group=width.channels // parts, cuts=cuts, heads_of=owner)
    return replace(whole, tables=_tables(block, whole))


def heads_in(module: nn.Module, count: int) -> list[str]:
    """The module's attributes that say that it has so many heads."""
    return [name for name in HEADS if getattr(module, name, None) == count]


def _fed_from_outside(block: nn.Module, run: Run) -> set[str]:
    """Layers that what comes into the block reaches without being mixed: their widths are others' too."""
    marks = _Marks(block, "", 0)

    def mark(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (torch.full_like(inputs[0], torch.nan), *inputs[1:])

    with marks.watching():
        handle = block.register_forward_pre_hook(mark)
        try:
            run(block)
        finally:
            handle.remove()
    return set(marks.found)


def _heads(block: nn.Module) -> Iterator[Width]:
    """Attention's inner widths where one layer gives queries, keys and values, and one takes what all heads give.

    Rows may stand by what they are for, heads in each, or by heads.
    """
    for path, module in block.named_modules():
        layers = [(name, layer) for name, layer in module.named_children() if isinstance(layer, nn.Linear)]
        inside = f"{path}." if path else ""
        for (name, qkv), (other, proj) in itertools.permutations(layers, 2):
            width = proj.in_features
            heads = next((count for each in HEADS if _divides(count := getattr(module, each, None), width)), 0)
            if not heads or qkv.out_features != THREE * width:
                continue
            size, columns = width // heads, Cut(path=f"{inside}{other}", side="columns")
            for rows in (
                Cut(path=f"{inside}{name}", side="rows", fold=THREE),
                Cut(path=f"{inside}{name}", side="rows", size=THREE * size),
            ):
                known = Width(channels=width, group=size, cuts=(rows, columns), heads_of=path)
                yield replace(known, tables=_tables(block, known))


def _shared_heads(block: nn.Module) -> Iterator[Width]:
    """Inner widths of attention in which several heads of queries share one of keys and values (Ainslie et al., 2023).

    A unit is a head of keys with the heads that look at it.
    """
    for path, module in block.named_modules():
        given = (getattr(module, name, None) for name in HEADS)
        counts = sorted({count for count in given if isinstance(count, int) and count > 1})
        linear = [(name, layer) for name, layer in module.named_children() if isinstance(layer, nn.Linear)]
        if len(counts) < len(("queries", "keys")):
            continue
        inside, fewest, most = f"{path}." if path else "", counts[0], counts[-1]
        for (keys, k), (values, v) in itertools.combinations(linear, 2):
            size, others = k.out_features // fewest, [each for each in linear if each[0] not in (keys, values)]
            if k.out_features != v.out_features or k.out_features % fewest or most % fewest:
                continue
            for (queries, q), (other, proj) in itertools.permutations(others, 2):
                if q.out_features == proj.in_features == most * size:
                    wide = size * (most // fewest)
                    rows = (
                        Cut(path=f"{inside}{queries}", side="rows", size=wide),
                        *(Cut(path=f"{inside}{each}", side="rows") for each in (keys, values)),
                    )
                    cuts = (*rows, Cut(path=f"{inside}{other}", side="columns", size=wide))
                    yield Width(channels=k.out_features, group=size, cuts=cuts, heads_of=path)


def _tables(block: nn.Module, width: Width) -> tuple[Table, ...]:
    """Tensors of the module that has the heads, and of modules in it, that have as long an axis as there are heads.

    The module's own, as biases that it adds by itself, may be as long as all heads' channels, too.
    """
    assert width.heads_of is not None
    layers, found = {cut.path for cut in width.cuts}, list[Table]()
    inside = f"{width.heads_of}." if width.heads_of else ""
    for below, module in block.get_submodule(width.heads_of).named_modules():
        path = f"{inside}{below}" if below else width.heads_of
        if path in layers or isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)):
            continue
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            sizes = {width.units: (1, 1)}
            if not below:
                sizes |= {fold * width.channels: (width.group, fold) for fold in (1, THREE)}
            taken = isinstance(module, nn.Linear) and name == "weight"  # what a layer takes is not by heads
            axes = [axis for axis, length in enumerate(tensor.shape[: 1 if taken else None]) if length in sizes]
            if len(axes) == 1 and tensor.is_floating_point():
                size, fold = sizes[tensor.shape[axes[0]]]
                found.append(Table(path=path, name=name, axis=axes[0], size=size, fold=fold))
    return tuple(found)


def _divides(heads: object, width: int) -> bool:
    return isinstance(heads, int) and heads > 1 and width % heads == 0


def _are_apart(block: nn.Module, run: Run, width: Width) -> bool:
    """Whether each head's rows reach its own columns and no others: rows may stand in another order than is thought."""
    *every, columns = width.cuts
    for unit, rows in itertools.product(sorted({0, width.units // 2, width.units - 1}), every):
        seen: list[torch.Tensor] = []

        def look(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], seen: Any = seen) -> None:
            seen.append(first_input(inputs, named))

        handle = block.get_submodule(columns.path).register_forward_pre_hook(look, with_kwargs=True)
        try:
            with _marked(block.get_submodule(rows.path), indices(rows, width, [unit])):
                run(block)
        finally:
            handle.remove()
        reached = {index for each in seen for index in each.isnan().flatten(0, -2).any(0).nonzero().flatten().tolist()}
        if reached != set(indices(columns, width, [unit]).tolist()):
            return False
    return True


@contextmanager
def _marked(layer: nn.Module, rows: torch.Tensor) -> Iterator[None]:
    """The layer with marks for these rows of its weights: not all modules call it, some use its weights."""
    weight: Any = layer.weight
    before = weight.detach().clone()
    with torch.no_grad():
        try:
            weight[rows.to(weight.device)] = torch.nan
            yield
        finally:
            weight.copy_(before)


def _reached(block: nn.Module, run: Run, producer: str, several: dict[str, dict[str, set[int]]]) -> tuple[Cut, ...]:
    """What a channel of the producer reaches, the producer first; nothing where that leaves the block or mixes.

    A layer of which one channel of the producer reaches several, and no other layer, is noted with it.
    """
    channels = out_width(block.get_submodule(producer))
    cuts: dict[str, Cut] = {producer: Cut(path=producer, side="rows")}
    for channel in sorted({0, channels // 2, channels - 1}):
        marks = _Marks(block, producer, channel)
        with marks.watching():
            output = run(block)
        if output.isnan().any():
            return ()
        for path, found in marks.found.items():
            layer = block.get_submodule(path)
            width = in_width(layer)
            if not width or channels % width or found != {channel % width}:
                if mixes(layer) and len(found) > 1:
                    several.setdefault(path, {})[producer] = found
                return ()
            side = "columns" if mixes(layer) else "each"
            cuts[path] = Cut(path=path, side=side, fold=channels // width)
    return tuple(cuts.values()) if len(cuts) > 1 else ()


class _Marks:
    """One run with a channel of one layer marked; ``found`` has the marked channels of every layer that they reach."""

    def __init__(self, block: nn.Module, producer: str, channel: int) -> None:
        self.block, self.producer, self.channel = block, producer, channel
        self.found: dict[str, set[int]] = {}
        self.masks: dict[str, torch.Tensor] = {}  # where the marks are that come into a layer

    @contextmanager
    def watching(self) -> Iterator[None]:
        handles = []
        for path, layer in self.block.named_modules():
            if path and path == self.producer:
                handles.append(layer.register_forward_hook(self._mark))
            elif in_width(layer):
                handles.append(layer.register_forward_pre_hook(self._before(path), with_kwargs=True))
                if not mixes(layer):
                    handles.append(layer.register_forward_hook(self._after(path)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _mark(self, layer: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        marked = output.clone()
        marked.select(channel_axis(layer, output), self.channel).fill_(torch.nan)
        return marked

    def _before(self, path: str) -> Callable[..., Any]:
        def look(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if not any(isinstance(each, torch.Tensor) for each in (*inputs, *named.values())):
                return inputs, named  # a table that is only asked for
            first = first_input(inputs, named)
            if not first.isnan().any():
                return inputs, named
            axis = channel_axis(layer, first) % first.ndim
            others = [each for each in range(first.ndim) if each != axis]
            seen = first.isnan().any(dim=others).nonzero().flatten().tolist() if others else []
            self.found[path] = self.found.get(path, set()) | set(seen)
            self.masks[path] = first.isnan()
            return tree_map(lambda leaf: torch.nan_to_num(first) if leaf is first else leaf, (inputs, named))

        return look

    def _after(self, path: str) -> Callable[..., Any]:
        def hand_on(layer: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            if path not in self.found:
                return output
            if self.masks[path].shape == output.shape:
                return output.masked_fill(self.masks[path], torch.nan)
            marked = output.clone()
            marked.index_fill_(channel_axis(layer, output), torch.tensor(sorted(self.found[path])), torch.nan)
            return marked

        return hand_on


def _joined(block: nn.Module, reached: Mapping[str, Sequence[Cut]]) -> list[Width]:
    """Producers whose channels meet in a layer have one width."""
    groups: list[dict[str, Cut]] = []
    for cuts in reached.values():
        mine = {f"{cut.path}:{cut.side}": cut for cut in cuts}
        meeting = [group for group in groups if group.keys() & mine.keys()]
        groups = [group for group in groups if not any(group is each for each in meeting)]
        for group in meeting:
            mine |= group
        groups.append(mine)
    return [width for group in groups if (width := _width(block, tuple(group.values())))]


def _width(block: nn.Module, cuts: tuple[Cut, ...]) -> Width | None:
    sizes = set()
    for cut in cuts:
        layer = block.get_submodule(cut.path)
        sizes.add(out_width(layer) if cut.side == "rows" else in_width(layer))
    channels = min(sizes)
    if any(size % channels for size in sizes):
        return None
    folds = tuple(_folded(block, cut, channels) for cut in cuts)
    layers = [block.get_submodule(cut.path) for cut in cuts if cut.side == "each"]
    groups = {layer.groups for layer in layers if isinstance(layer, CONVOLUTIONS)}
    groups |= {layer.num_groups for layer in layers if isinstance(layer, nn.GroupNorm) and layer.num_groups > 1}
    counts = groups - {channels}  # a depthwise convolution has a group per channel
    if len(counts) > 1 or any(channels % count for count in counts):
        return None
    return Width(channels=channels, group=channels // counts.pop() if counts else 1, cuts=folds)


def _folded(block: nn.Module, cut: Cut, channels: int) -> Cut:
    layer = block.get_submodule(cut.path)
    size = out_width(layer) if cut.side == "rows" else in_width(layer)
    return Cut(path=cut.path, side=cut.side, fold=size // channels)


def in_width(layer: nn.Module) -> int:
    """Channels that the layer takes; 0 for what has no weights of its own per channel."""
    if isinstance(layer, CONVOLUTIONS):
        return layer.in_channels if layer.groups == 1 or layer.in_channels == layer.out_channels else 0
    if isinstance(layer, nn.Linear):
        return layer.in_features
    own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    if len(own) < sum(1 for _ in itertools.chain(layer.parameters(), layer.buffers())):
        return 0  # a block of layers, with a scale of its own, say
    sizes = {tensor.numel() for tensor in own if tensor.ndim and tensor.numel() > 1}
    return sizes.pop() if len(sizes) == 1 else 0


def out_width(layer: nn.Module) -> int:
    """Channels that the layer gives."""
    if isinstance(layer, CONVOLUTIONS):
        return layer.out_channels
    return layer.out_features if isinstance(layer, nn.Linear) else in_width(layer)


def channel_axis(layer: nn.Module, tensor: torch.Tensor) -> int:
    """Where the channels are: images B C H W have them second, as all that convolutions take; tokens last."""
    if isinstance(layer, nn.Linear):
        return -1
    if isinstance(layer, (*CONVOLUTIONS, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)):
        return 1
    return 1 if tensor.ndim == 4 and tensor.shape[1] in (in_width(layer), out_width(layer)) else -1


def indices(cut: "Cut | Table", width: Width, units: Iterable[int]) -> torch.Tensor:
    """Channels of the layer, or slices of the tensor, that belong to these units, in order."""
    size = cut.size or width.group
    within = torch.tensor([unit * size + offset for unit in sorted(units) for offset in range(size)])
    return torch.cat([within + fold * size * width.units for fold in range(cut.fold)])
