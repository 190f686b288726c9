import base64
import json
import re
import statistics
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import scipy.stats

from nas_core.report import story
from nas_core.report.drawing.effect_cells import colour_range
from nas_core.report.drawing.learned import figure_training
from nas_core.report.figures import render, save_figures
from nas_core.report.page import MAX_FIGURE_BYTES, draw, render_page, write_report
from nas_core.report.style import THEMES
from nas_core.report.summary import Limit, SeedValue, StudySummary
from nas_core.report.tables import (
    alternatives_table,
    classes_table,
    comparison_table,
    evaluated_table,
    instead_table,
    prices_table,
    swaps_table,
    whole_table,
)
from nas_core.report.text import (
    best_predicted,
    compared_networks,
    format_amount,
    format_metric,
    format_metric_change,
    summary_table,
)
from nas_core.space.genotypes import BlockSpec, Genotype, Position
from nas_core.workloads.classification import CLASSIFICATION
from nas_core.workloads.metrics import Measure
from tests.nas_core.report.studies import LARGE, RAGGED, SMALL, make_space, make_study, not_run

NO_FIGURES = {"light": {}, "dark": {}}
ATTACK = "<script>alert('x')</script>\"&"


@pytest.fixture(scope="module")
def study():
    return make_study(SMALL)


@pytest.fixture(scope="module")
def drawn(study):
    return draw(study)


@pytest.fixture(scope="module")
def page(study, drawn):
    return render_page(study, drawn)


def test_why_verification_ended_is_said_once(study):
    reason = study.verification.sentence[1:].removesuffix(".")
    assert story.certainty(study).count(reason) == 1
    why = f"The best predicted network was not evaluated, since t{reason}; only evaluated networks are chosen."
    told = replace(study, outcome=replace(study.outcome, why=why))
    assert story.certainty(told).count(reason) == 1


def test_predictions_that_are_no_more_than_a_side_are_said_so(study, drawn):
    wild = replace(study.networks[0], predicted=-30.0)
    words = story.wild_predictions(replace(study, networks=(wild, *study.networks[1:])))
    assert "(to -3000.00 %)" in words
    assert words in render_page(replace(study, networks=(wild, *study.networks[1:])), drawn)


@pytest.mark.situations
def test_a_path_of_blocks_that_do_worse_one_by_one_is_explained(study, drawn):
    words = "effects of single blocks do not add up"
    assert words not in render_page(study, drawn)
    together = replace(study, block_effects=replace(study.block_effects, adds_up=False))
    assert words in render_page(together, drawn)


