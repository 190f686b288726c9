"""What the winner is trained beside: the base network, others within the same limits, points of a sweep."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from nas_core.base.errors import IncompleteTableError
from nas_core.base.identity import evaluation_seed
from nas_core.program import SelectionProblem, solve
from nas_core.space.equivalence import function_id
from nas_core.space.genotypes import NO_OPS, Genotype, Rule
from nas_core.study.snapshot import AIMS_AT, Snapshot
from nas_core.study.sweep import Point
from nas_core.training.settings import Baseline

SEEDS = 2**31  # as many as a study can have
DRAWS = 20_000  # random networks looked at to find some within the limits
DRAWN_FOR_EACH = 20  # of which the one that takes most of the limits is compared with
LEFT_OUT = (*NO_OPS, "skip")  # kinds of blocks that are nothing at all
GIVEN_UP = (*LEFT_OUT, "linear")  # or hardly anything

TrainedAs = Literal["winner", "base", "random", "point", Baseline]
RIVALS: tuple[Baseline, ...] = get_args(Baseline)  # that a study names in `train.compare`
REMADE: tuple[Baseline, ...] = ("uniform", "torch_pruning", "sibling")  # of a trained model, no networks of the space
DONE = "Its network is trained already, as {}."


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network to train: ``name`` is its folder in the store, ``winner``, ``random-0``, ``point-30pct`` and so on.

    ``genotype`` is the label of one that is no network of the space; ``remade``
    is where in the store such a one is described.
    """

    name: str
    role: TrainedAs
    genotype: str
    remade: str = ""


@dataclass(frozen=True, kw_only=True)
class Remark:
    """What has to be said of something to be compared with: why there is none, say."""

    role: TrainedAs
    text: str


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The networks of the space to train, the winner first, and what has to be said of those asked for."""

    candidates: tuple[Candidate, ...]
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of a candidate: the first from the study's seed, which says what is handed over, others beside it.

    ``name`` is its folder in the store: the candidate's, then ``winner-s1`` and so on. ``more_epochs`` are beyond the
    recipe's.
    """

    candidate: Candidate
    name: str
    seed: int
    more_epochs: float = 0.0


def trainings(
    known: Snapshot, wanted: Sequence[Candidate], more_epochs: Mapping[str, float] | None = None
) -> list[Training]:
    """All candidates from the first seed, then from the next; points of a sweep are compared with nothing: once.

    ``more_epochs`` by a candidate's name are those that it is trained beyond the recipe's.
    """
    seed, more = known.config.seed, more_epochs or {}
    rest = [each for each in wanted if each.role != "point"]
    seeds = [evaluation_seed(seed, f"training {index}") % SEEDS for index in range(1, known.config.train.seeds)]
    found = [(each, each.name, seed) for each in wanted]
    found += [(each, f"{each.name}-s{index}", one) for index, one in enumerate(seeds, 1) for each in rest]
    return [
        Training(candidate=each, name=name, seed=one, more_epochs=more.get(each.name, 0.0)) for each, name, one in found
    ]


def contest(known: Snapshot, winner: str | None, points: Sequence[Point] = ()) -> Contest:
    """The winner first, then what it is compared with; networks that compute the same come once.

    Fewer random networks than asked for where the limits leave too few.

    Raises:
        IncompleteTableError: if no network was selected yet.
    """
    if winner is None:
        raise IncompleteTableError("winner", "no selection", "a selected network", "Run `mathnas select` first.")
    known = for_others(known)
    found: list[Candidate] = []
    remarks: list[Remark] = []
    seen: dict[str, str] = {}  # what a network computes -> the first that does

    def add(name: str, role: TrainedAs, genotype: Genotype) -> str:
        """The name of the network that is there already, if one is."""
        before = seen.setdefault(function_id(known.space, genotype), name)
        if before == name:
            found.append(Candidate(name=name, role=role, genotype=str(genotype)))
        return "" if before == name else before

    add("winner", "winner", Genotype.parse(winner))
    if known.config.train.compare_base:
        add("base", "base", known.base)
    for index, genotype in enumerate(_random_within(known, known.config.train.compare_random, seen)):
        add(f"random-{index}", "random", genotype)
    for kind in (kind for kind in RIVALS if kind in known.config.train.compare and kind in OF_THE_SPACE):
        rival = OF_THE_SPACE[kind](known)
        if isinstance(rival, str):
            remarks.append(Remark(role=kind, text=rival))
        elif before := add(kind, kind, rival):
            remarks.append(Remark(role=kind, text=DONE.format(before)))
    for point in points:
        if point.recovered:
            add(point.name, "point", Genotype.parse(str(point.genotype)))
    return Contest(candidates=tuple(found), remarks=tuple(remarks))


