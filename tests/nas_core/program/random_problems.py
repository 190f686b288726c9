"""Random small problems of every kind, for comparison with the oracle."""

import numpy as np

from nas_core.program import Budget, Objective, SelectionProblem, Table
from nas_core.space.genotypes import BlockId, Genotype, Rule

KINDS = ("additive", "fractional", "dinkelbach", "ratio", "pairs", "pairs-ratio")


def random_problem(seed: int, kind: str) -> SelectionProblem:
    """A problem of at most 5 positions and 5 choices; every optional part is there with some probability."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    num_choices = tuple(int(n) for n in rng.integers(1, 6, rng.integers(1, 6)))
    style = rng.choice(["integer", "coarse", "decimal", "float"])
    resources = ["a", "b", "c"][: int(rng.integers(0 if kind in ("additive", "pairs") else 1, 4))]
    sizes = [int(r) for r in rng.choice([128, 160, 192, 224], int(rng.integers(2, 4)), replace=False)]
    labels: list[int | None] = [*sizes] if rng.random() < 0.25 else [None]
    tables = [_table(rng, num_choices, style, resources, label) for label in labels]
    shape = (
        {"resolutions": tuple(tables)}
        if labels != [None]
        else {
            "score": tables[0].score,
            "costs": tables[0].costs,
            "base_score": tables[0].base_score,
            "base_costs": tables[0].base_costs,
        }
    )
    return SelectionProblem(
        **shape,
        budgets=tuple(_budget(rng, tables, name) for name in resources if rng.random() < 0.7),
        rules=tuple(_rule(rng, num_choices) for _ in range(rng.integers(0, 4) if rng.random() < 0.5 else 0)),
        objective=_objective(rng, kind, resources),
        forbidden=tuple(_genotype(rng, num_choices, labels) for _ in range(rng.integers(0, 4))),
        pairs=_pairs(rng, num_choices) if kind.startswith("pairs") else {},
    )


def _numbers(rng: np.random.Generator, num_choices: tuple[int, ...], style: str, low: float, high: float):
    rows = [rng.uniform(low, high, n) for n in num_choices]
    match style:
        case "integer":
            rows = [np.rint(row * 1000) for row in rows]
        case "coarse":
            rows = [np.rint(row * 3) for row in rows]
        case "decimal":
            rows = [np.round(row, 2) for row in rows]
    return tuple(tuple(float(x) for x in row) for row in rows)


def _table(rng, num_choices, style, resources, label) -> Table:
    low = -1.0 if rng.random() < 0.5 else 0.0
    return Table(
        score=_numbers(rng, num_choices, style, low, 1.0),
        costs={name: _numbers(rng, num_choices, style, 0.0, 2.0) for name in resources},
        base_score=float(np.round(rng.uniform(-1, 3), 2)),
        base_costs={name: float(np.round(rng.uniform(0.1, 2), 3)) for name in resources},
        resolution=label,
    )


def _budget(rng, tables, name) -> Budget:
    table = tables[int(rng.integers(len(tables)))]
    low = sum(min(row) for row in table.costs[name]) + table.base_costs[name]
    high = sum(max(row) for row in table.costs[name]) + table.base_costs[name]
    a, b = sorted(low + (high - low) * rng.uniform(-0.1, 1.1, 2))
    match rng.integers(4):
        case 0:
            return Budget(resource=name, at_least=float(a))
        case 1:
            return Budget(resource=name, at_most=float(b), at_least=float(a))
        case _:
            return Budget(resource=name, at_most=float(np.round(b, 2)))


def _block(rng, num_choices) -> BlockId:
    position = int(rng.integers(len(num_choices)))
    return position, int(rng.integers(num_choices[position]))


def _rule(rng, num_choices) -> Rule:
    kind = str(rng.choice(["forbid", "require", "implies", "at_most", "equal"]))
    if kind == "equal":
        positions = tuple(int(p) for p in rng.integers(0, len(num_choices), 2))
        return Rule(kind="equal", positions=positions)
    blocks = tuple(_block(rng, num_choices) for _ in range(rng.integers(1, 4)))
    return Rule(kind=kind, blocks=blocks, count=int(rng.integers(0, 3)))  # type: ignore[arg-type]


def _objective(rng, kind, resources) -> Objective:
    match kind:
        case "fractional":
            exponent = float(rng.choice([0.3, 0.5, 0.9, 0.0, 0.25]))
            return Objective(kind="fractional", resource=resources[0], reference=3.7, exponent=exponent)
        case "dinkelbach":
            return Objective(kind="fractional", resource=resources[-1], reference=2.5, exponent=1.0)
        case "ratio" | "pairs-ratio":
            return Objective(kind="ratio", resource=resources[0])
        case _:
            return Objective()


def _genotype(rng, num_choices, labels) -> Genotype:
    resolution = None if rng.random() < 0.5 else labels[int(rng.integers(len(labels)))]
    return Genotype(tuple(int(rng.integers(n)) for n in num_choices), resolution)


def _pairs(rng, num_choices) -> dict[tuple[BlockId, BlockId], float]:
    pairs = {}
    for _ in range(int(rng.integers(1, 20))):
        first, second = _block(rng, num_choices), _block(rng, num_choices)
        if first[0] != second[0]:
            pairs[first, second] = float(np.round(rng.uniform(-1, 1), 3))
    return pairs