class _Structure(HTMLParser):
    """Open elements and outside addresses of a page."""

    VOID = frozenset({"meta", "img", "source", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "srcset", "action", "data"}:
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def structure(page: str) -> _Structure:
    parser = _Structure()
    parser.feed(page)
    assert parser.open == []
    return parser


@pytest.mark.parametrize("num_choices", [RAGGED, LARGE])
def test_the_page_is_small_whole_and_asks_for_nothing(num_choices):
    study = make_study(num_choices)
    light = save_figures(study)  # twice, as the dark ones are as large
    page = render_page(study, {"light": light, "dark": light})
    assert len(page.encode()) < 5_000_000
    assert all(address.startswith("data:image/png;base64,") for address in structure(page).addresses)
    assert not re.search(r"https?://|@import|url\(", page)


@pytest.mark.parametrize(
    ("share", "in_dark", "is_beside"), [(0.1, True, False), (0.6, False, False), (1.1, False, True)]
)
def test_a_figure_that_is_too_large_for_the_page_lies_beside_it(study, share, in_dark, is_beside):
    """Photographs and noise are: first they are not there twice, then not at all. The others are as they were."""
    drawn = draw(study)
    large = drawn["light"]["training"] + bytes(int(share * MAX_FIGURE_BYTES))
    page = render_page(study, {theme: {**images, "training": large} for theme, images in drawn.items()})
    assert len(page) < 5_500_000
    assert ('<a href="figures/training.png">' in page) == is_beside
    shown = page.count(base64.b64encode(large).decode())
    assert shown == (0 if is_beside else 2 if in_dark else 1)
    assert base64.b64encode(drawn["dark"]["calibration"]).decode() in page


def test_the_page_holds_the_numbers(study, page):
    winner = study.trained("winner")[0]
    costs = study.costs_of(study.winner)
    wanted = [
        study.winner,
        study.base,
        format_metric(study.metric, winner.test),
        format_metric(study.metric, study.trained("random")[0].test),
        *[format_amount(name, value) for name, value in costs.items()],
        f"{study.calibration.kendall:.2f}",
        f"{study.calibration.spearman:.2f}",
        "3⁸ = 6,561",
        study.space.space_id,
        study.provenance.scorer_id,
        study.provenance.commands[0],
        f"Best predicted: {best_predicted(study.outcome, study.scorer.metric)}",
    ]
    for text in wanted:
        assert text in page


def test_every_figure_is_there_in_both_themes(page):
    assert page.count("data:image/png;base64,") == 2 * 12
    assert page.count('<svg class="strip"') == 2


def test_classes_are_shown_the_worst_first_where_there_are_some(study):
    confusion = ((8, 2, 0), (0, 5, 5), (0, 0, 0))
    winner, *others = study.training.networks
    training = replace(
        study.training,
        networks=(replace(winner, confusion=confusion), *others),
        output_names=("ant", "bee", "cat"),
    )
    table = classes_table(replace(study, training=training))
    assert table.rows == (
        ("cat", "0", "–", "0.0 %", "0.0 %", "–"),
        ("bee", "10", "50.0 %", "71.4 %", "58.8 %", "cat (50.0 %)"),
        ("ant", "10", "80.0 %", "100.0 %", "88.9 %", "bee (20.0 %)"),
    )
    without = replace(study.training, networks=(replace(winner, confusion=()), *others))
    page = render_page(replace(study, training=without), NO_FIGURES)
    assert "Class by class" not in page


def test_sums_that_are_all_off_alike_are_said_to_be_one_factor_away(study):
    [known] = study.additivity
    shares = (1.117, 1.136, 1.126)
    more = tuple(replace(pair, measured=pair.summed / share) for pair, share in zip(known.pairs, shares, strict=False))
    less = tuple(replace(pair, measured=pair.summed * share) for pair, share in zip(known.pairs, shares, strict=False))
    figure = {theme: {"additivity": b"drawn"} for theme in NO_FIGURES}

    def page(pairs, r2):
        return render_page(replace(study, additivity=(replace(known, pairs=pairs, r2=r2),)), figure)

    further = "what was measured, which is further off than networks are from each other"
    said = f"On 3 whole networks, sums of latency are 11.7 % to 13.6 % more than {further}; divided by 1.126, they are"
    assert f"{said} within 0.9 %. The program goes by" in page(more, -2.5)
    assert f"sums of latency are 10.5 % to 12.0 % less than {further}; divided by 0.888, they are" in page(less, -2.5)
    assert f"sums of latency are between 10.5 % less and 11.7 % more than {further}. " in page(
        more[:1] + less[:1], -0.1
    )
    assert "the sum over blocks explains 98 % of the variance of latency and the worst error is" in page(more, 0.98)


def test_why_these_blocks_is_told_position_by_position(study):
    swaps = study.reasons.swaps
    table = instead_table(study)
    assert [row[0] for row in table.rows] == [f"{index} p{index}" for index in range(8)]
    best = max((swap for swap in swaps if swap.position == 0), key=lambda swap: swap.change)
    assert format_metric_change(study.scorer.metric, best.change) in table.rows[0][2]
    assert all(text in table.rows[0][2] for text in best.breaks)
    assert len(swaps_table(study).rows) == len(swaps)
    prices = prices_table(study)
    assert [row[2] for row in prices.rows] == ["+0.05 points", "+0.50 points"] * 2
    page = render_page(replace(study, reasons=None, sweep=None), NO_FIGURES)
    assert "What a limit costs" not in page
    assert "One study, many limits" not in page


def test_the_next_best_networks_say_where_they_differ(study):
    first, second, *_ = alternatives_table(study).rows
    assert first[-1] == "nowhere: it is the chosen one"
    chosen, other = (Genotype.parse(row.genotype).choices for row in study.selection.networks[:2])
    pairs = enumerate(zip(chosen, other, strict=True))
    assert second[-1] == ", ".join(f"{index}: {two}" for index, (one, two) in pairs if one != two)


def test_missing_stages_name_their_command(study):
    page = render_page(not_run(study))
    structure(page)
    for verb in ("score", "profile", "select", "verify", "train", "run"):
        assert f"<code>mathnas {verb}</code>" in page
    assert "No network has been selected yet" in page
    assert "Nothing has been evaluated yet" in page


@pytest.mark.parametrize(
    "field",
    ["networks", "cost_tables", "block_effects", "selection", "calibration", "verification", "training", "stages"],
)
def test_any_one_missing_stage_leaves_a_page(study, field):
    empty = () if isinstance(getattr(study, field), tuple) else None
    structure(render_page(replace(study, **{field: empty}), NO_FIGURES))


def test_what_users_write_cannot_inject():
    space = make_space(SMALL, ATTACK)
    evil = Position(
        name=ATTACK, out_channels=64, stride=1, blocks=(BlockSpec.of(ATTACK), BlockSpec.of("mbconv", a=ATTACK))
    )
    space = replace(space, positions=(evil, *space.positions[1:]))
    study = make_study(space=space)
    study = replace(
        study,
        name=ATTACK,
        device=ATTACK,
        data=replace(study.data, name=ATTACK, description=ATTACK),
        scorer=replace(study.scorer, metric=Measure.called(ATTACK), split=ATTACK, kind=ATTACK, description=ATTACK),
        selection=replace(study.selection, sentence=ATTACK, route=ATTACK, status=ATTACK),
        provenance=replace(study.provenance, commands=(ATTACK,), tracking={ATTACK: ATTACK}, created=ATTACK),
        limits=tuple(replace(limit, text=ATTACK, device=ATTACK) for limit in study.limits),
    )
    page = render_page(study, NO_FIGURES)
    structure(page)
    assert page.count("<script>") == 1  # our own
    assert "alert('x')" not in page
    assert "&lt;script&gt;" in page


def test_a_loss_is_shown_in_its_own_unit(study):
    page = render_page(with_metric(study, CLASSIFICATION["cross_entropy"].measure), NO_FIGURES)
    best = min(row.metric for row in study.networks)
    assert f"{best:.4g} nats" in page
    assert "validation cross-entropy, nats (lower is better)" in page
    assert "its cross-entropy is" in page


def with_metric(study, metric):
    return replace(study, scorer=replace(study.scorer, metric=metric), training=replace(study.training, metric=metric))


def test_what_the_predictor_was_fitted_to_is_not_passed_off_as_predicted(study):
    assert "of the design is the fit to them" in evaluated_table(study).note
    others = tuple(row for row in study.networks if row.role not in ("base", "design"))
    assert evaluated_table(replace(study, networks=others)).note == ""


@pytest.mark.parametrize("name", ["macro_f1", "cross_entropy"])
def test_no_page_calls_another_metric_accuracy(study, name):
    for shown in (with_metric(study, CLASSIFICATION[name].measure), not_run(study)):
        shown = replace(shown, scorer=replace(shown.scorer, metric=CLASSIFICATION[name].measure))
        assert "accura" not in render_page(shown, NO_FIGURES).lower()


def test_the_best_by_a_lower_is_better_metric_come_first_and_beat_what_is_higher(study):
    loss = with_metric(study, CLASSIFICATION["cross_entropy"].measure)
    first = evaluated_table(loss).rows[0]
    assert first[2] == format_metric(loss.scorer.metric, min(row.metric for row in study.networks))
    values = {"winner": 0.4, "base": 0.6, "random": 0.5}
    rows = tuple(replace(row, test=values[row.role]) for row in study.training.networks)
    sentences = " ".join(story.comparison(replace(loss, training=replace(loss.training, networks=rows))))
    assert "reaches 0.6 nats, 0.2 nats more" in sentences
    assert "does not beat" not in sentences
    assert "chance" not in sentences  # of a mean of logarithms nobody knows it


def test_the_report_files_are_the_page_its_data_and_its_figures(study, tmp_path):
    path = write_report(study, tmp_path)
    assert path == tmp_path / "report.html"
    assert StudySummary.from_dict(json.loads((tmp_path / "report.json").read_text())) == study
    assert len(list((tmp_path / "figures").glob("*.png"))) == 13
    assert not list(tmp_path.rglob(".*"))


def test_the_same_study_gives_the_same_page(study, drawn, page):
    assert render_page(study, drawn) == page
    assert render(study, "calibration") == drawn["light"]["calibration"]


def test_a_winner_that_does_not_win_is_said_not_to(study):
    rows = tuple(replace(row, test=0.80 if row.role == "winner" else 0.85) for row in study.training.networks)
    sentences = " ".join(story.comparison(replace(study, training=replace(study.training, networks=rows))))
    assert "5.00 points more" in sentences
    assert "does not beat" in sentences


def with_rivals(study):
    """The study, its winner compared with others at the same limits and all measured whole; one is no network of it."""
    first = study.trained("winner")[0]
    rows = [replace(row, measured={"latency_ms": 4.0}) for row in study.training.networks]
    costs = {"flops": 1e6, "params": 1e5}
    for role, name, test in (("depth", study.winner, 0.7), ("uniform", "uniform 0.41", 0.9)):
        mine = first.costs if role == "depth" else costs
        changes = {"costs": mine, "measured": {"latency_ms": 3.5}, "more_epochs": 2.5 if role == "uniform" else 0.0}
        rows.append(replace(first, role=role, genotype=name, test=test, **changes))
    remarks = ("Torch-Pruning: It is not installed.",)
    return replace(study, training=replace(study.training, networks=tuple(rows), remarks=remarks))


def test_where_no_whole_networks_were_asked_for_no_command_is_named_for_them(study):
    command = "<code>mathnas profile</code> makes this part"
    asked = render_page(replace(study, additivity=(), cost_tables=()), NO_FIGURES)
    done = render_page(replace(study, additivity=()), NO_FIGURES)
    assert asked.count(command) - done.count(command) == 1
    assert "profile.networks is below 3" in done


def test_networks_measured_whole_are_called_what_they_are(study):
    other = next(row.genotype for row in study.training.networks if row.role == "random")
    (measured,) = study.whole
    more = replace(measured.networks[0], genotype=other, summed=0.9 * measured.networks[0].measured)
    shown = replace(study, whole=(replace(measured, networks=(*measured.networks, more)),), sweep=None)
    rows = whole_table(shown).rows
    assert rows[-1][0] == "finalist"
    assert rows[-1][-1] == "−10.0 %"
    assert {"base", "chosen"} <= {row[0] for row in rows}
    within = whole_table(shown).head.index("middle 80 % of runs within")
    assert rows[-1][within] == format_amount(measured.resource, 2 * more.spread)  # what is kept is half of it


def test_limits_from_below_are_in_the_table(study):
    (first, *others), low = study.limits, Limit(resource="params", at_most=None, at_least=1000, text="params>=1000")
    both = replace(first, at_least=first.at_most / 2)
    table = comparison_table(replace(study, limits=(both, *others, low)))
    foot = dict(zip(table.head, table.foot, strict=True))
    assert foot["parameters"] == "≥ 1.00 k"
    assert foot["multiply-adds"].startswith("≥ ")
    assert ", ≤ " in foot["multiply-adds"]


def test_others_at_the_same_limits_are_in_the_tables_the_text_and_a_figure(study):
    shown = with_rivals(study)
    table = comparison_table(shown)
    rows = {row[0]: row for row in table.rows}
    assert [*rows] == ["chosen", "base", "random", "fewer blocks", "uniform width"]
    assert table.head[-2] == "latency, measured whole"
    assert rows["uniform width"][1:3] == ("uniform 0.41", "90.00 %")
    assert rows["uniform width"][-2] == "3.50 ms (88 %)"
    sentences = " ".join(story.comparison(shown))
    assert "Others at the same limits, trained alike: fewer blocks 70.00 %" in sentences
    assert "The chosen network beats 2 of them." in sentences
    assert "Torch-Pruning: It is not installed." in sentences
    text, longer = summary_table(shown), "by as many multiply-adds as distilling took: uniform width 2.5 epochs more."
    assert longer in text
    assert longer in sentences
    assert "distilling" not in " ".join((summary_table(study), *story.comparison(study)))
    assert re.search(r"uniform width +uniform 0\.41 +90\.00 %.* 3\.50 ms", text)
    assert render(shown, "comparison").startswith(b"\x89PNG")
    assert StudySummary.from_dict(shown.to_dict()) == shown


def test_small_differences_are_called_chance(study):
    rows = tuple(replace(row, test=0.80 if row.role == "winner" else 0.799) for row in study.training.networks)
    sentences = " ".join(story.comparison(replace(study, training=replace(study.training, networks=rows))))
    assert "may be chance" in sentences


def test_a_broken_limit_is_said_to_be(study):
    tight = replace(study, limits=tuple(replace(limit, at_most=limit.at_most / 100) for limit in study.limits))
    assert story.within_limits(tight, study.winner).startswith(
        "It does not keep the limit on multiply-adds and latency"
    )


def from_seeds(study, **values):
    """The study, whose networks of these roles were trained from as many seeds."""

    def row(known):
        given = values.get(known.role)
        tests = tuple(SeedValue(seed=seed, value=value) for seed, value in enumerate(given or ()))
        if not given:
            return known
        return replace(known, tests=tests, test=statistics.fmean(given), curves=(known.curve,) * (len(given) - 1))

    return replace(study, training=replace(study.training, networks=tuple(map(row, study.training.networks))))


def test_several_seeds_give_mean_spread_and_a_paired_test(study):
    winner, base = [0.91, 0.93, 0.95], [0.90, 0.91, 0.935]
    several = from_seeds(study, winner=winner, base=base)
    sentences = " ".join(story.comparison(several))
    p = scipy.stats.ttest_rel(winner, base).pvalue
    assert "less that of the base network is +1.50 points over 3 seeds" in sentences
    assert f"standard deviation 0.50 points (paired t-test, p = {p:.3f}): more than chance." in sentences
    assert "Differences under" not in sentences
    assert "random" in sentences  # of one training each: compared, not tested
    assert "93.00 % ± 2.00 points" in summary_table(several)
    assert "mean ± standard deviation of 3 trainings each, seeds 0, 1, 2" in story.training_source(several)
    assert StudySummary.from_dict(several.to_dict()) == several
    rivals = " ".join(story.comparison(from_seeds(with_rivals(study), winner=winner, uniform=[0.90, 0.91, 0.92])))
    assert "less that of uniform width is +2.00 points over 3 seeds" in rivals
    less = " ".join(story.comparison(from_seeds(study, winner=[0.91, 0.93, 0.95], base=[0.92, 0.91, 0.94])))
    assert "which may be chance" in less
    same = " ".join(story.comparison(from_seeds(study, winner=[0.9, 0.8], base=[0.8, 0.7])))
    assert "is +10.00 points over 2 seeds, the same from each." in same


def test_what_several_seeds_say_is_told_from_what_the_first_does(study):
    several = from_seeds(study, winner=[0.91, 0.93, 0.95])
    page = render_page(several, NO_FIGURES)
    assert "mean of 3 trainings" in page
    assert "measured once, after training" not in page
    assert "test accuracy, first training" in page
    assert "first training" not in render_page(study, NO_FIGURES)


def test_others_that_are_over_a_limit_when_measured_are_named(study):
    limit = next(each for each in study.limits if each.resource == "latency_ms")
    most = study.limit_whole(limit).at_most

    def measured(row):
        own = study.measured_whole(study.base, "latency_ms")
        taken = {"base": own, "random": 1.3 * most}
        return replace(row, measured={"latency_ms": taken.get(row.role, 0.9 * most)})

    over = replace(study, training=replace(study.training, networks=tuple(map(measured, study.training.networks))))
    page, told = render_page(over, NO_FIGURES), "Over the limit on latency when measured whole: random"
    assert told in page
    assert not any("when measured whole" in each for each in story.comparison(study))


def test_a_limit_that_was_moved_is_told_from_the_one_that_was_asked_for(study):
    limit = next(each for each in study.limits if each.resource == "latency_ms")
    others = tuple(each for each in study.limits if each is not limit)
    held = replace(limit, text="latency_ms<=4 ms", at_most=4.8)
    moved = replace(study, limits=(*others, held))
    assert "4.80 ms, which sums over blocks are held to" in render_page(moved, NO_FIGURES)
    assert "at most 4.00 ms latency" in summary_table(moved)
    assert "(of sums over blocks 4.80 ms)" in summary_table(moved)
    assert "of sums over blocks" not in summary_table(study)


def test_another_pace_of_the_machine_is_told_from_costs_that_do_not_add_up(study):
    assert story.pace(study) == ""
    (whole,) = study.whole
    slower = tuple(replace(row, summed=1.5 * row.summed) for row in whole.networks)
    words = story.pace(replace(study, whole=(replace(whole, networks=slower),)))
    assert words.startswith("All sums of latency are 58 % more than what was measured here: the machine")
    one_only = (slower[0], *whole.networks[1:])
    assert story.pace(replace(study, whole=(replace(whole, networks=one_only),))) == ""


def test_curves_of_several_seeds_have_a_band(study):
    figure = figure_training(from_seeds(study, winner=[0.9, 0.91]), THEMES["light"])
    left, right = figure.axes
    assert len(left.collections) == len(right.collections) == 1
    assert not any(ax.collections for ax in figure_training(study, THEMES["light"]).axes)


def test_a_base_that_won_is_compared_by_its_own_training(study):
    won = replace(study, base=study.winner, training=replace(study.training, networks=study.trained("winner")))
    assert [value for role, _, value in compared_networks(won) if role == "base"] == [study.trained("winner")[0].test]


def test_of_a_metric_of_which_less_is_better_the_signs_of_a_table_are_explained(study):
    losing = replace(study.scorer, metric=replace(study.scorer.metric, higher_is_better=False))
    assert instead_table(study).note == ""
    assert instead_table(replace(study, scorer=losing)).note == "Of the metric, positive is better."


def test_what_is_arithmetic_depends_on_how_large_the_metric_is(study):
    """A loss of 1e-12 has effects, too."""
    small = [replace(row, metric=row.metric * 1e-12) for row in study.networks if row.metric is not None]
    least = replace(study, networks=tuple(small)).least_change
    assert 0 < least < 1e-20
    assert colour_range(np.array([[1e-14, -3e-14], [0.0, np.nan]]), least) < 1e-13
    assert colour_range(np.array([[1e-22, 0.0]]), least) == 0.01
