"""The published block tables: what the benchmark recovers, as a test."""

import pytest

from tests.benchmarks import mathnas_tables
from tests.reference_data import reference_data

pytestmark = pytest.mark.data


def test_supervit_networks_and_frontier_are_recovered() -> None:
    report = mathnas_tables.supervit(reference_data("mathnas_tables"))
    assert all(report[name] for name in mathnas_tables.PUBLISHED)
    assert report["frontier_proven"]
    assert report["frontier_points"] == 446


def test_mobilenetv3_selections_equal_enumeration() -> None:
    report = mathnas_tables.mobilenetv3(reference_data("mathnas_tables"))
    assert report["matches"] == report["of"] == 72
    assert all(report["known_optima"].values())
    assert all(device["matches"] == device["of"] for device in report["fractional_exponent_1"].values())