def for_others(known: Snapshot) -> Snapshot:
    """What the winner is compared with may use its limits: those were held lower for what networks like it take."""
    return known.holding({resource: max(share, AIMS_AT) for resource, share in known.held})


def _random_within(known: Snapshot, count: int, seen: dict[str, str]) -> list[Genotype]:
    """Networks that were drawn, of many those that take most of the limits: so far the winner may go, too."""
    rng = np.random.default_rng(evaluation_seed(known.config.seed, "comparison"))
    budgets = known.limits
    found: dict[str, Genotype] = {}
    for _ in range(DRAWS if count else 0):
        genotype = known.space.sample(rng)
        function = function_id(known.space, genotype)
        if function not in seen and function not in found and known.within(genotype, budgets):
            found[function] = genotype
            if len(found) == count * (DRAWN_FOR_EACH if budgets else 1):
                break
    return sorted(found.values(), key=lambda genotype: -_most_used(known, genotype))[:count]


def _most_used(known: Snapshot, genotype: Genotype) -> float:
    """The largest share of an upper limit that the network takes; 0 without one."""
    return max(_shares(known, genotype), default=0.0)


def _shares(known: Snapshot, genotype: Genotype) -> list[float]:
    costs = known.costs_of(genotype)
    return [costs[budget.resource] / budget.at_most for budget in known.limits if budget.at_most]


# rivals that are networks of the space: a genotype, or why there is none


def depth(known: Snapshot) -> Genotype | str:
    """The best predicted network whose blocks are the base's or nothing."""
    return _best_of_kinds(known, LEFT_OUT) or "Leaving out blocks alone does not reach the limits."


def of_whole_blocks(known: Snapshot) -> Genotype | None:
    """The best predicted network whose blocks are the base's, one linear map or nothing; None within no limits."""
    return _best_of_kinds(known, GIVEN_UP)


def has_whole_blocks(known: Snapshot, network: Genotype) -> bool:
    """Whether each of its blocks is the base's, one linear map or nothing."""
    return all(_is_base_or(GIVEN_UP, known, position, choice) for position, choice in enumerate(network.choices))


def has_own_blocks_only(known: Snapshot, network: Genotype) -> bool:
    """Whether each of its blocks is the base's or nothing."""
    return all(_is_base_or(LEFT_OUT, known, position, choice) for position, choice in enumerate(network.choices))


def _best_of_kinds(known: Snapshot, kinds: Sequence[str]) -> Genotype | None:
    """The best predicted network whose blocks are the base's or of these kinds."""
    rules = [
        Rule(kind="forbid", blocks=((position, choice),))
        for position, count in enumerate(known.space.num_choices)
        for choice in range(count)
        if not _is_base_or(kinds, known, position, choice)
    ]
    problem = known.problem(known.limits)
    return _solved(known, replace(problem, rules=(*problem.rules, *rules)))


def _is_base_or(kinds: Sequence[str], known: Snapshot, position: int, choice: int) -> bool:
    return choice == known.base.choices[position] or known.space.positions[position].blocks[choice].kind in kinds


def largest(known: Snapshot) -> Genotype | str:
    """The network of most FLOPs within the limits."""
    return _solved(known, known.problem_of_most("flops")) or "No network is within the limits."


def _solved(known: Snapshot, problem: SelectionProblem) -> Genotype | None:
    result = solve(problem, time_limit_s=known.config.select.time_limit_s)
    return result.best.genotype if result.selections else None


def greedy(known: Snapshot) -> Genotype | str:
    """From the base, swap by swap, each the one that loses least for what it saves, until the limits are kept."""
    network, sign = known.base, known.predictor.table.sign
    while (over := _excess(known, network)) > 0:
        swaps = [swap for swap in known.space.neighbours(network) if _excess(known, swap) < over]
        if not swaps:
            return "No single swap brings it nearer to the limits."
        now, *then = known.predictor.predict([network, *swaps])
        saved = [over - _excess(known, swap) for swap in swaps]
        loss = [sign * (now.metric - each.metric) for each in then]
        network = swaps[min(range(len(swaps)), key=lambda index: loss[index] / saved[index])]
    return network if known.within(network, known.limits) else "It ends outside the limits."


def _excess(known: Snapshot, network: Genotype) -> float:
    """By how much upper limits are broken, as shares of them, together."""
    return sum(max(0.0, share - 1) for share in _shares(known, network))


OF_THE_SPACE: dict[Baseline, Callable[[Snapshot], Genotype | str]] = {
    "depth": depth,
    "greedy": greedy,
    "largest": largest,
}
