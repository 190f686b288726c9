"""What each block does to the metric, as a table of cells."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.report.drawing.canvas import new_figure, required
from nas_core.report.style import Theme
from nas_core.report.summary import BlockEffect, StudySummary
from nas_core.report.text import describe_block
from nas_core.space.genotypes import Genotype
from nas_core.workloads.metrics import Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CELLS_WITH_NUMBERS = 400


def figure_block_effects(summary: StudySummary, theme: Theme) -> "Figure":
    """Heat map of block effects, positions left to right, the chosen path drawn on it."""
    effects = required(summary.block_effects, "block effects")
    counts = summary.space.num_choices
    effect_NM = np.full((max(counts), len(counts)), np.nan)
    for row in effects.effects:
        effect_NM[row.choice, row.position] = row.effect
    numbered = effect_NM.size <= MAX_CELLS_WITH_NUMBERS
    figure = new_figure(height=min(max(0.42 * max(counts) + 1.5, 2.6), 6.5))
    ax = figure.subplots()
    most = colour_range(effect_NM, summary.least_change)
    image = ax.imshow(effect_NM, cmap=diverging(theme), aspect="auto", vmin=-most, vmax=most)
    base = Genotype.parse(effects.base)
    if numbered:
        _mark_uncertain(ax, effects.effects, base, theme)
    else:
        image.set_alpha(_paleness(effect_NM, effects.effects, base))
    _mark_base(ax, base, theme, numbered)
    if summary.winner is not None:
        _mark_path(ax, Genotype.parse(summary.winner), theme, numbered)
    if numbered:
        _write_cells(ax, summary.scorer.metric, effects.effects, image, len(counts))
    _label_effect_axes(ax, summary)
    metric = summary.scorer.metric
    unit = "percentage points" if metric.is_fraction else metric.unit or metric.label
    bar = figure.colorbar(image, ax=ax, pad=0.015, fraction=0.04)
    bar.set_label(f"effect, {unit}" if metric.higher_is_better else f"effect, {unit} (positive is better)")
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_formatter(lambda value, _: effect_text(metric, value))
    handles = _effect_handles(effects.effects, base, theme, numbered)
    if summary.winner is None:
        handles = [handle for handle in handles if handle.get_label() != CHOSEN_BLOCK]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.01, 0.01), ncols=3)
    return figure


def diverging(theme: Theme) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    # Cells that a ragged space does not have are NaN and stay transparent.
    return LinearSegmentedColormap.from_list("effect", [theme.worse, theme.neutral, theme.better])


def colour_range(effect_NM: np.ndarray, least: float) -> float:
    """Effect at full colour: the 97th percentile, so that one ruinous block does not bleach the rest.

    What is ``least`` or smaller is arithmetic, and gets no colour.
    """
    sizes = np.abs(effect_NM[np.isfinite(effect_NM)])
    told = sizes[sizes > least]
    return float(np.percentile(told, 97)) if told.size else 0.01


def _is_uncertain(row: BlockEffect, base: Genotype) -> bool:
    """Whether the interval spans zero, so the block cannot be told from the base block."""
    if row.low is None or row.high is None or base.choices[row.position] == row.choice:
        return False
    return row.low <= 0 <= row.high


def _mark_uncertain(ax: "Axes", effects: Iterable[BlockEffect], base: Genotype, theme: Theme) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    cells = [Rectangle((e.position - 0.5, e.choice - 0.5), 1, 1) for e in effects if _is_uncertain(e, base)]
    ax.add_collection(PatchCollection(cells, facecolor="none", edgecolor=theme.fit, hatch="///", linewidth=0))


def _paleness(effect_NM: np.ndarray, effects: Iterable[BlockEffect], base: Genotype) -> np.ndarray:
    """Opacity per cell where there are too many to hatch: uncertain ones are pale."""
    alpha_NM = np.ones_like(effect_NM)
    for row in effects:
        if _is_uncertain(row, base):
            alpha_NM[row.choice, row.position] = 0.4
    return alpha_NM


def _mark_base(ax: "Axes", base: Genotype, theme: Theme, numbered: bool) -> None:
    if not numbered:
        ax.plot(range(len(base.choices)), base.choices, ls="", marker=".", ms=2.5, color=theme.base)
        return
    for position, choice in enumerate(base.choices):
        _outline(ax, position, choice, 0.06, ec=theme.base, lw=1, ls=(0, (2, 2)))


def _mark_path(ax: "Axes", winner: Genotype, theme: Theme, numbered: bool) -> None:
    path = winner.choices
    ax.plot(range(len(path)), path, color=theme.winner, lw=2.4 if numbered else 0.8, alpha=0.45)
    if not numbered:
        ax.plot(range(len(path)), path, ls="", marker="s", ms=4, mfc=theme.winner, mec=theme.paper, mew=0.6)
        return
    for position, choice in enumerate(path):
        _outline(ax, position, choice, 0.03, ec=theme.winner, lw=2.2)


def _outline(ax: "Axes", position: int, choice: int, inset: float, **look: Any) -> None:
    from matplotlib.patches import Rectangle

    side = 1 - 2 * inset
    ax.add_patch(Rectangle((position - 0.5 + inset, choice - 0.5 + inset), side, side, fill=False, **look))


def _write_cells(ax: "Axes", metric: Measure, effects: Iterable[BlockEffect], image: Any, num_positions: int) -> None:
    from matplotlib.patheffects import withStroke

    for row in effects:
        r, g, b, _ = image.cmap(image.norm(row.effect))
        dark = 0.299 * r + 0.587 * g + 0.114 * b < 0.55
        # A halo in the cell's own colour keeps the number legible over hatching and the path.
        halo = withStroke(linewidth=3, foreground=(r, g, b))
        ax.text(
            row.position,
            row.choice,
            effect_text(metric, row.effect),
            ha="center",
            va="center",
            fontsize=9.5 if num_positions <= 12 else 7,
            color="#ffffff" if dark else "#1d2430",
            path_effects=[halo],
            zorder=5,
        )


def effect_text(metric: Measure, effect: float) -> str:
    scaled = effect * 100 if metric.is_fraction else effect
    if scaled == 0:
        return "0"
    if metric.is_fraction and abs(scaled) < 0.005:
        return "≈ 0"
    two_decimals = (0.005 if metric.is_fraction else 1) <= abs(scaled) < 10
    text = f"{scaled:+.2f}" if two_decimals else f"{scaled:+.2g}"
    return text.replace("-", "−")


def _label_effect_axes(ax: "Axes", summary: StudySummary) -> None:
    space = summary.space
    ax.grid(False)
    ax.set_xlabel("position in the network, input to output")
    ax.set_xticks(range(space.num_positions) if space.num_positions <= 30 else range(0, space.num_positions, 10))
    same = len({tuple(map(describe_block, p.blocks)) for p in space.positions}) == 1
    if same and max(space.num_choices) <= 12:
        names = [describe_block(block) for block in space.positions[0].blocks]
        ax.set_yticks(range(len(names)), [f"{name}   {index}" for index, name in enumerate(names)])
    else:
        step = 1 if max(space.num_choices) <= 20 else 5
        ax.set_yticks(range(0, max(space.num_choices), step))
        ax.set_ylabel("choice")
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)


CHOSEN_BLOCK = "chosen block"


def _effect_handles(effects: Iterable[BlockEffect], base: Genotype, theme: Theme, numbered: bool) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    unchanged, unsure = "base block (effect 0)", "not told apart from the base block"
    uncertain = any(_is_uncertain(row, base) for row in effects)
    if not numbered:
        handles = [
            Line2D([], [], color=theme.winner, marker="s", mec=theme.paper, lw=0.8, label=CHOSEN_BLOCK),
            Line2D([], [], color=theme.base, marker=".", ls="", label=unchanged),
        ]
        return [*handles, Patch(facecolor=theme.better, alpha=0.3, label=f"pale: {unsure}")] if uncertain else handles
    patches = [
        Patch(facecolor="none", edgecolor=theme.winner, lw=2.2, label=CHOSEN_BLOCK),
        Patch(facecolor="none", edgecolor=theme.base, ls=(0, (2, 2)), label=unchanged),
    ]
    unsure_patch = Patch(facecolor=theme.neutral, edgecolor=theme.fit, hatch="///", lw=0, label=unsure)
    return [*patches, unsure_patch] if uncertain else patches
