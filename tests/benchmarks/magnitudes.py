"""Random problems with masks and mixed magnitudes: answers against enumeration, proofs against the checker.

``python -m tests.benchmarks.magnitudes --problems 20000 --json``

Every kind of objective, limits (also exactly attained and two-sided), rules, forbidden networks, pair terms,
resolutions. Scores and costs are integers, short or long decimals, or of any size from 1e-9 to 1e15; in every second
problem some blocks are masked: scores of -1e6 to -1e99, costs of 1e6 to 1e99.
``wrong``: an answer called optimal or infeasible that is not, or a bound below the best network.
``uncertified``: answers without a certificate that passes the checker (``unproven`` ones among them).
"""

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from nas_core.program import Budget, Objective, SelectionProblem, Status, Table, certify, solve
from nas_core.program.checker import check_certificate
from nas_core.program.exact_table import UnprovenError, exactly, power
from nas_core.space.genotypes import Genotype, Rule
from tests.benchmarks.conditions import conditions

KINDS = ("additive", "additive", "fractional", "dinkelbach", "ratio", "pairs", "pairs-ratio")
STYLES = ("integer", "decimal", "float", "tiny", "huge", "mixed")
LABELS = (160, 192, 224)


def random_problem(seed: int) -> SelectionProblem:
    """A problem of at most 4 positions and 5 choices."""
    rng = np.random.default_rng([seed, 20_261_126])
    kind = KINDS[seed % len(KINDS)]
    counts = tuple(int(n) for n in rng.integers(1, 6, rng.integers(1, 5)))
    resources = ["a", "b", "c"][: int(rng.integers(0 if kind in ("additive", "pairs") else 1, 4))]
    is_masked = bool(rng.random() < 0.5)
    labels = list(LABELS[: int(rng.integers(2, 4))]) if rng.random() < 0.15 else [None]
    tables = [_table(rng, counts, resources, is_masked, kind, label) for label in labels]
    first = tables[0]
    shape: dict[str, Any] = (
        {"resolutions": tuple(tables)}
        if labels != [None]
        else {
            "score": first.score,
            "costs": first.costs,
            "base_score": first.base_score,
            "base_costs": first.base_costs,
        }
    )
    return SelectionProblem(
        **shape,
        budgets=tuple(_budget(rng, tables, name) for name in resources if rng.random() < 0.8),
        rules=tuple(_rule(rng, counts) for _ in range(rng.integers(1, 4))) if rng.random() < 0.35 else (),
        objective=_objective(rng, kind, resources),
        forbidden=tuple(Genotype(tuple(int(rng.integers(n)) for n in counts)) for _ in range(rng.integers(0, 3))),
        pairs=_pairs(rng, counts, is_masked) if kind.startswith("pairs") else {},
    )


def _numbers(rng: np.random.Generator, counts: tuple[int, ...], low: float) -> list[list[float]]:
    style = rng.choice(STYLES)
    rows = []
    for n in counts:
        x = rng.uniform(low, 1.0, n)
        match style:
            case "integer":
                x = np.rint(x * 1000)
            case "decimal":
                x = np.round(x, 3)
            case "tiny":
                x = np.round(x, 2) * 1e-9
            case "huge":
                x = np.rint(x * 1e15)
            case "mixed":
                x = np.array([float(f"{v:.3g}") for v in x * 10.0 ** rng.integers(-9, 16, n)])
        rows.append(x.tolist())
    return rows


def _masked(rng: np.random.Generator, rows: list[list[float]], sign: int) -> list[list[float]]:
    size = sign * 10.0 ** int(rng.choice([6, 9, 10, 12, 15, 18, 30, 60, 99]))
    return [[size if rng.random() < 0.15 else x for x in row] for row in rows]


def _table(
    rng: np.random.Generator,
    counts: tuple[int, ...],
    resources: list[str],
    is_masked: bool,
    kind: str,
    label: int | None,
) -> Table:
    score = _numbers(rng, counts, -1.0 if rng.random() < 0.5 else 0.0)
    costs = {}
    for name in resources:
        divides = kind not in ("additive", "pairs")
        costs[name] = _numbers(rng, counts, 0.0 if divides or rng.random() < 0.8 else -1.0)
        if is_masked and rng.random() < 0.5:
            costs[name] = _masked(rng, costs[name], 1)
    if is_masked:
        score = _masked(rng, score, -1)
    return Table(
        score=tuple(map(tuple, score)),
        costs={name: tuple(map(tuple, rows)) for name, rows in costs.items()},
        base_score=float(np.round(rng.uniform(-1, 3), 2)) if rng.random() < 0.5 else 0.0,
        base_costs={name: float(np.round(rng.uniform(0.1, 2), 3)) for name in resources},
        resolution=label,
    )


