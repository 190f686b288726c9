"""``mathnas design``: solve DeepMAD's program for a structure, or rate a given one."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.extras import need
from nas_core.base.errors import ConfigError
from tasks.saying import doing, heard, never_silent, tell

if TYPE_CHECKING:
    from nas_core.deepmad.domain import Domain, Limits
    from nas_core.deepmad.solver import Design

LINE_EVERY_S = 10.0


def design(
    family: Annotated[str, typer.Option(help="resnet (1x1 - kxk - 1x1) or mobilenet (depthwise, SE)")] = "resnet",
    flops: Annotated[
        str | None, typer.Option(help="at most, such as '1.82 G' (multiply-adds, BN, activations)")
    ] = None,
    params: Annotated[str | None, typer.Option(help="at most, such as '11.69 M' (classifier left out)")] = None,
    rho: Annotated[float | None, typer.Option(help="effectiveness at most: 0.3 ResNet, 0.5 MobileNet family")] = None,
    objective: Annotated[str, typer.Option(help="tinynas (the authors' code) or paper")] = "tinynas",
    resolution: Annotated[int, typer.Option(help="input side, pixels")] = 224,
    strides: Annotated[str | None, typer.Option(help="of the super-blocks, such as 2,2,2,1,2")] = None,
    head: Annotated[int | None, typer.Option(help="channels of the 1x1 head (mobilenet; 1792)")] = None,
    image_channels: Annotated[int, typer.Option(help="of the images; the stem takes them", min=1)] = 3,
    domain: Annotated[
        Path | None, typer.Option(help="YAML of ranges: stem, step, blocks, ... (nas_core/deepmad/domain.py)")
    ] = None,
    latency: Annotated[str | None, typer.Option(help="at most, microseconds; needs --latency-table")] = None,
    latency_table: Annotated[Path | None, typer.Option(help="JSON of measured inner blocks")] = None,
    gap: Annotated[
        float, typer.Option(help="stop at this relative gap; 0 goes on to a proof of optimality", min=0.0)
    ] = 0.0,
    time_limit_s: Annotated[float, typer.Option("--time", help="CPU seconds", min=0.1)] = 60.0,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    score: Annotated[Path | None, typer.Option(help="rate the structure in this JSON file instead")] = None,
    frontier: Annotated[str | None, typer.Option(help="sweep this limit: flops, params or rho")] = None,
    points: Annotated[int, typer.Option(help="of the frontier", min=2)] = 5,
    out: Annotated[Path | None, typer.Option(help="folder for architecture.json and figures")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Design a network by solving its program: no data, no training, a minute at most."""
    from nas_core.base.units import parse_count
    from nas_core.deepmad.domain import Limits
    from nas_core.deepmad.latency_table import LatencyTable

    if score is not None:
        _rate(score, objective, as_json)
        return
    limits = Limits(
        flops=None if flops is None else parse_count(flops, "--flops"),
        params=None if params is None else parse_count(params, "--params"),
        rho=rho,
        latency_us=None if latency is None else parse_count(latency, "--latency"),
        latency_table=None if latency_table is None else LatencyTable.read(latency_table),
    )
    free = _domain(family, resolution, strides, head, image_channels, domain)
    settings = {"gap": gap, "cpu_s": time_limit_s, "seed": seed}
    if out is not None:
        need("report", "design --out")
        _make_folder(out)
    if frontier is not None:
        _sweep(free, limits, objective, frontier, points, settings, out, as_json)
        return
    _answer(free, limits, objective, settings, out, as_json)


def _domain(
    family: str, resolution: int, strides: str | None, head: int | None, image_channels: int, path: Path | None
) -> "Domain":
    from nas_core.deepmad.domain import default_domain, read_changes
    from nas_core.deepmad.structure import DEFAULT_HEAD, DEFAULT_STRIDES, Skeleton

    usual = DEFAULT_STRIDES.get(family)  # type: ignore[call-overload]
    if usual is None:
        raise ConfigError("--family", repr(family), f"one of {', '.join(DEFAULT_STRIDES)}")
    try:
        numbers = tuple(int(part) for part in strides.split(",")) if strides else usual
    except ValueError:
        raise ConfigError("--strides", repr(strides), "numbers 1 or 2 with commas, such as 2,2,2,1,2") from None
    skeleton = Skeleton(
        family=family,  # type: ignore[arg-type]
        resolution=resolution,
        strides=numbers,
        head=DEFAULT_HEAD[family] if head is None else head,  # type: ignore[index]
        image_channels=image_channels,
    )
    free = default_domain(skeleton)
    return free if path is None else read_changes(free, path)


