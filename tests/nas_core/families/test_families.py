"""The registered spaces, and their parameters."""

import inspect

import pytest

from nas_core.base.errors import ConfigError, SpaceError, UnknownNameError
from nas_core.families import SPACES, build_space
from nas_core.families.settings import SpaceConfig


def test_nasbench_macro_has_the_shape_of_the_benchmark():
    space = build_space(SpaceConfig(name="nasbench-macro"))
    assert (space.in_channels, space.num_classes, space.resolutions) == (3, 10, (32,))
    assert space.num_choices == (3,) * 8
    assert space.num_networks == 6561
    assert [p.stride for p in space.positions] == [2, 1, 2, 1, 1, 2, 1, 1]
    assert [p.out_channels for p in space.positions] == [64, 64, 128, 128, 128, 256, 256, 256]


def test_the_data_decides_channels_and_classes():
    space = build_space(SpaceConfig(name="tiny", params={"resolution": 28}), in_channels=3, num_classes=100)
    assert (space.in_channels, space.num_classes, space.resolutions) == (3, 100, (28,))


def test_mobile_is_ragged_and_its_depth_optional():
    space = build_space(SpaceConfig(name="mobile"))
    assert space.num_choices == (1, *(9, 9, 10, 10) * 5)
    assert not space.allows(space.parse("0-" + "-".join(["0"] * 20) + "@224").swap(3, 9))
    assert space.allows(space.parse("0-" + "-".join(["0"] * 20) + "@224").swap(4, 9))


@pytest.mark.parametrize("name", list(SPACES))
def test_every_space_has_defaults_and_is_documented(name):
    parameters = inspect.signature(SPACES[name]).parameters
    assert list(parameters)[:2] == ["in_channels", "num_classes"]
    assert all(p.default is not inspect.Parameter.empty for p in parameters.values())
    assert SPACES[name].__doc__
    assert build_space(SpaceConfig(name=name)).name == name


def test_an_unknown_space_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="mobile, nasbench-macro, resnet, tiny"):
        build_space(SpaceConfig(name="nasbench"))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("tiny", {"stem_channel": 4}, "space.params.stem_channel.*stem_channels, head_channels, resolution"),
        ("tiny", {"in_channels": 4}, "space.params.in_channels"),
        ("tiny", {"resolution": "8"}, "space.params.resolution: found '8', expected int"),
        ("tiny", {"resolution": True}, "expected int"),
        ("tiny", {"resolution": 0}, "more than 0"),
        ("mobile", {"width": -1.0}, "more than 0"),
    ],
)
def test_a_wrong_parameter_says_what_is_allowed(name, params, message):
    with pytest.raises(ConfigError, match=message):
        build_space(SpaceConfig(name=name, params=params))


@pytest.mark.parametrize("resolutions", ["", "224,big", "0", "32,32"])
def test_wrong_resolutions_are_refused(resolutions):
    with pytest.raises(SpaceError, match="resolutions"):
        build_space(SpaceConfig(name="mobile", params={"resolutions": resolutions}))
