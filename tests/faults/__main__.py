"""Every kind of fault, in turn, at random moments.

    python -m tests.faults --runs 10 --seed 0 [--kinds driver_killed,disk_full] [--json]

Prints what was lost, what was doubled, whether the selections are those of an
unbroken run, and the kinds that were tried. Exit code 1 if anything was.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.faults.kinds import KINDS
from tests.faults.lab import SILENCE_S, Lab, as_json, compare, outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="Separated by commas.")
    parser.add_argument("--json", action="store_true", help="Nothing but the JSON at the end.")
    arguments = parser.parse_args()
    lab = Lab(Path(tempfile.mkdtemp(prefix="mathnas-faults-")), random.Random(arguments.seed))
    try:
        figures = run_faults(lab, arguments.runs, arguments.kinds.split(","), quiet=arguments.json)
    finally:
        lab.close()
    print(as_json(figures))
    sys.exit(bool(figures["lost"] or figures["doubled"] or figures["errors"] or not figures["selection_equal"]))


def run_faults(lab: Lab, runs: int, kinds: list[str], quiet: bool) -> dict[str, object]:
    """The kinds in turn until so many faults were made; totals over all of them."""
    unbroken = lab.reference()
    figures: dict[str, Any] = {
        "runs": 0,
        "lost": 0,
        "doubled": 0,
        "selection_equal": True,
        "longest_silence_s": 0.0,
        "kinds": {},
        "errors": [],
    }
    for number in range(runs):
        name = kinds[number % len(kinds)]
        began, clean, verdict = time.monotonic(), False, None
        try:
            lab.longest_silence_s()  # of those before
            verdict = compare(outcome(KINDS[name](lab)), unbroken)
            figures["lost"] += verdict.lost
            figures["doubled"] += verdict.doubled
            figures["selection_equal"] &= verdict.selection_equal
            silence_s = round(lab.longest_silence_s(), 1)
            figures["longest_silence_s"] = max(figures["longest_silence_s"], silence_s)
            assert silence_s <= SILENCE_S, f"nothing was said for {silence_s:.0f} s"
            clean = verdict.is_clean
        except Exception as error:
            figures["errors"].append(f"{name}: {error}"[:2000])
        figures["runs"] += 1
        of_kind = figures["kinds"].setdefault(name, {"runs": 0, "clean": 0})
        of_kind["runs"] += 1
        of_kind["clean"] += clean
        if not quiet:
            words = "as unbroken" if clean else f"NOT as unbroken: {verdict or figures['errors'][-1][:400]}"
            print(f"{number + 1}/{runs} {name}: {words}, {time.monotonic() - began:.0f} s", flush=True)
    return figures


if __name__ == "__main__":
    main()
