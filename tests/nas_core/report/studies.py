"""Studies of any size with invented but plausible numbers, seeded, for tests of the report."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import kendalltau, spearmanr

from nas_core.records.evaluations import CostTable
from nas_core.report.summary import (
    BlockEffect,
    BlockEffects,
    CalibrationSummary,
    CurvePoint,
    DataSummary,
    EvaluatedNetwork,
    FrontierPoint,
    FrontierSummary,
    Limit,
    MeasuredWhole,
    OutputsTable,
    Provenance,
    ResourceAdditivity,
    Scatter,
    ScorerSummary,
    SelectedNetwork,
    SelectionSummary,
    Shown,
    StageCost,
    StudySummary,
    SweepSummary,
    TrainedNetwork,
    TrainingSummary,
    VerificationRound,
    VerificationSummary,
    WholeNetwork,
)
from nas_core.space.genotypes import BlockSpec, Genotype, Position, SearchSpace
from nas_core.study.outcome import Outcome
from nas_core.study.reasons import Price, Reasons, Swap
from nas_core.study.sweep import Point
from nas_core.workloads.classification import CLASSIFICATION
from nas_core.workloads.images.pictures import encoded_picture
from nas_core.workloads.segmentation import palette

Metric = Callable[[Genotype], float]
SMALL = (3,) * 8
RAGGED = tuple(3 + (5 * p) % 7 for p in range(20))
LARGE = (50,) * 100


def make_space(num_choices: Sequence[int], name: str = "invented") -> SearchSpace:
    """A family whose widths double and sizes halve at three places, identity first."""
    shapes = [(3, 3), (5, 6), (3, 6), (7, 6), (5, 3), (7, 3), (3, 4), (5, 4)]
    positions = []
    for position, count in enumerate(num_choices):
        stage = min(3 * position // len(num_choices), 2)
        first = position == 0 or stage != min(3 * (position - 1) // len(num_choices), 2)
        blocks = [BlockSpec.of("identity")]
        for index in range(count - 1):
            kernel, expansion = shapes[index % len(shapes)]
            blocks.append(BlockSpec.of("mbconv", kernel=kernel, expansion=expansion + 10 * (index // len(shapes))))
        positions.append(
            Position(name=f"p{position}", out_channels=64 * 2**stage, stride=2 if first else 1, blocks=tuple(blocks))
        )
    return SearchSpace(
        name=name,
        in_channels=3,
        resolutions=(32,),
        num_classes=10,
        stem=BlockSpec.of("conv", kernel=3, out_channels=32),
        head=BlockSpec.of("conv_pool_linear", width=1280),
        positions=tuple(positions),
    )


def make_costs(space: SearchSpace) -> tuple[CostTable, ...]:
    """Block prices that grow with kernel, expansion and width."""

    def price(scale: float, power: float) -> tuple[tuple[float, ...], ...]:
        rows = []
        for position in space.positions:
            rows.append(
                tuple(
                    float(round(scale * (p.out_channels / 64) ** power * (5 + p.kernel) * p.expansion, 3))
                    if (p := _Shape.of(position, block)).expansion
                    else 0.0
                    for block in position.blocks
                )
            )
        return tuple(rows)

    def table(resource: str, fixed: float, scale: float, power: float) -> CostTable:
        return CostTable(resource=resource, device="CPU", resolution=32, fixed=fixed, block=price(scale, power))

    return (
        table("flops", 6.1e6, 1.4e5, 0.2),
        table("params", 3.4e5, 1.5e3, 2.0),
        table("latency_ms", 0.35, 0.0061, 0.4),
    )


def _noise(genotype: Genotype) -> np.random.Generator:
    """Noise that depends on the network alone."""
    return np.random.default_rng(zlib.crc32(str(genotype).encode()))


class _Shape:
    def __init__(self, out_channels: int, kernel: int, expansion: int) -> None:
        self.out_channels, self.kernel, self.expansion = out_channels, kernel, expansion

    @classmethod
    def of(cls, position: Position, block: BlockSpec) -> "_Shape":
        params = dict(block.params)
        return cls(position.out_channels, int(params.get("kernel", 0)), int(params.get("expansion", 0)))


def invented_metric(space: SearchSpace, seed: int) -> Metric:
    """An accuracy that saturates in the sum of hidden block values."""
    rng = np.random.default_rng(seed)
    hidden = [np.concatenate([[0.0], rng.gamma(3, 0.25, count - 1)]) for count in space.num_choices]
    most = sum(float(row.max()) for row in hidden)

    def metric(genotype: Genotype) -> float:
        total = sum(float(row[choice]) for row, choice in zip(hidden, genotype.choices, strict=True))
        return float(0.92 - 0.35 * np.exp(-4 * total / most))

    return metric


def make_study(
    num_choices: Sequence[int] = SMALL, seed: int = 0, space: SearchSpace | None = None, metric: Metric | None = None
) -> StudySummary:
    """A complete study: every stage has run."""
    rng = np.random.default_rng(seed)
    space = space or make_space(num_choices)
    metric = metric or invented_metric(space, seed)
    base = Genotype(tuple(count - 1 for count in space.num_choices))
    tables = make_costs(space)
    effects = {
        (p, c): metric(base.swap(p, c)) - metric(base)
        for p, count in enumerate(space.num_choices)
        for c in range(count)
    }

    def predict(genotype: Genotype) -> float:
        fitted = genotype.distance(base) <= 1
        return metric(genotype) + (0.0 if fitted else 0.004 * float(_noise(genotype).normal()))

    def costs(genotype: Genotype) -> dict[str, float]:
        return {table.resource: table.total(genotype) for table in tables}

    limits = tuple(
        Limit(resource=r, at_most=share * costs(base)[r], text=f"{r}<={share:.0%}", device=d)
        for r, share, d in (("flops", 0.75, ""), ("latency_ms", 0.8, "CPU, 1 thread"))
    )

    def within(genotype: Genotype) -> bool:
        known = costs(genotype)
        return all(known[x.resource] <= x.at_most for x in limits)

    sampled = [space.sample(rng) for _ in range(400)]
    ordered = sorted({*sampled, *space.neighbours(base)[:200]}, key=predict, reverse=True)
    best = [g for g in ordered if within(g)][:6]
    winner = max(best[:4], key=metric)

    def row(genotype: Genotype, role: str) -> EvaluatedNetwork:
        value = predict(genotype)
        return EvaluatedNetwork(
            genotype=str(genotype),
            metric=metric(genotype),
            role=role,  # type: ignore[arg-type]
            predicted=value,
            low=value - 0.008,
            high=value + 0.008,
            costs=costs(genotype),
        )

    held_out = sampled[:16]
    networks = (
        row(base, "base"),
        *[row(g, "design") for g in space.neighbours(base)[:60]],
        *[row(g, "held-out") for g in held_out],
        *[row(g, "verification") for g in best[:4]],
    )
    selected = tuple(
        SelectedNetwork(
            genotype=str(g),
            predicted=predict(g),
            low=predict(g) - 0.008,
            high=predict(g) + 0.008,
            evaluated=metric(g),
            costs=costs(g),
        )
        for g in [winner, *[g for g in best if g != winner]][:3]
    )
    random = next((g for g in sampled if within(g) and g != winner), base)
    return StudySummary(
        name="invented-study",
        seed=seed,
        space=space,
        base=str(base),
        data=DataSummary(name="cifar10", num_train=49_000, num_validation=1_000, num_test=10_000),
        scorer=ScorerSummary(
            kind="supernet",
            metric=CLASSIFICATION["accuracy"].measure,
            split="validation",
            num_examples=1_000,
            seeds=(seed,),
            description="Each network borrows weights that were trained once for all of them.",
        ),
        device="2 CPU cores (x86-64)",
        provenance=Provenance(
            code_version="0.1.0",
            space_id=space.space_id,
            scorer_id="0a1b2c3d4e5f",
            profiler_id="5f4e3d2c1b0a",
            created="2026-11-20T10:15:00+00:00",
            versions={"python": "3.11.9", "torch": "2.13.0", "ortools": "9.15"},
            devices={"score": "2 CPU cores (x86-64)"},
            commands=("mathnas run study.yaml --root studies/invented-study",),
            tracking={"MLflow model": "models:/invented-study@champion"},
        ),
        stages=(
            StageCost(stage="score", wall_s=131, compute_s=240, num_evaluations=33, device="2 CPU cores"),
            StageCost(stage="profile", wall_s=14.2, compute_s=14.2, num_evaluations=25, device="1 CPU core"),
            StageCost(stage="select", wall_s=0.4, compute_s=0.5),
            StageCost(stage="verify", wall_s=9.1, compute_s=17, num_evaluations=4, num_reused=2, num_failed=1),
            StageCost(stage="train", wall_s=148, compute_s=290, num_evaluations=3, device="2 CPU cores"),
        ),
        networks=networks,
        num_evaluated=len(networks),
        num_failed=1,
        cost_tables=tables,
        base_costs={},
        block_effects=BlockEffects(
            base=str(base),
            link="identity",
            interval_level=0.9,
            effects=tuple(
                BlockEffect(
                    position=p,
                    choice=c,
                    effect=value,
                    low=value - (0.0 if c == base.choices[p] else 0.004),
                    high=value + (0.0 if c == base.choices[p] else 0.004),
                )
                for (p, c), value in effects.items()
            ),
        ),
        limits=limits,
        selection=SelectionSummary(
            status="optimal",
            sentence="Proven: no network within the limits has a better prediction.",
            networks=selected,
            bound=selected[0].predicted,
            gap=0.0,
            solve_s=0.021,
            route="CP-SAT 9.15, linear objective",
        ),
        outcome=Outcome(
            best_predicted=selected[0].genotype,
            predicted=selected[0].predicted,
            interval=(selected[0].low or 0.0, selected[0].high or 0.0),
            evaluated=selected[0].evaluated,
            proven=True,
            chosen=str(winner),
            chosen_evaluated=metric(winner),
            verified=True,
            why="The best predicted network is also the best of those evaluated.",
        ),
        calibration=CalibrationSummary(
            num_networks=len(held_out),
            kendall=float(kendalltau([predict(g) for g in held_out], [metric(g) for g in held_out]).statistic),
            spearman=float(spearmanr([predict(g) for g in held_out], [metric(g) for g in held_out]).statistic),
            coverage=0.875,
            interval_level=0.9,
            baseline_name="multiply-adds",
            baseline_kendall=0.55,
            sentence="The predictor orders unseen networks better than counting their multiply-adds.",
        ),
        verification=VerificationSummary(
            rounds=(
                VerificationRound(
                    index=1,
                    genotypes=tuple(map(str, best[:2])),
                    best_genotype=str(best[0]),
                    best_metric=metric(best[0]),
                    predicted_metric=predict(best[0]),
                    num_evaluations=70,
                ),
                VerificationRound(
                    index=2,
                    genotypes=tuple(map(str, best[2:4])),
                    best_genotype=str(winner),
                    best_metric=metric(winner),
                    predicted_metric=predict(best[2]),
                    num_evaluations=72,
                ),
            ),
            winner=str(winner),
            stands=True,
            sentence="The choice stood: the last round found no better network.",
        ),
        frontiers=tuple(_frontier(x.resource, ordered, predict, costs) for x in limits),
        reasons=_reasons(space, winner, predict, costs, limits),
        sweep=_sweep(ordered, base, predict, metric, costs),
        additivity=(_additivity(held_out[:12], costs, rng),),
        whole=(_whole(list(dict.fromkeys((winner, base))), costs),),
        training=TrainingSummary(
            networks=tuple(
                _trained(role, g, metric(g) + 0.02, costs(g), rng)
                for role, g in (("winner", winner), ("base", base), ("random", random))
            ),
            metric=CLASSIFICATION["accuracy"].measure,
            num_test_examples=10_000,
            recipe="30 epochs of SGD, cosine schedule, label smoothing 0.1, moving average of the weights.",
            device="2 CPU cores",
        ),
    )


def _frontier(
    resource: str,
    ordered: Sequence[Genotype],
    predict: Metric,
    costs: Callable[[Genotype], dict[str, float]],
) -> FrontierSummary:
    points, best = [], -np.inf
    for genotype in sorted(ordered, key=lambda g: costs(g)[resource]):
        if predict(genotype) > best:
            best = predict(genotype)
            cost = costs(genotype)[resource]
            points.append(FrontierPoint(cost=cost, predicted=best, genotype=str(genotype)))
    return FrontierSummary(resource=resource, points=tuple(points))


def _reasons(
    space: SearchSpace,
    winner: Genotype,
    predict: Metric,
    costs: Callable[[Genotype], dict[str, float]],
    limits: Sequence[Limit],
) -> Reasons:
    """What every other block of the winner would change; prices that grow with the step."""
    mine, resources = costs(winner), tuple(limit.resource for limit in limits)
    swaps = []
    for p, count in enumerate(space.num_choices):
        for c in range(count):
            if c == winner.choices[p]:
                continue
            other = winner.swap(p, c)
            known = costs(other)
            swaps.append(
                Swap(
                    position=p,
                    choice=c,
                    change=predict(other) - predict(winner),
                    costs={name: known[name] - mine[name] for name in resources},
                    breaks=tuple(limit.text for limit in limits if not limit.is_kept_by(known[limit.resource])),
                )
            )
    prices = tuple(
        Price(
            resource=limit.resource,
            at_most=limit.at_most or 0.0,
            by=share * (limit.at_most or 0.0),
            predicted=predict(winner) + share / 20,
            gain=share / 20,
            genotype=str(winner),
            proven=True,
        )
        for limit in limits
        for share in (0.01, 0.1)
    )
    return Reasons(
        genotype=str(winner), predicted=predict(winner), resources=resources, swaps=tuple(swaps), prices=prices
    )


def _sweep(
    ordered: Sequence[Genotype],
    base: Genotype,
    predict: Metric,
    metric: Metric,
    costs: Callable[[Genotype], dict[str, float]],
) -> SweepSummary:
    """Eight limits on latency from 30 % of the base's; half of the points are trained."""
    whole = costs(base)["latency_ms"]

    def point(limit: str, at_most: float, genotype: Genotype | None, trained: bool) -> Point:
        if genotype is None:
            return Point(limit=limit, at_most=at_most, recovered=False, note="The least attainable is more.")
        summed, value = costs(genotype)["latency_ms"], predict(genotype)
        return Point(
            limit=limit,
            at_most=at_most,
            recovered=trained,
            genotype=str(genotype),
            predicted=value,
            low=value - 0.008,
            high=value + 0.008,
            proven=trained,
            evaluated=metric(genotype),
            summed=summed,
            measured=0.95 * summed,
            test=metric(genotype) + 0.02 if trained else None,
        )

    points = []
    for index, share in enumerate((30, 40, 50, 60, 70, 80, 90, 100)):
        at_most = share / 100 * whole
        within = [genotype for genotype in ordered if costs(genotype)["latency_ms"] <= at_most]
        points.append(point(f"latency_ms<={share}%", at_most, within[0] if within else None, index % 2 == 1))
    text = "latency_ms=30%..100%"
    return SweepSummary(resource="latency_ms", text=text, points=tuple(points), base=point("", whole, base, True))


