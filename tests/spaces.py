"""Families and spaces for tests, by name and settings."""

from typing import Any

from nas_core.base.settings import Section
from nas_core.families import FAMILIES, Family
from nas_core.families.chain_family import Chain
from nas_core.space.genotypes import SearchSpace
from nas_core.workloads.workload import Sample


class GivenChain(Chain):
    """The family of a space that is there already."""

    name = "given"

    def __init__(self, space: SearchSpace) -> None:
        shape = (space.in_channels, space.resolutions[0], space.resolutions[0])
        super().__init__(Section(), Sample(shape=shape, num_outputs=space.num_classes))
        self._chain = space

    def chain(self) -> SearchSpace:
        return self._chain


def build_family(
    name: str = "nasbench-macro",
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    **settings: Any,
) -> Family:
    """The registered family, made for images of so many channels and classes where either is given."""
    family = FAMILIES[name]
    made = FAMILIES.section(name).model_validate(settings)
    if in_channels is None and num_classes is None:
        return family(made)
    own = family.default_sample
    shape = (in_channels or own.shape[0], *own.shape[1:])
    return family(made, Sample(shape=shape, num_outputs=own.num_outputs if num_classes is None else num_classes))


def build_space(name: str = "nasbench-macro", **settings: Any) -> SearchSpace:
    """The space of ``build_family``."""
    return build_family(name, **settings).space


def tiny(**settings: Any) -> SearchSpace:
    return build_space("tiny", **settings)


def nasbench_macro(**settings: Any) -> SearchSpace:
    return build_space("nasbench-macro", **settings)


def mobile(**settings: Any) -> SearchSpace:
    return build_space("mobile", **settings)


def resnet(**settings: Any) -> SearchSpace:
    return build_space("resnet", **settings)
