"""The positions of any trained model: modules that can be exchanged one by one, found in what the model does.

The tree of calls of one forward pass is walked from its root. A module is
split into what it calls where it is large or where the calls in it form a
chain; a residual block, whose calls form none, stays whole, unless it is a
row of branches of several layers each, such as attention and MLP: those are
positions of their own. What was found last is proved: opaque copies in all
positions at once change no bit of the output, and a module where one does is
left out by name.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from torch import nn

from nas_core.base.errors import SpaceError
from nas_core.families.model.swapping import reasons_against
from nas_core.families.model.tracing import CALLED, ONE_CALL, Call, Inputs, trace
from nas_core.families.model.tuples import without_frames

LARGEST = 0.5  # share of the model's cost that one position may hold
LARGE = 0.25  # share from which a module is split where it can be
SMALL = 1 / 12  # share up to which a row of layers, such as convolutions, is one block
FEWEST = 4  # positions that are worth a search
ENOUGH = 0.8  # share of a module's cost that the positions in it have to hold, to stand for it
BACKBONES = ("backbone", "encoder")  # what torchvision's detectors and segmenters call it, and those built on timm
LEAST_BACKBONE = 0.25  # share of the model's cost from which such a module is what the model is about


@dataclass(frozen=True, kw_only=True)
class Place:
    """A position: a module that is called once, with one tensor in and one out (further arguments stay as they are)."""

    path: str  # of the module in the model, such as "layer1.0"
    in_shape: tuple[int, ...]  # of the first argument, without axis 0
    out_shape: tuple[int, ...]
    flops: float  # multiply-adds per example
    share: float  # of the model's
    kind: str  # name of the module's class
    block: str  # path of the block that it is a branch of: what it gives is added to what goes past it; else its own
    rows: int = 1  # of axis 0 for each example: the frames of a film, say

    @property
    def name(self) -> str:
        """The path as the model's maker knows it."""
        return without_frames(self.path)

    @property
    def is_branch(self) -> bool:
        return self.block != self.path


@dataclass(frozen=True, kw_only=True)
class Split:
    """A model's positions, in the order in which they are called."""

    places: tuple[Place, ...]
    flops: float  # of the whole model, multiply-adds per example
    left_out: Mapping[str, str]  # path of a module that is no position, and why

    @property
    def covered(self) -> float:
        """Share of the model's cost that lies in its positions, 0..1."""
        return sum(place.share for place in self.places)


def split(
    model: nn.Module,
    inputs: Inputs,
    *,
    wanted: int | None = None,
    only: Sequence[str] = (),
    keep: Sequence[str] = (),
    names: Sequence[str] = (),
) -> Split:
    """The positions of the model, which is left exactly as it was.

    Args:
        inputs: a few examples, on the model's device: axis 0 counts them, or each is one of a list.
        wanted: about how many positions; what the model's structure suggests where it is None.
        only: patterns (``layer3.*``) of which a position's path, or that of a module around it, matches one; without
            any it is the backbone of a model that says which of its modules that is, else all of it (``*``).
        keep: patterns of modules that stay as they are.
        names: the positions, named by hand, instead of those that would be found.

    Raises:
        SpaceError: if the model does not run or has no position, a pattern
            matches nothing, or a module named by hand cannot be exchanged.
    """
    paths = [path for path, _ in model.named_modules() if path]
    root = trace(model, inputs)
    if not root.flops:
        quantised = any("quantized" in type(each).__module__ for each in model.modules())
        expected = "the network as it was before it was quantised" if quantised else "a network"
        raise SpaceError(f"model {type(model).__name__}", "nothing that costs multiply-adds", expected)
    selection = _Selection(paths, only or (("*",) if names else _backbone(root, inputs)), keep)
    walk = _Walk(root, selection, {})
    if names:
        called = {without_frames(call.path): call.path for call in root.everything()}
        return _named(model, inputs, walk, [called.get(name, name) for name in names], paths)
    while True:  # each round leaves out at least one module more
        found = walk.places(wanted)
        reasons = reasons_against(model, inputs, [call.path for call in found])
        if not reasons:
            break
        walk = _Walk(root, selection, walk.refused | reasons)
    if not found:
        where, allowed = f"model {type(model).__name__}", "a module called once, with one tensor in and one out"
        words = f"no position beside what is kept ({', '.join(keep)})" if keep else "no position"
        raise SpaceError(where, words, allowed, _listed(walk.left_out(found)))
    return _split_of(walk, found, len(inputs))


def self_swap(model: nn.Module, inputs: Inputs, split: Split) -> dict[str, str]:
    """The positions in which an opaque copy of the model's own module is noticed, each with the reason; none is right.

    All copies stand in the model at once, and its output has to be equal bit for bit.
    """
    return reasons_against(model, inputs, [place.path for place in split.places])


