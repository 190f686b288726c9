"""``mathnas select PROBLEM.json``: answer a stored problem, and write certificates."""

import contextlib
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.printing import print_json
from nas_core.base.errors import ConfigError

if TYPE_CHECKING:
    from nas_core.program import SelectionProblem, SelectionResult
    from nas_core.study.study import Study


def select_stored_problem(
    path: Path,
    limits: Sequence[str],
    *,
    top: int,
    min_distance: int,
    time_limit_s: float,
    certify: Path | None,
    as_json: bool,
) -> None:
    """Print the best networks of a stored problem; raises NasError where there is none."""
    from nas_core.program import parse_limit, read_problem_file, top_k
    from nas_core.program.exact import costs_of_base
    from nas_core.study.choices import check_distance, without_network

    problem = read_problem_file(path)
    check_distance((*problem.num_choices, len(problem.tables)), top, min_distance, "--min-distance")
    base_costs = costs_of_base(problem)
    budgets = [parse_limit(text).resolve(base_costs, resources=problem.resources) for text in limits]
    problem = problem.with_budgets((*problem.budgets, *budgets))
    with progress_line(top) as tell:
        result = top_k(problem, top, min_distance=min_distance, time_limit_s=time_limit_s, tell=tell)
    if as_json:
        print_json(result.as_dict())
    else:
        _print_result(result)
    if certify is not None:
        write_certificate(certify, problem, result, min_distance, time_limit_s, quiet=as_json)
    if not result.selections:
        explanation = "" if result.explanation is None else str(result.explanation)
        raise without_network(result.status.name.lower(), list(map(str, problem.budgets)), explanation)


@contextlib.contextmanager
def progress_line(top: int) -> Iterator[Callable[[int], None] | None]:
    """What to tell the number of proven ranks: a line on a person's terminal, which is gone at the end."""
    if top == 1 or not sys.stderr.isatty():
        yield None
        return
    text = ""

    def tell(num_proven: int) -> None:
        nonlocal text
        text = f"{num_proven} of {top} ranks proven"
        print(f"\r{text}", end="", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        print(f"\r{' ' * len(text)}\r", end="", file=sys.stderr, flush=True)


def _print_result(result: "SelectionResult") -> None:
    from nas_core.base.words import aligned
    from nas_core.program.problem import format_number

    print(result.message)
    if result.selections and math.isfinite(result.gap) and result.gap > 0:
        print(f"gap {format_number(result.gap)}, bound {format_number(result.bound)}")
    for note in result.notes:
        print(note)
    if not result.selections:
        return
    resources = list(result.selections[0].costs)
    rows = [["rank", "network", "value", *resources]]
    for rank, choice in enumerate(result.selections, start=1):
        costs = [format_number(choice.costs[name]) for name in resources]
        rows.append([f"{rank:>4}", str(choice.genotype), format_number(choice.value), *costs])
    print("\n".join(aligned(rows)))


def certify_study(
    study: "Study", limits: Sequence[str], path: Path, *, top: int, min_distance: int, time_limit_s: float, quiet: bool
) -> None:
    """Write the certificate of a study's selection: the same program, answered again."""
    from nas_core.program import top_k

    problem = study.snapshot.problem(study.budgets(limits))
    result = top_k(problem, top, min_distance=min_distance, time_limit_s=time_limit_s)
    write_certificate(path, problem, result, min_distance, time_limit_s, quiet=quiet)


def is_certificate(path: Path) -> bool:
    """Whether the file is one that ``write_certificate`` wrote, or empty."""
    from nas_core.program.checker import FORMAT

    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if text.strip() else {"format": FORMAT}
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


def write_certificate(
    path: Path,
    problem: "SelectionProblem",
    result: "SelectionResult",
    min_distance: int,
    time_limit_s: float,
    *,
    quiet: bool,
) -> None:
    """Write the proof, and say how to check it."""
    from nas_core.program import certify

    started = time.monotonic()
    data: dict[str, Any] = certify(problem, result, min_distance=min_distance, time_limit_s=time_limit_s)
    try:
        path.write_text(json.dumps(data), encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), error.strerror or str(error), "a path that can be written") from None
    if quiet:
        return
    print(f"{data['message']} " * bool(data["message"]), end="")
    replay = f"python -m nas_core.program {shlex.quote(str(path))}"
    print(f"Certificate: {path} ({time.monotonic() - started:.1f} s); {replay}")
