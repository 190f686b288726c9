"""A trained model with alternatives at its positions: networks of it run one after another, sharing what begins alike.

Networks come in lexicographic order. What the blocks of their common beginning
gave is kept, so those blocks are not run again; normalisation statistics follow
the calibration batches, first to last, as for one whole network.

N = examples, B = examples of a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas_core.families.batch_norm import average_statistics, forget_statistics, norms_of
from nas_core.space.genotypes import Genotype

MAX_KEPT_BYTES = 2 * 2**30  # of blocks' outputs


class Batches(Protocol):
    """Prepared batches B x ..., the same each time that they are gone through."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[torch.Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Those that set normalisation statistics, and those rated."""

    calibration: Batches
    rated: Batches

    @property
    def num_batches(self) -> int:
        return len(self.calibration) + len(self.rated)


@dataclass
class Room:
    """Bytes that kept outputs may still take, all positions together."""

    left: float = MAX_KEPT_BYTES


class Switch(nn.Module):
    """A position: its blocks, of which ``choice`` runs, or what it gave before."""

    def __init__(self, blocks: Sequence[nn.Module], room: Room) -> None:
        super().__init__()
        self.blocks, self.room = nn.ModuleList(blocks), room
        self.choice = self.batch = self.num_batches = 0
        self.kept: dict[int, torch.Tensor] = {}  # batch -> output: of all batches, or of none
        self.taken = 0  # bytes of the room

    def forward(self, x: torch.Tensor, *context: Any, **named: Any) -> torch.Tensor:
        if not self.num_batches:
            alone: torch.Tensor = self.blocks[self.choice](x, *context, **named)
            return alone
        if len(self.kept) == self.num_batches and self.batch in self.kept:
            return self.kept[self.batch].clone()  # what comes next may work in place
        output: torch.Tensor = self.blocks[self.choice](x, *context, **named)
        if self.batch == 0 and not self.taken and output.nbytes * self.num_batches <= self.room.left:
            self.taken = output.nbytes * self.num_batches
            self.room.left -= self.taken
        if self.taken:
            self.kept[self.batch] = output.clone()
        return output

    def start(self, choice: int, num_batches: int, *, goes_on: bool) -> None:
        """Get ready for a network; ``goes_on``: it begins as the last one did, so what is kept serves."""
        self.choice, self.num_batches = choice, num_batches
        if not goes_on:
            self.forget()

    def forget(self) -> None:
        self.kept.clear()
        self.room.left += self.taken
        self.taken = 0

    @property
    def keeps_all(self) -> bool:
        return 0 < self.num_batches == len(self.kept)


class Assembled(nn.Module):
    """The model with a ``Switch`` at each of its positions; choice 0 is its own block."""

    def __init__(self, network: nn.Module, paths: Sequence[str], alternatives: Sequence[Sequence[nn.Module]]) -> None:
        super().__init__()
        self.paths, room = tuple(paths), Room()
        self.switches = nn.ModuleList()
        for path, row in zip(paths, alternatives, strict=True):
            switch = Switch([network.get_submodule(path), *row], room)
            network.set_submodule(path, switch)
            self.switches.append(switch)
        self.network = network
        self._previous: Genotype | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.network(inputs)
        return outputs

    def choose(self, genotype: Genotype) -> None:
        """Become the genotype's network, which keeps nothing of what it computes."""
        for position, choice in enumerate(genotype.choices):
            self._switch(position).start(choice, 0, goes_on=False)

    def outputs(
        self,
        genotype: Genotype,
        fixed: Fixed,
        kept: Callable[[int, torch.Tensor], torch.Tensor] = lambda _, outputs: outputs,
    ) -> torch.Tensor:
        """The network's outputs for the rated examples, N x ..., after its statistics were set anew.

        ``kept`` makes of a rated batch's number and outputs what is returned of them.
        """
        start = self._shared(genotype)
        for position, choice in enumerate(genotype.choices):
            self._switch(position).start(choice, fixed.num_batches, goes_on=position < start)
        norms = self._norms(start)
        with torch.inference_mode():
            forget_statistics(norms)
            for index, batch in enumerate(fixed.calibration):
                average_statistics(norms, index)
                self._run(index, batch)
            for norm in norms:
                norm.eval()
            before = len(fixed.calibration)
            outputs = [kept(index, self._run(before + index, batch)) for index, batch in enumerate(fixed.rated)]
        self._previous = genotype
        return torch.cat(outputs) if outputs else torch.empty(0)

    def forget(self) -> None:
        """Keep nothing of the last network."""
        self._previous = None
        for position in range(len(self.paths)):
            self._switch(position).forget()

    def weights(self, genotype: Genotype) -> dict[str, torch.Tensor]:
        """The network's parameters and buffers, by their names in a network without switches, on the CPU."""
        prefixes = {
            f"{path}.blocks.{choice}.": f"{path}." for path, choice in zip(self.paths, genotype.choices, strict=True)
        }
        found = {}
        for name, value in self.network.state_dict().items():
            inside = next((path for path in self.paths if name.startswith(f"{path}.blocks.")), None)
            if inside is None:
                found[name] = value
            for prefix, plain in prefixes.items():
                if name.startswith(prefix):
                    found[plain + name.removeprefix(prefix)] = value
        return {name: value.detach().cpu().clone() for name, value in found.items()}

    def _switch(self, position: int) -> Switch:
        switch = self.switches[position]
        assert isinstance(switch, Switch)
        return switch

    def _shared(self, genotype: Genotype) -> int:
        """Positions, from the first, at which this network and the last are alike and outputs are kept."""
        if self._previous is None:
            return 0
        pairs = zip(genotype.choices, self._previous.choices, strict=True)
        alike = next((index for index, (one, other) in enumerate(pairs) if one != other), len(self.paths))
        kept = next((p for p in range(len(self.paths)) if not self._switch(p).keeps_all), len(self.paths))
        return min(alike, kept)

    def _norms(self, start: int) -> list[_BatchNorm]:
        """Layers with running statistics that run: not those of blocks whose outputs are kept, or not chosen."""
        idle = [
            block
            for position in range(len(self.paths))
            for choice, block in enumerate(self._switch(position).blocks)
            if position < start or choice != self._switch(position).choice
        ]
        resting = {id(module) for block in idle for module in block.modules()}
        return [norm for norm in norms_of(self.network) if id(norm) not in resting]

    def _run(self, index: int, batch: torch.Tensor) -> torch.Tensor:
        for position in range(len(self.paths)):
            self._switch(position).batch = index
        output: torch.Tensor = self.network(batch)
        return output
