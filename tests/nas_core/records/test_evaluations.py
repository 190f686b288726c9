"""Tables made of records: seeds averaged, signs turned once, gaps named."""

import pytest

from nas_core.base.errors import IncompleteTableError
from nas_core.records.evaluations import Cost, CostTable, EvaluationTable, deduplicated, from_table, to_table
from nas_core.space.genotypes import Genotype
from tests.nas_core.records.test_store import evaluation


def cost(position, choice, value, **changes):
    fields = {
        "space_id": "space", "profiler_id": "p", "device": "any", "genotype": "", "position": position,
        "choice": choice, "resolution": 8, "resource": "flops", "status": "ok", "value": value, "spread": 0.0,
        "num_repeats": 1, "batch_size": 1, "num_threads": 1,
    }  # fmt: skip
    return Cost(**{**fields, **changes})


BLOCKS = [cost(-1, 0, 10.0), cost(0, 0, 1.0), cost(0, 1, 2.0), cost(1, 0, 4.0)]


def test_records_survive_arrow():
    rows = [evaluation(), evaluation("1-1", None, status="failed", message="NaN")]
    assert from_table(to_table(rows), type(rows[0])) == rows
    assert from_table(to_table(BLOCKS), Cost) == BLOCKS


def test_seeds_are_averaged_and_failures_left_out():
    rows = [evaluation(metric=0.4), evaluation(metric=0.6, seed=1), evaluation("1-1", None, status="failed")]
    table = EvaluationTable.from_rows(rows)
    assert table.genotypes == (Genotype((0, 1)),)
    assert table.metric_K.tolist() == [0.5]
    assert table.num_seeds_K.tolist() == [2]


def test_a_metric_to_minimise_is_turned_once():
    table = EvaluationTable.from_rows([evaluation(metric=3.0, higher_is_better=False)])
    assert (table.metric_K[0], table.sign) == (-3.0, -1)


def test_no_success_is_an_error_that_says_why():
    with pytest.raises(IncompleteTableError, match=r"no success .*out of memory"):
        EvaluationTable.from_rows([evaluation(metric=None, status="failed", message="out of memory")])


def test_the_first_of_equal_keys_is_kept():
    rows = [evaluation(metric=0.1), evaluation(metric=0.2)]
    assert deduplicated(rows) == rows[:1]


def test_a_network_costs_its_blocks_and_the_fixed_part():
    assert CostTable.from_rows(BLOCKS, "flops", (2, 1), 8).total(Genotype((1, 0))) == 16.0


def test_peak_memory_is_the_largest_of_its_blocks():
    rows = [cost(row.position, row.choice, row.value, resource="activation_bytes") for row in BLOCKS]
    assert CostTable.from_rows(rows, "activation_bytes", (2, 1), 8).total(Genotype((1, 0))) == 10.0


def test_a_block_without_a_price_is_named():
    with pytest.raises(IncompleteTableError, match="position 1, choice 0"):
        CostTable.from_rows(BLOCKS[:-1], "flops", (2, 1), 8)
    failed = [*BLOCKS[:-1], cost(1, 0, None, status="failed", message="no such kernel")]
    with pytest.raises(IncompleteTableError, match="no such kernel"):
        CostTable.from_rows(failed, "flops", (2, 1), 8)
