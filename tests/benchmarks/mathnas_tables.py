"""Recovers the published MathNAS networks from the published block tables.

``python -m tests.benchmarks.mathnas_tables --tables DIR --json``

SuperViT: the five published networks T1-T5 at their FLOPs limits, the
resolution chosen too, and the exact frontier over all four resolutions.
MobileNetV3: the selections on three devices at 24 limits each, against an
enumeration of all 3,125 networks; the six optima that were found by hand;
and MathNAS Eq. 6 with exponent 1 over the blocks' multiply-accumulates, again
against enumeration. NAS-Bench-201: three limits on two devices, against
enumeration. ``REPAIRS`` names what is wrong in the tables and how it is read.
"""

import argparse
import csv
import itertools
import json
import math
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from nas_core.program import Budget, Objective, SelectionProblem, Status, Table, WhatIf, frontier
from nas_core.program.exact import exact
from nas_core.program.problem import Ragged
from nas_core.space.genotypes import Genotype, Rule
from tests.benchmarks.conditions import conditions
from tests.nas_core.program.oracle import brute_force

REPAIRS = {
    "supervit.entries": "entries are whole networks' totals; a block's gain is its entry minus its position's index 0",
    "supervit.base": "the index-0 network was measured nine times (78.26 to 78.31 at 192); its value is the first one",
    "supervit.resolutions": "the order 192, 224, 256, 288 is inferred: additive FLOPs match the published nets only so",
    "mobilenetv3.latency": "entries are absolute, in ms (the authors print them as s), and there is no base term",
    "mobilenetv3.accuracy": "entries are losses against the largest block; two of the GPU table are gains, and kept",
    "nasbench201.base": "the authors swap the devices' base latencies; 5,711 us is the edge GPU's, 899 us the FPGA's",
    "nasbench201.none": "loss 10.0 of 'none' is a placeholder, so the block is left out",
    "nasbench201.skip": "zeros of (3, skip_connect) are missing data, so the block is left out",
}
NUM_CHOICES = (2, 8, 36, 24, 24, 63, 24, 12, 2)  # SuperViT
RESOLUTIONS = (192, 224, 256, 288)
MOBILENET_BASE_ACCURACY = 79.23
LIMITS_PER_DEVICE = 24


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published SuperViT network: width of every position, and depth, kernel, expansion of positions 1 to 7."""

    resolution: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    limit_mflops: float


PUBLISHED = {
    "T1": Published(
        resolution=192,
        widths=(16, 16, 24, 32, 64, 112, 176, 208, 1792),
        depths=(1, 3, 3, 3, 3, 3, 3),
        kernels=(3,) * 7,
        expansions=(1, 4, 4, 6, 4, 6, 6),
        limit_mflops=200.0,
    ),
    "T2": Published(
        resolution=224,
        widths=(16, 16, 24, 40, 64, 112, 176, 208, 1792),
        depths=(1, 3, 4, 3, 4, 3, 3),
        kernels=(5, 3, 3, 3, 3, 3, 3),
        expansions=(1, 4, 4, 5, 4, 6, 6),
        limit_mflops=325.1,
    ),
    "T3": Published(
        resolution=256,
        widths=(24, 16, 24, 40, 64, 120, 184, 216, 1792),
        depths=(1, 3, 4, 3, 6, 6, 6),
        kernels=(5, 3, 3, 3, 3, 3, 3),
        expansions=(1, 5, 4, 5, 4, 6, 6),
        limit_mflops=668.0,
    ),
    "T4": Published(
        resolution=288,
        widths=(16, 16, 24, 32, 72, 120, 176, 216, 1792),
        depths=(1, 3, 6, 4, 8, 8, 5),
        kernels=(5, 3, 3, 3, 3, 3, 3),
        expansions=(1, 5, 4, 5, 5, 6, 6),
        limit_mflops=1101.0,
    ),
    "T5": Published(
        resolution=288,
        widths=(24, 24, 24, 40, 72, 128, 184, 216, 1792),
        depths=(2, 4, 6, 6, 8, 8, 5),
        kernels=(3,) * 7,
        expansions=(1, 5, 5, 4, 6, 6, 6),
        limit_mflops=1482.0,
    ),
}
# device -> its accuracy and block tables, and known (limit ms, top-1, network, latency ms)
MOBILENET = {
    "tx2gpu": (
        "gpu",
        [
            (40.0, 77.2623, (0, 0, 0, 2, 0), 38.3),
            (50.0, 78.4567, (3, 0, 2, 2, 1), 49.8),
            (60.0, 79.0128, (2, 2, 4, 4, 1), 58.7),
            (500.0, 79.2964, (3, 4, 4, 4, 3), 68.9),
        ],
    ),
    "tx2cpu": ("cpu", [(500.0, 78.5099, (2, 1, 2, 3, 3), None)]),
    "raspberrypi": ("cpu", [(1000.0, 77.6010, (1, 0, 0, 1, 3), None)]),
}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def entries(path: Path, column: str) -> Ragged:
    """[M][n_i] of a table with ``position`` and ``block_index``."""
    table: dict[int, dict[int, float]] = defaultdict(dict)
    for row in rows(path):
        table[int(row["position"])][int(row["block_index"])] = float(row[column])
    return tuple(tuple(table[p][c] for c in range(len(table[p]))) for p in range(len(table)))


def difference(value: float, base: float) -> float:
    """value - base without the noise of a float subtraction."""
    return float(exact(value) - exact(base))


# --- SuperViT


def supervit_problem(tables: Path) -> SelectionProblem:
    """Gains over each resolution's index-0 network, FLOPs in M, the resolution an outer choice."""
    accuracy, mflops = defaultdict(dict), defaultdict(dict)
    for row in rows(tables / "supervit_blockacc.csv"):
        key = int(row["resolution"]), int(row["position"])
        accuracy[key][int(row["block_index"])] = float(row["top1_pct_of_whole_network"])
    for row in rows(tables / "supervit_blockflops.csv"):
        key = int(row["resolution"]), int(row["position"])
        mflops[key][int(row["block_index"])] = float(row["MFLOPs_of_whole_network"])

    def changes(table: dict[tuple[int, int], dict[int, float]], resolution: int) -> Ragged:
        return tuple(
            tuple(difference(table[resolution, p][c], table[resolution, p][0]) for c in range(n))
            for p, n in enumerate(NUM_CHOICES)
        )

    return SelectionProblem(
        resolutions=tuple(
            Table(
                resolution=resolution,
                score=changes(accuracy, resolution),
                base_score=accuracy[resolution, 0][0],
                costs={"mflops": changes(mflops, resolution)},
                base_costs={"mflops": mflops[resolution, 0][0]},
            )
            for resolution in RESOLUTIONS
        )
    )


