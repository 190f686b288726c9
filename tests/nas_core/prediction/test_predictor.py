"""Fits on small spaces: exactness of the program, honesty of intervals, choices by cross-validation."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau

from nas_core.base.errors import ConfigError, IncompleteTableError, SpaceError
from nas_core.prediction import fit
from nas_core.prediction.settings import PredictConfig
from nas_core.program import solve
from nas_core.records.evaluations import EvaluationTable
from nas_core.space.encoding import Encoding, all_codes
from nas_core.space.genotypes import Genotype
from nas_core.study.config import parse_config
from tests.nas_core.prediction.examples import (
    additive_metric,
    costs_of,
    pairwise_metric,
    plain_space,
    stage_space,
    table_of,
)

SPACE = plain_space((3, 2, 4, 3))
BASE = Genotype((0, 0, 0, 0))
CONFIGS = [
    PredictConfig(),
    PredictConfig(link="identity", pairs=False, flops_exponent=0),
    PredictConfig(link="rank", pairs=True, flops_exponent=0),
    PredictConfig(link="log-error", pairs=False, flops_exponent=0.3),
    PredictConfig(link="reciprocal-error", pairs=False, flops_exponent=1),
]


def some_networks(space=SPACE, count=30, seed=0) -> list[Genotype]:
    everything = list(space.genotypes())
    rows = np.random.default_rng(seed).choice(len(everything), count, replace=False)
    return [everything[row] for row in rows]


@pytest.mark.parametrize("config", CONFIGS)
def test_score_terms_are_the_prediction(config):
    flops = costs_of(SPACE)
    predictor = fit(SPACE, table_of(pairwise_metric(SPACE), some_networks()), config, base=BASE, flops=flops)
    terms = predictor.score_terms()
    for genotype, expected in zip(some_networks(seed=1), predictor.predict(some_networks(seed=1)), strict=True):
        value = terms.value(genotype, flops.total(genotype))
        assert predictor.to_metric(value) == pytest.approx(expected.metric, abs=1e-9)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_program_finds_the_best_prediction(config):
    flops = costs_of(SPACE)
    predictor = fit(SPACE, table_of(pairwise_metric(SPACE), some_networks()), config, base=BASE, flops=flops)
    result = solve(predictor.problem([flops]))
    best = max(prediction.metric for prediction in predictor.predict(list(SPACE.genotypes())))
    assert predictor.to_metric(result.best.value) == pytest.approx(best, abs=1e-6)


def test_several_resolutions_are_one_more_choice():
    space = plain_space((3, 2, 3), resolutions=(8, 16))
    gain = additive_metric(space)

    def metric(genotype: Genotype) -> float:
        return gain(genotype) * (1.0 if genotype.resolution == 16 else 0.6)

    predictor = fit(
        space, table_of(metric, some_networks(space, 24)), PredictConfig(pairs=True), base=Genotype((0, 0, 0), 8)
    )
    terms = predictor.score_terms()
    for genotype, expected in zip(space.genotypes(), predictor.predict(space.genotypes()), strict=True):
        assert predictor.to_metric(terms.value(genotype)) == pytest.approx(expected.metric, abs=1e-9)
    best = solve(predictor.problem())
    assert best.best.genotype.resolution == 16


def test_an_additive_metric_is_learnt_from_one_swap_evaluations():
    metric = additive_metric(SPACE)
    predictor = fit(
        SPACE,
        table_of(metric, [BASE, *SPACE.neighbours(BASE)]),
        PredictConfig(link="identity", pairs=False, flops_exponent=0),
        base=BASE,
    )
    networks = list(SPACE.genotypes())
    guess = [prediction.metric for prediction in predictor.predict(networks)]
    assert kendalltau(guess, [metric(genotype) for genotype in networks]).statistic > 0.95


def test_effects_state_their_sign_and_support():
    metric = additive_metric(SPACE)
    evaluated = [BASE, *SPACE.neighbours(BASE)]
    config = PredictConfig(link="identity", pairs=False, flops_exponent=0)
    effects = fit(SPACE, table_of(metric, evaluated), config, base=BASE).effects()
    assert [(effect.position, effect.choice) for effect in effects] == [
        (position, choice) for position, count in enumerate(SPACE.num_choices) for choice in range(count)
    ]
    for effect in effects:
        true = metric(BASE.swap(effect.position, effect.choice)) - metric(BASE)
        assert effect.effect == pytest.approx(true, abs=0.02)
        assert effect.low <= effect.effect <= effect.high
        assert effect.base == "0-0-0-0"
        assert effect.higher_is_better
        if effect.choice:
            assert effect.contexts == 1
            assert effect.num_evaluations == 1


def test_a_metric_to_minimise_keeps_its_sign():
    metric = additive_metric(SPACE)
    table = table_of(lambda genotype: -10 * metric(genotype), some_networks())  # turned on load
    predictor = fit(SPACE, replace(table, sign=-1), PredictConfig(), base=BASE)
    guess = predictor.predict(some_networks(seed=2))
    assert all(prediction.low <= prediction.metric <= prediction.high for prediction in guess)
    truth = [10 * metric(prediction.genotype) for prediction in guess]
    assert kendalltau([prediction.metric for prediction in guess], truth).statistic > 0.8
    assert not predictor.effects()[0].higher_is_better


def test_cross_validation_sees_a_link():
    """Exponentials of an additive function: additive after a logarithm, which ranks follow and identity does not."""
    inner = additive_metric(SPACE)
    table = table_of(lambda genotype: math.exp(12 * inner(genotype)) + 200, some_networks(count=40))
    predictor = fit(SPACE, table, PredictConfig(pairs=False, flops_exponent=0), base=BASE)
    best = {}
    for alternative in predictor.selection:
        best[alternative.link] = max(best.get(alternative.link, -9), alternative.score)
    assert set(best) == {"identity", "rank"}
    assert predictor.chosen.link == "rank"
    assert sum(alternative.chosen for alternative in predictor.selection) == 1
    assert predictor.chosen.score == max(best.values())


def test_cross_validation_sees_pairs_and_the_exponent():
    flops = costs_of(SPACE)
    pairwise = pairwise_metric(SPACE, strength=0.5)
    table = table_of(pairwise, some_networks(count=60))
    assert fit(SPACE, table, PredictConfig(link="identity"), base=BASE, flops=flops).chosen.pairs > 0
    gain = additive_metric(SPACE, seed=5)
    scaled = table_of(lambda g: 3 + (gain(g) - gain(BASE)) * (30 / flops.total(g)), some_networks(count=60))
    assert fit(SPACE, scaled, PredictConfig(link="identity", pairs=False), base=BASE, flops=flops).exponent == 1


def test_intervals_cover_what_they_say():
    covered = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        metric = pairwise_metric(SPACE, seed)
        noisy = {genotype: metric(genotype) + 0.03 * rng.normal() for genotype in SPACE.genotypes()}
        fitted = some_networks(count=32, seed=seed)
        predictor = fit(SPACE, EvaluationTable.from_metrics({g: noisy[g] for g in fitted}), PredictConfig(), base=BASE)
        rest = [genotype for genotype in noisy if genotype not in set(fitted)]
        covered += [p.low <= noisy[p.genotype] <= p.high for p in predictor.predict(rest)]
    assert 0.8 <= np.mean(covered) <= 0.98


def test_held_out_networks_widen_intervals_where_they_must():
    """One-swap evaluations say nothing about interactions; networks far from the base do."""
    metric = pairwise_metric(SPACE, strength=0.3)
    predictor = fit(SPACE, table_of(metric, [BASE, *SPACE.neighbours(BASE)]), PredictConfig(), base=BASE)
    far = [genotype for genotype in SPACE.genotypes() if genotype.distance(BASE) >= 2]
    held_out, rest = far[::3], [genotype for genotype in far if genotype not in set(far[::3])]
    recalibrated = predictor.recalibrated(table_of(metric, held_out))
    covered = [p.low <= metric(p.genotype) <= p.high for p in recalibrated.predict(rest)]
    assert 0.75 <= np.mean(covered) <= 1
    assert recalibrated.predict(rest)[0].metric == predictor.predict(rest)[0].metric


def test_equivalent_networks_share_their_evaluation():
    space = stage_space(3)
    gain = {0: 0.0, 1: 0.3, 2: 0.5}

    def metric(genotype: Genotype) -> float:
        return sum(gain[choice] for choice in genotype.choices) / 2

    base = Genotype((0, 0, 0))
    predictor = fit(
        space, table_of(metric, [base, Genotype((1, 0, 0)), Genotype((2, 0, 0))]), PredictConfig(), base=base
    )
    one, other = predictor.predict([Genotype((2, 0, 0)), Genotype((0, 0, 2))])
    assert one.metric == pytest.approx(other.metric, abs=1e-6)


def test_groups_given_are_groups_used():
    table = table_of(additive_metric(SPACE), some_networks())
    alone = fit(SPACE, table, PredictConfig(), base=BASE)
    together = fit(SPACE, table, PredictConfig(), base=BASE, groups=["a", "b", "c"] * 10)
    assert together.chosen.score < alone.chosen.score


def test_what_cannot_be_fitted_says_why():
    metric = additive_metric(SPACE)
    with pytest.raises(IncompleteTableError, match="3 at least"):
        fit(SPACE, table_of(metric, some_networks(count=2)), PredictConfig(), base=BASE)
    with pytest.raises(ConfigError, match="without FLOPs"):
        fit(SPACE, table_of(metric, some_networks()), PredictConfig(flops_exponent=0.5), base=BASE)
    with pytest.raises(SpaceError, match="position 0: found 9, expected 0 to 2"):
        fit(SPACE, table_of(metric, some_networks()), PredictConfig(), base=BASE).predict([Genotype((9, 0, 0, 0))])


def test_a_constant_metric_is_predicted_as_it_is():
    predictor = fit(SPACE, table_of(lambda _: 0.5, some_networks()), PredictConfig(), base=BASE)
    assert predictor.predict([BASE])[0].metric == pytest.approx(0.5)


def test_codes_and_genotypes_agree():
    encoding = Encoding.of(SPACE)
    codes_NP = all_codes(encoding.sizes)
    assert [encoding.genotype(code_P) for code_P in codes_NP] == list(SPACE.genotypes())
    assert (encoding.encode(SPACE.genotypes()) == codes_NP).all()


def test_pairs_and_a_ratio_do_not_go_together():
    """The program would maximise another function than the one that predicts."""
    metric = additive_metric(SPACE)
    with pytest.raises(ConfigError, match="ratio of pairwise sums has no exact program"):
        parse_config({"predict": {"pairs": True, "flops_exponent": 1}}, "test")
    auto = fit(SPACE, table_of(metric, some_networks()), PredictConfig(pairs=True), base=BASE, flops=costs_of(SPACE))
    assert auto.chosen.exponent == 0
