"""The search space as data: genotypes, rules, identity."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_core.base.errors import SpaceError
from nas_core.space.genotypes import Architecture, BlockSpec, Genotype, Position, SearchSpace
from nas_core.space.rules import Rule, absent_to_end
from tests.spaces import mobile, nasbench_macro, tiny


def family(rules: tuple[Rule, ...] = (), resolutions: tuple[int, ...] = (8,)) -> SearchSpace:
    """Three positions that keep channels and size, three blocks each."""
    blocks = (BlockSpec.of("conv", kernel=1), BlockSpec.of("conv", kernel=3), BlockSpec.of("absent"))
    return SearchSpace(
        name="family",
        in_channels=1,
        resolutions=resolutions,
        num_classes=2,
        stem=BlockSpec.of("conv", out_channels=4),
        head=BlockSpec.of("pool-linear"),
        positions=tuple(Position(name=f"p{i}", out_channels=4, stride=1, blocks=blocks) for i in range(3)),
        rules=rules,
    )


@given(st.lists(st.integers(0, 99), min_size=1, max_size=30), st.none() | st.integers(1, 1024))
def test_a_genotype_is_read_back_from_its_text(choices, resolution):
    genotype = Genotype(tuple(choices), resolution)
    assert Genotype.parse(str(genotype)) == genotype


def test_only_a_declared_order_and_no_knowledge_of_functions_is_part_of_the_identity():
    plain = family()
    first = replace(plain.positions[0], ordered=True)
    ordered = replace(plain, positions=(first, *plain.positions[1:]))
    assert all("ordered" not in row for row in plain.as_dict()["positions"])
    assert ordered.space_id != plain.space_id
    assert SearchSpace.from_dict(ordered.as_dict()) == ordered
    known = replace(plain, same_function={(0, 0, 0): "a", (1, 1, 1): "a"})
    assert known.space_id == plain.space_id
    assert known == plain
    assert known.function_members == {"a": [(0, 0, 0), (1, 1, 1)]}


def test_ids_stay_what_they_were():
    """Stored evaluations lie under these."""
    assert (tiny().space_id, nasbench_macro().space_id) == ("12d77fa0c9f2", "22b6ced0ada5")


@pytest.mark.parametrize("text", ["", "a-b", "1--2", "1-2@", "1-2@x", "1,2"])
def test_a_text_that_is_no_genotype_is_refused(text):
    with pytest.raises(SpaceError, match="integers joined by"):
        Genotype.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0-0", "2 choices"),
        ("0-0-3", "position 2: found 3, expected 0 to 2"),
        ("0-0-0@32", "resolution: found 32"),
    ],
)
def test_a_genotype_of_another_space_is_refused(text, message):
    with pytest.raises(SpaceError, match=message):
        tiny().parse(text)


def test_with_several_resolutions_a_genotype_names_its_own():
    space = family(resolutions=(8, 16))
    assert space.resolution_of(space.parse("0-1-2@16")) == 16
    assert space.num_networks == 2 * 27 == len(list(space.genotypes()))
    with pytest.raises(SpaceError, match=r"one of \(8, 16\)"):
        space.parse("0-1-2")


RULES = [
    (Rule(kind="forbid", blocks=((0, 0), (1, 0))), 27 - 3),
    (Rule(kind="forbid", blocks=((0, 0),)), 18),
    (Rule(kind="require", blocks=((0, 0), (1, 0))), 27 - 12),
    (Rule(kind="implies", blocks=((0, 2), (1, 2))), 27 - 6),
    (Rule(kind="at_most", blocks=((0, 2), (1, 2), (2, 2)), count=1), 8 + 12),
    (Rule(kind="equal", positions=(0, 1, 2)), 3),
]


@pytest.mark.parametrize(("rule", "num_allowed"), RULES, ids=lambda value: getattr(value, "kind", None))
def test_rules_leave_the_networks_they_say(rule, num_allowed):
    space = family((rule,))
    assert len(list(space.genotypes())) == num_allowed
    assert SearchSpace.from_dict(space.as_dict()) == space
    assert all(space.allows(space.sample(np.random.default_rng(seed))) for seed in range(20))


def test_absent_to_end_keeps_the_present_blocks_in_front():
    space = family(absent_to_end([(0, 2), (1, 2), (2, 2)]))
    for genotype in space.genotypes():
        absent = [choice == 2 for choice in genotype.choices]
        assert absent == sorted(absent)


def test_a_broken_rule_is_named():
    with pytest.raises(SpaceError, match="rules exclude"):
        family((Rule(kind="forbid", blocks=((0, 0),)),)).parse("0-0-0")


def test_a_network_is_found_where_draws_find_none():
    """One in 19,683 is allowed: all positions alike, the last neither of two blocks."""
    positions = tuple(replace(family().positions[0], name=f"p{i}") for i in range(9))
    alike, never = (
        Rule(kind="equal", positions=tuple(range(9))),
        tuple(Rule(kind="forbid", blocks=((8, c),)) for c in (0, 1)),
    )
    space = replace(family(), positions=positions, rules=(alike, *never))
    for seed in range(3):
        assert space.sample(np.random.default_rng(seed), attempts=100).choices == (2,) * 9


def test_rules_no_network_satisfies_do_not_loop_for_ever():
    space = family((Rule(kind="at_most", blocks=((0, 0), (0, 1), (0, 2)), count=0),))
    with pytest.raises(SpaceError, match="no network in 100 draws"):
        space.sample(np.random.default_rng(0), attempts=100)


@pytest.mark.parametrize("rule", [Rule(kind="forbid", blocks=((0, 3),)), Rule(kind="equal", positions=(0, 3))])
def test_a_rule_about_blocks_that_are_not_there_is_refused(rule):
    with pytest.raises(SpaceError, match="of the space"):
        family((rule,))


def test_neighbours_differ_in_one_block():
    space = tiny()
    base = space.parse("2-2-2")
    assert len(space.neighbours(base)) == 6
    assert {base.distance(neighbour) for neighbour in space.neighbours(base)} == {1}


def test_the_space_id_is_its_content():
    assert nasbench_macro().space_id == SearchSpace.from_dict(nasbench_macro().as_dict()).space_id
    assert len({nasbench_macro().space_id, nasbench_macro(num_classes=11).space_id, tiny().space_id}) == 3


def test_an_architecture_survives_json_and_pickle():
    space = mobile()
    architecture = space.architecture(space.sample(np.random.default_rng(0)))
    assert Architecture.from_dict(architecture.as_dict()) == architecture
    assert pickle.loads(pickle.dumps(architecture)) == architecture


def test_networks_that_differ_in_no_op_blocks_only_have_one_function():
    space = nasbench_macro()
    ids = {g: space.architecture(space.parse(g)).function_id for g in ("2-0-2-1-0-1-0-0", "2-0-2-0-1-1-0-0")}
    assert len(set(ids.values())) == 1
    other = space.architecture(space.parse("2-0-2-1-1-1-0-0")).function_id
    assert other not in ids.values()
