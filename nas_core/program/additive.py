"""Solves one table's additive program: relaxation, core search, then what ``ROUTES.md`` says for its shape."""

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from nas_core.program import core, cpsat, incumbents, knapsack
from nas_core.program.answers import INFEASIBLE, Answer, Apart, Choices, Effort, Judge, Ranking
from nas_core.program.branching import Branching
from nas_core.program.halves import CoreTooLargeError
from nas_core.program.linear import Floats, Ints, LinearProgram
from nas_core.program.ranking import LOWEST, Ranker
from nas_core.program.relaxation import Relaxation, exact_bound, relax, shows_infeasible
from nas_core.program.result import Status

WIDE = 2.0**20  # losses further apart than this are looked at in turn, so that rounding of the large hides no small
MANY_COLUMNS = 1_000  # of a program with one limit, from which the dynamic program is quicker than the core search
FIRST_SHARE, FIRST_MOST_S = 0.25, 3.0  # of the time left, for a first network
SOON_SHARE, SOON_S = 0.05, 0.2  # after which it is asked whether there is any: a search never learns that there is none
SEARCH_SHARE, SEARCH_MOST_S = 0.5, 20.0  # kept back from a proof, for a better network if it does not come about
MANY_LIMITS = 4  # beyond which CP-SAT was not seen to prove anything in a minute, rules left out
MANY_GROUPS = 60  # beyond which branching shows nothing either, with so many limits
CORE_SHARE = 0.5  # of the time left that the core search may take
BETTER_SHARE, BETTER_MOST_S = 0.3, 8.0  # kept back from branching with many limits, for the same
BRIEFLY, BRIEFLY_MOST_S = 0.15, 2.0  # with few or with rules, before CP-SAT
MANY_GROUPS_TO_LIST, LEVELS_SHARE = 30, 0.3  # from which the core search lists sooner, where it can; and its time


def best(
    lp: LinearProgram, judge: Judge, apart: Sequence[Apart], effort: Effort, relaxation: Relaxation | None = None
) -> Answer:
    """The network with the highest value that ``judge`` allows.

    ``judge`` may order networks more exactly than the float value of the
    program does, and may refuse what only exact arithmetic can refuse. It must
    agree with the program's value up to the relaxation's ``error``.
    """
    for threshold in _thresholds(lp):
        narrow = lp.keep(-lp.value_C <= threshold)
        answer = _best(narrow, judge, apart, effort)
        if answer.choices is None:
            continue  # no network without the columns that lose more
        needed = _loss(lp, answer.choices)
        if needed > threshold:  # a better network may use columns that lose more, but none beyond this loss
            answer = _best(lp.keep(-lp.value_C <= needed), judge, apart, effort)
        return answer
    return _best(lp, judge, apart, effort, relaxation)


def _thresholds(lp: LinearProgram) -> Floats:
    """Losses after which the next is far larger, as a mask's is."""
    loss_C = -lp.value_C
    largest = float(loss_C.max())
    if largest == 0 or np.count_nonzero(loss_C > largest / WIDE) > 0.9999 * np.count_nonzero(loss_C > 0):
        return np.zeros(0)
    losses = np.unique(loss_C[loss_C > 0])
    jumps = np.flatnonzero(losses[1:] > WIDE * losses[:-1])
    return losses[jumps]


def _loss(lp: LinearProgram, choices: Choices) -> float:
    """What a network loses against every group's best, rounded up."""
    columns_G = lp.columns.columns(choices)
    loss = -lp.value_of(columns_G)
    return float(np.nextafter(loss * (1 + 1e-9) + lp.error_C[columns_G].sum(), np.inf))


def _best(
    lp: LinearProgram, judge: Judge, apart: Sequence[Apart], effort: Effort, relaxation: Relaxation | None = None
) -> Answer:
    relaxation = relax(lp) if relaxation is None else relaxation
    if relaxation is None or (relaxation.seems_infeasible and shows_infeasible(lp)):
        return INFEASIBLE
    if relaxation.seems_infeasible:  # floats say so; integers have to prove it
        return cpsat.best(lp, relaxation, judge, apart, effort)
    attains = Attains(lp, relaxation)
    if lp.columns.num_columns > MANY_COLUMNS:
        answer = _by_one_limit(lp, relaxation, judge, apart, effort)
        if answer is not None:
            return answer
    try:
        levels = core.levels(lp, relaxation, deadline=time.monotonic() + CORE_SHARE * effort.left_s)
        return best_of_levels(levels, lp, judge, apart, relaxation, "core search", attains)
    except CoreTooLargeError:
        return _by_structure(lp, relaxation, judge, apart, effort, attains)


