"""Known results from Parquet and from NAS-Bench-Macro's JSON."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nas_core.base.errors import DataError
from nas_core.families.nasbench_macro import nasbench_macro
from nas_core.families.tiny import tiny
from nas_core.records.store import Store
from nas_core.scoring import build_scorer, check_scorer
from nas_core.scoring.settings import TabularScorerConfig
from nas_core.scoring.tabular import read_metrics
from nas_core.space.genotypes import Genotype
from tests.nas_core.scoring.studies import space_of, study, table_file
from tests.reference_data import reference_data


def config(path, **settings):
    return TabularScorerConfig(path=str(path), **settings)


def test_json_of_nas_bench_macro(tmp_path):
    metrics = read_metrics(config(table_file(tmp_path)), tiny())
    assert len(metrics) == 26
    assert metrics[1, 2, 0] == 83.0


def test_parquet_with_an_arch_column_and_with_choice_columns(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"arch": ["000", "0-1-2"], "a": [0, 0], "b": [0, 1], "c": [0, 2], "acc": [1.0, 2.5]}), path)
    expected = {(0, 0, 0): 1.0, (0, 1, 2): 2.5}
    assert read_metrics(config(path, metric="acc"), tiny()) == expected
    assert read_metrics(config(path, metric="acc", choices=["a", "b", "c"]), tiny()) == expected


def test_a_network_that_is_not_in_the_table_is_a_failed_row(tmp_path):
    study_config = study({"kind": "tabular", "path": str(table_file(tmp_path))})
    space = space_of(study_config)
    scorer = build_scorer(study_config, space, Store(tmp_path / "store"))
    found, missing = scorer.evaluate([space.parse("0-0-0"), space.parse("2-2-2")])
    assert found.metric == 80.0
    assert missing.status == "failed"
    assert "2-2-2 is not in" in missing.message


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"scorer\.path: found .*none\.json"):
        read_metrics(config(tmp_path / "none.json"), tiny())


def test_missing_metric_lists_the_columns(tmp_path):
    with pytest.raises(DataError, match=r"scorer\.metric: found 'top5', expected one of: mean_acc, params"):
        read_metrics(config(table_file(tmp_path), metric="top5"), tiny())


def test_missing_column_lists_the_columns(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [0], "acc": [1.0]}), path)
    with pytest.raises(DataError, match=r"scorer\.choices: found 'arch'.*one of: a, acc"):
        read_metrics(config(path, metric="acc"), tiny())


def test_a_metric_that_is_text(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"arch": ["000"], "acc": ["high"]}), path)
    with pytest.raises(DataError, match="a column of numbers"):
        read_metrics(config(path, metric="acc"), tiny())


@pytest.mark.parametrize("column", [["0", None], ["0", "two"], [0.0, 1.7]])
def test_a_choice_that_is_no_whole_number(tmp_path, column):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": column, "b": [0, 0], "c": [0, 0], "acc": [0.1, 0.2]}), path)
    with pytest.raises(DataError, match=r"whole numbers in the columns of scorer.choices"):
        read_metrics(config(path, metric="acc", choices=["a", "b", "c"]), tiny())


def test_a_table_that_changed_is_refused_and_one_that_was_completed_is_not(tmp_path):
    path = table_file(tmp_path)
    study_config = study({"kind": "tabular", "path": str(path)})
    scorer = build_scorer(study_config, space_of(study_config), Store(tmp_path / "store"))
    rows = scorer.evaluate([Genotype.parse(text) for text in ("0-0-0", "1-2-0")])
    check_scorer(study_config, tiny(), rows)
    changed = replace(rows[1], metric=1.0)
    with pytest.raises(DataError, match=r"1-2-0: found 83\.0, expected 1\.0, as the study has stored"):
        check_scorer(study_config, tiny(), [rows[0], changed])
    failed = replace(rows[1], metric=None, status="failed")
    check_scorer(study_config, tiny(), [rows[0], failed])


def test_a_table_of_another_space(tmp_path):
    with pytest.raises(DataError, match="networks of 3 positions, expected networks of 8"):
        read_metrics(config(table_file(tmp_path)), nasbench_macro())


def test_other_json(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(DataError, match="other JSON"):
        read_metrics(config(tmp_path / "x.json"), tiny())


@pytest.mark.data
def test_the_published_table():
    metrics = read_metrics(config(reference_data("nasbench_macro/cifar10.parquet")), nasbench_macro())
    assert len(metrics) == 6561
    best = max(metrics, key=metrics.__getitem__)
    assert metrics[best] == pytest.approx(93.127, abs=1e-3)
