"""Numbers as integers, where floats end."""

from fractions import Fraction

import numpy as np
import pytest

from nas_core.program import Budget, SelectionProblem
from nas_core.program.answers import Apart
from nas_core.program.exact import exact
from nas_core.program.linear import MAX_TOTAL, TableProgram, decimals_of
from nas_core.space.genotypes import Rule


@pytest.mark.parametrize("extreme", [1.7e308, 1e100, 5e-324, -2.5e-9, 0.1, 3.0])
def test_numbers_keep_every_printed_digit(extreme):
    values = [1.0, extreme, 123456.789, 2.0]
    decimals = decimals_of(np.array(values), 4)
    assert [Fraction(n, 10**decimals.decimals) for n in decimals.integers.tolist()] == list(map(exact, values))


def program(score, cost, at_most):
    problem = SelectionProblem(score=score, costs={"c": cost}, budgets=(Budget(resource="c", at_most=at_most),))
    return TableProgram(problem, problem.tables[0]).linear(problem.budgets)


@pytest.mark.parametrize("mask", [1e6, 1e18, 1e99])
def test_blocks_that_never_fit_leave_before_anything_is_scaled(mask):
    lp = program(((9.0, 1.0, 0.0), (0.0, 3.0, 1.0)), ((mask, 0.25, 0.5), (0.25, 0.75, 0.5)), 1.0)
    assert lp.columns.choice_C.tolist() == [1, 2, 0, 1, 2]
    assert not lp.is_relaxed
    assert lp.rows_KC.tolist() == [[0, 1, 0, 2, 1]]  # in quarters, less the cheapest of each position
    assert lp.limits_K.tolist() == [2]


def test_costs_whose_range_does_not_fit_admit_whatever_is_within_the_limit():
    lp = program(((0.0, 1.0), (0.0, 3.0)), ((0.0, 1e30), (1e-9, 1e30)), 1.5e30)
    assert lp.is_relaxed
    assert 0 < lp.limits_K[0] < MAX_TOTAL
    for first in (0, 1):
        for second in (2, 3):
            total = lp.rows_KC[0, first] + lp.rows_KC[0, second]
            assert (total <= lp.limits_K[0]) >= (not (first == 1 and second == 3))


def test_an_offset_of_a_position_weighs_nothing():
    lp = program(((1e15, 1e15 + 0.5), (0.0, 3.0)), ((0.0, 0.0), (0.0, 2.0)), 1.0)
    assert lp.value_C.tolist() == [-0.5, 0.0, 0.0]
    assert lp.offset == 10**15 + Fraction(1, 2)


def test_a_limit_that_no_network_meets_is_found_exactly():
    assert program(((0.0,), (0.0,)), ((0.1,), (0.2,)), 0.3) is not None
    assert program(((0.0,), (0.0,)), ((0.1,), (0.2,)), 0.29999999999999993) is None


def test_networks_are_kept_apart_by_a_row_that_counts_every_tied_position():
    problem = SelectionProblem(
        score=((1.0, 2.0, 3.0), (1.0, 2.0, 3.0), (1.0, 2.0)), rules=(Rule(kind="equal", positions=(0, 1)),)
    )
    lp = TableProgram(problem, problem.tables[0]).linear(())
    apart = lp.with_apart([Apart(choices=(2, 2, 0), distance=2)])
    assert apart.rows_KC.tolist() == [[0, 0, 2, 1, 0]]
    assert apart.limits_K.tolist() == [1]
