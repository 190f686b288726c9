"""The cheapest and the dearest network, against looking at all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.base.errors import SpaceError
from nas_core.records.evaluations import CostTable
from nas_core.space.extremes import extreme_genotypes
from nas_core.space.genotypes import BlockSpec, Position, Rule, SearchSpace


def make_space(num_choices: list[int], rules: tuple[Rule, ...], resolutions: tuple[int, ...]) -> SearchSpace:
    kernels = tuple(BlockSpec.of("conv", kernel=2 * index + 1) for index in range(max(num_choices)))
    return SearchSpace(
        name="random",
        in_channels=1,
        resolutions=resolutions,
        num_classes=2,
        stem=BlockSpec.of("conv", out_channels=4),
        head=BlockSpec.of("pool-linear"),
        positions=tuple(
            Position(name=str(p), out_channels=4, stride=1, blocks=kernels[:count])
            for p, count in enumerate(num_choices)
        ),
        rules=rules,
    )


def make_tables(space: SearchSpace, rng: np.random.Generator) -> list[CostTable]:
    return [
        CostTable(
            resource="flops",
            device="any",
            resolution=size,
            fixed=float(rng.integers(10)),
            block=tuple(tuple(float(x) for x in rng.integers(0, 20, count)) for count in space.num_choices),
        )
        for size in space.resolutions
    ]


@st.composite
def spaces(draw):
    num_choices = draw(st.lists(st.integers(1, 3), min_size=2, max_size=5))
    block = st.integers(0, len(num_choices) - 1).flatmap(
        lambda position: st.tuples(st.just(position), st.integers(0, num_choices[position] - 1))
    )
    position = st.integers(0, len(num_choices) - 1)
    rule = st.one_of(
        st.builds(
            lambda kind, blocks, count: Rule(kind=kind, blocks=tuple(blocks), count=count),
            st.sampled_from(["forbid", "require", "implies", "at_most"]),
            st.lists(block, min_size=2, max_size=4),
            st.integers(0, 2),
        ),
        st.builds(lambda p: Rule(kind="equal", positions=tuple(p)), st.lists(position, min_size=2, max_size=3)),
    )
    rules = draw(st.lists(rule, max_size=4))
    return make_space(num_choices, tuple(rules), draw(st.sampled_from([(8,), (8, 16)])))


@settings(max_examples=200, deadline=None)
@given(spaces(), st.integers(0, 2**32 - 1))
def test_extremes_are_those_of_all_networks(space, seed):
    tables = make_tables(space, np.random.default_rng(seed))
    total = {
        genotype: next(t for t in tables if t.resolution == space.resolution_of(genotype)).total(genotype)
        for genotype in space.genotypes()
    }
    if not total:
        with pytest.raises(SpaceError, match="exclude every network"):
            extreme_genotypes(space, tables)
        return
    smallest, largest = extreme_genotypes(space, tables)
    assert space.allows(smallest)
    assert space.allows(largest)
    assert total[smallest] == min(total.values())
    assert total[largest] == max(total.values())
