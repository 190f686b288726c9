"""The searcher that trusts the predictor: the best predicted networks that were not tried, by the exact program."""

import time

from nas_core.prediction import fit
from nas_core.program import top_k
from nas_core.searchers.searcher import SEARCHERS, Knowledge, Searcher
from nas_core.space.equivalence import equivalents
from nas_core.space.genotypes import Genotype

TIME_LIMIT_S = 60.0


@SEARCHERS.add
class BestPredicted(Searcher):
    """The best predicted networks that were not tried, by the exact program; uncertainty does not count."""

    name = "exact"

    def next(self, known: Knowledge, number: int) -> list[Genotype]:
        flops = known.flops if len(known.space.resolutions) == 1 else None
        predictor = fit(known.space, known.table, known.predict, base=known.base, flops=flops, seed=known.seed)
        blocked = {alike: None for genotype in known.tried for alike in equivalents(known.space, genotype)}
        found: list[Genotype] = []
        deadline, missing, are_more = time.monotonic() + TIME_LIMIT_S, number, True
        while missing and are_more:  # again only where some of the best compute the same
            problem = predictor.problem(list(known.costs), list(known.budgets), list(blocked))
            result = top_k(problem, missing, time_limit_s=max(0.0, deadline - time.monotonic()))
            are_more = len(result.selections) == missing
            for selection in result.selections:
                if selection.genotype not in blocked:
                    found.append(selection.genotype)
                    blocked |= dict.fromkeys(equivalents(known.space, selection.genotype))
            missing = number - len(found)
        return found
