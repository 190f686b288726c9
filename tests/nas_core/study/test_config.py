"""The configuration: unknown keys and wrong values are errors with a path; ids depend on what scores depend on."""

import pytest
from pydantic import BaseModel

from nas_core.base.errors import ConfigError
from nas_core.scoring import study_scorer_id
from nas_core.study.config import StudyConfig, load_config, parse_config, read_config
from tests.conftest import config_of


def sections(model):
    yield model
    for field in model.model_fields.values():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from sections(kind)


@pytest.mark.parametrize("section", set(sections(StudyConfig)), ids=lambda section: section.__name__)
def test_every_field_is_described_for_the_dashboard(section):
    undescribed = [name for name, field in section.model_fields.items() if name != "kind" and not field.description]
    assert not undescribed


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"spcae": {}}, "spcae: found {}, expected one of the keys: name, seed"),
        ({"verify": {"round": 3}}, "verify.round: found 3, expected one of the keys: evaluations, per_round, patience"),
        ({"seed": -1}, "seed: found -1, expected greater than or equal to 0"),
        ({"scorer": {"kind": "magic"}}, "'train', 'supernet', 'tabular'"),
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
    assert {study_scorer_id(config) for config in same} == {study_scorer_id(config_of())}


def test_what_a_score_depends_on_changes_its_id():
    scorer, data = config_of().scorer.model_dump(), config_of().data.model_dump()
    changed = [
        config_of(scorer={**scorer, "random_paths": 2}),
        config_of(scorer={"kind": "train"}),
        config_of(data={**data, "split_seed": 1}),
        config_of(data={**data, "train_examples": 100}),
    ]
    ids = {study_scorer_id(config) for config in (config_of(), *changed)}
    assert len(ids) == len(changed) + 1


def test_a_table_is_the_same_wherever_it_lies():
    here, there = (config_of(scorer={"kind": "tabular", "path": f"/{place}/t.parquet"}) for place in ("a", "b"))
    assert study_scorer_id(here) == study_scorer_id(there)
