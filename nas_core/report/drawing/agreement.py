"""What was predicted beside what was evaluated or measured."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nas_core.report.drawing.canvas import (
    NotYetRunError,
    draw_diagonal,
    legend_below,
    new_figure,
    panels,
    rated_axis,
)
from nas_core.report.style import Theme
from nas_core.report.summary import EvaluatedNetwork, ResourceAdditivity, StudySummary, plausible
from nas_core.report.text import format_percent, resource_name
from nas_core.study.frames import Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure_calibration(summary: StudySummary, theme: Theme) -> "Figure":
    """Predicted against evaluated metric; rank statistics of the held-out networks in the corner."""
    predicted = [row for row in summary.networks if row.predicted is not None]
    if not predicted:
        raise NotYetRunError("predictions")
    rows = _on_the_scale(predicted)
    figure = new_figure(width=6.6, height=5.4)
    ax = figure.subplots()
    scale = 100 if summary.scorer.metric.is_fraction else 1
    looks: tuple[tuple[tuple[Role, ...], str, str, float, str], ...] = (
        (("base", "design"), "o", theme.fit, 5, "used to fit"),
        (("held-out",), "s", theme.held_out, 6, "held out"),
        (("verification", "other"), "^", theme.verify, 7, "evaluated later"),
    )
    for roles, marker, colour, size, label in looks:
        mine = [row for row in rows if row.role in roles]
        if mine:
            label = f"{label} ({len(mine)})"
            _scatter_with_intervals(ax, mine, scale, marker, colour, size, label, intervals="design" not in roles)
    _mark_winner(ax, summary, rows, scale, theme)
    off = [drawn for row, drawn in zip(predicted, rows, strict=True) if drawn != row]
    if off:
        x, y = [scale * (row.predicted or 0.0) for row in off], [scale * row.metric for row in off]
        label = f"predicted beyond the scale, drawn in ({len(off)})"
        ax.plot(x, y, ls="", marker="o", ms=12, mfc="none", mec=theme.ink, mew=1, label=label)
    draw_diagonal(ax, [(scale * (row.predicted or 0.0), scale * row.metric) for row in rows], theme)
    ax.set_xlabel(f"predicted {rated_axis(summary)}")
    ax.set_ylabel(f"evaluated {rated_axis(summary)}")
    ax.set_title(_rank_text(summary), loc="left")
    legend_below(figure)
    return figure


def _on_the_scale(rows: Sequence[EvaluatedNetwork]) -> list[EvaluatedNetwork]:
    """The networks, wild predictions drawn in: one of them would squeeze all the others into a corner."""
    low, high = plausible(rows)
    return [replace(row, predicted=min(max(row.predicted or 0.0, low), high)) for row in rows]


def _scatter_with_intervals(
    ax: "Axes",
    rows: Sequence[EvaluatedNetwork],
    scale: float,
    marker: str,
    colour: str,
    size: float,
    label: str,
    intervals: bool,
) -> None:
    x = [scale * (row.predicted or 0.0) for row in rows]
    y = [scale * row.metric for row in rows]
    bounded = [row for row in rows if row.low is not None and row.high is not None] if intervals else []
    ax.hlines(
        [scale * row.metric for row in bounded],
        [scale * (row.low or 0.0) for row in bounded],
        [scale * (row.high or 0.0) for row in bounded],
        color=colour,
        lw=1,
        alpha=0.5,
    )
    ax.plot(x, y, ls="", marker=marker, ms=size, mfc=colour, mec=ax.get_facecolor(), mew=0.6, label=label)


def _mark_winner(
    ax: "Axes", summary: StudySummary, rows: Sequence[EvaluatedNetwork], scale: float, theme: Theme
) -> None:
    for row in rows:
        if row.genotype == summary.winner:
            ax.plot(
                [scale * (row.predicted or 0.0)],
                [scale * row.metric],
                ls="",
                marker="*",
                ms=17,
                mfc=theme.winner,
                mec=theme.paper,
                zorder=6,
                label="chosen",
            )
            return


def _rank_text(summary: StudySummary) -> str:
    result = summary.calibration
    if result is None:
        return "no held-out networks"
    lines = [
        f"Kendall τ = {result.kendall:.2f}" if result.kendall is not None else "",
        f"Spearman ρ = {result.spearman:.2f}" if result.spearman is not None else "",
        f"n = {result.num_networks} held out",
    ]
    return ", ".join(line for line in lines if line)


def figure_additivity(summary: StudySummary, theme: Theme) -> "Figure":
    """Whole networks as measured against the sum of their blocks, a panel for each measured resource."""
    results = summary.additivity
    if not results:
        raise NotYetRunError("costs of whole networks")
    figure, axes = panels(len(results), 2, width=5.6, height=4.6)
    for ax, result in zip(axes, results, strict=True):
        _draw_additivity(ax, result, theme)
    legend_below(figure)
    return figure


def _draw_additivity(ax: "Axes", result: ResourceAdditivity, theme: Theme) -> None:
    x, y = [pair.summed for pair in result.pairs], [pair.measured for pair in result.pairs]
    ax.plot(x, y, ls="", marker="o", mfc=theme.held_out, mec=theme.paper, label="network")
    draw_diagonal(ax, list(zip(x, y, strict=True)), theme)
    name = resource_name(result.resource)
    ax.set_xlabel(f"sum of blocks, {name}, {result.unit}")
    ax.set_ylabel(f"measured {name}, {result.unit}")
    lines = [
        f"R² = {result.r2:.3f}" if result.r2 is not None else "",
        f"Kendall τ = {result.kendall:.2f}" if result.kendall is not None else "",
        f"worst error {format_percent(result.worst_relative_error, 1)}"
        if result.worst_relative_error is not None
        else "",
        f"n = {len(result.pairs)}",
    ]
    ax.set_title(", ".join(line for line in lines if line), loc="left")
