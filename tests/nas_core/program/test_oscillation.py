"""A walk in and out of the limits: what it finds is within them, ever better, and on small programs the best."""

import numpy as np
import pytest

from nas_core.program import Budget, SelectionProblem, incumbents, oscillation
from nas_core.program.incumbents import networks
from nas_core.program.linear import LinearProgram, TableProgram
from nas_core.program.oscillation import Oscillation
from nas_core.program.relaxation import Relaxation, relax
from tests.nas_core.program.test_branching import best_of_all, cheapest, ragged
from tests.nas_core.program.test_meeting import is_within


def many_limits(num_groups: int, seed: int = 0) -> tuple[LinearProgram, Relaxation]:
    """20 limits on groups of ten columns, as in ``knapsacks``."""
    rng = np.random.default_rng(seed)
    cost = rng.integers(0, 10, (20, num_groups, 10))
    score = np.tensordot(rng.integers(1, 11, 20), cost, axes=1) + rng.integers(0, 21, (num_groups, 10))
    problem = SelectionProblem(
        score=score.tolist(),
        costs={f"c{k}": rows.tolist() for k, rows in enumerate(cost)},
        budgets=tuple(Budget(resource=f"c{k}", at_most=5 * num_groups) for k in range(len(cost))),
    )
    lp = TableProgram(problem, problem.tables[0]).linear(problem.budgets)
    relaxation = relax(lp)
    assert relaxation is not None
    return lp, relaxation


def walked(lp: LinearProgram, relaxation: Relaxation, start_G: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """What one turn finds."""
    walk = Oscillation(lp, relaxation, np.random.default_rng(seed))
    return list(walk.turn(start_G, deadline=float("inf")))


@pytest.mark.parametrize("most", [10, 10**6, 10**15])
@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_best_of_few(seed: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oscillation, "PER_GROUP", 5.0)
    monkeypatch.setattr(oscillation, "REST", 1)
    monkeypatch.setattr(oscillation, "STALE", 2_000)
    lp, relaxation = ragged(seed, most)
    start = cheapest(lp)
    found = [start, *walked(lp, relaxation, start)]
    assert lp.integers_C is not None
    assert int(lp.integers_C[found[-1]].sum()) == best_of_all(lp)


def test_networks_are_within_the_limits_and_ever_better() -> None:
    lp, relaxation = many_limits(40)
    start = next(iter(networks(lp, relaxation, (), deadline=0.0)))
    found = [start, *walked(lp, relaxation, start)]
    assert all(is_within(lp, network) for network in found)
    values = [lp.value_of(network) for network in found]
    assert values == sorted(set(values))
    assert len(values) > 2


def test_a_walk_goes_on_in_the_next_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oscillation, "TURN_S", 0.05)
    lp, relaxation = many_limits(30)
    start = next(iter(networks(lp, relaxation, (), deadline=0.0)))
    walk = Oscillation(lp, relaxation, np.random.default_rng(0))
    steps = []
    for _ in range(3):
        start = [start, *walk.turn(start, deadline=float("inf"))][-1]
        steps.append(walk.step)
        assert (walk.slack_K == lp.limits_K - lp.rows_KC[:, walk.column_C[walk.place_G]].sum(axis=1)).all()
    assert 0 < steps[0] < steps[1] < steps[2]


@pytest.mark.parametrize("many_rows", [5, 100])
def test_it_is_asked_where_many_limits_have_a_price(many_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incumbents, "MANY_ROWS", many_rows)
    asked, turn = list[int](), Oscillation.turn

    def noted(self: Oscillation, *args: float) -> object:
        asked.append(1)
        return turn(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Oscillation, "turn", noted)
    monkeypatch.setattr(oscillation, "TURN_S", 0.05)
    lp, relaxation = many_limits(30)
    ticks = iter(range(10**6))
    monkeypatch.setattr(incumbents.time, "monotonic", lambda: float(next(ticks)) / 1000)
    assert list(networks(lp, relaxation, (), deadline=0.5))
    assert bool(asked) == (many_rows == 5)
