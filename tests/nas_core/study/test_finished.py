"""Limits on latency, looked at on files that were measured in turns."""

import pytest

from nas_core.base.errors import StoreError
from nas_core.study.finished import _kept, finished

LIMITS = ("latency_ms<=1 ms", "latency<=50%", "flops<=60%", "latency_ms>=1", "latency_ms=0.5 .. 0.95 ms")


def test_absolute_and_relative_limits_are_counted_time_by_time():
    found = _kept(LIMITS, [0.9, 1.1, 0.4], [2.0, 2.0, 1.0])
    assert found == {"latency_ms<=1 ms": 2, "latency<=50%": 2, "latency_ms=0.5 .. 0.95 ms": 2}


def test_without_a_base_only_absolute_limits_are_counted():
    assert _kept(LIMITS, [0.9, 1.1], None) == {"latency_ms<=1 ms": 1, "latency_ms=0.5 .. 0.95 ms": 1}


def test_a_folder_without_a_study_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"no study\.yaml"):
        finished(str(tmp_path))