def is_enough(found: Split) -> bool:
    """Whether the positions are as many, hold as much of the model and are as even as a search wants them."""
    largest = max(place.share for place in found.places)
    return len(found.places) >= FEWEST and found.covered >= ENOUGH and largest <= LARGEST


def share_of_blocks(model: nn.Module, found: Split) -> float:
    """Share of the model's cost in positions that are blocks of several layers: something can be left out there."""
    return sum(place.share for place in found.places if _num_weighted(model.get_submodule(place.path)) > 1)


def _num_weighted(module: nn.Module) -> int:
    """How many modules in it, itself included, have a matrix of weights or more of their own."""
    return sum(any(weight.ndim > 1 for weight in each.parameters(recurse=False)) for each in module.modules())


def _backbone(root: Call, inputs: Inputs) -> tuple[str, ...]:
    """Where positions are of a model that is a backbone with something on it, such as a detector or a segmenter.

    What wraps such a model, and costs nothing of its own, is looked into. What a detector's head costs depends on how
    much it finds, and says little about the model.
    """
    least = LEAST_BACKBONE * root.flops if isinstance(inputs, torch.Tensor) else 0.0
    wrapped: list[Call] = [root]
    while wrapped:
        inside = wrapped[0].inner
        named = [call for call in inside if call.path.rpartition(".")[2] in BACKBONES and call.flops >= least]
        if named:
            return (f"{named[0].path}.*",)
        wrapped = [call for call in inside if call.flops >= root.flops]
    return ()


class _Selection:
    """Which modules the user allows to be exchanged."""

    def __init__(self, paths: Sequence[str], only: Sequence[str], keep: Sequence[str]) -> None:
        self._paths = paths
        self._asked, self._kept = self._matching("space.only", only), self._matching("space.keep", keep)
        self.is_whole, self.is_part = not only, bool(only or keep)  # all is asked for; not all may change

    def allows(self, path: str) -> bool:
        """Whether it is asked for, and is not kept, inside what is kept or around it."""
        asked = self.is_whole or any(_is_around(other, path) for other in self._asked)
        return asked and not any(_is_around(other, path) or _is_around(path, other) for other in self._kept)

    def _matching(self, field: str, patterns: Sequence[str]) -> list[str]:
        for pattern in patterns:
            if not any(_matches(path, pattern) for path in self._paths):
                raise _unknown(field, pattern, self._paths)
        return [path for path in self._paths if any(_matches(path, pattern) for pattern in patterns)]


def _matches(path: str, pattern: str) -> bool:
    """Whether a module's path, as it is or as the model's maker knows it, is one of those that the pattern means."""
    return fnmatchcase(path, pattern) or fnmatchcase(without_frames(path), pattern)


