"""The searcher that trusts the predictor: the best predicted networks that were not tried, by the exact program."""

from nas_core.prediction import fit
from nas_core.program import top_k
from nas_core.searchers.searcher import SEARCHERS, Knowledge, Searcher
from nas_core.space.genotypes import Genotype

TIME_LIMIT_S = 60.0


@SEARCHERS.add
class BestPredicted(Searcher):
    """The best predicted networks that were not tried, by the exact program; uncertainty does not count."""

    name = "exact"

    def next(self, known: Knowledge, number: int) -> list[Genotype]:
        flops = known.flops if len(known.space.resolutions) == 1 else None
        predictor = fit(known.space, known.table, known.predict, base=known.base, flops=flops, seed=known.seed)
        problem = predictor.problem(list(known.costs), list(known.budgets), list(known.tried))
        result = top_k(problem, number, time_limit_s=TIME_LIMIT_S)
        return [selection.genotype for selection in result.selections]
