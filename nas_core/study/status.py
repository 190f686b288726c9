"""How far every stage of a study is: from its snapshot (profile, score) or from its outputs (the others)."""

from nas_core.records.evaluations import WHOLE_NETWORK
from nas_core.records.store import missing
from nas_core.study.outputs import Outputs, read_output
from nas_core.study.profiled import has_sample
from nas_core.study.snapshot import Snapshot
from nas_core.study.stages import (
    OUTPUTS,
    TRAINING,
    VERIFICATION,
    Stage,
    StageStatus,
    json_outputs,
    record_path,
    state_of,
    trained_files,
)


def status_of(stage: Stage, known: Snapshot, outputs: Outputs) -> StageStatus:
    """How far one stage is, whoever is at work on it; raises as ``read_output``."""
    for path in json_outputs(stage):
        read_output(outputs.store, path)  # one that is damaged is said before the stage is called done
    match stage:
        case "profile":
            return _profile_status(known)
        case "score":
            return _score_status(known)
        case _:
            return _output_status(stage, known, outputs)


def _profile_status(known: Snapshot) -> StageStatus:
    blocks = sum(known.space.num_choices) + 1
    total = blocks * len(known.profiler_ids) * len(known.space.resolutions)
    rows = [row for row in known.costs if row.position != WHOLE_NETWORK]
    failed = sum(row.status == "failed" for row in rows)
    state = state_of(len(rows), total, failed)
    if state == "done" and not all(has_sample(known, name) for name in known.profiler_ids):
        state = "partial"  # `profile.networks` was raised
    return StageStatus(state=state, done=len(rows), total=total, failed=failed)


def _score_status(known: Snapshot) -> StageStatus:
    if not known.has_flops:  # the design cannot be named yet
        return StageStatus(state="missing", done=0, total=0)
    wanted = {str(genotype) for genotype in known.design.genotypes}
    rows = [row for row in known.evaluations if row.genotype in wanted]
    failed = sum(row.status == "failed" for row in rows)
    state = state_of(len(rows), len(wanted), failed)
    return StageStatus(state=state, done=len(rows), total=len(wanted), failed=failed)


def _output_status(stage: Stage, known: Snapshot, outputs: Outputs) -> StageStatus:
    store, record = outputs.store, read_output(outputs.store, record_path(stage))
    are_there = [store.exists(path) for path in OUTPUTS[stage]]
    if stage == "report" and record is None and all(are_there):  # of what was forgotten since
        return StageStatus(state="stale", done=0, total=1)
    if record is None or not all(are_there):
        return StageStatus(state="partial" if any(are_there) else "missing", done=0, total=1)
    stale = record["inputs"] != outputs.inputs_of(stage)
    lost = {"verify": lambda: _lost_of_verification(known, outputs), "train": lambda: _lost_of_training(outputs)}
    if not stale and stage in lost and lost[stage]():
        return StageStatus(state="partial", done=0, total=1)
    return StageStatus(state="stale" if stale else "done", done=0 if stale else 1, total=1)


def _lost_of_verification(known: Snapshot, outputs: Outputs) -> list[str]:
    """Networks of recorded rounds whose evaluations are gone, such as those of a damaged part."""
    rounds = (read_output(outputs.store, VERIFICATION) or {"rounds": []})["rounds"]
    return missing((genotype for row in rounds for genotype in row["proposed"]), known.evaluations)


def _lost_of_training(outputs: Outputs) -> list[str]:
    """Files of trained networks that are gone."""
    networks = (read_output(outputs.store, TRAINING) or {"networks": []})["networks"]
    rows = [each for row in networks for each in (row, *row.get("repeats", ()))]
    return [path for row in rows for path in trained_files(row) if not outputs.store.exists(path)]