def _additivity(
    genotypes: Sequence[Genotype], costs: Callable[[Genotype], dict[str, float]], rng: np.random.Generator
) -> ResourceAdditivity:
    return ResourceAdditivity(
        resource="latency_ms",
        unit="ms",
        pairs=tuple(_measured(g, costs(g)["latency_ms"], float(rng.normal(0.95, 0.03))) for g in genotypes),
        r2=0.981,
        kendall=0.91,
        worst_relative_error=0.083,
        correction="measured = 0.950 x sum + 0.010 ms",
        is_corrected=True,
        **_CONDITIONS,  # type: ignore[arg-type]
    )


_CONDITIONS = {"device": "CPU (x86-64)", "batch_size": 1, "num_threads": 1, "num_repeats": 30}


def _measured(genotype: Genotype, summed: float, share: float) -> WholeNetwork:
    return WholeNetwork(genotype=str(genotype), summed=summed, measured=summed * share, spread=0.04)


def _whole(genotypes: Sequence[Genotype], costs: Callable[[Genotype], dict[str, float]]) -> MeasuredWhole:
    networks = tuple(_measured(g, costs(g)["latency_ms"], 0.95) for g in genotypes)
    return MeasuredWhole(resource="latency_ms", networks=networks, **_CONDITIONS)  # type: ignore[arg-type]


