"""Solves a DeepMAD program: the best structure found, a bound on every other, and the gap between them.

The search is ``tree.Tree``; every answer is rated again by the exact
evaluator and checked against every rule and limit (``domain.verify``).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nas_core.base.errors import ConfigError, InfeasibleError
from nas_core.deepmad.concave import Program, nonempty, root
from nas_core.deepmad.domain import Check, Domain, Limits, limit_values, usages, verify
from nas_core.deepmad.formulas import Objective, Rating, rate
from nas_core.deepmad.polish import Polisher, least_row, to_batch
from nas_core.deepmad.structure import Structure
from nas_core.deepmad.tree import Progress, Tree

BOUND_KIND = "rigorous up to double-precision round-off"
ANY_US = 10**12  # microseconds, a limit that everything keeps
LEAST_SHARE = 0.4  # a sweep goes from this share of the limit up to the limit


@dataclass(frozen=True, kw_only=True)
class Design:
    """An answer: no structure of the domain within the limits scores above ``bound``.

    ``gap`` is (bound - score) / |bound|; ``history`` says how score and bound
    came about; CPU seconds are of this process.
    """

    structure: Structure
    rating: Rating
    check: Check
    bound: float
    bound_kind: str
    gap: float
    status: str
    cpu_s: float
    solved_nodes: int
    history: tuple[Progress, ...] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The fields of ``mathnas design --json``."""
        return {
            **self.structure.as_dict(),
            "objective": self.rating.objective,
            "score": self.rating.score,
            "flops": self.rating.flops,
            "params": self.rating.params,
            "rho": self.rating.rho,
            "limits": dict(self.check.limit),
            "slack": self.check.slack,
            "bound": self.bound,
            "bound_kind": self.bound_kind,
            "gap": self.gap,
            "status": self.status,
            "cpu_s": self.cpu_s,
            "solved_nodes": self.solved_nodes,
        }


def design(
    domain: Domain,
    limits: Limits,
    objective: Objective,
    *,
    gap: float = 5e-4,
    cpu_s: float = 60.0,
    seed: int = 0,
    report: Callable[[Progress], None] | None = None,
) -> Design:
    """The best structure of the domain within the limits, to a relative ``gap`` or for ``cpu_s`` CPU seconds.

    The status is ``optimal`` where the gap asked for was zero and is closed,
    ``within gap`` where it is closed otherwise, and ``time`` where it is not.

    Raises:
        InfeasibleError: if no structure keeps the limits, with the least
            attainable value of each and the limits that collide; also if none
            was found in the time.
    """
    begin = time.process_time()
    program = Program(domain, limits, objective)
    if not nonempty(root(program)).all():
        raise InfeasibleError(
            "domain", "ranges and ratios of channels that contradict each other", "one structure at least"
        )
    if _out_of_reach(domain, limits):
        raise explain(domain, limits, objective, proved=True)
    tree = Tree(program, gap, seed)
    tree.run(begin + cpu_s, report)
    if tree.row is None:
        raise explain(domain, limits, objective, proved=tree.done)
    structure = to_batch(domain, tree.row[None]).structure(0)
    check = verify(structure, domain, limits)
    assert not check.broken, check.broken
    rating = rate(structure, objective)
    bound = max(tree.bound, rating.score)
    status = "time" if not tree.done else "optimal" if gap == 0 else "within gap"
    return Design(
        structure=structure,
        rating=rating,
        check=check,
        bound=bound,
        bound_kind=BOUND_KIND,
        gap=(bound - rating.score) / abs(bound),
        status=status,
        cpu_s=time.process_time() - begin,
        solved_nodes=tree.solved_nodes,
        history=tuple(tree.history),
    )


def _floors(domain: Domain) -> dict[str, float]:
    """What the smallest structure costs, which is the least that any costs.

    FLOPs and parameters grow with every number of a structure, but for the
    pooled shortcut that a MobileNet's block has only where it keeps its
    channels c: 4 c per pixel. One step more of them costs more where
    step x narrow >= 4; elsewhere nothing is said of FLOPs.
    """
    batch = to_batch(domain, least_row(domain)[None])
    floors = usages(batch, Limits(flops=1, params=1))
    if domain.skeleton.family != "resnet" and domain.step * domain.narrow < 4:
        del floors["flops"]
    return {name: float(value_B[0]) for name, value_B in floors.items()}


def _out_of_reach(domain: Domain, limits: Limits) -> list[str]:
    """The limits that not even the smallest structure keeps."""
    floors, bound = _floors(domain), limit_values(limits)
    return [name for name, least in floors.items() if least > bound.get(name, np.inf)]


