"""Spaces written in YAML: the example builds, and every mistake is named by its place."""

import copy
from pathlib import Path

import pytest
import torch
import yaml

from nas_core.base.errors import ConfigError, DataError, NasError, SpaceError
from nas_core.families import FAMILIES
from nas_core.families.assemble import assemble
from nas_core.families.yaml_space import space_from_data
from nas_core.study.brought import family_of
from nas_core.study.config import parse_config, read_config
from nas_core.workloads.workload import Sample
from tests.spaces import build_space

EXAMPLE = Path(__file__).parents[3] / "flows" / "configs" / "space-example.yaml"


@pytest.fixture
def data() -> dict:
    return copy.deepcopy(yaml.safe_load(EXAMPLE.read_text()))


def test_the_example_builds_and_every_network_runs():
    space = build_space("yaml", file=str(EXAMPLE), in_channels=1, num_classes=4)
    assert (space.name, space.in_channels, space.num_classes) == ("example", 1, 4)
    assert space.num_choices == (3, 3, 3, 2, 3)
    assert [p.name for p in space.positions] == ["early", "middle.0", "middle.1", "late", "last"]
    assert [p.stride for p in space.positions] == [2, 1, 1, 2, 1]
    genotypes = list(space.genotypes())
    assert len(genotypes) == (3 * 2 - 1) * (9 - 2) * 3
    for genotype in genotypes[::7]:
        assert assemble(space.architecture(genotype)).eval()(torch.randn(1, 1, 28, 28)).shape == (1, 4)


def test_a_repeated_position_strides_once(data):
    data["positions"][0]["repeat"] = 2
    data["rules"] = []
    assert [p.stride for p in space_from_data(data, "x").positions][:3] == [2, 1, 1]


def test_a_position_may_be_declared_ordered(data):
    data["positions"][1]["ordered"] = True
    assert [p.ordered for p in space_from_data(data, "x").positions] == [False, True, True, False, False]


MISTAKES = [
    ("positions.1.ordered", "yes", r"positions\[1\].ordered: found 'yes', expected true or false"),
    ("positions.1.blocks.0.kind", "mbcon", r"space.yaml: positions\[1\].blocks\[0\].kind: found 'mbcon'.*mbconv"),
    ("positions.1.blocks.0.kernel", 4, r"positions\[1\].blocks\[0\].kernel: found 4, expected an odd integer"),
    ("positions.1.blocks.0.size", 4, r"positions\[1\].blocks\[0\].size.*one of: kernel, expand"),
    ("positions.1.blocks.0.kernel", [3], r"positions\[1\].blocks\[0\].kernel: found \[3\]"),
    ("positions.1.blocks.0", 7, r"positions\[1\].blocks\[0\]: found 7, expected a kind"),
    ("positions.1.blocks", [], r"positions\[1\].blocks: found \[\]"),
    ("positions.1.stride", 2, r"positions\[1\].blocks\[2\]: found absent"),
    ("positions.0.stride", 3, r"stride: found 3"),
    ("positions.0.stride", 0, r"positions\[0\].stride: found 0"),
    ("positions.0.out_channels", "24", r"positions\[0\].out_channels: found '24', expected an integer"),
    ("positions.0.chanels", 24, r"positions\[0\]: chanels: found 24, expected one of the keys: name, out_channels"),
    ("positions", {}, r"positions: found {}, expected a list"),
    ("positions.0", "conv", r"positions\[0\]: found 'conv', expected a mapping"),
    ("stem.out_channels", None, r"stem.out_channels: found None"),
    ("stem.kind", "convolution", r"stem.kind.*conv, conv-pool, linear, patchify"),
    ("head.kind", "logits", r"head.kind.*conv-pool-linear, conv-upsample, linear, pool-linear"),
    ("resolutions", 28, r"resolutions: found 28, expected a list"),
    ("resolutions", [28, 28], r"resolutions"),
    ("resolutions", [-1], r"resolutions: found -1"),
    ("num_classes", 0, r"num_classes: found 0"),
    ("name", 3, r"name: found 3"),
    ("version", 3, r"version: found 3, expected one of the keys"),
    ("positions.3.name", "middle.0", r"space.yaml: positions: found 'middle.0', the name of positions 1, 4"),
    ("rules.0.kind", "never", r"rules\[0\].kind.*absent-to-end"),
    ("rules.0.positions", [1, 9], r"rules\[0\].positions: found 9"),
    ("rules.0.positions", [0, 1], r"position 0 without an absent block"),
    (
        "rules.1.blocks",
        [[0, 7]],
        r"space.yaml: rules\[1\], rule forbid: found \(0, 7\), expected a choice from 0 to 2",
    ),
    ("rules.1.blocks", [[9, 0]], r"space.yaml: rules\[1\], rule forbid: found \(9, 0\), .*a position from 0 to 4"),
    (
        "rules.1",
        {"kind": "equal", "positions": [0, 5]},
        r"rules\[1\], rule equal: found \(0, 5\), .*from 0 to 4",
    ),
    ("rules.1.positions", [1], r"rules\[1\].positions: found \[1\], expected only what forbid looks at: blocks"),
    ("rules.1.count", 2, r"rules\[1\].count: found 2, expected only what forbid looks at: blocks"),
    ("rules.1.blocks", [0, 1], r"rules\[1\].blocks"),
    ("rules.1.blocks", [[0, 1, 2]], r"pairs \[position, choice\]"),
    ("rules.1.blocks", [], r"enough blocks for forbid"),
    ("rules.1.kind", "equal", r"enough positions for equal"),
]


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES, ids=[f"{p}={v}" for p, v, _ in MISTAKES])
def test_a_mistake_is_named_by_its_place(data, path, value, message):
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target = data
    for parent in parents:
        target = target[parent]
    target[last] = value
    with pytest.raises(NasError, match=message):
        space_from_data(data, "space.yaml")


