"""Published results of making a model smaller, beside ours: ResNet-20 and ResNet-56 on CIFAR-10, by their FLOPs.

    python -m tests.benchmarks.anchors [--anchor resnet20] [--full] [--folder DIR] [--data FILE] [--json]

The teacher is trained by the recipe ``resnet-cifar`` and kept in ``--folder``; then ``mathnas shrink`` is given it,
with the published share of FLOPs as the limit. Everything is kept there and gone on with when the same command is
given again: the teacher's epochs, alternatives, evaluations, trainings.

``--full`` is the published amount of training, for a GPU (hours); without it everything is less,
for two CPU cores (an hour and a half for ResNet-56), and only differences to the teacher can be compared with what is
published. CIFAR-10 is looked for under ``MATHNAS_DATA``. Accuracies are of the test split, in percent. The published
networks were trained on all 50,000 images; here a part of them is validated on.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nas_core.base.identity import content_id
from nas_core.families.model.rebuild import factory_of
from nas_core.records.store import Store
from nas_core.study.stages import TRAINING
from nas_core.study.study import Study
from nas_core.training.checkpoint import Checkpoint, pack
from nas_core.training.loop import measure_all, train
from nas_core.training.settings import Recipe
from nas_core.workloads import WORKLOADS, build_workload
from nas_core.workloads.workload import Workload
from tests.benchmarks.conditions import conditions
from tests.reference_data import data_root

WHERE = Path(__file__).parent / "teachers.py"
RECIPE = "resnet-cifar"


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """What was published: accuracies in percent before and after, and the share of the FLOPs that is left."""

    source: str
    limit: str  # of ours
    before: float
    after: float
    epochs: float  # of the published recovery
    note: str = ""


ANCHORS = {
    "resnet20": Anchor(
        source="NVIDIA ModelOpt, FastNAS notebook",
        limit="flops<=73%",
        before=90.97,
        after=90.28,
        epochs=120,
        note="81.2 to 59.2 MFLOPs; 60.37 % before the recovery",
    ),
    "resnet56": Anchor(
        source="Torch-Pruning (Fang et al. 2023, DepGraph), table of CIFAR-10",
        limit="flops<=46.9%",
        before=93.53,
        after=93.77,
        epochs=200,
        note="1/2.13 of the multiply-adds; 100 epochs of sparse training and 100 of fine-tuning",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much of everything. ``recovery`` is in epochs, None: as many as were published."""

    teacher_epochs: float
    examples: int | None  # that the teacher and the recovery see; None: all but validation
    distil_epochs: float
    recovery: float | None
    positions: Mapping[str, int] = field(default_factory=dict)  # anchor -> about so many; others: as found
    settings: Mapping[str, str] = field(default_factory=dict)  # of the study


