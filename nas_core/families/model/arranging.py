"""The form in which a model is looked at for positions: as it is, out of tuples, in parts, or with rows of blocks.

A model is taken as its maker made it where its modules say enough of it:
several positions that hold most of it and are blocks, in which something can
be left out. Where they do not, the other forms are tried.
"""

import copy
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from nas_core.base.errors import SpaceError
from nas_core.families.model.cutting import ends_of
from nas_core.families.model.joining import rows_of
from nas_core.families.model.reference import Reference
from nas_core.families.model.splitting import FEWEST, Split, is_enough, share_of_blocks, split
from nas_core.families.model.swapping import check_copies
from nas_core.families.model.tracing import evaluating
from nas_core.families.model.tuples import tuples_of

if TYPE_CHECKING:
    from nas_core.families.trained_model import TrainedModel


@dataclass(frozen=True, kw_only=True)
class Arranged:
    """A model in one form, with the positions in it; ``own`` refers to it so."""

    own: Reference
    network: nn.Module
    split: Split
    is_named: bool = False  # whether the user said where positions are: few may be wanted

    @cached_property
    def share_of_blocks(self) -> float:
        """Share of the model's cost in positions that are blocks of several layers."""
        return round(share_of_blocks(self.network, self.split), 3)

    @property
    def num_branches(self) -> int:
        """Positions that are branches of blocks: each may be cheaper, or nothing, whatever the others are."""
        return sum(place.is_branch for place in self.split.places)

    @property
    def has_blocks(self) -> bool:
        return self.share_of_blocks > self.split.covered / 2

    @property
    def is_good(self) -> bool:
        return self.has_blocks and (self.is_named or is_enough(self.split))


def arranged(given: "TrainedModel.Settings", reference: Reference, inputs: torch.Tensor) -> Arranged:
    """The model in the form that has the best positions.

    Args:
        given: where positions may be, and how many are wanted.
        reference: to the model as its maker makes it.
        inputs: a few examples B x ...

    Raises:
        SpaceError: if it has no position in any form, or is no model that can be changed.
    """
    network = reference.fresh().requires_grad_(False)
    _check_output(given.model, network, inputs)
    check_copies(network, inputs)
    search = _Search(given, reference, network, inputs)
    found = search.in_parts() if given.cut else search.best()
    return found if given.wanted is None or given.positions else _in_rows(found, given.wanted, inputs)


class _Search:
    def __init__(
        self, given: "TrainedModel.Settings", reference: Reference, network: nn.Module, inputs: torch.Tensor
    ) -> None:
        self.given, self.reference, self.network, self.inputs = given, reference, network, inputs
        self.is_named = bool(given.only or given.keep or given.positions)  # these are modules

    def best(self) -> Arranged:
        given, whole, flaws = self.given, list[Arranged](), list[SpaceError]()
        for form in (self.as_it_is, self.out_of_tuples):
            try:
                whole.append(form())
            except SpaceError as error:
                flaws.append(error)
        best = max(whole, key=lambda each: (each.is_good, each.share_of_blocks, each.num_branches), default=None)
        if best and best.is_good:
            return best
        if given.cut is None and not self.is_named:
            with suppress(SpaceError):
                if (parts := self.in_parts()).is_good:
                    return parts
        if best is None:
            raise flaws[0]
        if given.wanted is None and not given.positions and not best.has_blocks:
            coarser = [self._split(best.own, best.network, fewer) for fewer in _fewer(len(best.split.places))]
            best = max([best, *coarser], key=lambda each: (each.is_good, round(each.share_of_blocks, 1)))
        return best

    def as_it_is(self) -> Arranged:
        return self._split(self.reference, self.network, self.given.wanted)

    def out_of_tuples(self) -> Arranged:
        network = copy.deepcopy(self.network)
        tuples = tuples_of(network, self.inputs)
        if not tuples:
            found = "no module that gives a tuple of one tensor, or takes one by name"
            raise SpaceError(f"model {self.given.model}", found, "one at least")
        return self._split(replace(self.reference, tuples=tuples), network, self.given.wanted)

    def in_parts(self) -> Arranged:
        own = replace(self.reference, cut=ends_of(self.network, self.inputs))
        return self._split(own, own.arranged(copy.deepcopy(self.network)), self.given.wanted)

    def _split(self, own: Reference, network: nn.Module, wanted: int | None) -> Arranged:
        given = self.given
        found = split(network, self.inputs, wanted=wanted, only=given.only, keep=given.keep, names=given.positions)
        return Arranged(own=own, network=network, split=found, is_named=self.is_named)


def _fewer(num: int) -> list[int]:
    """Numbers of positions at which what single layers stand in may be blocks, the largest first."""
    return sorted({max(FEWEST, num // part) for part in (2, 3, 4, 6)}, reverse=True)


def _check_output(name: str, network: nn.Module, inputs: torch.Tensor) -> None:
    """Raises SpaceError where the model does not give one tensor."""
    try:
        with torch.no_grad():
            output = network(inputs.clone())
    except Exception:  # inputs that it does not take are said where it is split
        return
    if not isinstance(output, torch.Tensor):
        known = f" ({', '.join(map(str, output))})" if isinstance(output, dict) else ""
        advice = "Name a function that makes the model and gives only the tensor that the metric is about."
        found = f"outputs of type {type(output).__name__}{known}"
        raise SpaceError(f"space.model {name}", found, "one tensor", advice)


def _are_same(one: nn.Module, other: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether two networks give the same for these inputs, bit for bit."""
    with evaluating(one), evaluating(other):
        try:
            return torch.equal(one(inputs.clone()), other(inputs.clone()))
        except Exception:  # of a class that takes its modules one by one
            return False


def _in_rows(found: Arranged, wanted: int, inputs: torch.Tensor) -> Arranged:
    """The same with neighbouring positions put together, where that comes nearer to the wanted number."""
    rows = rows_of(found.network, found.split, wanted)
    if not rows:
        return found
    network = replace(found.own, tuples={}, cut=(), rows=rows).arranged(copy.deepcopy(found.network))
    if not _are_same(network, found.network, inputs):  # what goes by a module's number among its neighbours
        return found
    paths = {path for path, _ in network.named_modules()}
    names = [place.path for place in found.split.places if place.path in paths]
    try:
        return replace(
            found, own=replace(found.own, rows=rows), network=network, split=split(network, inputs, names=names)
        )
    except SpaceError:  # what reads the sequences' modules one by one
        return found
