"""The chosen network as a strip of blocks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nas_core.report.drawing.canvas import new_figure, required
from nas_core.report.strip import NO_OP_KIND, Strip, strips
from nas_core.report.style import Theme
from nas_core.report.summary import StudySummary
from nas_core.report.text import format_amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure_network(summary: StudySummary, theme: Theme) -> "Figure":
    """The chosen network as a strip of blocks, the base network under it on the same scale."""
    winner = required(summary.winner, "selection")
    names = [winner] if winner == summary.base else [winner, summary.base]
    drawn = strips(summary, names)
    figure = new_figure(height=1.0 + 1.75 * len(drawn))
    axes = figure.subplots(len(drawn), 1, squeeze=False)[:, 0]
    for ax, strip, title in zip(axes, drawn, ("Chosen network", "Base network"), strict=False):
        _draw_strip(ax, strip, theme)
        ax.set_title(title)
    figure.legend(handles=_kind_handles(drawn, theme), loc="upper left", bbox_to_anchor=(0.01, 0.02), ncols=4)
    return figure


def _draw_strip(ax: "Axes", strip: Strip, theme: Theme) -> None:
    from matplotlib.patches import FancyBboxPatch

    wordy = len(strip.blocks) <= 24
    ax.plot([-1, len(strip.blocks)], [0, 0], color=theme.rule, lw=2, zorder=1)
    for block in strip.blocks:
        box = FancyBboxPatch(
            (block.position - 0.38, -block.height / 2),
            0.76,
            block.height,
            boxstyle="round,pad=0,rounding_size=0.03",
            facecolor=_kind_colour(block.kind, theme),
            edgecolor=theme.winner if block.differs else "none",
            linewidth=1.8 if wordy else 0.6,
            zorder=2,
        )
        ax.add_patch(box)
        if wordy and strip.resource and block.cost is not None:
            text = format_amount(strip.resource, block.cost)
            ax.text(
                block.position, block.height / 2 + 0.05, text, ha="center", va="bottom", fontsize=8, color=theme.faint
            )
    for stage in strip.stages:
        ax.plot([stage.first - 0.4, stage.last + 0.4], [-0.62, -0.62], color=theme.faint, lw=1)
        if stage.last - stage.first + 1 >= len(strip.blocks) / 12:
            middle = (stage.first + stage.last) / 2
            ax.text(middle, -0.68, stage.label, ha="center", va="top", fontsize=8, color=theme.faint)
    ax.set_xlim(-1, len(strip.blocks))
    ax.set_ylim(-0.85, 0.72)
    ax.axis("off")


def _kind_colour(kind: int, theme: Theme) -> str:
    return theme.no_op if kind == NO_OP_KIND else theme.kinds[kind % len(theme.kinds)]


def _kind_handles(drawn: Sequence[Strip], theme: Theme) -> list[Any]:
    from matplotlib.patches import Patch

    used = sorted({block.kind for strip in drawn for block in strip.blocks})
    names = {NO_OP_KIND: "identity or absent", **dict(enumerate(drawn[0].kinds))}
    handles = [Patch(facecolor=_kind_colour(kind, theme), label=names[kind]) for kind in used]
    if any(block.differs for strip in drawn for block in strip.blocks):
        handles.append(Patch(facecolor="none", edgecolor=theme.winner, lw=1.8, label="differs from the base"))
    return handles
