"""The report's figures, drawn by matplotlib from a summary alone.

Each ``figure_*`` function gives a Figure, and raises ``NotYetRunError`` if its
stage has not run. Matplotlib is imported when the first figure is drawn, and
no global state of it is touched: no pyplot, settings inside a context.
"""

import base64
import io
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.base.errors import UnknownNameError, shortened
from nas_core.records.evaluations import CostTable
from nas_core.report.strip import NO_OP_KIND, Strip, strips
from nas_core.report.style import THEMES, Theme, ThemeName, rc_params
from nas_core.report.summary import (
    BlockEffect,
    EvaluatedNetwork,
    FrontierSummary,
    Limit,
    ResourceAdditivity,
    StageCost,
    StudySummary,
    SweepSummary,
    TrainedNetwork,
)
from nas_core.report.text import (
    axis_unit,
    describe_block,
    format_amount,
    format_duration,
    format_percent,
    measured_of,
    metric_axis,
    resource_name,
    trained_name,
)
from nas_core.space.genotypes import Genotype
from nas_core.study.frames import Role
from nas_core.study.reasons import Swap
from nas_core.study.sweep import Point
from nas_core.workloads.metrics import Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 9.0
DPI = 160
MAX_CELLS_WITH_NUMBERS = 400
MOST_CLASSES_NAMED, MOST_CLASSES_NUMBERED = 40, 20
MOST_SCATTERS, SCATTERS_IN_A_ROW = 12, 3
PICTURES_IN_A_ROW = 6
MOST_LETTERS = 34  # of a line under a picture
LEAST_SHARE_WRITTEN = 0.005  # of a class: less is written as 0 %
LEAST_EFFECT = 1e-9  # in the metric's unit: what is smaller is arithmetic, and gets no colour


class NotYetRunError(LookupError):
    """The stage a figure shows has left nothing in the summary."""


def save_figures(summary: StudySummary, folder: Path | None = None, theme: ThemeName = "light") -> dict[str, bytes]:
    """PNG bytes of every figure whose stage has run, by name; also written to ``folder`` if given."""
    images: dict[str, bytes] = {}
    for name in FIGURES:
        with suppress(NotYetRunError):
            images[name] = render(summary, name, theme)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, png in images.items():
            (folder / f"{name}.png").write_bytes(png)
    return images


def drawn(summary: StudySummary, name: str, theme: ThemeName = "light") -> "Figure":
    """One figure as matplotlib has it, which notebooks show; raises as ``render``."""
    if name not in FIGURES:
        raise UnknownNameError("figure", repr(name), f"one of: {', '.join(FIGURES)}")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with mpl.rc_context(rc_params(THEMES[theme])):
        figure = FIGURES[name](summary, THEMES[theme])
        FigureCanvasAgg(figure)
    return figure


def render(summary: StudySummary, name: str, theme: ThemeName = "light") -> bytes:
    """PNG bytes of one figure.

    Raises:
        NotYetRunError: if its stage has not run.
        UnknownNameError: if there is no figure of that name.
    """
    import matplotlib as mpl

    # Settings are process-wide in matplotlib, hence the context around drawing and rendering.
    with mpl.rc_context(rc_params(THEMES[theme])):
        figure = drawn(summary, name, theme)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.15, metadata={"Software": ""})
    return buffer.getvalue()


# --- the chosen network ------------------------------------------------------


def figure_network(summary: StudySummary, theme: Theme) -> "Figure":
    """The chosen network as a strip of blocks, the base network under it on the same scale."""
    winner = _required(summary.winner, "selection")
    names = [winner] if winner == summary.base else [winner, summary.base]
    drawn = strips(summary, names)
    figure = _figure(height=1.0 + 1.75 * len(drawn))
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


# --- block effects -----------------------------------------------------------


def figure_block_effects(summary: StudySummary, theme: Theme) -> "Figure":
    """Heat map of block effects, positions left to right, the chosen path drawn on it."""
    effects = _required(summary.block_effects, "block effects")
    counts = summary.space.num_choices
    effect_NM = np.full((max(counts), len(counts)), np.nan)
    for row in effects.effects:
        effect_NM[row.choice, row.position] = row.effect
    numbered = effect_NM.size <= MAX_CELLS_WITH_NUMBERS
    figure = _figure(height=min(max(0.42 * max(counts) + 1.5, 2.6), 6.5))
    ax = figure.subplots()
    most = _colour_range(effect_NM)
    image = ax.imshow(effect_NM, cmap=_diverging(theme), aspect="auto", vmin=-most, vmax=most)
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
    bar.ax.yaxis.set_major_formatter(lambda value, _: _effect_text(metric, value))
    handles = _effect_handles(effects.effects, base, theme, numbered)
    if summary.winner is None:
        handles = [handle for handle in handles if handle.get_label() != CHOSEN_BLOCK]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.01, 0.01), ncols=3)
    return figure


