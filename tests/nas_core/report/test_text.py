from dataclasses import replace

import pytest

from nas_core.families.plain_choices import PlainChoices
from nas_core.report import story, text
from nas_core.space.genotypes import Genotype
from nas_core.study.sweep import Point
from nas_core.workloads.classification import CLASSIFICATION
from nas_core.workloads.metrics import Measure
from tests.nas_core.report.studies import make_study, not_run

ACCURACY, LOSS = CLASSIFICATION["accuracy"].measure, CLASSIFICATION["cross_entropy"].measure


@pytest.mark.parametrize(
    ("resource", "value", "expected"),
    [
        ("flops", 1.83e9, "1.83 G multiply-adds"),
        ("flops", 61_800_000, "61.8 M multiply-adds"),
        ("flops", 999_900, "1.00 M multiply-adds"),
        ("params", 2.4e6, "2.40 M parameters"),
        ("params", 12, "12 parameters"),
        ("latency_ms", 12.3, "12.3 ms"),
        ("latency_ms", 0.85, "850 µs"),
        ("latency_ms", 1200, "1.20 s"),
        ("energy_mj", 3.456, "3.46 mJ"),
        ("activation_bytes", 1536, "1.50 KiB"),
        ("activation_bytes", 12, "12 B"),
        ("my_cost", 1500, "1.50 k"),
        ("heap_mb", 11, "11.0 MB"),
        ("wait_s", 0.5, "0.500 s"),
        ("params_M", 2.4, "2.40 M"),
        ("flops", 0, "0 multiply-adds"),
        ("flops", None, "–"),
        ("latency_ms", float("nan"), "–"),
    ],
)
def test_quantities(resource, value, expected):
    assert text.format_quantity(resource, value) == expected


def test_an_amount_leaves_out_the_name_that_a_heading_has():
    assert text.format_amount("flops", 1.83e9) == "1.83 G"
    assert text.format_amount("latency_ms", 12.3) == "12.3 ms"


def test_of_several_networks_of_a_role_those_that_were_trained_longer_are_told():
    assert "took: random 3, uniform width 2.5 epochs more" in text.longer_in_words(
        [("winner", 0.0), ("random", 3.0), ("random", 0.0), ("random", 3.0), ("uniform", 2.5)]
    )
    assert text.longer_in_words([("winner", 0.0)]) == ""


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        (ACCURACY, 0.93127, "93.13 %"),
        (ACCURACY, 1.0, "100.00 %"),
        (Measure.called("mean_acc"), 93.127, "93.13"),
        (LOSS, 0.01234, "0.01234 nats"),
        (ACCURACY, None, "–"),
    ],
)
def test_metrics(metric, value, expected):
    assert text.format_metric(metric, value) == expected


def test_changes_are_signed():
    assert text.format_metric_change(ACCURACY, -0.0125) == "−1.25 points"
    assert text.format_metric_change(LOSS, 0.5) == "+0.5 nats"


def test_an_axis_says_the_unit_and_which_way_is_better():
    assert text.metric_axis(ACCURACY, "validation") == "validation accuracy, %"
    assert text.metric_axis(LOSS, "test") == "test cross-entropy, nats (lower is better)"
    assert text.metric_column(LOSS, "test") == "test cross-entropy (lower is better)"  # whose values have the unit
    assert text.metric_column(ACCURACY, "test") == "test accuracy"
    assert text.metric_axis(Measure.called("mean_acc"), "table") == "table mean acc"


