"""Mutated configurations, stores and sets of images: each ends in a clear error or is accepted.

    python -m tests.fuzz --configs 1000 --stores 100 --images 300 --rows 300 --seed 0 [--json]

``configs`` are study files, plug-ins, settings of everything registered, metrics, spaces,
limits, genotypes and selection problems, read as the
command line reads them; ``stores`` are finished studies with a damaged file,
opened, counted and selected from; ``images`` are folders of images, broken in several ways and read
as a training reads them, where one that is accepted has to be right; so are ``tables`` of images, ``rows``,
images with ``masks`` and ``pairs`` of images. What is not named is not run, unless nothing is.
A traceback is any exception that is no
NasError; a hang takes over ``HANG_S``; a write outside is a file opened for
writing, made, moved or removed anywhere but in the study (seen by an audit hook).
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fuzz.inputs import CONFIG_CASES, Case, StoreCases
from tests.fuzz.pictures import image_set
from tests.fuzz.sets import image_table, image_to_image, rows, segmentation

CACHES = (".pyc", "torchinductor_")  # of the interpreter and of torch: no writes of ours
SETS = {"images": image_set, "tables": image_table, "rows": rows, "masks": segmentation, "pairs": image_to_image}
DEFAULTS = {"configs": 1000, "stores": 100, **dict.fromkeys(SETS, 300)}
LONGEST = 2000  # letters of a message
HANG_S = 60.0  # by the clock: other work on the machine counts, too


class Guard:
    """Knows when something is written outside the folder that a case may write to."""

    def __init__(self) -> None:
        self.inside, self.outside, self._active = "", Counter(), False
        sys.addaudithook(self._see)

    @contextmanager
    def watch(self, folder: Path):
        self.inside, self._active = str(folder), True
        try:
            yield
        finally:
            self._active = False

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active or event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink"):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        for path in arguments[: 2 if event in ("os.rename", "os.symlink") else 1]:
            if isinstance(path, (str, bytes, os.PathLike)):
                real = os.path.realpath(os.fsdecode(path))
                known = real.startswith((self.inside, "/dev/", "/proc/")) or any(name in real for name in CACHES)
                if not known:
                    self.outside[f"{event} {real}"] += 1


class Hang(BaseException):
    """A case took too long."""


def _on_alarm(*_: object) -> None:
    raise Hang


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in DEFAULTS:
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="Nothing but the JSON.")
    arguments = parser.parse_args()
    numbers = {name: getattr(arguments, name) or 0 for name in DEFAULTS}
    numbers = numbers if any(numbers.values()) else DEFAULTS
    folder = Path(tempfile.mkdtemp(prefix="mathnas-fuzz-"))
    try:
        figures = fuzz(folder, **numbers, seed=arguments.seed, quiet=arguments.json)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(figures))
    sys.exit(bool(figures["tracebacks"] or figures["hangs"] or figures["writes_outside"]))


def fuzz(
    folder: Path, *, configs: int = 0, stores: int = 0, seed: int, quiet: bool = True, **sets: int
) -> dict[str, Any]:
    """Counts over so many inputs, ``sets`` by name; the first of each kind of traceback is printed unless quiet."""
    counts, seen, guard = Counter(), Counter(), Guard()
    signal.signal(signal.SIGALRM, _on_alarm)
    store_cases = StoreCases(folder / "original") if stores else None
    kinds = ["config"] * configs + ["store"] * stores + [name for name, count in sets.items() for _ in range(count)]
    for number, kind in enumerate(kinds):
        rng = random.Random(f"{seed}/{number}")
        case = {"config": rng.choice(CONFIG_CASES), "store": store_cases, **SETS}[kind]
        place = folder / "case"
        place.mkdir()
        problem = _try(case, place, rng, counts, guard)
        shutil.rmtree(place, ignore_errors=True)
        if problem:
            seen[problem.splitlines()[-1][:160] + " <- " + _where(problem)] += 1
            if not quiet and seen.total() <= 20:
                print(f"case {seed}/{number}:\n{problem}", file=sys.stderr, flush=True)
    names = ("tried", "clear_errors", "accepted", "tracebacks", "hangs")
    figures: dict[str, Any] = {name: counts[name] for name in names}
    figures["writes_outside"] = guard.outside.total()
    if seen or guard.outside:
        figures["examples"] = [text for text, _ in (seen + guard.outside).most_common(20)]
    return figures


def _where(problem: str) -> str:
    ours = [line.strip() for line in problem.splitlines() if "/nas_core/" in line or "/flows/" in line]
    return ours[-1] if ours else ""


def _try(case: Callable[..., None] | Case, place: Path, rng: random.Random, counts: Counter, guard: Guard) -> str:
    """Run one case; the traceback where there was one, else ""."""
    from nas_core.base.errors import NasError

    counts["tried"] += 1
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        with guard.watch(place):
            case(place, rng)
        counts["accepted"] += 1
    except NasError as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if len(str(error).strip().splitlines()) != 1 or len(str(error)) > LONGEST:
            counts["tracebacks"] += 1
            return f"no line: {str(error)[:LONGEST]!r}\n{traceback.format_exc()[-900:]}"
        counts["clear_errors"] += 1
    except Hang:
        counts["hangs"] += 1
        return traceback.format_exc()
    except Exception:
        counts["tracebacks"] += 1
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


if __name__ == "__main__":
    main()
