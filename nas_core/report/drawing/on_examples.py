"""What the chosen network made of test examples."""

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.base.errors import shortened
from nas_core.report.drawing.canvas import WIDTH_IN, NotYetRunError, new_figure, panels, required
from nas_core.report.style import Theme
from nas_core.report.summary import StudySummary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES_NAMED, MOST_CLASSES_NUMBERED = 40, 20
MOST_SCATTERS, SCATTERS_IN_A_ROW = 12, 3
PICTURES_IN_A_ROW = 6
MOST_LETTERS = 34  # of a line under a picture
LEAST_SHARE_WRITTEN = 0.005  # of a class: less is written as 0 %


def figure_confusion(summary: StudySummary, theme: Theme) -> "Figure":
    """What the chosen network took the test examples of each class for, as shares of the class."""
    training = required(summary.training, "training")
    winner = next((row for row in training.networks if row.role == "winner"), None)
    if winner is None or not winner.confusion:
        raise NotYetRunError("confusion")
    counts_KK = np.array(winner.confusion)
    num_classes = len(counts_KK)
    share_KK = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1)
    figure = new_figure(height=5.4, width=6.4)
    ax = figure.subplots()
    ax.grid(False)
    image = ax.imshow(100 * share_KK, cmap=_rising(theme), vmin=0, vmax=100)
    if num_classes <= MOST_CLASSES_NAMED:
        names = training.names_of(num_classes)
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
    figure, axes = panels(len(scatters), SCATTERS_IN_A_ROW, width=5.2, height=3.4 if len(scatters) > 1 else 4.6)
    for ax, each in zip(axes, scatters, strict=True):
        ends = [min(*each.true, *each.predicted), max(*each.true, *each.predicted)]
        ax.plot(ends, ends, color=theme.base, ls="--", lw=1, zorder=1)
        ax.scatter(each.true, each.predicted, s=12, color=theme.held_out, alpha=0.5, lw=0, zorder=2)
        ax.set_xlabel(f"{each.name}, as it is")
        ax.set_ylabel("predicted")
        ax.set_aspect("equal", adjustable="datalim")
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
    figure = new_figure(height=rows * (side + 0.17 * lines + 0.25))
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
