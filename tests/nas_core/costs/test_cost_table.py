"""Prices of blocks make the price of a network, each resource in its own way."""

from dataclasses import replace

import pytest

from nas_core.base.errors import IncompleteTableError
from nas_core.costs import profile_blocks
from nas_core.costs.settings import ProfileConfig
from nas_core.families.tiny import tiny
from nas_core.records.evaluations import CostTable

SPACE = tiny()
ROWS = profile_blocks(SPACE, ProfileConfig(), ["flops", "activation_bytes"])


def table(rows, resource="flops"):
    return CostTable.from_rows(rows, resource, SPACE.num_choices, 8)


def test_operations_add_up_and_memory_peaks():
    genotype = SPACE.parse("2-1-2")
    flops, memory = table(ROWS), table(ROWS, "activation_bytes")
    assert (flops.combine, memory.combine) == ("sum", "max")
    assert flops.total(genotype) == flops.fixed + flops.block[0][2] + flops.block[1][1] + flops.block[2][2]
    assert memory.total(genotype) == max(memory.fixed, memory.block[0][2], memory.block[1][1], memory.block[2][2])


def test_prices_of_two_devices_are_not_mixed():
    foreign = [replace(row, device="another", value=(row.value or 0.0) + 1.0) for row in ROWS]
    for rows in (ROWS + foreign[:5], foreign[:5] + ROWS):
        assert table(rows) == table(ROWS)
    assert table(ROWS[:3] + foreign).device == "another"


def test_the_first_block_without_a_price_is_named():
    row = next(row for row in ROWS if (row.position, row.choice, row.resource) == (1, 2, "flops"))
    rest = [other for other in ROWS if other is not row]
    with pytest.raises(IncompleteTableError, match="flops of position 1, choice 2: found no price"):
        table(rest)
    with pytest.raises(IncompleteTableError, match="out of memory"):
        table([*rest, replace(row, status="failed", value=None, message="out of memory")])
