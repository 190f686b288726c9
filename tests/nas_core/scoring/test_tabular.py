"""Known results from Parquet and from NAS-Bench-Macro's JSON."""

import json
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nas_core.base.errors import DataError
from nas_core.families.plain_choices import PlainChoices
from nas_core.records.store import Store
from nas_core.scoring.known_results import METRIC, read_known
from nas_core.scoring.tabular import TabularScorer, same_function
from nas_core.space.genotypes import Genotype
from tests.nas_core.scoring.studies import build_scorer, id_of, space_of, study, table_file
from tests.reference_data import reference_data
from tests.spaces import nasbench_macro, tiny


def config(path, **settings):
    return TabularScorer.Settings(path=str(path), **settings)


def read_metrics(settings, space):
    columns = read_known(settings, space, {METRIC: settings.metric}).columns
    return {choices: value for choices, (value,) in columns.items()}


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
    scorer = build_scorer(study_config, Store(tmp_path / "store"))
    found, missing = scorer.evaluate([space.parse("0-0-0"), space.parse("2-2-2")])
    assert found.metric == 80.0
    assert missing.status == "failed"
    assert "2-2-2 is not in" in missing.message


def test_a_column_of_equal_functions(tmp_path):
    path = tmp_path / "t.parquet"
    networks = ["000", "001", "010", "222"]
    pq.write_table(pa.table({"arch": networks, "acc": [1.0, 2.0, 2.0, 3.0], "iso_id": [7, 8, 8, None]}), path)
    found = same_function(config(path, metric="acc", same_function="iso_id"), tiny())
    assert found == {(0, 0, 0): "7", (0, 0, 1): "8", (0, 1, 0): "8"}
    assert same_function(config(path, metric="acc"), tiny()) == {}
    with pytest.raises(
        DataError, match=r"scorer\.same_function: found 'iso', no column of .*one of: arch, acc, iso_id"
    ):
        same_function(config(path, metric="acc", same_function="iso"), tiny())


def test_knowing_equal_functions_changes_no_score(tmp_path):
    known, plain = (study({"kind": "tabular", "path": "t.parquet", "same_function": name}) for name in ("iso_id", None))
    assert id_of(known) == id_of(plain)


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
    scorer = build_scorer(study_config, Store(tmp_path / "store"))
    rows = scorer.evaluate([Genotype.parse(text) for text in ("0-0-0", "1-2-0")])
    build_scorer(study_config).check(rows)
    changed = replace(rows[1], metric=1.0)
    with pytest.raises(DataError, match=r"1-2-0: found 83\.0, expected 1\.0, as the study has stored"):
        build_scorer(study_config).check([rows[0], changed])
    failed = replace(rows[1], metric=None, status="failed")
    build_scorer(study_config).check([rows[0], failed])


def test_a_table_of_another_space(tmp_path):
    with pytest.raises(DataError, match="networks of 3 positions, expected networks of 8"):
        read_metrics(config(table_file(tmp_path)), nasbench_macro())


