"""The public knapsack sets: ours beside HiGHS, CBC and a plain dynamic program, in CPU seconds.

``python -m tests.benchmarks.knapsacks --sets pisinger,mmkp --time 60 --json``

``pisinger``: multiple-choice knapsacks (one limit) of Pisinger, EJOR 83 (1995), weights up to 1000, the limit
half-way between the lightest and the heaviest choice: uncorrelated, weakly and strongly correlated (summed up
over the class, as there), subset-sum, monotone (Sinha and Zoltners), and zigzag: monotone, every second item
below the line between its neighbours. ``CLASSESxITEMS`` name the sizes.

``mmkp``: multi-choice multi-dimensional knapsacks of the shapes of Khan et al.'s I01 to I13 (classes x items x
resources), made as there: weights 0 to 9, values the weights times a price of 1 to 10 for each resource plus 0 to 20,
limits of 5 per class (more where that leaves a small one without any choice); and 100 x 10 with 20 and with 40
resources.
``--file`` reads MMKP files in the public format: ``classes items resources``, the limits, then per class its number and
a row ``value weight ... weight`` for each item.

``--solvers expected`` is no solver: its ``bound`` is the value above which less than one choice is expected, of all
choices that are within the limits, were their sums normally distributed (the saddle point of the number of choices and
slacks with given sums). On a gap that nobody closes it tells the incumbent's part from the bound's: of the shapes of
I02 to I06 the best are within 5 of it.

Every run is a process of its own, imports and a tiny solve before the clock starts, one thread, gap 0. Ours is charged
from the raw numbers to the verified answer, peers for their solve alone. ``bound``: no choice is worth more, as far
as the solver says. Incumbents of all are checked in integers.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.benchmarks.conditions import conditions
from tests.benchmarks.solver import cpu_s

if TYPE_CHECKING:
    from nas_core.program import SelectionProblem

MCKP_KINDS = ("uncorrelated", "weakly", "strongly", "subsetsum", "monotone", "zigzag")
MCKP_SIZES = ((10, 1000), (100, 100), (1000, 10), (10_000, 10), (1000, 100))
RANGE = 1000
# Khan's I01 to I13: classes, items, resources; then two with many resources.
MMKP_SHAPES = {
    "I01": (5, 5, 5),
    "I02": (10, 5, 5),
    "I03": (15, 10, 10),
    "I04": (20, 10, 10),
    "I05": (25, 10, 10),
    "I06": (30, 10, 10),
    "I07": (100, 10, 10),
    "I08": (150, 10, 10),
    "I09": (200, 10, 10),
    "I10": (250, 10, 10),
    "I11": (300, 10, 10),
    "I12": (350, 10, 10),
    "I13": (400, 10, 10),
    "R20": (100, 10, 20),
    "R40": (100, 10, 40),
}
EXPECTED_TO = 0.05  # of a value
MAX_TABLE = 300_000_000  # steps of the plain dynamic program: items times capacity
SOLVERS = ("ours", "highs", "cbc", "dp")


@dataclass(frozen=True, kw_only=True)
class Instance:
    """values [M][n_m] and weights [K][M][n_m], whole numbers; at most limits [K]."""

    values: list[list[int]]
    weights: list[list[list[int]]]
    limits: list[int]

    def value(self, choices: list[int]) -> int | None:
        """Summed values of a choice; None if it breaks a limit."""
        totals = [sum(row[c] for row, c in zip(rows, choices, strict=True)) for rows in self.weights]
        if any(total > limit for total, limit in zip(totals, self.limits, strict=True)):
            return None
        return sum(row[c] for row, c in zip(self.values, choices, strict=True))

    @property
    def flat(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(values [C], weights [K][C], first column of each class [M + 1])."""
        starts = np.concatenate([[0], np.cumsum([len(row) for row in self.values])])
        values = np.array([x for row in self.values for x in row])
        return values, np.array([[x for row in rows for x in row] for rows in self.weights]), starts


