"""CPU seconds to a proven optimum, ours against CP-SAT, HiGHS, CBC, SCIP (and Gurobi where it is installed).

``python -m tests.benchmarks.solver --sizes "20,9;100,50" --kind linear --data correlated --seeds 3 --json``

Integer data, two limits half-way between the cheapest and the dearest network.
``independent``: all numbers uniform. ``correlated``: bigger blocks cost more and
score better, with diminishing returns and 10-20 % noise. ``fractional``
maximises summed scores over F0 + summed cost (peers: Dinkelbach); ``pairwise``
adds a term for every two blocks of neighbouring positions (peers: the flow
form, CP-SAT: Boolean products, its better form).

Every run is a process of its own, imports and one tiny solve before the clock
starts. Ours is charged from the problem's raw tables to the verified answer;
peers are charged for their solve alone, not for building the model. One thread, gap 0.
"""

import argparse
import importlib.util
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tests.benchmarks.conditions import conditions

KINDS, DATA = ("linear", "fractional", "pairwise"), ("independent", "correlated")
MIP_NAMES = {"cbc": "CBC_MIXED_INTEGER_PROGRAMMING", "scip": "SCIP_MIXED_INTEGER_PROGRAMMING", "gurobi": "GUROBI_MIP"}
WARM_UP = (3, 3)


