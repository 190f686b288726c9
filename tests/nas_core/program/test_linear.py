"""Costs as integers, where floats end."""

import pytest

from nas_core.program import Table
from nas_core.program.exact import exact
from nas_core.program.linear import MAX_TOTAL, integer_costs


@pytest.mark.parametrize("extreme", [1.7e308, 1e100, 5e-324])
def test_costs_at_the_ends_of_floats_are_scaled_and_rounded_down(extreme):
    table = Table(score=((0.0, 1.0), (0.0, 3.0)), costs={"flops": ((1.0, extreme), (extreme, 2.0))})
    costs = integer_costs(table, "flops")
    assert not costs.is_exact
    assert 0 <= costs.flat.min() <= costs.flat.max() < MAX_TOTAL // 2
    for value, integer in zip((1.0, extreme, extreme, 2.0), costs.flat.tolist(), strict=True):
        assert 0 <= exact(value) * costs.scale - integer < 1