def _diverging(theme: Theme) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    # Cells that a ragged space does not have are NaN and stay transparent.
    return LinearSegmentedColormap.from_list("effect", [theme.worse, theme.neutral, theme.better])


def _colour_range(effect_NM: np.ndarray) -> float:
    """Effect at full colour: the 97th percentile, so that one ruinous block does not bleach the rest."""
    sizes = np.abs(effect_NM[np.isfinite(effect_NM)])
    told = sizes[sizes > LEAST_EFFECT]
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
            _effect_text(metric, row.effect),
            ha="center",
            va="center",
            fontsize=9.5 if num_positions <= 12 else 7,
            color="#ffffff" if dark else "#1d2430",
            path_effects=[halo],
            zorder=5,
        )


def _effect_text(metric: Measure, effect: float) -> str:
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


# --- the chosen blocks beside the others ---------------------------------------

MOST_DIGITS = 78  # of the longest numbers of all positions beside one another, for which there is room
Ends = tuple[float, float]
RUNG: Ends = (-0.34, 0.34)  # its ends, from the middle of a position
NUMBERED_RUNG: Ends = (-0.45, -0.05)  # with room for a number behind it
DOTTED: tuple[float, tuple[float, float]] = (0, (1.2, 0.8))
LEAST_GAP = 0.035  # between two numbers of a position, as a share of the axis


def figure_ladder(summary: StudySummary, theme: Theme) -> "Figure":
    """Each position as a ladder: a rung per block at its cost, coloured by what it would change; the chosen path."""
    reasons = _required(summary.reasons, "selection")
    chosen = Genotype.parse(reasons.genotype)
    priced = (t for name in reasons.resources for t in summary.cost_tables if _is_table(t, name, chosen))
    table = _required(next(priced, None), "costs")
    changes = {(swap.position, swap.choice): swap for swap in reasons.swaps}
    most = _colour_range(np.array([swap.change for swap in reasons.swaps]))
    metric = summary.scorer.metric
    longest = max((len(_effect_text(metric, swap.change)) for swap in reasons.swaps), default=0)
    numbered = longest * len(table.block) <= MOST_DIGITS
    left, right = ends = NUMBERED_RUNG if numbered else RUNG
    figure = _figure(height=4.6)
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
    bar.ax.yaxis.set_major_formatter(lambda value, _: _effect_text(metric, value))
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
            image = LineCollection(lines, cmap=_diverging(theme), linewidths=4, linestyles=[style])
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
            text = _effect_text(metric, changes[position, choice].change)
            look: dict[str, Any] = {"fontsize": 7, "color": theme.ink, "zorder": 6}
            ax.text(position + NUMBERED_RUNG[1] + 0.03, height, text, ha="left", va="center", **look)


# --- predicted against evaluated ---------------------------------------------


def figure_calibration(summary: StudySummary, theme: Theme) -> "Figure":
    """Predicted against evaluated metric; rank statistics of the held-out networks in the corner."""
    rows = [row for row in summary.networks if row.predicted is not None]
    if not rows:
        raise NotYetRunError("predictions")
    figure = _figure(width=6.6, height=5.4)
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
    _draw_diagonal(ax, [(scale * (row.predicted or 0.0), scale * row.metric) for row in rows], theme)
    ax.set_xlabel(f"predicted {_metric_axis(summary)}")
    ax.set_ylabel(f"evaluated {_metric_axis(summary)}")
    ax.set_title(_rank_text(summary), loc="left")
    _legend_below(figure)
    return figure


def _legend_below(figure: "Figure", ncols: int = 2) -> None:
    """One legend of all axes, outside them: inside it would cover what is drawn."""
    pairs = [zip(*ax.get_legend_handles_labels(), strict=True) for ax in figure.axes]
    handles = {label: handle for axes in pairs for handle, label in axes}
    figure.legend(list(handles.values()), list(handles), loc="upper left", bbox_to_anchor=(0.01, 0.01), ncols=ncols)


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


