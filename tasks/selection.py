"""Select by the exact program, verify by really evaluating, and write what was found."""

from typing import Any

from prefect import task

from nas_core.records.store import Store
from nas_core.study.config import StudyConfig
from nas_core.study.rounds import next_round, record_round, verification
from nas_core.study.stages import SELECTION
from nas_core.study.study import Study


@task(task_run_name="select")
def select(config: StudyConfig, root: str) -> dict[str, Any]:
    """Fit the predictor, solve the program, write block scores and the selection.

    Raises:
        InfeasibleError: if no network is within the limits, with what is attainable.
    """
    study = Study(config, Store(root))
    study.write_block_scores()
    answer = study.select(
        config.select.limits,
        top=config.select.top,
        min_distance=config.select.min_distance,
        time_limit_s=config.select.time_limit_s,
    )
    study.store.write_json(SELECTION, {**answer.as_dict(), "inputs": study.inputs_of("select")})
    study.require(answer)
    return answer.as_dict()


@task(task_run_name="plan-round-{index}")
def plan_round(config: StudyConfig, root: str, index: int) -> list[str]:
    """The networks to evaluate in a round of verification; none when the choice stands or the budget is spent."""
    return next_round(Study(config, Store(root)), index)


@task(task_run_name="close-round-{index}")
def close_round(config: StudyConfig, root: str, index: int) -> dict[str, Any]:
    """Record what the round found."""
    study = Study(config, Store(root))
    record_round(study, index)
    return verification(study)
