"""The checker's search over lists of parts of networks, in whole numbers; a certificate says where it goes.

A part has a choice in some groups. Within the rows, for any multipliers u >= 0,

    value(part) + sum over the groups left of max_j (w_j - u . a_j) + u . (limits - cost(part))

less what a network above the bound has at least is room that the choices to come may lose. So every vector of
multipliers is one more row, like the rows themselves, and a part is dropped as soon as its next choice takes more of
some row than is left. All parts of a list have their choices in the same groups, and share the vectors.

Whatever vectors and groups a certificate names, only parts that lead to no network above the bound are dropped, and
what is left at the end is looked at one by one. Losses are rounded down, and so is the room: a sum of what is rounded
down is at most what the sum is rounded down to, so no network within the room is lost.

Room and loss are numbers of 15 bits, and four rows of them make a word. The sixteenth bit of a room is set, and still
is after a loss is subtracted exactly where the loss is within the room.

G = groups (J choices at most, padded), K = rows, U = vectors of multipliers, R = U + K rows of both kinds, W = words,
S = parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Small = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

TOTAL_BITS = 30  # of a network's summed losses, and of what it takes of a row
PRICE_TOTAL = 1 << 31  # that the unit and the multipliers of a vector sum up to at most: all products fit 62 bits
LARGEST = 1 << 14  # room
NEVER = LARGEST + 1
LANES = 4
GUARD = np.uint64(0x8000_8000_8000_8000)
FIRST, RUN = 2, 4  # words looked at before parts without room are left out, and from then on
EXACT = 1 << 53  # below which floats are whole numbers, and so are their sums
LOWEST = -(1 << 62)


class TooLargeError(ValueError):
    """A list is longer than it may be."""


@dataclass(frozen=True)
class Parts:
    """Parts of networks that have chosen in the same groups: all but ``left``.

    ``taken_SG``: what they have chosen, as places among J.
    """

    left: tuple[int, ...]
    loss_S: Small
    cost_SK: Small
    taken_SG: Small

    def __len__(self) -> int:
        return len(self.loss_S)

    def at(self, index: Any) -> "Parts":
        """Some of them."""
        return Parts(self.left, self.loss_S[index], self.cost_SK[index], self.taken_SG[index])

    def pieces(self, count: int) -> "list[Parts]":
        """The same in ``count`` lists of about equal length, one after the other."""
        return [self.at(index) for index in np.array_split(np.arange(len(self)), count)]


@dataclass(frozen=True)
class Opened:
    """A list with its rows: ``room_WS`` is what its parts may still take, ``loss_WGJ`` what choices do (by group).

    ``gone_GJ``: choices that no network of the claim has, and what pads groups.
    """

    parts: Parts
    gone_GJ: Bools
    loss_WGJ: Words
    before_WS: Words  # the room before the last group was chosen in
    part_S: Ints  # from which of the list's parts these come
    last_S: Ints | None = None  # and from which of those before the last group
    taken: tuple[tuple[int, Small], ...] = ()  # (group, choices [S]) since

    def __len__(self) -> int:
        return len(self.part_S)

    @cached_property
    def room_WS(self) -> Words:  # noqa: N802 - axes end the name
        """Made only when it is asked for: of most lists the last group's is not."""
        if self.last_S is None:
            return self.before_WS
        group, choice_S = self.taken[-1]
        room_WS = self.before_WS.take(self.last_S, axis=1)
        room_WS -= self.loss_WGJ[:, group].take(choice_S, axis=1)
        return room_WS

    def taking(self, group: int, most: int) -> "Opened":
        """The parts with every choice of one group more, where it fits.

        Raises:
            TooLargeError: if these are more than ``most``.
        """
        found, choices, count = [self.part_S[:0]], np.flatnonzero(~self.gone_GJ[group]), 0
        for j in choices.tolist():
            found.append(_fitting(self.room_WS, self.loss_WGJ[:, group, j]))
            count += len(found[-1])
            if count > most:
                raise TooLargeError
        last_S = np.concatenate(found)
        choice_S = np.repeat(choices, list(map(len, found[1:]))).astype(self.parts.taken_SG.dtype)
        return replace(
            self,
            before_WS=self.room_WS,
            part_S=self.part_S[last_S],
            last_S=last_S,
            taken=(*((g, before_S[last_S]) for g, before_S in self.taken), (group, choice_S)),
        )


