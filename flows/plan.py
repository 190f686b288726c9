"""What a run would do: its whole preflight, what there is to choose from, evaluations to make, a rough time."""

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nas_core.base.errors import StoreError
from nas_core.costs import is_measured, profile_blocks
from nas_core.program import parse_limit
from nas_core.records.evaluations import CostTable
from nas_core.records.resources import combine_of
from nas_core.records.store import Store
from nas_core.report.summary import Limit
from nas_core.report.text import format_amount, format_limit
from nas_core.space.extremes import extreme_genotypes
from nas_core.study.brought import workload_of
from nas_core.study.config import StudyConfig
from nas_core.study.rounds import FINALISTS
from nas_core.study.snapshot import Snapshot
from nas_core.study.sources import Sources
from nas_core.study.stages import CONFIG, STAGES, Stage
from nas_core.study.study import Study
from nas_core.training.settings import training_work

MULTIPLY_ADDS_PER_CPU_SECOND = 1.2e10  # small convolutional networks, one modern core, float32
EMBEDDED = {
    "RAY_ADDRESS": "a local Ray on this machine",
    "PREFECT_API_URL": "a Prefect server in this process",
    "MLFLOW_TRACKING_URI": "a SQLite file in the study",
}
MOST_NAMES = 20  # of classes, in a line


def plan(config: StudyConfig, root: str, until: Stage = "report") -> dict[str, Any]:
    """What the stages up to ``until`` would do; nothing is written.

    Raises:
        NasError: what the run would end with before any compute is spent, or an impossible limit.
    """
    from flows.preflight import preflight
    from tasks.addresses import check_addresses

    check_addresses()
    with _study(config, root) as study:
        preflight(study, until, dry_run=root)
        known = _priced(study)
        known.check_limits()
        design = known.design
        missing = study.missing(design.genotypes)
        verifies = STAGES.index(until) >= STAGES.index("verify")
        trains = STAGES.index(until) >= STAGES.index("train") and study.family.are_networks
        others = study.space.num_networks - len(design.genotypes)
        verification = min(config.verify.evaluations, others) if verifies else 0
        mean = sum(known.flops.total(genotype) for genotype in design.genotypes) / len(design.genotypes)
        more = _finals(study, mean) if verifies else 0
        estimate_s = _estimate_s(study, len(missing) + verification + more, mean, trains)
        return {
            "study": config.name,
            "root": root,
            "networks_in_space": study.space.num_networks,
            "base": str(design.base),
            "evaluations": len(design.genotypes),
            "stored": len(design.genotypes) - len(missing),
            "missing": len(missing),
            "verification_at_most": verification,
            "data": _data(study) if trains or study.scorer.needs_data else {},
            "notes": list(study.scorer.notes()),
            "resources": _attainable(known) if study.family.are_networks else {},
            "limits": _limits(config, known),
            "cluster": _cluster(),
            "estimate_s": None if math.isnan(estimate_s) else round(estimate_s, 1),
            "estimate_from": "stored evaluations" if study.evaluations() else "multiply-adds and an assumed speed",
        }


@contextmanager
def _study(config: StudyConfig, root: str) -> Iterator[Study]:
    """The study as it is stored; where it is not, one in a folder that is gone afterwards."""
    try:
        store = Store(root, create=False)
        if store.exists(CONFIG):
            yield Study(config, store, Sources.of(config, store.root))  # as the run will find it
            return
    except StoreError:
        pass  # nothing is there yet
    with tempfile.TemporaryDirectory() as folder:
        yield Study(config, Store(folder))


def _priced(study: Study) -> Snapshot:
    """What the study knows, with the counts of its blocks; without resources that only a run will measure."""
    counted = [resource for resource in study.profiler_ids if not is_measured(resource)]
    rows = profile_blocks(study.family, study.config.profile, counted)
    known = {row.resource for row in study.snapshot.costs if is_measured(row.resource)}
    resources = {name: mine for name, mine in study.profiler_ids.items() if name in counted or name in known}
    limits = [text for text in study.config.select.limits if _is_of(text, resources)]
    select = study.config.select.model_copy(update={"limits": limits})
    return Snapshot(
        config=study.config.model_copy(update={"select": select}),
        space=study.space,
        profiler_ids=resources,
        evaluations=study.snapshot.evaluations,
        costs=(*(row for row in study.snapshot.costs if is_measured(row.resource)), *rows),
        root=study.store.root,
    )


def _is_of(limit: str, resources: Mapping[str, str]) -> bool:
    name = parse_limit(limit).resource
    return any(name in (known, known.rpartition("_")[0]) for known in resources)


def _data(study: Study) -> dict[str, str]:
    """What the workload says of itself, and its classes."""
    workload = workload_of(study.config)
    rows, space = dict(workload.describe()), study.space
    if held := workload.held(workload.sample.shape_at(max(space.resolutions), space.in_channels)):
        rows["held"] = held
    names = list(getattr(workload, "class_names", ()))
    if names:
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        rows["classes"] = f"{len(names)}: {', '.join(names[:MOST_NAMES])}{more}"
    train, validation = workload.num_examples()
    rows["scoring"] = f"{train:,} training and {validation:,} validation examples"
    return rows


