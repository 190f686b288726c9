"""What the winner is trained beside: the base network and random networks within the same limits."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from nas_core.base.errors import IncompleteTableError
from nas_core.base.identity import evaluation_seed
from nas_core.space.equivalence import function_id
from nas_core.space.genotypes import Genotype
from nas_core.study.study import Study

DRAWS = 20_000  # random networks looked at to find some within the limits

Role = Literal["winner", "base", "random"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network to train: ``name`` is its folder in the store, ``winner``, ``base``, ``random-0`` and so on."""

    name: str
    role: Role
    genotype: str


def candidates(study: Study) -> list[Candidate]:
    """The winner first, then what it is compared with; networks that compute the same come once.

    Fewer random networks than asked for where the limits leave too few.

    Raises:
        IncompleteTableError: if no network was selected yet.
    """
    if study.winner is None:
        raise IncompleteTableError("winner", "no selection", "a selected network", "Run `mathnas select` first.")
    found = [Candidate(name="winner", role="winner", genotype=study.winner)]
    seen = {function_id(study.space, Genotype.parse(study.winner))}
    if study.config.train.compare_base and function_id(study.space, study.base) not in seen:
        found.append(Candidate(name="base", role="base", genotype=str(study.base)))
        seen.add(function_id(study.space, study.base))
    for index, genotype in enumerate(_random_within(study, study.config.train.compare_random, seen)):
        found.append(Candidate(name=f"random-{index}", role="random", genotype=str(genotype)))
    return found


def _random_within(study: Study, count: int, seen: set[str]) -> list[Genotype]:
    rng = np.random.default_rng(evaluation_seed(study.config.seed, "comparison"))
    budgets = study.budgets(study.config.select.limits)
    found: list[Genotype] = []
    for _ in range(DRAWS if count else 0):
        genotype = study.space.sample(rng)
        function = function_id(study.space, genotype)
        if function not in seen and study.within(genotype, budgets):
            seen.add(function)
            found.append(genotype)
            if len(found) == count:
                break
    return found