FULL = Effort(
    teacher_epochs=164,
    examples=None,
    distil_epochs=2,
    recovery=None,
    settings={"scorer.recovery_steps": "500", "scorer.final_steps": "5000", "train.compare": "[uniform,depth]"},
)
REDUCED = Effort(
    teacher_epochs=24,
    examples=20_000,
    distil_epochs=0.5,
    recovery=6,
    positions={"resnet56": 14},
    settings={
        "data.train_examples": "10000",
        "design.kind": "balanced",
        "scorer.recovery_steps": "20",
        "scorer.final_steps": "200",
        "verify.evaluations": "8",
        "train.compare": "[uniform]",
        "train.compare_random": "0",
    },
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchor", choices=[*ANCHORS], default="resnet20")
    parser.add_argument("--full", action="store_true", help="the published amount of training, for a GPU")
    parser.add_argument("--folder", type=Path, default=None, help="what is kept and gone on with")
    parser.add_argument("--data", type=Path, default=data_root() / "cifar10" / "cifar10_jpg.parquet")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    given = parser.parse_args()
    folder = given.folder or Path("studies", f"{given.anchor}-{'full' if given.full else 'reduced'}")
    run = Run(given.anchor, FULL if given.full else REDUCED, folder, given.data, quiet=given.json)
    print(json.dumps({**run.found(), "conditions": conditions(**vars(given))}, default=str))


class Run:
    """One anchor in its folder."""

    def __init__(self, name: str, effort: Effort, folder: Path, data: Path, *, quiet: bool) -> None:
        self.name, self.anchor, self.effort, self.quiet = name, ANCHORS[name], effort, quiet
        self.folder, self.data = folder.absolute(), data.absolute()
        self.store = Store(self.folder / "teacher")

    def found(self) -> dict[str, Any]:
        taught = self.teacher()
        self.say(f"teacher: {taught['test']:.2f} % of the test split")
        self.shrink(self.folder / "teacher" / "teacher.safetensors")
        published = {"before": self.anchor.before, "after": self.anchor.after, "note": self.anchor.note}
        rows = self.rows()
        ours = rows["winner"]["test"] - taught["test"]
        return {
            "anchor": self.name,
            "limit": self.anchor.limit,
            "teacher": taught,
            "ours": rows.pop("winner"),
            "beside": rows,
            "difference": {"ours": round(ours, 2), "published": round(self.anchor.after - self.anchor.before, 2)},
            "published": {"source": self.anchor.source, **published},
        }

    def say(self, *words: object) -> None:
        if not self.quiet:
            print(*words, flush=True)

    # the teacher

    def workload(self) -> Workload:
        known = {"kind": "cifar10", "path": str(self.data), "train_examples": self.effort.examples}
        return build_workload(WORKLOADS.section("cifar10").model_validate({**known, "validation_examples": 2000}))

    def teacher(self) -> dict[str, float]:
        """Its accuracies; trained where the folder has none, from where an earlier run was cut off."""
        recipe = Recipe.model_validate({"name": RECIPE, "epochs": self.effort.teacher_epochs})
        workload = self.workload()
        run_id = content_id({"model": self.name, "recipe": recipe.identity, "data": workload.identity})
        if self.store.exists("result.json") and (known := self.store.read_json("result.json"))["run_id"] == run_id:
            return {name: known[name] for name in ("test", "validation", "wall_s")}
        workload.check()
        splits = workload.load()
        torch.manual_seed(0)
        network = factory_of(f"{WHERE}:{self.name}")(*workload.sample.shape[:1], workload.sample.num_outputs)
        checkpoint = Checkpoint(store=self.store, path="checkpoint.safetensors", run_id=run_id)
        result = train(
            network,
            recipe,
            splits,
            workload,
            seed=0,
            checkpoint=checkpoint,
            on_epoch=lambda row: self.say(
                f"teacher, epoch {row['epoch']:.0f}, step {row['step']}: loss {row['loss']:.3f}"
            ),
        )
        pairs = {"validation": splits.validation, "test": splits.load_test()}
        accuracies = {
            split: round(100 * measure_all(network, workload.metrics, pair, splits.prepare)["accuracy"], 2)
            for split, pair in pairs.items()
        }
        self.store.write_bytes("teacher.safetensors", pack(network.state_dict()))
        known = {**accuracies, "wall_s": round(result.wall_s)}
        self.store.write_json("result.json", {"run_id": run_id, **known})
        checkpoint.remove()
        return known

    # the result

    def shrink(self, checkpoint: Path) -> None:
        """The command that users give; it goes on with what its folder holds."""
        effort = self.effort
        recovery = self.anchor.epochs if effort.recovery is None else effort.recovery
        settings = {
            "data.path": str(self.data),
            "data.validation_examples": "2000",
            "profile.resources": "[flops,params]",
            **({"train.train_examples": str(effort.examples)} if effort.examples else {}),
            **({"cluster.num_gpus": "1"} if torch.cuda.is_available() else {}),
            **effort.settings,
        }
        positions = ["--positions", str(effort.positions[self.name])] if self.name in effort.positions else []
        command = [
            *(sys.executable, "-m", "flows.cli", "shrink", f"{WHERE}:{self.name}"),
            *("--checkpoint", str(checkpoint), "--data", "cifar10", "--limit", self.anchor.limit),
            *("--out", str(self.folder / "shrunk"), "--epochs", f"{recovery:g}"),
            *("--distil-epochs", f"{effort.distil_epochs:g}", *positions),
            *(word for name, value in settings.items() for word in ("--set", f"{name}={value}")),
        ]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL if self.quiet else None)
        self.say(f"mathnas shrink took {time.perf_counter() - began:.0f} s")

    def rows(self) -> dict[str, dict[str, Any]]:
        """Of each network that was trained: what it is, test accuracy, and its share of the model's FLOPs."""
        study = Study.open(str(self.folder / "shrunk" / "study"))
        trained, whole = study.output(TRAINING), study.flops.total(study.base)
        assert trained is not None, "it has just been run"
        return {
            row["role"]: {
                "network": row["genotype"],
                "test": round(100 * row["metrics"]["test"]["accuracy"], 2),
                "flops": round(100 * row["costs"]["flops"] / whole, 1),
                "epochs": round(study.config.train.recipe.epochs + row.get("more_epochs", 0.0), 1),
            }
            for row in trained["networks"]
        }


if __name__ == "__main__":
    main()
