"""Meeting in the middle of random halves: better networks, within all limits."""

import numpy as np

from nas_core.program import meeting
from nas_core.program.incumbents import networks
from nas_core.program.linear import LinearProgram, TableProgram
from nas_core.program.meeting import Meetings
from nas_core.program.relaxation import Relaxation, relax
from tests.benchmarks.knapsacks import mmkp, problem_of


def made(name: str, seed: int = 0) -> tuple[LinearProgram, Relaxation]:
    problem = problem_of(mmkp(name, seed))
    lp = TableProgram(problem, problem.tables[0]).linear(problem.budgets)
    assert lp is not None
    relaxation = relax(lp)
    assert relaxation is not None
    return lp, relaxation


def is_within(lp: LinearProgram, columns_G: np.ndarray) -> bool:
    return bool((lp.rows_KC[:, columns_G].sum(axis=1) <= lp.limits_K).all())


def test_halves_whose_lists_are_complete_hold_the_best_network() -> None:
    lp, relaxation = made("I01")
    worst = next(iter(networks(lp, relaxation, (), deadline=0.0)))
    grid = np.indices((5,) * 5).reshape(5, -1).T + lp.starts_G1[:-1]
    totals = lp.rows_KC[:, grid].sum(axis=2)
    best = lp.value_C[grid].sum(axis=1)[(totals <= lp.limits_K[:, None]).all(axis=0)].max()
    now, search = worst, Meetings(lp, relaxation, np.random.default_rng(0))
    while (found := search.by_halves(now, deadline=float("inf"))) is not None:
        assert is_within(lp, found)
        assert lp.value_of(found) > lp.value_of(now)
        now = found
    assert lp.value_of(now) == best


def test_both_ways_better_a_network_of_ten_limits(monkeypatch) -> None:
    monkeypatch.setattr(meeting, "MOST_FREE", 12)  # some groups keep their columns
    lp, relaxation = made("I03")
    start = list(networks(lp, relaxation, (), deadline=0.0))[-1]
    search = Meetings(lp, relaxation, np.random.default_rng(1))
    assert search.has_quarters
    for way in (search.by_halves, search.by_quarters):
        now = start
        for _ in range(8):
            found = way(now, float("inf"))
            if found is not None:
                assert is_within(lp, found)
                assert lp.value_of(found) > lp.value_of(now)
                now = found
        assert lp.value_of(now) > lp.value_of(start)
