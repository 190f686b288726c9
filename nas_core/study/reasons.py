"""Why a study's network has the blocks that it has: what others would change, and what more of a limit would buy.

What others would change is predicted, one swap at a time. What a limit costs is
the difference of two exact answers of the program: at the limit, and a little above it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas_core.program import Budget, SelectionResult, Status, solve
from nas_core.space.genotypes import Genotype
from nas_core.study.snapshot import Snapshot

STEPS = (0.01, 0.1)  # shares of a limit that it is raised by, beside one unit
PRICE_TIME_LIMIT_S = 5.0
RULES = "the family's rules"


@dataclass(frozen=True, kw_only=True)
class Swap:
    """Another block at one position of the chosen network, all else as it is.

    ``change`` is of the predicted metric, turned so that positive is better;
    ``costs`` are changes by resource. ``breaks`` names the limits that the network would break.
    """

    position: int
    choice: int
    change: float
    costs: Mapping[str, float]
    breaks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Price:
    """What raising one limit would buy, all others as they are.

    ``by`` is in the resource's unit; ``gain`` is of the best predicted metric, turned so that positive is better.
    """

    resource: str
    at_most: float
    by: float
    predicted: float
    gain: float
    genotype: str
    proven: bool


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """The chosen network's swaps by position and choice, and the prices of its limits."""

    genotype: str
    predicted: float
    resources: tuple[str, ...]  # that ``costs`` are of: the limited ones first
    swaps: tuple[Swap, ...]
    prices: tuple[Price, ...]


def reasons(known: Snapshot, chosen: Genotype) -> Reasons:
    """Why ``chosen``: its swaps, and the prices of the study's limits.

    Raises:
        NasError: where nothing is predicted or priced yet.
    """
    limited = dict.fromkeys(budget.resource for budget in known.limits)
    resources = tuple(limited or dict.fromkeys(list(known.profiler_ids)[:1]))
    (prediction,) = known.predictor.predict([chosen])
    return Reasons(
        genotype=str(chosen),
        predicted=prediction.metric,
        resources=resources,
        swaps=_swaps(known, chosen, prediction.metric, resources),
        prices=_prices(known),
    )


def _swaps(known: Snapshot, chosen: Genotype, predicted: float, resources: Sequence[str]) -> tuple[Swap, ...]:
    places = [
        (position, choice)
        for position, count in enumerate(known.space.num_choices)
        for choice in range(count)
        if choice != chosen.choices[position]
    ]
    if not places:
        return ()
    networks = [chosen.swap(*place) for place in places]
    metrics = known.predictor.predict(networks)
    sign, tables = known.predictor.table.sign, known.cost_tables[chosen.resolution]
    codes_NP = np.array([network.choices for network in (chosen, *networks)])
    total_N = {name: tables[name].totals(codes_NP) for name in resources}
    found = []
    for index, (place, network, metric) in enumerate(zip(places, networks, metrics, strict=True), start=1):
        costs = {name: float(totals[index]) for name, totals in total_N.items()}
        broken = [text for text, budget in zip(known.config.select.limits, known.limits, strict=True)
                  if not budget.is_kept_by(costs[budget.resource])]  # fmt: skip
        found.append(
            Swap(
                position=place[0],
                choice=place[1],
                change=sign * (metric.metric - predicted),
                costs={name: cost - float(total_N[name][0]) for name, cost in costs.items()},
                breaks=(*broken, *(() if known.space.allows(network) else (RULES,))),
            )
        )
    return tuple(found)


def _prices(known: Snapshot) -> tuple[Price, ...]:
    """For each upper limit what 1 %, one unit and 10 % more of it would buy."""
    at_limits = _solved(known, known.limits)
    if not at_limits.selections:
        return ()
    predictor = known.predictor
    now = predictor.to_metric(at_limits.best.value)
    found = []
    for index, budget in enumerate(known.limits):
        for by in _steps(budget):
            assert budget.at_most is not None, "only upper limits are raised"
            raised = replace(budget, at_most=budget.at_most + by)
            answer = _solved(known, (*known.limits[:index], raised, *known.limits[index + 1 :]))
            if not answer.selections:
                continue
            then = predictor.to_metric(answer.best.value)
            found.append(
                Price(
                    resource=budget.resource,
                    at_most=budget.at_most,
                    by=by,
                    predicted=then,
                    gain=predictor.table.sign * (then - now),
                    genotype=str(answer.best.genotype),
                    proven=answer.status is at_limits.status is Status.OPTIMAL,
                )
            )
    return tuple(found)


def _steps(budget: Budget) -> list[float]:
    """Amounts that an upper limit is raised by: shares of it, and one unit, the largest power of ten below a tenth."""
    if not budget.at_most or budget.at_most < 0:
        return []
    unit = 10.0 ** math.floor(math.log10(budget.at_most / 10))
    return sorted({unit, *(share * budget.at_most for share in STEPS)})


def _solved(known: Snapshot, budgets: tuple[Budget, ...]) -> SelectionResult:
    return solve(known.problem(budgets), time_limit_s=PRICE_TIME_LIMIT_S)
