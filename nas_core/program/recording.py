"""Directs the checker's search over lists of parts (``replay``), and writes down how: the leaf of a certificate.

What the route's own branch and bound (``branching``) has shown, shown again: the value of the best network is
known, so one search is enough, of what is above it, and half of the groups is looked up there too (``lookup``). Floats
choose the vectors of multipliers, the order of the groups and how endings are laid out; the checker's own code drops
the parts and joins them, so what is written is what it will see.

G = groups, J = choices, K = rows, U = vectors, V = vectors to look by, D = rows that places are made of, S = parts.
"""

import contextlib
import time
from collections.abc import Collection
from typing import Any

import numpy as np

from nas_core.program.claim import MOST_LISTED, Claim
from nas_core.program.exact_table import UnprovenError
from nas_core.program.linear import Floats, Ints, float_program
from nas_core.program.lookup import WIDEST, Direction, Endings, Listed
from nas_core.program.multipliers import MOST_MATRIX, Multipliers
from nas_core.program.relaxation import multipliers
from nas_core.program.replay import GUARD, PRICE_TOTAL, Opened, Parts, Search, TooLargeError

Node = dict[str, Any]

MOST_PARTS = 20_000  # of a list that shares its vectors
LEVELS, FEW_PARTS = 4, 2_000  # groups chosen with one set of vectors; more while so few parts were made
COUNTED = 64  # parts by which groups are put in order
PRICE_BITS = 22  # of the largest of a vector's numbers
FEW_IN_ALL = 1_000_000  # parts, below which no half is looked up
FEWEST_GROUPS, DIVES = 4, 12  # of that half; and how often it is counted
NEAR = 5.0  # how much less a choice counts that loses all that may be lost, as a power of e
LOOKED_UP_BY = 8  # vectors of a list, the first ones
OWN = 0.9  # of such a vector, mixed with the mean: a row without a price allows any slack
BESIDE, MOST_ALIKE, FINE = 16, 100, 16  # endings in the same cells: about, at most; cells per slack of the whole room
ORDERED_S = 5e-7  # that putting one ending in order takes, about


class OutOfTimeError(Exception):
    """The proof does not fit the time."""


class Recorder:
    """The search of one claim. ``fits``: whether it is one that lists can show."""

    def __init__(self, claim: Claim, alive: list[list[int]], deadline: float) -> None:
        self.claim, self.alive, self.deadline = claim, alive, deadline
        self.rows = claim.breakable(alive)
        num_columns = sum(map(len, alive))
        self.fits = claim.bound is not None and not claim.pairs and bool(self.rows)
        self.fits = self.fits and num_columns * len(self.rows) ** 2 <= MOST_MATRIX

    def leaf(self) -> Node | None:
        """A leaf that the checker accepts; None where a list is too long.

        Raises:
            OutOfTimeError: at the deadline.
            UnprovenError: if there is a network above the bound.
        """
        search = self.claim.search(self.rows, self.alive)
        if search.is_empty:
            return {"rows": self.rows, "vectors": [], "list": {}}
        try:
            return {"rows": self.rows, **_Recording(self.claim, search, self.deadline).leaf()}
        except TooLargeError:
            return None


