"""Endings of networks: all choices of some groups that may lead to a goal, found by what they cost.

A part that has chosen in all the other groups asks for the endings that fit beside it. For any multipliers u >= 0 a
network that is worth the goal leaves little slack: u . slack is at most the part's room (``branching``), so in
rows with a price few slacks are possible, most often none or one. An ending's costs in a few such rows, in cells, are
its place in a table, and each slack that is possible is one look into it (a hash join; the search meets in the
middle, as in Horowitz and Sahni, JACM 21 (1974), but either side is a search tree that bounds have cut).

What is left of a part's room is all that its ending may lose. Most parts have lost most of it, and few endings lose
little: those at a place stand in order of what they lose, in classes, and only the first of them are looked at.

S = endings or parts, K = rows, D = rows that places are made of, V = vectors of multipliers, T = slacks in cells,
N = looks, then pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas_core.program.linear import EPSILON, Floats, Ints

Codes = npt.NDArray[np.uint32]
Small = npt.NDArray[np.integer]

CLASS_BITS, STEP_BITS = 4, 12  # of classes of losses, and of the steps in which these are counted
BESIDE = 16  # endings in the same cells, about
MOST_SLACKS = 4_000  # that are looked for beside one part
CHUNK = 1 << 18  # looks at a time
ALIKE, FEW_LOOKS = 0.8, 64  # numbers of looks that are rounded up to the largest of them; and any so small
LARGEST = 1 << 29  # steps
FINE = 16  # cells of a row per slack that the whole room allows
SURE = 1 + 1e-9
HALVINGS = 12


@dataclass(frozen=True, kw_only=True)
class Partners:
    """Pairs of parts and endings within all rows, and the parts for which too many slacks are possible."""

    part_N: Ints
    ending_N: Ints
    roomy_S: Ints


class Endings:
    """``value_S``, ``cost_SK`` and ``pick_SG`` (places of columns) of endings in ``groups``.

    ``arrays`` is these three, and is emptied: they are large, and one after the other is put in order.
    ``prices_K``: the rows' prices, about; an ending loses what its value less its cost at these falls short of ``top``,
    and ``room`` is the most that it may lose, about.
    """

    def __init__(
        self,
        groups: tuple[int, ...],
        arrays: list[Small],
        prices_K: Floats,
        top: float,
        room: float,
    ) -> None:
        self.groups, self.prices_K, self.top = groups, prices_K, top
        value_S, cost_SK, pick_SG = arrays
        arrays.clear()
        self.row_D, self.width_D, cells = _places(cost_SK, prices_K, room)
        self.width_D = np.minimum(self.width_D, np.iinfo(cost_SK.dtype).max)
        self.alike = len(value_S) / cells  # endings in the same cells, about
        factor_D = np.random.default_rng(0).integers(1 << 31, size=len(self.row_D))
        self.factor_D: Codes = (2 * factor_D + 1).astype(np.uint32)
        self.place_bits = min(max(len(value_S).bit_length() + 1 - CLASS_BITS, 1), 32 - STEP_BITS)
        self.least_D = cost_SK[:, self.row_D].min(axis=0, initial=np.iinfo(cost_SK.dtype).max).astype(np.int64)
        self.step = max(room, 1e-300) / (1 << STEP_BITS)
        key_S = np.empty(len(value_S), dtype=np.uint64)
        for low in range(0, len(key_S), CHUNK):
            some = slice(low, low + CHUNK)
            key_S[some] = self._keys(cost_SK[some], value_S[some])
        key_S <<= np.uint64(32)
        key_S |= np.arange(len(key_S), dtype=np.uint64)
        key_S.sort()
        order = key_S.astype(np.uint32)
        key_S >>= np.uint64(32)
        count = 1 << (self.place_bits + CLASS_BITS)
        self.first_B = np.zeros(count + 1, dtype=np.uint32)
        for low in range(0, len(key_S), CHUNK):
            class_S = (key_S[low : low + CHUNK] >> np.uint64(STEP_BITS - CLASS_BITS)).astype(np.int64)
            counts = np.bincount(class_S - class_S[0])
            self.first_B[class_S[0] + 1 : class_S[0] + 1 + len(counts)] += counts.astype(np.uint32)
        np.cumsum(self.first_B, out=self.first_B)
        first_P = self.first_B[:: 1 << CLASS_BITS]
        is_met_P = first_P[:-1] < first_P[1:]
        self.least_P = np.full(1 << self.place_bits, LARGEST, dtype=np.int32)  # steps that an ending there loses
        self.least_P[is_met_P] = key_S[first_P[:-1][is_met_P]] & np.uint64((1 << STEP_BITS) - 1)
        del key_S
        self.value_S = value_S.take(order)
        self.cost_SK = cost_SK.take(order, axis=0)
        del value_S, cost_SK
        self.pick_SG = pick_SG.take(order, axis=0)

    def _keys(self, cost_SK: Small, value_S: Small) -> Codes:
        """Places of endings, and what they lose in steps."""
        loss_S = self.top - value_S + cost_SK @ self.prices_K - self._rounding(cost_SK, value_S)
        step_S = np.clip(loss_S / self.step, 0, (1 << STEP_BITS) - 1).astype(np.uint32)
        return (self._places(self._codes(cost_SK[:, self.row_D])) << np.uint32(STEP_BITS)) | step_S

    def _places(self, code_S: Codes) -> Codes:
        return code_S >> np.uint32(32 - self.place_bits)

    def _codes(self, cost_SD: Small) -> Codes:
        """One number for the cells of each, of which sums and differences are those of the cells (modulo 2^32)."""
        code_S = np.zeros(len(cost_SD), dtype=np.uint32)
        for cost, width, factor in zip(cost_SD.T, self.width_D.tolist(), self.factor_D, strict=True):
            code_S += (cost // cost.dtype.type(width)).astype(np.uint32) * factor
        return code_S

    def _rounding(self, cost_SK: Small, value_S: Small) -> float:
        """What a loss in floats may be wrong by."""
        cost_K = np.abs(cost_SK).max(axis=0, initial=0)
        size = abs(self.top) + float(self.prices_K @ cost_K) + float(np.abs(value_S).max(initial=0))
        return 8 * (len(cost_K) + 2) * EPSILON * size

    def partners(self, spare_SK: Ints, least_S: Ints, room_S: Floats, best_S: Ints, prices_VK: Floats) -> Partners:
        """The endings that fit beside parts.

        Args:
            spare_SK: what parts leave of the limits.
            least_S: what an ending has to be worth.
            room_S: what parts and endings may lose by one vector of multipliers, their slack's price included.
            best_S: which vector.
            prices_VK: the vectors.
        """
        lost_S = self.top + spare_SK @ self.prices_K - least_S  # by an ending, at most, with its slack's price
        lost_S += self._rounding(spare_SK, least_S)
        is_open_S = lost_S >= 0
        if spare_SK.min(initial=0) < 0:
            is_open_S &= (spare_SK >= 0).all(axis=1)
        steps_S = np.minimum(lost_S / self.step + 1, 2 * LARGEST).astype(np.int32)
        spare_SK = np.minimum(spare_SK, np.iinfo(self.cost_SK.dtype).max).astype(self.cost_SK.dtype)
        code_S = self._codes(spare_SK[:, self.row_D])
        most_D = spare_SK[:, self.row_D].max(axis=0, initial=0) // self.width_D - self.least_D // self.width_D
        none = np.zeros(0, dtype=np.int64)
        parts, endings, roomy = [none], [none], [none]
        for v, price_K in enumerate(prices_VK):
            own_S = np.flatnonzero(is_open_S & (best_S == v))
            if not len(own_S):
                continue
            falling_S = room_S[own_S] * -SURE
            order = np.argsort(falling_S)
            own_S, falling_S = own_S[order], falling_S[order]
            most, slack_TD, price_T = self._slacks(price_K[self.row_D], most_D, -float(falling_S[0]))
            few = int(np.searchsorted(falling_S, -most))  # from here on all possible slacks are listed
            roomy.append(own_S[:few])
            own_S, falling_S = own_S[few:], falling_S[few:]
            looking_T = np.searchsorted(falling_S, -price_T, side="right")
            for part_N, place_N, step_N in self._looks(code_S[own_S], steps_S[own_S], slack_TD, looking_T):
                look_N, ending_N = self._at(place_N, step_N)
                part_N = own_S[part_N[look_N]]
                kept = np.flatnonzero(self.value_S[ending_N] >= least_S[part_N])
                part_N, ending_N = part_N[kept], ending_N[kept]
                is_within = (self.cost_SK.take(ending_N, axis=0) <= spare_SK.take(part_N, axis=0)).all(axis=1)
                parts.append(part_N[is_within])
                endings.append(ending_N[is_within])
        return Partners(part_N=np.concatenate(parts), ending_N=np.concatenate(endings), roomy_S=np.concatenate(roomy))

    def _looks(
        self, code_S: Codes, steps_S: Small, slack_TD: Ints, looking_T: Ints
    ) -> Iterator[tuple[Small, Codes, Small]]:
        """(part, place, steps that an ending may lose there) where one may be, for the first ``looking_T`` parts of
        every slack, or some more.
        """
        code_T = (slack_TD.astype(np.uint32) * self.factor_D).sum(axis=1, dtype=np.uint32)
        paid_T = self._least_slack(slack_TD) @ self.prices_K[self.row_D] / self.step
        paid_T = np.minimum(paid_T, LARGEST).astype(np.int32)
        for low, high, count in _blocks(looking_T):
            place_TS = self._places(code_S[:count] - code_T[low:high, None])
            step_TS = np.subtract(steps_S[:count], paid_T[low:high, None])
            look_N = np.flatnonzero(self.least_P.take(place_TS) <= step_TS)
            yield look_N % count, place_TS.ravel()[look_N], step_TS.ravel()[look_N]

    def _at(self, place_N: Codes, step_N: Small) -> tuple[Ints, Ints]:
        """Pairs of looks and the endings there, up to the class of what they may lose."""
        key_N = place_N.astype(np.int64) << CLASS_BITS
        first_N = self.first_B[key_N].astype(np.int64)
        key_N += np.minimum(step_N, (1 << STEP_BITS) - 1) >> (STEP_BITS - CLASS_BITS)
        count_N = self.first_B[key_N + 1] - first_N
        ending_N = np.repeat(first_N - np.cumsum(count_N) + count_N, count_N) + np.arange(int(count_N.sum()))
        return np.repeat(np.arange(len(count_N)), count_N), ending_N

    def _least_slack(self, slack_TD: Ints) -> Floats:
        """What slacks in cells are at least: the next cell is a unit away at least."""
        least_TD: Floats = np.where(slack_TD > 0, (slack_TD - 1.0) * self.width_D + 1, 0.0)
        return least_TD

    def _slacks(self, price_D: Floats, most_D: Ints, room: float) -> tuple[float, Ints, Floats]:
        """(room, slacks in cells, what they cost at least): all that cost no more than the room, the least dear first.
        The room is lowered where that would be too many, and -1 where it does not help.
        """
        for _ in range(HALVINGS):
            slack_TD, price_T = np.zeros((1, 0), dtype=np.int64), np.zeros(1)
            for price, width, most in zip(price_D.tolist(), self.width_D.tolist(), most_D.tolist(), strict=True):
                number = np.arange(int(min(room / max(price * width, 1e-300), max(most, 0), MOST_SLACKS)) + 2)
                slack_N = np.where(number > 0, (number - 1.0) * width + 1, 0.0)  # the next cell is a unit away at least
                total_TN = price_T[:, None] + price * slack_N
                before, step = np.nonzero(total_TN <= room)
                slack_TD, price_T = np.column_stack([slack_TD[before], step]), total_TN[before, step]
                if len(price_T) > MOST_SLACKS:
                    break
            else:
                order = np.argsort(price_T, kind="stable")
                return room, slack_TD[order], price_T[order]
            room /= 2
        return -1.0, slack_TD[:0], price_T[:0]


def _places(cost_SK: Small, prices_K: Floats, room: float) -> tuple[Ints, Ints, float]:
    """The rows that tell the most endings apart for the fewest slacks, how wide a cell is in each, and about how many
    cells endings are in.
    """
    priced = np.flatnonzero(prices_K > 0)
    if not len(cost_SK) or not len(priced):
        return priced[:0], priced[:0], 1.0
    spread_K = 2.5 * cost_SK[:: max(1, len(cost_SK) // 10_000), priced].std(axis=0) + 1.0
    order = np.argsort(-spread_K * prices_K[priced], kind="stable")
    row_D, spread_D = priced[order], spread_K[order]
    width_D = np.maximum(np.minimum(room / prices_K[row_D] / FINE, 2.0**60), 1.0).astype(np.int64)
    cells_D = np.cumprod(np.maximum(spread_D / width_D, 1.0))
    count = min(int(np.searchsorted(cells_D, len(cost_SK) / BESIDE)) + 1, len(row_D))
    return row_D[:count], width_D[:count], float(cells_D[count - 1])


def _blocks(looking_T: Ints) -> Iterator[tuple[int, int, int]]:
    """(first slack, last but one, parts) of slacks that about as many parts look for."""
    low, falling_T = 0, -looking_T
    end = int(np.searchsorted(falling_T, 0))  # from here on no part looks
    while low < end:
        count = int(looking_T[low])
        high = int(np.searchsorted(falling_T, -int(ALIKE * count), side="right")) if count > FEW_LOOKS else end
        high = min(high, low + max(CHUNK // count, 1), end)
        yield low, high, count
        low = high
