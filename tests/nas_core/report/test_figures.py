import threading
from dataclasses import replace

import pytest

from nas_core.report.drawing.agreement import figure_calibration
from nas_core.report.drawing.canvas import NotYetRunError
from nas_core.report.drawing.effect_cells import effect_text
from nas_core.report.drawing.effort import figure_study_cost
from nas_core.report.drawing.learned import figure_training
from nas_core.report.figures import FIGURES, drawn, render, save_figures
from nas_core.report.story import wild_predictions
from nas_core.report.strip import strips
from nas_core.report.style import LIGHT
from nas_core.report.summary import BlockEffect, BlockEffects, StageCost
from nas_core.space.genotypes import BlockSpec
from nas_core.workloads.classification import CLASSIFICATION
from nas_core.workloads.metrics import Measure
from tests.nas_core.report.studies import LARGE, RAGGED, SMALL, make_study, not_run

PNG = b"\x89PNG\r\n"
STUDIES = {"small": make_study(SMALL), "ragged": make_study(RAGGED), "large": make_study(LARGE)}


@pytest.mark.parametrize("size", STUDIES)
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_renders_at_every_size(size, name):
    png = render(STUDIES[size], name)
    assert png.startswith(PNG)
    assert len(png) < 700_000


def test_figures_of_a_lower_is_better_metric():
    loss, study = CLASSIFICATION["cross_entropy"].measure, STUDIES["small"]
    training = replace(study.training, metric=loss)
    shown = replace(study, scorer=replace(study.scorer, metric=loss), training=training)
    images = save_figures(shown)
    assert set(images) == set(FIGURES)
    assert all(images[name] != render(study, name) for name in ("block_effects", "calibration", "frontier", "training"))


def test_a_wild_prediction_does_not_squeeze_the_others_into_a_corner():
    study = STUDIES["small"]
    wild = replace(study.networks[0], predicted=-30.0)
    shown = replace(study, networks=(wild, *study.networks[1:]))
    assert wild_predictions(study) == ""
    assert "1 lies beyond all evaluations by more than these differ" in wild_predictions(shown)
    figure = figure_calibration(shown, LIGHT)
    metrics = [100 * row.metric for row in study.networks]
    left, right = figure.axes[0].get_xlim()
    assert right - left < 4 * (max(metrics) - min(metrics))
    assert "drawn in (1)" in str([text.get_text() for text in figure.legends[0].get_texts()])


def test_failed_networks_are_among_those_that_a_stage_had():
    counts = (
        {"num_evaluations": 20, "num_failed": 2},
        {"num_evaluations": 1, "num_reused": 9, "num_failed": 3},
    )
    stages = tuple(StageCost(stage="score", wall_s=1, **each) for each in counts)
    left = figure_study_cost(replace(STUDIES["small"], stages=stages), LIGHT).axes[0]
    assert [text.get_text().strip() for text in left.texts] == ["20", "10"]


def test_stages_that_have_not_run_have_no_figure():
    assert save_figures(not_run(make_study())) == {}
    with pytest.raises(NotYetRunError):
        render(not_run(make_study()), "calibration")


def test_figures_are_saved_by_name_in_both_themes(tmp_path):
    study = replace(STUDIES["small"], calibration=None, networks=(), additivity=(), training=None, frontiers=())
    study = replace(study, reasons=None, sweep=None)
    light = save_figures(study, tmp_path / "figures")
    saved = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert saved == set(light) == {"network", "block_effects", "study_cost"}
    assert render(STUDIES["small"], "network", "dark") != light["network"]


def test_drawing_leaves_matplotlibs_settings_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    render(STUDIES["small"], "study_cost")
    assert dict(mpl.rcParams) == before


def test_figures_of_degenerate_numbers():
    study = STUDIES["small"]
    nothing = BlockEffects(base=study.base, effects=(BlockEffect(position=0, choice=0, effect=0.0),))
    one = replace(study, networks=study.networks[:1], frontiers=(), limits=(), block_effects=nothing)
    same = replace(one, networks=tuple(replace(row, metric=0.5, predicted=0.5) for row in study.networks))
    for case in (one, same):
        assert set(save_figures(case)) == set(FIGURES)
    assert "ladder" not in save_figures(replace(study, cost_tables=()))


@pytest.mark.situations
@pytest.mark.parametrize("size", STUDIES)
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_covers_what_is_drawn(size, name):
    """No box of words lies on the axes: it would hide the chosen network's star, say."""
    figure = drawn(STUDIES[size], name)
    figure.canvas.draw()
    axes = [ax.get_window_extent() for ax in figure.axes if ax.axison]
    assert [ax for ax in figure.axes if ax.get_legend() is not None and name != "study_cost"] == []
    assert not [legend for legend in figure.legends for ax in axes if legend.get_window_extent().overlaps(ax)]
    assert not [text for ax in figure.axes for text in ax.texts if text.get_bbox_patch() is not None]


