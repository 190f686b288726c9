"""What the study cost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nas_core.report.drawing.canvas import NotYetRunError, new_figure
from nas_core.report.style import Theme
from nas_core.report.summary import StageCost, StudySummary
from nas_core.report.text import format_duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure_study_cost(summary: StudySummary, theme: Theme) -> "Figure":
    """Networks handled and time taken by each stage."""
    stages = summary.stages
    if not stages:
        raise NotYetRunError("stages")
    figure = new_figure(height=0.42 * len(stages) + 1.3)
    left, right = figure.subplots(1, 2, sharey=True)
    y = np.arange(len(stages))
    _draw_counts(left, stages, y, theme)
    seconds = [stage.wall_s for stage in stages]
    right.barh(y, seconds, height=0.62, color=theme.held_out)
    for index, stage in enumerate(stages):
        busy = f" (workers {format_duration(stage.compute_s)})" if stage.compute_s else ""
        right.text(stage.wall_s, index, f"  {format_duration(stage.wall_s)}{busy}", va="center", fontsize=9)
    right.set_title("Time by the clock (summed over workers)")
    right.set_xlim(0, max(seconds) * 1.8 or 1)
    left.set_yticks(y, [stage.stage for stage in stages])
    left.invert_yaxis()
    for ax in (left, right):
        ax.tick_params(axis="y", labelcolor=theme.ink, labelsize=10)
        ax.xaxis.set_visible(False)
        ax.grid(False)
        for side in ("bottom", "left"):
            ax.spines[side].set_visible(False)
    return figure


def _draw_counts(ax: "Axes", stages: Sequence[StageCost], y: np.ndarray, theme: Theme) -> None:
    """Bars of as many networks as the stages had; the failed ones are taken from the new first, then the reused."""
    start = np.zeros(len(stages))
    new, reused, failed = np.array([(s.num_evaluations, s.num_reused, s.num_failed) for s in stages]).T
    parts = (
        ("new", theme.frontier, np.maximum(new - failed, 0)),
        ("from the store", theme.no_op, np.maximum(reused - np.maximum(failed - new, 0), 0)),
        ("failed", theme.worse, failed),
    )
    for label, colour, values in parts:
        if any(values):
            ax.barh(y, values, left=start, height=0.62, color=colour, label=label)
            start = start + values
    for index, total in enumerate(start):
        ax.text(total, index, f"  {total:.0f}" if total else "–", va="center", fontsize=9)
    ax.set_xlim(0, max(float(start.max()), 1) * 1.25)
    ax.set_title("Networks")
    if start.any():
        ax.legend(loc="upper left", bbox_to_anchor=(0, 0.0), ncols=3)
