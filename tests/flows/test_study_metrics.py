"""A metric other than accuracy, and one of which less is better, through every stage to page and MLflow."""

import itertools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nas_core.report.collect import summarise
from nas_core.report.figures import save_figures
from nas_core.report.page import evaluated_table, render_page
from nas_core.space.genotypes import Genotype
from nas_core.study.config import parse_config
from nas_core.study.study import Study
from tasks.embedded_tracking import address
from tests.conftest import config_of
from tests.flows.test_cli import mathnas, refused


@pytest.fixture(scope="module")
def by_f1(api, cluster, tmp_path_factory):
    """A tiny study on real images whose networks are compared by macro F1."""
    from flows.study import run_study

    root = str(tmp_path_factory.mktemp("f1") / "study")
    run_study(config_of(metric="macro_f1", verify={"evaluations": 0}), root)
    return Study.open(root)


def test_rows_runs_and_page_speak_of_the_studys_metric(by_f1):
    import mlflow

    rows = by_f1.evaluations()
    assert {(row.metric_name, row.split, row.higher_is_better) for row in rows} == {("macro_f1", "validation", True)}
    trained = by_f1.output("training.json")["networks"][0]
    assert (trained["metric_name"], trained["higher_is_better"]) == ("macro_f1", True)
    assert set(by_f1.output("registered.json")) == {"test_macro_f1", "trained_test_macro_f1"}
    runs = by_f1.output("tracking.json")
    client = mlflow.MlflowClient(tracking_uri=address(by_f1.store, runs))
    child = next(client.get_run(run) for key, run in runs["runs"].items() if key != "study")
    assert {f"test_{name}" for name in trained["metrics"]["test"]} <= set(child.data.metrics)
    assert "validation_macro_f1" in child.data.metrics
    page = by_f1.store.read_bytes("report.html").decode()
    assert "accura" not in page.lower()
    assert "test macro F1" in page
    assert "validation macro F1" in page


def test_the_command_line_prints_the_studys_metric(by_f1):
    printed = mathnas("report", by_f1.store.root).stdout
    assert "test macro F1" in printed
    assert "accura" not in printed.lower()


def test_another_metric_is_another_score(by_f1):
    assert Study(config_of(), by_f1.store).scorer_id != by_f1.scorer_id
    assert Study(config_of(metric="accuracy"), by_f1.store).scorer_id == Study(config_of(), by_f1.store).scorer_id


def test_an_unknown_metric_is_refused_before_compute(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_bytes(config_of().as_yaml())
    said = refused("run", path, "--root", tmp_path / "root", "--set", "metric=top1")
    assert "metric: found 'top1', expected one of: accuracy, top5_accuracy" in said


LOSSES = {row: 2.0 - sum(w * c for w, c in zip((0.3, 0.1, 0.2, 0.1, 0.1, 0.2, 0.05, 0.1), row, strict=True)) / 2
          for row in itertools.product(range(3), repeat=8)}  # fmt: skip


@pytest.fixture(scope="module")
def by_loss(api, cluster, tmp_path_factory):
    """A study on a table of losses."""
    from flows.study import run_study

    folder = tmp_path_factory.mktemp("loss")
    table = {"arch": ["".join(map(str, row)) for row in LOSSES], "val_loss": list(LOSSES.values())}
    pq.write_table(pa.table(table), folder / "table.parquet")
    scorer = {"kind": "tabular", "path": str(folder / "table.parquet"), "metric": "val_loss", "batch": 64}
    config = parse_config(
        {
            "name": "loss",
            "scorer": {**scorer, "higher_is_better": False},
            "design": {"base": "0-0-0-0-0-0-0-0", "held_out": 8},
            "profile": {"resources": ["flops", "params"]},
            "select": {"limits": ["params<=2 M"]},
            "verify": {"evaluations": 8, "per_round": 4},
        },
        "test",
    )
    run_study(config, str(folder / "study"), until="verify")
    return Study.open(str(folder / "study"))


def test_the_least_loss_within_the_limits_is_chosen(by_loss):
    evaluated = {row.genotype: row.metric for row in by_loss.evaluations()}
    budgets = by_loss.budgets(by_loss.config.select.limits)
    within = [g for g in evaluated if by_loss.within(Genotype.parse(g), budgets)]
    assert evaluated[by_loss.winner] == min(evaluated[g] for g in within)
    losses = sorted(LOSSES[g.choices] for g in by_loss.space.genotypes() if by_loss.within(g, budgets))
    assert evaluated[by_loss.winner] <= losses[len(losses) // 100]


def test_report_and_frontier_turn_with_the_direction(by_loss):
    summary = summarise(by_loss)
    assert not summary.scorer.metric.higher_is_better
    (front,) = summary.frontiers
    predicted = [point.predicted for point in sorted(front.points, key=lambda point: point.cost)]
    assert len(predicted) > 2
    assert predicted == sorted(predicted, reverse=True)
    table = evaluated_table(summary)
    shown = [float(row[2]) for row in table.rows]
    assert shown == sorted(shown)
    assert max(row.effect for row in summary.block_effects.effects) > 0  # the base is the worst: others improve
    assert min(row.effect for row in summary.block_effects.effects) == pytest.approx(0, abs=1e-3)
    drawn = save_figures(summary)
    page = render_page(summary, {"light": drawn, "dark": drawn})
    assert "accura" not in page.lower()
    assert "lower is better" in page.lower()


def test_the_dashboard_lists_the_least_first(by_loss):
    from tasks.artifacts import TABLES

    values = [row["val_loss"] for row in TABLES["score"](by_loss)]
    assert values == sorted(values)


def test_mlflow_holds_the_losses(by_loss):
    import mlflow

    from tasks import tracking

    ids = tracking.log_study(by_loss)
    run = mlflow.MlflowClient(tracking_uri=address(by_loss.store, ids)).get_run(ids["runs"]["study"])
    assert run.data.metrics["selected_predicted"] < 2
    measured = {row.genotype: row.metric for row in by_loss.evaluations()}
    assert run.data.metrics["chosen_evaluated"] == pytest.approx(measured[by_loss.winner])
    for name, value in by_loss.costs_of(Genotype.parse(by_loss.winner)).items():
        assert run.data.metrics[f"chosen_{name}"] == pytest.approx(value)
    assert not any("accura" in name for name in run.data.metrics)