class _Least:
    """Minus the value of one limit as an objective for the local search."""

    def __init__(self, domain: Domain, limits: Limits, objective: Objective) -> None:
        self.domain, self.limits, self.objective = domain, limits, objective

    def of(self, name: str, subject_to: Limits) -> float:
        """The least value of a limit's quantity that the local search finds within ``subject_to``; inf if none."""
        floors = _floors(self.domain)
        if name in floors and not limit_values(replace(subject_to, **{name: None})):
            return floors[name]
        low, high = floors.get(name, 0.0), np.inf
        polisher = Polisher(self.domain, subject_to, self.objective)
        starts = [polisher.low.copy(), polisher.high.copy()]
        shallow = polisher.high.copy()
        S = self.domain.skeleton.num_blocks
        shallow[1 + 3 * S :] = polisher.low[1 + 3 * S :]
        for start in (*starts, shallow):
            row, _, feasible = polisher.climb(start)
            if feasible:
                used = verify(to_batch(self.domain, row[None]).structure(0), self.domain, self._all()).usage[name]
                high = min(high, used)
        for _ in range(12):  # ever tighter limits until the local search fails
            if not np.isfinite(high) or high - low < 1e-3 * high:
                break
            middle = 0.5 * (low + high)
            value = middle if name == "rho" else int(middle)
            tighter = replace(subject_to, **{name: value}) if value > 0 else subject_to  # type: ignore[arg-type]
            polisher = Polisher(self.domain, tighter, self.objective)
            found = [polisher.climb(start) for start in (*starts, shallow)]
            good = [row for row, _, feasible in found if feasible]
            if good:
                high = middle
            else:
                low = middle
        return high

    def _all(self) -> Limits:
        return replace(self.limits, flops=10**18, params=10**15, rho=1e9)


def explain(domain: Domain, limits: Limits, objective: Objective, *, proved: bool) -> InfeasibleError:
    """What is attainable where nothing keeps all limits: each quantity's least value, and which limits collide."""
    least = _Least(domain, limits, objective)
    bound = limit_values(limits)
    free = replace(limits, flops=None, params=None, rho=None, latency_us=None, latency_table=None)
    alone = {name: least.of(name, free) for name in bound if name != "latency_us"}
    if "latency_us" in bound:
        alone["latency_us"] = least.of(
            "latency_us", replace(free, latency_us=ANY_US, latency_table=limits.latency_table)
        )
    given = [f"{name} {_written(name, bound[name])} (at least {_written(name, v)} alone)" for name, v in alone.items()]
    if beyond := _out_of_reach(domain, limits):
        advice = f"Not even the smallest structure keeps {' and '.join(beyond)}."
    elif colliding := _colliding(domain, limits, objective):
        advice = f"These limits collide: {', '.join(colliding)}.{_least_given_others(least, limits, colliding)}"
    else:
        advice = "Relax a limit."
    certainty = "limits that no structure keeps" if proved else "limits that no structure was found to keep in the time"
    return InfeasibleError("limits", f"{certainty}: {'; '.join(given)}", "limits that some structure keeps", advice)


def _written(name: str, value: float) -> str:
    return f"{value:,.0f}" if name in ("flops", "params") else f"{value:.6g}"


def _least_given_others(least: _Least, limits: Limits, colliding: list[str]) -> str:
    """For every colliding limit, its least value found while the other colliding ones hold."""
    if len(colliding) < 2:
        return ""
    parts = []
    for name in colliding:
        others = {other: None for other in limit_values(limits) if other not in colliding or other == name}
        if "latency_us" in others:
            others["latency_table"] = None
        if name == "latency_us":
            continue
        value = least.of(name, replace(limits, **others))
        parts.append(
            f"{name} at least {_written(name, value)}" if np.isfinite(value) else f"{name} cannot repair it alone"
        )
    return f" With the others kept: {'; '.join(parts)}."


def _colliding(domain: Domain, limits: Limits, objective: Objective) -> list[str]:
    """A smallest set of limits that cannot be kept together, by leaving out one after another."""
    names = list(limit_values(limits))
    kept = list(names)
    for name in names:
        trial = [other for other in kept if other != name]
        if trial and not _attainable(domain, _only(limits, trial), objective):
            kept = trial
    return kept


def _only(limits: Limits, names: list[str]) -> Limits:
    drop: dict[str, Any] = {name: None for name in limit_values(limits) if name not in names}
    if "latency_us" in drop:
        drop["latency_table"] = None
    return replace(limits, **drop)


def _attainable(domain: Domain, limits: Limits, objective: Objective) -> bool:
    """Whether some structure keeps these limits: a short search."""
    if _out_of_reach(domain, limits):
        return False
    tree = Tree(Program(domain, limits, objective), gap=1.0)
    if tree.row is None:
        tree.run(time.process_time() + 3.0)
    return tree.row is not None


def sweep(
    domain: Domain, limits: Limits, objective: Objective, name: str, points: int, **settings: Any
) -> list[Design]:
    """Designs at ``points`` values of the limit ``name``, geometrically up to the given one; the others stay.

    Raises:
        ConfigError: if the limit is not set.
        InfeasibleError: if some point has no structure.
    """
    known = limit_values(limits)
    if name not in known:
        raise ConfigError("--frontier", repr(name), f"a limit that is set: {', '.join(known) or 'none is'}")
    values = known[name] * np.geomspace(LEAST_SHARE, 1.0, points)
    exact = [float(value) if name == "rho" else round(value) for value in values]
    return [design(domain, replace(limits, **{name: value}), objective, **settings) for value in exact]  # type: ignore[arg-type]