def mckp(kind: str, classes: int, items: int, seed: int = 0) -> Instance:
    """One of Pisinger's classes."""
    rng = np.random.default_rng([MCKP_KINDS.index(kind), classes, items, seed])
    shape = (classes, items)
    weight = rng.integers(1, RANGE + 1, shape)
    match kind:
        case "uncorrelated":
            value = rng.integers(1, RANGE + 1, shape)
        case "weakly":
            value = np.maximum(1, weight + rng.integers(-10, 11, shape))
        case "strongly":  # strongly correlated knapsack items, summed up within the class
            weight = np.sort(weight, axis=1)
            value, weight = np.cumsum(weight + 10, axis=1), np.cumsum(weight, axis=1)
        case "subsetsum":
            value = weight
        case _:
            weight, value = np.sort(weight, axis=1), np.sort(rng.integers(1, RANGE + 1, shape), axis=1)
            if kind == "zigzag":
                middle = (value[:, :-2:2] + value[:, 2::2]) // 2
                value[:, 1:-1:2] = np.minimum(value[:, 1:-1:2], np.maximum(value[:, :-2:2], middle - 1))[
                    :, : value[:, 1:-1:2].shape[1]
                ]
    limit = int(weight.min(axis=1).sum() + weight.max(axis=1).sum()) // 2
    return Instance(values=value.tolist(), weights=[weight.tolist()], limits=[limit])


def mmkp(name: str, seed: int = 0) -> Instance:
    """An instance of the shape of one of Khan's."""
    classes, items, resources = MMKP_SHAPES[name]
    rng = np.random.default_rng([list(MMKP_SHAPES).index(name), seed])
    weight = rng.integers(0, 10, (resources, classes, items))
    price = rng.integers(1, 11, resources)
    value = np.tensordot(price, weight, axes=1) + rng.integers(0, 21, (classes, items))
    some = weight[:, np.arange(classes), rng.integers(0, items, classes)].sum(axis=1)  # so that a choice fits
    limits = np.maximum(5 * classes, some) if classes < 20 else np.full(resources, 5 * classes)
    return Instance(values=value.tolist(), weights=weight.tolist(), limits=limits.tolist())


def read_mmkp(path: Path) -> Instance:
    """An MMKP file in the public format."""
    numbers = [int(float(token)) for token in path.read_text().split()]
    classes, items, resources = numbers[:3]
    limits, place = numbers[3 : 3 + resources], 3 + resources
    values, weights = [], [[] for _ in range(resources)]
    for _ in range(classes):
        place += 1  # the class's number
        rows = [numbers[place + i * (resources + 1) : place + (i + 1) * (resources + 1)] for i in range(items)]
        place += items * (resources + 1)
        values.append([row[0] for row in rows])
        for k in range(resources):
            weights[k].append([row[1 + k] for row in rows])
    if place != len(numbers):
        raise SystemExit(f"{path}: {len(numbers)} numbers, expected {place}: classes items resources, limits, items")
    return Instance(values=values, weights=weights, limits=limits)


# Solvers: (choices or None, bound or None, whether proven, CPU seconds)
Run = tuple[list[int] | None, float | None, bool, float]


def problem_of(instance: Instance) -> "SelectionProblem":
    """The instance as one of ours."""
    from nas_core.program import Budget, SelectionProblem

    return SelectionProblem(
        score=instance.values,  # type: ignore[arg-type]
        costs={f"c{k}": rows for k, rows in enumerate(instance.weights)},  # type: ignore[misc]
        budgets=tuple(Budget(resource=f"c{k}", at_most=limit) for k, limit in enumerate(instance.limits)),
    )


def run_ours(instance: Instance, limit_s: float) -> Run:
    from nas_core.program import Status, solve

    started = cpu_s()
    problem = problem_of(instance)
    result = solve(problem, time_limit_s=limit_s)
    spent = cpu_s() - started
    choices = list(result.best.genotype.choices) if result.selections else None
    return choices, result.bound, result.status is Status.OPTIMAL, spent


def run_highs(instance: Instance, limit_s: float) -> Run:
    from scipy import sparse
    from scipy.optimize import Bounds, LinearConstraint, milp

    values, weights, starts = instance.flat
    count = len(values)
    one = sparse.csr_matrix((np.ones(count), np.arange(count), starts), shape=(len(starts) - 1, count))
    started = cpu_s()
    answer = milp(
        -values.astype(float),
        integrality=np.ones(count),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one, 1, 1),
            LinearConstraint(sparse.csr_matrix(weights.astype(float)), -np.inf, np.array(instance.limits, dtype=float)),
        ],
        options={"mip_rel_gap": 0.0, "time_limit": limit_s},
    )
    spent = cpu_s() - started
    bound = None if answer.mip_dual_bound is None else -answer.mip_dual_bound
    if answer.x is None:
        return None, bound, False, spent
    return _picked(answer.x, starts), bound, answer.status == 0, spent


