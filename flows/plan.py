"""What a run would do: evaluations wanted, stored, missing, and a rough estimate of the time."""

import os
from typing import Any

from nas_core.costs import cost_tables, profile_blocks
from nas_core.families import Family
from nas_core.records.evaluations import CostTable
from nas_core.records.store import Store
from nas_core.scoring.scorer import SCORERS
from nas_core.study.brought import family_of, scorer_of, searcher_of, space_of, workload_of
from nas_core.study.config import StudyConfig
from nas_core.study.stages import CONFIG
from nas_core.study.study import Study
from nas_core.training.settings import training_work

MULTIPLY_ADDS_PER_CPU_SECOND = 1.2e10  # small convolutional networks, one modern core, float32


def plan(config: StudyConfig, root: str) -> dict[str, Any]:
    """Counts of evaluations and estimated seconds; nothing is written."""
    study = Study(config, Store(root, create=False)) if _exists(root) else None
    family = family_of(config)
    flops = study.flops if study and study.has_flops else _count_flops(config, family)
    design = searcher_of(config).first(space_of(config, family), config.design, config.seed, flops)
    wanted = design.genotypes
    missing = study.missing(wanted) if study else [str(genotype) for genotype in wanted]
    mean = sum(flops.total(genotype) for genotype in wanted) / len(wanted)
    return {
        "study": config.name,
        "root": root,
        "networks_in_space": family.space.num_networks,
        "base": str(design.base),
        "evaluations": len(wanted),
        "stored": len(wanted) - len(missing),
        "missing": len(missing),
        "verification_at_most": config.verify.evaluations,
        "data": _data(config, family) if SCORERS[config.scorer.kind].needs_data else {},
        "estimate_s": round(_estimate_s(config, family, study, len(missing), mean), 1),
        "estimate_from": "stored evaluations"
        if study and study.evaluations()
        else "multiply-adds and an assumed speed",
    }


def _data(config: StudyConfig, family: Family) -> dict[str, str]:
    """What the workload says of itself, and how it is held at the size that networks take."""
    workload, space = workload_of(config), family.space
    held = workload.held(workload.sample.shape_at(max(space.resolutions), space.in_channels))
    return {**dict(workload.describe()), **({"held": held} if held else {})}


def _exists(root: str) -> bool:
    from nas_core.base.errors import StoreError

    try:
        return Store(root, create=False).exists(CONFIG)
    except StoreError:
        return False


def _count_flops(config: StudyConfig, family: Family) -> CostTable:
    rows = profile_blocks(family, config.profile, ["flops"])
    return cost_tables(family.space, rows, "flops")[family.space.resolutions[0]]


def _estimate_s(config: StudyConfig, family: Family, study: Study | None, num_missing: int, flops: float) -> float:
    """Seconds for the missing evaluations and the final training, all workers busy."""
    speed, workers = _speed(), os.cpu_count() or 1
    rows = [row for row in study.evaluations() if row.status == "ok"] if study else []
    evaluations = num_missing + config.verify.evaluations
    if rows:
        scoring = evaluations * sum(row.wall_s for row in rows) / len(rows) / workers
    else:
        scoring = scorer_of(config, family, None).work(evaluations, flops) / speed
    return scoring + (_training_work(config, flops) / speed if family.are_networks else 0.0)


def _speed() -> float:
    """Multiply-adds per second of this machine, assumed; a cluster is as fast as its workers are many."""
    return MULTIPLY_ADDS_PER_CPU_SECOND * (os.cpu_count() or 1)


def _training_work(config: StudyConfig, flops: float) -> float:
    """Multiply-adds of the final trainings, of the winner and what it is compared with."""
    trained = 1 + config.train.compare_base + config.train.compare_random
    examples = workload_of(config).with_train_examples(config.train.train_examples).num_examples()[0]
    return trained * training_work(config.train.recipe, examples, flops)


def plan_in_words(found: dict[str, Any]) -> str:
    """The plan for a person."""
    minutes = found["estimate_s"] / 60
    estimate = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:,.0f} h"
    data = "".join(f"\n  {what}: {value}" for what, value in found["data"].items())
    return (
        f"Study {found['study']} in {found['root']}: {found['networks_in_space']:,} networks, base {found['base']}.\n"
        f"Evaluations: {found['evaluations']} in the design, {found['stored']} stored already, "
        f"{found['missing']} to make; verification adds {found['verification_at_most']} at most.\n"
        f"Rough estimate: {estimate} on this machine's processors (from {found['estimate_from']})."
        + (f"\nData:{data}" if data else "")
    )
