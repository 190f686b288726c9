"""What a proof's tree claims of one table, and whether its leaves show it; the claims are in ``checker``'s text."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from nas_core.program.exact_table import ExactTable, UnprovenError, exactly, power
from nas_core.program.listing import Listing, Numbers
from nas_core.program.lookup import WIDEST, Direction, Endings, Listed
from nas_core.program.replay import Parts, Search, TooLargeError, read_vectors

MAX_STATES = 5_000_000  # parts of networks looked at together in one leaf
MOST_LISTED = 1_000_000  # parts of networks in one list
SAFE_DIGITS = Fraction(1, 10**50)  # relative: what a power is rounded by, against the claim

_Vectors = tuple[Numbers, Numbers]  # (unit [U], multipliers [U, K])


class Claim:
    """No network of a table is above a bound: everything that its leaves share, as integers."""

    def __init__(
        self, table: ExactTable, bound: Fraction | None, earlier: Sequence[str] = (), distance: int = 1
    ) -> None:
        self.table, self.bound = table, bound
        self.groups = table.ties()
        self.group_of = {p: g for g, group in enumerate(self.groups) for p in group}
        rows = table.rows(earlier, distance)
        self.excluded = table.excluded(earlier, distance)
        self.rows = [_whole([self._grouped(row.entries), [[row.limit]]]) for row in rows]
        self.score, self.unit = self._grouped(_exact_rows(table.stored["score"])), Fraction(1)
        resource = table.objective.get("resource")
        self.total = None if table.is_additive else self._grouped(_exact_rows(table.stored["costs"][resource]))
        self.fixed = Fraction(0)
        if self.total is not None:
            self.fixed = exactly(table.stored.get("base_costs", {}).get(resource, 0.0))
            if self.fixed + sum(min(row) for row in self.total) <= 0:
                raise UnprovenError(f"total of {resource}", "a network at or below zero", "totals above zero")
        self.pairs: dict[tuple[int, int], list[tuple[int, int, Fraction]]] = {}
        for pair in table.problem.get("pairs", ()):
            (p, c), (q, d) = sorted(map(tuple, pair["blocks"]))
            g, h = self.group_of[p], self.group_of[q]
            if g == h:
                if c == d and c < len(self.score[g]):
                    self.score[g][c] += exactly(pair["value"])
                continue
            self.pairs.setdefault((g, h), []).append((c, d, exactly(pair["value"])))
        self.pair_weights: dict[tuple[int, int], list[int]] = {}
        self._linear = self._whole_claim() if table.is_exact else None

    def linear(self, alive: list[list[int]]) -> tuple[list[list[int]], int]:
        """(weights, constant) of a leaf in integers of one unit, that of ``pair_weights``."""
        return self._linear or self._whole_claim(alive)

    def everything(self) -> list[list[int]]:
        """The choices of every group."""
        return [list(range(len(row))) for row in self.score]

    def _grouped(self, rows: list[list[Fraction]]) -> list[list[Fraction]]:
        """[M][n_p] -> [G][n_g], summed over tied positions."""
        grouped = []
        for group in self.groups:
            count = min(len(rows[p]) for p in group)
            grouped.append([sum((rows[p][c] for p in group), Fraction(0)) for c in range(count)])
        return grouped

    # The claim as a linear one: weights and a constant whose sum is above 0 where a network is above the bound

    def _whole_claim(self, alive: list[list[int]] | None = None) -> tuple[list[list[int]], int]:
        """(weights, constant) in integers of one unit; see ``linear``."""
        slope, constant, share = self._slope(alive)
        weights = self.score
        if slope and self.total is not None:
            weights = [
                [share * s - slope * f for s, f in zip(scores, totals, strict=True)]
                for scores, totals in zip(self.score, self.total, strict=True)
            ]
        elif share != 1:
            weights = [[share * s for s in row] for row in weights]
        pairs = [[share * value for _, _, value in terms] for terms in self.pairs.values()]
        whole = _whole([weights, [[constant]], pairs])
        self.pair_weights = dict(zip(self.pairs, whole[2], strict=True))
        return whole[0], whole[1][0][0]

    def _slope(self, alive: list[list[int]] | None) -> tuple[Fraction, Fraction, Fraction]:
        """(slope of F, constant, factor of the gain): factor gain - slope F + constant > 0 above the bound."""
        base, objective = exactly(self.table.stored.get("base_score", 0.0)), self.table.objective
        if self.bound is None:  # no network at all: nothing is asked of the value
            return Fraction(0), Fraction(0), Fraction(0)
        if self.table.is_additive:
            return Fraction(0), base - self.bound, Fraction(1)
        if objective["kind"] == "ratio":
            return self.bound, base - self.bound * self.fixed, Fraction(1)
        reference, above = exactly(objective["reference"]), self.bound - base
        if self.table.power_exponent == 1:  # gain reference / F > above
            return above, -above * self.fixed, reference
        assert alive is not None, "a broken exponent is looked at leaf by leaf"
        slope, at = self._line(alive, above, reference)  # gain > above (F / reference)^p
        return above * slope, -above * (slope * self.fixed + at), Fraction(1)

    def _line(self, alive: list[list[int]], above: Fraction, reference: Fraction) -> tuple[Fraction, Fraction]:
        """(slope, at): on a leaf, slope F + at is nowhere above (F / reference)^p, or nowhere below where above < 0."""
        assert self.total is not None, "the objective has a resource"
        p = self.table.power_exponent
        ends = [[row[c] for c in left] for row, left in zip(self.total, alive, strict=True)]
        low, high = self.fixed + sum(map(min, ends)), self.fixed + sum(map(max, ends))
        if above >= 0:  # the chord of a concave function is below it
            at_low, at_high = (power(x / reference, p) * (1 - SAFE_DIGITS) for x in (low, high))
            slope = (at_high - at_low) / (high - low) if high > low else Fraction(0)
            return slope, at_low - slope * low
        middle = (low + high) / 2  # its tangent is above
        top = power(middle / reference, p) * (1 + SAFE_DIGITS)
        return p * top / middle, top * (1 - p)

    # The tree

    def check_tree(self, tree: Mapping[str, Any]) -> None:
        """Nothing, if the tree shows that no network of the table is within the rows and above the bound.

        Raises:
            UnprovenError: with the leaf that does not.
        """
        todo = [(tree, self.everything())]
        while todo:
            node, alive = todo.pop()
            if "list" in node:
                self.check_lists(node, alive)
                continue
            if "branches" not in node:
                self.check_leaf(node, alive)
                continue
            group = self.group_of[int(node["position"])]
            parts = [sorted(int(c) for c in choices) for choices, _ in node["branches"]]
            if sorted(itertools.chain(*parts)) != sorted(alive[group]):
                raise UnprovenError(f"branches at position {node['position']}", parts, f"the choices {alive[group]}")
            for part, (_, child) in zip(parts, node["branches"], strict=True):
                todo.append((child, [part if g == group else left for g, left in enumerate(alive)]))

    # One leaf

    def check_leaf(
        self,
        leaf: Mapping[str, Any],
        alive: list[list[int]],
        max_states: int = MAX_STATES,
        deadline: float = float("inf"),
    ) -> None:
        """Nothing, if no network of a leaf is within the rows and above the bound.

        Raises:
            UnprovenError: otherwise, and where the listing is larger than ``max_states`` or goes on at the deadline.
        """
        search = self._listing(leaf, alive)
        left = search.networks(max_states, deadline)
        if left is None:
            raise UnprovenError("leaf", f"more than {max_states} parts of networks", "fewer, or time, or branches")
        for network in left:
            if self.is_above(network):
                raise UnprovenError("leaf", f"network {network}", "no allowed network above the bound")

    def check_lists(self, leaf: Mapping[str, Any], alive: list[list[int]]) -> None:
        """Nothing, if the lists of a leaf end without a network above the bound.

        Raises:
            UnprovenError: otherwise, and where a list is longer than ``MOST_LISTED`` or names what it may not.
        """
        rows = leaf["rows"]
        if self.bound is None or self.pairs or not set(rows) <= set(range(len(self.rows))):
            raise UnprovenError("lists", f"rows {rows}", "a claim of a value without pair terms, and its rows")
        search = self.search(rows, alive)
        try:
            unit_U, prices_UK = read_vectors(leaf["vectors"], len(rows))
        except ValueError as error:
            raise UnprovenError("lists", f"vector {error}", f"a unit and {len(rows)} whole multipliers") from None
        if search.is_empty:
            return
        vectors = unit_U, prices_UK
        endings = self._endings(search, leaf["endings"], vectors) if "endings" in leaf else None
        todo = [(leaf["list"], search.everything())]
        while todo:
            node, parts = todo.pop()
            if not parts.left:
                self._look_at(search.networks(parts))
                continue
            children = self._children(search, node, parts, vectors)
            if children is not None and "look" in node:
                children = self._looked_up(endings, children, node["look"], vectors)
            todo += _pieces(node, children)

    def _look_at(self, networks: list[list[int]]) -> None:
        above = [network for network in networks if self.is_above(network)]
        if above:
            raise UnprovenError("list", f"network {above[0]}", "no allowed network above the bound")

    def _looked_up(self, endings: Endings | None, parts: Parts, look: list[int], vectors: _Vectors) -> Parts:
        """The parts that are not looked up."""
        if endings is None or parts.left != endings.groups:
            raise UnprovenError("list", f"parts that have no choice in groups {parts.left}", "endings for them")
        unit_V, prices_VK = _of(vectors, look)
        if not look:
            raise UnprovenError("list", "no vector to look by", "one or more")
        try:
            networks, roomy = endings.looked_up(parts, unit_V, prices_VK)
        except TooLargeError:
            raise UnprovenError("list", "too many endings at the same places", "rows and widths for fewer") from None
        self._look_at(networks)
        return roomy

    def _endings(self, search: Search, stored: Mapping[str, Any], vectors: _Vectors) -> Endings:
        """What networks above the bound may have chosen in some groups."""
        rows, widths = stored["rows"], stored["widths"]
        is_whole = all(type(n) is int for n in (*rows, *widths)) and len(set(rows)) == len(rows) == len(widths)
        num_rows = len(search.limit_K)
        if not is_whole or not all(0 <= i < num_rows for i in rows) or not all(1 <= w <= WIDEST for w in widths):
            raise UnprovenError(
                "endings", f"rows {rows}, widths {widths}", f"different rows of {num_rows}, whole widths"
            )
        direction = Direction(tuple(rows), tuple(widths), *_of(vectors, [stored["by"]]))
        listed = Listed(search, tuple(sorted({self.group_of[int(p)] for p in stored["groups"]})))
        todo = [(stored["list"], search.everything())]
        while todo:
            node, parts = todo.pop()
            children = self._children(search, node, parts, vectors)
            if children is None:
                continue
            if not set(listed.left) <= set(children.left):
                raise UnprovenError("endings", f"choices beside groups {children.left}", f"in {listed.groups} alone")
            if children.left != listed.left:
                todo += _pieces(node, children)
                continue
            try:
                listed.add(children)
            except TooLargeError:
                raise UnprovenError("endings", f"more than {listed.most}", "fewer") from None
        return Endings(search, listed, direction)

    def _children(self, search: Search, node: Mapping[str, Any], parts: Parts, vectors: _Vectors) -> Parts | None:
        """What a list's node makes of its parts; None if nothing is left of them."""
        groups = [self.group_of[int(p)] for p in node.get("groups", [])]
        if len(set(groups)) != len(groups) or not set(groups) <= set(parts.left):
            raise UnprovenError("list", f"positions of groups {groups}", "some at which its parts have no choice yet")
        opened = search.opened(parts, *_of(vectors, node.get("by", [])))
        if opened is None:
            return None
        try:
            for group in groups:
                opened = opened.taking(group, MOST_LISTED)
        except TooLargeError:
            raise UnprovenError("list", f"more than {MOST_LISTED} parts of networks", "fewer") from None
        if len(opened) and not groups:
            raise UnprovenError("list", "no position", "one to take the choices of")
        return search.children(opened) if len(opened) else None

    def search(self, rows: Sequence[int], alive: list[list[int]]) -> Search:
        """The search for networks above the bound within some rows."""
        weights, constant = self.linear(alive)
        return Search(weights, constant, [(self.rows[k][0], self.rows[k][1][0][0]) for k in rows], alive)

    def breakable(self, alive: list[list[int]]) -> list[int]:
        """The rows that some choices break."""
        found = []
        for k, (entries, limit) in enumerate(self.rows):
            most = sum(max(row[c] for c in left) for row, left in zip(entries, alive, strict=True))
            if most > limit[0][0]:
                found.append(k)
        return found

    def margin(self, leaf: Mapping[str, Any], alive: list[list[int]]) -> int:
        """By how much the largest left side of a leaf is above what it would have to stay below."""
        listing = self._listing(leaf, alive)
        return listing.top - listing.needed

    def _listing(self, leaf: Mapping[str, Any], alive: list[list[int]]) -> "Listing":
        value, unit = int(leaf["value"]), int(leaf["unit"])
        prices = {int(k): int(n) for k, n in leaf["prices"].items()}
        multiples = {int(k): int(m) for k, m in leaf.get("multiples", {}).items()}
        if value not in (0, 1) or unit <= 0 or any(n < 0 for n in prices.values()) or (self.bound is None and value):
            raise UnprovenError("leaf", leaf, "multipliers of 0 or more")
        if any(not 0 <= unit * m <= value * prices.get(k, 0) for k, m in multiples.items()):
            raise UnprovenError("leaf", leaf, "multiples of 0 or more, each at most its row's multiplier")
        weights, constant = self.linear(alive)
        return Listing(self, weights, constant, value, unit, prices, multiples, alive)

    def is_above(self, taken: Sequence[int]) -> bool:
        """Whether a network (one choice per group) is within the rows and above the bound, exactly."""
        choices = [0] * len(self.table.counts)
        for group, choice in zip(self.groups, taken, strict=True):
            for p in group:
                choices[p] = choice
        for entries, limit in self.rows:
            if sum(row[c] for row, c in zip(entries, taken, strict=True)) > limit[0][0]:
                return False
        if tuple(choices) in self.excluded:
            return False
        return self.bound is None or self.table.value(choices) > self.bound