class Search:
    """The search for networks of a claim.

    ``weights`` [G][n_g] and ``constant``: a network is above the bound exactly where its weights and the constant
    sum up to more than 0. ``rows``: (entries [G][n_g], limit) each. ``alive``: the choices of every group.
    """

    def __init__(
        self,
        weights: Sequence[Sequence[int]],
        constant: int,
        rows: Sequence[tuple[Sequence[Sequence[int]], int]],
        alive: Sequence[Sequence[int]],
    ) -> None:
        self.alive, width = alive, max(map(len, alive))
        self.gone_GJ = np.arange(width) >= np.array([len(left) for left in alive])[:, None]
        loss, top = _from_best([[-row[c] for c in left] for row, left in zip(weights, alive, strict=True)], constant)
        shifted = [
            _from_best([[row[c] for c in left] for row, left in zip(entries, alive, strict=True)], limit)
            for entries, limit in rows
        ]
        self.is_empty = top <= 0 or any(room < 0 for _, room in shifted)
        for entries, room in ((loss, top - 1), *shifted):
            for g, row in enumerate(entries):
                self.gone_GJ[g, : len(row)] |= [entry > room for entry in row]
        self.is_empty |= bool(self.gone_GJ.all(axis=1).any())
        if self.is_empty:
            return
        self.loss_GJ, self.room = self._small(loss, top - 1)
        small = [self._small(entries, room) for entries, room in shifted]
        no_cost_GJ = np.zeros((0, *self.gone_GJ.shape), dtype=np.int64)
        self.cost_GJK: Ints = np.moveaxis(np.array([cost_GJ for cost_GJ, _ in small] or no_cost_GJ), 0, 2)
        self.limit_K = np.array([limit for _, limit in small], dtype=np.int64)
        # What takes more than a limit is of no network, so no number that matters is larger than these hold.
        self.place_kind, self.cost_kind = _smallest(width), _smallest(int(self.limit_K.max(initial=0)))
        self.added_GJK = self.cost_GJK.astype(self.cost_kind)

    def _small(self, entries: list[list[int]], room: int) -> tuple[Ints, int]:
        """Entries and room, both rounded down so far that no network sums up to more than ``TOTAL_BITS`` bits."""
        kept_GJ = np.zeros(self.gone_GJ.shape, dtype=object)
        for g, row in enumerate(entries):
            kept_GJ[g, : len(row)] = row
        kept_GJ[self.gone_GJ] = 0
        total = int(kept_GJ.max(axis=1).sum())
        bits = max(0, total.bit_length() - TOTAL_BITS)
        return (kept_GJ >> bits).astype(np.int64), min(room, total) >> bits

    def everything(self) -> Parts:
        """The part that has chosen nothing."""
        return Parts(
            left=tuple(range(len(self.alive))),
            loss_S=np.zeros(1, dtype=np.int32),
            cost_SK=np.zeros((1, len(self.limit_K)), self.cost_kind),
            taken_SG=np.zeros((1, len(self.alive)), self.place_kind),
        )

    def opened(self, parts: Parts, unit: Ints, prices_UK: Ints) -> Opened | None:
        """A list with the rows that some vectors make; None if it is empty.

        The multipliers of vector u are ``prices_UK[u]`` / ``unit[u]``; ``read_vectors`` says what fits.
        """
        least_GK = np.where(self.gone_GJ[:, :, None], -LOWEST, self.cost_GJK).min(axis=1)
        spare_KS = self.limit_K[:, None] - parts.cost_SK.T - least_GK[list(parts.left)].sum(axis=0)[:, None]
        room_RS = np.concatenate([self.rooms(parts, unit, prices_UK), spare_KS])
        kept = np.flatnonzero(room_RS.min(axis=0, initial=0) >= 0)
        if not len(kept):
            return None
        room_RS = room_RS.take(kept, axis=1) if len(kept) < len(parts) else room_RS
        loss_UGJ = self._losses(unit, prices_UK)
        loss_UGJ -= self._least(loss_UGJ)[:, :, None]
        loss_RGJ = np.concatenate([loss_UGJ, np.moveaxis(self.cost_GJK - least_GK[:, None], 2, 0)])
        most_R = room_RS.max(axis=1).tolist()
        bits_R = np.array([max(0, most.bit_length() - LARGEST.bit_length() + 1) for most in most_R], dtype=np.int64)
        room_RS >>= bits_R[:, None]
        loss_RGJ = np.where(self.gone_GJ, NEVER, np.clip(loss_RGJ >> bits_R[:, None, None], 0, NEVER))
        return Opened(parts, self.gone_GJ, _packed(loss_RGJ), _packed(room_RS) | GUARD, kept)

    def rooms(self, parts: Parts, unit: Ints, prices_UK: Ints) -> Ints:
        """[U, S] what the choices to come may lose, by every vector, times its unit."""
        least_U = self._least(self._losses(unit, prices_UK))[:, list(parts.left)].sum(axis=1)
        spare_KS = self.limit_K[:, None] - parts.cost_SK.T
        room_US = _products(prices_UK, spare_KS)
        room_US += unit[:, None] * (self.room - parts.loss_S.astype(np.int64))
        room_US -= least_U[:, None]
        return room_US

    def _losses(self, unit: Ints, prices_UK: Ints) -> Ints:
        """[U, G, J] what choices lose and cost, by every vector."""
        loss_UGJ: Ints = unit[:, None, None] * self.loss_GJ + np.moveaxis(self.cost_GJK @ prices_UK.T, 2, 0)
        return loss_UGJ

    def _least(self, loss_UGJ: Ints) -> Ints:
        """[U, G] the least of each group's choices."""
        least_UG: Ints = np.where(self.gone_GJ, -LOWEST, loss_UGJ).min(axis=2)
        return least_UG

    def children(self, opened: Opened) -> Parts:
        """What has come of a list, as a list of its own."""
        part_S, parts = opened.part_S, opened.parts
        loss_S, cost_SK = parts.loss_S[part_S], parts.cost_SK.take(part_S, axis=0)
        taken_SG = parts.taken_SG.take(part_S, axis=0)
        for g, choice_S in opened.taken:
            loss_S += self.loss_GJ[g].astype(np.int32).take(choice_S)
            cost_SK += self.added_GJK[g].take(choice_S, axis=0)
            taken_SG[:, g] = choice_S
        chosen = {g for g, _ in opened.taken}
        return Parts(tuple(g for g in parts.left if g not in chosen), loss_S, cost_SK, taken_SG)

    def networks(self, parts: Parts) -> list[list[int]]:
        """One choice per group of those parts, complete ones, that may be within the rows and above the bound."""
        is_open_S = (parts.loss_S <= self.room) & (parts.cost_SK <= self.limit_K).all(axis=1)
        return self.spelled(parts.taken_SG[is_open_S])

    def spelled(self, taken_SG: Small) -> list[list[int]]:
        """One choice per group, of places among J."""
        return [[left[place] for left, place in zip(self.alive, taken, strict=True)] for taken in taken_SG.tolist()]


