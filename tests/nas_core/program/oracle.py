"""The slow obvious answer: look at every network. Knows no solver; the tests compare every route with it."""

import itertools
import math
from collections.abc import Iterator

from nas_core.base.errors import ConfigError
from nas_core.program.exact import Value, evaluate, selection_of, violations
from nas_core.program.problem import SelectionProblem
from nas_core.program.result import Selection
from nas_core.space.genotypes import Genotype

MAX_NETWORKS = 1_000_000


def networks(problem: SelectionProblem) -> Iterator[Genotype]:
    """Every network of the problem, limits and rules not applied, in lexicographic order."""
    for table in problem.tables:
        for choices in itertools.product(*map(range, table.num_choices)):
            yield Genotype(choices, table.resolution)


def brute_force(problem: SelectionProblem, k: int = 1, *, min_distance: int = 1) -> tuple[Selection, ...]:
    """The k best allowed networks, best first, each ``min_distance`` from those before it.

    Ties go to the network that comes first. Fewer than k if there are no more.

    Raises:
        ConfigError: if there are more than ``MAX_NETWORKS`` networks.
    """
    if problem.num_networks > MAX_NETWORKS:
        found = f"{math.prod(problem.num_choices)} networks"
        raise ConfigError("brute_force", found, f"at most {MAX_NETWORKS}", "Use solve.")
    chosen: list[Genotype] = []
    for _value, genotype in sorted(_allowed(problem), key=lambda item: item[0], reverse=True):
        if all(is_apart(genotype, other, min_distance) for other in chosen):
            chosen.append(genotype)
            if len(chosen) == k:
                break
    return tuple(selection_of(problem, genotype) for genotype in chosen)


def is_apart(genotype: Genotype, other: Genotype, min_distance: int) -> bool:
    """Whether two networks differ in ``min_distance`` places; another resolution counts as one place."""
    differs = genotype.resolution != other.resolution
    return genotype.distance(other) + differs >= min_distance


def _allowed(problem: SelectionProblem) -> Iterator[tuple[Value, Genotype]]:
    for genotype in networks(problem):
        totals = evaluate(problem, genotype)
        if not violations(problem, genotype, totals.costs):
            yield totals.value, genotype
