"""The configuration: unknown keys and wrong values are errors with a path; ids depend on what scores depend on."""

import pytest
from pydantic import BaseModel

from nas_core.base.errors import ConfigError
from nas_core.study.config import StudyConfig, load_config, parse_config, read_config
from tests.conftest import config_of
from tests.nas_core.scoring.studies import id_of


def sections(model):
    yield model
    for field in model.model_fields.values():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from sections(kind)


@pytest.mark.parametrize("section", sorted(set(sections(StudyConfig)), key=str), ids=lambda section: section.__name__)
def test_every_field_is_described_for_the_dashboard(section):
    undescribed = [name for name, field in section.model_fields.items() if name != "kind" and not field.description]
    assert not undescribed


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"spcae": {}}, "spcae: found {}, expected one of the keys: name, seed"),
        ({"verify": {"round": 3}}, "verify.round: found 3, expected one of the keys: evaluations, per_round, patience"),
        (
            {"scorer": {"recipe": {"epoch": 1}}},
            "scorer.recipe.epoch: found 1, expected one of the keys: name, epochs, batch",
        ),
        ({"scorer": {"recipe": 3}}, "scorer.recipe: found 3, expected a mapping of keys to values"),
        ({"seed": -1}, "seed: found -1, expected greater than or equal to 0"),
        ({"scorer": {"kind": "magic"}}, "distil, supernet, tabular, train. A plug-in's is known once"),
        (
            {"space": {"kind": "model", "model": "timm:test_resnet", "library": [{"kind": "magic"}]}},
            "space.library: found [{'kind': 'magic'}], expected a kind with its settings, one of: convolution",
        ),
        (
            {"space": {"kind": "model", "model": "m", "library": [{"kind": "magic"}]}},
            "without. A plug-in's is known once",
        ),
        ({"scorer": {"kind": "tabular"}}, "path: found nothing"),
        ({"name": "a/b"}, "name: found 'a/b'"),
        ({"name": "a..b"}, "'..'"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(data, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(data, "study.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", [b"- a", b"a: [", b"\xff\xfe", b"3", b"", b"a: &a [*a]"])
def test_what_is_no_configuration_is_refused(text):
    with pytest.raises(ConfigError):
        load_config(text, source="study.yaml")


def test_overrides_reach_nested_fields(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("verify: {patience: 1}\n")
    config = read_config(path, {"verify.patience": "4", "train.recipe.epochs": "2.5"})
    assert (config.verify.patience, config.train.recipe.epochs) == (4, 2.5)


def test_a_bar_is_a_bar(tmp_path):
    """In YAML it begins a block of text, which would be empty."""
    path = tmp_path / "study.yaml"
    path.write_text("data: {kind: image-table, path: photos.csv, targets: [tags]}\n")
    assert read_config(path, {"data.separator": "|"}).data.separator == "|"


def test_paths_are_relative_to_the_file_and_know_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TABLES", "tables")
    (tmp_path / "study.yaml").write_text("scorer: {kind: tabular, path: $TABLES/t.parquet}\n")
    assert read_config(tmp_path / "study.yaml").scorer.path == str(tmp_path / "tables/t.parquet")


def test_what_a_score_does_not_depend_on_does_not_change_its_id():
    same = [
        config_of(name="other"),
        config_of(select={"limits": ["flops<=1%"]}),
        config_of(verify={"evaluations": 99}),
        config_of(cluster={"num_cpus": 2}),
        config_of(scorer={**config_of().scorer.model_dump(), "batch": 7, "side_by_side": 4}),
    ]
    assert {id_of(config) for config in same} == {id_of(config_of())}


def test_what_a_score_depends_on_changes_its_id():
    scorer, data = config_of().scorer.model_dump(), config_of().data.model_dump()
    changed = [
        config_of(scorer={**scorer, "random_paths": 2}),
        config_of(scorer={"kind": "train"}),
        config_of(data={**data, "split_seed": 1}),
        config_of(data={**data, "train_examples": 100}),
    ]
    ids = {id_of(config) for config in (config_of(), *changed)}
    assert len(ids) == len(changed) + 1


def test_a_table_is_the_same_wherever_it_lies():
    here, there = (config_of(scorer={"kind": "tabular", "path": f"/{place}/t.parquet"}) for place in ("a", "b"))
    assert id_of(here) == id_of(there)


@pytest.mark.situations
@pytest.mark.parametrize(
    ("written", "value"),
    [("1_000", 1000), ("5e6", 5_000_000), ("5M", 5_000_000), ("1.5k", 1500), ("'5M'", 5_000_000), ("'1_000'", 1000)],
)
def test_numbers_are_read_as_people_write_them(written, value):
    text = "seed: N\ntrain: {train_examples: N}\ncluster: {num_cpus: N, resources: {a: N}}".replace("N", written)
    config = load_config(text.encode(), source="s")
    found = (config.seed, config.train.train_examples, config.cluster.num_cpus, config.cluster.resources["a"])
    assert found == (value,) * 4
    assert load_config(b"scorer: {kind: train, recipe: {lr: 1e-3}}", source="s").scorer.recipe.lr == 0.001


@pytest.mark.situations
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: true", "s: seed: found True, expected a number, not true or false"),
        ("seed: 5x", "s: seed: found '5x', expected a valid integer"),
        ("cluster: {batch_timeout_s: 5M}", "cluster.batch_timeout_s: found '5M', expected a valid number"),
        (
            "name: 010",
            "s: name: found 10, expected a valid string. A number or true and false as a text stands in quotes.",
        ),
        (
            "select: {top: 1}\nseed: 2\nselect: {top: 3}",
            "s: found the key 'select' twice, in lines 1 and 3, expected every",
        ),
    ],
)
def test_scalars_of_another_kind_are_refused(text, message):
    with pytest.raises(ConfigError) as refused:
        load_config(text.encode(), source="s")
    assert message in str(refused.value)


@pytest.mark.situations
def test_a_text_that_looks_like_a_number_is_stored_as_the_text():
    config = parse_config({"name": "1e3", "space": {"kind": "choices", "positions": {"a": ["yes", "010", 10]}}}, "s")
    assert load_config(config.as_yaml(), source="s") == config


@pytest.mark.situations
def test_a_path_given_in_a_command_is_relative_to_where_the_command_is_given(tmp_path, monkeypatch):
    (tmp_path / "team").mkdir()
    (tmp_path / "shell").mkdir()
    (tmp_path / "team" / "study.yaml").write_text("data: {kind: folder, path: images}\n")
    monkeypatch.chdir(tmp_path / "shell")
    path = tmp_path / "team" / "study.yaml"
    assert read_config(path).data.path == str(tmp_path / "team" / "images")
    for overrides in ({"data.path": "pictures"}, {"data": "{kind: folder, path: pictures}"}):
        assert read_config(path, overrides).data.path == str(tmp_path / "shell" / "pictures")
    table = {"scorer.kind": "tabular", "scorer.path": "../t.csv"}
    assert read_config(path, table).scorer.path == str(tmp_path / "shell" / "../t.csv")
    assert read_config(path, table).data.path == str(tmp_path / "team" / "images")
    assert read_config(path, {"data.path": "/else/where"}).data.path == "/else/where"


@pytest.mark.parametrize(
    ("section", "doubled"),
    [
        ({"train": {"compare": ["depth", "depth"]}}, "depth"),
        ({"profile": {"resources": ["flops", "params", "flops"]}}, "flops"),
        ({"data": {"kind": "rows", "path": "x.csv", "targets": ["a", "a"]}}, "a"),
        ({"data": {"kind": "rows", "path": "x.csv", "features": ["b", "b"]}}, "b"),
    ],
)
def test_what_is_named_twice_in_a_list_is_refused(section, doubled):
    with pytest.raises(ConfigError, match=rf"each of them once \({doubled} is there twice\)"):
        parse_config(section, "study.yaml")
