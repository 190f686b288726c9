"""The chosen blocks beside the others: what each would change, and what it costs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.records.evaluations import CostTable
from nas_core.report.drawing.canvas import NotYetRunError, new_figure, required
from nas_core.report.drawing.effect_cells import CHOSEN_BLOCK, colour_range, diverging, effect_text
from nas_core.report.style import Theme
from nas_core.report.summary import StudySummary
from nas_core.report.text import axis_unit
from nas_core.space.genotypes import Genotype
from nas_core.study.reasons import Swap
from nas_core.workloads.metrics import Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_DIGITS = 78  # of the longest numbers of all positions beside one another, for which there is room
Ends = tuple[float, float]
RUNG: Ends = (-0.34, 0.34)  # its ends, from the middle of a position
NUMBERED_RUNG: Ends = (-0.45, -0.05)  # with room for a number behind it
DOTTED: tuple[float, tuple[float, float]] = (0, (1.2, 0.8))
LEAST_GAP = 0.035  # between two numbers of a position, as a share of the axis


def figure_ladder(summary: StudySummary, theme: Theme) -> "Figure":
    """Each position as a ladder: a rung per block at its cost, coloured by what it would change; the chosen path."""
    reasons = required(summary.reasons, "selection")
    chosen = Genotype.parse(reasons.genotype)
    priced = (t for name in reasons.resources for t in summary.cost_tables if _is_table(t, name, chosen))
    table = required(next(priced, None), "costs")
    changes = {(swap.position, swap.choice): swap for swap in reasons.swaps}
    most = colour_range(np.array([swap.change for swap in reasons.swaps]), summary.least_change)
    metric = summary.scorer.metric
    longest = max((len(effect_text(metric, swap.change)) for swap in reasons.swaps), default=0)
    numbered = longest * len(table.block) <= MOST_DIGITS
    left, right = ends = NUMBERED_RUNG if numbered else RUNG
    figure = new_figure(height=4.6)
    ax = figure.subplots()
    image = _draw_rungs(ax, table.block, changes, ends, most, theme)
    places = np.arange(len(table.block))
    path = [row[choice] for row, choice in zip(table.block, chosen.choices, strict=True)]
    ax.plot(places + (left + right) / 2, path, color=theme.winner, lw=1.6, alpha=0.55, zorder=3)
    ax.hlines(path, places + left, places + right, color=theme.winner, lw=5, zorder=4)
    if numbered:
        _number_rungs(ax, table.block, changes, metric, theme)
    divisor, label = axis_unit(table.resource, max(max(row) for row in table.block))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value / divisor:g}")
    ax.set_ylabel(f"of the block: {label}")
    ax.set_xlabel("position in the network, input to output")
    ax.set_xticks(range(len(path)) if len(path) <= 30 else range(0, len(path), 10))
    ax.set_xlim(-0.6, len(path) - 0.4)
    ax.grid(axis="x", visible=False)
    bar = figure.colorbar(image, ax=ax, pad=0.015, fraction=0.04)
    unit = "percentage points" if metric.is_fraction else metric.unit or metric.label
    turned = "" if metric.higher_is_better else " (positive is better)"
    bar.set_label(f"predicted change, {unit}{turned}")
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_formatter(lambda value, _: effect_text(metric, value))
    handles = _ladder_handles(reasons.swaps, theme)
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.01, 0.01), ncols=3)
    return figure


def _ladder_handles(swaps: Iterable[Swap], theme: Theme) -> list[Any]:
    from matplotlib.lines import Line2D

    looks: dict[str, dict[str, Any]] = {
        CHOSEN_BLOCK: {"color": theme.winner, "lw": 5},
        "other block": {"color": theme.fit, "lw": 4},
        "would break a limit or rule": {"color": theme.fit, "lw": 4, "ls": DOTTED},
    }
    if not any(swap.breaks for swap in swaps):
        looks.popitem()
    return [Line2D([], [], label=label, **look) for label, look in looks.items()]


def _is_table(table: CostTable, resource: str, genotype: Genotype) -> bool:
    return table.resource == resource and genotype.resolution in (None, table.resolution)


def _draw_rungs(
    ax: "Axes",
    block: Sequence[Sequence[float]],
    changes: Mapping[tuple[int, int], Swap],
    ends: Ends,
    most: float,
    theme: Theme,
) -> Any:
    """The rungs of all blocks but the chosen, as what a colour bar is of; dotted are those that would break a limit."""
    from matplotlib.collections import LineCollection

    keeps: list[tuple[tuple[Ends, Ends], float]] = []
    breaks: list[tuple[tuple[Ends, Ends], float]] = []
    image = None
    for (position, choice), swap in changes.items():
        height = block[position][choice]
        rung = ((position + ends[0], height), (position + ends[1], height))
        (breaks if swap.breaks else keeps).append((rung, swap.change))
    for rungs, style, edge in ((keeps, "-", 5), (breaks, DOTTED, 1)):
        if rungs:
            lines, values = zip(*rungs, strict=True)
            ax.add_collection(LineCollection(lines, colors=theme.fit, linewidths=edge))  # what is pale needs an edge
            image = LineCollection(lines, cmap=diverging(theme), linewidths=4, linestyles=[style])
            image.set_array(np.array(values))
            image.set_clim(-most, most)
            ax.add_collection(image)
    if image is None:
        raise NotYetRunError("other blocks")
    ax.autoscale_view()
    return image


def _number_rungs(
    ax: "Axes",
    block: Sequence[Sequence[float]],
    changes: Mapping[tuple[int, int], Swap],
    metric: Measure,
    theme: Theme,
) -> None:
    """What each block would change, behind its rung; numbers that would lie on one another are moved apart."""
    low, high = ax.get_ylim()
    gap = LEAST_GAP * (high - low)
    for position, row in enumerate(block):
        before = -np.inf
        for choice in sorted(range(len(row)), key=lambda choice: row[choice]):
            if (position, choice) not in changes:
                continue
            height = max(row[choice], before + gap)
            before = height
            text = effect_text(metric, changes[position, choice].change)
            look: dict[str, Any] = {"fontsize": 7, "color": theme.ink, "zorder": 6}
            ax.text(position + NUMBERED_RUNG[1] + 0.03, height, text, ha="left", va="center", **look)
