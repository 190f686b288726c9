"""What the stages of a study wrote: read, recorded, forgotten.

A stage's output names the content id of all that it was made from; one whose
inputs have changed since is stale.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas_core.base.errors import StoreError
from nas_core.base.identity import content_id
from nas_core.records.store import Store
from nas_core.scoring.scorer import SCORERS
from nas_core.searchers import SEARCHERS
from nas_core.study.brought import trained_metric, workload_of
from nas_core.study.config import StudyConfig
from nas_core.study.snapshot import Snapshot
from nas_core.study.sources import Sources
from nas_core.study.stages import (
    BLOCK_SCORES,
    OUTPUTS,
    SHAPES,
    STAGES,
    Stage,
    json_outputs,
    record_path,
    stage_of,
    wrong_with,
)
from nas_core.training.settings import TRAINING_VERSION, Recipe


def read_output(store: Store, path: str) -> dict[str, Any] | None:
    """A stage's JSON output, or None where it has not run.

    Raises:
        StoreError: if it is not what the stage writes; names the stage to run again.
    """
    try:
        data, wrong = _parsed(path, store.read_bytes(path))
    except FileNotFoundError:
        return None
    if wrong:
        raise StoreError(store.uri(path), wrong, "the JSON that was written", _how_to_mend(stage_of(path)))
    return data


def _how_to_mend(stage: Stage | None) -> str:
    """What makes a damaged file again; deleted, so that later stages, which do not depend on its bytes, stay."""
    if stage is None:
        return "Delete the file and run again."
    return f"Delete the file and `mathnas run` repeats stage {stage}; `--from {stage}` repeats those after it, too."


def damaged_from(store: Store, stage: Stage) -> list[str]:
    """Paths of what cannot be read of the JSON that a stage and those after it wrote."""
    paths = (path for later in STAGES[STAGES.index(stage) :] for path in json_outputs(later))
    return [path for path in paths if store.exists(path) and _parsed(path, store.read_bytes(path))[1]]


def _parsed(path: str, text: bytes) -> tuple[dict[str, Any], str]:
    """The JSON of a file, and what is wrong with it; "" if nothing is."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, f"a damaged file ({error})"
    wrong = wrong_with(data, *SHAPES.get("stages" if path.startswith("stages/") else path, ({}, {})))
    return ({}, wrong) if wrong else (data, "")


def _searcher(config: StudyConfig, sources: Sources) -> dict[str, Any]:
    """What of the searcher the networks that it names depend on."""
    known = {"code": SEARCHERS.identity(config.searcher.kind), "settings": config.searcher.model_dump(mode="json")}
    files = {name: content for name, content in sources.files.items() if name.startswith("searcher.")}
    return {**known, "files": files} if files else known