class _Walk:
    """One walk over the tree of calls, with what may not be exchanged."""

    def __init__(self, root: Call, selection: _Selection, refused: Mapping[str, str]) -> None:
        self.root, self.refused = root, dict(refused)
        self._selection = selection
        self._flaws = {call: self._flaw(call) for call in root.everything()}

    def places(self, wanted: int | None) -> list[Call]:
        """The calls of the modules that become positions, in order."""
        found = self._found(self.root, None)
        whole: set[type[nn.Module]] = set()
        # a block of the same class is treated alike where it is larger or has no residual: the next walk stops there
        while True:
            known = len(whole)
            whole |= {call.module_type for call in found if call.inner} - {nn.Sequential}
            found = self._found(self.root, whole)
            if len(whole) == known:
                break
        if wanted is not None:
            found = self._merged(self._refined(found, wanted), wanted)
        else:
            found = self._whole_blocks(self._enough(found) if self._selection.is_whole else found)
        return sorted(found, key=lambda call: call.index)

    def flaw_of(self, path: str) -> str:
        """Why the module at the path cannot be exchanged, or ""."""
        flaws = [flaw for call, flaw in self._flaws.items() if call.path == path]
        if not flaws:
            return "it is not called"
        return flaws[0] or ("" if self._selection.allows(path) else "it is kept, or not asked for")

    def left_out(self, found: Sequence[Call]) -> dict[str, str]:
        """The modules outside all positions that could be one but for a flaw, and larger ones that hold too few."""
        held = {inner for call in found for inner in call.everything()}
        return {
            call.path: flaw
            for call, flaw in self._flaws.items()
            if flaw and call.flops and call is not self.root and call not in held
            if call.flops <= LARGEST * self.root.flops
            or _cost(inner for inner in call.everything() if inner in set(found)) < ENOUGH * call.flops
        }

    def _flaw(self, call: Call) -> str:
        if call.flaw or call.path in self.refused:
            return call.flaw or self.refused[call.path]
        if call is self.root:
            return "it is the model"
        if call.flops > LARGEST * self.root.flops:
            return f"it holds {call.flops / self.root.flops:.0%} of the model's cost, more than {LARGEST:.0%}"
        return ""

    def _usable(self, call: Call) -> bool:
        return call.flops > 0 and not self._flaws[call] and self._selection.allows(call.path)

    def _found(self, call: Call, whole: set[type[nn.Module]] | None) -> list[Call]:
        """The positions in a call: itself, or those in the calls inside it."""
        if self._usable(call):
            if whole and call.module_type in whole and not _holds_its_own_kind(call):
                return self._branches(call) or [call]
            if call.flops <= LARGE * self.root.flops and not self._is_series(call, whole):
                return self._branches(call) or [call]
        if branches := self._branches(call):  # of a block that is too large to be one position
            return branches
        inside = [place for inner in call.inner for place in self._found(inner, whole)]
        if self._usable(call) and _cost(inside) < ENOUGH * call.flops:
            return [call]
        return inside

    def _branches(self, call: Call) -> list[Call]:
        """The branches of a residual block, where it has several that are blocks themselves, and little else."""
        found = call.branches
        are_blocks = all(self._usable(branch) and _num_layers(branch) > 1 for branch in found)
        return found if len(found) > 1 and are_blocks and _cost(found) >= ENOUGH * call.flops else []

    def _is_series(self, call: Call, whole: set[type[nn.Module]] | None) -> bool:
        """Whether a call is made of blocks, rather than being one."""
        costly = [inner for inner in call.inner if inner.flops > 0]
        if call.is_chain and len(costly) == 1:  # with a norm around it, say
            return _num_layers(costly[0]) > 1
        if call.is_chain and costly:  # once blocks are known, a short row of layers is one as well
            if whole is None or call.flops > SMALL * self.root.flops:
                return True
            known = (inner for inner in call.everything() if inner is not call and inner.module_type in whole)
            return _cost(inner for inner in known if _num_layers(inner) > 1) > call.flops / 2
        blocks = [inner for inner in costly if self._usable(inner) and _looks_like_a_block(inner)]
        kinds = Counter(inner.module_type for inner in blocks)
        repeated = [inner for inner in blocks if kinds[inner.module_type] > 1]
        return _cost(repeated) > call.flops / 2

    def _enough(self, found: list[Call]) -> list[Call]:
        """The outermost modules where smaller ones leave too much out; the largest split where these are too few."""
        outermost = self._outermost(self.root)
        if _cost(found) < ENOUGH * self.root.flops <= _cost(outermost):
            found = outermost
        return self._refined(found, FEWEST) if len(found) < FEWEST else found

    def _whole_blocks(self, found: list[Call]) -> list[Call]:
        """Blocks instead of their layers, where layers alone were found: a block has more alternatives."""
        if any(_num_layers(call) > 1 for call in found):
            return found
        blocks = [call for call in self._outermost(self.root) if _looks_like_a_block(call)]
        inside = {inner for block in blocks for inner in block.everything()}
        coarser = [call for call in found if call not in inside] + blocks
        return coarser if self._selection.is_part or len(coarser) >= FEWEST else found

    def _outermost(self, call: Call) -> list[Call]:
        return [call] if self._usable(call) else [place for inner in call.inner for place in self._outermost(inner)]

    def _refined(self, found: list[Call], wanted: int) -> list[Call]:
        """The largest positions split into what they call, while that comes closer to the wanted number."""
        for place in sorted(found, key=lambda call: -call.flops):
            finer = [call for call in found if call is not place] + self._parts(place)
            if abs(len(finer) - wanted) < abs(len(found) - wanted):
                return self._refined(finer, wanted)
        return found

    def _parts(self, call: Call) -> list[Call]:
        """The next smaller positions in a call, or itself where they would hold too little of it."""
        parts = [
            part
            for inner in call.inner
            for part in ([inner] if self._usable(inner) else self._parts(inner))
            if self._usable(part)
        ]
        if _cost(parts) < ENOUGH * call.flops:
            return [call]
        return self._parts(parts[0]) if len(parts) == 1 else parts

    def _merged(self, found: list[Call], wanted: int) -> list[Call]:
        """Positions replaced by a module around them, the smallest first, while that comes closer to the number.

        A stage that would be far larger than the others stays blocks, where those can stand together in rows.
        """
        most = 2 * self.root.flops / wanted
        around = [
            call
            for call in self.root.everything()
            if self._usable(call) and (call.flops <= most or not _is_in_rows(call))
        ]
        for call in sorted(around, key=lambda call: call.flops):
            inside = set(call.everything())
            coarser = [place for place in found if place not in inside] + [call]
            if len(coarser) < len(found) and abs(len(coarser) - wanted) < abs(len(found) - wanted):
                found = coarser
        return found