def test_a_block_with_its_defaults_written_out_is_the_same_block(data):
    data["positions"][0]["blocks"] = ["mbconv", {"kind": "mbconv", "kernel": 5}, {"kind": "mbconv", "kernel": 3}]
    with pytest.raises(SpaceError, match=r"positions\[0\].blocks\[2\]: found mbconv kernel=3, the same as blocks\[0\]"):
        space_from_data(data, "space.yaml")


@pytest.mark.parametrize("key", ["name", "resolutions", "stem", "positions", "head"])
def test_a_missing_key_is_named(data, key):
    del data[key]
    with pytest.raises(ConfigError, match=f"space.yaml: {key}: found nothing"):
        space_from_data(data, "space.yaml")


def test_files_that_are_no_space_are_refused(tmp_path):
    for name, content in [("list.yaml", "- 1"), ("bad.yaml", "a: [1"), ("empty.yaml", ""), ("bytes.yaml", "\x00")]:
        (tmp_path / name).write_text(content)
        with pytest.raises(ConfigError, match=name):
            build_space("yaml", file=str(tmp_path / name))
    with pytest.raises(ConfigError, match="No such file"):
        build_space("yaml", file=str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"space.resolution: .*one of the keys: file"):
        parse_config({"space": {"file": str(EXAMPLE), "params": {"resolution": 8}}}, "test")


def test_the_file_is_beside_the_study_wherever_that_is_read_from(tmp_path, monkeypatch):
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "space.yaml").write_text(EXAMPLE.read_text())
    (tmp_path / "team" / "study.yaml").write_text("space: {kind: yaml, file: space.yaml}\n")
    monkeypatch.chdir(tmp_path)
    config = read_config("team/study.yaml")
    monkeypatch.chdir("/")
    assert family_of(config).space.num_positions


def test_a_chain_takes_images_only():
    vectors = Sample(shape=(10,), num_outputs=1)
    with pytest.raises(DataError, match="expected images, which stem kind conv of space tiny takes"):
        FAMILIES["tiny"](FAMILIES.section("tiny")(), vectors).space  # noqa: B018


@pytest.mark.situations
def test_a_key_that_stands_twice_in_a_space_is_refused_with_both_lines(tmp_path):
    (tmp_path / "space.yaml").write_text(EXAMPLE.read_text() + "\nname: again\n")
    with pytest.raises(ConfigError, match=r"space\.yaml: found the key 'name' twice, in lines \d+ and \d+"):
        build_space("yaml", file=str(tmp_path / "space.yaml"))


@pytest.mark.situations
@pytest.mark.parametrize("written", ["1_28", "1.28e2", "128"])
def test_numbers_of_a_space_are_read_as_people_write_them(tmp_path, written):
    text = EXAMPLE.read_text().replace("out_channels: 24", f"out_channels: {written}")
    assert text != EXAMPLE.read_text()
    (tmp_path / "space.yaml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert 128 in [place.out_channels for place in build_space("yaml", file=str(tmp_path / "space.yaml")).positions]
