"""Branch and bound over lists of parts: the best network, and bounds that hold wherever it ends."""

import itertools
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nas_core.program import Budget, SelectionProblem, Status, branching, endings, lists, solve
from nas_core.program.answers import Apart
from nas_core.program.branching import Branching
from nas_core.program.endings import Endings, Partners
from nas_core.program.exact import rounded_up
from nas_core.program.halves import CoreTooLargeError
from nas_core.program.incumbents import networks
from nas_core.program.linear import LinearProgram, TableProgram
from nas_core.program.relaxation import Relaxation, relax
from nas_core.space.genotypes import Rule
from tests.benchmarks.knapsacks import mmkp, problem_of
from tests.nas_core.program.test_meeting import is_within, made

NEVER_ENDS = float("inf")


def best_of_all(lp: LinearProgram) -> int:
    """The value of the best network, in whole units, by looking at each."""
    return max(value for value, _ in within(lp))


def within(lp: LinearProgram) -> list[tuple[int, tuple[int, ...]]]:
    """(value in whole units, columns) of all networks within the rows."""
    assert lp.integers_C is not None
    groups = [range(low, high) for low, high in itertools.pairwise(lp.starts_G1.tolist())]
    networks = (n for n in itertools.product(*groups) if is_within(lp, np.array(n)))
    return [(int(lp.integers_C[list(n)].sum()), n) for n in networks]


def cheapest(lp: LinearProgram) -> np.ndarray:
    """[G] columns of some network within the rows."""
    return next(iter(networks(lp, relax(lp), (), deadline=0.0)))


def ragged(seed: int, most: int) -> tuple[LinearProgram, Relaxation]:
    """Groups of one to five columns, costs of four limits up to ``most``."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, 7).tolist()
    costs = {f"c{k}": [rng.integers(0, most, n).tolist() for n in sizes] for k in range(4)}
    limits = {name: int(sum(np.mean(row) for row in rows) * rng.uniform(0.7, 1.1)) for name, rows in costs.items()}
    cheap = [int(np.argmin([sum(costs[name][p][c] for name in costs) for c in range(n)])) for p, n in enumerate(sizes)]
    problem = SelectionProblem(
        score=[rng.integers(0, 100, n).tolist() for n in sizes],
        costs=costs,
        budgets=tuple(
            Budget(resource=name, at_most=max(limit, sum(costs[name][p][c] for p, c in enumerate(cheap))))
            for name, limit in limits.items()
        ),
    )
    lp = TableProgram(problem, problem.tables[0]).linear(problem.budgets)
    relaxation = relax(lp)
    assert relaxation is not None
    return lp, relaxation


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[Partners]:
    """Half of the groups is looked up in every search, however small; what was found there."""
    monkeypatch.setattr(branching, "FEW_IN_ALL", 0)
    monkeypatch.setattr(branching, "FEWEST_GROUPS", 2)
    found, partners = list[Partners](), Endings.partners

    def noted(*args: Any) -> Partners:
        found.append(partners(*args))
        return found[-1]

    monkeypatch.setattr(Endings, "partners", noted)
    return found


@pytest.mark.parametrize("most", [10, 10**6, 10**15])
@pytest.mark.parametrize("seed", range(6))
def test_it_finds_what_looking_at_all_networks_finds(seed: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MOST_PARTS", 3)  # lists in pieces
    monkeypatch.setattr(lists, "FEW_PARTS", 0)
    _finds_the_best(*ragged(seed, most))


@pytest.mark.parametrize("slacks", [1, 4_000])
@pytest.mark.parametrize("most", [10, 10**6, 10**15])
def test_half_of_the_groups_is_looked_up(
    most: int, slacks: int, looked_up: list[Partners], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells of a unit and wide ones; parts that are looked up, and such as have too much room for that."""
    monkeypatch.setattr(endings, "MOST_SLACKS", slacks)
    for seed in range(4):
        _finds_the_best(*ragged(seed, most))
    found, roomy = (sum(map(len, lists)) for lists in zip(*((p.part_N, p.roomy_S) for p in looked_up), strict=True))
    assert found if slacks > 1 else roomy


def test_too_long_a_half_is_made_of_fewer_groups(looked_up: list[Partners], monkeypatch: pytest.MonkeyPatch) -> None:
    lp, relaxation = ragged(0, 10)
    monkeypatch.setattr(branching, "MOST_ENDINGS", 4)
    search = Branching(lp, relaxation, cheapest(lp), NEVER_ENDS)
    search.run()
    assert search.best == best_of_all(lp)
    assert search.num_ending < lp.num_groups // 2


@pytest.mark.usefixtures("looked_up")
def test_what_is_above_a_network_found_is_looked_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branching, "LESS", 1.0)
    monkeypatch.setattr(lists, "MOST_PARTS", 3)
    monkeypatch.setattr(lists, "FEW_PARTS", 0)
    monkeypatch.setattr(branching, "FIRST", 1.0)  # the first goal is below the best network
    through, begun = Branching._is_looked_through, list[bool | None]()

    def noted(search: Branching, goal: int) -> bool | None:
        begun.append(through(search, goal))
        return begun[-1]

    monkeypatch.setattr(Branching, "_is_looked_through", noted)
    for seed in range(4):
        _finds_the_best(*ragged(seed, 1000))
    assert None in begun
    assert True in begun


