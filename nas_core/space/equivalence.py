"""Networks that compute the same function through different genotypes.

A block that does nothing where its shapes agree commutes with its neighbours of
the same shape: ``2-0-1`` and ``0-2-1`` can be one network. A table may name
further ones (``SearchSpace.same_function``). One evaluation then answers for
all of them, and none is proposed twice.
"""

import itertools
from collections.abc import Iterator

from nas_core.space.genotypes import NO_OPS, Genotype, SearchSpace

MOST_COPIES = 64  # arrangements listed per network; a deep stage of no-ops has binomially many


def has_equivalents(space: SearchSpace) -> bool:
    """Whether two genotypes of the space can be one function."""
    return bool(space.same_function) or any(len(run) > 1 for run in _runs(space))


def function_id(space: SearchSpace, genotype: Genotype) -> str:
    """What identifies the network's function; the genotype itself where no two can be equal."""
    if space.same_function:
        names = [space.same_function.get(alike.choices) for alike in _arranged(space, genotype)]
        known = sorted(name for name in names if name is not None)
        if known:
            return f"function {known[0]}"
    if not space.is_chain or not has_equivalents(space):
        return str(genotype)
    return space.architecture(genotype).function_id


def _runs(space: SearchSpace) -> list[list[int]]:
    """Maximal runs of consecutive positions that keep the shape and among which a no-op can stand."""
    if not space.is_chain:  # what another topology computes, only its family knows
        return []
    runs: list[list[int]] = []
    open_run = False
    for index, row in enumerate(space.placed):
        keeps = row[0].stride == 1 and row[0].in_channels == row[0].out_channels
        if keeps and open_run:
            runs[-1].append(index)
        elif keeps:
            runs.append([index])
        open_run = keeps
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


def _arranged(space: SearchSpace, genotype: Genotype) -> Iterator[Genotype]:
    """``genotype`` and at most MOST_COPIES arrangements of its blocks that compute the same, whatever the rules say."""
    yield genotype
    arrangements = [_arrangements(space, genotype, run) for run in _runs(space)]
    for parts in itertools.islice(itertools.product(*map(tuple, arrangements)), MOST_COPIES):
        choices = list(genotype.choices)
        for part in parts:
            for position, choice in part.items():
                choices[position] = choice
        yield Genotype(tuple(choices), genotype.resolution)


def equivalents(space: SearchSpace, genotype: Genotype) -> list[Genotype]:
    """The allowed genotypes that compute what ``genotype`` computes, itself first.

    Of rearranged blocks at most MOST_COPIES; of those that ``same_function`` names, all.
    """
    found = {genotype: None}
    for alike in _arranged(space, genotype):
        named = space.function_members.get(space.same_function.get(alike.choices, ""), ())
        for other in (alike, *(Genotype(choices, genotype.resolution) for choices in named)):
            if other not in found and space.allows(other):
                found[other] = None
    return list(found)
