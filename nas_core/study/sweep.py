"""One study, many limits: the best network at each of several limits of one resource.

All limits are solved from the evaluations and costs that the study has: nothing
is searched anew for any of them.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass, replace
from fractions import Fraction

from nas_core.base.errors import ConfigError
from nas_core.base.units import Amount
from nas_core.program import Status, solve
from nas_core.program.limits import ParsedLimit, parse_limit
from nas_core.space.genotypes import Genotype
from nas_core.study.choices import Answer
from nas_core.study.config import SelectConfig
from nas_core.study.snapshot import Snapshot

DIGITS = 4  # of the limits between the ends


@dataclass(frozen=True, kw_only=True)
class Point:
    """The network at one limit of a sweep.

    ``at_most`` and costs are in the resource's unit, metrics in the metric's.
    The ``genotype`` is the best that was really evaluated within the limit,
    before verification the best predicted one; None where there is none, and
    ``note`` says why. ``proven``: it is the best predicted one, and that is
    proven. ``measured`` (the network whole) and ``test`` are known where it was
    timed and trained; ``recovered``: it is to be trained.
    """

    limit: str
    at_most: float
    recovered: bool
    genotype: str | None = None
    predicted: float | None = None
    low: float | None = None  # 90 % interval of the prediction
    high: float | None = None
    proven: bool = False
    evaluated: float | None = None
    summed: float | None = None  # the resource as the sum over blocks
    measured: float | None = None
    test: float | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """Its folder among the trained networks, such as ``point-30pct``: of the limit alone."""
        amount = parse_limit(self.limit).at_most
        return "point-" + re.sub(r"[^\w.]+", "-", str(amount).replace("%", "pct")).strip("-")


def swept(text: str) -> tuple[ParsedLimit, Amount, Amount]:
    """The range of a sweep with its two ends, the lower first.

    Raises:
        ConfigError: if the text is no range, or its ends are not two amounts of one unit in order.
    """
    limit = parse_limit(text)
    low, high = limit.at_least, limit.at_most
    expected = "a range of one limit, such as latency_ms=30%..100%"
    if low is None or high is None:
        raise ConfigError("sweep", repr(text), expected)
    if low.unit != high.unit or not 0 < low.number < high.number:
        raise ConfigError("sweep", repr(text), f"{expected}: two amounts of one unit, the lower one first")
    return limit, low, high


def limits_of(text: str, num_points: int) -> tuple[str, ...]:
    """The limits of a sweep, evenly apart, the tightest first: ``latency_ms<=30%``, ...; raises as ``swept``."""
    limit, low, high = swept(text)
    found = []
    for index in range(num_points):
        number = low.number + (high.number - low.number) * index / max(num_points - 1, 1)
        if 0 < index < num_points - 1:
            number = Fraction(f"{float(number):.{DIGITS}g}")
        found.append(f"{_name_of(limit)}<={Amount(number, low.unit)}")
    return tuple(dict.fromkeys(found))


def _name_of(limit: ParsedLimit) -> str:
    """The resource as it is written in a limit."""
    return limit.resource if re.fullmatch(r"[A-Za-z_][\w.]*", limit.resource) else f'"{limit.resource}"'


def spread(num_points: int, wanted: int) -> tuple[int, ...]:
    """Indices of points to recover, of those with a network: evenly apart with both ends; of one the tightest."""
    if wanted >= num_points:
        return tuple(range(num_points))
    return tuple(round(index * (num_points - 1) / max(wanted - 1, 1)) for index in range(wanted))


def points(known: Snapshot, *, verified: bool, winner: str | None = None) -> tuple[Point, ...]:
    """The points of the study's sweep, the tightest limit first; none where it has no sweep.

    ``verified``: networks were evaluated to be chosen from, so an evaluated one
    is; where the limit is the study's own, its ``winner``.
    """
    select = known.config.select
    limits = sweep_limits(known)
    own = [budget in known.limits for budget in known.budgets(limits)]  # however it is spelled
    found = [
        _point(known, limit, verified, winner if is_own else None) for limit, is_own in zip(limits, own, strict=True)
    ]
    there = [index for index, point in enumerate(found) if point.genotype is not None]
    recovered = {there[each] for each in spread(len(there), select.recover)}
    return tuple(replace(point, recovered=index in recovered) for index, point in enumerate(found))


def sweep_limits(known: Snapshot) -> tuple[str, ...]:
    """The limits of the study's sweep, the tightest first; none where it has no sweep."""
    select = known.config.select
    return limits_of(select.sweep, select.points) if select.sweep else ()


