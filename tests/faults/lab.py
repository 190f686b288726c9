"""What every fault needs: a study on a table, its unbroken outcome, drivers as processes, and the comparison."""

import contextlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from nas_core.study.study import Study

PATIENCE_S = 400  # of a driver, on a machine with other work
SILENCE_S = 30  # the longest time in which a driver says nothing
CHECKOUT = Path(__file__).parents[2]
# workers import the slow evaluator; the driver imports Prefect before `mathnas` can quiet it
OURS = {"PYTHONPATH": str(CHECKOUT), "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
EVALUATION_S = 0.15  # long enough for a random moment to fall within one


def write_table(path: Path) -> None:
    """Known results of all 6,561 networks of nasbench-macro: a smooth function of the choices."""
    rows = list(itertools.product(range(3), repeat=8))
    weights = [3.0, 1.0, 2.5, 1.5, 1.0, 2.0, 0.5, 1.0]
    metric = [90 + sum(w * c - 0.4 * c * c for w, c in zip(weights, row, strict=True)) / 10 for row in rows]
    pq.write_table(pa.table({"arch": ["".join(map(str, row)) for row in rows], "mean_acc": metric}), path)


@dataclass
class Outcome:
    """What must not depend on faults, and rows counted with their repetitions."""

    metrics: dict[str, float | None]
    selections: list[tuple[str, float]]
    verified: tuple[str | None, list[list[str]]]
    num_rows: int
    num_keys: int


def outcome(root: Path | str) -> Outcome:
    study = Study.open(str(root))
    rows = study.evaluations()
    answer, verified = study.output("selection.json") or {"selections": []}, study.output("verification.json")
    parts = [study.store.read_bytes(path) for path in study.store.paths("evaluations") if path.endswith(".parquet")]
    keys = Counter(
        (row["genotype"], row["seed"])
        for part in parts
        for row in pq.read_table(pa.BufferReader(part), columns=["genotype", "seed"]).to_pylist()
    )
    return Outcome(
        metrics={row.genotype: row.metric for row in rows},
        selections=[(row["genotype"], round(row["predicted"], 9)) for row in answer["selections"]],
        verified=(verified["winner"], [row["proposed"] for row in verified["rounds"]]) if verified else (None, []),
        num_rows=sum(keys.values()),
        num_keys=len(keys),
    )


class Driver(subprocess.Popen):
    """A driver whose output is read as it comes, and timed: a person who waits hears something now and then."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        super().__init__(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        self.lines: list[str] = []
        self.longest_silence_s, self._heard = 0.0, time.monotonic()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self.stdout:
            for line in self.stdout:
                self.lines.append(line)
                self._hear()
        self._hear()  # its end

    def _hear(self) -> None:
        now = time.monotonic()
        self.longest_silence_s = max(self.longest_silence_s, now - self._heard)
        self._heard = now

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def to_its_end(self) -> str:
        """What it printed in all; it may take ``PATIENCE_S``."""
        self.wait(timeout=PATIENCE_S)
        self._reader.join(timeout=10)
        return self.text


@dataclass
class Lab:
    """A folder with a configuration and a table; each run has a root of its own in it."""

    folder: Path
    rng: random.Random
    whole_s: float = 0.0
    unbroken: Outcome | None = None
    _roots: itertools.count = field(default_factory=itertools.count)
    _running: list[Driver] = field(default_factory=list)

    def __post_init__(self) -> None:
        write_table(self.folder / "table.parquet")
        self.config = self.folder / "study.yaml"
        self.write_config()

    def write_config(self, **changes: object) -> None:
        study = {
            "name": "faults",
            "scorer": {"kind": "tabular", "path": str(self.folder / "table.parquet"), "batch": 4},
            "design": {"kind": "one-swap", "base": "0-0-0-0-0-0-0-0", "held_out": 4},
            "profile": {"resources": ["flops", "params"]},
            "select": {"limits": ["params<=2 M"]},
            "verify": {"evaluations": 4, "per_round": 2},
            **changes,
        }
        self.config.write_text(yaml.safe_dump(study))

    def reference(self) -> Outcome:
        """The outcome of a run that nothing disturbs; also how long one takes here."""
        if self.unbroken is None:
            root, began = self.new_root(), time.monotonic()
            self.finish(root)
            self.whole_s, self.unbroken = time.monotonic() - began, outcome(root)
        return self.unbroken

    def new_root(self) -> Path:
        return self.folder / f"run-{next(self._roots)}"

    def start(
        self, root: Path | str, *, poison: str = "", command: list[str] | None = None, **environment: str
    ) -> Driver:
        """A driver of the study under ``root``, in a process of its own; ends with the lab at the latest."""
        command = command or ["run", str(self.config), "--root", str(root), "--until", "verify"]
        process = Driver(
            [sys.executable, "-m", "tests.faults.driver", str(EVALUATION_S), poison, *command],
            {**os.environ, **OURS, **environment},
        )
        self._running.append(process)
        return process

    def longest_silence_s(self) -> float:
        """Of the drivers that ended since this was asked last."""
        ended = [process for process in self._running if process.poll() is not None]
        self._running = [process for process in self._running if process not in ended]
        return max((process.longest_silence_s for process in ended), default=0.0)

    def finish(self, root: Path | str, **options) -> str:
        """Run the study to its end; returns what the driver printed."""
        process = self.start(root, **options)
        text = process.to_its_end()
        assert process.returncode == 0, f"exit code {process.returncode}:\n{text[:1500]}\n...\n{text[-1500:]}"
        return text

    def wait_for_evaluations(self, root: Path, process: Driver) -> None:
        """Until the first part is written; then a random moment later, while evaluations go on."""
        self.wait_for(lambda: list(root.glob("evaluations/*/*/[!.]*.parquet")), process)
        time.sleep(self.rng.uniform(0, 8 * EVALUATION_S))

    def wait_for(self, happens: Callable[[], object], process: Driver) -> None:
        """Until something happens while the driver is at work."""
        deadline = time.monotonic() + PATIENCE_S
        while not happens():
            assert time.monotonic() < deadline, process.text[-3000:]
            assert process.poll() is None, f"the driver ended:\n{process.text[-3000:]}"
            time.sleep(0.05)

    def workers(self, process: Driver) -> list[psutil.Process]:
        """The processes of its local Ray that evaluate."""
        return self.family(process.pid, "_Actor")

    def family(self, pid: int, words: str) -> list[psutil.Process]:
        """The processes below one whose command, up to its first option, has these words."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(pid).children(recursive=True)
            return [one for one in family if words in _title(one).partition(" --")[0]]
        return []

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


@dataclass(frozen=True)
class Verdict:
    """What a fault did to the study in the end."""

    lost: int
    doubled: int
    selection_equal: bool

    @property
    def is_clean(self) -> bool:
        return self.lost == 0 and self.doubled == 0 and self.selection_equal


def compare(broken: Outcome, unbroken: Outcome) -> Verdict:
    """Evaluations that are missing or differ, rows beyond one per evaluation, and whether the answer is the same."""
    lost = sum(broken.metrics.get(genotype) != metric for genotype, metric in unbroken.metrics.items())
    extra = len(broken.metrics.keys() - unbroken.metrics.keys())
    same = (broken.selections, broken.verified) == (unbroken.selections, unbroken.verified)
    return Verdict(lost=lost, doubled=broken.num_rows - broken.num_keys + extra, selection_equal=same)


def as_json(data: object) -> str:
    return json.dumps(data, indent=2)