def _draw_diagonal(ax: "Axes", pairs: Sequence[tuple[float, float]], theme: Theme) -> None:
    """The line of perfect agreement, over the range of the points."""
    values = [value for pair in pairs for value in pair]
    pad = 0.04 * (max(values) - min(values)) or 0.5
    ends = (min(values) - pad, max(values) + pad)
    ax.plot(ends, ends, color=theme.faint, lw=1, ls=(0, (4, 3)), zorder=1)
    ax.set_xlim(ends)
    ax.set_ylim(ends)


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


def _metric_axis(summary: StudySummary) -> str:
    return metric_axis(summary.scorer.metric, summary.scorer.split)


# --- metric against resources ------------------------------------------------


def figure_frontier(summary: StudySummary, theme: Theme) -> "Figure":
    """Metric against each limited resource: evaluated networks, frontier, limit, base and chosen network."""
    resources = _drawn_resources(summary)
    if not resources or not (summary.networks or summary.frontiers):
        raise NotYetRunError("evaluations")
    columns = min(len(resources), 2)
    rows = -(-len(resources) // columns)
    figure = _figure(width=6.6 if columns == 1 else WIDTH_IN, height=4.1 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, resource in zip(axes, resources, strict=False):
        _draw_resource(ax, summary, resource, theme)
    for ax in axes[len(resources) :]:
        ax.axis("off")
    _legend_below(figure, ncols=3)
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
    divisor, label = axis_unit(resource, max(ax.get_xlim()))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / divisor:g}")
    ax.xaxis.set_major_locator(_few_ticks())
    ax.set_xlabel(label)
    ax.set_ylabel(_metric_axis(summary))


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)


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


# --- one study, many limits -----------------------------------------------------


def figure_sweep(summary: StudySummary, theme: Theme) -> "Figure":
    """The networks over a range of limits: predicted and as evaluated and measured; after training beside it."""
    sweep = _required(summary.sweep, "selection")
    if all(point.genotype is None for point in sweep.points):
        raise NotYetRunError("networks within the limits")
    trained = any(point.test is not None for point in sweep.points)
    figure = _figure(width=WIDTH_IN if trained else 6.6, height=4.1)
    axes = figure.subplots(1, 2 if trained else 1, squeeze=False)[0]
    _draw_points(axes[0], sweep, summary.scorer.metric, theme)
    axes[0].set_ylabel(_metric_axis(summary))
    if trained:
        _draw_trained_points(axes[1], sweep, summary.metric, theme)
        axes[1].set_ylabel(metric_axis(summary.metric, "test"))
    for ax in axes:
        divisor, label = axis_unit(sweep.resource, max(ax.get_xlim()))
        ax.xaxis.set_major_formatter(lambda value, _, divisor=divisor: f"{value / divisor:g}")
        ax.xaxis.set_major_locator(_few_ticks())
        ax.set_xlabel(label)
    _legend_below(figure, ncols=3)
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


# --- measured costs ----------------------------------------------------------