def _attainable(known: Snapshot) -> dict[str, dict[str, float]]:
    """Least and most of each priced resource that the rules allow, and the base network's."""
    base = known.costs_of(known.base)
    found = {}
    for resource in known.profiler_ids:
        totals = [total for tables in known.cost_tables.values() for total in _range(known, tables[resource])]
        found[resource] = {"least": min(totals), "most": max(totals), "base": base[resource]}
    return found


def _range(known: Snapshot, table: CostTable) -> list[float]:
    if combine_of(table.resource) == "max":  # of its blocks, rules not applied
        return [max(table.fixed, *map(pick, table.block)) for pick in (min, max)]
    space = known.space
    if len(space.resolutions) > 1:  # one table at a time
        return [table.fixed + sum(map(pick, table.block)) for pick in (min, max)]
    return [table.total(genotype) for genotype in extreme_genotypes(space, [table])]


def _limits(config: StudyConfig, known: Snapshot) -> dict[str, str]:
    """What each limit amounts to, or that it depends on what the run measures; a sweep's range."""
    select = config.select
    swept = {select.sweep: f"{select.points} limits, {min(select.recover, select.points)} of them trained"}
    return {
        text: " and ".join(
            format_limit(Limit(resource=each.resource, at_most=each.at_most, at_least=each.at_least))
            for each in known.budgets((text,))
        )
        if text in known.config.select.limits
        else "known once the run has measured it"
        for text in config.select.limits
    } | (swept if select.sweep else {})


def _cluster() -> dict[str, str]:
    """Where the work is done: addresses that the environment names, else what is embedded."""
    return {name: os.environ.get(name) or embedded for name, embedded in EMBEDDED.items()}


def _finals(study: Study, flops: float) -> int:
    """As much work as so many evaluations: that of rating the finalists once more."""
    final = study.scorer.final
    if final is None:
        return 0
    once, again = (each.work(1, flops) - each.work(0, flops) for each in (study.scorer, final))
    return round(FINALISTS * again / once)


def _estimate_s(study: Study, num_evaluations: int, flops: float, trains: bool) -> float:
    """Seconds for the evaluations and the final training, all workers busy."""
    speed, workers = _speed(), os.cpu_count() or 1
    rows = [row for row in study.evaluations() if row.status == "ok"]
    if rows:
        scoring = num_evaluations * sum(row.wall_s for row in rows) / len(rows) / workers
    else:
        scoring = study.scorer.work(num_evaluations, flops) / speed
    return scoring + (_training_work(study.config, flops) / speed if trains else 0.0)


def _speed() -> float:
    """Multiply-adds per second of this machine, assumed; a cluster is as fast as its workers are many."""
    return MULTIPLY_ADDS_PER_CPU_SECOND * (os.cpu_count() or 1)


def _training_work(config: StudyConfig, flops: float) -> float:
    """Multiply-adds of the final trainings, of the winner and what it is compared with."""
    points = min(config.select.recover, config.select.points) if config.select.sweep else 0
    beside = config.train.compare_base + config.train.compare_random + len(config.train.compare)
    trained = config.train.seeds * (1 + beside) + points
    examples = workload_of(config).with_train_examples(config.train.train_examples).num_examples()[0]
    return trained * training_work(config.train.recipe, examples, flops)


def plan_in_words(found: dict[str, Any]) -> str:
    """The plan for a person."""
    attainable = {
        name: f"{format_amount(name, row['least'])} to {format_amount(name, row['most'])}, "
        f"base {format_amount(name, row['base'])}"
        for name, row in found["resources"].items()
    }
    lines = [
        f"Study {found['study']} in {found['root']}: {found['networks_in_space']:,} networks, base {found['base']}.",
        f"Evaluations: {found['evaluations']} in the design, {found['stored']} stored already, "
        f"{found['missing']} to make; verification adds {found['verification_at_most']} at most.",
        *found["notes"],
        _estimate_in_words(found["estimate_s"], found["estimate_from"]),
        *_section("Data", found["data"]),
        *_section("Attainable", attainable),
        *_section("Limits", found["limits"]),
        *_section("Where", found["cluster"]),
    ]
    return "\n".join(lines)


def _estimate_in_words(estimate_s: float | None, source: str) -> str:
    if estimate_s is None:
        return "No estimate: what this scorer takes is known once it has rated a network."
    minutes = estimate_s / 60
    estimate = "under a minute" if minutes < 1 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:,.0f} h"
    around = "and a minute or two around it for servers, workers and the report"
    return f"Rough estimate: {estimate} of computing on this machine's processors (from {source}), {around}."


def _section(title: str, rows: Mapping[str, str]) -> list[str]:
    return [f"{title}:", *(f"  {what}: {value}" for what, value in rows.items())] if rows else []
