"""Why these blocks: every swap beside predictions and costs worked out one by one, prices beside all networks."""

import itertools

import pytest

from nas_core.space.genotypes import Genotype
from nas_core.study.reasons import reasons
from tests.nas_core.study.test_rounds import scored, with_select


@pytest.fixture
def study(tabular_config, tmp_path):
    limits = ["params<=2 M", "flops<=60 M"]
    return scored(with_select(tabular_config, limits=limits), tmp_path / "study")[0]


def test_swaps_are_all_other_blocks_with_what_they_change(study):
    chosen = Genotype.parse(study.select(study.config.select.limits, top=1).required().genotype)
    found = reasons(study.snapshot, chosen)
    assert found.resources == ("params", "flops")
    assert len(found.swaps) == 8 * 2
    (mine,) = study.predict([chosen])
    assert found.predicted == mine.metric
    costs = study.costs_of(chosen)
    for swap in found.swaps:
        other = chosen.swap(swap.position, swap.choice)
        (prediction,) = study.predict([other])
        assert swap.change == pytest.approx(prediction.metric - mine.metric)
        known = study.costs_of(other)
        assert swap.costs == {name: pytest.approx(known[name] - costs[name]) for name in found.resources}
        limits = study.config.select.limits
        assert swap.breaks == tuple(text for text in limits if not study.within(other, study.budgets([text])))
        assert swap.change <= 1e-9 or swap.breaks  # the chosen is the best predicted


def test_prices_are_what_all_networks_say(study):
    networks = [Genotype(choices) for choices in itertools.product(range(3), repeat=8)]
    values = {row.genotype: row.metric for row in study.predict(networks)}

    costs = {genotype: study.costs_of(genotype) for genotype in networks}

    def best(params: float) -> float:
        return max(values[g] for g in networks if costs[g]["params"] <= params and costs[g]["flops"] <= 60e6)

    found = reasons(study.snapshot, networks[0])
    prices = [price for price in found.prices if price.resource == "params"]
    assert [price.by / price.at_most for price in prices][::2] == [pytest.approx(0.01), pytest.approx(0.1)]
    unit = prices[1].by
    assert unit in (1e3, 1e4, 1e5, 1e6)
    assert unit <= prices[1].at_most / 10 < 10 * unit
    for price in prices:
        assert price.proven
        assert price.predicted == pytest.approx(best(price.at_most + price.by))
        assert price.gain == pytest.approx(price.predicted - best(price.at_most))


def test_without_limits_the_first_resource_is_shown_and_nothing_has_a_price(tabular_config, tmp_path):
    study, _ = scored(with_select(tabular_config, limits=[]), tmp_path / "study")
    found = reasons(study.snapshot, study.base)
    assert found.resources == ("flops",)
    assert found.prices == ()
    assert not any(swap.breaks for swap in found.swaps)
