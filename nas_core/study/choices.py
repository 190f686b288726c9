"""A selection as a person reads it, and the limits as the program takes them."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nas_core.base.errors import ConfigError, InfeasibleError, NasError
from nas_core.prediction import Predictor
from nas_core.program import Budget, SelectionResult, Status
from nas_core.records.evaluations import CostTable
from nas_core.records.resources import combine_of
from nas_core.space.genotypes import Genotype

ALIKE = 1e-9  # share of its size by which a predicted metric differs in nothing but arithmetic
FEW_HELD_OUT = 8  # networks below which nobody can say how far predictions are to be trusted


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A selected network as a person reads it: its predicted metric with interval, its costs."""

    genotype: str
    predicted: float
    interval: tuple[float, float]
    costs: dict[str, float]
    evaluated: float | None = None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a study's chosen network stands in a selection, which ranks by prediction.

    ``rank`` counts from 1; None where it is not among the networks listed.
    """

    genotype: str
    rank: int | None
    within: bool
    predicted: float
    interval: tuple[float, float]
    evaluated: float | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a selection says: networks best first by their prediction, and what is proven.

    ``cautions`` are what has to be known of the predictor, ``winner`` is where
    the study's chosen network stands. ``bound`` is in the metric's unit: no
    network within the limits has a better prediction. ``gap`` is how far the
    worst proven part is from it, in the program's unit; 0 is proven optimal.
    """

    status: str
    message: str
    bound: float | None
    gap: float | None
    solve_s: float
    route: str
    limits: tuple[str, ...]
    selections: tuple[Choice, ...]
    explanation: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    winner: Standing | None = None

    def as_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # tuples to lists, as a reader of the JSON sees it
        return data

    def required(self) -> Choice:
        """The first selection.

        Raises:
            InfeasibleError: if there is none, with what is attainable.
        """
        if self.selections:
            return self.selections[0]
        raise without_network(self.status, self.limits, (self.explanation or {}).get("text", ""))


def answer_of(
    predictor: Predictor,
    result: SelectionResult,
    limits: tuple[str, ...],
    costs_of: Callable[[Genotype], dict[str, float]],
    measured: Mapping[str, float | None],
    cautions: tuple[str, ...] = (),
) -> Answer:
    """The program's result in words: ``measured`` holds the metric of the networks that were evaluated."""
    found = result.status in (Status.OPTIMAL, Status.FEASIBLE)
    genotypes = [selection.genotype for selection in result.selections]
    return Answer(
        status=result.status.name.lower(),
        message=result.message,
        bound=bound_of(predictor, result) if found else None,
        gap=result.gap if found and abs(result.gap) < float("inf") else None,
        solve_s=result.solve_s,
        route=result.route,
        limits=limits,
        selections=tuple(
            Choice(
                genotype=str(genotype),
                predicted=prediction.metric,
                interval=(prediction.low, prediction.high),
                costs=costs_of(genotype),
                evaluated=measured.get(str(genotype)),
            )
            for genotype, prediction in zip(genotypes, predictor.predict(genotypes), strict=True)
        ),
        explanation=result.explanation.as_dict() if result.explanation else None,
        notes=result.notes,
        cautions=(*_unseen(predictor, genotypes[:1]), *cautions),
    )


def _unseen(predictor: Predictor, best: Sequence[Genotype]) -> tuple[str, ...]:
    """A sentence where the best one holds blocks that the predictor has seen in no network."""
    seen = {block for genotype in predictor.table.genotypes for block in enumerate(genotype.choices)}
    unseen = [block for genotype in best for block in enumerate(genotype.choices) if block not in seen]
    if not unseen:
        return ()
    named = ", ".join(f"{choice} at position {position}" for position, choice in unseen)
    return (f"No evaluated network holds these blocks of the best one: {named}; what they do is a guess.",)


def cautions_of(predictor: Predictor, num_held_out: int) -> tuple[str, ...]:
    """What has to be said beside whatever this predictor calls best; nothing where it can be trusted so far."""
    found = []
    metric_N, _, _ = predictor.predict_codes(predictor.encoding.encode(predictor.table.genotypes))
    if np.ptp(metric_N) <= ALIKE * np.abs(metric_N).max():
        found.append("The predictor tells no networks apart: all of them are predicted alike.")
    elif predictor.chosen.score < 0:
        found.append(
            f"The predictor does worse than guessing the mean on networks left out of its fit "
            f"(R² {predictor.chosen.score:.2f}), so its best is little more than a guess."
        )
    if num_held_out < FEW_HELD_OUT:
        count = f"Only {num_held_out}" if num_held_out else "No"
        were = "networks were" if num_held_out != 1 else "network was"
        found.append(f"{count} held-out {were} evaluated: how far predictions can be trusted is hardly known.")
    return tuple(found)


