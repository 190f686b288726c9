import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_core.base.errors import ConfigError
from nas_core.prediction.links import ERROR_LINKS, check_link, fraction_scale, make_link, normal_scores, possible_links

metrics = st.lists(st.floats(0.01, 0.99), min_size=3, max_size=30, unique=True).map(np.array)


@given(metrics, st.sampled_from(["identity", *ERROR_LINKS, "log", "rank"]), st.sampled_from([1.0, 100.0]))
def test_links_increase_and_invert(fraction_K, name, scale):
    metric_K = np.sort(fraction_K) * scale
    if scale == 100 and metric_K.max() <= 1.5:
        return
    if name == "log":
        metric_K -= scale  # losses, turned
    link = make_link(name, metric_K)
    assert (np.diff(link.forward(metric_K)) >= 0).all()
    assert np.allclose(link.inverse(link.forward(metric_K)), metric_K, atol=1e-6 * scale)


@pytest.mark.parametrize("name", ["identity", *ERROR_LINKS, "rank"])
def test_predictions_stay_accuracies(name):
    link = make_link(name, np.array([0.2, 0.5, 0.6, 0.9]))
    metric_N = link.inverse(np.linspace(-50, 50, 101))
    assert (metric_N >= 0).all()
    assert (metric_N <= 1).all()
    assert (np.diff(metric_N) >= 0).all()


@pytest.mark.parametrize(
    ("metric", "scale"),
    [([0.1, 0.9], 1.0), ([10.0, 93.1], 100.0), ([-3.0, -2.0], None), ([80.0, 400.0], None), ([0.5, 1.2], None)],
)
def test_scale_is_inferred_or_refused(metric, scale):
    assert fraction_scale(np.array(metric)) == scale


def test_predictions_are_what_the_metric_can_be():
    far = np.linspace(-1e4, 1e4, 11)
    for name, metric_K in {"identity": [-0.3, -0.1], "rank": [-0.3, 0.0], "log": [-3.0, -1.0]}.items():
        assert make_link(name, np.array(metric_K)).inverse(far).max() <= 0  # losses, turned
    for name in ("identity", "rank"):
        assert make_link(name, np.array([0.2, 0.9])).inverse(far).max() == 1
        assert make_link(name, np.array([25.0, 98.0])).inverse(far).max() > 1000  # requests per second, say
    assert make_link("log-error", np.array([25.0, 98.0])).inverse(far).max() == pytest.approx(100, abs=0.2)


def test_error_links_need_an_accuracy():
    metric_K = np.array([-4.0, -3.0, 1.0])
    assert possible_links(metric_K) == ("identity", "rank")
    with pytest.raises(ConfigError, match="identity or rank"):
        make_link("log-error", metric_K)


def test_log_is_for_losses_above_0():
    losses_K = np.array([-4.0, -3.0, -1.0])
    assert possible_links(losses_K) == ("identity", "log")
    assert make_link("log", losses_K).forward(losses_K) == pytest.approx(-np.log([4.0, 3.0, 1.0]))
    assert (make_link("log", losses_K).inverse(np.linspace(-1e4, 1e4, 11)) < 0).all()
    with pytest.raises(ConfigError, match="losses above 0"):
        make_link("log", np.array([-4.0, 0.0]))


@pytest.mark.parametrize(("name", "higher_is_better"), [("log", True), ("log-error", False)])
def test_a_link_for_the_other_direction_is_refused_before_anything_is_known(name, higher_is_better):
    check_link(name, not higher_is_better)
    check_link("auto", higher_is_better)
    with pytest.raises(ConfigError, match="auto, identity"):
        check_link(name, higher_is_better)


def test_rank_link_runs_on_beyond_the_best():
    link = make_link("rank", np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert link.inverse(np.array([3.0]))[0] > 5
    assert make_link("rank", np.array([0.7, 0.7])).inverse(np.array([0.0]))[0] == pytest.approx(0.7)


def test_normal_scores_share_ties():
    scores = normal_scores(np.array([3.0, 1.0, 1.0, 2.0]))
    assert scores[1] == scores[2] < scores[3] < scores[0]
