"""Which channels exist inside a block only, and what has to be cut where some of them are left out.

They are found by marking: one channel of a layer's output becomes NaN, and
wherever a NaN arrives the channel arrives. A layer that mixes channels
(convolution, linear) is where the mark ends: its columns go with the channel. A
layer that treats each channel apart (normalisation, depthwise convolution)
hands it on: its own rows go, too. A mark that reaches the block's output is of
a width that others see, and is left alone. So nothing here knows any block's class.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

Run = Callable[[nn.Module], torch.Tensor]  # calls a block as its model calls it


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A layer's side that has the channels: ``rows`` of what it gives, ``columns`` of what it takes, or ``each``.

    Of a layer with ``fold`` times the width, channel u stands at u, u + width, ...
    """

    path: str
    side: str
    fold: int = 1


@dataclass(frozen=True, kw_only=True)
class Width:
    """Channels inside a block, ``group`` of which go together: those of a head, or of a convolution's group."""

    channels: int
    group: int
    cuts: tuple[Cut, ...]
    heads_of: str | None = None  # the attention module whose heads the groups are

    @property
    def units(self) -> int:
        return self.channels // self.group


def mixes(layer: nn.Module) -> bool:
    """Whether every channel that goes out depends on all that come in."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def first_input(inputs: Sequence[Any], named: Mapping[str, Any]) -> torch.Tensor:
    """The tensor that a layer is called with, whether by its place or by its name."""
    found: torch.Tensor = next(each for each in (*inputs, *named.values()) if isinstance(each, torch.Tensor))
    return found


def widths(block: nn.Module, run: Run) -> list[Width]:
    """The widths inside the block, in the order of its layers; ``run`` calls it on an example. Eval mode, no gradients.

    Attention's inner width is there as heads (``heads_of``), where its class has ``qkv``, ``proj`` and ``num_heads``,
    and its rows stand as queries, keys and values of all heads.
    """
    heads = [width for width in _heads(block) if _are_apart(block, run, width)]
    of_heads = {cut.path for width in heads for cut in width.cuts if cut.side == "rows"}
    producers = [path for path, layer in block.named_modules() if mixes(layer) and path and path not in of_heads]
    reached = {path: cuts for path in producers if (cuts := _reached(block, run, path))}
    outside = _fed_from_outside(block, run)
    inner = [width for width in _joined(block, reached) if not outside & {cut.path for cut in width.cuts[1:]}]
    return [*heads, *inner]


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
    for path, module in block.named_modules():
        qkv, proj, heads = (getattr(module, name, None) for name in ("qkv", "proj", "num_heads"))
        if not (isinstance(qkv, nn.Linear) and isinstance(proj, nn.Linear) and isinstance(heads, int)):
            continue
        width, own = proj.in_features, list(module.parameters(recurse=False))
        if own or qkv.out_features != 3 * width or width % heads or heads < 2:
            continue  # tables of positions, or another layout: what belongs to a head is not known
        inside = f"{path}." if path else ""
        cuts = (Cut(path=f"{inside}qkv", side="rows", fold=3), Cut(path=f"{inside}proj", side="columns"))
        yield Width(channels=width, group=width // heads, cuts=cuts, heads_of=path)


def _are_apart(block: nn.Module, run: Run, width: Width) -> bool:
    """Whether each head's rows reach its own columns and no others: rows may stand in another order than is thought."""
    rows, columns = width.cuts
    for unit in sorted({0, width.units // 2, width.units - 1}):
        seen: list[torch.Tensor] = []

        def mark(_: nn.Module, __: Any, output: torch.Tensor, unit: int = unit) -> torch.Tensor:
            marked = output.clone()
            marked[..., indices(rows, width, [unit]).to(output.device)] = torch.nan
            return marked

        def look(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], seen: Any = seen) -> None:
            seen.append(first_input(inputs, named))

        handles = (
            block.get_submodule(rows.path).register_forward_hook(mark),
            block.get_submodule(columns.path).register_forward_pre_hook(look, with_kwargs=True),
        )
        try:
            run(block)
        finally:
            for handle in handles:
                handle.remove()
        reached = {index for each in seen for index in each.isnan().flatten(0, -2).any(0).nonzero().flatten().tolist()}
        if reached != set(indices(columns, width, [unit]).tolist()):
            return False
    return True


def _reached(block: nn.Module, run: Run, producer: str) -> tuple[Cut, ...]:
    """What a channel of the producer reaches, the producer first; nothing where that leaves the block or mixes."""
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
                return ()
            side = "columns" if mixes(layer) else "each"
            cuts[path] = Cut(path=path, side=side, fold=channels // width)
    return tuple(cuts.values()) if len(cuts) > 1 else ()


class _Marks:
    """One run with a channel of one layer marked; ``found`` has the marked channels of every layer that they reach."""

    def __init__(self, block: nn.Module, producer: str, channel: int) -> None:
        self.block, self.producer, self.channel = block, producer, channel
        self.found: dict[str, set[int]] = {}

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
            first = first_input(inputs, named)
            if not first.isnan().any():
                return inputs, named
            axis = channel_axis(layer, first) % first.ndim
            others = [each for each in range(first.ndim) if each != axis]
            seen = first.isnan().any(dim=others).nonzero().flatten().tolist() if others else []
            self.found[path] = self.found.get(path, set()) | set(seen)
            return tree_map(lambda leaf: torch.nan_to_num(first) if leaf is first else leaf, (inputs, named))

        return look

    def _after(self, path: str) -> Callable[..., Any]:
        def hand_on(layer: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            if path not in self.found:
                return output
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
    convolutions = (block.get_submodule(cut.path) for cut in cuts if cut.side == "each")
    groups = {layer.groups for layer in convolutions if isinstance(layer, nn.Conv2d)}
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
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels if layer.groups == 1 or layer.in_channels == layer.out_channels else 0
    if isinstance(layer, nn.Linear):
        return layer.in_features
    own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    sizes = {tensor.numel() for tensor in own if tensor.ndim and tensor.numel() > 1}
    return sizes.pop() if len(sizes) == 1 else 0


def out_width(layer: nn.Module) -> int:
    """Channels that the layer gives."""
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels
    return layer.out_features if isinstance(layer, nn.Linear) else in_width(layer)


def channel_axis(layer: nn.Module, tensor: torch.Tensor) -> int:
    """Where the channels are: images B C H W have them second, everything else last."""
    if isinstance(layer, nn.Linear):
        return -1
    width = in_width(layer)
    is_image = isinstance(layer, nn.Conv2d) or (tensor.ndim == 4 and tensor.shape[1] in (width, out_width(layer)))
    return 1 if is_image else -1


def indices(cut: Cut, width: Width, units: Iterable[int]) -> torch.Tensor:
    """Channels of the layer that belong to these units, in order."""
    within = [unit * width.group + offset for unit in sorted(units) for offset in range(width.group)]
    folds = [torch.tensor(within) + fold * width.channels for fold in range(cut.fold)]
    return torch.cat(folds)