@pytest.mark.situations
@pytest.mark.parametrize("size", STUDIES)
def test_a_legend_names_no_more_than_is_drawn(size):
    def legend(study):
        return [text.get_text() for each in drawn(study, "block_effects").legends for text in each.get_texts()]

    study = STUDIES[size]
    assert "chosen block" in legend(study)
    assert "chosen block" not in legend(replace(study, selection=None, verification=None))


@pytest.mark.situations
def test_epochs_are_counted_whole():
    training = STUDIES["small"].training
    short = replace(training, networks=tuple(replace(row, curve=row.curve[:3]) for row in training.networks))
    left, right = figure_training(replace(STUDIES["small"], training=short), LIGHT).axes
    for axes in (left, right):
        assert [tick for tick in axes.get_xticks() if not float(tick).is_integer()] == []


def test_what_no_run_took_is_not_drawn():
    """From the value, a mean of the faster half, half the distance between percentiles leads to where no run was."""
    far = tuple(replace(pair, spread=9 * pair.measured) for pair in STUDIES["small"].additivity[0].pairs)
    study = replace(STUDIES["small"], additivity=(replace(STUDIES["small"].additivity[0], pairs=far),))
    ax = drawn(study, "additivity").axes[0]
    assert ax.get_ylim()[0] > 0
    assert ax.get_ylim()[1] < 2 * max(pair.measured for pair in far)


def test_a_dollar_in_a_name_is_no_formula():
    study = replace(STUDIES["small"], scorer=replace(STUDIES["small"].scorer, metric=Measure.called("a$b^$_{c")))
    assert render(study, "calibration").startswith(PNG)


def test_figures_can_be_drawn_off_the_main_thread():
    images = []
    thread = threading.Thread(target=lambda: images.append(render(STUDIES["small"], "study_cost")))
    thread.start()
    thread.join()
    assert images[0].startswith(PNG)


def test_strips_share_one_scale_and_mark_what_differs():
    study = STUDIES["small"]
    winner, base = strips(study, [study.winner, study.base])
    assert max(block.height for strip in (winner, base) for block in strip.blocks) == 1
    changed = [a.label != b.label for a, b in zip(winner.blocks, base.blocks, strict=True)]
    assert [block.differs for block in winner.blocks] == changed
    assert [stage.label for stage in base.stages] == ["16 × 16 px, 64 ch", "8 × 8 px, 128 ch", "4 × 4 px, 256 ch"]


@pytest.mark.parametrize(
    ("stem", "first"),
    [
        (BlockSpec.of("conv-pool", out_channels=32), "4 × 4 px, 64 ch"),
        (BlockSpec.of("patchify", out_channels=32, patch=2), "8 × 8 px, 64 ch"),
        (BlockSpec.of("of a plug-in that is not here"), "64 ch"),
    ],
)
def test_sizes_are_those_behind_the_stem(stem, first):
    study = STUDIES["small"]
    (strip,) = strips(replace(study, space=replace(study.space, stem=stem)), [study.base])
    assert strip.stages[0].label == first


def test_a_strip_without_costs_draws_blocks_alike():
    study = replace(STUDIES["small"], cost_tables=())
    (strip,) = strips(study, [study.base])
    assert strip.resource is None
    assert len({block.height for block in strip.blocks}) == 1


def test_small_effects_of_a_loss_keep_their_digits():
    accuracy, loss = (CLASSIFICATION[name].measure for name in ("accuracy", "cross_entropy"))
    assert [effect_text(loss, value) for value in (0.0131, -0.0064, 1.234, 0.0)] == ["+0.013", "−0.0064", "+1.23", "0"]
    assert [effect_text(accuracy, value) for value in (0.0131, -0.00006, 0.123)] == ["+1.31", "−0.01", "+12"]


def test_a_wild_prediction_does_not_squeeze_what_was_evaluated():
    study = make_study()
    front = study.frontiers[0]
    wild = replace(
        front, points=(*front.points, replace(front.points[0], cost=0.9 * front.points[0].cost, predicted=-99.0))
    )
    figure = drawn(replace(study, frontiers=(wild, *study.frontiers[1:])), "frontier")
    ax = next(each for each in figure.axes if each.texts)
    values = [100 * row.metric for row in study.networks]
    assert ax.get_ylim()[1] - ax.get_ylim()[0] < 4 * (max(values) - min(values))
    assert ax.texts[0].get_text() == "some predictions lie beyond"


def test_a_training_of_one_epoch_is_a_point():
    study = make_study()
    rows = tuple(replace(row, curve=row.curve[:1]) for row in study.training.networks)
    left, right = drawn(replace(study, training=replace(study.training, networks=rows)), "training").axes
    assert all(line.get_marker() == "o" for ax in (left, right) for line in ax.lines)
    assert left.lines
    assert all(line.get_marker() == "" for ax in drawn(study, "training").axes for line in ax.lines)