def published_genotype(tables: Path, network: Published) -> Genotype:
    """The published description as block indices, by the columns that describe the blocks."""
    found = {
        (int(r["position"]), r["width"], r["depth"], r["kernel_size"], r["expand_ratio_as_decoded"]): int(
            r["block_index"]
        )
        for r in rows(tables / "supervit_blockacc.csv")
    }
    choices = []
    for p, width in enumerate(network.widths):
        inner = 0 < p < len(network.widths) - 1
        shape = (network.depths[p - 1], network.kernels[p - 1], network.expansions[p - 1]) if inner else ("", "", "")
        choices.append(found[(p, str(width), *map(str, shape))])
    return Genotype(tuple(choices), network.resolution)


def supervit(tables: Path) -> dict[str, Any]:
    problem = supervit_problem(tables)
    expected = {name: published_genotype(tables, network) for name, network in PUBLISHED.items()}
    started = time.perf_counter()
    what_if = WhatIf(problem)
    answers = {
        name: what_if.select([Budget(resource="mflops", at_most=network.limit_mflops)])
        for name, network in PUBLISHED.items()
    }
    seconds = time.perf_counter() - started
    report: dict[str, Any] = {}
    for name, answer in answers.items():
        published = what_if.evaluate(expected[name])
        is_tie = answer.best.value == published.value and published.costs["mflops"] <= PUBLISHED[name].limit_mflops
        report[name] = answer.status is Status.OPTIMAL and (answer.best.genotype == expected[name] or is_tie)
    started = time.perf_counter()
    points = frontier(problem, "mflops")
    return {
        **report,
        "seconds": seconds,
        "values": {name: answer.best.value for name, answer in answers.items()},
        "selected": {name: str(answer.best.genotype) for name, answer in answers.items()},
        "frontier_points": len(points.points),
        "frontier_proven": points.status is Status.OPTIMAL,
        "frontier_seconds": time.perf_counter() - started,
    }


# --- MobileNetV3


