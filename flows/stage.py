"""What every stage does around its work: one writer at a time, a record of what it took, artifacts."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flows.driving import drive
from flows.run_log import log_of_run, log_stage
from nas_core.base.errors import without_passwords
from nas_core.records.lease import hold
from nas_core.study.config import StudyConfig
from nas_core.study.stages import Stage
from nas_core.study.study import Study
from tasks.artifacts import show_stage
from tasks.ray_pool import Session
from tasks.saying import doing

MOST_PARTS = 1000  # in a folder of the store, before they are merged into one


@dataclass
class StageRun:
    """A stage under way; the flow fills in the counts. What failed is among the new or the reused."""

    study: Study
    num_new: int = 0
    num_reused: int = 0
    num_failed: int = 0
    device: str = ""

    def count(self, genotypes: Collection[str], num_new: int) -> None:
        """Take note of networks that the stage had rated, so many of them new."""
        measured = self.study.snapshot.measured
        self.num_new += num_new
        self.num_reused += len(genotypes) - num_new
        self.num_failed += sum(genotype not in measured for genotype in genotypes)


@contextmanager
def stage_run(config: StudyConfig, root: str, stage: Stage) -> Iterator[StageRun]:
    """The study, for the time of one stage; what the stage took is recorded if it ends well."""
    with doing(f"stage {stage}"), Session(), drive(config, root) as study, hold(study.store) as lease:
        run = StageRun(study)
        study.refresh()  # what others stored since the last stage
        study.outputs.begin(stage)
        lease.note(stage)
        log_of_run().info("stage %s of study %s in %s", stage, study.config.name, without_passwords(study.store.root))
        try:
            started, busy_s = time.perf_counter(), Session.busy_s
            yield run
            study.outputs.record(
                stage,
                wall_s=time.perf_counter() - started,
                compute_s=Session.busy_s - busy_s,
                num_new=run.num_new,
                num_reused=run.num_reused,
                num_failed=run.num_failed,
                device=run.device,
            )
            log_stage(study, stage)
            study.store.compact(MOST_PARTS)
            show_stage(study, stage)
        finally:
            lease.note("")
