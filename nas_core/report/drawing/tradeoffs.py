"""The metric against resources: of one answer, and of many limits."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.report.drawing.canvas import (
    WIDTH_IN,
    NotYetRunError,
    few_ticks,
    legend_below,
    new_figure,
    panels,
    rated_axis,
    required,
)
from nas_core.report.style import Theme
from nas_core.report.summary import EvaluatedNetwork, FrontierSummary, StudySummary, SweepSummary
from nas_core.report.text import axis_unit, metric_axis
from nas_core.study.sweep import Point
from nas_core.workloads.metrics import Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FARTHEST = 1.0  # beyond what was evaluated, in its span, that an axis goes for a prediction's sake


def figure_frontier(summary: StudySummary, theme: Theme) -> "Figure":
    """Metric against each limited resource: evaluated networks, frontier, limit, base and chosen network."""
    resources = _drawn_resources(summary)
    if not resources or not (summary.networks or summary.frontiers):
        raise NotYetRunError("evaluations")
    figure, axes = panels(len(resources), 2, width=6.6, height=4.1)
    for ax, resource in zip(axes, resources, strict=True):
        _draw_resource(ax, summary, resource, theme)
    legend_below(figure, ncols=3)
    return figure


def _drawn_resources(summary: StudySummary) -> list[str]:
    """Limited resources and those with a frontier; without either, the first resource with known costs."""
    wanted = [*[limit.resource for limit in summary.limits], *[front.resource for front in summary.frontiers]]
    return list(dict.fromkeys(wanted)) or list(summary.costs_of(summary.base))[:1]


def _draw_resource(ax: "Axes", summary: StudySummary, resource: str, theme: Theme) -> None:
    scale = 100 if summary.scorer.metric.is_fraction else 1
    _draw_evaluated(ax, summary, resource, scale, theme)
    for front in summary.frontiers:
        if front.resource == resource:
            _draw_frontier(ax, front, scale, theme)
    for limit in summary.limits:
        if limit.resource == resource and limit.at_most is not None:
            _draw_limit(ax, limit.at_most, theme)
    _draw_named(ax, summary, resource, scale, theme)
    _near_what_was_evaluated(ax, [scale * row.metric for row in summary.networks])
    divisor, label = axis_unit(resource, max(ax.get_xlim()))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / divisor:g}")
    ax.xaxis.set_major_locator(few_ticks())
    ax.set_xlabel(label)
    ax.set_ylabel(rated_axis(summary))


def _near_what_was_evaluated(ax: "Axes", metrics: Sequence[float]) -> None:
    """Let a prediction that is far beyond all that was evaluated not squeeze the rest into a line."""
    if not metrics or (span := max(metrics) - min(metrics)) <= 0:
        return
    low, high = ax.dataLim.y0, ax.dataLim.y1
    least, most = max(low, min(metrics) - FARTHEST * span), min(high, max(metrics) + FARTHEST * span)
    if (least, most) != (low, high):
        margin = 0.05 * (most - least)
        ax.set_ylim(least - margin, most + margin)
        ax.text(0.98, 0.97, "some predictions lie beyond", transform=ax.transAxes, ha="right", va="top", fontsize=8)


def _draw_evaluated(ax: "Axes", summary: StudySummary, resource: str, scale: float, theme: Theme) -> None:
    pairs = [(_cost(summary, row, resource), scale * row.metric) for row in summary.networks]
    known = [(cost, metric) for cost, metric in pairs if cost is not None]
    if known:
        x, y = zip(*known, strict=True)
        ax.plot(x, y, ls="", marker="o", ms=4.5, mfc=theme.fit, mec="none", alpha=0.85, label="evaluated")


def _cost(summary: StudySummary, row: EvaluatedNetwork, resource: str) -> float | None:
    found = row.costs.get(resource)
    return found if found is not None else summary.summed_costs(row.genotype).get(resource)


def _draw_frontier(ax: "Axes", front: FrontierSummary, scale: float, theme: Theme) -> None:
    points = sorted(front.points, key=lambda point: point.cost)
    ax.step(
        [point.cost for point in points],
        [scale * point.predicted for point in points],
        where="post",
        color=theme.frontier,
        label="frontier (predicted)",
    )
    ax.plot(
        [point.cost for point in points],
        [scale * point.predicted for point in points],
        ls="",
        marker="D",
        ms=4.5,
        mfc=theme.frontier,
        mec=theme.frontier,
        label="best predicted (proven)",
    )


def _draw_limit(ax: "Axes", at_most: float, theme: Theme) -> None:
    left, right = ax.get_xlim()
    right = max(right, at_most + 0.05 * (right - left))
    ax.axvspan(at_most, right, color=theme.rule, alpha=0.45, lw=0, zorder=0)
    ax.axvline(at_most, color=theme.ink, lw=1.2, ls=(0, (5, 3)), label="limit")
    ax.set_xlim(left, right)


def _draw_named(ax: "Axes", summary: StudySummary, resource: str, scale: float, theme: Theme) -> None:
    marks = (("base", summary.base, "P", 10, theme.base), ("chosen", summary.winner, "*", 17, theme.winner))
    for label, genotype, marker, size, colour in marks:
        if genotype is None:
            continue
        cost, value = summary.costs_of(genotype).get(resource), _known_metric(summary, genotype)
        if cost is not None and value is not None:
            ax.plot(
                [cost],
                [scale * value],
                ls="",
                marker=marker,
                ms=size,
                mfc=colour,
                mec=theme.paper,
                zorder=6,
                label=label,
            )


def _known_metric(summary: StudySummary, genotype: str) -> float | None:
    """Evaluated metric of a network, or its prediction."""
    row, selected = summary.evaluated(genotype), summary.selected(genotype)
    if row is not None:
        return row.metric
    if selected is not None:
        return selected.predicted if selected.evaluated is None else selected.evaluated
    return None


def figure_sweep(summary: StudySummary, theme: Theme) -> "Figure":
    """The networks over a range of limits: predicted and as evaluated and measured; after training beside it."""
    sweep = required(summary.sweep, "selection")
    if all(point.genotype is None for point in sweep.points):
        raise NotYetRunError("networks within the limits")
    trained = any(point.test is not None for point in sweep.points)
    figure = new_figure(width=WIDTH_IN if trained else 6.6, height=4.1)
    axes = figure.subplots(1, 2 if trained else 1, squeeze=False)[0]
    _draw_points(axes[0], sweep, summary.scorer.metric, theme)
    axes[0].set_ylabel(rated_axis(summary))
    if trained:
        _draw_trained_points(axes[1], sweep, summary.metric, theme)
        axes[1].set_ylabel(metric_axis(summary.metric, "test"))
    for ax in axes:
        divisor, label = axis_unit(sweep.resource, max(ax.get_xlim()))
        ax.xaxis.set_major_formatter(lambda value, _, divisor=divisor: f"{value / divisor:g}")
        ax.xaxis.set_major_locator(few_ticks())
        ax.set_xlabel(label)
    legend_below(figure, ncols=3)
    return figure


def _draw_points(ax: "Axes", sweep: SweepSummary, metric: Measure, theme: Theme) -> None:
    """Predictions at the sums over blocks, evaluations at what was measured; a line joins the two of a network."""
    scale = 100 if metric.is_fraction else 1
    known = [point for point in sweep.points if point.genotype is not None]
    guess_K, low_K, high_K = scale * np.array([(p.predicted, p.low, p.high) for p in known], dtype=float).T
    summed_K = np.array([point.summed for point in known], dtype=float)
    ends_2K = np.maximum([guess_K - low_K, high_K - guess_K], 0.0)
    look: dict[str, Any] = {"color": theme.frontier, "marker": "D", "ms": 5, "mfc": theme.paper, "elinewidth": 0.8}
    ax.errorbar(summed_K, guess_K, yerr=ends_2K, label="predicted, at the sum of blocks", **look)
    seen = [index for index, point in enumerate(known) if point.evaluated is not None]
    if seen:
        taken_K = np.array([_taken(known[index]) for index in seen])
        value_K = scale * np.array([known[index].evaluated for index in seen], dtype=float)
        ax.plot([summed_K[seen], taken_K], [guess_K[seen], value_K], color=theme.faint, lw=0.8, zorder=1)
        where = "as measured whole" if any(point.measured is not None for point in known) else "at the sum of blocks"
        look = {"ls": "", "marker": "o", "mfc": theme.held_out, "mec": theme.paper, "zorder": 5}
        ax.plot(taken_K, value_K, label=f"evaluated, {where}", **look)
    known_K = [point.evaluated for point in (*known, sweep.base) if point.evaluated is not None]
    _near_what_was_evaluated(ax, [scale * value for value in known_K])
    value = sweep.base.predicted if sweep.base.evaluated is None else sweep.base.evaluated
    _draw_base(ax, _taken(sweep.base), scale * (value or 0.0), theme)


def _draw_trained_points(ax: "Axes", sweep: SweepSummary, metric: Measure, theme: Theme) -> None:
    scale = 100 if metric.is_fraction else 1
    pairs = sorted((_taken(point), scale * point.test) for point in sweep.points if point.test is not None)
    x, y = zip(*pairs, strict=True)
    ax.plot(x, y, color=theme.winner, marker="o", mec=theme.paper, label="after training")
    if sweep.base.test is not None:
        _draw_base(ax, _taken(sweep.base), scale * sweep.base.test, theme)


def _taken(point: Point) -> float:
    """What a point's network takes: as measured whole, else as summed."""
    value = point.summed if point.measured is None else point.measured
    assert value is not None, "the point has a network"
    return value


def _draw_base(ax: "Axes", cost: float, value: float, theme: Theme) -> None:
    ax.plot([cost], [value], ls="", marker="P", ms=10, mfc=theme.base, mec=theme.paper, zorder=6, label="base")
