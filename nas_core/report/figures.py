"""The report's figures, drawn by matplotlib from a summary alone.

Each function of ``drawing`` that is listed here gives a Figure, and raises
``NotYetRunError`` if its stage has not run. Matplotlib is imported when the first figure is drawn, and
no global state of it is touched: no pyplot, settings inside a context.
"""

import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nas_core.base.errors import UnknownNameError
from nas_core.report.drawing.agreement import figure_additivity, figure_calibration
from nas_core.report.drawing.canvas import NotYetRunError
from nas_core.report.drawing.effect_cells import figure_block_effects
from nas_core.report.drawing.effort import figure_study_cost
from nas_core.report.drawing.ladder import figure_ladder
from nas_core.report.drawing.learned import figure_comparison, figure_training
from nas_core.report.drawing.network_strip import figure_network
from nas_core.report.drawing.on_examples import figure_confusion, figure_scatter, figure_shown
from nas_core.report.drawing.tradeoffs import figure_frontier, figure_sweep
from nas_core.report.style import THEMES, Theme, ThemeName, rc_params
from nas_core.report.summary import StudySummary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 160

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