def mobilenet_problem(tables: Path, device: str) -> SelectionProblem:
    """Negated losses over the largest network's 79.23 %, latency in ms."""
    losses = entries(tables / f"mobilenetv3_blockacc_{MOBILENET[device][0]}.csv", "top1_loss_pp")
    return SelectionProblem(
        score=tuple(tuple(-loss for loss in row) for row in losses),
        base_score=MOBILENET_BASE_ACCURACY,
        costs={
            "latency_ms": entries(tables / f"mobilenetv3_blocklat_{device}.csv", "latency_ms"),
            "macs_m": mobilenet_macs(tables, MOBILENET[device][0]),
        },
        base_costs={"macs_m": MOBILENET_FIXED_MACS / 1e6},
    )


# Of MobileNetV3-Large at 224: stage -> (input side, stride, input channels, output channels, squeeze-excitation).
STAGES = (
    (112, 2, 16, 24, False),
    (56, 2, 24, 40, True),
    (28, 2, 40, 80, False),
    (14, 1, 80, 112, True),
    (14, 2, 112, 160, True),
)
# Stem 3x3/2 to 16, the first depthwise block, the last 1x1 to 960, the two layers of the head.
MOBILENET_FIXED_MACS = 112 * 112 * 27 * 16 + 112 * 112 * (9 * 16 + 16 * 16) + 49 * 160 * 960 + 960 * 1280 + 1280 * 1000


def mobilenet_macs(tables: Path, kind: str) -> Ragged:
    """Millions of multiply-accumulates of every stage block, counted from its depth, kernels and expansions."""
    table = []
    for stage, shape in enumerate(STAGES):
        blocks = rows(tables / f"mobilenetv3_blocks{kind.upper()}_block{stage + 1}.csv")
        table.append(tuple(_stage_macs(shape, row) / 1e6 for row in blocks))
    return tuple(table)


def _stage_macs(shape: tuple[int, int, int, int, bool], row: dict[str, str]) -> int:
    side, stride, channels, out, squeeze = shape
    kernels = [int(k) for k in row["kernel_sizes_4slots"].split()]
    expansions = [int(e) for e in row["expand_ratios_4slots"].split()]
    total = 0
    for layer in range(int(row["depth"])):
        wide = _multiple_of_8(channels * expansions[layer])
        after = side // stride
        total += side * side * channels * wide + after * after * wide * (kernels[layer] ** 2 + out)
        if squeeze:
            total += 2 * wide * _multiple_of_8(wide / 4)
        side, stride, channels = after, 1, out
    return total


def _multiple_of_8(value: float) -> int:
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


class Enumeration:
    """All networks of a small one-resolution problem with their exact value and latency."""

    def __init__(self, problem: SelectionProblem, objective: Objective) -> None:
        table = problem.tables[0]
        self.networks = list(itertools.product(*map(range, problem.num_choices)))
        self.latency = [_sum(table.costs["latency_ms"], network) for network in self.networks]
        gains = [_sum(table.score, network) for network in self.networks]
        base = exact(table.base_score)
        if objective.is_additive:
            self.values = [base + gain for gain in gains]
        else:
            fixed, reference = exact(table.base_costs["macs_m"]), exact(float(objective.reference or 1.0))
            macs = [fixed + _sum(table.costs["macs_m"], network) for network in self.networks]
            self.values = [base + gain * reference / m for gain, m in zip(gains, macs, strict=True)]

    def best(self, limit_ms: float) -> tuple[Fraction, tuple[int, ...]] | None:
        """The best value within a latency limit and the first network that has it."""
        limit = exact(limit_ms)
        within = [i for i, latency in enumerate(self.latency) if latency <= limit]
        if not within:
            return None
        top = max(within, key=lambda i: (self.values[i], tuple(-c for c in self.networks[i])))
        return self.values[top], self.networks[top]


def _sum(table: Ragged, network: tuple[int, ...]) -> Fraction:
    return sum((exact(row[choice]) for row, choice in zip(table, network, strict=True)), Fraction(0))


def limits_of(problem: SelectionProblem, count: int) -> list[float]:
    """Limits from just below the fastest network's latency to just above the slowest's."""
    latency = problem.tables[0].costs["latency_ms"]
    low, high = math.fsum(map(min, latency)), math.fsum(map(max, latency))
    return [round(float(x), 2) for x in np.linspace(0.98 * low, 1.02 * high, count)]