class _Recording:
    """One search, as it goes."""

    def __init__(self, claim: Claim, search: Search, deadline: float) -> None:
        self.claim, self.search, self.deadline = claim, search, deadline
        self.vectors: dict[tuple[int, ...], int] = {}  # and their numbers
        self.rng = np.random.default_rng(0)
        self.multipliers = Multipliers(-search.loss_GJ, search.cost_GJK, search.limit_K, self.rng)
        self.most = min(MOST_PARTS, MOST_LISTED // search.gone_GJ.shape[1])
        self.root_1K = _root(search)[None]
        self.lost_GJ: Floats = search.loss_GJ + search.cost_GJK @ self.root_1K[0]  # at the root's prices
        self.lost_GJ[search.gone_GJ] = np.inf
        least_G = self.lost_GJ.min(axis=1)
        self.lost_GJ -= least_G[:, None]
        self.root_room = max(float(search.room + search.limit_K @ self.root_1K[0] - least_G.sum()), 1.0)

    def leaf(self) -> Node:
        """All of a leaf but its rows."""
        leaf: Node = {"list": {}}
        endings = self._endings(leaf)
        waiting = () if endings is None else endings.groups
        todo = [(leaf["list"], self.search.everything(), self.root_1K)]
        while todo:
            self._look_at_clock()
            node, parts, known_UK = todo.pop()
            if not parts.left:
                self._look_at(self.search.networks(parts))
                continue
            children, prices_UK = self._grown(node, parts, known_UK, waiting)
            if endings is not None and children is not None and children.left == endings.groups:
                children = self._looked_up(endings, node, children, prices_UK)
            todo += [(child, piece, prices_UK) for child, piece in self._pieces(node, children)]
        return {**leaf, "vectors": [list(vector) for vector in self.vectors]}

    def _look_at_clock(self, coming_s: float = 0.0) -> None:
        if time.monotonic() + coming_s > self.deadline:
            raise OutOfTimeError

    def _look_at(self, networks: list[list[int]]) -> None:
        for network in networks:
            if self.claim.is_above(network):
                raise UnprovenError("the answer", f"network {network} above it", "no allowed network above it")

    def _prices(self, parts: Parts, known_UK: Floats) -> Floats:
        """[U, K] vectors for a list."""
        search = self.search
        return self.multipliers.of(
            parts.left, search.gone_GJ, -parts.loss_S, parts.cost_SK.T, known_UK, float(-search.room)
        )

    def _noted(self, prices_UK: Floats) -> tuple[list[int], tuple[Ints, Ints]]:
        """(numbers of vectors, the vectors in whole numbers)."""
        stored = list(dict.fromkeys(_whole(prices_K) for prices_K in prices_UK.tolist()))
        table = np.array(stored, dtype=np.int64)
        return [self.vectors.setdefault(vector, len(self.vectors)) for vector in stored], (table[:, 0], table[:, 1:])

    def _grown(
        self, node: Node, parts: Parts, known_UK: Floats, waiting: Collection[int]
    ) -> tuple[Parts | None, Floats]:
        """What comes of a list, if anything, and its vectors; which of them and what groups were used stands in its
        node. ``waiting``: groups that wait until no other is left.
        """
        prices_UK = self._prices(parts, known_UK)
        node["by"], vectors = self._noted(prices_UK)
        node["groups"] = []
        opened = self.search.opened(parts, *vectors)
        if opened is None:
            return None, prices_UK
        made, order = 0, self._order(opened, parts.left)
        order = [group for group in order if group not in waiting] or order
        for level, group in enumerate(order):
            if made > MOST_PARTS or (level >= LEVELS and made > FEW_PARTS):
                break
            opened = opened.taking(group, MOST_LISTED)
            made += len(opened)
            node["groups"].append(self.claim.groups[group][0])
            if not len(opened):
                return None, prices_UK
        return self.search.children(opened), prices_UK

    def _order(self, opened: Opened, left: tuple[int, ...]) -> list[int]:
        """The groups left, those first that would leave the fewest children."""
        count = len(opened)
        sample_WN = opened.room_WS[:, self.rng.integers(0, count, min(COUNTED, count))]
        left_NGJ = np.bitwise_and.reduce(sample_WN[:, :, None, None] - opened.loss_WGJ[:, None, list(left)])
        counts = ((left_NGJ & GUARD) == GUARD).sum(axis=(0, 2))
        return [left[i] for i in np.argsort(counts, kind="stable")]

    def _pieces(self, node: Node, children: Parts | None) -> list[tuple[Node, Parts]]:
        """The lists that a list goes on in."""
        if children is None or not len(children):
            return []
        pieces = children.pieces(-(-len(children) // self.most))
        node["pieces"] = [{} for _ in pieces]
        return list(zip(node["pieces"], pieces, strict=True))

    # Half of the groups is looked up

    def _looked_up(self, endings: Endings, node: Node, parts: Parts, prices_UK: Floats) -> Parts:
        """The parts that are not looked up."""
        mean_K = prices_UK.mean(axis=0)
        node["look"], vectors = self._noted(OWN * prices_UK[:LOOKED_UP_BY] + (1 - OWN) * mean_K)
        networks, roomy = endings.looked_up(parts, *vectors)
        self._look_at(networks)
        return roomy

    def _endings(self, leaf: Node) -> Endings | None:
        """Of half of the groups, or as many as fit; None where there is little to look through."""
        num_groups = len(self.search.alive)
        count, everything = num_groups // 2, tuple(range(num_groups))
        if np.mean([self._count(everything) for _ in range(DIVES)]) < FEW_IN_ALL:
            return None
        while count >= FEWEST_GROUPS:
            listed = Listed(self.search, self._split(count))
            expected = float(np.mean([self._count(listed.groups) for _ in range(DIVES)]))
            if expected <= listed.most:
                kept = dict(self.vectors)
                with contextlib.suppress(TooLargeError):  # it was a guess
                    return self._listed(leaf, listed)
                self.vectors = kept
            fitting = int(count * np.log(listed.most) / np.log(max(expected, 2.0)))
            count = min(fitting, count - 1)
        return None

    def _split(self, count: int) -> tuple[int, ...]:
        """Groups for a half: of those with many choices that lose little and of those with few alike."""
        near_GJ = np.exp(-NEAR * self.lost_GJ / self.root_room)
        order = np.argsort(near_GJ.sum(axis=1), kind="stable")
        places = np.rint(np.linspace(1, len(order) - 1, count)).astype(int)
        return tuple(sorted(order[places].tolist()))

    def _count(self, groups: tuple[int, ...]) -> float:
        """About how many parts have chosen in these groups alone: of every list's children, one list is looked at."""
        waiting, kept = [g for g in range(len(self.search.alive)) if g not in groups], dict(self.vectors)
        parts, known_UK, factor, total = self.search.everything(), self.root_1K, 1.0, 0.0
        while set(parts.left) & set(groups):
            self._look_at_clock()
            children, known_UK = self._grown({}, parts, known_UK, waiting)
            pieces = self._pieces({}, children)
            if not pieces:
                break
            total = max(total, factor * len(children or ()))
            factor *= len(pieces)
            _, parts = pieces[int(self.rng.integers(len(pieces)))]
        self.vectors = kept
        return total

    def _listed(self, leaf: Node, listed: Listed) -> Endings | None:
        """Endings as the checker will list them; None where they are too much alike."""
        kept, tree = dict(self.vectors), Node()
        todo = [(tree, self.search.everything(), self.root_1K)]
        while todo:
            self._look_at_clock(ORDERED_S * listed.count)
            node, parts, known_UK = todo.pop()
            children, prices_UK = self._grown(node, parts, known_UK, listed.left)
            if children is not None and children.left == listed.left:
                listed.add(children)
            else:
                todo += [(child, piece, prices_UK) for child, piece in self._pieces(node, children)]
        rows, widths, alike = self._direction(listed)
        if alike > MOST_ALIKE:
            self.vectors = kept
            return None
        (by,), vectors = self._noted(self.root_1K)
        named = [self.claim.groups[g][0] for g in listed.groups]
        leaf["endings"] = {"groups": named, "list": tree, "by": by, "rows": rows, "widths": widths}
        return Endings(self.search, listed, Direction(tuple(rows), tuple(widths), *vectors))

    def _direction(self, listed: Listed) -> tuple[list[int], list[int], float]:
        """(rows, how wide a cell is in each, how many endings are in the same cells, about): the rows that tell the
        most endings apart for the fewest slacks.
        """
        price_K, sample = self.root_1K[0], max(listed.lists, key=len).cost_SK
        priced = np.flatnonzero(price_K > 0)
        if not len(priced) or not listed.count:
            return [], [], float(listed.count)
        spread_K = 2.5 * sample[:, priced].std(axis=0) + 1.0
        order = np.argsort(-spread_K * price_K[priced], kind="stable")
        row_D, spread_D = priced[order], spread_K[order]
        width_D = np.clip(self.root_room / price_K[row_D] / FINE, 1.0, WIDEST).astype(np.int64)
        cells_D = np.cumprod(np.maximum(spread_D / width_D, 1.0))
        count = min(int(np.searchsorted(cells_D, listed.count / BESIDE)) + 1, len(row_D))
        return row_D[:count].tolist(), width_D[:count].tolist(), listed.count / float(cells_D[count - 1])


def _root(search: Search) -> Floats:
    """[K] the prices of the relaxation."""
    kept_GJ = ~search.gone_GJ
    starts = np.concatenate([[0], np.cumsum(kept_GJ.sum(axis=1))])
    lp = float_program(starts, -search.loss_GJ[kept_GJ].astype(float), search.cost_GJK[kept_GJ].T, search.limit_K)
    prices_K = multipliers(lp, np.arange(len(search.limit_K)))
    return np.zeros(len(search.limit_K)) if prices_K is None else prices_K


def _whole(prices: list[float]) -> tuple[int, ...]:
    """(unit, multipliers): the vector in whole numbers, of about ``PRICE_BITS`` bits."""
    largest = min(max(1.0, *prices), 2.0**PRICE_BITS)
    scale = 2.0 ** (PRICE_BITS - int(np.ceil(np.log2(largest))))
    most = PRICE_TOTAL // (len(prices) + 1) - 1
    return (max(1, int(scale)), *(min(round(price * scale), most) for price in prices))