def run_cbc(instance: Instance, limit_s: float) -> Run:
    from ortools.linear_solver import pywraplp

    values, weights, starts = instance.flat
    solver = pywraplp.Solver.CreateSolver("CBC_MIXED_INTEGER_PROGRAMMING")
    take = [solver.BoolVar("") for _ in values]
    for low, high in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        row = solver.Constraint(1, 1)
        for c in range(low, high):
            row.SetCoefficient(take[c], 1)
    for weight, limit in zip(weights.tolist(), instance.limits, strict=True):
        row = solver.Constraint(-solver.infinity(), limit)
        for variable, w in zip(take, weight, strict=True):
            row.SetCoefficient(variable, w)
    objective = solver.Objective()
    for variable, v in zip(take, values.tolist(), strict=True):
        objective.SetCoefficient(variable, v)
    objective.SetMaximization()
    parameters = pywraplp.MPSolverParameters()
    parameters.SetDoubleParam(pywraplp.MPSolverParameters.RELATIVE_MIP_GAP, 0.0)
    solver.SetTimeLimit(int(limit_s * 1000))
    solver.SetNumThreads(1)
    started = cpu_s()
    status = solver.Solve(parameters)
    spent = cpu_s() - started
    if status not in (pywraplp.Solver.OPTIMAL, pywraplp.Solver.FEASIBLE):
        return None, None, False, spent
    taken = np.array([variable.solution_value() for variable in take])
    return _picked(taken, starts), objective.BestBound(), status == pywraplp.Solver.OPTIMAL, spent


def run_dp(instance: Instance, limit_s: float) -> Run:
    """The textbook's table over all capacities: value only, so no choices."""
    values = instance.flat[0]
    capacity = instance.limits[0] - sum(min(row) for row in instance.weights[0])
    if len(instance.limits) > 1 or len(values) * capacity > MAX_TABLE:
        return None, None, False, 0.0
    started = cpu_s()
    best = np.zeros(capacity + 1, dtype=np.int64)
    for value_row, weight_row in zip(instance.values, instance.weights[0], strict=True):
        least, after = min(weight_row), np.full(capacity + 1, -(10**15))
        for value, weight in zip(value_row, weight_row, strict=True):
            w = weight - least
            if w <= capacity:
                after[w:] = np.maximum(after[w:], best[: capacity + 1 - w] + value)
        best = after
        if cpu_s() - started > limit_s:
            return None, None, False, cpu_s() - started
    return None, float(best.max()), True, cpu_s() - started


def run_expected(instance: Instance, limit_s: float) -> Run:
    """Bisection below the linear relaxation; the multipliers of one value are the start of the next."""
    from scipy import sparse
    from scipy.optimize import linprog

    values, weights, starts = instance.flat
    started, count = cpu_s(), len(values)
    one = sparse.csr_matrix((np.ones(count), np.arange(count), starts), shape=(len(starts) - 1, count))
    ones = np.ones(len(starts) - 1)
    relaxed = linprog(-values.astype(float), A_ub=weights, b_ub=instance.limits, A_eq=one, b_eq=ones, method="highs")
    low, high = -0.9 * relaxed.fun, -relaxed.fun
    start = np.log(np.append(0.1, np.maximum(-0.1 * relaxed.ineqlin.marginals, 0.05)))
    while high - low > EXPECTED_TO and cpu_s() - started < limit_s:
        middle = (low + high) / 2
        logarithm, multipliers = log_count(instance, middle, start)
        if logarithm >= 0:
            low, start = middle, multipliers
        else:
            high = middle
    return None, low, False, cpu_s() - started


def log_count(instance: Instance, value: float, start: np.ndarray) -> tuple[float, np.ndarray]:
    """(logarithm of about how many choices are within the limits and worth the value, the saddle point's logarithms).

    A choice and its slack are drawn with weights exp(b value - y . weight) and exp(-y . slack), b and y such that on
    average they are worth the value and use all of the limits; the normal density there makes a number of the entropy.
    """
    from scipy.optimize import minimize

    limits = np.array(instance.limits, dtype=float)
    sizes = [len(row) for row in instance.values]
    width = max(sizes)
    sums = np.array(  # value and less the weights, [M][n][1 + K]
        [
            [[row[min(c, n - 1)], *(-rows[m][min(c, n - 1)] for rows in instance.weights)] for c in range(width)]
            for m, (row, n) in enumerate(zip(instance.values, sizes, strict=True))
        ],
        dtype=float,
    )
    is_pad = np.arange(width) >= np.array(sizes)[:, None]
    target = np.array([value, *-limits])

    def shares(z: np.ndarray) -> tuple[float, np.ndarray]:
        exponent = np.where(is_pad, -np.inf, sums @ z)
        top = exponent.max(axis=1, keepdims=True)
        share = np.exp(exponent - top)
        total = share.sum(axis=1, keepdims=True)
        return float((np.log(total) + top).sum()), share / total

    def entropy(logarithms: np.ndarray) -> tuple[float, np.ndarray]:
        z = np.exp(logarithms)
        total, share = shares(z)
        slope = np.einsum("mn,mnk->k", share, sums) - target
        slope[1:] -= 1 / np.expm1(z[1:])
        return total - np.log1p(-np.exp(-z[1:])).sum() - z @ target, slope * z

    within = [(-9.0, 3.0)] * len(start)
    found = minimize(
        entropy, start, jac=True, method="L-BFGS-B", bounds=within, options={"maxiter": 2000, "ftol": 1e-13}
    )
    z = np.exp(found.x)
    share = shares(z)[1]
    mean = np.einsum("mn,mnk->mk", share, sums)
    spread = np.einsum("mn,mnk,mnl->kl", share, sums, sums) - mean.T @ mean
    spread[1:, 1:] += np.diag(np.exp(z[1:]) / np.expm1(z[1:]) ** 2)
    density = -np.linalg.slogdet(2 * np.pi * spread)[1] / 2
    return float(found.fun + density - np.log1p(-np.exp(-z[0]))), found.x


