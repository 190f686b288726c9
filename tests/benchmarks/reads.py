"""How often a study's store is read and its predictor fitted, and what running a finished study again takes.

    python -m tests.benchmarks.reads [--rounds 3] [--json]

The study is 200 evaluations of a made-up table in 40 parts (the scorer looks
networks up, five a part), then ``--rounds`` rounds of verification, run through
the flows to ``verify``; all of its driver's reads are counted, not its workers'.
``*_per_round`` are the most that one round took, from its planning to the next
one's. Counted are calls of the real functions, wrapped here: parts of
evaluations read, fits, studies opened, preflights. ``requests_*`` are of the
same study on S3 (moto's server on 127.0.0.1), counted by a tap in front of it:
what the driver and its workers ask for in all.

``rerun_of_finished_s`` and ``status_s`` are medians of `mathnas run` of a study
whose every stage is done, report included, and of `mathnas status`, whole
processes in turns; ``ratio`` is the quotient.
"""

import argparse
import contextlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from nas_core.records import store as records
from nas_core.study import snapshot as snapshots
from nas_core.study.study import Study
from tests.benchmarks.conditions import conditions
from tests.benchmarks.overhead import ray_cluster, study_config
from tests.services.s3 import S3Server, Tap

EVALUATIONS, PARTS = 200, 40
REQUEST = re.compile(rb"(?:GET|HEAD|PUT|POST|DELETE) /[^\r\n]* HTTP/1\.1\r\n")
PART = re.compile(r"^evaluations/.*\.parquet$")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5, help="of the finished study's run, and of status")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        os.environ["PREFECT_HOME"] = folder
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        config = reads_config(Path(folder), arguments.rounds)
        figures = {
            **on_disk(config, Path(folder)),
            "s3": on_s3(config),
            **rerun(config, Path(folder), arguments.repeats),
        }
    figures["conditions"] = conditions(evaluations=EVALUATIONS, parts=PARTS, repeats=arguments.repeats)
    if not arguments.json:
        for name, value in figures.items():
            print(f"{name}: {value}")
    print(json.dumps(figures))


