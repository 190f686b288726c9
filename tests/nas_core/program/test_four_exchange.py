"""Exchanges of up to four groups' columns: what is found is within the rows, and nothing better is left."""

import itertools

import numpy as np
import pytest

from nas_core.program.exchange import Exchanges
from nas_core.program.four_exchange import FourExchanges
from nas_core.program.incumbents import networks
from nas_core.program.linear import LinearProgram
from nas_core.program.relaxation import Relaxation
from tests.nas_core.program.test_branching import ragged
from tests.nas_core.program.test_meeting import is_within, made

NEVER_ENDS = float("inf")


def searching(lp: LinearProgram, relaxation: Relaxation) -> FourExchanges:
    return FourExchanges(lp, relaxation, Exchanges(lp, relaxation, np.random.default_rng(0)))


@pytest.mark.parametrize("most", [10, 10**6, 10**15])
@pytest.mark.parametrize("seed", range(3))
def test_no_exchange_of_four_is_better_than_where_it_ends(seed: int, most: int) -> None:
    lp, relaxation = ragged(seed, most)
    start = next(iter(networks(lp, relaxation, (), deadline=0.0)))
    *_, last = (found for found in searching(lp, relaxation)._descent(start) if found is not None)
    groups = [range(low, high) for low, high in itertools.pairwise(lp.starts_G1.tolist())]
    near = (np.array(n) for n in itertools.product(*groups) if sum(a != b for a, b in zip(n, last, strict=True)) <= 4)
    assert is_within(lp, last)
    assert max(lp.value_of(network) for network in near if is_within(lp, network)) == lp.value_of(last)


def test_turns_go_on_with_better_networks() -> None:
    lp, relaxation = made("I03")
    now = next(iter(networks(lp, relaxation, (), deadline=0.0)))
    search = searching(lp, relaxation)
    assert search.fits
    for _ in range(3):
        for found in search.turn(now, NEVER_ENDS):
            assert is_within(lp, found)
            assert lp.value_of(found) > lp.value_of(now)
            now = found
            break
    assert lp.value_of(now) > lp.value_of(next(iter(networks(lp, relaxation, (), deadline=0.0))))


def test_with_many_groups_too_few_columns_of_each_would_be_looked_at() -> None:
    assert not searching(*made("I10")).fits