def figure_additivity(summary: StudySummary, theme: Theme) -> "Figure":
    """Whole networks as measured against the sum of their blocks, a panel for each measured resource."""
    results = summary.additivity
    if not results:
        raise NotYetRunError("costs of whole networks")
    columns = min(len(results), 2)
    rows = -(-len(results) // columns)
    figure = _figure(width=5.6 if columns == 1 else WIDTH_IN, height=4.6 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, result in zip(axes, results, strict=False):
        _draw_additivity(ax, result, theme)
    for ax in axes[len(results) :]:
        ax.axis("off")
    _legend_below(figure)
    return figure


def _draw_additivity(ax: "Axes", result: ResourceAdditivity, theme: Theme) -> None:
    x, y = [pair.summed for pair in result.pairs], [pair.measured for pair in result.pairs]
    ax.errorbar(
        x,
        y,
        yerr=[pair.spread for pair in result.pairs],
        ls="",
        marker="o",
        mfc=theme.held_out,
        mec=theme.paper,
        ecolor=theme.held_out,
        elinewidth=1,
        label="network (bar: 10th to 90th percentile)",
    )
    ends = [(pair.summed, pair.measured + sign * pair.spread) for pair in result.pairs for sign in (-1, 1)]
    _draw_diagonal(ax, ends, theme)
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


# --- beside others ---------------------------------------------------------------


def figure_comparison(summary: StudySummary, theme: Theme) -> "Figure":
    """The chosen network and what it is compared with, trained alike: metric, and what each takes."""
    training = _required(summary.training, "training")
    rows = [row for row in training.networks if row.test is not None and row.role != "point"]
    metric, most = training.metric, next((limit for limit in summary.limits if limit.at_most is not None), None)
    rows.sort(key=lambda row: (row.test or 0.0) * (1 if metric.higher_is_better else -1))
    figure = _figure(height=0.34 * len(rows) + 1.5)
    left, right = figure.subplots(1, 2, sharey=True)
    scale = 100 if metric.is_fraction else 1
    colours = {"winner": theme.winner, "base": theme.base, "random": theme.fit}
    resource = most.resource if most is not None else "flops"
    for height, row in enumerate(rows):
        look: dict[str, Any] = {"ls": "", "marker": "o", "ms": 9, "color": colours.get(row.role, theme.held_out)}
        left.plot([scale * (row.test or 0.0)], [height], **look)
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
    """The limit on a network that is measured whole: a percentage is of what the base takes so."""
    assert limit.at_most is not None, "an upper limit"
    whole = measured_of(summary, "base", summary.base).get(limit.resource)
    summed = summary.costs_of(summary.base).get(limit.resource)
    return limit.at_most * whole / summed if "%" in limit.text and whole and summed else limit.at_most


# --- training ----------------------------------------------------------------


def figure_training(summary: StudySummary, theme: Theme) -> "Figure":
    """Validation metric and training loss of the trained networks, epoch by epoch."""
    training = _required(summary.training, "training")
    curves = [row for row in training.networks if row.curve]
    if not curves:
        raise NotYetRunError("training curves")
    figure = _figure(height=3.6)
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
    _legend_below(figure, ncols=3)
    return figure


def _draw_curve(left: "Axes", right: "Axes", row: TrainedNetwork, metric: Measure, theme: Theme, label: str) -> None:
    looks: dict[str, tuple[str, str, float]] = {
        "winner": (theme.winner, "-", 2.4),
        "base": (theme.base, "--", 1.6),
        "random": (theme.fit, "-", 1.4),
        "point": (theme.frontier, "-", 1.2),
    }
    colour, style, width = looks.get(row.role, (theme.verify, ":", 1.2))
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
        ax.plot(
            list(at), [statistics.fmean(y) for y in at.values()], color=colour, ls=style, lw=width, label=label_shown
        )
        if len(curves) > 1:
            band = [min(y) for y in at.values()], [max(y) for y in at.values()]
            ax.fill_between(list(at), *band, color=colour, alpha=0.2, lw=0)


def _by_epoch(curves: Sequence[Sequence[tuple[float, float]]]) -> dict[float, list[float]]:
    """The values of all curves at each epoch that some have; one that stopped early is not in those after it."""
    at: dict[float, list[float]] = {}
    for x, y in sorted(pair for curve in curves for pair in curve):
        at.setdefault(x, []).append(y)
    return at


def figure_confusion(summary: StudySummary, theme: Theme) -> "Figure":
    """What the chosen network took the test examples of each class for, as shares of the class."""
    training = _required(summary.training, "training")
    winner = next((row for row in training.networks if row.role == "winner"), None)
    if winner is None or not winner.confusion:
        raise NotYetRunError("confusion")
    counts_KK = np.array(winner.confusion)
    num_classes = len(counts_KK)
    share_KK = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1)
    figure = _figure(height=5.4, width=6.4)
    ax = figure.subplots()
    ax.grid(False)
    image = ax.imshow(100 * share_KK, cmap=_rising(theme), vmin=0, vmax=100)
    if num_classes <= MOST_CLASSES_NAMED:
        names = training.output_names or tuple(map(str, range(num_classes)))
        ax.set_xticks(range(num_classes), names, rotation=60, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(num_classes), names)
    if num_classes <= MOST_CLASSES_NUMBERED:
        for (row, column), share in np.ndenumerate(share_KK):
            if share >= LEAST_SHARE_WRITTEN:
                colour = theme.paper if share > 0.5 else theme.ink
                ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, size=7)
    ax.set_xlabel("taken for")
    ax.set_ylabel("class")
    bar = figure.colorbar(image, ax=ax, pad=0.02, fraction=0.045)
    bar.set_label("% of the class")
    bar.outline.set_visible(False)
    return figure