@dataclass(frozen=True, kw_only=True)
class Instance:
    """Scores [M][N], two costs [2][M][N], their limits, and pair terms [M - 1][N][N] between neighbours."""

    score_MN: np.ndarray
    cost_KMN: np.ndarray
    limits_K: list[int]
    pairs_MNN: np.ndarray | None
    base_cost: int | None  # F0 of the fractional objective, whose F is the first cost

    @classmethod
    def of(cls, num_positions: int, num_choices: int, kind: str, data: str, seed: int) -> "Instance":
        rng = np.random.default_rng([num_positions, num_choices, DATA.index(data), seed])
        shape = (num_positions, num_choices)
        size = rng.uniform(0.05, 1.0, shape)
        if data == "independent":
            score = rng.uniform(0.0, 1.0, shape)
            cost = rng.uniform(0.001, 1.0, (2, *shape))
        else:
            score = np.sqrt(size) * rng.uniform(0.9, 1.1, shape)
            cost = size * rng.uniform(0.8, 1.2, (2, *shape))
        score_MN, cost_KMN = np.rint(1e6 * score).astype(np.int64), np.rint(1e6 * cost).astype(np.int64)
        limits = [int(c.min(axis=1).sum() + c.max(axis=1).sum()) // 2 for c in cost_KMN]
        pairs = None
        if kind == "pairwise":
            noise = rng.uniform(0.0, 1.0, (num_positions - 1, num_choices, num_choices))
            together = np.sqrt(size[:-1, :, None] * size[1:, None, :]) if data == "correlated" else 1.0
            pairs = np.rint(2e5 * noise * together).astype(np.int64)
        base = limits[0] // 2 if kind == "fractional" else None
        return cls(score_MN=score_MN, cost_KMN=cost_KMN, limits_K=limits, pairs_MNN=pairs, base_cost=base)

    def value(self, choices: list[int]) -> Fraction:
        """Exact objective of a network; the check that solvers agree."""
        rows = np.arange(len(choices))
        total = int(self.score_MN[rows, choices].sum())
        if self.pairs_MNN is not None:
            total += int(self.pairs_MNN[rows[:-1], choices[:-1], choices[1:]].sum())
        if self.base_cost is None:
            return Fraction(total)
        return Fraction(total, self.base_cost + int(self.cost_KMN[0][rows, choices].sum()))

    def is_within(self, choices: list[int]) -> bool:
        rows = np.arange(len(choices))
        return all(int(c[rows, choices].sum()) <= limit for c, limit in zip(self.cost_KMN, self.limits_K, strict=True))


def cpu_s() -> float:
    """CPU seconds of this process and its children, user and system."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)  # os.times() ticks in hundredths of a second
    return time.process_time() + children.ru_utime + children.ru_stime


@dataclass
class Run:
    """Choices found, whether proven, and the CPU seconds charged."""

    choices: list[int] | None
    proven: bool
    cpu_s: float


# A solver of "maximise the integer weights [M][N] (and pair terms) within the limits", built once, solved often.
Solver = Callable[[np.ndarray], tuple[list[int] | None, bool, float]]


def run_ours(instance: Instance, limit_s: float) -> Run:
    from nas_core.program import Budget, Objective, SelectionProblem, Status, solve

    score, costs = instance.score_MN.tolist(), [cost.tolist() for cost in instance.cost_KMN]
    pairs = {}
    if instance.pairs_MNN is not None:
        for p, terms in enumerate(instance.pairs_MNN.tolist()):
            pairs |= {((p, i), (p + 1, j)): v for i, row in enumerate(terms) for j, v in enumerate(row)}
    started = cpu_s()
    problem = SelectionProblem(
        score=score,
        costs={"a": costs[0], "b": costs[1]},
        base_costs={} if instance.base_cost is None else {"a": instance.base_cost},
        budgets=(
            Budget(resource="a", at_most=instance.limits_K[0] + (instance.base_cost or 0)),
            Budget(resource="b", at_most=instance.limits_K[1]),
        ),
        objective=Objective() if instance.base_cost is None else Objective(kind="ratio", resource="a"),
        pairs=pairs,
    )
    result = solve(problem, time_limit_s=limit_s)
    spent = cpu_s() - started
    choices = list(result.best.genotype.choices) if result.selections else None
    return Run(choices, result.status is Status.OPTIMAL, spent)


def run_peer(instance: Instance, limit_s: float, build: Callable[[Instance, float], Solver]) -> Run:
    """One solve, or Dinkelbach's sequence of them where the objective is a quotient."""
    solve = build(instance, limit_s)
    if instance.base_cost is None:
        return Run(*solve(instance.score_MN))
    rows, spent, ratio, best = np.arange(len(instance.score_MN)), 0.0, Fraction(0), None
    while True:
        weights = instance.score_MN * ratio.denominator - ratio.numerator * instance.cost_KMN[0].astype(object)
        choices, proven, seconds = solve(weights)
        spent += seconds
        if choices is None or not proven:
            return Run(best, False, spent)
        gain = int(weights[rows, choices].sum()) - ratio.numerator * instance.base_cost
        if gain <= 0:
            return Run(best, True, spent)
        best, ratio = choices, instance.value(choices)


def build_cpsat(instance: Instance, limit_s: float) -> Solver:
    from ortools.sat.python import cp_model

    num_positions, num_choices = instance.score_MN.shape
    model = cp_model.CpModel()
    take = [[model.new_bool_var("") for _ in range(num_choices)] for _ in range(num_positions)]
    flat = [variable for row in take for variable in row]
    for row in take:
        model.add_exactly_one(row)
    for cost, limit in zip(instance.cost_KMN, instance.limits_K, strict=True):
        model.add(cp_model.LinearExpr.weighted_sum(flat, cost.ravel().tolist()) <= limit)
    both, terms = [], []
    if instance.pairs_MNN is not None:
        for p, values in enumerate(instance.pairs_MNN):
            for i in range(num_choices):
                for j in range(num_choices):  # all terms are >= 0, so one direction is enough
                    together = model.new_bool_var("")
                    model.add_implication(together, take[p][i])
                    model.add_implication(together, take[p + 1][j])
                    both.append(together)
                    terms.append(int(values[i, j]))

    def solve(weights: np.ndarray) -> tuple[list[int] | None, bool, float]:
        coefficients = [int(w) for w in weights.ravel()]
        if sum(map(abs, coefficients)) + sum(terms) >= 2**63:
            return None, False, 0.0  # CP-SAT calls the model invalid
        model.maximize(cp_model.LinearExpr.weighted_sum(flat + both, coefficients + terms))
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds, solver.parameters.num_workers = limit_s, 1
        started = cpu_s()
        status = solver.solve(model)
        spent = cpu_s() - started
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None, False, spent
        return [[solver.boolean_value(v) for v in row].index(True) for row in take], status == cp_model.OPTIMAL, spent

    return solve


def flow_rows(instance: Instance) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Equalities of the flow form as (row, column, value) triplets after the M rows "one choice each"."""
    num_positions, num_choices = instance.score_MN.shape
    n, rows, columns, values, row = num_choices, [], [], [], num_positions
    z = num_positions * n + np.arange((num_positions - 1) * n * n).reshape(-1, n, n)
    for p in range(num_positions - 1):
        for i in range(n):
            for x, flow in ((p * n + i, z[p, i]), ((p + 1) * n + i, z[p, :, i])):
                rows += [np.full(n + 1, row)]
                columns += [np.append(flow, x)]
                values += [np.append(np.ones(n), -1.0)]
                row += 1
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(values), row


def build_highs(instance: Instance, limit_s: float) -> Solver:
    from scipy import sparse
    from scipy.optimize import Bounds, LinearConstraint, milp

    num_positions, num_choices = instance.score_MN.shape
    num_x = instance.score_MN.size
    row, column, value = np.repeat(np.arange(num_positions), num_choices), np.arange(num_x), np.ones(num_x)
    pair_values, height = np.zeros(0), num_positions
    if instance.pairs_MNN is not None:
        more_row, more_column, more_value, height = flow_rows(instance)
        row, column, value = np.append(row, more_row), np.append(column, more_column), np.append(value, more_value)
        pair_values = instance.pairs_MNN.ravel().astype(float)
    count = num_x + len(pair_values)
    equal = sparse.csr_matrix((value, (row, column)), shape=(height, count))
    right = np.append(np.ones(num_positions), np.zeros(height - num_positions))
    upper = sparse.csr_matrix(np.pad(instance.cost_KMN.reshape(2, -1) / 1e6, ((0, 0), (0, len(pair_values)))))

    def solve(weights: np.ndarray) -> tuple[list[int] | None, bool, float]:
        objective = np.append(weights.ravel().astype(float), pair_values)
        scale = 1e6 if np.abs(objective).max() < 1e8 else np.abs(objective).max()
        started = cpu_s()
        answer = milp(
            -objective / scale,
            integrality=np.append(np.ones(num_x), np.zeros(len(pair_values))),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(equal, right, right),
                LinearConstraint(upper, -np.inf, np.array(instance.limits_K) / 1e6),
            ],
            options={"mip_rel_gap": 0.0, "time_limit": limit_s},
        )
        spent = cpu_s() - started
        if answer.x is None:
            return None, False, spent
        return answer.x[:num_x].reshape(instance.score_MN.shape).argmax(axis=1).tolist(), answer.status == 0, spent

    return solve


def build_mip(name: str) -> Callable[[Instance, float], Solver]:
    """CBC, SCIP or Gurobi through OR-Tools' linear solver."""

    def build(instance: Instance, limit_s: float) -> Solver:
        from ortools.linear_solver import pywraplp

        solver = pywraplp.Solver.CreateSolver(MIP_NAMES[name])
        num_positions, num_choices = instance.score_MN.shape
        num_x = instance.score_MN.size
        variables = [solver.BoolVar("") for _ in range(num_x)]
        for p in range(num_positions):
            row = solver.Constraint(1, 1)
            for i in range(num_choices):
                row.SetCoefficient(variables[p * num_choices + i], 1)
        for cost, limit in zip(instance.cost_KMN, instance.limits_K, strict=True):
            row = solver.Constraint(-solver.infinity(), limit)
            for variable, c in zip(variables, cost.ravel().tolist(), strict=True):
                row.SetCoefficient(variable, c)
        pair_values: list[int] = []
        if instance.pairs_MNN is not None:
            pair_values = instance.pairs_MNN.ravel().tolist()
            variables += [solver.NumVar(0, 1, "") for _ in pair_values]
            rows, columns, values, height = flow_rows(instance)
            flow = [solver.Constraint(0, 0) for _ in range(height - num_positions)]
            for r, c, v in zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True):
                flow[r - num_positions].SetCoefficient(variables[c], v)
        parameters = pywraplp.MPSolverParameters()
        parameters.SetDoubleParam(pywraplp.MPSolverParameters.RELATIVE_MIP_GAP, 0.0)
        solver.SetTimeLimit(int(limit_s * 1000))
        solver.SetNumThreads(1)

        def solve(weights: np.ndarray) -> tuple[list[int] | None, bool, float]:
            objective = solver.Objective()
            largest = float(np.abs(weights).max())
            scale = 1.0 if largest < 1e8 else largest / 1e6
            for variable, w in zip(variables, [*weights.ravel().tolist(), *pair_values], strict=True):
                objective.SetCoefficient(variable, float(w) / scale)
            objective.SetMaximization()
            started = cpu_s()
            status = solver.Solve(parameters)
            spent = cpu_s() - started
            if status not in (pywraplp.Solver.OPTIMAL, pywraplp.Solver.FEASIBLE):
                return None, False, spent
            taken = np.array([v.solution_value() for v in variables[:num_x]]).reshape(num_positions, num_choices)
            return taken.argmax(axis=1).tolist(), status == pywraplp.Solver.OPTIMAL, spent

        return solve

    return build


