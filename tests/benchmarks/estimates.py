"""What `--dry-run` says a run will take, against what it takes: time, disk, memory of workers.

    python -m tests.benchmarks.estimates --json [--only resident,rows]

Small studies that differ in how data are held and what is trained: ``resident``
(images in each worker's memory, shared weights), ``mapped`` (images in a file
that workers share, networks from scratch), ``shrink`` (a trained model's blocks,
latency of ONNX files), ``rows`` (a table, two seeds), ``segmentation`` (masks, two
processes for each training). Each is planned by `mathnas run --dry-run --json` (or
`mathnas shrink`), then run by the same command, in processes of their own and a
cache folder of their own. Seconds are by the clock, of the whole command;
``disk_mb`` is what lies in the study and the cache afterwards; ``memory_mb`` the
largest sum of the workers' proportional set sizes, asked twice a second.
``ratios`` are estimated over real.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.benchmarks.conditions import conditions
from tests.benchmarks.data_memory import CLASSES, make_images
from tests.real_images import write_pairs

CONFIGS = Path(__file__).parents[2] / "flows/configs"
QUANTITIES = {"seconds": "estimate_s", "disk_mb": "disk_mb", "memory_mb": "memory_mb"}
WORKER, AGENTS = "ray::", ("DashboardAgent", "RuntimeEnvAgent")  # how Ray calls processes that work, and its own
SAMPLED_S = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"Of {', '.join(STUDIES)}, separated by commas.")
    parser.add_argument("--json", action="store_true", help="Nothing but the JSON.")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(STUDIES)
    figures: dict[str, Any] = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = measured(Path(folder), STUDIES[name](Path(folder)))
        if not arguments.json:
            print(f"{name}: {json.dumps(figures[name])}", flush=True)
    print(json.dumps({"studies": figures, "conditions": conditions()}))


def measured(folder: Path, command: Sequence[str]) -> dict[str, Any]:
    """Estimated and real figures of one command."""
    environment = {**os.environ, "MATHNAS_CACHE": str(folder / "cache"), "PREFECT_HOME": str(folder / "prefect")}
    began = time.perf_counter()
    planned = subprocess.run(
        [*command, "--dry-run", "--json"], env=environment, cwd=folder, stdout=subprocess.PIPE, text=True, check=True
    )
    dry_run_s = time.perf_counter() - began
    plan = json.loads(planned.stdout)
    before_mb = disk_mb(folder)
    began = time.perf_counter()
    running = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
    with WorkersPeak(running.pid) as peak:
        code = running.wait()
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}")
    real = {"seconds": time.perf_counter() - began, "disk_mb": disk_mb(folder) - before_mb, "memory_mb": peak.mb}
    estimated = {name: plan[key] for name, key in QUANTITIES.items()}
    return {
        "estimated": {name: round(value, 1) for name, value in estimated.items()},
        "real": {name: round(value, 1) for name, value in real.items()},
        "ratios": {name: round(estimated[name] / real[name], 2) for name in real},
        "stages_s": stages_s(folder),
        "estimated_stages_s": plan["stages_s"],
        "dry_run_s": round(dry_run_s, 1),
        "processes_at_peak_mb": peak.each_mb,
    }


def stages_s(folder: Path) -> dict[str, float]:
    """What the study itself says of its stages."""
    return {path.stem: round(json.loads(path.read_text())["wall_s"], 1) for path in folder.rglob("stages/*.json")}


def disk_mb(folder: Path) -> float:
    """Of the study, what it hands over, and the cache."""
    places = [folder / name for name in ("study", "cache", "out")]
    return sum(path.stat().st_size for place in places for path in place.rglob("*") if path.is_file()) / 1e6


class WorkersPeak:
    """The largest memory of a process's Ray workers together, pages that are shared counted once."""

    def __init__(self, pid: int) -> None:
        self.process, self.mb, self.over = psutil.Process(pid), 0, threading.Event()
        self.each_mb = list[int]()
        self.thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "WorkersPeak":
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(SAMPLED_S):
            each_mb = sorted((round(_pss_mb(worker)) for worker in self._workers()), reverse=True)
            if sum(each_mb) > self.mb:
                self.mb, self.each_mb = sum(each_mb), each_mb

    def _workers(self) -> list[psutil.Process]:
        try:
            return [each for each in self.process.children(recursive=True) if _is_worker(each)]
        except psutil.Error:
            return []

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def _is_worker(process: psutil.Process) -> bool:
    """A worker, or a loader process that one has started, which keeps its name."""
    try:
        name = (process.cmdline() or [""])[0]
        return WORKER in name and not any(agent in name for agent in AGENTS)
    except psutil.Error:
        return False


