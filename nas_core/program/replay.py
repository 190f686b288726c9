"""The checker's search over lists of parts of networks, in whole numbers; a certificate says where it goes.

A part has a choice in some groups. Within the rows, for any multipliers u >= 0,

    value(part) + sum over the groups left of max_j (w_j - u . a_j) + u . (limits - cost(part))

less what a network above the bound has at least is room that the choices to come may lose. So every vector of
multipliers is one more row, like the rows themselves, and a part is dropped as soon as its next choice takes more of
some row than is left. All parts of a list have their choices in the same groups, and share the vectors.

Whatever vectors and groups a certificate names, only parts that lead to no network above the bound are dropped, and
what is left at the end is looked at one by one. Losses are rounded down, and so is the room: a sum of what is rounded
down is at most what the sum is rounded down to, so no network within the room is lost.

G = groups (J choices at most, padded), K = rows, U = vectors of multipliers, R = U + K rows of both kinds, S = parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Small = npt.NDArray[np.int16]
Bools = npt.NDArray[np.bool_]

TOTAL_BITS = 30  # of a network's summed losses, and of what it takes of a row
PRICE_TOTAL = 1 << 31  # that the unit and the multipliers of a vector sum up to at most: all products fit 62 bits
LARGEST = 1 << 14  # room
NEVER = LARGEST + 1
FEW_ROWS = 8  # by which most parts are dropped
LOWEST = -(1 << 62)


class TooLargeError(ValueError):
    """A list is longer than it may be."""


@dataclass(frozen=True)
class Parts:
    """Parts of networks that have chosen in the same groups: all but ``left``.

    ``taken_GS``: what they have chosen, as places among J.
    """

    left: tuple[int, ...]
    loss_S: Ints
    cost_KS: Ints
    taken_GS: Small

    def __len__(self) -> int:
        return len(self.loss_S)

    def pieces(self, count: int) -> "list[Parts]":
        """The same in ``count`` lists of about equal length, one after the other."""
        return [
            Parts(self.left, self.loss_S[at], self.cost_KS[:, at], self.taken_GS[:, at])
            for at in np.array_split(np.arange(len(self)), count)
        ]


@dataclass(frozen=True)
class Opened:
    """A list with its rows: ``room_RS`` is what its parts may still take, ``loss_RGJ`` what choices do (by group).

    ``gone_GJ``: choices that no network of the claim has, and what pads groups.
    """

    parts: Parts
    gone_GJ: Bools
    room_RS: Small
    loss_RGJ: Small
    part_S: Ints  # from which of the list's parts those of ``room_RS`` come
    taken: tuple[tuple[int, Ints], ...] = ()  # (group, choices [S]) since

    def taking(self, group: int, most: int) -> "Opened":
        """The parts with every choice of one group more, where it fits.

        Raises:
            TooLargeError: if these are more than ``most``.
        """
        rooms, parents, picks = [self.room_RS[:, :0]], [self.part_S[:0]], [self.part_S[:0]]
        most_R = self.room_RS.max(axis=1, initial=-1)
        for j, loss_R in enumerate(self.loss_RGJ[:, group].T):
            if self.gone_GJ[group, j] or (loss_R > most_R).any():
                continue
            kept = np.flatnonzero((self.room_RS[:FEW_ROWS] >= loss_R[:FEW_ROWS, None]).all(axis=0))
            kept = kept[(self.room_RS[FEW_ROWS:].take(kept, axis=1) >= loss_R[FEW_ROWS:, None]).all(axis=0)]
            rooms.append(self.room_RS[:, kept] - loss_R[:, None])
            parents.append(kept)
            picks.append(np.full(len(kept), j))
            if sum(map(len, parents)) > most:
                raise TooLargeError
        parent_S = np.concatenate(parents)
        taken = tuple((g, choice_S[parent_S]) for g, choice_S in self.taken)
        return replace(
            self,
            room_RS=np.concatenate(rooms, axis=1),
            part_S=self.part_S[parent_S],
            taken=(*taken, (group, np.concatenate(picks))),
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
            loss_S=np.zeros(1, dtype=np.int64),
            cost_KS=np.zeros((len(self.limit_K), 1), dtype=np.int64),
            taken_GS=np.zeros((len(self.alive), 1), dtype=np.int16),
        )

    def opened(self, parts: Parts, unit: Ints, prices_UK: Ints) -> Opened | None:
        """A list with the rows that some vectors make; None if it is empty.

        The multipliers of vector u are ``prices_UK[u]`` / ``unit[u]``; ``read_vectors`` says what fits.
        """
        room_RS, loss_RGJ = self._rows(parts, unit, prices_UK)
        kept = np.flatnonzero((room_RS >= 0).all(axis=0))
        return Opened(parts, self.gone_GJ, room_RS[:, kept], loss_RGJ, kept) if len(kept) else None

    def _rows(self, parts: Parts, unit: Ints, prices_UK: Ints) -> tuple[Small, Small]:
        """[R, S] what every part may still take of every row, and [R, G, J] what choices take."""
        left = list(parts.left)
        loss_UGJ = unit[:, None, None] * self.loss_GJ + np.moveaxis(self.cost_GJK @ prices_UK.T, 2, 0)
        least_UG = np.where(self.gone_GJ, -LOWEST, loss_UGJ).min(axis=2)
        spare_KS = self.limit_K[:, None] - parts.cost_KS
        room_US = unit[:, None] * (self.room - parts.loss_S) + prices_UK @ spare_KS
        room_US -= least_UG[:, left].sum(axis=1)[:, None]
        least_GK = np.where(self.gone_GJ[:, :, None], -LOWEST, self.cost_GJK).min(axis=1)
        spare_KS = spare_KS - least_GK[left].sum(axis=0)[:, None]
        room_RS = np.concatenate([room_US, spare_KS])
        loss_RGJ = np.concatenate(
            [loss_UGJ - least_UG[:, :, None], np.moveaxis(self.cost_GJK - least_GK[:, None], 2, 0)]
        )
        most_R = room_RS.max(axis=1, initial=0).tolist()
        bits_R = np.array([max(0, most.bit_length() - LARGEST.bit_length() + 1) for most in most_R], dtype=np.int64)
        room_RS = np.maximum(room_RS >> bits_R[:, None], -1)
        loss_RGJ = np.where(self.gone_GJ, NEVER, np.clip(loss_RGJ >> bits_R[:, None, None], 0, NEVER))
        return room_RS.astype(np.int16), loss_RGJ.astype(np.int16)

    def children(self, opened: Opened) -> Parts:
        """What has come of a list, as a list of its own."""
        part_S, parts = opened.part_S, opened.parts
        loss_S, cost_KS, taken_GS = parts.loss_S[part_S], parts.cost_KS[:, part_S], parts.taken_GS[:, part_S]
        for g, choice_S in opened.taken:
            loss_S = loss_S + self.loss_GJ[g, choice_S]
            cost_KS = cost_KS + self.cost_GJK[g, choice_S].T
            taken_GS[g] = choice_S
        chosen = {g for g, _ in opened.taken}
        left = tuple(g for g in parts.left if g not in chosen)
        return Parts(left, loss_S, cost_KS, taken_GS)

    def networks(self, parts: Parts) -> list[list[int]]:
        """One choice per group of those parts, complete ones, that may be within the rows and above the bound."""
        is_open_S = (parts.loss_S <= self.room) & (parts.cost_KS <= self.limit_K[:, None]).all(axis=0)
        return [
            [left[place] for left, place in zip(self.alive, taken, strict=True)]
            for taken in parts.taken_GS[:, is_open_S].T.tolist()
        ]


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
