"""Networks that compute the same function through different genotypes.

A block that does nothing where its shapes agree commutes with its neighbours of
the same shape: ``2-0-1`` and ``0-2-1`` can be one network. One evaluation then
answers for all of them, and none is proposed twice.
"""

import itertools
from collections.abc import Iterator

from nas_core.space.genotypes import NO_OPS, Genotype, SearchSpace

MOST_COPIES = 64  # equivalents listed per network; a deep stage of no-ops has binomially many


def has_equivalents(space: SearchSpace) -> bool:
    """Whether two genotypes of the space can be one function."""
    return any(len(run) > 1 for run in _runs(space))


def function_id(space: SearchSpace, genotype: Genotype) -> str:
    """What identifies the network's function; the genotype itself where no two can be equal."""
    if not has_equivalents(space):
        return str(genotype)
    return space.architecture(genotype).function_id


def _runs(space: SearchSpace) -> list[list[int]]:
    """Maximal runs of consecutive positions that keep the shape and among which a no-op can stand."""
    runs: list[list[int]] = []
    channels = int(dict(space.stem.params).get("out_channels", space.in_channels))
    open_run = False
    for index, position in enumerate(space.positions):
        keeps = position.stride == 1 and position.out_channels == channels
        if keeps and open_run:
            runs[-1].append(index)
        elif keeps:
            runs.append([index])
        open_run, channels = keeps, position.out_channels
    return [run for run in runs if any(b.kind in NO_OPS for p in run for b in space.positions[p].blocks)]


def _arrangements(space: SearchSpace, genotype: Genotype, run: list[int]) -> Iterator[dict[int, int]]:
    """Every way to place the run's working blocks, in order, with no-ops between them."""
    blocks = [space.positions[p].blocks[genotype.choices[p]] for p in run]
    working = [block for block in blocks if block.kind not in NO_OPS]
    for places in itertools.combinations(range(len(run)), len(working)):
        wanted = dict(zip(places, working, strict=True))
        options = []
        for place, position in enumerate(run):
            block = wanted.get(place)
            options.append(
                [
                    choice
                    for choice, candidate in enumerate(space.positions[position].blocks)
                    if (candidate == block if block is not None else candidate.kind in NO_OPS)
                ]
            )
        for choices in itertools.product(*options):
            yield dict(zip(run, choices, strict=True))


def equivalents(space: SearchSpace, genotype: Genotype) -> list[Genotype]:
    """The allowed genotypes that compute what ``genotype`` computes, itself first; at most MOST_COPIES."""
    found = {genotype: None}
    arrangements = [_arrangements(space, genotype, run) for run in _runs(space)]
    for parts in itertools.islice(itertools.product(*map(tuple, arrangements)), MOST_COPIES):
        choices = list(genotype.choices)
        for part in parts:
            for position, choice in part.items():
                choices[position] = choice
        other = Genotype(tuple(choices), genotype.resolution)
        if space.allows(other):
            found.setdefault(other)
    return list(found)
