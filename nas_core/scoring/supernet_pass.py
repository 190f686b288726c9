"""Scoring many paths of a supernet at once: what networks share is computed once.

Networks of a batch form a trie: a node is a prefix (stem, then one block per
position, then the head), and networks that begin alike share the nodes. A
node's activations are computed once from its parent's, first on calibration
images (which sets the block's normalisation statistics for this prefix, just
as `recalibrated_logits` does for one whole network), then on the images to be
rated. The trie is walked depth first, ``side_by_side`` nodes at a time, so a
pass holds at most that many activations per position however many networks
there are. Nodes of a chunk that take the same block share its weights: they
run as one batch with statistics of their own (``torch.func.vmap``), which
pays on a GPU with small networks.

B = images of a batch, G = nodes run together.
"""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call, vmap

from nas_core.families.batch_norm import average_statistics, forget_statistics, norms_of
from nas_core.families.shared_weights import SharedWeights
from nas_core.space.genotypes import Genotype

log = logging.getLogger(__name__)

Batches = list[torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What a prefix makes of the images: calibration batches and rated batches."""

    calibration: Batches
    rated: Batches


@dataclass(frozen=True, kw_only=True)
class _Node:
    """A prefix's activations and the networks below it, all equal up to its level."""

    activations: Activations
    genotypes: tuple[Genotype, ...]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A child to compute: one choice at one node."""

    choice: int
    parent: _Node
    genotypes: tuple[Genotype, ...]


def recalibrated_logits(network: SharedWeights, genotype: Genotype, images: Activations) -> torch.Tensor:
    """Logits of one network, the plain way: statistics from the calibration batches, then eval mode."""
    modules = network.path(genotype)
    with torch.inference_mode():
        for module in modules:
            forget_statistics(norms_of(module))
        for index, batch in enumerate(images.calibration):
            batch = batch.clone()  # what is kept of the images is for other networks, too
            for module in modules:
                _calibrating(module, index)
                batch = module(batch)
        for module in modules:
            module.eval()
        return torch.cat([_run_all(modules, batch.clone()) for batch in images.rated])


def recalibrated_outputs(network: nn.Module, genotype: Genotype, images: Activations) -> torch.Tensor:
    """Outputs of one network of any shared network: statistics from the calibration batches, then eval mode."""
    with torch.inference_mode():
        forget_statistics(norms_of(network))
        for index, batch in enumerate(images.calibration):
            _calibrating(network, index)
            network(batch.clone(), genotype=genotype)
        network.eval()
        return torch.cat([network(batch.clone(), genotype=genotype) for batch in images.rated])


def _run_all(modules: Sequence[nn.Module], batch: torch.Tensor) -> torch.Tensor:
    for module in modules:
        batch = module(batch)
    return batch


def shared_prefix_logits(
    network: SharedWeights,
    genotypes: Sequence[Genotype],
    images: Activations,
    side_by_side: int = 1,
    on_logits: Callable[[Genotype, torch.Tensor], None] | None = None,
) -> dict[Genotype, torch.Tensor | Exception]:
    """Logits of every distinct network, or the exception that its blocks raised.

    ``images`` are normalised batches of one resolution. The values are those
    of `recalibrated_logits`; the network is left in eval mode with the
    statistics of whichever prefix came last.
    """
    walk = _Walk(network, side_by_side, on_logits)
    root = _Node(activations=images, genotypes=tuple(sorted(set(genotypes))))
    with torch.inference_mode():
        walk.descend(0, [root])
    return walk.results


class _Walk:
    """One pass over a trie. Level 0 is the stem, level 1 + p is position p, the last one is the head."""

    def __init__(
        self,
        network: SharedWeights,
        side_by_side: int,
        on_logits: Callable[[Genotype, torch.Tensor], None] | None,
    ) -> None:
        self.network, self.side_by_side, self.on_logits = network, side_by_side, on_logits
        self.num_positions = len(network.positions)
        self.results: dict[Genotype, torch.Tensor | Exception] = {}

    def descend(self, level: int, nodes: Sequence[_Node]) -> None:
        """Compute everything below the nodes, ``side_by_side`` children at a time."""
        if level == self.num_positions + 2:
            self._finish(nodes)
            return
        jobs = sorted((job for node in nodes for job in self._jobs(level, node)), key=lambda job: job.choice)
        for chunk in _chunks(jobs, self.side_by_side):
            children = []
            for choice, group in itertools.groupby(chunk, key=lambda job: job.choice):
                children += self._children(level, choice, list(group))
            self.descend(level + 1, children)

    def _choice(self, level: int, genotype: Genotype) -> int:
        """Stem and head are choices too, of which there is one."""
        return genotype.choices[level - 1] if 1 <= level <= self.num_positions else 0

    def _module(self, level: int, choice: int) -> nn.Module:
        if level == 0:
            return self.network.stem
        return self.network.head if level > self.num_positions else self.network.block(level - 1, choice)

    def _jobs(self, level: int, node: _Node) -> Iterator[_Job]:
        for choice in sorted({self._choice(level, genotype) for genotype in node.genotypes}):
            mine = tuple(genotype for genotype in node.genotypes if self._choice(level, genotype) == choice)
            yield _Job(choice=choice, parent=node, genotypes=mine)

    def _children(self, level: int, choice: int, jobs: Sequence[_Job]) -> list[_Node]:
        """The jobs' nodes; networks whose block fails leave the trie with its exception."""
        module = self._module(level, choice)
        try:
            outputs = run_prefixes(module, [job.parent.activations for job in jobs])
        except Exception as error:  # one block's failure is the failure of the networks that take it
            if len(jobs) == 1:
                log.warning("%d networks fail at level %d, choice %d: %s", len(jobs[0].genotypes), level, choice, error)
                self.results |= dict.fromkeys(jobs[0].genotypes, error)
                return []
            outputs = None
        if outputs is None:  # outside the handler, so that the exception does not keep the memory
            return [node for job in jobs for node in self._children(level, choice, [job])]
        return [_Node(activations=output, genotypes=job.genotypes) for output, job in zip(outputs, jobs, strict=True)]

    def _finish(self, nodes: Sequence[_Node]) -> None:
        for node in nodes:
            logits = torch.cat(node.activations.rated)
            for genotype in node.genotypes:
                self.results[genotype] = logits
                if self.on_logits is not None:
                    self.on_logits(genotype, logits)


def run_prefixes(module: nn.Module, inputs: Sequence[Activations]) -> list[Activations]:
    """The module's outputs for several prefixes, each with normalisation statistics of its own."""
    if isinstance(module, nn.Identity):
        return list(inputs)
    if len(inputs) == 1:
        return [_run_one(module, inputs[0])]
    return _run_grouped(module, inputs)


def _run_one(module: nn.Module, inputs: Activations) -> Activations:
    forget_statistics(norms_of(module))
    calibrated = []
    for index, batch in enumerate(inputs.calibration):
        _calibrating(module, index)
        calibrated.append(module(batch.clone()))  # others begin with the batch; a block may work in place
    module.eval()
    return Activations(calibration=calibrated, rated=[module(batch.clone()) for batch in inputs.rated])


def _run_grouped(module: nn.Module, inputs: Sequence[Activations]) -> list[Activations]:
    """As `_run_one` for each, in one call per batch: weights shared, statistics stacked over G."""
    forget_statistics(norms_of(module))
    statistics = {
        name: buffer.expand(len(inputs), *buffer.shape).clone()
        for name, buffer in module.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    }

    def call(own: dict[str, torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = functional_call(module, own, (batch,))
        return output

    grouped = vmap(call)
    calibrated = []
    for index, batches in enumerate(zip(*(item.calibration for item in inputs), strict=True)):
        _calibrating(module, index)
        calibrated.append(grouped(statistics, torch.stack(batches)))
    module.eval()
    rated = [
        grouped(statistics, torch.stack(batches)) for batches in zip(*(item.rated for item in inputs), strict=True)
    ]
    return [
        Activations(calibration=[batch[g] for batch in calibrated], rated=[batch[g] for batch in rated])
        for g in range(len(inputs))
    ]


def _calibrating(module: nn.Module, index: int) -> None:
    """Eval mode but for normalisation, which averages its statistics over batches 0 to ``index``."""
    module.eval()
    average_statistics(norms_of(module), index)


def _chunks(jobs: Sequence[_Job], size: int) -> Iterator[Sequence[_Job]]:
    for start in range(0, len(jobs), size):
        yield jobs[start : start + size]