def _of(vectors: _Vectors, named: list[int]) -> _Vectors:
    """Some of the vectors."""
    unit_U, prices_UK = vectors
    if any(type(v) is not int or not 0 <= v < len(unit_U) for v in named):
        raise UnprovenError("list", f"vectors {named}", f"numbers below {len(unit_U)}")
    return unit_U[named], prices_UK[named]


def _pieces(node: Mapping[str, Any], children: Parts | None) -> Iterable[tuple[Mapping[str, Any], Parts]]:
    """The lists that a list goes on in."""
    if children is None or not len(children):
        return ()
    pieces = node.get("pieces", [])
    if not pieces:
        raise UnprovenError("list", f"{len(children)} parts of networks", "a list that goes on with them")
    return zip(pieces, children.pieces(len(pieces)), strict=True)


def _exact_rows(rows: Sequence[Sequence[float]]) -> list[list[Fraction]]:
    return [[exactly(x) for x in row] for row in rows]


def _whole(tables: list[list[list[Fraction]]]) -> list[list[list[int]]]:
    """Numbers times their common denominator."""
    unit = 1
    for x in itertools.chain.from_iterable(row for table in tables for row in table):
        unit = math.lcm(unit, x.denominator)
    return [[[x.numerator * (unit // x.denominator) for x in row] for row in table] for table in tables]
