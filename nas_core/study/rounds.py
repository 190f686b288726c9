"""Solve, evaluate the best for real, refit, solve again, until the choice stands or a budget ends.

The record of rounds is ``verification.json``. A round's networks are written
before they are evaluated, so a run that is killed goes on with the same round.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nas_core.prediction import Refinement, Round, propose
from nas_core.program import Budget, solve
from nas_core.records.evaluations import EvaluationTable
from nas_core.space.equivalence import equivalents
from nas_core.space.genotypes import Genotype
from nas_core.study.choices import with_additive_limits
from nas_core.study.stages import VERIFICATION
from nas_core.study.study import Study

Record = dict[str, Any]


def verification(study: Study) -> Record:
    """The record of rounds made from the present inputs; an empty one where there is none."""
    record = study.output(VERIFICATION)
    inputs = study.inputs_of("verify")
    if record is None or record["inputs"] != inputs:
        return {"inputs": inputs, "rounds": [], "winner": None, "winner_metric": None, "stands": False, "reason": ""}
    return record


def next_round(study: Study, index: int) -> list[str]:
    """The networks of round ``index`` (from 0); none when the choice stands or the budget is spent.

    The solver's best network comes first, if it was not evaluated yet; the
    others are those whose evaluation promises most, uncertainty counted.
    """
    record = verification(study)
    if index < len(record["rounds"]):
        return list(record["rounds"][index]["proposed"])
    refinement = _refinement(record)
    count = refinement.num_next(study.config.verify)
    proposed = _proposals(study, index, count) if count else []
    if not proposed:
        reason = refinement.stop_reason(study.config.verify) or "every network within the limits is evaluated"
        _write(study, {**record, **_incumbent(study), "stands": _stands(record, count), "reason": reason})
        return []
    predictions = study.predictor().predict(proposed)
    new_round = {
        "proposed": [str(genotype) for genotype in proposed],
        "predicted": [prediction.metric for prediction in predictions],
        "low": [prediction.low for prediction in predictions],
        "high": [prediction.high for prediction in predictions],
        "before": _incumbent(study)["winner_metric"],
    }
    _write(study, {**record, "rounds": [*record["rounds"], new_round]})
    return list(new_round["proposed"])


def record_round(study: Study, index: int) -> None:
    """Note what the networks of round ``index`` were measured at, and the best network so far; once."""
    record = verification(study)
    if "measured" in record["rounds"][index]:  # gone through again after an interruption: later rounds are known by now
        return
    rows = study.evaluations()
    measured = {row.genotype: row.metric for row in rows if row.status == "ok"}
    incumbent = _incumbent(study)
    before, after = record["rounds"][index]["before"], incumbent["winner_metric"]
    closed = {
        **record["rounds"][index],
        "measured": [measured.get(genotype) for genotype in record["rounds"][index]["proposed"]],
        "incumbent": incumbent["winner"],
        "incumbent_metric": after,
        "improved": after is not None and (before is None or _sign(study) * (after - before) > 0),
        "num_evaluations": len(rows),
    }
    rounds = [*record["rounds"][:index], closed, *record["rounds"][index + 1 :]]
    _write(study, {**record, **incumbent, "rounds": rounds})


def _write(study: Study, record: Mapping[str, Any]) -> None:
    study.store.write_json(VERIFICATION, dict(record))


def _sign(study: Study) -> int:
    return 1 if all(row.higher_is_better for row in study.evaluations()) else -1


def _stands(record: Record, count: int) -> bool:
    """Whether refinement ended because nothing better was found, not because the budget did."""
    rounds = record["rounds"]
    return count > 0 or (bool(rounds) and not rounds[-1]["improved"])


def _refinement(record: Record) -> Refinement:
    rounds = [
        Round(
            proposed=tuple(map(Genotype.parse, row["proposed"])),
            predicted=tuple(row["predicted"]),
            measured=tuple(row["measured"]),
            incumbent=Genotype.parse(row["incumbent"] or row["proposed"][0]),
            incumbent_metric=math.nan if row["incumbent_metric"] is None else row["incumbent_metric"],
            improved=row["improved"],
        )
        for row in record["rounds"]
    ]
    return Refinement(rounds=tuple(rounds))


def _incumbent(study: Study) -> dict[str, Any]:
    """The best network that was really evaluated and is within the limits."""
    budgets = study.budgets(study.config.select.limits)
    rows = [row for row in study.evaluations() if row.status == "ok"]
    rows = [row for row in rows if study.within(Genotype.parse(row.genotype), budgets)]
    if not rows:
        return {"winner": None, "winner_metric": None}
    table = EvaluationTable.from_rows(rows)
    best = int(table.metric_K.argmax())
    return {"winner": str(table.genotypes[best]), "winner_metric": table.sign * float(table.metric_K[best])}


def _proposals(study: Study, index: int, count: int) -> list[Genotype]:
    budgets = study.budgets(study.config.select.limits)
    tables, additive = with_additive_limits(study.cost_tables, budgets)
    tried = [Genotype.parse(row.genotype) for row in study.evaluations()]
    first = _solvers_best(study, budgets, tried)
    others = propose(
        study.space,
        study.table(),
        study.config.predict,
        base=study.base,
        k=count - len(first),
        budgets=additive,
        costs=[table for mine in tables.values() for table in mine.values()],
        avoid=[*tried, *first],
        flops=study.flops,
        seed=study.config.seed,
        round=index,
    )
    return [*first, *others]


def _solvers_best(study: Study, budgets: Sequence[Budget], tried: Sequence[Genotype]) -> list[Genotype]:
    """The program's optimum, unless it (or a network that computes the same) was tried."""
    result = solve(study.problem(study.predictor(), budgets), time_limit_s=study.config.select.time_limit_s)
    done = {alike for genotype in tried for alike in equivalents(study.space, genotype)}
    return [choice.genotype for choice in result.selections[:1] if choice.genotype not in done]
