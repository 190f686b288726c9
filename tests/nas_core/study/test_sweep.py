"""One study, many limits: what its points are, which are trained, and that each is the best within its own limit."""

import itertools
from dataclasses import replace

import pytest

from nas_core.base.errors import ConfigError
from nas_core.space.genotypes import Genotype
from nas_core.study.contestants import contest, trainings
from nas_core.study.rounds import finalists, next_round, verification
from nas_core.study.study import Study
from nas_core.study.sweep import beginning_at, first_met, limits_of, optima, spread
from tests.nas_core.study.test_rounds import scored, verified, with_select

OTHER = "flops<=80 M"
SWEEP = {"limits": ["params<=0.8 M", OTHER], "sweep": "params=0.8 .. 2.9 M", "points": 4, "recover": 2}


@pytest.fixture
def swept(tabular_config, tmp_path):
    """A study over a range of limits, scored, and its scorer."""
    return scored(with_select(tabular_config, **SWEEP), tmp_path / "study")


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("latency_ms=30%..100%", 8, [f"latency_ms<={share}%" for share in (30, 40, 50, 60, 70, 80, 90, 100)]),
        ("params = 1 .. 2 M", 3, ["params<=1 M", "params<=1.5 M", "params<=2 M"]),
        ("flops=30%..100%", 4, ["flops<=30%", "flops<=53.33%", "flops<=76.67%", "flops<=100%"]),
        ('"FLOPs (M)"=1 .. 3', 2, ['"FLOPs (M)"<=1', '"FLOPs (M)"<=3']),
    ],
)
def test_limits_are_evenly_apart(text, count, expected):
    assert list(limits_of(text, count)) == expected


@pytest.mark.parametrize(
    "text", ["params<=40%", "params>=1 M", "params==1 M", "params=2 M .. 1 M", "params=30% .. 2 M"]
)
def test_what_is_no_range_is_no_sweep(text):
    with pytest.raises(ConfigError, match=r"range of one limit, such as latency_ms=30%\.\.100%"):
        limits_of(text, 4)


def test_points_to_recover_hold_both_ends():
    assert spread(8, 4) == (0, 2, 5, 7)
    assert spread(8, 8) == spread(8, 9) == tuple(range(8))
    assert spread(8, 1) == (0,)
    assert spread(8, 0) == ()


def test_every_point_is_the_best_predicted_within_its_own_limit_and_the_others(swept):
    study, _ = swept
    found = study.points()
    assert [point.limit for point in found] == list(limits_of(SWEEP["sweep"], 4))
    networks = [Genotype(choices) for choices in itertools.product(range(3), repeat=8)]
    values = {row.genotype: row.metric for row in study.predict(networks)}
    costs = {genotype: study.costs_of(genotype) for genotype in networks}
    for point in found:
        within = (row for row in values if costs[row]["params"] <= point.at_most and costs[row]["flops"] <= 80e6)
        best = max(values[row] for row in within)
        assert point.proven
        assert point.predicted == pytest.approx(best)
        assert point.summed == study.costs_of(Genotype.parse(point.genotype))["params"] <= point.at_most
    assert [point.recovered for point in found] == [True, False, False, True]


def test_a_limit_that_nothing_keeps_says_why(tabular_config, tmp_path):
    config = with_select(tabular_config, limits=[], sweep="params=1%..300%", points=3)
    none, *others = scored(config, tmp_path / "study")[0].points()
    assert (none.genotype, none.recovered) == (None, False)
    assert "least" in none.note
    assert all(point.genotype for point in others)


def test_a_sweep_may_begin_where_some_network_can_be(tabular_config, tmp_path):
    asked = {"limits": ["params<=1%", OTHER], "sweep": "params=1%..300%", "points": 4, "recover": 4}
    study = scored(with_select(tabular_config, **asked), tmp_path / "study")[0]
    assert first_met(study.snapshot) == 1
    found = beginning_at(study.config.select, 1)
    assert (found.limits, found.sweep) == (["params<=100.7%", OTHER], "params=100.7%..300%")
    assert (found.points, found.recover) == (3, 3)
    assert limits_of(found.sweep, 3) == ("params<=100.7%", "params<=200.3%", "params<=300%")


