"""Endings of networks: all choices of some groups that may lead to a goal, found by what they cost.

A part that has chosen in all the other groups asks for the endings that fit beside it. For any multipliers u >= 0 a
network that is worth the goal leaves little slack: u . slack is at most the part's room (``branching``), so in
rows with a price few slacks are possible, most often none or one. An ending's costs in a few such rows, in cells, are
its place in a table, and each slack that is possible is one look into it (a hash join; the search meets in the
middle, as in Horowitz and Sahni, JACM 21 (1974), but either side is a search tree that bounds have cut).

S = endings or parts, K = rows, D = rows that places are made of, U = vectors of multipliers, T = slacks in cells,
N = looks, then pairs.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas_core.program.linear import Floats, Ints

Codes = npt.NDArray[np.uint32]

MOST_BITS = 24  # of the number of places
MOST_SLACKS = 4_000  # that are looked for beside one part
OWN = 0.9  # of a part's own best multipliers, mixed with the mean: a row without a price would allow any slack
CHUNK = 1 << 20  # looks at a time
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
    """``value_S``, ``cost_SK`` and ``pick_S`` (any numbers that spell the choices) of endings in ``groups``.

    ``duals_K``: the rows' prices, about; ``room``: the largest room that a part has, about.
    """

    def __init__(
        self,
        groups: tuple[int, ...],
        value_S: npt.NDArray[np.integer],
        cost_SK: npt.NDArray[np.integer],
        pick_S: npt.NDArray[np.integer],
        duals_K: Floats,
        room: float,
    ) -> None:
        self.groups = groups
        self.row_D, self.width_D, cells = _places(cost_SK, duals_K, room)
        self.alike = len(value_S) / cells  # endings of the same place, about
        factor_D = np.random.default_rng(0).integers(1 << 31, size=len(self.row_D))
        self.factor_D: Codes = (2 * factor_D + 1).astype(np.uint32)
        bits = min(len(value_S).bit_length() + 1, MOST_BITS)
        self.shift = np.uint32(32 - bits)
        self.least_D = cost_SK[:, self.row_D].min(axis=0, initial=np.iinfo(cost_SK.dtype).max).astype(np.int64)
        place_S = self._codes(cost_SK[:, self.row_D]) >> self.shift
        order = np.argsort(place_S)
        self.first_B = np.zeros((1 << bits) + 1, dtype=np.uint32)
        np.cumsum(np.bincount(place_S, minlength=1 << bits), out=self.first_B[1:])
        self.value_S, self.cost_SK, self.pick_S = value_S[order], cost_SK[order], pick_S[order]

    def _codes(self, cost_SD: npt.NDArray[np.integer]) -> Codes:
        """One number for the cells of each, of which sums and differences are those of the cells (modulo 2^32)."""
        code_S = np.zeros(len(cost_SD), dtype=np.uint32)
        for cost, width, factor in zip(cost_SD.T, self.width_D.tolist(), self.factor_D, strict=True):
            code_S += (cost // width).astype(np.uint32) * factor
        return code_S

    def partners(self, spare_SK: Ints, least_S: Ints, room_US: Floats, prices_UK: Floats) -> Partners:
        """The endings that fit beside parts.

        Args:
            spare_SK: what parts leave of the limits.
            least_S: what an ending has to be worth.
            room_US: what parts and endings may lose by each vector of multipliers, their slack's price included.
            prices_UK: the vectors.
        """
        spare_SK = np.minimum(spare_SK, np.iinfo(self.cost_SK.dtype).max)
        code_S = self._codes(spare_SK[:, self.row_D])
        most_D = spare_SK[:, self.row_D].max(axis=0, initial=0) // self.width_D - self.least_D // self.width_D
        spare_SK = spare_SK.astype(self.cost_SK.dtype)
        best_S = room_US.argmin(axis=0)
        mean_S, mean_D = room_US.mean(axis=0), prices_UK[:, self.row_D].mean(axis=0)
        none = np.zeros(0, dtype=np.int64)
        parts, endings, roomy = [none], [none], [none]
        for u in np.unique(best_S).tolist():
            own_S = np.flatnonzero((best_S == u) & (room_US[u] >= 0))
            room_S = (OWN * room_US[u, own_S] + (1 - OWN) * mean_S[own_S]) * SURE
            own_S = own_S[np.argsort(-room_S)]
            room_S = np.sort(room_S)[::-1]
            price_D = OWN * prices_UK[u, self.row_D] + (1 - OWN) * mean_D
            most, slack_TD, price_T = self._slacks(price_D, most_D, float(room_S.max(initial=0.0)))
            few = int(np.searchsorted(-room_S, -most))  # from here on all possible slacks are listed
            roomy.append(own_S[:few])
            count_T = np.searchsorted(-room_S[few:], -price_T, side="right")
            code_T = (slack_TD.astype(np.uint32) * self.factor_D).sum(axis=1, dtype=np.uint32)
            for slack_N, part_N in _looks(count_T):
                part_N, ending_N = self._at(own_S[few:][part_N], code_S, code_T[slack_N])
                kept = np.flatnonzero(self.value_S[ending_N] >= least_S[part_N])
                part_N, ending_N = part_N[kept], ending_N[kept]
                kept = np.flatnonzero((self.cost_SK[ending_N] <= spare_SK[part_N]).all(axis=1))
                parts.append(part_N[kept])
                endings.append(ending_N[kept])
        return Partners(part_N=np.concatenate(parts), ending_N=np.concatenate(endings), roomy_S=np.concatenate(roomy))

    def _at(self, part_N: Ints, code_S: Codes, less_N: Codes) -> tuple[Ints, Ints]:
        """Pairs of parts and the endings at the places they look at, ``less_N`` from their own."""
        place_N = (code_S[part_N] - less_N) >> self.shift
        first_N = self.first_B[place_N].astype(np.int64)
        count_N = self.first_B[place_N + np.uint32(1)] - first_N
        some = np.flatnonzero(count_N)
        count_N, first_N = count_N[some], first_N[some]
        ending_N = np.repeat(first_N - np.cumsum(count_N) + count_N, count_N) + np.arange(int(count_N.sum()))
        return np.repeat(part_N[some], count_N), ending_N

    def _slacks(self, price_D: Floats, most_D: Ints, room: float) -> tuple[float, Ints, Floats]:
        """(room, slacks in cells, what they cost at least): all that cost no more than the room, which is lowered
        where that would be too many, and -1 where it does not help.
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
                return room, slack_TD, price_T
            room /= 2
        return -1.0, slack_TD[:0], price_T[:0]


