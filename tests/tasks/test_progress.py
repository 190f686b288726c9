"""What is said of work under way: the whole of several jobs, and a rate that counts what was done now."""

import pytest

from tasks import progress
from tasks.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "tell", lambda _: None)
    return now


def test_of_several_jobs_the_whole_is_said(clock):
    with Progress(stage="prepare", total=1, noun="steps") as known:
        known.of_job(0, 10, 100, "one")
        known.of_job(1, 0, 300, "two")
        clock[0] = 10.0
        known.of_job(0, 30, 100, "one")
        assert known.text == "30/400 steps, 2.0/s, 3:05 left, one"


def test_what_an_earlier_run_did_is_not_of_this_ones_rate(clock):
    with Progress(stage="train", total=100, noun="%") as known:
        clock[0] = 5.0
        known.note(80, 100, "winner")
        assert known.text == "80 %, winner"
        clock[0] = 15.0
        known.note(90, 100, "winner")
        assert known.text == "90 %, 0:10 left, winner"


def test_a_wait_says_how_long_it_takes_and_an_end_how_long_it_took(clock):
    with Progress(stage="score", total=5) as known:
        clock[0] = 65.0
        assert known.text == "0/5 networks, at work for 1:05"
        clock[0] = 80.0
        known.advance(2, failed=1)
        assert known.text == "2/5 networks, 40.0 s each, 2:00 left, 1 failed"
        known.advance(3)
        assert known.text == "5/5 networks, in 1:20, 1 failed"


def test_what_is_left_does_not_grow_while_nothing_is_heard(clock):
    with Progress(stage="score", total=5) as known:
        clock[0] = 80.0
        known.advance(2)
        assert known.text == "2/5 networks, 40.0 s each, 2:00 left"
        clock[0] = 100.0
        assert known.text == "2/5 networks, 40.0 s each, 1:40 left"
        clock[0] = 900.0
        assert known.text == "2/5 networks, 40.0 s each, 1:20 left"


def test_the_end_counts_what_went_before_the_first_report(clock):
    with Progress(stage="prepare", total=1, noun="steps") as known:
        clock[0] = 40.0
        known.of_job(0, 0, 10, "")
        clock[0] = 50.0
        known.of_job(0, 5, 10, "")
        assert known.text == "5/10 steps, 2.0 s each, 0:10 left"
        clock[0] = 60.0
        known.of_job(0, 10, 10, "")
        assert known.text == "10/10 steps, in 1:00"


def test_resources_have_no_rate_as_one_is_counted_and_another_measured(clock):
    with Progress(stage="profile", total=3, noun="resources") as known:
        known.of_job(0, 2, 3, "latency_ms")
        clock[0] = 65.0
        assert known.text == "2/3 resources, at work for 1:05, latency_ms"


def test_an_end_is_told_once(clock, monkeypatch):
    told = []
    monkeypatch.setattr(progress, "tell", told.append)
    with Progress(stage="time", total=1, noun="resources") as known:
        clock[0] = 12.0
        known.of_job(0, 1, 1, "")
    assert told == ["time: 0/1 resources", "time: 1/1 resources, in 0:12"]


def test_what_has_nothing_to_count_is_not_at_its_end(clock):
    with Progress(stage="prepare", total=1, noun="steps") as known:
        clock[0] = 30.0
        known.of_job(0, 0, 0, "fitting")
        assert known.text == "at work for 0:30, fitting"


def test_what_was_done_before_took_no_time(clock):
    with Progress(stage="score", total=5, done=5) as known:
        assert known.text == "5/5 networks"
