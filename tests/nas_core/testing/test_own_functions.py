"""`mathnas check STUDY.yaml`: a study's functions, called for its networks."""

from textwrap import dedent

import pytest
import yaml

from nas_core.costs import PROFILERS
from nas_core.scoring import SCORERS
from tests.command import mathnas

OWN = '''
import json
from pathlib import Path
from typing import Annotated

from nas_core import resource, scorer

@scorer("own-size", metric="bytes")
def size(values, *, source: Annotated[str, "What is read."]) -> float:
    """Of three numbers."""
    one, two, three = values
    return float(Path(source).read_text()) + one + two + three

@resource("own-price", unit="euro")
def price(position) -> float:
    """Of two positions."""
    return {0: 1.0, 1: 2.0}[position]
'''


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Writes a study with so many positions beside its plug-in; returns what `mathnas check` says of either."""
    (tmp_path / "own.py").write_text(dedent(OWN))
    (tmp_path / "source").write_text("5")
    monkeypatch.chdir(tmp_path)

    def checked(positions, target="study.yaml"):
        config = {
            "plugins": ["./own.py"],
            "space": {"kind": "choices", "positions": {f"p{each}": [0, 1] for each in range(positions)}},
            "scorer": {"kind": "own-size", "source": "source"},
            "profile": {"resources": ["own-price"]},
        }
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
        return mathnas("check", target)

    yield checked
    SCORERS._entries.pop("own-size", None)
    PROFILERS._entries.pop("own-price", None)


def test_a_function_of_other_positions_than_the_examples_raises_no_alarm(study):
    done = study(3, "own.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert "scorer own-size: all promises kept\nprofiler own-price: all promises kept\n" in done.stdout
    assert "`mathnas check STUDY.yaml`" in done.stdout


@pytest.mark.parametrize(
    ("positions", "scorer", "profiler"),
    [
        (2, "  networks of the study can be rated: 1-1: ValueError: not enough values", "all promises kept"),
        (3, "all promises kept", "  every block of the study has a value: 2-0: KeyError: 2; 1 more"),
    ],
)
def test_what_a_study_asks_of_a_function_is_tried(study, positions, scorer, profiler):
    done = study(positions)
    assert (done.returncode, done.stderr) == (2, "")
    first, second = done.stdout.split("profiler own-price: ")
    assert scorer in first
    assert profiler in second