def _by_structure(
    lp: LinearProgram,
    relaxation: Relaxation,
    judge: Judge,
    apart: Sequence[Apart],
    effort: Effort,
    attains: "Attains",
) -> Answer:
    """Where the core is too large to list."""
    answer = _by_one_limit(lp, relaxation, judge, apart, effort)
    if answer is not None:
        return answer
    soon, first = _within(effort, SOON_SHARE, SOON_S), _within(effort, FIRST_SHARE, FIRST_MOST_S)
    incumbent = incumbents.good_network(lp, relaxation, judge, apart, soon)
    if incumbent is None:
        answer = cpsat.best(lp, relaxation, judge, apart, _within(effort, BRIEFLY, BRIEFLY_MOST_S))
        if answer.status.is_proven:
            return answer
        incumbent = answer.choices
    incumbent = incumbents.good_network(lp, relaxation, judge, apart, first, incumbent) or incumbent
    if incumbent is not None and attains(incumbent):
        return Answer(status=Status.OPTIMAL, choices=incumbent, bound=relaxation.bound, route="bound attained")
    answer = _proof(lp, relaxation, judge, apart, effort, incumbent, attains)
    if answer.status.is_proven:
        return answer
    better = None
    if effort.left_s > 0:
        better = incumbents.good_network(lp, relaxation, judge, apart, effort, answer.choices)
    choices = better or answer.choices
    if choices is None:
        return answer
    bound = min(answer.bound, attains.value)
    if attains(choices):
        return Answer(status=Status.OPTIMAL, choices=choices, bound=bound, route="bound attained")
    return Answer(status=Status.FEASIBLE, choices=choices, bound=bound, route=f"{answer.route}, search")


def _within(effort: Effort, share: float, most_s: float) -> Effort:
    """A share of the time left, so many seconds at most."""
    return replace(effort, deadline=time.monotonic() + min(share * effort.left_s, most_s))


def _proof(
    lp: LinearProgram,
    relaxation: Relaxation,
    judge: Judge,
    apart: Sequence[Apart],
    effort: Effort,
    incumbent: Choices | None,
    attains: "Attains",
) -> Answer:
    """What branching and CP-SAT show from a first network, some of the time being kept for a better one."""
    status = Status.STOPPED if incumbent is None else Status.FEASIBLE
    answer = Answer(status=status, choices=incumbent, bound=relaxation.bound + relaxation.error, route="relaxation")
    has_many_limits = _num_limits(lp) > MANY_LIMITS
    if incumbent is not None:
        if has_many_limits and lp.num_groups > MANY_GROUPS:
            return answer
        kept_s = min(BETTER_SHARE * effort.left_s, BETTER_MOST_S)
        share_s = effort.left_s - kept_s if has_many_limits else min(BRIEFLY * effort.left_s, BRIEFLY_MOST_S)
        until = replace(effort, deadline=time.monotonic() + share_s)
        branched = _branched(lp, relaxation, judge, apart, until, incumbent, attains)
        if branched is not None and (has_many_limits or branched.status.is_proven):
            return branched
        answer = branched or answer
    if effort.left_s == 0:
        return answer
    kept_s = min(SEARCH_SHARE * effort.left_s, SEARCH_MOST_S)
    return cpsat.best(lp, relaxation, judge, apart, replace(effort, deadline=effort.deadline - kept_s), answer.choices)


def _branched(
    lp: LinearProgram,
    relaxation: Relaxation,
    judge: Judge,
    apart: Sequence[Apart],
    effort: Effort,
    incumbent: Choices,
    attains: "Attains",
) -> Answer | None:
    """The best network that branching finds from a good one, and its bound; None where it can show none."""
    search = Branching(lp.with_apart(apart), relaxation, lp.columns.columns(incumbent), effort.deadline)
    if not search.fits:
        return None
    search.run()
    choices = lp.columns.choices(search.best_G)
    if judge(choices) is None:
        return None
    attains.lower(search.bound)
    if search.is_proven:
        bound = lp.value_of(search.best_G) + lp.rounding
        return Answer(status=Status.OPTIMAL, choices=choices, bound=bound, route="branching")
    return Answer(status=Status.FEASIBLE, choices=choices, bound=attains.value, route="branching")


def _num_limits(lp: LinearProgram) -> int:
    """How many rows concern most groups, as limits do and rules do not."""
    is_met_KG = np.maximum.reduceat(lp.rows_KC, lp.starts_G1[:-1], axis=1) > 0
    return int(np.count_nonzero(is_met_KG.mean(axis=1) > 0.5))


def _by_one_limit(
    lp: LinearProgram, relaxation: Relaxation, judge: Judge, apart: Sequence[Apart], effort: Effort
) -> Answer | None:
    """The answer of a program with one limit; None if it is not one in whole numbers, or the core is too large."""
    if len(lp.limits_K) != 1 or apart or lp.is_relaxed or lp.integers_C is None:
        return None
    try:
        columns_G = knapsack.best_columns(lp, relaxation, effort.deadline)
    except CoreTooLargeError:
        return None
    choices = lp.columns.choices(columns_G)
    assert judge(choices) is not None, "whole numbers decide what is within the limit"
    bound = lp.value_of(columns_G) + lp.rounding
    return Answer(status=Status.OPTIMAL, choices=choices, bound=bound, route="one-limit core")