def _picked(taken: np.ndarray, starts: np.ndarray) -> list[int]:
    return [int(taken[low:high].argmax()) for low, high in itertools.pairwise(starts.tolist())]


RUNS: dict[str, Callable[[Instance, float], Run]] = {
    "ours": run_ours,
    "highs": run_highs,
    "cbc": run_cbc,
    "dp": run_dp,
    "expected": run_expected,
}


def work(path: Path, solver: str, limit_s: float, clock: str) -> dict[str, Any]:
    """One run in this process; the instance lies in a file."""
    run = RUNS[solver]
    run(mckp("uncorrelated", 3, 3), 5.0)
    if clock == "cpu":
        time.monotonic = time.process_time
    instance = Instance(**json.loads(path.read_text()))
    choices, bound, proven, spent = run(instance, limit_s)
    value = None if choices is None else instance.value(choices)
    if solver == "dp" and proven and bound is not None:
        value = int(bound)
    finite = bound is not None and math.isfinite(bound)
    return {"value": value, "bound": bound if finite else None, "proven": proven, "cpu_s": round(spent, 3)}


def in_own_process(path: Path, solver: str, limit_s: float, clock: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.knapsacks", "--worker", solver, "--file", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*command, "--time", str(limit_s), "--clock", clock],
            check=False,
            capture_output=True,
            text=True,
            timeout=20 * limit_s + 120,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return {"value": None, "bound": None, "proven": False, "cpu_s": None, "error": "killed"}
    if done.returncode:
        return {"value": None, "bound": None, "proven": False, "cpu_s": None, "error": done.stderr[-400:]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def instances(sets: list[str], files: list[Path], only: str) -> dict[str, Instance]:
    found: dict[str, Instance] = {path.name: read_mmkp(path) for path in files}
    for name in sets:
        if name == "pisinger":
            for kind in MCKP_KINDS:
                for classes, items in MCKP_SIZES:
                    found[f"{kind} {classes}x{items}"] = mckp(kind, classes, items)
        elif name == "mmkp":
            found |= {f"mmkp {shape}": mmkp(shape) for shape in MMKP_SHAPES}
        elif name:
            raise SystemExit(f"--sets: found {name!r}, expected pisinger and mmkp")
    return {name: instance for name, instance in found.items() if only in name}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sets", default="pisinger,mmkp")
    parser.add_argument("--time", type=float, default=60.0, help="seconds per run")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="what our seconds are, on a machine that others use"
    )
    parser.add_argument("--solvers", default=",".join(SOLVERS))
    parser.add_argument("--only", default="", help="instances whose name holds this")
    parser.add_argument("--file", type=Path, action="append", default=[], help="an MMKP file; repeatable")
    parser.add_argument("--json", action="store_true", help="print nothing but the object on the last line")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(work(args.file[0], args.worker, args.time, args.clock)))
        return
    sets: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, instance in instances(args.sets.split(","), args.file, args.only).items():
            path = Path(folder) / "instance.json"
            path.write_text(json.dumps(instance.__dict__))
            sets[name] = {}
            for solver in args.solvers.split(","):
                if solver == "dp" and len(instance.limits) > 1:
                    continue
                sets[name][solver] = in_own_process(path, solver, args.time, args.clock)
                print(f"{name:24} {solver:6} {sets[name][solver]}", file=sys.stderr, flush=True)
    print(json.dumps({"sets": sets, "settings": {"time_s": args.time, "range": RANGE}, "conditions": conditions()}))


if __name__ == "__main__":
    main()