def test_the_table_before_training_is_of_what_was_evaluated():
    study = make_study()
    known = study.evaluated(study.winner).metric
    table = text.summary_table(replace(study, training=None))
    assert "evaluated validation accuracy" in table
    assert text.format_metric(ACCURACY, known) in table


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0004, "0.4 ms"),
        (0.04, "40 ms"),
        (8.24, "8.2 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations(seconds, expected):
    assert text.format_duration(seconds) == expected


@pytest.mark.parametrize(
    ("num_choices", "resolutions", "expected"),
    [((3,) * 8, 1, "3⁸ = 6,561"), ((9, 9, 4), 1, "9² × 4 = 324"), ((2, 2), 3, "2² × 3 resolutions = 12")],
)
def test_the_size_of_a_family(num_choices, resolutions, expected):
    number = resolutions
    for count in num_choices:
        number *= count
    assert text.format_space_size(num_choices, resolutions, number) == expected


def test_a_count_beyond_floats_is_a_power_of_ten():
    assert text.format_count(50**1000) == "9.33 × 10¹⁶⁹⁸"
    assert text.format_count(1_996 * 10**16) == "2.00 × 10¹⁹"
    assert [text.format_count(10**15 + more) for more in (-1, 0)] == ["999,999,999,999,999", "1.00 × 10¹⁵"]


def test_a_long_genotype_keeps_its_ends():
    short = text.short_genotype("-".join(["12"] * 100))
    assert len(short) <= 41
    assert short.startswith("12-12-")
    assert short.endswith("-12-12")


def test_the_table_of_a_run_names_everything():
    study = make_study()
    table = text.summary_table(study)
    for words in (study.winner, study.base, "winner", "base", "random", "at most", "(proven)", study.outcome.why):
        assert words in table


def test_the_table_of_a_study_that_has_not_run():
    assert "evaluated: 0 networks" in text.summary_table(not_run(make_study()))


@pytest.mark.situations
def test_more_than_a_tenth_of_failures_is_said_at_the_end_and_on_the_page():
    study = replace(make_study(), num_evaluated=36, num_failed=4, first_failure="2-2: nothing in t.json")
    assert text.failure_warning(study) == ""
    failed = replace(study, num_failed=5)
    warning = "5 of 41 evaluations failed, and nothing was learnt from them. The first: 2-2: nothing in t.json"
    assert text.summary_table(failed).splitlines()[-1] == f"warning: {warning}"
    assert f"Warning: {warning}" in story.effort(failed)  # the page's sentence on what was evaluated
    assert "arning" not in story.effort(study)


def test_a_sweep_is_a_table_that_says_what_is_over_its_limit():
    study = make_study()
    first, second, *others = study.sweep.points
    whole = study.sweep.base.measured
    over = replace(second, measured=0.42 * whole, proven=False)
    none = Point(limit=first.limit, at_most=first.at_most, recovered=False, note="The least attainable is more.")
    shown = replace(study, sweep=replace(study.sweep, points=(none, over, *others)))
    head, *rows = text.sweep_rows(shown)
    assert [row[0] for row in rows] == [*(point.limit for point in study.sweep.points), "base"]
    assert rows[0][1:] == ["none", *[""] * (len(head) - 2)]
    assert rows[1][head.index("of the base")] == "42.0 %"
    notes = text.sweep_notes(shown)
    assert notes[0] == "latency_ms<=30%: The least attainable is more."
    assert notes[1] == "latency_ms<=40%: measured whole the network is 5.0 % over the limit."
    assert len(notes) == 3


def test_columns_of_a_sweep_that_nothing_is_known_for_are_left_out():
    study = make_study()
    points = tuple(replace(point, measured=None, test=None) for point in study.sweep.points)
    base = replace(study.sweep.base, measured=None, test=None)
    head, *_ = text.sweep_rows(replace(study, sweep=replace(study.sweep, points=points, base=base)))
    assert head == ["limit", "network", "latency", "predicted validation accuracy", "evaluated"]


def test_plain_choices_are_told_by_their_values():
    study = make_study()
    values = {f"p{index}": ["O2", True, 4] for index in range(study.space.num_positions)}
    space = PlainChoices(PlainChoices.Settings(positions=values)).space
    told = ["O2", "true", "4"]
    expected = [f"p{index} {told[choice]}" for index, choice in enumerate(Genotype.parse(study.winner).choices)]
    assert f"winner: {', '.join(expected)}" in text.summary_table(replace(study, space=space)).splitlines()
    assert "winner:" not in text.summary_table(study)