class Bounded(Protocol):
    """What losses are counted from, and what rounding can hide in one."""

    @property
    def bound(self) -> float: ...

    @property
    def error(self) -> float: ...


class Attains:
    """Whether a network's value is the exact bound, which is worked out when first asked for."""

    def __init__(self, lp: LinearProgram, relaxation: Relaxation) -> None:
        self.lp, self.duals_K = lp, relaxation.duals_K
        self.bound: int | None = None
        self.is_known = lp.exact_C is None  # floats attain nothing

    def __call__(self, choices: Choices) -> bool:
        if self.lp.exact_C is None:
            return False
        if not self.is_known:
            self.bound, self.is_known = exact_bound(self.lp, self.duals_K), True
        value = sum(self.lp.exact_C[self.lp.columns.columns(choices)].tolist())
        return self.bound is not None and value >= self.bound

    def lower(self, bound: int) -> None:
        """Note a bound that was shown in another way."""
        self.bound, self.is_known = bound if self.bound is None else min(bound, self.bound), True

    @property
    def value(self) -> float:
        """The bound in the program's unit, rounded up; infinite if it was not asked for."""
        if self.bound is None:
            return np.inf
        bound = self.bound * self.lp.unit
        nearest = float(bound)
        return nearest if Fraction(nearest) >= bound else float(np.nextafter(nearest, np.inf))


def best_of_levels(
    levels: Iterable[core.Level],
    lp: LinearProgram,
    judge: Judge,
    apart: Sequence[Apart],
    relaxation: Bounded,
    route: str,
    attains: Callable[[Choices], bool] = lambda choices: False,
) -> Answer:
    """The best allowed network of ever larger levels; infeasible if the last of them holds none."""
    bound, error = relaxation.bound, relaxation.error
    for level in levels:
        for loss, columns_SG, is_complete in near_ties(level, error):
            choices = best_allowed(lp, columns_SG, judge, apart)
            if choices is None:
                continue
            if is_complete or attains(choices):
                return Answer(status=Status.OPTIMAL, choices=choices, bound=bound - loss + error, route=route)
            break
    return Answer(status=Status.INFEASIBLE, choices=None, bound=-np.inf, route=route)


def near_ties(level: core.Level, error: float) -> Iterator[tuple[float, Ints, bool]]:
    """The networks of a level in runs whose order the floats cannot tell, and whether a run is all of its kind."""
    loss_S = level.loss_S
    if not len(loss_S):
        return
    breaks = np.flatnonzero(np.diff(loss_S) > 2 * error) + 1
    edges = [0, *breaks.tolist(), len(loss_S)]
    for low, high in itertools.pairwise(edges):
        is_complete = level.is_everything or bool(loss_S[high - 1] + 2 * error < level.complete_to)
        yield float(loss_S[low]), level.columns_SG[low:high], is_complete


def ranking(
    lp: LinearProgram,
    judge: Judge,
    refused: Collection[Choices],
    count: int,
    effort: Effort,
    total: Callable[[Fraction], Fraction],
) -> Ranking | None:
    """The best ``count`` networks that ``judge`` allows, in order; None if there may be no network at all.

    ``refused``: single networks that it does not allow. ``total`` makes a value of the program one of the objective.
    """
    for threshold in _thresholds(lp):
        listed = _ranking(lp.keep(-lp.value_C <= threshold), judge, refused, count, effort, total)
        is_full = listed is not None and len(listed.networks) == count and listed.floor == -np.inf
        # what loses more than the threshold is not among these columns
        if is_full and listed is not None and listed.networks[-1][0] > total(Fraction(-threshold)):
            return listed
    return _ranking(lp, judge, refused, count, effort, total)


def _ranking(
    lp: LinearProgram,
    judge: Judge,
    refused: Collection[Choices],
    count: int,
    effort: Effort,
    total: Callable[[Fraction], Fraction],
) -> Ranking | None:
    relaxation = relax(lp)
    if relaxation is None:
        return Ranking(networks=(), floor=-np.inf, route="limits and rules")
    if relaxation.seems_infeasible:
        return None
    worth = None if lp.integers_C is None else Worth(lp.integers_C, lp.unit)
    keyed = Keyed(lp, judge, refused, total, worth)
    if lp.num_groups > MANY_GROUPS_TO_LIST:
        deadline = time.monotonic() + LEVELS_SHARE * effort.left_s
        levels = core.levels(lp, relaxation, deadline=deadline, keep=2 * count)
        listed = ranking_of_levels(levels, relaxation, keyed, count, "core search")
        if listed is not None:
            return listed
    if _has_none(lp, relaxation, judge, effort):
        return Ranking(networks=(), floor=-np.inf, route=cpsat.ROUTE)
    ranker = Ranker(lp, relaxation, effort, keyed.refuses if refused or lp.is_relaxed else None)
    listing = ranker.best(count)
    networks = keyed(listing.columns_SG)[:count]
    if not networks and listing.floor == LOWEST:
        return None  # that there is none is for another way to prove
    floor = -np.inf if listing.floor == LOWEST else total(ranker.whole.unit * (listing.floor + ranker.whole.slack))
    return Ranking(networks=tuple(networks), floor=floor, route="ranking")