def reads_config(folder: Path, rounds: int) -> Any:
    """The study: 200 networks in batches of five, then rounds of five, none of which ends early."""
    config = study_config(folder, EVALUATIONS)
    changes = {
        "scorer": config.scorer.model_copy(update={"batch": EVALUATIONS // PARTS}),
        "select": config.select.model_copy(update={"limits": ["flops<=60%"]}),
        "verify": config.verify.model_copy(update={"evaluations": 5 * rounds, "per_round": 5, "patience": rounds + 1}),
        "data": config.data.model_copy(update={"train_examples": 256, "validation_examples": 64}),
        "train": config.train.model_copy(
            update={
                "recipe": config.train.recipe.model_copy(update={"epochs": 1, "augment": "none"}),
                "train_examples": 256,
                "compare_base": False,
                "compare_random": 0,
            }
        ),
    }
    return config.model_copy(update=changes)


class Watched:
    """What the driver does, in order: the real functions, wrapped for the time of the context."""

    def __enter__(self) -> "Watched":
        self.events: list[tuple[str, str]] = []
        self._stack = contextlib.ExitStack()
        self._wrap(records.Store, "read_bytes", lambda _, path: ("read", path) if PART.match(path) else None)
        self._wrap(records.Store, "paths", lambda _, folder="": ("list", folder))
        self._wrap(snapshots, "fit", lambda *_, **__: ("fit", ""))
        self._wrap(Study, "__init__", lambda *_: ("open", ""))
        import flows.driving
        import tasks.selection

        self._wrap(flows.driving, "preflight", lambda *_: ("preflight", ""))
        self._wrap(tasks.selection, "next_round", lambda *given: ("round", str(given[-1])))
        return self

    def _wrap(self, owner: Any, name: str, event_of: Any) -> None:
        real = getattr(owner, name)

        def wrapped(*given: Any, **named: Any) -> Any:
            event = event_of(*given, **named)
            if event is not None:
                self.events.append(event)
            return real(*given, **named)

        setattr(owner, name, wrapped)
        self._stack.callback(setattr, owner, name, real)

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def count(self, kind: str) -> int:
        return sum(event == kind for event, _ in self.events)

    def rounds(self) -> list[list[tuple[str, str]]]:
        """The events of every round of verification, from its planning to the next one's."""
        begins = [index for index, (kind, _) in enumerate(self.events) if kind == "round"]
        return [self.events[begin:end] for begin, end in itertools.pairwise(begins)]


def on_disk(config: Any, folder: Path) -> dict[str, Any]:
    """One run to ``verify``, then the same again in a new driver."""
    from flows.prefect_server import prefect_api
    from flows.study import run_study

    root = str(folder / "study")
    with prefect_api(), ray_cluster(1):
        with Watched() as first:
            run_study(config, root, until="verify")
        with Watched() as again:
            run_study(config, root, until="verify")
    return {**counted(first), "reread": counted(again), "parts": len(Study.open(root).store.paths("evaluations"))}


def counted(watched: Watched) -> dict[str, Any]:
    rounds, reads = watched.rounds(), Counter(path for kind, path in watched.events if kind == "read")
    return {
        "rounds": len(rounds),
        "parts_read_per_round": max((sum(kind == "read" for kind, _ in events) for events in rounds), default=0),
        "reads_of_one_part_per_round": max(
            (max(Counter(path for kind, path in events if kind == "read").values(), default=0) for events in rounds),
            default=0,
        ),
        "fits_per_round": max((sum(kind == "fit" for kind, _ in events) for events in rounds), default=0),
        "listings_per_round": max((sum(kind == "list" for kind, _ in events) for events in rounds), default=0),
        "parts_read_per_run": sum(reads.values()),
        "reads_of_one_part_per_run": max(reads.values(), default=0),
        "fits_per_run": watched.count("fit"),
        "study_opens_per_run": watched.count("open"),
        "preflights_per_run": watched.count("preflight"),
    }


class CountingTap(Tap):
    """A tap that counts the HTTP requests it passes on."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.requests: Counter[str] = Counter()

    def _pump(self, source: Any, target: Any) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                for found in REQUEST.findall(data):
                    self.requests[found.split()[0].decode()] += 1
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.close()


def on_s3(config: Any) -> dict[str, Any]:
    """The same on S3, with the requests of both runs."""
    from flows.prefect_server import prefect_api
    from flows.study import run_study

    with S3Server() as server, CountingTap(server.port) as tap, server.credentials():
        root = server.uri("reads", port=tap.port)
        with prefect_api(), ray_cluster(1):
            with Watched() as first:
                run_study(config, root, until="verify")
            requests = sum(tap.requests.values())
            with Watched() as again:
                run_study(config, root, until="verify")
        figures = {**counted(first), "requests_of_run": requests, "requests_by_kind": dict(tap.requests)}
        return {**figures, "reread": counted(again), "requests_of_rerun": sum(tap.requests.values()) - requests}


def rerun(config: Any, folder: Path, repeats: int) -> dict[str, float]:
    """Seconds of `mathnas run` of a finished study and of `mathnas status`, in turns."""
    file, root = folder / "study.yaml", folder / "study"
    file.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    mathnas("run", file, "--root", root)
    seconds: dict[str, list[float]] = {"run": [], "status": []}
    for _ in range(repeats):
        seconds["run"].append(mathnas("run", file, "--root", root))
        seconds["status"].append(mathnas("status", root))
    run_s, status_s = statistics.median(seconds["run"]), statistics.median(seconds["status"])
    return {
        "rerun_of_finished_s": round(run_s, 3),
        "status_s": round(status_s, 3),
        "ratio": round(run_s / status_s, 3),
    }


def mathnas(*arguments: object) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, timeout=1200
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
