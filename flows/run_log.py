"""What a stage says in the log of its run on Prefect's page: what it does, how many, what it chose, what failed.

Warnings of our own modules stand there too: `tasks.environment` names their loggers to Prefect.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

from nas_core.costs.profiler import ANY_DEVICE
from nas_core.records.evaluations import Evaluation
from nas_core.report.text import (
    format_amount,
    format_metric,
    format_quantity,
    metric_label,
    outcome_lines,
    resource_name,
)
from nas_core.study.brought import trained_metric
from nas_core.study.stages import REPORT, TRACKING, Stage
from nas_core.study.study import Study
from tasks.embedded_tracking import address

MOST_FAILURES = 5  # different ones


def log_of_run() -> Any:
    """The logger of the flow that runs; our own where none does."""
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)


def log_stage(study: Study, stage: Stage) -> None:
    """What the stage did and found, from what it stored."""
    log, record = log_of_run(), study.records()[stage]
    counts = f"{record['num_new']} new, {record['num_reused']} reused, {record.get('num_failed', 0)} failed"
    log.info("stage %s: %s, %.1f s", stage, counts, record["wall_s"])
    for line in FOUND[stage](study):
        log.info("%s: %s", stage, line)
    if stage in ("score", "verify"):
        for line in _failures(study.evaluations()):
            log.warning("%s: %s", stage, line)


def _failures(rows: list[Evaluation]) -> Iterator[str]:
    failed = Counter(row.message for row in rows if row.status == "failed")
    for message, number in failed.most_common(MOST_FAILURES):
        yield f"{number} networks failed: {message[:500]}"
    if len(failed) > MOST_FAILURES:
        yield f"{len(failed) - MOST_FAILURES} other failures, see the table"


def _profiled(study: Study) -> Iterator[str]:
    for resource in study.profiler_ids:
        rows = [row for row in study.costs(resource) if row.position >= 0]
        values = [float(row.value) for row in rows if row.status == "ok" and row.value is not None]
        if any(values):
            least, most = (format_amount(resource, value) for value in (min(values), max(values)))
            where = "" if rows[0].device == ANY_DEVICE else f", on {rows[0].device}"
            yield f"{resource_name(resource)} of {len(values)} blocks: {least} to {most}{where}"


def _scored(study: Study) -> Iterator[str]:
    rows = [row for row in study.evaluations() if row.metric is not None]
    if rows:
        best = max(rows, key=lambda row: (row.metric or 0.0) * (1 if row.higher_is_better else -1))
        measure = study.scorer.measure
        value = f"{metric_label(measure)} {format_metric(measure, best.metric)}"
        yield f"{len(rows)} networks are rated; the best of them is {best.genotype}, {value}"


def _selected(study: Study) -> Iterator[str]:
    answer = study.current("select") or {"selections": []}
    limits = ", ".join(answer.get("limits", ())) or "none"
    yield f"limits: {limits}. {answer.get('message', '')}"
    for rank, row in enumerate(answer["selections"], start=1):
        yield f"{rank}. {row['genotype']}, predicted {row['predicted']:.4f}{_costs(row['costs'])}"


def _verified(study: Study) -> Iterator[str]:
    record = study.current("verify") or {"rounds": []}
    for number, row in enumerate(record["rounds"], start=1):
        measured = row.get("measured") or [None] * len(row["proposed"])
        networks = zip(row["proposed"], row["predicted"], measured, strict=True)
        words = (f"{network} predicted {guess:.4f}, evaluated {_four(value)}" for network, guess, value in networks)
        yield f"round {number}: {'; '.join(words)}"
    if record.get("winner"):
        open_yet = "" if record["stands"] else "; the choice may change yet"
        value = _four(record.get("winner_metric"))
        yield f"winner {record['winner']}, evaluated {value}; {record.get('reason', '')}{open_yet}"
    if (outcome := study.outcome()) is not None:
        yield from outcome_lines(outcome, study.scorer.measure)


def _trained(study: Study) -> Iterator[str]:
    metric = trained_metric(study.config)
    for row in (study.current("train") or {"networks": []})["networks"]:
        value = format_metric(metric, row["metrics"]["test"][metric.name])
        yield f"{row['name']} {row['genotype']}: {metric_label(metric, 'test')} {value}{_costs(row['costs'])}"


def _reported(study: Study) -> Iterator[str]:
    yield f"the report is {study.store.uri(REPORT)}"
    runs = study.output(TRACKING)
    if runs is not None:
        yield f"MLflow has it at {address(study.store, runs)}"


def _four(value: float | None) -> str:
    return "failed" if value is None else f"{value:.4f}"


def _costs(costs: dict[str, float]) -> str:
    return "".join(f", {format_quantity(name, value)}" for name, value in costs.items())


FOUND = {
    "profile": _profiled,
    "score": _scored,
    "select": _selected,
    "verify": _verified,
    "train": _trained,
    "report": _reported,
}
