"""How additive a measured cost is, on costs whose answer is known."""

import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from nas_core.base.errors import IncompleteTableError
from nas_core.costs import additivity, cost_tables, profile
from nas_core.costs.additivity import _kendall
from nas_core.costs.settings import ProfileConfig
from nas_core.records.evaluations import WHOLE_NETWORK, Cost, CostTable
from nas_core.space.genotypes import Genotype
from tests.spaces import GivenChain, tiny

TABLE = CostTable(
    resource="latency_ms",
    device="cpu",
    resolution=8,
    fixed=1.0,
    block=((0.0, 1.0, 2.0), (0.0, 1.5, 3.5), (0.5, 1.0, 4.0)),
)


def network(genotype: Genotype | str, value: float | None, **changes: object) -> Cost:
    fields = {
        "space_id": "s",
        "profiler_id": "p",
        "device": "cpu",
        "genotype": str(genotype),
        "position": WHOLE_NETWORK,
        "choice": 0,
        "resolution": 8,
        "resource": "latency_ms",
        "status": "failed" if value is None else "ok",
        "value": value,
        "spread": 0.0,
        "num_repeats": 3,
        "batch_size": 1,
        "num_threads": 1,
    }
    return Cost(**{**fields, **changes})


GENOTYPES = list(tiny().genotypes())[::2]


def test_a_sum_that_is_exact():
    result = additivity(TABLE, [network(g, TABLE.total(g)) for g in GENOTYPES])
    assert result.n == len(GENOTYPES)
    assert (result.r2, result.kendall) == (1.0, 1.0)
    assert result.worst_relative_error == 0.0
    assert result.slope == pytest.approx(1.0)
    assert result.intercept == pytest.approx(0.0, abs=1e-9)
    assert result.corrected(TABLE).total(GENOTYPES[3]) == pytest.approx(TABLE.total(GENOTYPES[3]))


def test_an_affine_distortion_is_corrected():
    result = additivity(TABLE, [network(g, 0.5 + 1.25 * TABLE.total(g)) for g in GENOTYPES])
    assert (result.slope, result.intercept) == (pytest.approx(1.25), pytest.approx(0.5))
    assert result.worst_relative_error > 0.2
    assert result.corrected_worst_relative_error < 1e-9
    assert result.usable
    for genotype in GENOTYPES:
        assert result.corrected(TABLE).total(genotype) == pytest.approx(0.5 + 1.25 * TABLE.total(genotype))


def test_a_correction_that_does_not_help_is_not_made():
    noise = [network(g, TABLE.total(g) * (1 + 0.1 * (-1) ** index)) for index, g in enumerate(GENOTYPES[:4])]
    backwards = [network(g, 20 - TABLE.total(g)) for g in GENOTYPES]
    assert additivity(TABLE, backwards).slope < 0
    for rows in (noise, backwards):
        result = additivity(TABLE, rows)
        assert not result.usable
        assert result.corrected(TABLE) is TABLE


def test_a_line_through_networks_that_are_nearly_alike_is_told_by_one_that_is_not():
    """Sums of 2.5 to 4 that took 3.1 all: by themselves they make 3.3 of a sum of 10.5, which took 10."""
    alike, large = [network("1-0-0", 3.10), network("0-1-0", 3.11), network("1-1-0", 3.13)], Genotype((2, 2, 2))
    misled = additivity(TABLE, alike)
    assert misled.usable
    assert misled.corrected(TABLE).total(large) < 4
    known = additivity(TABLE, [network(large, 10.0), *alike])
    assert known.corrected(TABLE).total(large) == pytest.approx(10, rel=0.1)


def test_networks_that_are_all_alike_have_no_ranking():
    result = additivity(TABLE, [network(GENOTYPES[1], 2 * TABLE.total(GENOTYPES[1]))] * 3)
    assert math.isnan(result.kendall)
    assert math.isnan(result.r2)
    assert (result.slope, result.intercept) == (pytest.approx(2.0), 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_rank_correlation_is_scipys(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 6, 15).astype(float), rng.integers(0, 6, 15).astype(float)
    assert _kendall(first, second) == pytest.approx(kendalltau(first, second).statistic)


def test_rows_of_something_else_are_left_out():
    rows = [network(g, TABLE.total(g)) for g in GENOTYPES]
    g = GENOTYPES[0]
    others = [
        network(g, None),
        network(g, 1e9, resolution=16),
        network(g, 1e9, device="another"),
        network(g, 1e9, resource="flops"),
        network("", 1e9, position=0),
    ]
    assert additivity(TABLE, rows + others) == additivity(TABLE, rows)
    with pytest.raises(IncompleteTableError, match="found 2 measurements, expected 3 at least"):
        additivity(TABLE, rows[:2] + others)


def test_counts_are_exactly_additive_and_latency_can_be_compared():
    space = tiny()
    genotypes = [space.parse(text) for text in ("0-0-0", "2-2-2", "1-0-2", "0-1-1", "2-0-1", "2-0-1")]
    rows = profile(
        GivenChain(space), genotypes, ProfileConfig(repeats=5, warmup=1, device="cpu"), ["flops", "latency_ms"]
    )
    flops = additivity(cost_tables(space, rows, "flops")[8], rows)
    assert (flops.r2, flops.worst_relative_error) == (1.0, 0.0)
    latency = additivity(cost_tables(space, rows, "latency_ms")[8], rows)
    assert latency.n == flops.n == 5, "the network asked for twice is measured once"
    assert latency.device == latency.as_dict()["device"] != "any"
