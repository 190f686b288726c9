"""Memory of workers that train on images which are no longer held by each of them.

    python -m tests.benchmarks.data_memory --images 20000 --json

A folder of JPEG files of 224 x 224 is made. Two worker processes at once score
a network by training it (`train`) and by shared weights (`supernet`), each over
all training images. ``worker_mb_above_torch`` is the largest peak of memory
that a worker has of its own (anonymous pages), less what it had once torch and
our modules were imported, networks and activations included; ``shared_mb`` is
what of the decoded images both map, ``worker_pss_mb`` a worker's share of it,
``disk_mb`` what they take in the cache folder.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SIDE, CLASSES, TEST_SHARE, DISTINCT, VALIDATION = 224, 4, 5, 200, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=float, default=0.05, help="Passes over the training images, of each scorer.")
    parser.add_argument("--hold", choices=["auto", "memory", "map", "stream"], default="auto")
    parser.add_argument("--json", action="store_true", help="Nothing but the JSON.")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(work(arguments.worker, arguments.epochs, arguments.hold)))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments.images, arguments.epochs, arguments.hold)
    if not arguments.json:
        for name, value in figures.items():
            print(f"{name}: {value}")
    print(json.dumps(figures))


def measure(folder: Path, images: int, epochs: float, hold: str) -> dict[str, object]:
    from tests.benchmarks.conditions import conditions

    make_images(folder / "set", images)
    environment = {**os.environ, "MATHNAS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.benchmarks.data_memory", "--worker", str(folder)]
    command += ["--epochs", str(epochs), "--hold", hold]
    began = time.perf_counter()
    workers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        sys.exit("a worker failed")
    found = [json.loads(text.splitlines()[-1]) for text in said]
    decoded = [path for path in (folder / "cache").rglob("*") if path.suffix in (".u8", ".part")]
    return {
        "worker_mb_above_torch": max(each["above_torch_mb"] for each in found),
        "shared_mb": max(each["shared_mb"] for each in found),
        "disk_mb": round(sum(path.stat().st_size for path in decoded) / 1e6, 1),
        "worker_pss_mb": max(each["pss_mb"] for each in found),
        "torch_mb": max(each["torch_mb"] for each in found),
        "held": found[0]["held"],
        "images": images,
        "wall_s": round(time.perf_counter() - began, 1),
        "conditions": conditions(epochs=epochs),
    }


def make_images(root: Path, count: int) -> None:
    """JPEG files of a few hundred different pictures, in ``train`` and ``test``."""
    import numpy as np
    from PIL import Image

    rng, pictures = np.random.default_rng(0), []
    for number in range(min(DISTINCT, count)):
        coarse = rng.integers(60 * (number % CLASSES), 60 * (number % CLASSES) + 76, (14, 14, 3)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((SIDE, SIDE)).save(buffer, "JPEG")
        pictures.append(buffer.getvalue())
    for index in range(count):
        split = "test" if index // CLASSES % TEST_SHARE == 0 else "train"
        path = root / split / f"class-{index % CLASSES}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures[index % len(pictures)])


def work(folder: Path, epochs: float, hold: str) -> dict[str, object]:
    """What a worker does: score a network both ways; its memory meanwhile."""
    import torch

    import nas_core.scoring.supernet_weights
    import nas_core.training.winner  # noqa: F401
    from nas_core.families import FAMILIES
    from nas_core.records.store import Store
    from nas_core.scoring.scorer import SCORERS, Setting
    from nas_core.workloads.images.folder import ImageFolder

    torch.set_num_threads(1)
    settings = ImageFolder.Settings(path=str(folder / "set"), validation_examples=VALIDATION, hold=hold)
    workload = ImageFolder(settings)
    own_mb = status_mb("RssAnon")
    with Peak() as peak:
        small = FAMILIES["tiny"].Settings(stem_channels=4, resolution=SIDE)
        family = FAMILIES["tiny"](small, workload.sample)
        recipe = {"epochs": epochs, "batch_size": 16, "lr": 0.05}
        for kind, more in (
            ("train", {}),
            ("supernet", {"random_paths": 1, "sandwich": False, "calibration_examples": 32, "eval_batch_size": 32}),
        ):
            store = Store(str(folder / f"store-{kind}-{os.getpid()}"))
            setting = Setting(family=family, workload=workload, store=store, seed=0, device="cpu")
            scorer = SCORERS[kind](SCORERS[kind].Settings.model_validate({"recipe": recipe, **more}), setting)
            scorer.prepare(lambda *_: None)
            [row] = scorer.evaluate([family.space.parse("1-0-1")])
            assert row.status == "ok", row.message
    wait_for_other(folder)
    mapped = mapped_kb()
    return {
        "above_torch_mb": round(peak.mb - own_mb, 1),
        "torch_mb": round(own_mb, 1),
        "shared_mb": round(mapped["Rss"] / 1e3, 1),
        "pss_mb": round(mapped["Pss"] / 1e3, 1),
        "held": workload.held(),
    }


class Peak:
    """The largest anonymous memory while it runs, asked twenty times a second."""

    def __enter__(self) -> "Peak":
        self.mb, self.over = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.05):
            self.mb = max(self.mb, status_mb("RssAnon"))

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def mapped_kb() -> dict[str, int]:
    """What of the decoded images this process maps: resident, and its share where others map it as well."""
    found, inside = {"Rss": 0, "Pss": 0}, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name = line.split(":")[0]
        if "-" in name.split(" ")[0] and " " in name:
            inside = line.endswith(".u8")
        elif inside and name in found:
            found[name] += int(line.split()[1])
    return found


def wait_for_other(folder: Path, timeout_s: float = 3600) -> None:
    """Until both workers have done their work, so that both map the images."""
    (folder / f"done-{os.getpid()}").touch()
    began = time.monotonic()
    while len(list(folder.glob("done-*"))) < 2 and time.monotonic() - began < timeout_s:
        time.sleep(0.1)
    mapped_kb()  # read once by both before either leaves
    (folder / f"read-{os.getpid()}").touch()
    time.sleep(1)


if __name__ == "__main__":
    main()