@pytest.mark.parametrize("select", [{"limits": []}, {"limits": ["params<=0.8 M"]}, {"limits": ["params<=1%"]}])
def test_it_begins_where_it_says_where_no_limit_of_it_is_asked_for_or_all_or_none_can_be_met(
    tabular_config, tmp_path, select
):
    sweep = "params=1%..2%" if "params<=1%" in select["limits"] else "params=0.8 .. 2.9 M"
    config = with_select(tabular_config, **select, sweep=sweep, points=4)
    assert first_met(scored(config, tmp_path / "study")[0].snapshot) == 0


@pytest.mark.parametrize(("recover", "expected"), [(1, [1]), (2, [1, 3]), (4, [1, 2, 3])])
def test_a_limit_that_nothing_keeps_takes_no_other_points_recovery(tabular_config, tmp_path, recover, expected):
    config = with_select(tabular_config, limits=[], sweep="params=1%..300%", points=4, recover=recover)
    points = scored(config, tmp_path / "study")[0].points()
    assert points[0].genotype is None
    assert [index for index, point in enumerate(points) if point.recovered] == expected


def test_verification_evaluates_the_points_and_chooses_among_what_was_evaluated(swept):
    study, scorer = swept
    best = [str(genotype) for genotype in optima(study.snapshot)]
    missing = study.missing([Genotype.parse(text) for text in best])
    proposed = next_round(study.snapshot, study.outputs, 0)
    assert missing
    assert set(missing[: study.config.verify.per_round]) <= set(proposed)
    verified(study, scorer)
    evaluated = study.snapshot.measured
    for point in study.points():
        budgets = study.budgets([point.limit, OTHER])
        within = [text for text in evaluated if study.within(Genotype.parse(text), budgets)]
        assert point.evaluated == max(evaluated[text] for text in within)
    assert study.points()[0].genotype == study.winner  # the tightest limit is the study's own
    record, other = verification(study.outputs), str(finalists(study.snapshot)[1])
    study.outputs.write("verification.json", {**record, "winner": other})  # as the finalists' longer rating may choose
    assert study.points()[0].genotype == other


@pytest.mark.parametrize("own", ["params <= 0.8 M", "params<=800 K", "params≤800000"])
def test_the_studys_own_limit_is_known_however_it_is_spelled(tabular_config, tmp_path, own):
    study, scorer = scored(with_select(tabular_config, **{**SWEEP, "limits": [own, OTHER]}), tmp_path / "study")
    record, other = verified(study, scorer), str(finalists(study.snapshot)[1])
    study.outputs.write("verification.json", {**record, "winner": other})
    assert study.points()[0].genotype == other


def test_points_are_trained_beside_the_winner_once_each(swept):
    study, scorer = swept
    verified(study, scorer)
    alone = contest(study.snapshot, study.winner).candidates
    trained = contest(study.snapshot, study.winner, study.points()).candidates
    assert trained[: len(alone)] == alone
    assert [(row.role, row.name) for row in trained[len(alone) :]] == [("point", "point-2.9-M")]
    again = contest(study.snapshot, study.winner, [replace(study.points()[0], recovered=True)]).candidates
    assert again == alone


def test_without_a_sweep_nothing_depends_on_its_fields(tabular_config, tmp_path):
    study, _ = scored(tabular_config, tmp_path / "study")
    other = Study(with_select(study.config, points=5, recover=1), study.store)
    assert study.points() == ()
    assert study.inputs_of("train") == other.inputs_of("train")
    swept = Study(with_select(study.config, sweep="params=40%..100%"), study.store)
    assert study.inputs_of("verify") != swept.inputs_of("verify")


def test_points_are_trained_once_and_the_others_from_every_seed(swept):
    study, scorer = swept
    verified(study, scorer)
    train = study.config.train.model_copy(update={"seeds": 3})
    config = study.config.model_copy(update={"train": train})
    other = Study(config, study.store)
    wanted = contest(other.snapshot, study.winner, study.points()).candidates
    assert wanted[-1].role == "point"
    found = trainings(other.snapshot, wanted)
    assert [each.name for each in found[: len(wanted)]] == [each.name for each in wanted]
    assert {each.seed for each in found[: len(wanted)]} == {config.seed}
    names = [each.name for each in found[len(wanted) :]]
    assert names == ["winner-s1", "base-s1", "random-0-s1", "winner-s2", "base-s2", "random-0-s2"]
    assert len({each.seed for each in found}) == 3
    assert all(0 <= each.seed < 2**31 for each in found)
    assert found == trainings(other.snapshot, wanted)
    assert trainings(study.snapshot, wanted) == found[: len(wanted)]