def _pss_mb(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / 1e6
    except psutil.Error:
        return 0.0


# the studies: each writes what it reads into the folder, and gives the command


def _run(folder: Path, sections: dict[str, Any]) -> list[str]:
    (folder / "study.yaml").write_text(yaml.safe_dump({"name": "estimated", **sections}))
    return [*_mathnas("run"), "study.yaml", "--root", "study"]


def _mathnas(command: str) -> list[str]:
    return [sys.executable, "-m", "flows.cli", command]


def resident(folder: Path) -> list[str]:
    return _run(
        folder,
        {
            "space": {"kind": "nasbench-macro", "stem_channels": 8, "head_channels": 64, "resolution": 8},
            "data": {"kind": "digits", "validation_examples": 400},
            "scorer": {"kind": "supernet", "recipe": {"epochs": 6, "batch_size": 32, "lr": 0.1, "augment": "none"}},
            "design": {"held_out": 8},
            "select": {"limits": ["flops<=60%"]},
            "verify": {"evaluations": 8, "per_round": 4},
            "train": {"recipe": {"epochs": 15, "batch_size": 64, "augment": "crop"}},
        },
    )


def mapped(folder: Path) -> list[str]:
    make_images(folder / "photos", 2000)
    return _run(
        folder,
        {
            "space": {"kind": "tiny", "stem_channels": 8, "resolution": 96},
            "data": {"kind": "folder", "path": "photos", "hold": "map", "validation_examples": 200},
            "scorer": {"kind": "train", "recipe": {"epochs": 0.2, "batch_size": 64}},
            "design": {"held_out": 2},
            "select": {"limits": ["flops<=70%"]},
            "verify": {"evaluations": 4, "per_round": 2},
            "train": {"recipe": {"epochs": 1, "batch_size": 64}},
        },
    )


def shrink(folder: Path) -> list[str]:
    from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)

    import timm  # isort: skip
    from safetensors.torch import save_file

    make_images(folder / "photos", 800)
    model = timm.create_model("resnet10t", num_classes=CLASSES)  # what its weights are takes no time
    save_file(model.state_dict(), folder / "model.safetensors")
    command = [*_mathnas("shrink"), "timm:resnet10t", "--checkpoint", "model.safetensors", "--data", "photos"]
    command += ["--limit", "latency_ms<=70%", "--out", "out"]
    fields = {
        "data.side": 64,
        "scorer.recovery_steps": 4,
        "scorer.calibration_examples": 128,
        "profile.profilers.latency.repeats": 10,
        "verify.evaluations": 4,
        "train.compare": "[depth]",
    }
    sets = [text for name, value in fields.items() for text in ("--set", f"{name}={value}")]
    return [*command, "--positions", "3", "--epochs", "1", "--distil-epochs", "1", *sets]


def rows(folder: Path) -> list[str]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"pixel{number}" for number in range(64)), "digit"])
        writer.writerows([*row, f"d{target}"] for row, target in zip(digits.data, digits.target, strict=True))
    return _run(
        folder,
        {
            "space": {"kind": "yaml", "file": str(CONFIGS / "rows-example.yaml")},
            "data": {"kind": "rows", "path": "table.csv", "targets": ["digit"], "validation_examples": 300},
            "scorer": {"kind": "train", "recipe": {"epochs": 20, "batch_size": 32, "optimizer": "adamw", "lr": 1e-3}},
            "design": {"held_out": 6},
            "select": {"limits": ["flops<=70%"]},
            "verify": {"evaluations": 8, "per_round": 4},
            "train": {"seeds": 2, "recipe": {"epochs": 30, "batch_size": 32, "optimizer": "adamw", "lr": 1e-3}},
        },
    )


def segmentation(folder: Path) -> list[str]:
    write_pairs(folder / "scenes", 1500)
    return _run(
        folder,
        {
            "space": {"kind": "yaml", "file": str(CONFIGS / "dense-example.yaml")},
            "data": {"kind": "segmentation", "path": "scenes", "validation_examples": 200},
            "scorer": {"kind": "train", "recipe": {"epochs": 1, "batch_size": 32}},
            "design": {"held_out": 4},
            "select": {"limits": ["flops<=80%"]},
            "verify": {"evaluations": 4, "per_round": 4},
            "train": {"workers": 2, "recipe": {"epochs": 3, "batch_size": 32}},
        },
    )


STUDIES: dict[str, Callable[[Path], list[str]]] = {
    "resident": resident,
    "mapped": mapped,
    "shrink": shrink,
    "rows": rows,
    "segmentation": segmentation,
}


if __name__ == "__main__":
    main()
