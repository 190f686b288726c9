"""What rules mean, against their words."""

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.space.rules import Rule, allowed, count_allowed

SIZES = (3, 2, 3)
BLOCKS = [(position, choice) for position, size in enumerate(SIZES) for choice in range(size)]
NETWORKS = list(itertools.product(*map(range, SIZES)))


def in_words(rule, choices):
    taken = [choices[position] == choice for position, choice in rule.blocks]
    match rule.kind:
        case "forbid":
            return not all(taken)
        case "require":
            return any(taken)
        case "implies":
            return not taken[0] or any(taken[1:])
        case "at_most":
            return sum(taken) <= rule.count
        case "equal":
            return len({choices[position] for position in rule.positions}) <= 1


# repeated blocks, several of one position and empty rules included
RULES = st.one_of(
    st.builds(
        lambda kind, blocks, count: Rule(kind=kind, blocks=tuple(blocks), count=count),
        st.sampled_from(["forbid", "require", "at_most"]),
        st.lists(st.sampled_from(BLOCKS), max_size=5),
        st.integers(-1, 3),
    ),
    st.builds(
        lambda blocks: Rule(kind="implies", blocks=tuple(blocks)),
        st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4),
    ),
    st.builds(lambda p: Rule(kind="equal", positions=tuple(p)), st.lists(st.integers(0, 2), max_size=4)),
)


@settings(max_examples=300, deadline=None)
@given(RULES)
def test_a_rule_means_what_its_words_say(rule):
    meant = [in_words(rule, choices) for choices in NETWORKS]
    assert [rule.allows(choices) for choices in NETWORKS] == meant
    assert allowed([rule], np.array(NETWORKS)).tolist() == meant


@settings(max_examples=300, deadline=None)
@given(RULES)
def test_a_partial_network_is_given_up_only_where_no_completion_is_allowed(rule):
    for choices in NETWORKS:
        for known in range(len(SIZES)):
            assert rule.allows(choices[:known]) or not rule.allows(choices)


def test_a_broken_rule_is_seen_as_soon_as_its_blocks_are_decided():
    assert not Rule(kind="forbid", blocks=((0, 1), (1, 1))).allows((1, 1))
    assert not Rule(kind="require", blocks=((0, 1), (1, 1))).allows((0, 0))
    assert not Rule(kind="implies", blocks=((0, 1), (1, 1))).allows((1, 0))
    assert not Rule(kind="equal", positions=(0, 1, 2)).allows((1, 0))


def test_rows_hold_across_everything_at_once():
    rules = [Rule(kind="at_most", blocks=((0, 2), (2, 2))), Rule(kind="equal", positions=(0, 1))]
    meant = [all(in_words(rule, choices) for rule in rules) for choices in NETWORKS]
    assert allowed(rules, np.array(NETWORKS)).tolist() == meant


def test_networks_are_counted_without_listing_them():
    """Positions that no rule ties together multiply."""
    rules = (
        Rule(kind="forbid", blocks=((0, 1), (1, 1))),
        Rule(kind="implies", blocks=((1, 2), (3, 0))),
        Rule(kind="equal", positions=(4, 5)),
    )
    num_choices = (2, 3, 4, 2, 3, 3)
    listed = [each for each in itertools.product(*map(range, num_choices)) if all(rule.allows(each) for rule in rules)]
    found = count_allowed(rules, num_choices)
    assert math.prod(found) == len(listed)
    assert sorted(found) == [3, 4, math.prod(found) // 12]
    assert math.prod(count_allowed((), (10,) * 30)) == 10**30