def _finds_the_best(lp: LinearProgram, relaxation: Relaxation) -> None:
    """From the worst network on."""
    networks = within(lp)
    search = Branching(lp, relaxation, np.array(min(networks)[1]), NEVER_ENDS)
    assert search.fits
    search.run()
    assert search.is_proven
    assert is_within(lp, search.best_G)
    assert search.bound == search.best == search.worth(search.best_G) == max(networks)[0]


@pytest.mark.parametrize("seed", range(3))
def test_wherever_it_ends_its_bound_holds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MOST_PARTS", 50)
    lp, relaxation = made("I02", seed)
    complete = Branching(lp, relaxation, cheapest(lp), NEVER_ENDS)
    complete.run()
    bounds = []
    for ticks in (1, 5, 20, 100, 1000):
        clock = itertools.count()
        monkeypatch.setattr(branching, "time", SimpleNamespace(monotonic=lambda clock=clock: float(next(clock))))
        search = Branching(lp, relaxation, cheapest(lp), deadline=float(ticks))
        search.run()
        bounds.append(search.bound)
        assert search.best <= complete.best <= search.bound
    assert bounds[0] > bounds[-1]


def test_a_gap_of_a_few_units_is_closed_though_the_time_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    lp, relaxation = made("I02", 2)
    complete = Branching(lp, relaxation, cheapest(lp), NEVER_ENDS)
    complete.run()
    clock = itertools.count()
    monkeypatch.setattr(branching, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    search = Branching(lp, relaxation, complete.best_G, deadline=500.0)
    assert search.best < search.bound < search.best + 20
    search.run()
    assert search.is_proven


def test_without_rows_the_best_of_each_group_is_the_best() -> None:
    problem = SelectionProblem(score=[[1, 2], [3, 4]])
    lp = TableProgram(problem, problem.tables[0]).linear(())
    assert lp is not None
    relaxation = relax(lp)
    assert relaxation is not None
    search = Branching(lp, relaxation, lp.columns.columns((0, 0)), NEVER_ENDS)
    search.run()
    assert search.fits
    assert search.is_proven
    assert lp.columns.choices(search.best_G) == (1, 1)


def test_the_deadline_ends_it_with_what_was_known() -> None:
    lp, relaxation = made("I03")
    known_G = cheapest(lp)
    search = Branching(lp, relaxation, known_G, deadline=0.0)
    before = search.bound
    search.run()
    assert not search.is_proven
    assert search.bound == before
    assert (search.best_G == known_G).all()


def test_a_network_to_keep_away_from_is_not_found() -> None:
    lp, relaxation = made("I01")
    first = Branching(lp, relaxation, cheapest(lp), NEVER_ENDS)
    first.run()
    apart = lp.with_apart([Apart(choices=lp.columns.choices(first.best_G), distance=2)])
    second = Branching(apart, relaxation, cheapest(apart), NEVER_ENDS)
    second.run()
    assert second.is_proven
    assert second.best == best_of_all(apart) < first.best


def test_a_core_too_large_to_list_is_branched(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(mmkp("I02"))
    by_levels = solve(problem)
    monkeypatch.setattr("nas_core.program.additive.core.levels", _too_large)
    branched = solve(problem)
    assert (by_levels.status, branched.status) == (Status.OPTIMAL, Status.OPTIMAL)
    assert branched.route == "branching"
    assert branched.best.value == by_levels.best.value


def test_a_bound_of_whole_scores_is_whole() -> None:
    result = solve(problem_of(mmkp("I04")), time_limit_s=0.2)
    assert result.status is Status.FEASIBLE
    assert result.bound.is_integer()
    assert result.gap.is_integer()


@pytest.mark.parametrize("text", ["72.74", "0.3", "7274", "1e-9", "1234567890.123"])
def test_a_bound_is_the_decimal_that_it_prints(text: str) -> None:
    assert repr(rounded_up(Fraction(text))) == repr(float(text))
    assert rounded_up(Fraction(text) + Fraction(1, 10**40)) == np.nextafter(float(text), np.inf)


def test_rules_of_many_groups_are_no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one limit and many rules a proof is tried, however many groups there are."""
    rng = np.random.default_rng(0)
    score = rng.integers(0, 100, (62, 2))
    cost = score + rng.integers(0, 60, score.shape)
    best = score.argmax(axis=1).tolist()
    pairs = [rng.choice(62, 2, replace=False).tolist() for _ in range(30)]
    problem = SelectionProblem(
        score=score.tolist(),
        costs={"c": cost.tolist()},
        budgets=(Budget(resource="c", at_most=int(cost.mean(axis=1).sum())),),
        rules=tuple(Rule(kind="forbid", blocks=((a, best[a]), (b, best[b]))) for a, b in pairs),
    )
    monkeypatch.setattr("nas_core.program.additive.core.levels", _too_large)
    monkeypatch.setattr("nas_core.program.additive.FIRST_MOST_S", 0.2)
    assert solve(problem).status is Status.OPTIMAL


def _too_large(*_: object, **__: object) -> None:
    raise CoreTooLargeError
