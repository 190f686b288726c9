"""Families of networks: one file per registered space, and ``yaml_space`` for those written in YAML.

Nothing here imports torch. To add a space, write a file with a function
``(in_channels, num_classes, *, params...) -> SearchSpace`` and add it below.
"""

import inspect
from collections.abc import Callable
from typing import Any

from nas_core.base.errors import ConfigError
from nas_core.base.names import Names
from nas_core.families.kinds import check_space
from nas_core.families.mobile import mobile
from nas_core.families.nasbench_macro import nasbench_macro
from nas_core.families.resnet import resnet
from nas_core.families.settings import SpaceConfig
from nas_core.families.tiny import tiny
from nas_core.families.yaml_space import load_space
from nas_core.space.genotypes import SearchSpace

SpaceBuilder = Callable[..., SearchSpace]
SPACES = Names[SpaceBuilder]("search space")
SPACES.add("nasbench-macro")(nasbench_macro)
SPACES.add("tiny")(tiny)
SPACES.add("mobile")(mobile)
SPACES.add("resnet")(resnet)


def build_space(config: SpaceConfig, in_channels: int | None = None, num_classes: int | None = None) -> SearchSpace:
    """The space that the configuration names or whose file it gives, checked block by block.

    ``in_channels`` and ``num_classes`` are the data's; None is the space's own default.

    Raises:
        UnknownNameError: for a space that is not registered.
        ConfigError: for a file that cannot be read, or a wrong parameter.
        SpaceError: for a block that cannot be built.
    """
    shape = {"in_channels": in_channels, "num_classes": num_classes}
    given = {name: value for name, value in shape.items() if value is not None}
    if config.file is not None:
        if config.params:
            raise ConfigError(
                "space.params", dict(config.params), "none beside space.file", "Write them into the file."
            )
        return load_space(config.file, **given)
    builder = SPACES[config.name]
    _check_params(config, builder)
    return check_space(builder(**given, **config.params))


def space_params(name: str) -> dict[str, Any]:
    """Parameters of a registered space with their defaults; ``in_channels`` and ``num_classes`` first."""
    return {name: parameter.default for name, parameter in inspect.signature(SPACES[name]).parameters.items()}


def _check_params(config: SpaceConfig, builder: SpaceBuilder) -> None:
    allowed = {
        name: parameter
        for name, parameter in inspect.signature(builder).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for name, value in config.params.items():
        where = f"space.params.{name}"
        if name not in allowed:
            raise ConfigError(where, repr(value), f"one of: {', '.join(allowed)}")
        default = allowed[name].default
        types = (int, float) if isinstance(default, float) else (type(default),)
        if type(value) not in types:
            raise ConfigError(where, repr(value), f"{types[-1].__name__}, such as {default}")
        if isinstance(value, int | float) and not value > 0:
            raise ConfigError(where, value, "more than 0")
