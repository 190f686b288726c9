"""Rows of small whole numbers, four to a 64-bit word: subtracted and compared four at a time.

Room and loss are numbers of 15 bits. The sixteenth bit of a room is set, and still is after a loss is subtracted
exactly where the loss fits. So one subtraction says of four rows what is left of them and whether that is enough,
and a quarter of the memory accesses are needed.

R = rows, W = words, S = parts, G = groups, J = columns.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_core.program.linear import Ints

Words = npt.NDArray[np.uint64]
Small = npt.NDArray[np.uint16]

LARGEST, NEVER = 32_000, 32_767  # room, and a loss that fits in none
LANES = 4
GUARD = np.uint64(0x8000_8000_8000_8000)
FIRST, RUN = 2, 4  # words looked at before those that do not fit are left out, and from then on


def packed(row_R: Sequence[npt.NDArray[np.number[Any]]]) -> Words:
    """[W, ...] the words of [R, ...] numbers from 0 to ``NEVER``; the last is filled up with zeros."""
    num_words = -(-len(row_R) // LANES)
    lanes = np.zeros((num_words, *row_R[0].shape, LANES), dtype=np.uint16)
    for r, row in enumerate(row_R):
        lanes[r // LANES, ..., r % LANES] = row
    return lanes.view(np.uint64)[..., 0]


def lane(words: Words, row: Ints, *index: npt.NDArray[np.integer[Any]]) -> Small:
    """The numbers of some rows, each at an index of its own, without the guard."""
    lanes = words.view(np.uint16).reshape(*words.shape, LANES)
    found: Small = lanes[(row // LANES, *index, row % LANES)] & np.uint16(NEVER)
    return found


def fitting(room_WS: Words, loss_W: Words) -> Ints:
    """The parts that have room for a loss in all rows."""
    first_S = room_WS[0] - loss_W[0]
    for room_S, loss in zip(room_WS[1:FIRST], loss_W[1:FIRST], strict=True):
        first_S &= room_S - loss
    first_S &= GUARD
    kept = np.flatnonzero(first_S == GUARD)
    for low in range(FIRST, len(room_WS), RUN):
        if not len(kept):
            break
        left_N = room_WS[low].take(kept)
        left_N -= loss_W[low]
        for room_S, loss in zip(room_WS[low + 1 : low + RUN], loss_W[low + 1 : low + RUN], strict=True):
            left_N &= room_S.take(kept) - loss
        left_N &= GUARD
        kept = kept[left_N == GUARD]
    return kept