def _num_layers(call: Call) -> int:
    """How many of the innermost calls cost something; torch's attention calls none of the layers that it is."""
    innermost = [each for each in call.everything() if each.flops and not any(deeper.flops for deeper in each.inner)]
    return len(innermost) + sum(issubclass(each.module_type, nn.MultiheadAttention) for each in innermost)


def _looks_like_a_block(call: Call) -> bool:
    """Whether it keeps its input's shape, and does more with it than a row of layers would."""
    assert call.taken is not None
    assert call.given is not None
    return call.taken.shape == call.given.shape and not call.is_chain and _num_layers(call) > 1


def _holds_its_own_kind(call: Call) -> bool:
    return any(inner.module_type is call.module_type for inner in call.everything() if inner is not call)


def _is_in_rows(call: Call) -> bool:
    """Whether most of a call is modules in a sequence, any number of which can stand together (joining.py)."""
    rows = (inner for inner in call.everything() if inner.module_type is nn.Sequential)
    return any(sum(part.flops > 0 for part in row.inner) > 1 and row.flops >= ENOUGH * call.flops for row in rows)


def _cost(calls: Sequence[Call] | Iterator[Call]) -> float:
    return sum(call.flops for call in calls)


def _named(model: nn.Module, inputs: Inputs, walk: _Walk, names: Sequence[str], paths: list[str]) -> Split:
    """The positions named by hand, each of them checked."""
    for name in names:
        if name not in paths:
            raise _unknown("space.positions", name, paths)
        if flaw := walk.flaw_of(name):
            raise _not_exchangeable(name, flaw)
        if around := [other for other in names if other != name and _is_around(other, name)]:
            raise _not_exchangeable(name, f"it is inside {around[0]}, which is named too")
    found = [call for call in walk.root.everything() if call.path in names]
    for path, reason in reasons_against(model, inputs, [call.path for call in found]).items():
        raise _not_exchangeable(path, reason)
    return replace(_split_of(walk, found, len(inputs)), left_out={})


def _split_of(walk: _Walk, found: Sequence[Call], batch: int) -> Split:
    blocks = {branch.path: call.path for call in walk.root.everything() for branch in call.branches}
    places = tuple(_place_of(call, walk.root.flops, blocks.get(call.path, call.path), batch) for call in found)
    return Split(places=places, flops=walk.root.flops, left_out=walk.left_out(found))


def _place_of(call: Call, flops: float, block: str, batch: int) -> Place:
    assert call.taken is not None
    assert call.given is not None
    return Place(
        path=call.path,
        in_shape=call.taken.shape[1:],
        out_shape=call.given.shape[1:],
        flops=call.flops,
        share=call.flops / flops,
        kind=call.module_type.__name__,
        block=block,
        rows=max(1, call.taken.shape[0] // batch),
    )


def _is_around(path: str, other: str) -> bool:
    """Whether the module at the first path is the one at the second, or around it."""
    return f"{other}.".startswith(f"{path}.")


def _unknown(field: str, found: str, paths: Sequence[str]) -> SpaceError:
    close = get_close_matches(found, paths, n=3, cutoff=0.3) or paths[:3]
    more = ", ..." if len(close) < len(paths) else ""
    return SpaceError(field, found, "a module of the model", f"There are {', '.join(close)}{more}")


def _not_exchangeable(path: str, reason: str) -> SpaceError:
    return SpaceError(f"space.positions: {path}", reason, "a module called once, with one tensor in and one out")


def outermost(left_out: Mapping[str, str]) -> dict[str, str]:
    """Of modules inside one another that are left out for the same reason the outermost, with the reason."""
    return {path: why for path, why in left_out.items() if all(left_out.get(each) != why for each in around(path)[:-1])}


def around(path: str) -> list[str]:
    """The paths of the modules around one, the outermost first, and its own."""
    names = path.split(".")
    return [".".join(names[:count]) for count in range(1, len(names) + 1)]


def advice_on(left_out: Mapping[str, str]) -> str:
    """What the model's maker could change so that there are more positions, or ""."""
    return ONE_CALL if any(why.startswith(CALLED) for why in left_out.values()) else ""


def _listed(left_out: Mapping[str, str]) -> str:
    listed = "; ".join(f"{path}: {reason}" for path, reason in list(outermost(left_out).items())[:3])
    advice = advice_on(left_out)
    return f"{listed}. {advice}" if advice else listed