def _of_finalists(scorer: Any) -> dict[str, Any]:
    """The settings by which finalists are rated once more; a recipe by all that a training depends on."""
    names = SCORERS[scorer.kind].final_settings
    given = {name: value for name in names if (value := getattr(scorer, name)) is not None}
    return {name: value.identity if isinstance(value, Recipe) else value for name, value in given.items()}


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The outputs of one configuration's stages in a store; ``sources`` has the ids of space, scorer and profilers."""

    store: Store
    config: StudyConfig
    sources: Sources

    @property
    def space_id(self) -> str:
        return self.sources.space.space_id

    @property
    def scorer_id(self) -> str:
        return self.sources.scorer_id

    # what they are made from

    def inputs_of(self, stage: Stage) -> str:
        """Content id of all that the stage's output depends on: what it reads, and what those before it read."""
        known: dict[str, Any] = {}
        for each in STAGES[: STAGES.index(stage) + 1]:
            known |= self._inputs_read_by(each)
        if stage in ("select", "report"):  # how many are listed: the first, which is all that others see, is the same
            known["listed"] = (self.config.select.top, self.config.select.min_distance)
        return content_id(known)

    def _inputs_read_by(self, stage: Stage) -> dict[str, Any]:
        config = self.config
        match stage:
            case "profile":
                known = {"space": self.space_id, "profilers": dict(self.sources.profiler_ids), "seed": config.seed}
                return {**known, "networks": config.profile.networks}
            case "score":
                known = {"scorer": self.scorer_id, "design": config.design.model_dump(mode="json")}
                of_space = SCORERS[config.scorer.kind].space_settings  # which networks the design lists once
                given = {name: value for name in of_space if (value := getattr(config.scorer, name))}
                return {**known, "searcher": _searcher(config, self.sources), **given}
            case "select":
                program = config.select.model_dump(mode="json", include={"limits", "time_limit_s"})
                return {"predict": config.predict.model_dump(mode="json"), "program": program}
            case "verify":
                points = config.select.model_dump(mode="json", include={"sweep", "points"})
                swept = {"sweep": points} if config.select.sweep else {}
                return {"verify": config.verify.model_dump(mode="json"), **swept, **_of_finalists(config.scorer)}
            case "train":
                how = {"train": config.train.inputs, "version": TRAINING_VERSION}
                data = self.sources.data
                identity = data.identity if data else workload_of(config).identity
                what = {"data": identity, "metric": trained_metric(config).name}
                recovered = {"recover": config.select.recover} if config.select.sweep else {}
                return {**how, **what, "winner": self.winner, **recovered}
            case "report":
                return {"tracking": config.tracking.model_dump(mode="json"), "name": config.name}

    # read

    def current(self, stage: Stage) -> dict[str, Any] | None:
        """What `select`, `verify` or `train` wrote, if it was made from the present inputs; else None."""
        data = read_output(self.store, OUTPUTS[stage][0])
        return data if data is not None and data["inputs"] == self.inputs_of(stage) else None

    @property
    def winner(self) -> str | None:
        """Genotype of the network chosen: verified if that ran, else the solver's first."""
        verified = self.current("verify")
        if verified is not None and verified.get("winner"):
            return str(verified["winner"])
        selected = self.current("select")
        if selected is not None and selected["selections"]:
            return str(selected["selections"][0]["genotype"])
        return None

    def records(self) -> dict[Stage, dict[str, Any]]:
        """What every stage that ended took."""
        found = {stage: read_output(self.store, record_path(stage)) for stage in STAGES}
        return {stage: record for stage, record in found.items() if record is not None}

    # written

    def write(self, path: str, data: Mapping[str, Any]) -> None:
        self.store.write_json(path, dict(data))

    def write_block_scores(self, known: Snapshot) -> None:
        """Write ``block_scores.parquet``: each block's effect, and the evaluations it came from."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        predictor = known.fitted
        held_by: dict[tuple[int, int], list[str]] = {}
        for genotype in predictor.table.genotypes:
            for block in enumerate(genotype.choices):
                held_by.setdefault(block, []).append(str(genotype))
        rows = [
            {
                "space_id": self.space_id,
                "scorer_id": self.scorer_id,
                "seed": self.config.seed,
                **asdict(effect),
                "block": str(known.space.positions[effect.position].blocks[effect.choice]),
                "evaluations": held_by.get((effect.position, effect.choice), []),
            }
            for effect in predictor.effects()
        ]
        metadata = {"metric": predictor.table.metric_name, "link": predictor.chosen.link, "schema_version": "1"}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(metadata), sink)
        self.store.write_bytes(BLOCK_SCORES, bytes(sink.getvalue()))

    def begin(self, stage: Stage) -> None:
        """Drop the record of other inputs: cut short now, the stage must not look done when those come back."""
        record = read_output(self.store, record_path(stage))
        if record is not None and record["inputs"] != self.inputs_of(stage):
            self.store.delete(record_path(stage))

    def record(
        self,
        stage: Stage,
        *,
        wall_s: float,
        compute_s: float,
        num_new: int,
        num_reused: int,
        num_failed: int,
        device: str,
    ) -> None:
        """Note that a stage has ended: what it was made from, what it took.

        ``wall_s`` is by the clock, ``compute_s`` the seconds all workers were
        busy. Seconds and counts add up over the runs that had the same inputs.
        """
        inputs = self.inputs_of(stage)
        before = read_output(self.store, record_path(stage)) or {}
        again = before.get("inputs") == inputs
        data = {
            "inputs": inputs,
            "wall_s": wall_s + (before["wall_s"] if again else 0.0),
            "compute_s": compute_s + (before["compute_s"] if again else 0.0),
            "num_new": num_new + (before["num_new"] if again else 0),
            "num_reused": before["num_reused"] if again else num_reused,
            "num_failed": num_failed,
            "device": device or (before["device"] if again else ""),
        }
        self.write(record_path(stage), data)

    def forget(self, stage: Stage) -> None:
        """Delete the outputs of a stage and of those after it; evaluations, costs and the present report stay."""
        for later in STAGES[STAGES.index(stage) :]:
            for path in (*(OUTPUTS[later] if later != "report" else ()), record_path(later)):
                self.store.delete(path)
