"""Neighbours stand together so that there are about as many positions as are wanted, as evenly as can be."""

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from torch import nn

from nas_core.families.model.joining import rows_of
from nas_core.families.model.splitting import LARGEST, Place, Split

SHARES = (0.05, 0.2, 0.1, 0.02, 0.13, 0.13, 0.08, 0.05, 0.04)


def sequence(shares, changes=(), others=()):
    """A sequence of modules, positions but for ``others``; those in ``changes`` give another shape than they take."""
    model = nn.Sequential(*(nn.Identity() for _ in shares))
    shapes = {True: (8, 4, 4), False: (4, 8, 8)}
    places = [
        Place(
            path=str(index),
            in_shape=(4, 8, 8),
            out_shape=shapes[index in changes],
            flops=share,
            share=share,
            kind="Identity",
            block=str(index),
        )
        for index, share in enumerate(shares)
        if index not in others
    ]
    return model, Split(places=tuple(places), flops=1, left_out={})


def lengths(shares, wanted, **known):
    model, found = sequence(shares, **known)
    return rows_of(model, found, wanted).get("", [1] * len(shares))


def squares(shares, rows):
    ends = [sum(rows[:number]) for number in range(len(rows) + 1)]
    return sum(sum(shares[start:end]) ** 2 for start, end in pairwise(ends))


def ways(count, rows):
    """All ways to part so many modules into so many rows."""
    for inner in combinations(range(1, count), rows - 1):
        yield [end - start for start, end in pairwise((0, *inner, count))]


@pytest.mark.parametrize("wanted", range(3, len(SHARES) + 1))
def test_rows_are_as_even_as_can_be(wanted):
    found = lengths(SHARES, wanted)
    assert len(found) == wanted
    assert squares(SHARES, found) == pytest.approx(min(squares(SHARES, rows) for rows in ways(len(SHARES), wanted)))


def test_what_changes_its_shape_stands_alone_while_it_can():
    assert lengths([0.1] * 6, 5, changes=[3]) in ([2, 1, 1, 1, 1], [1, 2, 1, 1, 1], [1, 1, 1, 1, 2])
    assert lengths([0.1] * 6, 3, changes=[3]) == [3, 1, 2]
    assert lengths([0.1] * 6, 2, changes=[3]) == [3, 3]


def test_no_row_holds_more_than_a_position_may():
    assert max(lengths([0.1] * 9, 1)) * 0.1 <= LARGEST
    assert lengths([0.4, 0.4, 0.1], 1) == [1, 2]


def test_a_module_that_is_no_position_is_not_stood_beside():
    assert lengths([0.1] * 5, 2, others=[2]) == [2, 1, 2]


def test_sequences_give_rows_where_it_costs_least():
    model, both = nn.Sequential(), []
    for name, share in (("large", 0.15), ("small", 0.05)):
        part, found = sequence([share] * 3)
        model.add_module(name, part)
        both += [replace(place, path=f"{name}.{place.path}") for place in found.places]
    found = replace(found, places=tuple(both))
    assert rows_of(model, found, 4) == {"small": [3]}
    assert rows_of(model, found, 3) == {"small": [3], "large": [1, 2]}
    assert rows_of(model, found, 6) == {}
