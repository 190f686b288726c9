"""How well a predictor fitted to few networks of a complete table orders and covers the others.

    python -m tests.benchmarks.calibration --starts 10 [--json]
    python -m tests.benchmarks.calibration --table tests/benchmarks/tables/nasbench_macro.yaml --evaluations 50 --json

Without ``--table``: every table that no setting was tuned on
(``tests.benchmarks.derived``), with every design, at its default size and
larger, before and after verification. With one: that table, ``--design`` and
``--evaluations`` (0: as many as the design has by default).

Each time a study's design is made (the largest network is the base, 8 networks
are held out), the predictor is fitted, and all other networks are predicted.
Figures are medians over ``--starts`` seeds: ``kendall``, ``spearman``,
``kendall_top_half``, ``rmse`` (metric's unit), ``rmse_refitted``, ``regret``;
``coverage_90``, the share inside a study's 90 % interval, whose width the
held-out networks set too, and ``coverage_90_raw``, without them; rank statistics
of counting ``params`` and ``flops`` where the table has them. The last line is
one JSON object.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from nas_core.base.errors import NasError
from nas_core.prediction import Alternative, Calibration
from nas_core.prediction.calibration import COUNTS, compare
from tests.benchmarks.conditions import conditions
from tests.benchmarks.defaults import VERIFY, Rows, design_rows, fitted_to, measured, refined
from tests.benchmarks.derived import derived_tables
from tests.benchmarks.tables import NetworkTable, read_table

FIGURES = ("kendall", "spearman", "kendall_top_half", "coverage_90", "rmse", "rmse_refitted", "regret")
COVERAGES = ("coverage_90", "coverage_90_raw")
DESIGNS = ("balanced", "balanced x 2", "balanced, verified", "random", "one-swap")
LEAST_LEFT = 10  # networks to predict, below which a table says nothing of a design


def rows_of(table: NetworkTable, design: str, evaluations: int, rng: np.random.Generator) -> Rows:
    """The rows of one of DESIGNS."""
    kind, _, more = design.partition(", ")
    kind, _, twice = kind.partition(" x ")
    rows = design_rows(table, rng, kind, evaluations)
    if twice:
        rows = design_rows(table, rng, kind, 2 * len(rows.fitted))
    if not more:
        return rows
    everything = np.ones(len(table.codes_NP), dtype=bool)
    order = refined(table, rows, everything, len(rows.fitted) + len(rows.held_out) + VERIFY.evaluations)
    return Rows(fitted=tuple(row for row in order if row not in set(rows.held_out)), held_out=rows.held_out)


def calibrate_once(table: NetworkTable, rows: Rows) -> tuple[Calibration, float, Alternative]:
    """The calibration on every network that was not evaluated, the raw intervals' coverage, the alternative in use.

    Of a table of equal functions, a network counts as evaluated with any that computes the same.
    """
    fitted = fitted_to(table, rows.fitted, rows.held_out)
    study = fitted.recalibrated(measured(table, rows.held_out)) if rows.held_out else fitted
    rest = np.setdiff1d(np.arange(len(table.codes_NP)), [*rows.fitted, *rows.held_out])
    metric_N, low_N, high_N = study.predict_codes(table.codes_NP[rest])
    _, raw_low_N, raw_high_N = fitted.predict_codes(table.codes_NP[rest])
    counted = {name: table.costs[name][rest] for name in COUNTS if name in table.costs}
    truth_N = table.select_N[rest]
    result = compare(guess_N=metric_N, low_N=low_N, high_N=high_N, truth_N=truth_N, counted=counted)
    return result, float(np.mean((truth_N >= raw_low_N) & (truth_N <= raw_high_N))), fitted.chosen


def measure(options: argparse.Namespace) -> dict[str, object]:
    """One table and design: medians over starts, the settings chosen, and the conditions."""
    table = read_table(options.table)
    runs = []
    for start in range(options.starts):
        rows = rows_of(table, options.design, options.evaluations, np.random.default_rng([options.seed, start]))
        runs.append((*calibrate_once(table, rows), len(rows.fitted)))
    frame = pd.DataFrame(
        [{**{name: getattr(run, name) for name in FIGURES}, "coverage_90_raw": raw} for run, raw, *_ in runs]
    )
    medians = {name: float(frame[name].median()) for name in frame}
    quartiles = {f"{name}_quartiles": [float(frame[name].quantile(q)) for q in (0.25, 0.75)] for name in frame}
    last = runs[-1][0]
    counts = {name: asdict(value) for name, value in last.counts.items()}
    chosen = [f"{a.link} p={a.exponent:g} pairs={a.pairs:g} ridge={a.ridge:g} shared={a.shared:g}" for *_, a, _ in runs]
    settings = {"table": table.name, "design": options.design, "evaluations": runs[-1][-1]}
    extra = {"starts": options.starts, "seed": options.seed, "n": last.n, "chosen": chosen}
    return {**medians, **counts, **quartiles, "verdict": last.verdict, "conditions": conditions(**settings, **extra)}


def measure_all(options: argparse.Namespace) -> dict[str, object]:
    """Every derived table with every design, and how the coverages spread over the tables."""
    lines = []
    for table in derived_tables():
        for design in DESIGNS:
            line = _line(table, design, options)
            if line is None:
                continue
            lines.append(line)
            if not options.json:
                print({name: round(x, 3) if isinstance(x, float) else x for name, x in line.items()}, flush=True)
    frame = pd.DataFrame(lines)
    spread = {
        design: {name: _spread(mine[name]) for name in COVERAGES}
        for design, mine in frame.groupby("design", sort=False)
    }
    used = conditions(starts=options.starts, seed=options.seed, tables=int(frame["table"].nunique()))
    return {"coverage": spread, "tables": lines, "conditions": used}


def _line(table: NetworkTable, design: str, options: argparse.Namespace) -> dict[str, object] | None:
    """Medians over starts for one table and design; None where the design leaves too little to predict."""
    found = []
    for start in range(options.starts):
        rows = rows_of(table, design, options.evaluations, np.random.default_rng([options.seed, start]))
        used = len(rows.fitted) + len(rows.held_out)
        if len(rows.fitted) < 3 or len(table.codes_NP) - used < LEAST_LEFT:
            return None
        result, raw, _ = calibrate_once(table, rows)
        found.append({"kendall": result.kendall, "coverage_90": result.coverage_90, "coverage_90_raw": raw})
    medians = {name: float(value) for name, value in pd.DataFrame(found).median().items()}
    return {"table": table.name, "design": design, "fitted": len(rows.fitted), **medians}


def _spread(values: "pd.Series[float]") -> dict[str, float]:
    """The median, the ends and the mean distance from 0.9 over tables."""
    ends = {"least": float(values.min()), "median": float(values.median()), "most": float(values.max())}
    return {**ends, "mean_distance": float((values - 0.9).abs().mean())}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default=None, help="YAML file that describes the table; default: all derived ones")
    parser.add_argument("--evaluations", type=int, default=0, help="networks to fit to; 0: the design's own number")
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--design", choices=DESIGNS, default="balanced", help="of the one table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print nothing but the object")
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(measure(options) if options.table else measure_all(options)))
    except NasError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
