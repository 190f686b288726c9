"""The paper's own procedure: score every block around one base, rank all networks once, take the best."""

import numpy as np

from nas_core.prediction import fit_paper
from nas_core.records.evaluations import EvaluationTable
from nas_core.space.genotypes import Genotype
from tests.benchmarks.peers.task import SearchTask


def paper_rule(task: SearchTask, rng: np.random.Generator) -> list[int]:
    """One-swap evaluations around a random base, then the networks that Eq. 5 ranks highest, without refitting.

    The FLOPs ratio has the exponent 1 as printed, where the table has a cost ``flops``.
    """
    base = int(rng.choice(task.allowed_rows))
    seen = [base, *task.neighbours(base)][: task.most]
    encoding = task.table.encoding
    genotypes = [encoding.genotype(task.codes[row]) for row in seen]
    metrics: dict[Genotype, float] = dict(zip(genotypes, task.metric[seen].tolist(), strict=True))
    rule = fit_paper(task.table.space, EvaluationTable.from_metrics(metrics), base=genotypes[0], exponent=0.0)
    loss_N = rule.base_metric - rule.values(task.codes)
    flops_N = task.table.costs.get("flops")
    ratio_N = np.ones(len(loss_N)) if flops_N is None else flops_N.mean() / flops_N
    value_N = np.where(task.allowed_N, rule.base_metric - loss_N * ratio_N, -np.inf)
    value_N[seen] = -np.inf
    rest = np.argsort(-value_N, kind="stable")[: task.most - len(seen)]
    return [*seen, *(int(row) for row in rest)]
