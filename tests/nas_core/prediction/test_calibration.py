import numpy as np
import pytest

from nas_core.base.errors import ConfigError, IncompleteTableError
from nas_core.prediction import calibrate, fit, fit_paper
from nas_core.prediction.calibration import compare
from nas_core.prediction.settings import PredictConfig
from nas_core.space.genotypes import Genotype
from tests.nas_core.prediction.examples import additive_metric, costs_of, plain_space, table_of

SPACE = plain_space((3, 2, 4))
BASE = Genotype((0, 0, 0))
TABLES = {"params": costs_of(SPACE, "params"), "flops": costs_of(SPACE)}


def totals(genotype):
    return {name: table.total(genotype) for name, table in TABLES.items()}


def test_calibration_of_a_good_predictor():
    metric = additive_metric(SPACE)
    fitted = [BASE, *SPACE.neighbours(BASE)]
    held_out = table_of(metric, [genotype for genotype in SPACE.genotypes() if genotype not in set(fitted)])
    predictor = fit(SPACE, table_of(metric, fitted), PredictConfig(link="identity", pairs=False), base=BASE)
    result = calibrate(predictor, held_out, totals)
    assert result.n == len(held_out) == 17
    assert result.kendall > 0.9
    assert result.rmse >= result.rmse_refitted
    assert set(result.counts) == {"params", "flops"}
    assert "beats counting" in result.verdict
    assert result.as_dict()["counts"]["flops"]["kendall"] == result.counts["flops"].kendall


def test_figures_by_hand():
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    guess = truth[::-1] + 1
    result = compare(guess_N=guess, low_N=guess - 2, high_N=guess + 2, truth_N=truth, counted={"params": truth})
    assert result.kendall == -1
    assert result.spearman == -1
    assert result.rmse == pytest.approx(np.sqrt(np.mean([16, 4, 0, 4])))
    assert result.rmse_refitted == pytest.approx(np.std([4, 2, 0, -2]))
    assert result.coverage_90 == 0.75
    assert result.regret == 3
    assert result.counts["params"].kendall == 1
    assert "does not beat counting params" in result.verdict


@pytest.mark.parametrize("unit", [2.0**1000, 2.0**-1000])
def test_errors_of_any_size_have_their_mean(unit):
    truth, guess = unit * np.array([1.0, 2.0, 3.0, 4.0]), unit * np.array([5.0, 4.0, 3.0, 2.0])
    result = compare(guess_N=guess, low_N=guess, high_N=guess, truth_N=truth, counted={})
    assert result.rmse == pytest.approx(unit * np.sqrt(np.mean([16, 4, 0, 4])), abs=0)
    assert result.rmse_refitted == pytest.approx(unit * np.std([4, 2, 0, -2]), abs=0)


def test_too_few_held_out_networks():
    metric = additive_metric(SPACE)
    predictor = fit(SPACE, table_of(metric, [BASE, *SPACE.neighbours(BASE)]), PredictConfig(), base=BASE)
    with pytest.raises(IncompleteTableError, match="held-out"):
        calibrate(predictor, table_of(metric, [BASE]), totals)


def test_the_papers_rule_by_hand():
    """Eq. 3-5 on one context: losses against the base, scaled by Fbar / F."""
    metric, flops = additive_metric(SPACE), costs_of(SPACE)
    rule = fit_paper(SPACE, table_of(metric, [BASE, *SPACE.neighbours(BASE)]), base=BASE, flops=flops)
    network = Genotype((2, 1, 3))
    loss = sum(metric(BASE) - metric(BASE.swap(p, c)) for p, c in enumerate(network.choices))
    mean = flops.fixed + sum(float(np.mean(row)) for row in flops.block)
    expected = metric(BASE) - loss * mean / flops.total(network)
    assert rule.predict([network])[0] == pytest.approx(expected)
    assert rule.score_terms().value(network, flops.total(network)) == pytest.approx(expected)
    assert rule.num_pairs[0] == (0, 1, 1)


def test_the_papers_rule_averages_contexts():
    space = plain_space((2, 2))
    values = {Genotype((0, 0)): 0.5, Genotype((1, 0)): 0.7, Genotype((0, 1)): 0.1, Genotype((1, 1)): 0.9}
    rule = fit_paper(space, table_of(values.__getitem__, list(values)), base=Genotype((0, 0)), exponent=0)
    assert rule.loss[0][1] == pytest.approx((-0.2 - 0.8) / 2)
    assert rule.num_pairs[0] == (0, 2)


def test_the_papers_rule_says_what_it_lacks():
    table = table_of(additive_metric(SPACE), SPACE.neighbours(BASE))
    with pytest.raises(IncompleteTableError, match="base network 0-0-0"):
        fit_paper(SPACE, table, base=BASE, exponent=0)
    with pytest.raises(ConfigError, match="without FLOPs"):
        fit_paper(SPACE, table, base=BASE)
