"""The registered families, and their settings."""

import pytest
from pydantic import ValidationError

from nas_core.base.errors import ConfigError, SpaceError
from nas_core.families import FAMILIES
from nas_core.study.config import parse_config
from tests.spaces import build_space


def test_nasbench_macro_has_the_shape_of_the_benchmark():
    space = build_space("nasbench-macro")
    assert (space.in_channels, space.num_classes, space.resolutions) == (3, 10, (32,))
    assert space.num_choices == (3,) * 8
    assert space.num_networks == 6561
    assert [p.stride for p in space.positions] == [2, 1, 2, 1, 1, 2, 1, 1]
    assert [p.out_channels for p in space.positions] == [64, 64, 128, 128, 128, 256, 256, 256]


def test_the_data_decides_channels_and_classes():
    space = build_space("tiny", resolution=28, in_channels=3, num_classes=100)
    assert (space.in_channels, space.num_classes, space.resolutions) == (3, 100, (28,))


def test_mobile_is_ragged_and_its_depth_optional():
    space = build_space("mobile")
    assert space.num_choices == (1, *(9, 9, 10, 10) * 5)
    assert not space.allows(space.parse("0-" + "-".join(["0"] * 20) + "@224").swap(3, 9))
    assert space.allows(space.parse("0-" + "-".join(["0"] * 20) + "@224").swap(4, 9))


def test_space_ids_are_those_of_earlier_versions():
    """Studies go on where their files lie: what was evaluated stays evaluated."""
    ids = {"mobile": "7e0d2985e13e", "nasbench-macro": "22b6ced0ada5", "resnet": "0c58b59e2e4b", "tiny": "12d77fa0c9f2"}
    assert {name: build_space(name).space_id for name in ids} == ids


def test_an_unknown_family_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"space.kind: found 'nasbench'.*mobile, model, nasbench-macro, resnet, tiny"):
        parse_config({"space": {"kind": "nasbench"}}, "test")


def test_a_section_of_an_earlier_version_is_read_as_it_was_meant():
    old = parse_config({"space": {"name": "tiny", "params": {"resolution": 16}, "file": None}}, "test")
    assert old == parse_config({"space": {"kind": "tiny", "resolution": 16}}, "test")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("tiny", {"stem_channel": 4}, "space.stem_channel: .*stem_channels, head_channels, resolution"),
        ("tiny", {"in_channels": 4}, "space.in_channels"),
        ("tiny", {"resolution": "big"}, "space.resolution: found 'big'"),
        ("tiny", {"resolution": 0}, "greater than or equal to 1"),
        ("mobile", {"width": -1.0}, "greater than 0"),
        ("yaml", {}, "space.file: found nothing"),
    ],
)
def test_a_wrong_setting_says_what_is_allowed(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({"space": {"kind": name, **settings}}, "test")


@pytest.mark.parametrize("resolutions", ["", "224,big", "0", "32,32"])
def test_wrong_resolutions_are_refused(resolutions):
    with pytest.raises(SpaceError, match="resolutions"):
        build_space("mobile", resolutions=resolutions)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_settings_are_frozen_and_closed(name):
    with pytest.raises(ValidationError):
        FAMILIES[name].Settings.model_validate({**FAMILIES[name].example, "nothing_of_the_kind": 1})
