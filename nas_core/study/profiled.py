"""What the stage `profile` is to measure: every block, and some networks whole. No torch at import."""

import numpy as np

from nas_core.base.identity import evaluation_seed
from nas_core.costs import is_measured_whole, profiler_of
from nas_core.costs.parts import base_genotypes
from nas_core.records.evaluations import WHOLE_NETWORK
from nas_core.space.genotypes import Genotype
from nas_core.study.snapshot import Snapshot


def additivity_sample(known: Snapshot) -> list[Genotype]:
    """Networks measured whole, to say how additive a measured cost is; at the first resolution.

    The first of the space, of a trained model itself, is one of them: those drawn may all cost about the same.
    """
    space, number = known.space, known.config.profile.networks
    rng = np.random.default_rng(evaluation_seed(known.config.seed, "additivity"))
    first = [each for each in base_genotypes(space)[:1] if space.allows(each)]
    resolution = space.resolutions[0] if len(space.resolutions) > 1 else None
    drawn = (space.sample(rng) for _ in range(4 * number))
    distinct = dict.fromkeys(Genotype(genotype.choices, resolution) for genotype in (*first, *drawn))
    return list(distinct)[:number]


def is_timed_whole(known: Snapshot, resource: str) -> bool:
    """Whether whole networks are measured, and here."""
    config = known.config.profile
    return is_measured_whole(resource, config) and profiler_of(resource, config).measures_here


def is_profiled(known: Snapshot, resource: str) -> bool:
    """Whether every block has a value of this resource, and the sample of networks where it is measured."""
    rows = [row for row in known.prices(resource) if row.status == "ok"]
    blocks = {(row.position, row.choice, row.resolution) for row in rows if row.position != WHOLE_NETWORK}
    wanted = (sum(known.space.num_choices) + 1) * len(known.space.resolutions)
    return len(blocks) >= wanted and has_sample(known, resource, ("ok",))


def has_sample(known: Snapshot, resource: str, status: tuple[str, ...] = ("ok", "failed")) -> bool:
    """Whether there is a row of such a status of every network of the sample, where it is to be measured."""
    if not is_timed_whole(known, resource):
        return True
    rows = (row for row in known.prices(resource) if row.position == WHOLE_NETWORK and row.status in status)
    return set(map(str, additivity_sample(known))) <= {row.genotype for row in rows}
