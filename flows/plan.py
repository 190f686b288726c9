"""What a run would do: evaluations wanted, stored, missing, and a rough estimate of the time."""

import os
from typing import Any

from nas_core.records.evaluations import CostTable
from nas_core.records.store import Store
from nas_core.scoring.settings import SupernetScorerConfig, TrainScorerConfig
from nas_core.searchers.designs import make_design
from nas_core.space.genotypes import SearchSpace
from nas_core.study.config import StudyConfig
from nas_core.study.stages import CONFIG
from nas_core.study.study import Study, space_of
from nas_core.training.settings import Recipe

MULTIPLY_ADDS_PER_CPU_SECOND = 1.2e10  # small convolutional networks, one modern core, float32
TRAINING_PASSES = 3  # a training step is a forward pass and a backward pass of twice its work


def plan(config: StudyConfig, root: str) -> dict[str, Any]:
    """Counts of evaluations and estimated seconds; nothing is written."""
    study = Study(config, Store(root, create=False)) if _exists(root) else None
    space = space_of(config)
    flops = study.flops if study and study.has_flops else _count_flops(config, space)
    design = make_design(space, config.design, config.seed, flops)
    wanted = design.genotypes
    missing = study.missing(wanted) if study else [str(genotype) for genotype in wanted]
    mean = sum(flops.total(genotype) for genotype in wanted) / len(wanted)
    return {
        "study": config.name,
        "root": root,
        "networks_in_space": space.num_networks,
        "base": str(design.base),
        "evaluations": len(wanted),
        "stored": len(wanted) - len(missing),
        "missing": len(missing),
        "verification_at_most": config.verify.evaluations,
        "estimate_s": round(_estimate_s(config, study, len(missing), mean), 1),
        "estimate_from": "stored evaluations"
        if study and study.evaluations()
        else "multiply-adds and an assumed speed",
    }


def _exists(root: str) -> bool:
    from nas_core.base.errors import StoreError

    try:
        return Store(root, create=False).exists(CONFIG)
    except StoreError:
        return False


def _count_flops(config: StudyConfig, space: SearchSpace) -> CostTable:
    from nas_core.costs import cost_tables, profile_blocks

    rows = profile_blocks(space, config.profile, ["flops"])
    return cost_tables(space, rows, "flops")[space.resolutions[0]]


def _estimate_s(config: StudyConfig, study: Study | None, num_missing: int, mean_flops: float) -> float:
    """Seconds for the missing evaluations and the final training, all workers busy."""
    speed = _speed()
    workers = os.cpu_count() or 1
    rows = [row for row in study.evaluations() if row.status == "ok"] if study else []
    evaluations = num_missing + config.verify.evaluations
    if rows:
        scoring = evaluations * sum(row.wall_s for row in rows) / len(rows) / workers
    else:
        scoring = _scoring_work(config, evaluations, mean_flops) / speed
    trained = 1 + config.train.compare_base + config.train.compare_random
    images = config.train.train_examples or config.data.train_examples or 50_000
    training = trained * _training_work(config.train.recipe, images, mean_flops)
    return scoring + (0.0 if config.scorer.kind == "tabular" else training / speed)


def _speed() -> float:
    """Multiply-adds per second of this machine, assumed; a cluster is as fast as its workers are many."""
    return MULTIPLY_ADDS_PER_CPU_SECOND * (os.cpu_count() or 1)


def _training_work(recipe: Recipe, images: int, flops: float) -> float:
    return recipe.epochs * images * flops * TRAINING_PASSES


def _scoring_work(config: StudyConfig, evaluations: int, flops: float) -> float:
    images = config.data.train_examples or 50_000
    match config.scorer:
        case TrainScorerConfig(recipe=recipe):
            return evaluations * _training_work(recipe, images, flops)
        case SupernetScorerConfig() as scorer:
            paths = scorer.random_paths + 2 * scorer.sandwich
            return paths * _training_work(scorer.recipe, images, flops) + evaluations * (
                flops * (config.data.validation_examples + scorer.calibration_examples)
            )
        case _:
            return 0.0


def plan_in_words(found: dict[str, Any]) -> str:
    """The plan for a person."""
    minutes = found["estimate_s"] / 60
    estimate = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:,.0f} h"
    return (
        f"Study {found['study']} in {found['root']}: {found['networks_in_space']:,} networks, base {found['base']}.\n"
        f"Evaluations: {found['evaluations']} in the design, {found['stored']} stored already, "
        f"{found['missing']} to make; verification adds {found['verification_at_most']} at most.\n"
        f"Rough estimate: {estimate} on this machine's processors (from {found['estimate_from']})."
    )
