"""A person at the terminal hears something now and then; a terminal that is gone ends no work."""

import io
import os
import time

import pytest

from tasks import saying

pytestmark = pytest.mark.situations


def test_a_long_silence_is_broken_with_what_is_being_done(monkeypatch, capsys):
    monkeypatch.setattr(saying, "SILENT_S", 0.05)
    monkeypatch.setattr(saying, "LOOK_S", 0.01)
    with saying.never_silent(), saying.doing("counting to ten"):
        deadline = time.monotonic() + 30
        said = ""
        while said.count("mathnas: counting to ten (0 s)\n") < 2:
            assert time.monotonic() < deadline, said
            time.sleep(0.02)
            said += capsys.readouterr().err


def test_a_step_that_takes_its_time_is_named_soon_and_once(monkeypatch, capsys):
    monkeypatch.setattr(saying, "NAMED_S", 0.05)
    monkeypatch.setattr(saying, "LOOK_S", 0.01)
    with saying.never_silent():
        deadline, said = time.monotonic() + 30, ""
        with saying.doing("counting"):
            while "counting" not in said:
                assert time.monotonic() < deadline
                time.sleep(0.02)
                said += capsys.readouterr().err
            time.sleep(0.2)
        with saying.doing("blinking"):
            pass
    assert said + capsys.readouterr().err == "mathnas: counting (0 s)\n"


def test_a_terminal_that_is_gone_ends_no_work(monkeypatch):
    closed = io.StringIO()
    closed.close()
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb", buffering=0) as pipe:
        for gone in (closed, io.TextIOWrapper(pipe, write_through=True)):
            monkeypatch.setattr("sys.stderr", gone)
            saying.say("anybody there?")
