"""What a run will take: the arithmetic of a trial's figures; the trial itself is run by the plan's test."""

from dataclasses import replace

import pytest

from flows.estimate import Amounts, Trial, TrialError, estimated, slowest, tried
from nas_core.space.genotypes import Genotype
from nas_core.study.config import StudyConfig
from nas_core.study.stages import STAGES
from nas_core.study.study import Study

TRIAL = Trial(
    start_s=2.0,
    open_s=0.5,
    read_s=0.001,
    scored_s=0.01,
    trained_s=0.02,
    run_s=0.003,
    export_s=4.0,
    latency_s=0.1,
    program_bytes=2_000_000,
    weight_bytes=1_000_000,
    own_bytes=300_000_000,
    idle_bytes=200_000_000,
    shared_bytes=100_000_000,
)
AMOUNTS = Amounts(
    scored=20,
    verified=0,
    rounds=0,
    finalists=0,
    rated_per_load=1,
    workers=2,
    trainings=3,
    trained_at_a_time=2,
    training_cpus=1,
    first_cpus=2,
    timed=0,
    timed_whole=0,
    size=1.0,
    stages=STAGES,
)


def test_a_trial_is_of_our_own_flows(study, tmp_path, monkeypatch):
    """Not of a folder `flows` of the user's, in which the command is given."""
    (tmp_path / "mine/flows").mkdir(parents=True)
    (tmp_path / "mine/flows/__init__.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path / "mine")
    (trial,) = tried(study().config, Genotype((0, 0, 0)), 1, runs=False, trains=False, times=False)
    assert trial.start_s > 0


@pytest.fixture
def study(tmp_path):
    def make(**sections):
        data = {"kind": "digits", "validation_examples": 437}  # of 1,437: 1,000 are left to train on
        known = {"space": {"kind": "tiny"}, "data": data, "scorer": {"kind": "train", "recipe": {"epochs": 2}}}
        config = StudyConfig.model_validate({**known, "train": {"recipe": {"epochs": 3}}, **sections})
        return Study.create(config, str(tmp_path / "study"))

    return make


def test_stages_that_are_over_take_nothing(study):
    nothing = replace(AMOUNTS, stages=(), scored=0, trainings=0)
    assert estimated(study(), TRIAL, nothing).seconds == 0
    found = estimated(study(), TRIAL, replace(AMOUNTS, stages=("report",), scored=0, trainings=0)).stages_s
    assert {stage for stage, seconds in found.items() if seconds} == {"report"}


def test_seconds_follow_from_what_examples_take(study):
    found = estimated(study(), TRIAL, AMOUNTS)
    rated = 1000 * 2 * 0.01 + 3 * 437 * 0.003  # trained, then measured at each epoch's end and once more
    read = 0.5 + 0.001 * 1437
    assert found.stages_s["score"] - 20 / 2 * (rated + read) == pytest.approx(3.0)  # until there are workers
    trained = 1000 * 3 * 0.02 + 5 * 437 * 0.003 + read + 4.0
    assert found.stages_s["train"] - 2 * trained == pytest.approx(1 + 2 * 2)  # three networks, two at a time
    assert found.seconds == pytest.approx(found.around_s + sum(found.stages_s.values()))
    assert found.memory_mb == pytest.approx(2 * (300 + 1797 * 64 / 1e6) + 200 + 100 + 3 * 70)  # one is done
    assert found.disk_mb > 3 * 2 * (2 + 1)


def test_what_networks_take_turns_in_counts_once_for_some_of_them(study):
    """Mostly pauses, where networks are small."""
    known = replace(TRIAL, latency_s=0.02, turns_s=1.7)
    found = estimated(study(), known, replace(AMOUNTS, stages=("profile", "verify"), timed=33, timed_whole=16)).stages_s
    assert found["profile"] == pytest.approx(33 * 0.02 + 3 * 1.7 + 3.0)
    assert found["verify"] == pytest.approx(16 * 0.02 + 1.7, abs=0.1)


@pytest.mark.parametrize(
    ("change", "stage", "factor"),
    [
        ({"scored": 40}, "score", 2),
        ({"workers": 1}, "score", 2),
        ({"size": 3.0}, "train", 3),
        ({"trainings": 8}, "train", 2),
        ({"trained_at_a_time": 1}, "train", 1.5),
    ],
)
def test_twice_the_work_takes_about_twice_as_long(study, change, stage, factor):
    mine = study()
    before, after = (estimated(mine, TRIAL, each).stages_s[stage] for each in (AMOUNTS, replace(AMOUNTS, **change)))
    assert after / before == pytest.approx(factor, rel=0.15)


def test_shared_weights_are_trained_once(study):
    scorer = {"kind": "supernet", "recipe": {"epochs": 2}, "random_paths": 2, "sandwich": True}
    mine = study(scorer={**scorer, "calibration_examples": 63})
    one, many = (estimated(mine, TRIAL, replace(AMOUNTS, scored=count)).stages_s["score"] for count in (2, 42))
    assert one > 4 * 1000 * 2 * 0.01 / 2  # four paths in each step, by two processors
    assert many - one == pytest.approx(20 * (437 + 63) * 0.003 + 20 * (0.5 + 1.437), rel=0.01)


def test_what_was_measured_of_evaluations_counts_more_than_a_trial(study):
    found = estimated(study(), TRIAL, AMOUNTS, wall_s=60.0)
    assert found.stages_s["score"] == pytest.approx(20 / 2 * (60 + 0.5 + 1.437) + 3.0)


def test_maps_are_made_once_and_shared(study, tmp_path, monkeypatch):
    monkeypatch.setenv("MATHNAS_CACHE", str(tmp_path / "cache"))
    data = {"kind": "digits", "validation_examples": 437}
    memory, mapped, streamed = (
        estimated(study(data={**data, "hold": way}), TRIAL, AMOUNTS) for way in ("memory", "map", "stream")
    )
    nbytes = 1797 * 64 / 1e6
    assert mapped.memory_mb == pytest.approx(memory.memory_mb - nbytes)  # once, not in each of two processes
    assert mapped.disk_mb == pytest.approx(memory.disk_mb + nbytes)
    assert mapped.seconds < memory.seconds < streamed.seconds


def test_the_slowest_of_several_processes_counts():
    others = [replace(TRIAL, scored_s=0.02), replace(TRIAL, own_bytes=400_000_000)]
    assert slowest(others) == replace(TRIAL, scored_s=0.02, own_bytes=400_000_000)


def test_a_trial_that_fails_says_why(study):
    config = study().config
    with pytest.raises(TrialError, match=r"a trial: found .*no-genotype"):
        tried(config, "no-genotype", 1, runs=True, trains=False, times=False)
