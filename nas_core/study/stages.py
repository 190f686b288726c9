"""The stages of a study: their order, the files they write, and how far one is."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Stage = Literal["profile", "score", "select", "verify", "train", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)
State = Literal["missing", "partial", "failed", "stale", "done", "running"]

MOST_TOP = 10_000  # networks that are asked for in order

CONFIG = "study.yaml"
INSIDE = "study"  # the study in the folder that `mathnas shrink` hands over, which has a CONFIG of its own
DESIGN_CONFIG = "design.yaml"  # of a DesignProject, whose files have some of the same names
FIGURES = "figures"
DESIGN = "design.json"  # the networks of a study's design; the answer to a DesignProject's program
BLOCK_SCORES = "block_scores.parquet"
SELECTION = "selection.json"
VERIFICATION = "verification.json"
TRAINING = "training.json"
TRACKING = "tracking.json"
REGISTERED = "registered.json"
REPORT = "report.html"
SUMMARY = "report.json"
OUTPUTS: dict[Stage, tuple[str, ...]] = {
    "profile": (),
    "score": (),
    "select": (SELECTION, BLOCK_SCORES),
    "verify": (VERIFICATION,),
    "train": (TRAINING,),
    "report": (REPORT, SUMMARY),
}
FILES_OF_TRAINED = ("weights_path", "architecture_path", "program_path")  # keys of a trained network's row
NUMBER, TEXT_OR_NONE, DICT_OR_NONE = (int, float), (str, type(None)), (dict, type(None))
Shape = dict[str, Any]  # key -> type
ROUND: Shape = {"proposed": list, "predicted": list, "low": list, "high": list}
SHAPES: dict[str, tuple[Shape, dict[str, Shape]]] = {  # what readers rely on: top level, and the rows of its lists
    SELECTION: (
        {"inputs": str, "status": str, "limits": list, "selections": list, "solve_s": NUMBER},
        {"selections": {"genotype": str, "predicted": NUMBER, "costs": dict}},
    ),
    VERIFICATION: ({"inputs": str, "rounds": list, "winner": TEXT_OR_NONE, "stands": bool}, {"rounds": ROUND}),
    TRAINING: (
        {"inputs": str, "networks": list},
        {
            "networks": {
                "name": str,
                "role": str,
                "genotype": str,
                "costs": dict,
                **dict.fromkeys(FILES_OF_TRAINED, str),
                "sha256": DICT_OR_NONE,  # of every file; none in what earlier versions wrote
            }
        },
    ),
    "stages": ({"inputs": str, "wall_s": NUMBER, "num_new": int, "num_reused": int, "device": str}, {}),
}


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """How far a stage is; ``total`` is what it needs in all."""

    state: State
    done: int
    total: int
    failed: int = 0

    @property
    def is_over(self) -> bool:
        """Whether running the stage would change nothing: what failed is tried again only when that is asked for."""
        return self.state in ("done", "failed")


def wrong_with(data: Any, shape: Shape, rows_of: Mapping[str, Shape]) -> str:
    """What of a stage's output is missing or of another type; "" if nothing is."""
    if not isinstance(data, dict):
        return type(data).__name__
    for key, kind in shape.items():
        if not isinstance(data.get(key), kind):
            return f"{key}: {data[key]!r:.80}" if key in data else f"no key {key!r}"
    for name, inner in rows_of.items():
        for index, row in enumerate(data[name]):
            wrong = wrong_with(row, inner, {})
            if wrong:
                return f"{name}[{index}]: {wrong}"
    return ""


def run_again(root: str) -> str:
    """The command that runs the study in a root again: its own configuration lies there."""
    file = CONFIG if "://" in root else shlex.quote(f"{root}/{CONFIG}")
    return f"mathnas run {file} --root {shlex.quote(root)}"


def trained_files(row: Mapping[str, Any]) -> list[str]:
    """Paths of a trained network's files, by its row of ``training.json``."""
    return [row[name] for name in FILES_OF_TRAINED if row[name]]


def record_path(stage: Stage) -> str:
    return f"stages/{stage}.json"


def json_outputs(stage: Stage) -> tuple[str, ...]:
    """Paths of the JSON that a stage writes, its record last."""
    return (*(path for path in OUTPUTS[stage] if path.endswith(".json")), record_path(stage))


def stage_of(path: str) -> Stage | None:
    """The stage that writes a JSON file; None for one that no stage makes anew."""
    return next((stage for stage in STAGES if path in json_outputs(stage)), None)


def state_of(done: int, total: int, failed: int) -> State:
    if done == 0:
        return "missing"
    if done < total:
        return "partial"
    return "failed" if failed == total else "done"