def standing_of(
    genotype: Genotype, answer: Answer, predictor: Predictor, *, within: bool, evaluated: float | None
) -> Standing:
    """Where a network stands among those that the answer lists."""
    (prediction,), text = predictor.predict([genotype]), str(genotype)
    listed = [choice.genotype for choice in answer.selections]
    rank = listed.index(text) + 1 if text in listed else None
    if not within:
        where = "is not within these limits"
    elif rank == 1:
        where = "is the best predicted, too"
    elif rank:
        where = f"is number {rank} by its prediction"
    else:
        where = f"is not among the first {len(listed)} by its prediction" if listed else "is within these limits"
    return Standing(
        genotype=text,
        rank=rank,
        within=within,
        predicted=prediction.metric,
        interval=(prediction.low, prediction.high),
        evaluated=evaluated,
        sentence=f"The study's chosen network, {text}, {where}.",
    )


def without_network(status: str, limits: Sequence[str], explanation: str) -> NasError:
    """Why there is no network: the limits collide, or the time ended before one was found."""
    if status == "infeasible":
        return infeasible(limits, explanation)
    advice = "Whether the limits can be met is not known: allow more time, or loosen a limit."
    return NasError("select", f"no network within {', '.join(limits) or 'the rules'} so far", "more time", advice)


def infeasible(limits: Sequence[str], explanation: str) -> InfeasibleError:
    """No network is within the limits; ``explanation`` says what is attainable."""
    return InfeasibleError(
        "select.limits", ", ".join(limits) or "none", "limits that some network satisfies", explanation
    )


def bound_of(predictor: Predictor, result: SelectionResult) -> float | None:
    """Upper bound on the predicted metric of all networks within the limits (a top-k's own bound is of its k-th)."""
    bound = max(result.bound, result.best.value)
    return predictor.to_metric(bound) if math.isfinite(bound) else None


def with_additive_limits(
    tables: Mapping[int | None, Mapping[str, CostTable]], budgets: Sequence[Budget]
) -> tuple[dict[int | None, dict[str, CostTable]], tuple[Budget, ...]]:
    """Limits on resources that are a maximum over blocks (peak memory), as additive ones for the selection program.

    An upper limit becomes: 0 blocks above it; a lower one: at least 1 block
    that reaches it (``combine_of`` tells which resources those are).
    """
    additive = {
        label: {name: table for name, table in mine.items() if combine_of(name) != "max"}
        for label, mine in tables.items()
    }
    kept: list[Budget] = []
    for budget in budgets:
        if combine_of(budget.resource) != "max":
            kept.append(budget)
            continue
        for side in budget.sides():
            name, above = counted_as(side), side.at_most
            if above is None:
                assert side.at_least is not None, "one side is given"
                above = math.nextafter(side.at_least, -math.inf)
            for label, mine in tables.items():
                additive[label][name] = _count(mine[budget.resource], name, above=above)
            kept.append(Budget(resource=name, at_least=1) if side.at_most is None else Budget(resource=name, at_most=0))
    return additive, tuple(kept)


def counted_as(side: Budget) -> str:
    """What the program calls the number of blocks that exceed an upper limit, or reach a lower one."""
    if side.at_most is not None:
        return f"{side.resource}_over_{side.at_most:g}"
    return f"{side.resource}_from_{side.at_least:g}"


def _count(table: CostTable, name: str, above: float) -> CostTable:
    """1 for each block, and for the fixed part, that costs more than ``above``."""
    block = tuple(tuple(float(value > above) for value in row) for row in table.block)
    return CostTable(
        resource=name, device=table.device, resolution=table.resolution, fixed=float(table.fixed > above), block=block
    )


def check_distance(counts: Sequence[int], top: int, min_distance: int, where: str) -> None:
    """Raises ConfigError unless two networks can be as different as is asked for.

    ``counts`` are how many there are to choose from at each position, and resolutions.
    """
    most = sum(count > 1 for count in counts)
    if top > 1 and min_distance > most:
        raise ConfigError(where, min_distance, f"{most} at most, as so many places of a network have alternatives")
