"""The whole study: profile, score, select, verify, train, report, each only as far as it is missing."""

from prefect import flow

from flows.preflight import preflight
from flows.profiling import profile
from flows.reporting import report
from flows.scoring import score
from flows.selection import select, verify
from flows.training import train
from nas_core.base.errors import ConfigError
from nas_core.records.lease import hold
from nas_core.records.store import Store
from nas_core.study.config import StudyConfig
from nas_core.study.stages import STAGES, Stage
from nas_core.study.study import Study
from tasks.ray_pool import Session

FLOWS = {"profile": profile, "score": score, "select": select, "verify": verify, "train": train, "report": report}


@flow(name="study", flow_run_name="study-{config.name}", validate_parameters=True)
def run_study(
    config: StudyConfig, root: str, rerun_from: Stage | None = None, until: Stage = "report", wait_s: float = 0
) -> str:
    """Run every stage that is missing or stale; returns the study's root.

    Args:
        config: the study.
        root: folder or URI of the study's store.
        rerun_from: repeat this stage and those after it on purpose (evaluations and costs are kept).
        until: the last stage to run.
        wait_s: seconds to wait for another driver of the same study to end.
    """
    with Session(), hold(Store(root), wait_s):
        _run_stages(config, root, rerun_from, until)
    return root


def _run_stages(config: StudyConfig, root: str, rerun_from: Stage | None, until: Stage) -> None:
    wanted = STAGES[: STAGES.index(until) + 1]
    if rerun_from is not None and rerun_from not in wanted:
        raise ConfigError("rerun_from", rerun_from, f"a stage of those to run, up to {until}: {', '.join(wanted)}")
    preflight(config, root, until)
    study = Study.create(config, root)
    if rerun_from is not None:
        study.forget(rerun_from)
    for stage in wanted:
        if Study.create(config, root).status_of(stage).state not in ("done", "failed"):
            FLOWS[stage](config, root)
        if stage == "profile":
            Study.create(config, root).check_limits()  # before networks are evaluated in vain