def optima(known: Snapshot) -> list[Genotype]:
    """The best predicted network at every limit of the sweep that leaves one, the tightest first, each once."""
    found = (_answer(known, limit).selections[:1] for limit in sweep_limits(known))
    return list(dict.fromkeys(Genotype.parse(choice.genotype) for choices in found for choice in choices))


def first_met(known: Snapshot) -> int:
    """Index of the tightest limit of the sweep that some network meets; needs costs only.

    0, too, where what the sweep limits has no costs yet, and where no limit of it can be met.
    """
    limits = sweep_limits(known)
    if not limits or limits[0] not in known.config.select.limits:
        return 0
    first = bisect_left(limits, True, key=lambda limit: _is_met(known, limit))  # what meets one meets those after it
    return first if first < len(limits) else 0


def beginning_at(select: SelectConfig, index: int) -> SelectConfig:
    """The selection whose sweep has no limits before this one, nor has the study; of the last alone, no sweep."""
    limits = limits_of(select.sweep, select.points)
    own = {"limits": [limits[index] if text == limits[0] else text for text in select.limits]}
    num_points = len(limits) - index
    if num_points == 1:
        return select.model_copy(update={**own, "sweep": ""})
    limit, _, high = swept(select.sweep)
    sweep = f"{_name_of(limit)}={parse_limit(limits[index]).at_most}..{high}"
    recover = min(select.recover, num_points)
    return select.model_copy(update={**own, "sweep": sweep, "points": num_points, "recover": recover})


def _is_met(known: Snapshot, limit: str) -> bool:
    result = solve(known.problem_of_most(None, known.budgets(limits_at(known, limit))))
    return result.status is not Status.INFEASIBLE


def limits_at(known: Snapshot, limit: str) -> tuple[str, ...]:
    """What holds at a point: its limit, and those of the study on other resources."""
    (mine,) = known.budgets((limit,))
    others = zip(known.config.select.limits, known.limits, strict=True)
    return (*(text for text, budget in others if budget.resource != mine.resource), limit)


def _answer(known: Snapshot, limit: str) -> Answer:
    return known.answer(limits_at(known, limit), top=1, time_limit_s=known.config.select.time_limit_s)


def _point(known: Snapshot, limit: str, verified: bool, winner: str | None) -> Point:
    """The point at a limit, none of which is recovered yet."""
    answer, (budget,) = _answer(known, limit), known.budgets((limit,))
    assert budget.at_most is not None, "a point's limit is an upper one"
    best = answer.selections[0].genotype if answer.selections else None
    found = known.best_evaluated(known.budgets(limits_at(known, limit))) if verified else None
    genotype = winner or (str(found[0]) if found else best)
    if genotype is None:
        why = (answer.explanation or {}).get("text", "") or answer.message
        return Point(limit=limit, at_most=budget.at_most, recovered=False, note=why)
    (prediction,) = known.predictor.predict([Genotype.parse(genotype)])
    return Point(
        limit=limit,
        at_most=budget.at_most,
        recovered=False,
        genotype=genotype,
        predicted=prediction.metric,
        low=prediction.low,
        high=prediction.high,
        proven=genotype == best and answer.status == "optimal",
        evaluated=known.measured.get(genotype),
        summed=known.costs_of(prediction.genotype)[budget.resource],
    )
