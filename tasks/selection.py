"""Select by the exact program, verify by really evaluating, and write what was found."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from nas_core.study.rounds import next_round, record_round
from nas_core.study.stages import SELECTION
from nas_core.study.study import Study


@task(task_run_name="select", cache_policy=NO_CACHE)
def select(study: Study) -> dict[str, Any]:
    """Fit the predictor, solve the program, write block scores and the selection.

    Raises:
        InfeasibleError: if no network is within the limits, with what is attainable.
    """
    config = study.config.select
    study.outputs.write_block_scores(study.snapshot)
    answer = study.select(
        config.limits, top=config.top, min_distance=config.min_distance, time_limit_s=config.time_limit_s
    )
    study.outputs.write(SELECTION, {**answer.as_dict(), "inputs": study.inputs_of("select")})
    answer.required()
    return answer.as_dict()


@task(task_run_name="plan-round-{index}", cache_policy=NO_CACHE)
def plan_round(study: Study, index: int) -> list[str]:
    """The networks to evaluate in a round of verification; none when the choice stands or the budget is spent."""
    return next_round(study.snapshot, study.outputs, index)


@task(task_run_name="close-round-{index}", cache_policy=NO_CACHE)
def close_round(study: Study, index: int) -> dict[str, Any]:
    """Record what the round found."""
    return record_round(study.snapshot, study.outputs, index)
