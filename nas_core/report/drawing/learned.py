"""Networks as they were trained: beside others, and epoch by epoch."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nas_core.report.drawing.canvas import NotYetRunError, legend_below, new_figure, required
from nas_core.report.style import Theme
from nas_core.report.summary import Limit, StudySummary, TrainedNetwork
from nas_core.report.text import axis_unit, measured_of, metric_axis, trained_name
from nas_core.workloads.metrics import Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LineStyle = str | tuple[int, tuple[float, ...]]
RIVAL_LINES: dict[str, LineStyle] = {
    "depth": ":",
    "uniform": "-.",
    "greedy": "--",
    "largest": (0, (6, 1)),
    "torch_pruning": (0, (3, 1, 1, 1)),
    "sibling": (0, (1, 4)),
}


def figure_comparison(summary: StudySummary, theme: Theme) -> "Figure":
    """The chosen network and what it is compared with, trained alike: metric, and what each takes."""
    training = required(summary.training, "training")
    rows = [row for row in training.networks if row.test is not None and row.role != "point"]
    metric, most = training.metric, next((limit for limit in summary.limits if limit.at_most is not None), None)
    rows.sort(key=lambda row: (row.test or 0.0) * (1 if metric.higher_is_better else -1))
    figure = new_figure(height=0.34 * len(rows) + 1.5)
    left, right = figure.subplots(1, 2, sharey=True)
    scale = 100 if metric.is_fraction else 1
    colours = {"winner": theme.winner, "base": theme.base, "random": theme.fit}
    resource = most.resource if most is not None else "flops"
    for height, row in enumerate(rows):
        look: dict[str, Any] = {"ls": "", "marker": "o", "ms": 9, "color": colours.get(row.role, theme.held_out)}
        left.plot([scale * (row.test or 0.0)], [height], **look)
        if len(values := [scale * each.value for each in row.tests]) > 1:
            left.errorbar([scale * (row.test or 0.0)], [height], xerr=statistics.stdev(values), ecolor=look["color"])
        if (cost := {**row.costs, **row.measured}.get(resource)) is not None:
            right.plot([cost], [height], **look)
    names = {"winner": "chosen", "base": "base"}
    left.set_yticks(range(len(rows)), [names.get(row.role) or trained_name(row.role) for row in rows])
    left.set_xlabel(metric_axis(metric, "test"))
    right.set_xlim(left=0)
    divisor, label = axis_unit(resource, right.get_xlim()[1])
    right.xaxis.set_major_formatter(lambda value, _: f"{value / divisor:g}")
    right.set_xlabel(label)
    if most is not None:
        right.axvline(_limit_measured(summary, most), color=theme.faint, lw=1, ls=(0, (4, 3)))
    return figure


def _limit_measured(summary: StudySummary, limit: Limit) -> float:
    """The limit on a network that is measured whole, as it was asked for: a percentage is of what the base takes so."""
    whole = measured_of(summary, "base", summary.base).get(limit.resource)
    found = limit if whole is None else summary.limit_whole(limit, whole)
    assert found.at_most is not None, "an upper limit"
    return found.at_most


def figure_training(summary: StudySummary, theme: Theme) -> "Figure":
    """Validation metric and training loss of the trained networks, epoch by epoch."""
    training = required(summary.training, "training")
    curves = [row for row in training.networks if row.curve]
    if not curves:
        raise NotYetRunError("training curves")
    figure = new_figure(height=3.6)
    left, right = figure.subplots(1, 2)
    shown: set[str] = set()
    for row in sorted(curves, key=lambda row: row.role == "winner"):
        _draw_curve(left, right, row, training.metric, theme, "" if row.role in shown else row.role)
        shown.add(row.role)
    left.set_ylabel(metric_axis(training.metric, "validation"))
    right.set_ylabel("training loss")
    whole = all(float(point.epoch).is_integer() for row in curves for point in row.curve)
    for ax in (left, right):
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=whole)
    legend_below(figure, ncols=3)
    return figure


def _draw_curve(left: "Axes", right: "Axes", row: TrainedNetwork, metric: Measure, theme: Theme, label: str) -> None:
    looks: dict[str, tuple[str, LineStyle, float]] = {
        "winner": (theme.winner, "-", 2.4),
        "base": (theme.base, "--", 1.6),
        "random": (theme.fit, "-", 1.4),
        "point": (theme.frontier, "-", 1.2),
    }
    colour, style, width = looks.get(row.role) or (theme.verify, RIVAL_LINES.get(row.role, ":"), 1.2)
    names = {"winner": "chosen", "point": "at another limit", "": None}
    label_shown = names[label] if label in names else trained_name(label)
    scale = 100 if metric.is_fraction else 1
    curves = (row.curve, *row.curves)
    values = [[(p.epoch, scale * p.validation) for p in each if p.validation is not None] for each in curves]
    loss = [[(p.epoch, p.train_loss) for p in each if p.train_loss is not None] for each in curves]
    for ax, of_seeds in ((left, values), (right, loss)):
        at = _by_epoch(of_seeds)
        if not at:
            continue
        look: dict[str, Any] = {"color": colour, "ls": style, "lw": width, "marker": "o" if len(at) == 1 else ""}
        ax.plot(list(at), [statistics.fmean(y) for y in at.values()], label=label_shown, **look)
        if len(curves) > 1:
            band = [min(y) for y in at.values()], [max(y) for y in at.values()]
            ax.fill_between(list(at), *band, color=colour, alpha=0.2, lw=0)


def _by_epoch(curves: Sequence[Sequence[tuple[float, float]]]) -> dict[float, list[float]]:
    """The values of all curves at each epoch that some have; one that stopped early is not in those after it."""
    at: dict[float, list[float]] = {}
    for x, y in sorted(pair for curve in curves for pair in curve):
        at.setdefault(x, []).append(y)
    return at
