"""The two benchmarks of prediction on a small made table, and on NAS-Bench-Macro where it is there."""

import importlib
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nas_core.base.errors import DataError
from tests.benchmarks import calibration, derived, search_quality, shared_prefix
from tests.benchmarks.peers import SearchTask
from tests.benchmarks.tables import read_table
from tests.reference_data import reference_data

MACRO = Path(search_quality.__file__).parent / "tables" / "nasbench_macro.yaml"


MODULES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith(("test_", "__")))


@pytest.mark.parametrize("module", MODULES)
def test_what_is_run_by_command_imports(module):
    importlib.import_module(f"tests.benchmarks.{module}")


@pytest.fixture(scope="module")
def small_table(tmp_path_factory) -> Path:
    """4 positions of 3 operations with names; a cost in the file and one in another."""
    folder, rng = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    frame = pd.DataFrame(itertools.product(["a", "b", "c"], repeat=4), columns=list("wxyz"))
    gain = {name: rng.random(3) for name in "wxyz"}
    frame["acc"] = sum(frame[name].map(dict(zip("abc", gain[name], strict=True))) for name in "wxyz")
    frame["acc"] = 90 + frame["acc"] + 0.3 * (frame["w"] == frame["x"])
    frame["test"] = frame["acc"] + 0.01 * rng.normal(size=81)
    frame["size"] = (frame[list("wxyz")] == "c").sum(axis=1) + 1.0
    frame["id"] = np.arange(81)
    frame.sample(frac=1, random_state=0).to_parquet(folder / "nets.parquet")
    pd.DataFrame({"id": np.arange(81), "ms": np.arange(81.0)}).to_parquet(folder / "ms.parquet")
    path = folder / "small.yaml"
    path.write_text(
        "path: nets.parquet\nchoices: [w, x, y, z]\nselect_on: acc\nreport: test\n"
        "costs: {flops: size, phone_ms: {path: ms.parquet, key: id, column: ms}}\n"
    )
    return path


def test_a_table_is_read_with_its_costs(small_table):
    table = read_table(small_table)
    assert table.space.num_choices == (3, 3, 3, 3)
    assert table.encoding.shares_blocks
    assert table.costs["phone_ms"].sum() == sum(range(81))
    assert table.allowed("flops=2").sum() == (table.costs["flops"] <= 2).sum() == 48
    assert table.allowed("phone_ms=50%q").sum() == 41
    assert table.allowed(None).all()
    for limit in ("watts=3", "flops=many"):
        with pytest.raises(DataError, match="--limit"):
            table.allowed(limit)


@pytest.mark.parametrize(("old", "new"), [("[w, x, y, z]", "[w, x]"), ("acc\n", "nothing\n"), ("nets", "no")])
def test_a_wrong_table_says_so(small_table, old, new):
    broken = small_table.with_name("broken.yaml")
    broken.write_text(small_table.read_text().replace(old, new))
    with pytest.raises(DataError, match=r"broken\.yaml"):
        read_table(broken)


@pytest.mark.parametrize("method", sorted(search_quality.METHODS))
@pytest.mark.parametrize("limit", [None, "flops=50%q"])
def test_every_search_keeps_the_limit_and_evaluates_once(small_table, method, limit):
    table = read_table(small_table)
    task = SearchTask(table=table, allowed_N=table.allowed(limit), budget=40)
    rows = search_quality.METHODS[method](task, np.random.default_rng(0))
    assert len(rows) == len(set(rows)) == task.most
    made = 17 if method.startswith("ours") else 0  # a study's design, made before any limit is known
    assert task.allowed_N[rows[made:]].all()
    assert rows == search_quality.METHODS[method](task, np.random.default_rng(0))


def test_a_search_may_exhaust_the_table(small_table):
    table = read_table(small_table)
    task = SearchTask(table=table, allowed_N=table.allowed("flops=2"), budget=500)
    for name, method in search_quality.METHODS.items():
        rows = np.array(method(task, np.random.default_rng(1)))
        assert set(rows[task.allowed_N[rows]]) == set(task.allowed_rows)
        assert task.allowed_N[rows].all() or name.startswith("ours")


