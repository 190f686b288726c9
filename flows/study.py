"""The whole study: profile, score, select, verify, train, report, each only as far as it is missing."""

from prefect import flow

from flows.driving import Wait, drive
from flows.preflight import notes
from flows.profiling import profile
from flows.reporting import report
from flows.run_log import log_of_run, log_stage
from flows.scoring import score
from flows.selection import select, verify
from flows.training import train
from nas_core.base.errors import ConfigError
from nas_core.records.store import absolute
from nas_core.study.config import StudyConfig
from nas_core.study.stages import STAGES, Stage
from tasks.ray_pool import Session
from tasks.training import check_room

FLOWS = {"profile": profile, "score": score, "select": select, "verify": verify, "train": train, "report": report}


@flow(name="study", flow_run_name="study-{config.name}", validate_parameters=True)
def run_study(
    config: StudyConfig, root: str, rerun_from: Stage | None = None, until: Stage = "report", wait_s: Wait = 0
) -> str:
    """Run every stage that is missing or stale; returns the study's root.

    Args:
        config: the study.
        root: folder or URI of the study's store.
        rerun_from: repeat this stage and those after it on purpose (evaluations and costs are kept).
        until: the last stage to run.
        wait_s: seconds to wait for another driver of the same study to end, at least 0.
    """
    root = absolute(root)
    wanted = STAGES[: STAGES.index(until) + 1]
    if rerun_from is not None and rerun_from not in wanted:
        raise ConfigError("rerun_from", rerun_from, f"a stage of those to run, up to {until}: {', '.join(wanted)}")
    with Session(), drive(config, root, until=until, rerun_from=rerun_from, wait_s=wait_s) as study:
        for note in notes(study, until):
            log_of_run().info("%s", note)
        if "train" in wanted and study.family.are_networks and not study.status_of("train").is_over:
            check_room(study)
        if rerun_from is not None:
            study.outputs.forget(rerun_from)
        for stage in study.stages(until):
            if study.status_of(stage).is_over:
                log_of_run().info("stage %s: done already", stage)
            else:
                FLOWS[stage](config, root)
                log_stage(study, stage)  # a person looks at the log of the whole, not of its parts
            if stage == "profile":
                study.snapshot.check_limits()  # before networks are evaluated in vain
    return root
