"""Random problems of 1 to 40 limits under short time limits: by how much the worst of them overran.

``python -m tests.benchmarks.time_limits --seconds 120 --limits 0.2,1,5 --seed 0 --json``

Selections, the best k and frontiers of 5 to 100 positions, feasible, hardly feasible and infeasible, of sums,
quotients and pair terms. Time is CPU time, so that other work on the machine counts for nothing (``--wall``: the
clock's). Libraries are loaded before the clock starts (0.3 s once).
``ratio`` is of the time allowed: the limit, and a tenth of it, or of a second where that is more.
"""

import argparse
import importlib
import json
import sys
import time
from typing import Any

import numpy as np

from nas_core.program import Budget, Objective, SelectionProblem, frontier, frontier2, solve, top_k
from tests.benchmarks.conditions import conditions

SLACK = 0.1


def random_problem(rng: np.random.Generator) -> tuple[str, SelectionProblem]:
    positions, choices = int(rng.choice([5, 10, 20, 30, 60, 100])), int(rng.choice([3, 6, 10, 20]))
    limits = int(rng.choice([1, 2, 3, 5, 10, 20, 40]))
    shape = (positions, choices)
    size = rng.uniform(0.05, 1.0, shape)
    related = rng.random() < 0.5
    score = np.sqrt(size) * rng.uniform(0.9, 1.1, shape) if related else rng.uniform(0, 1, shape)
    costs = {
        f"c{k}": np.round(size * rng.uniform(0.8, 1.2, shape) if related else rng.uniform(0, 1, shape), 3)
        for k in range(limits)
    }
    kind, objective = str(rng.choice(["feasible", "hardly", "infeasible"])), str(rng.choice(["sum", "ratio", "pairs"]))
    network, budgets = rng.integers(0, choices, positions), []
    for name, cost in costs.items():
        low, high = cost.min(axis=1).sum(), cost.max(axis=1).sum()
        own = cost[np.arange(positions), network].sum()  # of a network that is within all hard limits
        most = {"feasible": max(own, (low + high) / 2), "hardly": own, "infeasible": own - 0.02 * (high - low)}[kind]
        budgets.append(Budget(resource=name, at_most=round(float(most), 3)))
    pairs = {}
    if objective == "pairs":
        terms = np.round(rng.uniform(0.0, 0.2, (positions - 1, choices, choices)), 3)
        pairs = {((p, i), (p + 1, j)): float(value) for (p, i, j), value in np.ndenumerate(terms)}
    problem = SelectionProblem(
        score=np.round(score, 4).tolist(),
        costs={name: cost.tolist() for name, cost in costs.items()},
        budgets=tuple(budgets),
        pairs=pairs,
        objective=Objective(kind="ratio", resource="c0") if objective == "ratio" else Objective(),
    )
    return f"{positions}x{choices}, {limits} limits, {kind}, {objective}", problem


def ask(problem: SelectionProblem, rng: np.random.Generator, limit_s: float) -> tuple[str, str]:
    """A question about the problem, and the status of its answer."""
    resources = problem.resources
    match int(rng.integers(4)):
        case 0:
            return "solve", solve(problem, time_limit_s=limit_s).status.name
        case 1:
            k = int(rng.choice([10, 1_000]))
            return f"top {k}", top_k(problem, k, time_limit_s=limit_s).status.name
        case 2 if len(resources) > 1:
            return "frontier2", frontier2(problem, resources[0], resources[1], time_limit_s=limit_s).status.name
        case _:
            return "frontier", frontier(problem, resources[0], time_limit_s=limit_s).status.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=120.0, help="wall seconds to go on for")
    parser.add_argument("--limits", default="0.2,1,5", help="time limits, seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wall", action="store_true", help="by the clock instead of the CPU")
    parser.add_argument("--json", action="store_true", help="print nothing but the object on the last line")
    args = parser.parse_args()
    for library in ("scipy.sparse", "scipy.optimize", "ortools.sat.python.cp_model"):
        importlib.import_module(library)
    if not args.wall:
        time.monotonic = time.process_time  # the solver's clock
    clock, end = time.monotonic, time.perf_counter() + args.seconds
    limits = [float(text) for text in args.limits.split(",")]
    worst: dict[str, Any] = {"ratio": 0.0}
    tried = 0
    while time.perf_counter() < end:
        rng = np.random.default_rng([args.seed, tried])
        name, problem = random_problem(rng)
        limit_s, started = float(rng.choice(limits)), clock()
        question, status = ask(problem, rng, limit_s)
        took_s, tried = clock() - started, tried + 1
        row = {"ratio": took_s / (limit_s + SLACK * max(limit_s, 1.0)), "problem": name, "question": question}
        row |= {"limit_s": limit_s, "took_s": took_s, "status": status, "number": tried - 1}
        if row["ratio"] > worst["ratio"]:
            worst = row
            if not args.json:
                print(row, flush=True)
    unit = "wall" if args.wall else "CPU"
    json.dump({"tried": tried, "worst": worst, "clock": unit, "conditions": conditions()}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
