"""The searcher that others are compared with: random networks within the limits."""

import numpy as np

from nas_core.searchers.refinement import within
from nas_core.searchers.searcher import SEARCHERS, Knowledge, Searcher
from nas_core.space.encoding import Encoding
from nas_core.space.equivalence import equivalents
from nas_core.space.genotypes import Genotype

DRAWS = 20_000


@SEARCHERS.add
class RandomSearch(Searcher):
    """Uniformly random networks within the limits: the baseline."""

    name = "random"

    def next(self, known: Knowledge, number: int) -> list[Genotype]:
        rng = np.random.default_rng([known.seed, known.round, 3])
        encoding = Encoding.of(known.space)
        blocked = {alike for genotype in known.tried for alike in equivalents(known.space, genotype)}
        found: list[Genotype] = []
        for _ in range(DRAWS):
            if len(found) == number:
                break
            genotype = known.space.sample(rng)
            if genotype in blocked or not within(encoding, encoding.encode([genotype]), known.budgets, known.costs)[0]:
                continue
            found.append(genotype)
            blocked.update(equivalents(known.space, genotype))
        return found
