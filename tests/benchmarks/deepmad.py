"""DeepMAD's program: our solver against the authors' evolution, in one run, by CPU seconds.

    python -m tests.benchmarks.deepmad --limits R18,R34,R50,29M-224 --restarts 100 --json

The evolution is our re-implementation on the closed forms, as released (an
off-by-one leaves the last part alone) and fixed; every restart looks at
500,000 candidates from the start of the authors' search configuration. Its
answers may leave the domain the solver keeps (outputs that shrink, rounding at
the bottleneck's floor), which can only help it. The last line is one JSON
object; a figure per limit goes to ``--out``. CPU seconds are of one process on
one core.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from nas_core.deepmad.domain import Domain, Limits, default_domain
from nas_core.deepmad.drawings import COLOURS
from nas_core.deepmad.formulas import objective_named, rate
from nas_core.deepmad.polish import to_batch
from nas_core.deepmad.solver import Design, design
from nas_core.deepmad.structure import Skeleton, Structure, SuperBlock, published
from nas_core.deepmad.tree import Progress
from tests.benchmarks.conditions import conditions
from tests.benchmarks.peers.deepmad_evolution import Evolution, Evolved

CANDIDATES = 500_000
# where the authors' configurations start: stem, (out, bottleneck) per super-block; kernels 3, depths 1
STARTS = {
    "resnet": (32, ((256, 64), (512, 128), (768, 256), (1024, 256), (2048, 512))),
    "mobilenet": (32, ((72, 432), (128, 768), (192, 1152), (288, 1728), (448, 2688))),
}


def problem(name: str) -> tuple[Domain, Limits, Structure]:
    """Domain, limits and start of the authors' search for a published structure."""
    known = published()[name]
    skeleton = Skeleton(
        family=known.structure.skeleton.family,
        resolution=known.structure.skeleton.resolution,
        strides=known.search_strides,
        head=known.structure.skeleton.head,
    )
    stem, rows = STARTS[skeleton.family]
    blocks = tuple(
        SuperBlock(out=o, bottleneck=b, kernel=3, depth=1, stride=s)
        for (o, b), s in zip(rows, skeleton.strides, strict=True)
    )
    limits = Limits(flops=known.flops_limit, params=known.params_limit, rho=known.rho_limit)
    return default_domain(skeleton), limits, Structure(skeleton=skeleton, stem=stem, blocks=blocks)


def evolved_row(evolved: Evolved, domain: Domain) -> dict[str, Any]:
    """Figures of a hundred restarts; ``best_in_domain`` counts only answers the solver may give, too."""
    inside = [not domain.violations(to_batch(domain, row[None]).structure(0)) for row in evolved.rows]
    return {
        "best": float(evolved.best_R.max()),
        "mean": float(evolved.best_R.mean()),
        "std": float(evolved.best_R.std()),
        "restarts": len(evolved.best_R),
        "best_in_domain": float(evolved.best_R[inside].max()) if any(inside) else None,
        "cpu_s": evolved.cpu_s,
        "cpu_s_per_restart": evolved.cpu_s / len(evolved.best_R),
    }


def solved_row(answer: Design) -> dict[str, Any]:
    keep = ("score", "bound", "bound_kind", "gap", "status", "cpu_s", "flops", "params", "rho", "structure")
    data = answer.as_dict()
    first = next((p.cpu_s for p in answer.history if p.score >= answer.rating.score), answer.cpu_s)
    return {**{key: data[key] for key in keep}, "cpu_s_to_best": first}


def run(
    name: str, objective_name: str, restarts: int, seconds: float, gap: float, seed: int, out: Path
) -> dict[str, Any]:
    """One limit: the solver and both variants of the evolution, and the figure of their race."""
    domain, limits, start = problem(name)
    objective = objective_named(objective_name)

    def show(progress: Progress) -> None:
        text = f"{name} {progress.cpu_s:6.1f} CPU s  best {progress.score:,.2f}  bound {progress.bound:,.2f}"
        print(f"\r{text}   ", end="", file=sys.stderr, flush=True)

    answer = design(domain, limits, objective, gap=gap, cpu_s=seconds, seed=seed, report=show)
    print(file=sys.stderr)
    curves = {"ours": [(max(p.cpu_s, 0.01), p.score) for p in answer.history if np.isfinite(p.score)]}
    row: dict[str, Any] = {"ours": solved_row(answer), "published": rate(published()[name].structure, objective).score}
    for label, fixed in (("evolution as released", False), ("evolution fixed", True)):
        if not restarts:
            continue
        evolved = Evolution(domain, limits, objective, start, fixed=fixed).run(restarts, CANDIDATES, seed)
        row[label] = evolved_row(evolved, domain)
        curves[f"{label}, best of {restarts}"] = list(evolved.curve)
        print(f"{name} {label}: {row[label]}", file=sys.stderr)
    draw_race(curves, answer.bound, f"{name}, objective {objective_name}", out / f"deepmad_{name}.png")
    return row


def draw_race(curves: Mapping[str, Sequence[tuple[float, float]]], bound: float | None, title: str, path: Path) -> None:
    """Best score so far against CPU seconds, one step curve per method, and the bound where there is one."""
    figure, axis = plt.subplots(figsize=(7, 4.2))
    end = max(point[0] for curve in curves.values() for point in curve)
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        seconds, scores = zip(*curve, strict=True)
        axis.step([*seconds, end], [*scores, scores[-1]], where="post", label=name, color=colour)
    if bound is not None:
        axis.axhline(bound, color=COLOURS[-1], linestyle="--", label="bound")
    axis.set_xscale("log")
    axis.set_xlim(0.3, 1.3 * end)
    axis.set_xlabel("CPU seconds")
    axis.set_ylabel("best score so far")
    finals = [curve[-1][1] for curve in curves.values()]
    best = bound if bound is not None else max(finals)
    axis.set_ylim(min(finals) - 0.15 * (best - min(finals)) - 1, best + 0.05 * (best - min(finals)) + 1)
    axis.set_title(title)
    axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limits", default="R18,R34,R50,29M-224")
    parser.add_argument("--restarts", type=int, default=100)
    parser.add_argument("--objective", default="tinynas")
    parser.add_argument("--time", type=float, default=60.0, help="CPU seconds of the solver per limit")
    parser.add_argument("--gap", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("tests/output"))
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line (always printed)")
    args = parser.parse_args()
    rows = {
        name: run(name, args.objective, args.restarts, args.time, args.gap, args.seed, args.out)
        for name in args.limits.split(",")
    }
    settings = {"seed": args.seed, "restarts": args.restarts, "candidates": CANDIDATES, "cpu_s_limit": args.time}
    print(json.dumps({"limits": rows, "objective": args.objective, "conditions": conditions(**settings)}))


if __name__ == "__main__":
    main()