def solvers() -> dict[str, Callable[[Instance, float], Run]]:
    """Every solver that is installed."""
    builders: dict[str, Callable[[Instance, float], Solver]] = {"cpsat": build_cpsat, "highs": build_highs}
    for name in MIP_NAMES:
        if name != "gurobi" or importlib.util.find_spec("gurobipy") is not None:
            builders[name] = build_mip(name)
    peers = {name: (lambda i, s, b=build: run_peer(i, s, b)) for name, build in builders.items()}
    return {"ours": run_ours, **peers}


def work(name: str, size: tuple[int, int], kind: str, data: str, seed: int, limit_s: float) -> dict[str, Any]:
    """One run in this process."""
    solver = solvers()[name]
    solver(Instance.of(*WARM_UP, kind, data, 0), limit_s)
    instance = Instance.of(*size, kind, data, seed)
    run = solver(instance, limit_s)
    value = None if run.choices is None or not instance.is_within(run.choices) else instance.value(run.choices)
    return {"cpu_s": run.cpu_s, "proven": run.proven, "value": None if value is None else str(value)}


def in_own_process(arguments: list[str], limit_s: float) -> dict[str, Any]:
    """A run in its own process; one that is killed at five times its limit is unproven."""
    command = [sys.executable, "-m", "tests.benchmarks.solver", "--worker", *arguments, "--time-limit", str(limit_s)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=5 * limit_s + 60, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"cpu_s": 5 * limit_s, "proven": False, "value": None, "error": "killed"}
    if done.returncode:
        return {"cpu_s": math.nan, "proven": False, "value": None, "error": done.stderr[-400:]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(size: str, names: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """All solvers on one size."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in range(args.seeds):
        for name in names:  # in turn, so that a loaded moment hits all of them
            arguments = [name, "--sizes", size, "--kind", args.kind, "--data", args.data, "--seed", str(seed)]
            runs[name].append(in_own_process(arguments, args.time_limit))
            print(f"{size} {args.kind} {args.data} seed {seed} {name}: {runs[name][-1]}", file=sys.stderr, flush=True)
    report: dict[str, Any] = {}
    for name, rows in runs.items():
        seconds = [row["cpu_s"] for row in rows]
        report[name] = {
            "median_cpu_s": statistics.median(seconds),
            "cpu_s": seconds,
            "proven": all(row["proven"] for row in rows),
            "values": [row["value"] for row in rows],
        }
    report["agree"] = all(
        len({row["value"] for row in rows if row["proven"]}) <= 1 for rows in zip(*runs.values(), strict=True)
    )
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default="6,5;20,9;32,54;100,50", help="positions,choices separated by ;")
    parser.add_argument("--kind", choices=KINDS, default="linear")
    parser.add_argument("--data", choices=DATA, default="correlated")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--solvers", help="comma-separated; all that are installed if left out")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds per run")
    parser.add_argument("--json", action="store_true", help="print nothing but the object on the last line")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        num_positions, num_choices = map(int, args.sizes.split(","))
        size = (num_positions, num_choices)
        print(json.dumps(work(args.worker, size, args.kind, args.data, args.seed, args.time_limit)))
        return
    names = args.solvers.split(",") if args.solvers else list(solvers())
    sizes = {size: measure(size, names, args) for size in args.sizes.split(";")}
    if not args.json:
        for size, report in sizes.items():
            for name in names:
                print(f"{size:>8} {name:>7} {report[name]['median_cpu_s']:9.4f} s proven={report[name]['proven']}")
    settings = {"kind": args.kind, "data": args.data, "seeds": args.seeds, "time_limit_s": args.time_limit}
    print(json.dumps({"sizes": sizes, "settings": settings, "conditions": conditions()}))


if __name__ == "__main__":
    main()