def _places(cost_SK: npt.NDArray[np.integer], duals_K: Floats, room: float) -> tuple[Ints, Ints, float]:
    """The rows that tell the most endings apart for the fewest slacks, how wide a cell is in each, and about how many
    cells endings are in.
    """
    priced = np.flatnonzero(duals_K > 0)
    if not len(cost_SK) or not len(priced):
        return priced[:0], priced[:0], 1.0
    spread_K = 2.5 * cost_SK[:: max(1, len(cost_SK) // 10_000), priced].std(axis=0) + 1.0
    order = np.argsort(-spread_K * duals_K[priced], kind="stable")
    row_D, spread_D = priced[order], spread_K[order]
    width_D = np.maximum(np.minimum(room / duals_K[row_D] / FINE, 2.0**60), 1.0).astype(np.int64)
    cells_D = np.cumprod(np.maximum(spread_D / width_D, 1.0))
    count = min(int(np.searchsorted(cells_D, len(cost_SK))) + 1, len(row_D))
    return row_D[:count], width_D[:count], float(cells_D[count - 1])


def _looks(count_T: Ints) -> Iterator[tuple[Ints, Ints]]:
    """(slack, part) for the first ``count_T`` parts of every slack, about ``CHUNK`` at a time."""
    total_T = np.cumsum(count_T)
    chunk_T = total_T // CHUNK
    for low, high in itertools.pairwise([0, *(np.flatnonzero(np.diff(chunk_T)) + 1).tolist(), len(count_T)]):
        count = count_T[low:high]
        slack_N = np.repeat(np.arange(low, high), count)
        yield slack_N, np.arange(len(slack_N)) - np.repeat(np.cumsum(count) - count, count)
