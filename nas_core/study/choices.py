"""A selection as a person reads it, and the limits as the program takes them."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nas_core.base.errors import InfeasibleError, NasError
from nas_core.prediction import Predictor
from nas_core.program import Budget, SelectionResult, Status
from nas_core.records.evaluations import CostTable
from nas_core.records.resources import combine_of
from nas_core.space.genotypes import Genotype


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A selected network as a person reads it: its predicted metric with interval, its costs."""

    genotype: str
    predicted: float
    interval: tuple[float, float]
    costs: dict[str, float]
    evaluated: float | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a selection says: networks best first, and what is proven.

    ``bound`` is in the metric's unit: no network within the limits has a better
    prediction. ``gap`` is how far the worst proven part is from it, in the
    program's unit; 0 is proven optimal.
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
    """What no network within the limits is predicted to exceed; a top-k's own bound is that of its last."""
    bound = max(result.bound, result.best.value)
    return predictor.to_metric(bound) if math.isfinite(bound) else None


def with_additive_limits(
    tables: Mapping[int | None, Mapping[str, CostTable]], budgets: Sequence[Budget]
) -> tuple[dict[int | None, dict[str, CostTable]], tuple[Budget, ...]]:
    """Tables and budgets in which every resource adds up, for the selection program.

    A resource whose total is the largest of its blocks' (``combine_of``), such as
    peak memory, becomes a count of the blocks that exceed the limit, which must
    be 0, or of those that reach a lower one, which must be 1 at least.
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
        if budget.at_most is not None:
            over = f"{budget.resource}_over_{budget.at_most:g}"
            for label, mine in tables.items():
                additive[label][over] = _count(mine[budget.resource], over, above=budget.at_most)
            kept.append(Budget(resource=over, at_most=0))
        if budget.at_least is not None:
            reached = f"{budget.resource}_from_{budget.at_least:g}"
            for label, mine in tables.items():
                below = math.nextafter(budget.at_least, -math.inf)
                additive[label][reached] = _count(mine[budget.resource], reached, above=below)
            kept.append(Budget(resource=reached, at_least=1))
    return additive, tuple(kept)


def _count(table: CostTable, name: str, above: float) -> CostTable:
    """1 for each block, and for the fixed part, that costs more than ``above``."""
    block = tuple(tuple(float(value > above) for value in row) for row in table.block)
    return CostTable(
        resource=name, device=table.device, resolution=table.resolution, fixed=float(table.fixed > above), block=block
    )
