"""Select by the exact program, verify by really evaluating, and write what was found."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from nas_core.study.choices import without_network
from nas_core.study.rounds import last_answer, leave_room, move_limits, next_round, record_round
from nas_core.study.stages import SELECTION
from nas_core.study.study import Study


@task(task_run_name="select", cache_policy=NO_CACHE)
def select(study: Study) -> dict[str, Any]:
    """Fit the predictor, solve the program, write block scores and the selection.

    Raises:
        InfeasibleError: if no network is within the limits, with what is attainable.
    """
    study.outputs.write_block_scores(study.snapshot)
    answer = last_answer(study.snapshot)
    study.outputs.write(SELECTION, {**answer, "inputs": study.inputs_of("select")})
    if not answer["selections"]:
        raise without_network(answer["status"], answer["limits"], (answer["explanation"] or {}).get("text", ""))
    return answer


@task(task_run_name="plan-round-{index}", cache_policy=NO_CACHE)
def plan_round(study: Study, index: int) -> list[str]:
    """The networks to evaluate in a round of verification; none when the choice stands or the budget is spent."""
    if study.family.are_networks and leave_room(study.snapshot, study.outputs):
        study.refresh()
    return next_round(study.snapshot, study.outputs, index)


@task(task_run_name="hold-limits", cache_policy=NO_CACHE)
def hold_limits(study: Study) -> bool:
    """Whether a limit moved, since the chosen network, measured whole, is over it or leaves much of it unused."""
    moved = move_limits(study.snapshot, study.outputs)
    if moved:
        study.refresh()
    return moved


@task(task_run_name="close-round-{index}", cache_policy=NO_CACHE)
def close_round(study: Study, index: int) -> dict[str, Any]:
    """Record what the round found."""
    return record_round(study.snapshot, study.outputs, index)
