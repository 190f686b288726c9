"""Rows four to a word: what fits is what plain comparisons say."""

import numpy as np
import pytest

from nas_core.program.packed import GUARD, LARGEST, NEVER, fitting, lane, packed


@pytest.mark.parametrize("num_rows", [1, 4, 7, 30])
def test_what_fits_is_what_comparing_says(num_rows: int) -> None:
    rng = np.random.default_rng(num_rows)
    room_RS = rng.integers(0, LARGEST, (num_rows, 5_000))
    room_WS = packed([*room_RS]) | GUARD
    for most in (10, 1_000, LARGEST):
        loss_R = rng.integers(0, most, num_rows)
        expected = np.flatnonzero((room_RS >= loss_R[:, None]).all(axis=0))
        found = fitting(room_WS, packed([*loss_R]))
        assert found.tolist() == expected.tolist()
        left_WS = room_WS.take(found, axis=1) - packed([*loss_R])[:, None]
        for r in range(num_rows):
            left_S = lane(left_WS, np.full(1, r), np.arange(len(found)))
            assert (left_S == room_RS[r, found] - loss_R[r]).all()


def test_a_loss_that_fits_in_none_does_not_reach_the_next_row() -> None:
    room_WS = packed([np.array([0, LARGEST]), np.array([5, 5])]) | GUARD
    assert not len(fitting(room_WS, packed([np.array(NEVER), np.array(0)])))
    assert fitting(room_WS, packed([np.array(0), np.array(5)])).tolist() == [0, 1]