def _trained(
    role: str, genotype: Genotype, accuracy: float, costs: dict[str, float], rng: np.random.Generator
) -> TrainedNetwork:
    epochs = range(1, 31)
    curve = tuple(
        CurvePoint(
            epoch=float(e),
            train_loss=float(0.5 + 1.8 * np.exp(-e / 6) + rng.normal(0, 0.01)),
            validation=float(accuracy - 0.5 * np.exp(-e / 5) + rng.normal(0, 0.003)),
        )
        for e in epochs
    )
    return TrainedNetwork(
        role=role,  # type: ignore[arg-type]
        genotype=str(genotype),
        test=accuracy,
        validation=accuracy + 0.003,
        costs=costs,
        curve=curve,
        wall_s=49.0,
        seed=0,
        num_epochs=30,
        examples_per_s=2000.0,
        confusion=_confusion(accuracy, rng),
        outputs=OutputsTable(head=("class", "share"), rows=(("sky", "60 %"), ("sea", "40 %"))),
        scatter=tuple(_scatter(name, rng) for name in ("price", "width")),
        shown=tuple(Shown(words=f"{n} % are right\nor so", pictures=_pictures(n)) for n in range(5)),
    )


def _scatter(name: str, rng: np.random.Generator) -> Scatter:
    true = rng.normal(size=50)
    return Scatter(name=name, true=tuple(true), predicted=tuple(true + rng.normal(0, 0.2, 50)))


def _pictures(seed: int) -> tuple[tuple[str, str], ...]:
    values = np.random.default_rng(seed).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    mask = encoded_picture(values[:1] % 3, palette())
    return (("input", encoded_picture(values)), ("mask", mask), ("output", mask))


def _confusion(accuracy: float, rng: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    """Ten classes of a thousand test examples each."""
    wrong = rng.dirichlet(np.ones(10), size=10) * (1 - accuracy)
    shares = accuracy * np.eye(10) + wrong
    return tuple(tuple(map(int, rng.multinomial(1000, row / row.sum()))) for row in shares)


def not_run(study: StudySummary) -> StudySummary:
    """The study before anything was evaluated."""
    return replace(
        study,
        stages=(),
        networks=(),
        num_evaluated=0,
        num_failed=0,
        cost_tables=(),
        block_effects=None,
        selection=None,
        outcome=None,
        calibration=None,
        verification=None,
        frontiers=(),
        reasons=None,
        sweep=None,
        additivity=(),
        whole=(),
        training=None,
    )
