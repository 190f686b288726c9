"""Figures of a design: entropy per stage, the structure to scale, the frontier."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from nas_core.deepmad.formulas import Batch, Objective, stage_channels, stage_entropies
from nas_core.deepmad.solver import Design
from nas_core.deepmad.structure import LAYERS_PER_BLOCK, Structure

COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#8c8c8c")


def draw_design(design: Design, objective: Objective, out: Path) -> None:
    """``entropy.png`` and ``structure.png`` in the folder ``out``."""
    draw_entropy(design.structure, objective, out / "entropy.png")
    draw_structure(design, out / "structure.png")


def draw_entropy(structure: Structure, objective: Objective, path: Path) -> None:
    """What every stage adds to the score: alpha_t (ln C_t + 2 ln R_t) E_t."""
    batch = Batch.of([structure])
    skeleton = structure.skeleton
    heights = np.log(stage_channels(batch)[:, 0]) + np.array(objective.stage_log_area(skeleton))
    entropy = stage_entropies(batch)[:, 0]
    terms = np.array(objective.weights(skeleton)) * heights * entropy
    stages = np.arange(skeleton.num_stages)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for axis, values, label in ((left, entropy, "$E_t$ (half-log widths)"), (right, terms, "share of the score")):
        bars = axis.bar(stages, values, color=COLOURS[0])
        axis.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
        axis.set_xlabel("stage")
        axis.set_ylabel(label)
        axis.set_xticks(stages)
        axis.margins(y=0.12)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Entropy per stage, objective {objective.name}")
    _save(figure, path)


def draw_structure(design: Design, path: Path) -> None:
    """Super-blocks as boxes: length is layers, height output channels; the inner box is the bottleneck."""
    structure = design.structure
    figure, axis = plt.subplots(figsize=(10, 3.8))
    top = max(structure.stem, *(max(b.out, b.bottleneck) for b in structure.blocks), structure.skeleton.head or 0)
    at = _box(axis, 0.0, 1.0, structure.stem, None, COLOURS[-1])
    labels = [(0.5, structure.stem, f"stem\n{structure.stem}")]
    for i, block in enumerate(structure.blocks):
        length = float(LAYERS_PER_BLOCK * block.depth)
        text = f"{block.out}\n{block.bottleneck}, {block.kernel}x{block.kernel}\nL {block.depth}, /{block.stride}"
        labels.append((at + length / 2, max(block.out, block.bottleneck), text))
        at = _box(axis, at, length, block.out, block.bottleneck, COLOURS[structure.skeleton.stage_of_block[i]])
    if structure.skeleton.head is not None:
        labels.append((at + 0.5, structure.skeleton.head, f"head\n{structure.skeleton.head}"))
        at = _box(axis, at, 1.0, structure.skeleton.head, None, COLOURS[-1])
    _label(axis, labels, at, top)
    axis.set_xlim(-0.02 * at, 1.08 * at)
    axis.set_ylim(-0.56 * top, 0.95 * top)
    axis.set_xlabel("layers")
    axis.set_ylabel("channels (to scale)")
    axis.set_yticks([])
    axis.spines[["top", "right", "left"]].set_visible(False)
    rating = design.rating
    axis.set_title(
        f"score {rating.score:,.1f} ({rating.objective}), {rating.flops / 1e9:.3f} GFLOPs, "
        f"{rating.params / 1e6:.2f} M params, rho {rating.rho:.3f}",
        fontsize=10,
    )
    _save(figure, path)


def _label(axis: plt.Axes, labels: Sequence[tuple[float, float, str]], end: float, top: float) -> None:
    """A row of texts above the boxes, moved apart where boxes are narrow, each with a line to its box."""
    room, at = 0.085 * end, -np.inf
    for middle, height, text in labels:
        at = max(middle, at + room)
        line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.7}
        axis.annotate(
            text, (middle, height / 2), (at, 0.62 * top), ha="center", va="bottom", fontsize=8, arrowprops=line
        )


def _box(axis: plt.Axes, at: float, length: float, out: int, bottleneck: int | None, colour: str) -> float:
    axis.add_patch(Rectangle((at, -out / 2), length, out, facecolor=colour, edgecolor="white", alpha=0.65))
    if bottleneck is not None:
        style = (
            {"facecolor": colour, "edgecolor": "white"} if bottleneck <= out else {"fill": False, "edgecolor": colour}
        )
        axis.add_patch(Rectangle((at, -bottleneck / 2), length, bottleneck, **style))
    return at + length


def draw_frontier(designs: Sequence[Design], name: str, path: Path) -> None:
    """Score and bound over the swept limit."""
    limit = [design.check.limit[name] for design in designs]
    figure, axis = plt.subplots(figsize=(6, 3.8))
    axis.plot(limit, [d.bound for d in designs], color=COLOURS[-1], linestyle="--", label="bound")
    axis.plot(limit, [d.rating.score for d in designs], color=COLOURS[0], marker="o", label="best found")
    axis.set_xlabel(f"{name} at most")
    axis.set_ylabel("score")
    axis.legend(frameon=False)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
