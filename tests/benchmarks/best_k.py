"""The best k networks in order: CPU seconds by one search, beside a program for each.

``python -m tests.benchmarks.best_k --shapes "8,3,2;13,6,2;21,9,2;20,9,3" --k 1000,10000 --time 60 --each 5 --json``

A shape is positions, choices, limits half-way between the cheapest and the dearest network; bigger blocks cost
more and score better, with 10 to 20 % noise, all numbers with three decimals. ``--objective`` maximises the summed
scores, or a quotient of them and the first cost, or adds a term for every two blocks of neighbouring positions.
``--each`` seconds are given to a program for each network, which says how many it proved in that time.
"""

import argparse
import json
import sys
import time
from typing import Any
from unittest import mock

import numpy as np

from nas_core.program import Budget, Objective, SelectionProblem, top_k
from nas_core.program.routes import TableSolver
from tests.benchmarks.conditions import conditions

OBJECTIVES = {
    "additive": Objective(),
    "ratio": Objective(kind="ratio", resource="c0"),
    "power": Objective(kind="fractional", resource="c0", reference=5.0, exponent=0.3),
    "neighbours": Objective(),
}


def supernet(positions: int, choices: int, limits: int, objective: str, seed: int = 0) -> SelectionProblem:
    rng = np.random.default_rng([positions, choices, limits, seed])
    size = rng.uniform(0.05, 1.0, (positions, choices))
    score = np.round(np.sqrt(size) * rng.uniform(0.9, 1.1, size.shape), 3)
    costs = {f"c{k}": np.round(size * rng.uniform(0.8, 1.2, size.shape), 3) for k in range(limits)}
    budgets = [
        Budget(resource=name, at_most=float(cost.min(axis=1).sum() + cost.max(axis=1).sum()) / 2)
        for name, cost in costs.items()
    ]
    pairs = {}
    if objective == "neighbours":
        terms = np.round(rng.uniform(0.0, 0.2, (positions - 1, choices, choices)), 3)
        pairs = {((p, i), (p + 1, j)): float(value) for (p, i, j), value in np.ndenumerate(terms)}
    return SelectionProblem(
        score=score.tolist(),
        costs={name: cost.tolist() for name, cost in costs.items()},
        budgets=tuple(budgets),
        objective=OBJECTIVES[objective],
        pairs=pairs,
    )


def measure(problem: SelectionProblem, k: int, limit_s: float) -> dict[str, Any]:
    started, cpu = time.monotonic(), time.process_time()
    answer = top_k(problem, k, time_limit_s=limit_s)
    return {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.monotonic() - started,
        "networks": len(answer.selections),
        "proven": answer.num_proven,
        "route": answer.route,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shapes", default="8,3,2;13,6,2;21,9,2;20,9,3", help="positions,choices,limits by ;")
    parser.add_argument("--objective", choices=list(OBJECTIVES), default="additive")
    parser.add_argument("--k", default="1000,10000")
    parser.add_argument("--time", type=float, default=60.0, help="seconds for one search")
    parser.add_argument("--each", type=float, default=5.0, help="seconds for a program for each; 0 leaves it out")
    parser.add_argument("--json", action="store_true", help="print nothing but the object on the last line")
    args = parser.parse_args()
    report: dict[str, Any] = {}
    for shape in args.shapes.split(";"):
        problem = supernet(*map(int, shape.split(",")), args.objective)
        for k in map(int, args.k.split(",")):
            rows = {"search": measure(problem, k, args.time)}
            if args.each:
                with mock.patch.object(TableSolver, "ranking", return_value=None):
                    rows["each"] = measure(problem, k, args.each)
            report[f"{shape} k={k}"] = rows
            if not args.json:
                for name, row in rows.items():
                    print(f"{shape} k={k} {name:>6} {row['cpu_s']:7.2f} CPU s {row['proven']:>6} proven", flush=True)
    json.dump({"shapes": report, "objective": args.objective, "conditions": conditions()}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
