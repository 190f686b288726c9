"""One look for all figures: a palette that colour-blind readers can tell apart, light and dark.

The hues are Okabe and Ito's (2008), darkened or lightened for contrast with
the page; marks differ in shape as well as in colour.
"""

from dataclasses import dataclass
from typing import Any, Literal

ThemeName = Literal["light", "dark"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """Colours of one mode of the page; ``page.css`` holds the same values."""

    paper: str
    ink: str
    faint: str  # secondary text
    rule: str  # axes and grids
    winner: str
    base: str
    fit: str
    held_out: str
    verify: str
    frontier: str
    better: str
    neutral: str
    worse: str
    no_op: str
    kinds: tuple[str, ...]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1d2430",
    faint="#5c6675",
    rule="#d9dde4",
    winner="#b5126f",
    base="#1d2430",
    fit="#9aa5b4",
    held_out="#0067a8",
    verify="#c98a00",
    frontier="#00805f",
    better="#0b62a4",
    neutral="#f4f4f1",
    worse="#c0611a",
    no_op="#c9ced6",
    kinds=("#56a0d3", "#1f5f99", "#35a07c", "#d9c63c", "#e0892b", "#9a7fc4", "#b0521c", "#6d7787"),
)
DARK = Theme(
    paper="#171c24",
    ink="#e6e9ee",
    faint="#a0a9b6",
    rule="#39424f",
    winner="#ff7ac0",
    base="#e6e9ee",
    fit="#738093",
    held_out="#5bb4ee",
    verify="#f0c04a",
    frontier="#3fc79c",
    better="#4a9fe0",
    neutral="#262d38",
    worse="#e0803a",
    no_op="#4a5361",
    kinds=("#7fc0ec", "#3a79b4", "#31926f", "#bfae36", "#cc7d2a", "#8f75b8", "#a85422", "#7d8796"),
)
THEMES: dict[ThemeName, Theme] = {"light": LIGHT, "dark": DARK}


def _installed_fonts() -> list[str]:
    """The first preferred font that is here, then matplotlib's own; it warns at every text for one that is not."""
    from matplotlib.font_manager import fontManager

    here = set(fontManager.get_font_names())
    preferred = [name for name in ("Inter", "Liberation Sans", "Arial", "Helvetica") if name in here]
    return [*preferred[:1], "DejaVu Sans"]


def rc_params(theme: Theme) -> dict[str, Any]:
    """Matplotlib settings of the theme."""
    return {
        "figure.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.rule,
        "axes.labelcolor": theme.faint,
        "axes.titlecolor": theme.ink,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.labelsize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 1.0,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.rule,
        "grid.linewidth": 0.6,
        "grid.alpha": 0.7,
        "text.color": theme.ink,
        "xtick.color": theme.rule,
        "ytick.color": theme.rule,
        "xtick.labelcolor": theme.faint,
        "ytick.labelcolor": theme.faint,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "legend.labelcolor": theme.ink,
        "font.family": _installed_fonts(),
        "font.size": 10,
        "text.parse_math": False,  # a "$" in a name is a dollar sign
        "hatch.linewidth": 0.6,
        "lines.linewidth": 1.8,
        "lines.markersize": 6,
    }