def read_vectors(stored: Sequence[Sequence[Any]], num_rows: int) -> tuple[Ints, Ints]:
    """(unit [U], multipliers [U, K]) of vectors as a certificate holds them, ``[unit, multiplier of each row...]``.

    Raises:
        ValueError: if one is not whole numbers of 0 or more that fit.
    """
    for vector in stored:
        is_whole = all(type(n) is int and n >= 0 for n in vector)
        if not is_whole or len(vector) != num_rows + 1 or vector[0] < 1 or sum(vector) >= PRICE_TOTAL:
            raise ValueError(str(vector))
    table = np.array(stored, dtype=np.int64).reshape(len(stored), num_rows + 1)
    return table[:, 0], table[:, 1:]


def _from_best(rows: list[list[int]], room: int) -> tuple[list[list[int]], int]:
    """Each group's entries less its least, and the room less all of these."""
    least = [min(row) for row in rows]
    return [[entry - low for entry in row] for row, low in zip(rows, least, strict=True)], room - sum(least)


def _smallest(most: int) -> "np.dtype[Any]":
    """The smallest whole numbers of 0 to ``most``."""
    return np.dtype(next(kind for kind in (np.uint8, np.uint16, np.uint32) if most <= np.iinfo(kind).max))


def _products(prices_UK: Ints, number_KS: Ints) -> Ints:
    """[U, S] sums of products, exactly: by floats, which are quicker, where none is beyond their whole numbers."""
    largest = max(int(number_KS.max(initial=0)), -int(number_KS.min(initial=0)))
    if largest * int(prices_UK.sum(axis=1).max(initial=0)) < EXACT:
        return (prices_UK.astype(np.float64) @ number_KS.astype(np.float64)).astype(np.int64)
    product_US: Ints = prices_UK @ number_KS
    return product_US


def _packed(number_RX: Small) -> Words:
    """[W, ...] words of [R, ...] numbers of 15 bits; the last is filled up with zeros."""
    lanes = np.zeros((-(-len(number_RX) // LANES), *number_RX.shape[1:], LANES), dtype=np.uint16)
    for r, row in enumerate(number_RX):
        lanes[r // LANES, ..., r % LANES] = row
    return lanes.view(np.uint64)[..., 0]


def _fitting(room_WS: Words, loss_W: Words) -> Ints:
    """The parts that have room for a loss in all rows."""
    kept = np.arange(room_WS.shape[1])
    for low in (0, *range(FIRST, len(room_WS), RUN)):
        rows = slice(low, low + (RUN if low else FIRST))
        fits_N = np.full(len(kept), GUARD)
        for room_S, loss in zip(room_WS[rows], loss_W[rows], strict=True):
            fits_N &= (room_S.take(kept) if low else room_S) - loss
        kept = kept[fits_N == GUARD]
        if not len(kept):
            break
    return kept
