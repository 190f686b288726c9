"""Quantities as people write them; limits in other units are in ``tests/nas_core/program/test_limits.py``."""

from fractions import Fraction

import pytest

from nas_core.base.errors import ConfigError
from nas_core.base.units import parse_amount, parse_count, unit_of


@pytest.mark.parametrize(
    ("text", "count"),
    [("1.82 G", 1_820_000_000), ("11.69M", 11_690_000), ("4e6", 4_000_000), (" 2 k ", 2000), ("1_000", 1000)],
)
def test_counts_as_people_write_them(text, count):
    assert parse_count(text, "x") == count


@pytest.mark.parametrize("text", ["", "-1", "1.2.3", "5 Q", "0", "5 ms", "60%", "1e999", "1e999999999", "0.1"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(ConfigError, match=r"^program.flops: found "):
        parse_count(text, "program.flops")


def test_amounts_are_exact():
    amount = parse_amount("0.1 ms", "limit")
    assert (amount.number, amount.unit) == (Fraction(1, 10), "ms")


@pytest.mark.parametrize(
    ("resource", "unit"),
    [("latency_ms", "ms"), ("weight_bytes", "B"), ("params_M", "M"), ("FLOPs (M)", "M"), ("energy_mj", "mJ")],
)
def test_the_end_of_a_name_states_the_unit(resource, unit):
    assert unit_of(resource)[0] == unit
    assert unit_of(resource.partition("_")[0].partition(" ")[0]) is None
