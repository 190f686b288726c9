"""The fault suite: two kinds here, all with `make test-faults`; `tests/flows/test_study_killed.py` kills whenever."""

import random

import pytest

from tests.faults.kinds import KINDS
from tests.faults.lab import SILENCE_S, Lab, compare, outcome

QUICK = ("worker_killed", "driver_killed")  # kinds with no clock in them, which a busy machine cannot break


@pytest.fixture(scope="module")
def lab(api, tmp_path_factory):
    """Its drivers are processes, each with a Ray of its own; Prefect's server is the session's."""
    lab = Lab(tmp_path_factory.mktemp("faults"), random.Random(0))
    lab.reference()
    yield lab
    lab.close()


@pytest.mark.faults
@pytest.mark.parametrize("name", QUICK)
def test_nothing_is_lost_or_doubled(lab, name):
    _holds(lab, name)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("name", [name for name in KINDS if name not in QUICK])
def test_nothing_is_lost_or_doubled_by_any_kind(lab, name):
    _holds(lab, name)


def _holds(lab, name):
    lab.longest_silence_s()  # of those before
    assert compare(outcome(KINDS[name](lab)), lab.reference()).is_clean
    assert lab.longest_silence_s() <= SILENCE_S