def test_other_json(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(DataError, match="other JSON"):
        read_metrics(config(tmp_path / "x.json"), tiny())


# tables as people have them; LOSS is what each of the 27 networks of the tiny space lost

LOSS = {genotype.choices: 2.0 - 0.1 * a - 0.2 * b - 0.04 * c for genotype in tiny().genotypes()
        for a, b, c in [genotype.choices]}  # fmt: skip
NAMES = {"".join(map(str, choices)): loss for choices, loss in LOSS.items()}


def known(path, space=None, **settings):
    mine = config(path, metric="loss", **settings)
    return read_known(mine, space or tiny(), {"scorer.metric": "loss"})


def losses(found):
    return {choices: loss for choices, (loss,) in found.columns.items()}


def written(folder, text, name="t.json"):
    path = folder / name
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


def parquet(folder, **columns):
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return folder / "t.parquet"


CSV = "arch,loss\n" + "".join(f"{arch},{loss}\n" for arch, loss in NAMES.items())
TABLES = {
    "rows by network": {arch: {"loss": loss} for arch, loss in NAMES.items()},
    "keys of tuples": {str(choices): {"loss": loss} for choices, loss in LOSS.items()},
    "keys of lists": {str(list(choices)): {"loss": loss} for choices, loss in LOSS.items()},
    "keys with spaces": {" ".join(map(str, choices)): {"loss": loss} for choices, loss in LOSS.items()},
    "numbers as text": {arch: {"loss": str(loss)} for arch, loss in NAMES.items()},
    "a list of rows": [{"arch": arch, "loss": loss} for arch, loss in NAMES.items()],
    "rows with lists": [{"arch": choices, "loss": loss} for choices, loss in LOSS.items()],
    "columns": {"arch": list(NAMES), "loss": list(NAMES.values())},
    "columns as pandas writes them": {
        "arch": {str(row): arch for row, arch in enumerate(NAMES)},
        "loss": {str(row): loss for row, loss in enumerate(NAMES.values())},
    },
    "CSV": CSV,
    "CSV of a spreadsheet": "\ufeff" + CSV.replace(",", ";").replace("\n", "\r\n"),
    "CSV without leading zeros": "arch,loss\n" + "".join(f"{int(arch)},{loss}\n" for arch, loss in NAMES.items()),
    "CSV with quotes": CSV.replace("012", '"0,1,2"'),
}


@pytest.mark.situations
@pytest.mark.parametrize("shape", TABLES)
def test_what_has_one_meaning_is_read_however_it_is_written(tmp_path, shape):
    path = written(tmp_path, TABLES[shape], "t.csv" if "CSV" in shape else "t.json")
    assert losses(known(path)) == LOSS


@pytest.mark.situations
def test_nested_json_is_read_by_dotted_names(tmp_path):
    nested = {arch: {"test": {"loss": loss}, "flops": 3} for arch, loss in NAMES.items()}
    by_set = {
        name: {arch: {"loss": loss + add} for arch, loss in NAMES.items()} for name, add in (("c10", 0), ("c100", 1))
    }
    assert read_metrics(config(written(tmp_path, nested), metric="test.loss"), tiny()) == LOSS
    assert read_metrics(config(written(tmp_path, by_set), metric="c10.loss"), tiny()) == LOSS
    with pytest.raises(DataError, match=r"scorer\.metric: found 'loss', expected one of: c10\.loss, c100\.loss"):
        read_metrics(config(written(tmp_path, by_set), metric="loss"), tiny())
    assert read_metrics(config(written(tmp_path, NAMES), metric="value"), tiny()) == LOSS


@pytest.mark.situations
def test_integers_that_lost_their_leading_zeros(tmp_path):
    found = known(parquet(tmp_path, arch=[int(arch) for arch in NAMES], loss=list(LOSS.values())))
    assert losses(found) == LOSS
    assert found.notes == ("9 of 27 networks lost their leading zeros: 22 is read as 0-2-2",)
    two = [int(f"{a}{b}") for a in range(3) for b in range(3)]  # of a space of two positions
    with pytest.raises(DataError, match="networks of 1, 2 positions, expected networks of 3"):
        known(parquet(tmp_path, arch=two, loss=[0.1] * 9))


@pytest.mark.situations
def test_lists_and_decimals_of_parquet(tmp_path):
    path = parquet(
        tmp_path, arch=[list(each) for each in LOSS], loss=[Decimal(f"{loss:.2f}") for loss in LOSS.values()]
    )
    assert losses(known(path)) == pytest.approx(LOSS)


@pytest.mark.situations
def test_choices_that_count_from_1_are_read_and_said(tmp_path):
    shifted = {"".join(str(choice + 1) for choice in choices): {"loss": loss} for choices, loss in LOSS.items()}
    found = known(written(tmp_path, shifted))
    assert losses(found) == LOSS
    assert found.notes == ("choices count from 1: 1 is choice 0, 2 is choice 1, 3 is choice 2",)
    columns = {f"p{place}": [choices[place] + 1 for choices in LOSS] for place in range(3)}
    path = parquet(tmp_path, **columns, loss=list(LOSS.values()))
    assert losses(known(path, choices=["p0", "p1", "p2"])) == LOSS


@pytest.mark.situations
def test_where_counting_starts_is_asked_for_where_it_cannot_be_seen(tmp_path):
    path = written(tmp_path, {"112": {"loss": 1.0}, "121": {"loss": 2.0}})
    with pytest.raises(DataError, match=r"may count from 0 or from 1.*Set scorer\.counted_from to 0 or 1"):
        known(path)
    assert losses(known(path, counted_from=0)) == {(1, 1, 2): 1.0, (1, 2, 1): 2.0}
    assert losses(known(path, counted_from=1)) == {(0, 0, 1): 1.0, (0, 1, 0): 2.0}


@pytest.mark.situations
def test_choices_by_the_blocks_own_values(tmp_path):
    levels, inline = ["O0", "O2", "O3"], [True, False]
    space = PlainChoices(PlainChoices.Settings(positions={"level": levels, "inline": inline})).space
    rows = [(level, flag) for level in levels for flag in inline]
    loss = [float(row) for row in range(6)]
    path = parquet(tmp_path, level=[level for level, _ in rows], inline=[flag for _, flag in rows], loss=loss)
    found = known(path, space, choices=["level", "inline"])
    assert losses(found) == dict(zip([(a, b) for a in range(3) for b in range(2)], loss, strict=True))
    assert "level: O0 is choice 0, O2 is choice 1, O3 is choice 2; inline: True is choice 0" in found.notes[0]
    with pytest.raises(DataError, match=r"position 0 \(level\): found the choices O0, O1, .*the blocks' own values"):
        known(parquet(tmp_path, level=["O0", "O1"], inline=inline, loss=[0.1, 0.2]), space, choices=["level", "inline"])


@pytest.mark.situations
def test_values_that_could_be_numbers_of_choices_are_values(tmp_path):
    for values in ([1, 0], [3, 2, 1], [2.0, 1.0, 0.0], ["02", "01"], [-1, 1]):
        space = PlainChoices(PlainChoices.Settings(positions={"a": values, "b": values})).space
        rows = [(a, b) for a in values for b in values]
        loss = [float(row) for row in range(len(rows))]
        path = parquet(tmp_path, a=[a for a, _ in rows], b=[b for _, b in rows], loss=loss)
        choices = [(a, b) for a in range(len(values)) for b in range(len(values))]
        found = known(path, space, choices=["a", "b"])
        assert losses(found) == dict(zip(choices, loss, strict=True))
        assert found.notes[0].startswith("choices by their blocks' values: a: ")
    space = PlainChoices(PlainChoices.Settings(positions={"a": [1, 0], "b": [1, 0]})).space
    path = written(tmp_path, "a,b,loss\n1,1,0.9\n1,0,0.8\n", "t.csv")
    found = known(path, space, choices=["a", "b"])
    assert losses(found) == {(0, 0): 0.9, (0, 1): 0.8}
    assert found.notes == (
        "choices by their blocks' values: a: 1 is choice 0; b: 1 is choice 0, 0 is choice 1; "
        "where they are numbers of choices, set scorer.counted_from",
    )
    assert losses(known(path, space, choices=["a", "b"], counted_from=0)) == {(1, 1): 0.9, (1, 0): 0.8}
    same = PlainChoices(PlainChoices.Settings(positions={"a": [0, 1], "b": [0, 1]})).space
    assert known(path, same, choices=["a", "b"]).notes == ()


@pytest.mark.situations
def test_a_table_of_more_choices_is_one_of_a_larger_space(tmp_path):
    larger = {f"{a}{b}{c}": {"loss": LOSS.get((a, b, c), 9.0)} for a in range(5) for b in range(5) for c in range(5)}
    found = known(written(tmp_path, larger))
    assert {choices: loss for choices, loss in losses(found).items() if choices in LOSS} == LOSS
    assert "larger space" in found.notes[0]
    with pytest.raises(DataError, match=r"the choices 1, 2, 4, .*0 to 2 \(or 1 to 3\)"):
        known(written(tmp_path, {"111": {"loss": 1.0}, "444": {"loss": 1.0}, "232": {"loss": 1.0}}))


@pytest.mark.situations
@pytest.mark.parametrize("kind", ["parquet", "json", "csv"])
def test_a_network_that_stands_several_times_is_refused_by_name_or_taken_as_seeds(tmp_path, kind):
    rows = [*NAMES.items(), ("222", 0.001), ("2-2-2", 9.9)]
    if kind == "parquet":
        path = parquet(tmp_path, arch=[arch for arch, _ in rows], loss=[loss for _, loss in rows])
    elif kind == "json":  # of equal keys, JSON's readers keep the last
        path = written(tmp_path, "{" + ", ".join(f'"{arch}": {{"loss": {loss}}}' for arch, loss in rows) + "}")
    else:
        path = written(tmp_path, "arch,loss\n" + "".join(f"{arch},{loss}\n" for arch, loss in rows), "t.csv")
    places = {
        "parquet": "row 27: 1.32, row 28: 0.001, row 29: 9.9",
        "json": "entry 27: 1.32, entry 28: 0.001",
        "csv": "line 28: 1.32",
    }
    with pytest.raises(
        DataError, match=rf"network 2-2-2: found several values \({places[kind]}.*scorer\.repeats=seeds"
    ):
        known(path)
    seeds = known(path, repeats="seeds")
    assert losses(seeds) == LOSS | {(2, 2, 2): pytest.approx((1.32 + 0.001 + 9.9) / 3)}
    assert seeds.notes == ("1 networks stand in several rows: the mean of the rows counts",)


@pytest.mark.situations
def test_rows_that_agree_say_one_thing(tmp_path):
    rows = [*NAMES.items(), *NAMES.items()]
    path = parquet(tmp_path, arch=[arch for arch, _ in rows], loss=[loss for _, loss in rows])
    assert losses(known(path)) == LOSS


@pytest.mark.situations
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", "arch,loss\n000,0.5\n001\n", r"line 3: found 1 values, expected 2"),
        ("t.csv", "arch,loss,loss\n000,0.5,1\n", "the column 'loss' twice"),
        ("t.csv", 'arch,loss\n000,"0,5"\n', r"line 2: found loss = '0,5', expected a number"),
        ("t.csv", "just words\n", "a Parquet, JSON or CSV table"),
        ("t.json", '{"0-a-1": {"loss": 1}}', r"entry 1: found the network '0-a-1', expected digits"),
        ("t.json", '{"000": {"loss": [1, 2, 3]}}', r"entry 1: found loss = \[1, 2, 3\], expected a number"),
        ("t.json", '{"000": {"loss": true}}', "loss = True, expected a number"),
        ("t.json", '{"000": 1, "001": {"loss": 2}}', "other JSON: an object with '000': int"),
        ("t.json", '{"000": {"loss": 1},}', "expected JSON"),
    ],
)
def test_what_cannot_be_read_is_refused_in_the_files_own_terms(tmp_path, name, content, words):
    with pytest.raises(DataError, match=words):
        known(written(tmp_path, content, name))


