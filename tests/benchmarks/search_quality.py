"""How good a network each search has found after so many evaluations, on a complete table.

    python -m tests.benchmarks.search_quality --table tests/benchmarks/tables/nasbench_macro.yaml \\
        --starts 30 --budgets 33,49,73,100 --methods ours,random,evolution,uct,paper [--limit flops=50%q] --json

A search sees ``select_on`` of the networks it evaluates; its pick is the best
of them. Rank 1 is the best network of the table on ``report`` (within the limit
if there is one), regret the distance to it in the metric's unit. ``best_found``
is the share of starts that evaluated the best network on ``select_on``. The last
line is one JSON object; ``--out`` receives a Parquet file with every start's
course and a figure.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nas_core.base.errors import DataError, NasError
from nas_core.searchers.surrogate import search_pool
from tests.benchmarks.conditions import conditions
from tests.benchmarks.peers import PEERS, Search, SearchTask
from tests.benchmarks.tables import NetworkTable, read_table

ROUND = 3  # networks our search evaluates at a time, in parallel if there are workers


def ours(task: SearchTask, rng: np.random.Generator) -> list[int]:
    """A balanced design, then refinement, all within the limit."""
    return _refined(task, rng, design="balanced")


def ours_one_swap(task: SearchTask, rng: np.random.Generator) -> list[int]:
    """The one-swap design around a random base, as in the paper, then refinement."""
    return _refined(task, rng, design="one-swap")


def _refined(task: SearchTask, rng: np.random.Generator, design: str) -> list[int]:
    rows = task.allowed_rows
    found = search_pool(
        task.table.space,
        task.codes[rows],
        lambda picked: task.metric[rows[picked]],
        num_evaluations=task.most,
        per_round=ROUND,
        rng=rng,
        design=design,
    )
    return [int(rows[index]) for index in found]


METHODS: dict[str, Search] = {"ours": ours, "ours-one-swap": ours_one_swap, **PEERS}


def ranks(metric_N: np.ndarray, allowed_N: np.ndarray) -> np.ndarray:
    """1 + how many allowed networks are strictly better, for every network."""
    best_first = np.sort(-metric_N[allowed_N])
    return np.asarray(1 + np.searchsorted(best_first, -metric_N, side="left"))


def course(table: NetworkTable, allowed_N: np.ndarray, rows: Sequence[int]) -> pd.DataFrame:
    """One line per evaluation: the pick so far, its ranks and its regret."""
    seen = np.array(rows)
    best_so_far = np.maximum.accumulate(table.select_N[seen])
    first_at = np.array([int(np.argmax(table.select_N[seen[: n + 1]])) for n in range(len(seen))])
    pick = seen[first_at]
    assert (table.select_N[pick] == best_so_far).all()
    return pd.DataFrame(
        {
            "evaluations": np.arange(1, len(seen) + 1),
            "row": seen,
            "pick": pick,
            "rank": ranks(table.report_N, allowed_N)[pick],
            "rank_select": ranks(table.select_N, allowed_N)[pick],
            "regret": table.report_N[allowed_N].max() - table.report_N[pick],
        }
    )


def run_method(
    table: NetworkTable, limit: str | None, method: str, starts: int, budget: int, seed: int
) -> pd.DataFrame:
    """The courses of every start of one method; start s draws from the seed (seed, s)."""
    task = SearchTask(table=table, allowed_N=table.allowed(limit), budget=budget)
    courses = []
    for start in range(starts):
        rows = METHODS[method](task, np.random.default_rng([seed, start]))
        assert len(rows) == len(set(rows)), f"{method} evaluated a network twice"
        courses.append(course(table, task.allowed_N, rows).assign(method=method, start=start))
    return pd.concat(courses, ignore_index=True)


def summary(courses: pd.DataFrame, budgets: Sequence[int]) -> dict[str, dict[str, float]]:
    """The figures at each budget, medians and quartiles over starts; a shorter course counts with its last line."""
    result = {}
    for budget in budgets:
        at = courses[courses["evaluations"] <= budget].groupby("start").last()
        result[str(budget)] = {
            "median_rank": float(at["rank"].median()),
            "q25_rank": float(at["rank"].quantile(0.25)),
            "q75_rank": float(at["rank"].quantile(0.75)),
            "median_rank_select": float(at["rank_select"].median()),
            "median_regret": float(at["regret"].median()),
            "q75_regret": float(at["regret"].quantile(0.75)),
            "best_found": float((at["rank_select"] == 1).mean()),
        }
    return result


def draw(courses: pd.DataFrame, title: str, path: Path) -> None:
    """Regret against evaluations, the median with its quartile band, one line per method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.5), constrained_layout=True)
    for method, mine in courses.groupby("method", sort=False):
        bands = mine.groupby("evaluations")["regret"].quantile([0.25, 0.5, 0.75]).unstack()
        (line,) = axes.plot(bands.index, bands[0.5], label=method, lw=2 if str(method).startswith("ours") else 1.2)
        axes.fill_between(bands.index, bands[0.25], bands[0.75], alpha=0.12, color=line.get_color(), lw=0)
    smallest = courses.loc[courses["regret"] > 0, "regret"].min()
    axes.set_yscale("symlog", linthresh=max(float(smallest), 1e-3), linscale=0.8)
    axes.set(xlabel="networks evaluated", ylabel="regret of the pick (metric's unit)", title=title, ylim=(-1e-4, None))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, ncols=2)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, help="YAML file that describes the table")
    parser.add_argument("--starts", type=int, default=30)
    parser.add_argument("--budgets", default="25,50,100,200")
    parser.add_argument("--methods", default="ours,random,evolution,uct,paper")
    parser.add_argument("--limit", default=None, help="such as flops=50%%q (quantile of the table) or flops=6e7")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("tests/output"))
    parser.add_argument("--json", action="store_true", help="print nothing but the object")
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(measure(options)))
    except NasError as error:
        parser.exit(2, f"{error}\n")


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Run every method and write the Parquet file and the figure."""
    methods, budgets = options.methods.split(","), sorted(int(text) for text in options.budgets.split(","))
    for method in methods:
        if method not in METHODS:
            raise DataError("--methods", repr(method), f"one of {', '.join(METHODS)}")
    table = read_table(options.table)
    frames, figures, seconds = [], {}, {}
    for method in methods:
        begin = time.perf_counter()
        frames.append(run_method(table, options.limit, method, options.starts, budgets[-1], options.seed))
        seconds[method] = round(time.perf_counter() - begin, 2)
        figures[method] = summary(frames[-1], budgets)
        if not options.json:
            print(f"{method}: {figures[method]} in {seconds[method]} s", flush=True)
    courses = pd.concat(frames, ignore_index=True)
    options.out.mkdir(parents=True, exist_ok=True)
    limit = f"_{options.limit}" if options.limit else ""
    stem = f"search_quality_{table.name}{limit}".replace("=", "-").replace("%", "")
    courses.to_parquet(options.out / f"{stem}.parquet")
    title = (
        f"{table.name}{', ' + options.limit if options.limit else ''}: median and quartiles of {options.starts} starts"
    )
    draw(courses, title, options.out / f"{stem}.png")
    settings = {"table": table.name, "limit": options.limit, "starts": options.starts, "seed": options.seed}
    networks = {"networks": len(table.codes_NP), "allowed": int(table.allowed(options.limit).sum())}
    written = {"parquet": str(options.out / f"{stem}.parquet"), "figure": str(options.out / f"{stem}.png")}
    return {**figures, "conditions": conditions(**settings, **networks, **written, seconds=seconds, per_round=ROUND)}


if __name__ == "__main__":
    main()
