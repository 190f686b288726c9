"""What the winner is compared with: each found within the study's limits, as one that is found slowly is."""

import itertools

import pytest

from nas_core.space.genotypes import Genotype
from nas_core.study.contestants import contest, depth, for_others, greedy, largest
from nas_core.study.snapshot import AIMS_AT
from nas_core.study.study import Study
from tests.nas_core.study.test_rounds import scored

BASE = "2-2-2-2-2-2-2-2"
LIMITS = ["params<=60%", "flops<=70%"]


@pytest.fixture
def study(tabular_config, tmp_path):
    """A study of a table whose base is over its limits, scored."""
    sections = {
        "design": tabular_config.design.model_copy(update={"base": BASE}),
        "select": tabular_config.select.model_copy(update={"limits": LIMITS}),
    }
    return scored(tabular_config.model_copy(update=sections), tmp_path / "study")[0]


def comparing(study, *kinds, **more):
    train = study.config.train.model_copy(update={"compare": list(kinds), **more})
    return Study(study.config.model_copy(update={"train": train}), study.store)


def within(study, networks):
    return [network for network in networks if study.within(network, study.budgets(LIMITS))]


def test_fewer_blocks_are_the_best_predicted_of_those_that_can_be_left_out(study):
    networks = within(study, (Genotype(choices) for choices in itertools.product((0, 2), repeat=8)))
    best = max(study.predict(networks), key=lambda prediction: prediction.metric)
    found = depth(study.snapshot)
    assert found in networks
    assert study.predict([found])[0].metric == pytest.approx(best.metric, rel=1e-9)  # some are predicted alike


def test_the_largest_is_the_one_of_most_flops_within_the_limits(study):
    networks = within(study, (Genotype(choices) for choices in itertools.product(range(3), repeat=8)))
    most = max(study.flops.total(network) for network in networks)
    assert study.flops.total(largest(study.snapshot)) == most
    assert largest(study.snapshot) in networks


@pytest.mark.parametrize(("held", "others"), [(0.9, AIMS_AT), (0.99, 0.99), (1.1, 1.1)])
def test_what_the_winner_is_compared_with_may_use_the_limits(study, held, others):
    """The limit is held lower for what networks like the winner take beyond their sums: others need not."""
    known = comparing(study, "largest", compare_random=1).snapshot.holding({"flops": held})
    assert dict(for_others(known).held) == {"flops": others}
    winner = str(known.best_evaluated(known.limits)[0])
    found = {each.role: Genotype.parse(each.genotype) for each in contest(known, winner).candidates}
    assert found["largest"] == largest(known.holding({"flops": others}))
    assert known.within(found["random"], known.holding({"flops": others}).limits)


def test_greedy_swaps_end_within_the_limits_and_are_no_better_than_the_optimum(study):
    network = greedy(study.snapshot)
    assert study.within(network, study.budgets(LIMITS))
    optimum = study.select(LIMITS, top=1).required()
    assert study.predict([network])[0].metric <= optimum.predicted + 1e-9


def test_a_base_within_the_limits_is_what_greedy_ends_at(study, tabular_config, tmp_path):
    inside, _ = scored(tabular_config, tmp_path / "inside")
    assert greedy(inside.snapshot) == inside.base


def test_random_networks_are_those_that_take_most_of_the_limits(study):
    (found,) = [each for each in contest(study.snapshot, BASE).candidates if each.role == "random"]
    network = Genotype.parse(found.genotype)
    assert study.within(network, study.budgets(LIMITS))
    costs, budgets = study.costs_of(network), study.budgets(LIMITS)
    assert max(costs[budget.resource] / budget.at_most for budget in budgets) > 0.9


def test_what_is_asked_for_comes_once_and_what_is_there_already_is_said(study):
    winner = str(depth(study.snapshot))
    found = contest(comparing(study, "greedy", "depth", "uniform").snapshot, winner)
    assert [each.name for each in found.candidates] == ["winner", "base", "random-0", "greedy"]
    assert [(each.role, each.text) for each in found.remarks] == [
        ("depth", "Its network is trained already, as winner.")
    ]


def test_without_others_a_training_is_known_as_before(study):
    """What was trained before there was anything else to compare with is not trained again."""
    assert "compare" not in study.config.train.inputs
    assert study.inputs_of("train") != comparing(study, "depth").inputs_of("train")
