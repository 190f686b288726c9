"""How well a predictor fitted to few networks of a complete table orders and covers the others.

    python -m tests.benchmarks.calibration --table tests/benchmarks/tables/nasbench_macro.yaml --evaluations 50 --json

Fits to ``--evaluations`` networks (a balanced design, random networks, or
one-swap neighbours of random bases), predicts all others and reports medians
over ``--starts`` designs: ``kendall``, ``spearman``, ``kendall_top_half``,
``coverage_90``, ``rmse`` (metric's unit), ``rmse_refitted``, ``regret``; rank
statistics of counting ``params`` and ``flops`` where the table has them. The last
line is one JSON object.
"""

import argparse
import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from nas_core.base.errors import NasError
from nas_core.prediction import Alternative, Calibration, fit
from nas_core.prediction.calibration import COUNTS, compare
from nas_core.prediction.settings import PredictConfig
from nas_core.records.evaluations import EvaluationTable
from nas_core.searchers.surrogate import balanced_rows, one_swap_rows
from tests.benchmarks.conditions import conditions
from tests.benchmarks.tables import NetworkTable, read_table

FIGURES = ("kendall", "spearman", "kendall_top_half", "coverage_90", "rmse", "rmse_refitted", "regret")


def design_rows(table: NetworkTable, kind: str, count: int, rng: np.random.Generator) -> list[int]:
    """Rows to fit to: ``balanced``, ``random``, or ``one-swap`` around as many random bases as needed."""
    first = int(rng.integers(len(table.codes_NP)))
    if kind == "random":
        return [int(row) for row in rng.choice(len(table.codes_NP), count, replace=False)]
    if kind == "balanced":
        return balanced_rows(table.encoding, table.codes_NP, [first], count, rng)
    rows: dict[int, None] = {}
    while len(rows) < count:
        rows |= dict.fromkeys(one_swap_rows(table.codes_NP, int(rng.integers(len(table.codes_NP)))))
    return list(rows)[:count]


def calibrate_once(
    table: NetworkTable, kind: str, evaluations: int, config: PredictConfig, rng: np.random.Generator
) -> tuple[Calibration, Alternative]:
    """The calibration on every network that was not fitted, and the alternative in use."""
    rows = design_rows(table, kind, evaluations, rng)
    encoding = table.encoding
    genotypes = [encoding.genotype(code_P) for code_P in table.codes_NP[rows]]
    measured = EvaluationTable.from_metrics(dict(zip(genotypes, table.select_N[rows].tolist(), strict=True)))
    predictor = fit(table.space, measured, config, base=genotypes[0])
    rest = np.setdiff1d(np.arange(len(table.codes_NP)), rows)
    metric_N, low_N, high_N = predictor.predict_codes(table.codes_NP[rest])
    counted = {name: table.costs[name][rest] for name in COUNTS if name in table.costs}
    truth_N = table.select_N[rest]
    result = compare(guess_N=metric_N, low_N=low_N, high_N=high_N, truth_N=truth_N, counted=counted)
    return result, predictor.chosen


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Medians over starts, the settings chosen, and the conditions."""
    table = read_table(options.table)
    config = PredictConfig()
    runs = [
        calibrate_once(table, options.design, options.evaluations, config, np.random.default_rng([options.seed, start]))
        for start in range(options.starts)
    ]
    frame = pd.DataFrame([{name: getattr(run, name) for name in FIGURES} for run, _ in runs])
    medians = {name: float(frame[name].median()) for name in FIGURES}
    quartiles = {f"{name}_quartiles": [float(frame[name].quantile(q)) for q in (0.25, 0.75)] for name in FIGURES}
    last = runs[-1][0]
    counts = {
        name: {key: float(getattr(value, key)) for key in ("kendall", "spearman", "kendall_top_half")}
        for name, value in last.counts.items()
    }
    chosen = [f"{a.link} p={a.exponent:g} pairs={a.pairs:g} ridge={a.ridge:g} shared={a.shared:g}" for _, a in runs]
    settings = {"table": table.name, "design": options.design, "evaluations": options.evaluations}
    extra = {"starts": options.starts, "seed": options.seed, "n": last.n, "chosen": chosen}
    return {**medians, **counts, **quartiles, "verdict": last.verdict, "conditions": conditions(**settings, **extra)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, help="YAML file that describes the table")
    parser.add_argument("--evaluations", type=int, default=50)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--design", choices=("balanced", "random", "one-swap"), default="balanced")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print nothing but the object (nothing else is printed)")
    try:
        print(json.dumps(measure(parser.parse_args(arguments))))
    except NasError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