def figure_scatter(summary: StudySummary, theme: Theme) -> "Figure":
    """The numbers of test examples as they are and as the chosen network predicted them."""
    scatters = _winners(summary, "scatter")[:MOST_SCATTERS]
    columns = min(len(scatters), SCATTERS_IN_A_ROW)
    rows = -(-len(scatters) // columns)
    figure = _figure(height=3.4 * rows if columns > 1 else 4.6, width=WIDTH_IN if columns > 1 else 5.2)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for ax, each in zip(axes, scatters, strict=False):
        ends = [min(*each.true, *each.predicted), max(*each.true, *each.predicted)]
        ax.plot(ends, ends, color=theme.base, ls="--", lw=1, zorder=1)
        ax.scatter(each.true, each.predicted, s=12, color=theme.held_out, alpha=0.5, lw=0, zorder=2)
        ax.set_xlabel(f"{each.name}, as it is")
        ax.set_ylabel("predicted")
        ax.set_aspect("equal", adjustable="datalim")
    for ax in list(axes)[len(scatters) :]:
        ax.set_axis_off()
    return figure


def figure_shown(summary: StudySummary, theme: Theme) -> "Figure":
    """Test examples with what they are and what the chosen network made of them, pictures side by side."""
    import matplotlib.image

    examples = [each for each in _winners(summary, "shown") if each.pictures]
    if not examples:
        raise NotYetRunError("shown")
    names = [name for name, _ in examples[0].pictures]
    in_a_row = max(1, PICTURES_IN_A_ROW // len(names))
    rows = -(-len(examples) // in_a_row)
    lines = max(each.words.count("\n") + 1 for each in examples)
    side = WIDTH_IN / (in_a_row * len(names))
    figure = _figure(height=rows * (side + 0.17 * lines + 0.25))
    axes = figure.subplots(rows, in_a_row * len(names), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for index, each in enumerate(examples):
        row, start = index // in_a_row, index % in_a_row * len(names)
        for column, (name, picture) in enumerate(each.pictures, start=start):
            image = matplotlib.image.imread(io.BytesIO(base64.b64decode(picture)))
            axes[row, column].imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if len(names) > 1 and row == 0:
                axes[row, column].set_title(name, fontsize=9, loc="center", pad=4)
        if each.words:
            words = "\n".join(shortened(line, MOST_LETTERS) for line in each.words.split("\n"))
            axes[row, start].text(
                0, -0.04, words, transform=axes[row, start].transAxes, va="top", fontsize=7, color=theme.ink
            )
    return figure


def _winners(summary: StudySummary, field: str) -> Any:
    """What was kept of the chosen network; raises NotYetRunError where nothing was."""
    found = next((getattr(row, field) for row in summary.trained("winner")), None)
    if not found:
        raise NotYetRunError(field)
    return found


def _rising(theme: Theme) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("share", [theme.neutral, theme.better])


# --- cost of the study -------------------------------------------------------


def figure_study_cost(summary: StudySummary, theme: Theme) -> "Figure":
    """Networks handled and time taken by each stage."""
    stages = summary.stages
    if not stages:
        raise NotYetRunError("stages")
    figure = _figure(height=0.42 * len(stages) + 1.3)
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
    start = np.zeros(len(stages))
    parts = (
        ("new", theme.frontier, [s.num_evaluations for s in stages]),
        ("from the store", theme.no_op, [s.num_reused for s in stages]),
        ("failed", theme.worse, [s.num_failed for s in stages]),
    )
    for label, colour, values in parts:
        if any(values):
            ax.barh(y, values, left=start, height=0.62, color=colour, label=label)
            start = start + np.array(values)
    for index, total in enumerate(start):
        ax.text(total, index, f"  {total:.0f}" if total else "–", va="center", fontsize=9)
    ax.set_xlim(0, max(float(start.max()), 1) * 1.25)
    ax.set_title("Networks")
    if start.any():
        ax.legend(loc="upper left", bbox_to_anchor=(0, 0.0), ncols=3)


# --- common ------------------------------------------------------------------


def _figure(height: float, width: float = WIDTH_IN) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _required(value: Any, stage: str) -> Any:
    if value is None:
        raise NotYetRunError(stage)
    return value


FIGURES: dict[str, Callable[[StudySummary, Theme], "Figure"]] = {
    "network": figure_network,
    "block_effects": figure_block_effects,
    "ladder": figure_ladder,
    "calibration": figure_calibration,
    "frontier": figure_frontier,
    "sweep": figure_sweep,
    "additivity": figure_additivity,
    "comparison": figure_comparison,
    "training": figure_training,
    "confusion": figure_confusion,
    "scatter": figure_scatter,
    "shown": figure_shown,
    "study_cost": figure_study_cost,
}