def _rate(path: Path, objective: str, as_json: bool) -> None:
    import json

    from nas_core.deepmad.formulas import objective_named, rate
    from nas_core.deepmad.structure import Structure

    structure = Structure.read(path)
    rating = rate(structure, objective_named(objective))
    row = {
        **structure.as_dict(),
        "objective": rating.objective,
        "score": rating.score,
        "flops": rating.flops,
        "params": rating.params,
        "rho": rating.rho,
        "bound": None,
        "bound_kind": None,
        "gap": None,
        "cpu_s": 0.0,
    }
    if as_json:
        print(json.dumps(row))
        return
    _print_structure(structure.as_rows())
    print(f"score {rating.score:,.2f} ({rating.objective})  FLOPs {rating.flops:,}", end="  ")
    print(f"params {rating.params:,}  rho {rating.rho:.4f}")


def _answer(
    free: "Domain", limits: "Limits", objective: str, settings: dict[str, Any], out: Path | None, as_json: bool
) -> None:
    import json

    from nas_core.deepmad.formulas import objective_named
    from nas_core.deepmad.solver import design as solve

    show = None if as_json else _Progress()
    with never_silent(), doing("solving the program"):
        answer = solve(free, limits, objective_named(objective), **settings, report=show)
    if out is not None:
        _write(answer, out, objective)
    if as_json:
        print(json.dumps(answer.as_dict()))
        return
    print()
    print_answer(answer.as_dict())


class _Progress:
    """How far the solver is: drawn over itself on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._next_line = time.monotonic() + LINE_EVERY_S

    def __call__(self, progress: Any) -> None:
        text = f"{progress.cpu_s:6.1f} CPU s  best {progress.score:,.2f}  bound {progress.bound:,.2f}"
        if sys.stderr.isatty():
            heard()
            print(f"\r{text}  open {progress.open_nodes}   ", end="", file=sys.stderr, flush=True)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY_S
            tell(f"design: {text.strip()}")


def _print_structure(rows: list[dict[str, Any]]) -> None:
    names = ("kind", "out", "bottleneck", "kernel", "depth", "stride")
    print("".join(f"{name:>12}" for name in names))
    for row in rows:
        print("".join(f"{'-' if row[name] is None else row[name]:>12}" for name in names))


def print_answer(answer: dict[str, Any]) -> None:
    """Print an answer as a person reads it: the structure, the limits with their slack, what is proved."""
    from nas_core.deepmad.formulas import objective_named, rate
    from nas_core.deepmad.structure import published

    _print_structure(answer["structure"])
    print(f"\n{'limit':>12}{'at most':>16}{'used':>16}{'slack':>14}")
    for name, limit in answer["limits"].items():
        slack = answer["slack"][name]
        print(f"{name:>12}{_number(limit):>16}{_number(limit - slack):>16}{_number(slack):>14}")
    print(
        f"\nscore {answer['score']:,.2f} ({answer['objective']}), bound {answer['bound']:,.2f}",
        f"({answer['bound_kind']}), gap {100 * answer['gap']:.3f} %, {answer['status']}, {answer['cpu_s']:.1f} CPU s",
    )
    for name, known in published().items():
        limits = (known.flops_limit, known.params_limit, known.rho_limit)
        if tuple(answer["limits"].get(key) for key in ("flops", "params", "rho")) == limits:
            score = rate(known.structure, objective_named(answer["objective"])).score
            print(f"published {name}: {score:,.2f}, so {100 * (answer['score'] / score - 1):+.1f} %")


def _number(value: float) -> str:
    """Large ones whole, with commas: what people compare digit by digit."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.6g}"


def _write(answer: "Design", out: Path, objective: str) -> None:
    import json

    from nas_core.deepmad.drawings import draw_design
    from nas_core.deepmad.formulas import objective_named

    (out / "architecture.json").write_text(json.dumps(answer.as_dict(), indent=1) + "\n")
    draw_design(answer, objective_named(objective), out)


def _make_folder(out: Path) -> None:
    """Before anything is solved for."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("--out", str(out), f"a folder that can be made ({error.strerror})") from None


def _sweep(
    free: "Domain",
    limits: "Limits",
    objective: str,
    name: str,
    points: int,
    settings: dict[str, Any],
    out: Path | None,
    as_json: bool,
) -> None:
    import json

    from nas_core.deepmad.drawings import draw_frontier
    from nas_core.deepmad.formulas import objective_named
    from nas_core.deepmad.solver import sweep

    with never_silent(), doing(f"solving {points} programs"):
        answers = sweep(free, limits, objective_named(objective), name, points, **settings)
    if out is not None:
        draw_frontier(answers, name, out / "frontier.png")
    rows = [answer.as_dict() for answer in answers]
    if as_json:
        print(json.dumps({"frontier": name, "points": rows}))
        return
    print(f"{name:>16}{'score':>14}{'bound':>14}{'gap %':>8}{'CPU s':>8}")
    for row in rows:
        figures = f"{row['score']:>14,.2f}{row['bound']:>14,.2f}{100 * row['gap']:>8.3f}{row['cpu_s']:>8.1f}"
        print(f"{_number(row['limits'][name]):>16}{figures}")
