"""What a stage shows when it ends: the report's own figures, made from no more than they show."""

import pytest

from nas_core.report.collect import summarise
from nas_core.report.figures import render
from nas_core.report.text import format_amount
from nas_core.study.study import Study
from tasks.artifacts import FIGURES_OF, SECTIONS_OF, TABLES
from tasks.selection import select
from tests.nas_core.study.test_rounds import scored, verified


@pytest.fixture
def study(tabular_config, tmp_path) -> Study:
    """Scored, selected and verified, in this process."""
    study, scorer = scored(tabular_config, tmp_path / "study")
    select.fn(study)
    verified(study, scorer)
    return study


@pytest.mark.parametrize("figure", ["block_effects", "network", "frontier", "calibration"])
def test_a_stages_figure_is_the_reports(study, figure):
    assert render(summarise(study, SECTIONS_OF[figure]), figure) == render(summarise(study), figure)


def test_every_figure_says_what_it_shows():
    assert {figure for figures in FIGURES_OF.values() for figure in figures} == set(SECTIONS_OF)


def test_what_is_not_asked_for_is_not_made(study):
    summary = summarise(study, ("selection",))
    assert summary.selection is not None
    assert (summary.networks, summary.frontiers, summary.calibration) == ((), (), None)


@pytest.mark.situations
def test_tables_are_read_by_people(study):
    [first, *_] = TABLES["select"](study)
    answer = study.output("selection.json")["selections"][0]
    assert first["network"] == answer["genotype"]
    assert first["predicted"] == pytest.approx(answer["predicted"], rel=1e-4)
    assert first["parameters"] == format_amount("params", answer["costs"]["params"])
    numbers = [value for stage in TABLES for row in TABLES[stage](study) for value in row.values()]
    assert [value for value in numbers if isinstance(value, float) and len(repr(value)) > 8] == []