@pytest.mark.situations
def test_a_binary_file_is_not_called_a_broken_table(tmp_path):
    (tmp_path / "t.pth").write_bytes(b"\x80\x02}q\x00\xff")
    with pytest.raises(DataError, match=r"a binary file of another format, expected a Parquet, JSON or CSV table"):
        known(tmp_path / "t.pth")


@pytest.mark.situations
def test_a_message_about_a_large_table_is_short(tmp_path):
    path = written(tmp_path, {"x" * 300_000: {f"column{n}": n for n in range(20_000)}})
    for settings in ({}, {"choices": ["a"]}):
        with pytest.raises(DataError) as refused:
            known(path, **settings)
        assert len(str(refused.value)) <= 2_000


def test_settings_that_are_not_used_change_no_id():
    plain, asked = (study({"kind": "tabular", "path": "t.parquet", **more}) for more in ({}, {"repeats": "seeds"}))
    assert id_of(plain) == id_of(study({"kind": "tabular", "path": "t.parquet", "repeats": "refuse"}))
    assert id_of(plain) != id_of(asked)
    assert "repeats" not in build_scorer(plain).identity


@pytest.mark.data
def test_the_published_table():
    metrics = read_metrics(config(reference_data("nasbench_macro/cifar10.parquet")), nasbench_macro())
    assert len(metrics) == 6561
    best = max(metrics, key=metrics.__getitem__)
    assert metrics[best] == pytest.approx(93.127, abs=1e-3)
