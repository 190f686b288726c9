"""One driver at a time: a living holder is respected and named, a dead one is taken over, clocks do not matter."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from nas_core.base.errors import StoreError, StudyHeldError
from nas_core.records import lease
from nas_core.records.lease import LEASE, driver, hold, read
from nas_core.records.store import Store

HOLD_AND_SLEEP = """
import sys, time
from nas_core.records.lease import hold
from nas_core.records.store import Store
with hold(Store(sys.argv[1])) as mine:
    mine.note("score")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "study")


@pytest.fixture
def other_driver(store):
    """Another process that holds the study."""
    process = subprocess.Popen([sys.executable, "-c", HOLD_AND_SLEEP, store.root], stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def quick(monkeypatch):
    """Beats and time-outs short enough for a test."""
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    monkeypatch.setattr(lease, "SILENT_S", 0.5)


def elsewhere(store, **changes):
    """A lease written by a process of another machine."""
    with hold(store) as mine:
        written = replace(mine._me, holder="other", machine="another", host="far", **changes)
    store.write_json(LEASE, asdict(written))
    return written


def test_a_held_study_names_its_holder(store, other_driver):
    with pytest.raises(StudyHeldError, match=f"process {other_driver.pid} on .*, in stage score"), hold(store):
        pass
    assert driver(store).pid == other_driver.pid


def test_a_killed_holder_is_taken_over_at_once(store, other_driver):
    other_driver.send_signal(signal.SIGKILL)
    other_driver.wait()
    assert driver(store) is None
    began = time.monotonic()
    with hold(store):
        assert driver(store).pid == os.getpid()
    assert time.monotonic() - began < 1


def test_the_lease_is_given_back(store):
    with hold(store), hold(store):
        assert store.exists(LEASE)
    assert not store.exists(LEASE)


def test_one_study_is_one_however_its_root_is_written(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(store.root)
    with hold(store) as mine:
        for root in ("study", "./study/", f"{store.root}/", "study/../study", "link"):
            with hold(Store(root)) as other:
                assert other is mine
        assert driver(store) is not None
    assert driver(store) is None


def test_waiting_ends_when_the_holder_does(store, other_driver):
    threading.Timer(0.5, other_driver.kill).start()
    waiter = threading.Thread(target=other_driver.wait)  # reaps it
    waiter.start()
    with hold(store, wait_s=20):
        assert read(store).pid == os.getpid()
    waiter.join()


def test_a_silent_holder_elsewhere_is_taken_over(store, quick):
    elsewhere(store)
    began = time.monotonic()
    with hold(store):
        assert read(store).pid == os.getpid()
    assert time.monotonic() - began >= lease.SILENT_S


def test_a_beating_holder_elsewhere_is_respected(store, quick):
    written = elsewhere(store)
    stop = threading.Event()

    def beat():
        counter = 0
        while not stop.wait(0.05):
            counter += 1
            store.write_json(LEASE, asdict(replace(written, counter=counter)))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(StudyHeldError, match="on far"), hold(store):
            pass
    finally:
        stop.set()
        thread.join()


def test_a_clock_that_jumps_changes_nothing(store, quick, monkeypatch):
    jumps = iter([0.0, 1e9, -1e9] * 1000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    with hold(store) as mine:
        time.sleep(2 * lease.SILENT_S)
        while read(store).counter <= 5:  # it goes on beating
            time.sleep(lease.BEAT_S)
        assert read(store).holder == mine._me.holder


def test_a_driver_that_was_taken_over_stops(store, quick, monkeypatch):
    stopped = []
    monkeypatch.setattr(os, "kill", lambda pid, number: stopped.append((pid, number)))
    with hold(store) as mine:
        store.write_json(LEASE, asdict(replace(mine._me, holder="other", machine="another")))
        time.sleep(0.5)
    assert stopped == [(os.getpid(), signal.SIGTERM)]
    assert read(store).holder == "other"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"holder": 1}', "not json"])
def test_a_lease_that_is_damaged_is_nobodys(store, text):
    store.write_bytes(LEASE, text.encode())
    with hold(store):
        assert json.loads(store.read_bytes(LEASE))["pid"] == os.getpid()


def test_a_driver_that_was_overtaken_writes_nothing_any_more(store, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 1000)  # a beat would stop this process, as it should
    with hold(store) as mine:
        successor = replace(read(store), holder="another", pid=os.getpid())
        store.write_json(LEASE, asdict(successor))
        mine.note("score")
        assert read(store) == successor
        store.write_json(LEASE, asdict(replace(successor, holder=mine._me.holder)))


def test_a_lease_that_cannot_be_locked_is_said(store, tmp_path):
    (tmp_path / "study" / lease.LOCK).mkdir()
    with pytest.raises(StoreError, match="written and locked"), hold(store):
        pass


def test_a_process_is_known_by_its_start_where_there_is_no_proc():
    """macOS and Windows: alive the same at every look, told apart from the next one, gone when it is a zombie."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here, there = lease._started_elsewhere(os.getpid()), lease._started_elsewhere(process.pid)
    assert here == lease._started_elsewhere(os.getpid())
    assert "" not in (here, there)
    assert here != there
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert lease._started_elsewhere(process.pid) == ""
    process.wait()
    assert lease._started_elsewhere(process.pid) == ""


def test_of_many_claims_at_once_one_stands(tmp_path):
    """Processes that start together on one study: the file lock lets one judge the lease at a time."""
    claim = """
import sys, time
from nas_core.base.errors import StudyHeldError
from nas_core.records.lease import hold
from nas_core.records.store import Store
store = Store(sys.argv[1])
input()
try:
    with hold(store):
        print("held", flush=True)
        input()
except StudyHeldError:
    print("refused", flush=True)
"""
    arguments = [sys.executable, "-c", claim, str(tmp_path / "study")]
    claims = [subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    for process in claims:
        process.stdin.write("\n")
        process.stdin.flush()
    assert sorted(process.stdout.readline().strip() for process in claims) == ["held"] + ["refused"] * 5
    for process in claims:
        process.communicate("\n")
