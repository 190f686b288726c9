"""What figures have in common: their size, their legend, what they raise."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nas_core.report.style import Theme
from nas_core.report.summary import StudySummary
from nas_core.report.text import metric_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 9.0


class NotYetRunError(LookupError):
    """The stage a figure shows has left nothing in the summary."""


def new_figure(height: float, width: float = WIDTH_IN) -> "Figure":
    """An empty one, in inches; its parts make room for each other."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def panels(count: int, in_a_row: int, width: float, height: float) -> "tuple[Figure, list[Axes]]":
    """A figure with so many panels, each as high; ``width`` is that of a figure with one panel in a row."""
    columns = max(1, min(count, in_a_row))
    rows = -(-count // columns)
    figure = new_figure(width=width if columns == 1 else WIDTH_IN, height=height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, axes[:count]


def required(value: Any, stage: str) -> Any:
    """The value; raises NotYetRunError where the stage left none."""
    if value is None:
        raise NotYetRunError(stage)
    return value


def legend_below(figure: "Figure", ncols: int = 2) -> None:
    """One legend of all axes, outside them: inside it would cover what is drawn."""
    pairs = [zip(*ax.get_legend_handles_labels(), strict=True) for ax in figure.axes]
    handles = {label: handle for axes in pairs for handle, label in axes}
    figure.legend(list(handles.values()), list(handles), loc="upper left", bbox_to_anchor=(0.01, 0.01), ncols=ncols)


def draw_diagonal(ax: "Axes", pairs: Sequence[tuple[float, float]], theme: Theme) -> None:
    """The line of perfect agreement, over the range of the points."""
    values = [value for pair in pairs for value in pair]
    pad = 0.04 * (max(values) - min(values)) or 0.5
    ends = (min(values) - pad, max(values) + pad)
    ax.plot(ends, ends, color=theme.faint, lw=1, ls=(0, (4, 3)), zorder=1)
    ax.set_xlim(ends)
    ax.set_ylim(ends)


def few_ticks() -> Any:
    """Of an axis whose numbers are long."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)


def rated_axis(summary: StudySummary) -> str:
    """What the axis of the scorer's metric is called."""
    return metric_axis(summary.scorer.metric, summary.scorer.split)
