"""What the solver answers: networks, a statement of proof, and why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from nas_core.program.problem import Budget, format_measured
from nas_core.space.genotypes import Genotype

PARTLY_PROVEN = "The first ranks are proven, the others are not: networks may be missing there; allow more time."


class Status(Enum):
    """How far the answer is proven; every value is a sentence with advice."""

    OPTIMAL = "Proven optimal: no network within the limits has a better value."
    FEASIBLE = (
        "Within the limits but not proven optimal: the gap says how much better a network could be; allow more time."
    )
    INFEASIBLE = "Proven infeasible: no network satisfies the limits and rules; the explanation says which collide."
    STOPPED = "Stopped before any network was found or excluded; allow more time or loosen a limit."

    @property
    def is_proven(self) -> bool:
        return self in (Status.OPTIMAL, Status.INFEASIBLE)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """One selected network. ``value`` and ``costs`` are recomputed exactly from the unscaled tables."""

    genotype: Genotype
    value: float
    costs: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"genotype": str(self.genotype), "value": self.value, "costs": dict(self.costs)}


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """The smallest change of one limit, all others kept, that lets some network in.

    ``by`` is how much to add to an ``at_most`` (or to take from an ``at_least``),
    in the resource's unit; None where no change of this limit alone is enough.
    """

    budget: Budget
    by: float | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why no network is within the limits.

    Args:
        least: resource -> least attainable total under the rules alone; None where the rules leave no network.
        least_given_others: resource -> least attainable total under the other resources' limits; None if there is none.
        most: like ``least``, the most attainable total, for resources with an ``at_least``.
        conflict: a set of limits that no network satisfies together; empty if the rules alone collide.
        is_smallest: whether no smaller set of limits collides; False where the time was too short to tell.
        relaxations: the cheapest relaxation of each limit alone.
    """

    least: Mapping[str, float | None]
    least_given_others: Mapping[str, float | None]
    most: Mapping[str, float | None]
    conflict: tuple[Budget, ...]
    relaxations: tuple[Relaxation, ...]
    is_smallest: bool = True

    def __str__(self) -> str:
        if not self.conflict:
            return "The rules and the excluded networks alone leave no network."
        collide = " and ".join(budget.briefly() for budget in self.conflict)
        above = {budget.resource for budget in self.conflict if budget.at_least is not None}
        below = {budget.resource for budget in self.conflict if budget.at_most is not None}
        ends = [("least", self.least, above - below), ("most", self.most, self.most.keys() - above)]
        reach = ", ".join(
            f"{end} {name} {format_measured(value, up=end == 'least')}"
            for end, values, left_out in ends
            for name, value in values.items()
            if value is not None and name not in left_out
        )
        fixes = " or ".join(relaxation.text for relaxation in self.relaxations if relaxation.by is not None)
        verb = "cannot be met" if len(self.conflict) == 1 else "collide"
        if not self.is_smallest:
            verb += " (may not be the smallest set that does)"
        return f"{collide} {verb}; attainable: {reach}; cheapest relaxation: {fixes or 'more than one limit'}."

    def as_dict(self) -> dict[str, Any]:
        return {
            "least": dict(self.least),
            "least_given_others": dict(self.least_given_others),
            "most": dict(self.most),
            "conflict": [str(budget) for budget in self.conflict],
            "is_smallest": self.is_smallest,
            "relaxations": [{"limit": str(r.budget), "by": r.by, "text": r.text} for r in self.relaxations],
            "text": str(self),
        }


@dataclass(frozen=True, kw_only=True)
class SelectionResult:
    """The answer to one selection problem.

    Args:
        status: what is proven.
        selections: best first; empty only if infeasible or stopped. Each was verified without a solver.
        num_proven: how many of them, from the first on, are proven to be the best, in this order.
        bound: no network of the program (for top k: none beyond those before the last selection) has a higher value.
        gap: bound minus the value of the first selection that is not proven, in the objective's unit; 0 when all are.
        solve_s: wall seconds.
        route: which solver proved it.
        explanation: why there is no network; only if infeasible.
        notes: what else the user should know, such as a limit that binds nothing.
    """

    status: Status
    selections: tuple[Selection, ...]
    num_proven: int
    bound: float
    gap: float
    solve_s: float
    route: str
    explanation: Explanation | None = None
    notes: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """What is proven, in a sentence."""
        if self.status is Status.FEASIBLE and self.num_proven:
            return PARTLY_PROVEN
        return self.status.value

    @property
    def best(self) -> Selection:
        """The first selection; IndexError if there is none."""
        return self.selections[0]

    def as_dict(self) -> dict[str, Any]:
        return {
            "status": self.status.name.lower(),
            "message": self.message,
            "selections": [selection.as_dict() for selection in self.selections],
            "num_proven": self.num_proven,
            "bound": _json_number(self.bound),
            "gap": _json_number(self.gap),
            "solve_s": self.solve_s,
            "route": self.route,
            "explanation": None if self.explanation is None else self.explanation.as_dict(),
            "notes": list(self.notes),
        }


def _json_number(value: float) -> float | None:
    """JSON has no infinities."""
    return value if abs(value) < float("inf") else None