def compare(problem: SelectionProblem, limits: list[float], objective: Objective) -> tuple[int, int]:
    """How many limits are answered as by enumeration, and at how many the network differs from the additive one."""
    solver, truth = WhatIf(replace(problem, objective=objective)), Enumeration(problem, objective)
    additive = truth if objective.is_additive else Enumeration(problem, Objective())
    matches = changed = 0
    for limit in limits:
        answer, expected = solver.select([Budget(resource="latency_ms", at_most=limit)]), truth.best(limit)
        if expected is None:
            matches += answer.status is Status.INFEASIBLE
            continue
        matches += answer.status is Status.OPTIMAL and answer.best.value == float(expected[0])
        if objective.is_additive:
            continue
        changed += expected[1] != additive.best(limit)[1]  # type: ignore[index]  # feasible under both
    return matches, changed


def mobilenetv3(tables: Path) -> dict[str, Any]:
    matches, known, fractional = 0, {}, {}
    for device, (_, optima) in MOBILENET.items():
        problem = mobilenet_problem(tables, device)
        matches += compare(problem, limits_of(problem, LIMITS_PER_DEVICE), Objective())[0]
        solver = WhatIf(problem)
        for limit, top1, network, latency in optima:
            best = solver.select([Budget(resource="latency_ms", at_most=limit)]).best
            known[f"{device} {limit:g} ms"] = (
                best.genotype.choices == network
                and round(best.value, 4) == top1
                and (latency is None or round(best.costs["latency_ms"], 1) == latency)
            )
        reference = _mean_macs(problem)
        objective = Objective(kind="fractional", resource="macs_m", reference=reference, exponent=1.0)
        equal, changed = compare(problem, limits_of(problem, 100), objective)
        fractional[device] = {"matches": equal, "of": 100, "optimum_changed_at": changed, "fbar_macs_m": reference}
    return {
        "matches": matches,
        "of": LIMITS_PER_DEVICE * len(MOBILENET),
        "known_optima": known,
        "fractional_exponent_1": fractional,
    }


# --- NAS-Bench-201

NASBENCH201_BASE = {"edgegpu": 5711.0, "fpga": 899.0}  # latency of the base network in microseconds
NASBENCH201_BASE_ACCURACY = 40.78
NASBENCH201_NONE, NASBENCH201_SKIP = 0, 1  # choices


def nasbench201_problem(tables: Path, device: str) -> SelectionProblem:
    losses = entries(tables / "nasbench201_blockacc.csv", "imagenet16_120_acc_loss_pp")
    savings = entries(tables / f"nasbench201_blocklat_{device}.csv", "latency_reduction_us")
    left_out = [(p, NASBENCH201_NONE) for p in range(len(losses))] + [(3, NASBENCH201_SKIP)]
    return SelectionProblem(
        score=tuple(tuple(-loss for loss in row) for row in losses),
        base_score=NASBENCH201_BASE_ACCURACY,
        costs={"latency_us": tuple(tuple(-saving for saving in row) for row in savings)},
        base_costs={"latency_us": NASBENCH201_BASE[device]},
        rules=tuple(Rule(kind="forbid", blocks=(block,)) for block in left_out),
    )


def nasbench201(tables: Path) -> dict[str, Any]:
    report = {}
    for device, base in NASBENCH201_BASE.items():
        solver = WhatIf(nasbench201_problem(tables, device))
        for share in (0.5, 0.75, 1.0):
            budgets = [Budget(resource="latency_us", at_most=share * base)]
            answer, expected = solver.select(budgets), brute_force(solver.problem.with_budgets(budgets))
            found = answer.best.value if answer.selections else None
            report[f"{device} {share:.0%}"] = {
                "matches": found == (expected[0].value if expected else None),
                "selected": str(answer.best.genotype) if answer.selections else None,
                "predicted_top1": found,
            }
    return report


def _mean_macs(problem: SelectionProblem) -> float:
    """Fbar: the mean over all networks, which is the sum of the positions' means."""
    table = problem.tables[0]
    return round(table.base_costs["macs_m"] + sum(sum(row) / len(row) for row in table.costs["macs_m"]), 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tables", type=Path, required=True, help="folder with the published tables as CSV")
    parser.add_argument("--json", action="store_true", help="print nothing but the object on the last line")
    args = parser.parse_args()
    report = {"supervit": supervit(args.tables), "mobilenetv3": mobilenetv3(args.tables)}
    report["nasbench201"] = nasbench201(args.tables)
    if not args.json:
        print(json.dumps(report, indent=2))
    print(json.dumps({**report, "repairs": REPAIRS, "conditions": conditions()}))


if __name__ == "__main__":
    main()
