"""The core in chunks: all that could be better than a known network is looked at."""

import numpy as np
import pytest

from nas_core.program import Status, halves, solve
from nas_core.program.closing import Closing
from nas_core.program.halves import CoreTooLargeError
from nas_core.program.incumbents import networks
from tests.benchmarks.knapsacks import mmkp, problem_of
from tests.nas_core.program.test_meeting import is_within, made


@pytest.mark.parametrize("seed", range(4))
def test_the_best_network_is_found_from_any_and_nothing_above_it(seed: int) -> None:
    lp, relaxation = made("I02", seed)
    best = solve(problem_of(mmkp("I02", seed))).best.value - float(lp.offset)
    poor = next(iter(networks(lp, relaxation, (), deadline=0.0)))
    for value in (lp.value_of(poor) - 200, lp.value_of(poor), best - 1):
        found = Closing(lp, relaxation, value).better(float("inf"))
        if value >= best:
            assert found is None
            continue
        assert found is not None
        assert is_within(lp, found)
        assert lp.value_of(found) == best
    assert Closing(lp, relaxation, best).better(float("inf")) is None


def test_halves_are_counted_beforehand() -> None:
    lp, relaxation = made("I02")
    search = Closing(lp, relaxation, relaxation.bound - 30)
    everything, kept = search.num_halves()
    left, right = (search.quarters[i] + search.quarters[i + 2] for i in (0, 1))
    sizes = [
        [len(halves.half_of(side, relaxation.loss_C, lp.rows_KC.T, g, np.inf).loss_S) for side in (left, right)]
        for g in (search.g, search.g / 2)
    ]
    assert sum(sizes[0]) <= everything <= 1.5 * sum(sizes[0])
    assert max(sizes[1]) <= kept <= 1.5 * max(sizes[1]) + 5


def test_the_deadline_ends_it() -> None:
    lp, relaxation = made("I02")
    with pytest.raises(CoreTooLargeError):
        Closing(lp, relaxation, relaxation.bound - 30).better(deadline=0.0)


def test_a_core_too_large_to_list_goes_by_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(mmkp("I02"))
    by_levels = solve(problem)
    monkeypatch.setattr("nas_core.program.additive.core.levels", _too_large)
    in_chunks = solve(problem)
    assert (by_levels.status, in_chunks.status) == (Status.OPTIMAL, Status.OPTIMAL)
    assert in_chunks.route == "core in chunks"
    assert in_chunks.best.value == by_levels.best.value


def _too_large(*_: object, **__: object) -> None:
    raise CoreTooLargeError
