"""Directs the checker's search over lists of parts (``replay``), and writes down how: the leaf of a certificate.

What the route's own branch and bound (``branching``) has shown, shown again: the value of the best network is
known, so one search is enough, of what is above it. Floats choose the vectors of multipliers and the order of the
groups; the checker's own code drops the parts, so what is written is what it will see.

G = groups, J = choices, K = rows, U = vectors, R = U + K, S = parts.
"""

import time
from typing import Any

import numpy as np

from nas_core.program.checker import MOST_LISTED, Claim, UnprovenError
from nas_core.program.linear import Floats
from nas_core.program.multipliers import MOST_MATRIX, Multipliers
from nas_core.program.replay import PRICE_TOTAL, Opened, Parts, Search, TooLargeError

MOST_PARTS = 20_000  # of a list that shares its vectors
LEVELS, FEW_PARTS = 4, 2_000  # groups chosen with one set of vectors; more while so few parts were made
COUNTED = 200  # parts by which groups are put in order
PRICE_BITS = 22  # of the largest of a vector's numbers


class Recorder:
    """The search of one claim. ``fits``: whether it is one that lists can show."""

    def __init__(self, claim: Claim, alive: list[list[int]], deadline: float) -> None:
        self.claim, self.alive, self.deadline = claim, alive, deadline
        self.rows = claim.breakable(alive)
        num_columns = sum(map(len, alive))
        self.fits = claim.bound is not None and not claim.pairs and bool(self.rows)
        self.fits = self.fits and num_columns * len(self.rows) ** 2 <= MOST_MATRIX
        self.vectors: dict[tuple[int, ...], int] = {}
        self.rng = np.random.default_rng(0)

    def leaf(self) -> dict[str, Any] | None:
        """A leaf that the checker accepts; None at the deadline, or where a list is too long.

        Raises:
            UnprovenError: if there is a network above the bound.
        """
        search = self.claim.search(self.rows, self.alive)
        tree: dict[str, Any] = {}
        if not search.is_empty:
            multipliers = Multipliers(-search.loss_GJ, search.cost_GJK, search.limit_K, self.rng)
            most = min(MOST_PARTS, MOST_LISTED // search.gone_GJ.shape[1])
            todo = [(tree, search.everything(), np.zeros((1, len(self.rows))))]
            while todo:
                if time.monotonic() > self.deadline:
                    return None
                node, parts, known_UK = todo.pop()
                if not parts.left:
                    self._look_at(search, parts)
                    continue
                prices_UK = multipliers.of(
                    parts.left, search.gone_GJ, -parts.loss_S, parts.cost_KS, known_UK, -search.room
                )
                try:
                    children = self._grown(search, node, parts, prices_UK)
                except TooLargeError:
                    return None
                if children is not None and len(children):
                    pieces = children.pieces(-(-len(children) // most))
                    node["pieces"] = [{} for _ in pieces]
                    todo += [(child, piece, prices_UK) for child, piece in zip(node["pieces"], pieces, strict=True)]
        return {"rows": self.rows, "vectors": [list(vector) for vector in self.vectors], "list": tree}

    def _look_at(self, search: Search, parts: Parts) -> None:
        for network in search.networks(parts):
            if self.claim.is_above(network):
                raise UnprovenError("the answer", f"network {network} above it", "no allowed network above it")

    def _grown(self, search: Search, node: dict[str, Any], parts: Parts, prices_UK: Floats) -> Parts | None:
        """What comes of a list; which vectors and groups were used stands in its node."""
        stored = [_whole(prices_K) for prices_K in prices_UK.tolist()]
        node["by"] = [self.vectors.setdefault(vector, len(self.vectors)) for vector in dict.fromkeys(stored)]
        node["groups"] = []
        table = np.array(list(dict.fromkeys(stored)), dtype=np.int64)
        opened = search.opened(parts, table[:, 0], table[:, 1:])
        if opened is None:
            return None
        made = 0
        for level, group in enumerate(self._order(opened, parts.left)):
            if made > MOST_PARTS or (level >= LEVELS and made > FEW_PARTS):
                break
            opened = opened.taking(group, MOST_LISTED)
            made += len(opened.part_S)
            node["groups"].append(self.claim.groups[group][0])
            if not len(opened.part_S):
                return None
        return search.children(opened)

    def _order(self, opened: Opened, left: tuple[int, ...]) -> list[int]:
        """The groups left, those first that would leave the fewest children."""
        count = len(opened.part_S)
        sample_RN = opened.room_RS[:, self.rng.integers(0, count, min(COUNTED, count))]
        counts = [int((sample_RN[:, None] >= opened.loss_RGJ[:, g, :, None]).all(axis=0).sum()) for g in left]
        return [left[i] for i in np.argsort(counts, kind="stable")]


def _whole(prices: list[float]) -> tuple[int, ...]:
    """(unit, multipliers): the vector in whole numbers, of about ``PRICE_BITS`` bits."""
    largest = min(max(1.0, *prices), 2.0**PRICE_BITS)
    scale = 2.0 ** (PRICE_BITS - int(np.ceil(np.log2(largest))))
    most = PRICE_TOTAL // (len(prices) + 1) - 1
    return (max(1, int(scale)), *(min(round(price * scale), most) for price in prices))
