"""What the winner is trained beside: the base network, random networks within the same limits, points of a sweep."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nas_core.base.errors import IncompleteTableError
from nas_core.base.identity import evaluation_seed
from nas_core.space.equivalence import function_id
from nas_core.space.genotypes import Genotype
from nas_core.study.snapshot import Snapshot
from nas_core.study.sweep import Point

SEEDS = 2**31  # as many as a study can have
DRAWS = 20_000  # random networks looked at to find some within the limits

Role = Literal["winner", "base", "random", "point"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network to train: ``name`` is its folder in the store, ``winner``, ``random-0``, ``point-30pct`` and so on."""

    name: str
    role: Role
    genotype: str


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of a candidate: the first from the study's seed, which says what is handed over, others beside it.

    ``name`` is its folder in the store: the candidate's, then ``winner-s1`` and so on.
    """

    candidate: Candidate
    name: str
    seed: int


def trainings(known: Snapshot, wanted: Sequence[Candidate]) -> list[Training]:
    """All candidates from the first seed, then from the next; points of a sweep are compared with nothing: once."""
    seed = known.config.seed
    first = [Training(candidate=each, name=each.name, seed=seed) for each in wanted]
    return first + [
        Training(candidate=each, name=f"{each.name}-s{index}", seed=evaluation_seed(seed, f"training {index}") % SEEDS)
        for index in range(1, known.config.train.seeds)
        for each in wanted
        if each.role != "point"
    ]


def candidates(known: Snapshot, winner: str | None, points: Sequence[Point] = ()) -> list[Candidate]:
    """The winner first, then what it is compared with; networks that compute the same come once.

    Fewer random networks than asked for where the limits leave too few.

    Raises:
        IncompleteTableError: if no network was selected yet.
    """
    if winner is None:
        raise IncompleteTableError("winner", "no selection", "a selected network", "Run `mathnas select` first.")
    found = [Candidate(name="winner", role="winner", genotype=winner)]
    seen = {function_id(known.space, Genotype.parse(winner))}
    if known.config.train.compare_base and function_id(known.space, known.base) not in seen:
        found.append(Candidate(name="base", role="base", genotype=str(known.base)))
        seen.add(function_id(known.space, known.base))
    for index, genotype in enumerate(_random_within(known, known.config.train.compare_random, seen)):
        found.append(Candidate(name=f"random-{index}", role="random", genotype=str(genotype)))
    for point in points:
        if point.recovered and (function := function_id(known.space, Genotype.parse(str(point.genotype)))) not in seen:
            seen.add(function)
            found.append(Candidate(name=point.name, role="point", genotype=str(point.genotype)))
    return found


def _random_within(known: Snapshot, count: int, seen: set[str]) -> list[Genotype]:
    rng = np.random.default_rng(evaluation_seed(known.config.seed, "comparison"))
    budgets = known.limits
    found: list[Genotype] = []
    for _ in range(DRAWS if count else 0):
        genotype = known.space.sample(rng)
        function = function_id(known.space, genotype)
        if function not in seen and known.within(genotype, budgets):
            seen.add(function)
            found.append(genotype)
            if len(found) == count:
                break
    return found
