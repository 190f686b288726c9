"""One limit: the dynamic program over the core, against a table over all capacities."""

import numpy as np
import pytest

from nas_core.program import Status, solve
from nas_core.program.knapsack import best_columns
from nas_core.program.linear import TableProgram
from nas_core.program.relaxation import relax
from tests.benchmarks.knapsacks import MCKP_KINDS, Instance, log_count, mckp, mmkp, problem_of, read_mmkp, run_dp


@pytest.mark.parametrize("kind", MCKP_KINDS)
@pytest.mark.parametrize("size", [(2, 3), (5, 8), (12, 5), (30, 4)])
def test_the_core_is_as_good_as_the_table(kind: str, size: tuple[int, int]) -> None:
    for seed in range(6):
        instance = mckp(kind, *size, seed)
        problem = problem_of(instance)
        lp = TableProgram(problem, problem.tables[0]).linear(problem.budgets)
        assert lp is not None
        relaxation = relax(lp)
        assert relaxation is not None
        _, best, _, _ = run_dp(instance, 60.0)
        if len(lp.limits_K) == 1:
            columns_G = best_columns(lp, relaxation, deadline=float("inf"))
            assert instance.value(list(lp.columns.choices(columns_G))) == best, (kind, size, seed)
        answer = solve(problem)
        assert answer.status is Status.OPTIMAL
        assert answer.best.value == best


def test_wide_classes_take_the_dynamic_program() -> None:
    answer = solve(problem_of(mckp("weakly", 60, 20)))
    assert (answer.status, answer.route) == (Status.OPTIMAL, "one-limit core")


def test_about_as_many_choices_are_expected_as_there_are() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.integers(0, 30, (8, 5)), rng.integers(0, 10, (3, 8, 5))
    instance = Instance(values=values.tolist(), weights=weights.tolist(), limits=[40, 38, 42])
    every = np.indices((5,) * 8).reshape(8, -1)
    groups = np.arange(8)[:, None]
    fits = (weights[:, groups, every].sum(axis=1) <= np.array(instance.limits)[:, None]).all(axis=0)
    for value in (130, 150, 170):
        expected, _ = log_count(instance, value, np.log(np.array([0.1, 0.3, 0.3, 0.3])))
        assert expected == pytest.approx(np.log((values[groups, every].sum(axis=0)[fits] >= value).sum()), abs=0.4)


def test_the_public_format_is_read(tmp_path) -> None:
    path = tmp_path / "I.txt"
    path.write_text("2 2 1\n10\n1\n5 4\n9 8\n2\n1 2\n7 6\n")
    instance = read_mmkp(path)
    assert (instance.values, instance.weights, instance.limits) == ([[5, 9], [1, 7]], [[[4, 8], [2, 6]]], [10])
    assert solve(problem_of(instance)).best.value == 12


def test_a_network_is_found_wherever_one_is_easy_to_find() -> None:
    for name in ("R40", "I13"):
        instance = mmkp(name)
        answer = solve(problem_of(instance), time_limit_s=1.0)
        assert answer.selections, name
        assert answer.status is Status.FEASIBLE
        assert instance.value(list(answer.best.genotype.choices)) == answer.best.value <= answer.bound