def _has_none(lp: LinearProgram, relaxation: Relaxation, judge: Judge, effort: Effort) -> bool:
    """Whether it is soon proven that there is no network at all, which a ranking would not learn."""
    soon = _within(effort, SOON_SHARE, SOON_S)
    if next(incumbents.networks(lp, relaxation, (), soon.deadline, effort.seed), None) is not None:
        return False
    briefly = _within(effort, BRIEFLY, BRIEFLY_MOST_S)
    return cpsat.best(lp, relaxation, judge, (), briefly).status is Status.INFEASIBLE


def ranking_of_levels(
    levels: Iterable[core.Level], relaxation: Bounded, keyed: "Keyed", count: int, route: str
) -> Ranking | None:
    """The best ``count`` networks from ever larger levels; None if they do not fit."""
    try:
        for level in levels:
            sure = level.complete_to - 2 * relaxation.error
            if not level.is_everything and np.count_nonzero(level.loss_S < sure) < count:
                continue
            networks = keyed(level.columns_SG)
            floor = -np.inf if level.is_everything else keyed.total(Fraction(relaxation.bound - sure))
            if level.is_everything or sum(key > floor for key, _ in networks) >= count:
                return Ranking(networks=tuple(networks[:count]), floor=-np.inf, route=route)
    except CoreTooLargeError:
        pass
    return None


class Keyed:
    """Puts networks of a program, given by their columns, in order of their exact values.

    ``worth``: the values, where whole numbers carry them.
    """

    def __init__(
        self,
        lp: LinearProgram,
        judge: Judge,
        refused: Collection[Choices],
        total: Callable[[Fraction], Fraction],
        worth: "Worth | None",
    ) -> None:
        self.lp, self.judge, self.refused, self.total = lp, judge, refused, total
        self.worth = None if lp.is_relaxed else worth  # else exact arithmetic looks at one by one

    def refuses(self, columns_G: Ints) -> bool:
        choices = self.lp.columns.choices(columns_G)
        return choices in self.refused or (self.lp.is_relaxed and self.judge(choices) is None)

    def __call__(self, columns_SG: Ints) -> list[tuple[Any, Choices]]:
        """(key, choices) of those that are allowed, best first."""
        if self.worth is None:
            networks = [(self.judge(choices), choices) for choices in map(self.lp.columns.choices, columns_SG)]
            allowed = [(key, choices) for key, choices in networks if key is not None and choices not in self.refused]
            allowed.sort(key=lambda item: item[1])
            return sorted(allowed, key=lambda item: item[0], reverse=True)
        value_S = self.worth(columns_SG)
        order = np.lexsort((*columns_SG.T[::-1], -value_S))
        keys = [self.total(self.worth.unit * value) for value in value_S[order].tolist()]
        choices_S = map(self.lp.columns.choices, columns_SG[order].tolist())
        return [(key, choices) for key, choices in zip(keys, choices_S, strict=True) if choices not in self.refused]


@dataclass(frozen=True)
class Worth:
    """Summed values of networks in whole ``unit``s: of their columns, and of every two of them ([C][C])."""

    value_C: Ints
    unit: Fraction
    pairs_CC: Ints | None = None

    def __call__(self, columns_SG: Ints) -> Ints:
        total_S: Ints = self.value_C[columns_SG].sum(axis=1)
        if self.pairs_CC is not None:
            for g, h in itertools.combinations(range(columns_SG.shape[1]), 2):
                total_S = total_S + self.pairs_CC[columns_SG[:, g], columns_SG[:, h]]
        return total_S


def best_allowed(lp: LinearProgram, columns_SG: Ints, judge: Judge, apart: Sequence[Apart]) -> Choices | None:
    """The best of some networks: highest key, then lexicographically first."""
    allowed = []
    for columns_G in columns_SG:
        choices = lp.columns.choices(columns_G)
        if all(other.allows(choices) for other in apart):
            key = judge(choices)
            if key is not None:
                allowed.append((key, choices))
    if not allowed:
        return None
    top = max(key for key, _ in allowed)
    return min(choices for key, choices in allowed if key == top)
