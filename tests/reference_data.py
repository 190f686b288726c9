"""Where the published reference tables are: the folder ``MATHNAS_DATA`` names."""

import os
from pathlib import Path

import pytest


def data_root() -> Path:
    """The folder that holds the reference tables, whether or not it exists."""
    return Path(os.environ.get("MATHNAS_DATA", Path(__file__).parents[2] / "shared" / "data"))


def reference_data(name: str) -> Path:
    """One reference table's folder or file; the test that asks is skipped if it is not there."""
    path = data_root() / name
    if not path.exists():
        pytest.skip(f"reference table {path} is missing; set MATHNAS_DATA to the folder that holds it")
    return path