def test_search_quality_prints_one_object(small_table, tmp_path, capsys):
    arguments = ["--table", str(small_table), "--starts", "3", "--budgets", "12,20", "--methods", "ours,random"]
    search_quality.main([*arguments, "--limit", "flops=50%q", "--out", str(tmp_path), "--json"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures) == {"ours", "random", "conditions"}
    assert set(figures["ours"]) == {"12", "20"}
    assert {"median_rank", "q75_rank", "median_regret", "best_found"} <= set(figures["ours"]["12"])
    assert figures["ours"]["20"]["median_rank"] <= figures["random"]["20"]["median_rank"]
    courses = pd.read_parquet(figures["conditions"]["parquet"])
    assert len(courses) == 2 * 3 * 20
    assert Path(figures["conditions"]["figure"]).stat().st_size > 10_000


def test_rank_one_is_the_best_within_the_limit():
    metric_N, allowed_N = np.array([9.0, 5.0, 7.0, 5.0]), np.array([False, True, True, True])
    assert search_quality.ranks(metric_N, allowed_N)[1:].tolist() == [2, 1, 2]


def test_unknown_names_are_refused(small_table, capsys):
    for option in (["--methods", "magic"], ["--limit", "watts=1"]):
        with pytest.raises(SystemExit) as stop:
            search_quality.main(["--table", str(small_table), "--starts", "1", "--budgets", "5", *option])
        assert stop.value.code == 2
        assert "one of" in capsys.readouterr().err


def test_calibration_prints_one_object(small_table, capsys):
    calibration.main(["--table", str(small_table), "--evaluations", "24", "--starts", "2", "--json"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["kendall"] > 0.7
    assert {"spearman", "kendall_top_half", "coverage_90", "rmse", "flops"} <= set(figures)
    assert "params" not in figures


@pytest.mark.parametrize("make", derived.MADE)
def test_made_tables_are_what_they_say(make):
    table = make()
    assert len(np.unique(table.codes_NP, axis=0)) == len(table.codes_NP) <= derived.MOST_NETWORKS
    assert tuple(table.codes_NP.max(axis=0) + 1) == table.space.num_choices
    assert np.isfinite(table.select_N).all()
    assert table.flops is not None
    assert (make().select_N == table.select_N).all()


def test_calibration_of_every_table_and_design_prints_one_object(monkeypatch, capsys):
    monkeypatch.setattr(calibration, "derived_tables", lambda: iter([derived.ragged_pairs()]))
    calibration.main(["--starts", "1", "--json"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures["coverage"]) == set(calibration.DESIGNS) == {line["design"] for line in figures["tables"]}
    assert {line["design"]: line["fitted"] for line in figures["tables"]} == {
        "balanced": 12, "balanced x 2": 24, "balanced, verified": 44, "random": 12, "one-swap": 19
    }  # fmt: skip
    assert all(0 <= line["coverage_90"] <= 1 for line in figures["tables"])


def test_a_tables_equal_functions_are_evaluated_once(small_table):
    path = small_table.with_name("same.yaml")
    frame = pd.read_parquet(small_table.with_name("nets.parquet"))
    names = ["".join(sorted(row)) for row in frame[list("wxyz")].to_numpy()]
    frame.assign(same=names).to_parquet(small_table.with_name("same.parquet"))
    path.write_text(small_table.read_text().replace("nets", "same") + "same_function: same\nordered: [w]\n")
    table = read_table(path)
    assert [position.ordered for position in table.space.positions] == [True, False, False, False]
    task = SearchTask(table=table, allowed_N=table.allowed(None), budget=81)
    rows = search_quality.METHODS["ours"](task, np.random.default_rng(0))
    functions = [table.space.same_function[tuple(code_P)] for code_P in table.codes_NP[rows].tolist()]
    assert len(functions) == len(set(functions)) == len(set(names)) == 15


@pytest.mark.data
def test_nasbench_macro_from_five_starts():
    """The acceptance figures at a sixth of their starts: median rank at 49, the best found by 73."""
    reference_data("nasbench_macro")
    table = read_table(MACRO)
    courses = search_quality.run_method(table, None, "ours", starts=5, budget=73, seed=7)
    figures = search_quality.summary(courses, [33, 49, 73])
    assert figures["33"]["median_rank"] <= 4
    assert figures["49"]["median_rank"] == 1
    assert figures["73"]["best_found"] == 1


def test_shared_prefixes_rate_as_the_plain_way_does(monkeypatch, capsys):
    sizes = {"stem-channels": 2, "head-channels": 8, "resolution": 8, "images": 16, "calibration": 16, "repeats": 1}
    words = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr("sys.argv", ["shared_prefix", *words, "--json"])
    shared_prefix.main()
    assert json.loads(capsys.readouterr().out)["max_abs_diff"] < 1e-3


def test_any_models_of_timm_are_split_by_their_names(monkeypatch, capsys):
    from tests.benchmarks import split

    monkeypatch.setattr("sys.argv", ["split", "--json", "--models", "test_vit,test_resnet"])
    split.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["models"], figures["families"], figures["passed"], figures["failed"]) == (2, 2, 2, {})