def _budget(rng: np.random.Generator, tables: list[Table], name: str) -> Budget:
    table = tables[int(rng.integers(len(tables)))]
    rows, base = table.costs[name], table.base_costs[name]
    attained = float(sum((exactly(row[rng.integers(len(row))]) for row in rows), exactly(base)))
    usual = [sorted(row)[len(row) // 2] for row in rows]
    middle = float(sum(map(exactly, usual), exactly(base)))
    match rng.integers(6):
        case 0:
            return Budget(resource=name, at_most=attained, at_least=attained)
        case 1:
            return Budget(resource=name, at_least=min(attained, middle))
        case 2:
            return Budget(resource=name, at_most=max(attained, middle), at_least=min(attained, middle))
        case 3:
            return Budget(resource=name, at_most=attained)
    return Budget(resource=name, at_most=float(f"{middle * rng.uniform(0.7, 1.3):.6g}"))


def _rule(rng: np.random.Generator, counts: tuple[int, ...]) -> Rule:
    kind = str(rng.choice(["forbid", "require", "implies", "at_most", "equal"]))
    if kind == "equal":
        return Rule(kind="equal", positions=tuple(int(p) for p in rng.integers(0, len(counts), 2)))
    blocks = []
    for _ in range(rng.integers(1, 4)):
        p = int(rng.integers(len(counts)))
        blocks.append((p, int(rng.integers(counts[p]))))
    return Rule(kind=kind, blocks=tuple(blocks), count=int(rng.integers(0, 3)))  # type: ignore[arg-type]


def _objective(rng: np.random.Generator, kind: str, resources: list[str]) -> Objective:
    match kind:
        case "fractional":
            exponent = float(rng.choice([0.3, 0.5, 0.9]))
            return Objective(kind="fractional", resource=resources[0], reference=3.7, exponent=exponent)
        case "dinkelbach":
            return Objective(kind="fractional", resource=resources[-1], reference=2.5, exponent=1.0)
        case "ratio" | "pairs-ratio":
            return Objective(kind="ratio", resource=resources[0])
    return Objective()


def _pairs(rng: np.random.Generator, counts: tuple[int, ...], is_masked: bool) -> dict[Any, float]:
    pairs = {}
    for _ in range(int(rng.integers(1, 12))):
        p, q = (int(x) for x in rng.integers(0, len(counts), 2))
        if p != q:
            value = float(np.round(rng.uniform(-1, 1), 3))
            if is_masked and rng.random() < 0.2:
                value = -(10.0 ** int(rng.choice([6, 12, 15, 30])))
            pairs[(p, int(rng.integers(counts[p]))), (q, int(rng.integers(counts[q])))] = value
    return pairs


def networks(problem: SelectionProblem) -> Iterator[tuple[Fraction, Genotype]]:
    """Every allowed network with its value, all sums in whole numbers of one unit."""
    objective = problem.objective
    for table in problem.tables:
        names = list(table.costs)
        rows = {None: table.score, **{name: table.costs[name] for name in names}}
        numbers = {key: [[exactly(x) for x in row] for row in mine] for key, mine in rows.items()}
        units = {key: math.lcm(*(x.denominator for row in mine for x in row)) for key, mine in numbers.items()}
        whole = {key: [[int(x * units[key]) for x in row] for row in mine] for key, mine in numbers.items()}
        base = {name: exactly(table.base_costs.get(name, 0.0)) for name in names}
        pairs = [(a, b, exactly(value)) for (a, b), value in problem.pairs.items()]
        for choices in itertools.product(*map(range, table.num_choices)):
            totals = {
                name: base[name] + Fraction(sum(r[c] for r, c in zip(whole[name], choices, strict=True)), units[name])
                for name in names
            }
            if not _is_allowed(problem, table, choices, totals):
                continue
            gain = Fraction(sum(r[c] for r, c in zip(whole[None], choices, strict=True)), units[None])
            gain += sum((v for (p, c), (q, d), v in pairs if choices[p] == c and choices[q] == d), Fraction(0))
            score = exactly(table.base_score)
            if objective.kind == "ratio":
                value = (score + gain) / totals[str(objective.resource)]
            elif objective.kind == "fractional":
                share = exactly(float(objective.reference or 1)) / totals[str(objective.resource)]
                value = score + gain * power(share, exactly(objective.exponent))
            else:
                value = score + gain
            yield value, Genotype(choices, table.resolution)


def _is_allowed(problem: SelectionProblem, table: Table, choices: tuple[int, ...], totals: dict[str, Fraction]) -> bool:
    for budget in problem.budgets:
        total = totals[budget.resource]
        if budget.at_most is not None and total > exactly(float(budget.at_most)):
            return False
        if budget.at_least is not None and total < exactly(float(budget.at_least)):
            return False
    if not all(rule.allows(choices) for rule in problem.rules):
        return False
    return all(choices != g.choices or g.resolution not in (None, table.resolution) for g in problem.forbidden)


def judge(problem: SelectionProblem) -> tuple[str, str]:
    """("right", "wrong" or "unproven", "certified" or "uncertified") of the answer to one problem."""
    result = solve(problem, time_limit_s=20.0)
    found = {genotype: value for value, genotype in networks(problem)}
    best = max(found.values(), default=None)
    if result.status is Status.INFEASIBLE:
        verdict = "right" if best is None else "wrong"
    elif not result.selections:
        verdict = "unproven"
    elif result.best.genotype not in found or best is None:
        verdict = "wrong"
    elif result.status is Status.OPTIMAL:
        verdict = "right" if found[result.best.genotype] == best else "wrong"
    else:
        verdict = "unproven" if Fraction(result.bound) >= best else "wrong"
    try:
        data = json.loads(json.dumps(certify(problem, result, time_limit_s=60.0)))
        check_certificate(data)
    except UnprovenError:
        return verdict, "uncertified"
    return verdict, "certified" if data["certified"] else "uncertified"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--problems", type=int, default=2_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first problem")
    parser.add_argument("--json", action="store_true", help="print nothing but the object on the last line")
    args = parser.parse_args()
    started, counts = time.process_time(), dict.fromkeys(("wrong", "unproven", "uncertified"), 0)
    for seed in range(args.first, args.first + args.problems):
        verdict, proof = judge(random_problem(seed))
        for word in (verdict, proof):
            if word in counts:
                counts[word] += 1
                print(f"problem {seed}: {word}", file=sys.stderr, flush=True)
    report = {"tried": args.problems, **counts, "cpu_s": round(time.process_time() - started, 1)}
    print(json.dumps({**report, "conditions": conditions(first=args.first)}))


if __name__ == "__main__":
    main()
