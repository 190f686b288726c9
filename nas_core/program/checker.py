"""Checks answers and their proofs. Shares no code with the solver, and reads a certificate by itself.

``python -m nas_core.program CERTIFICATE.json`` verifies a written one.

A certificate is JSON: ``problem`` (the stored form), ``status``, ``min_distance``,
``answers`` (networks best first, with their exact values) and ``proofs``. A proof
claims ``bound``: no network allowed beside the first ``beside`` answers has a higher
value (null: there is none at all). It holds a tree for every table:

    {"position": p, "branches": [[[choices...], tree], ...]}  the choices left at p, each in one branch
                                                              (at all positions that ``equal`` ties to p)
    {"value": 1 or 0, "unit": D, "prices": {"k": n, ...}}     a leaf: row k has the multiplier n / D >= 0
                                                              (and, if it says so, "multiples": {"k": m, ...})
    {"rows": [k...], "vectors": [[D, n...]...], "list": ...}  a leaf with many vectors of multipliers: a search
                                                              over lists of parts of networks, for which see below

The rows, each of the form a . x <= b, are: the upper then the lower side of every
budget, every rule but ``equal``, every earlier answer where networks are to differ
in several places (at most M - distance positions agree with it). A leaf claims that no
network of it is within the rows and above the bound. For any multipliers u >= 0
and such a network x,

    value w(x) + u . (b - a . x) > 0    (>= 0 where ``value`` is 0, and nothing is asked of w)

with w(x) > 0 exactly where x is above the bound. The left side is a sum over
positions, so its largest value is found position by position. If that is not above
0, the leaf is shown. More: w(x) and the rows are whole numbers, and so is
z(x) = w(x) + m . (b - a . x) for the whole ``multiples`` m >= 0 of a leaf, with z(x) >= w(x) within the
rows. If the choices left at each position differ in z by multiples of g, all z(x) have one
remainder, so above the bound z(x) is at least the least number above 0 with this remainder
(without multiples too), and

    z(x) + (u - m) . (b - a . x) >= that number,        where u >= m

takes the place of 0 (rounding as in Chvatal's and Gomory's cuts: where the values are the costs
plus tens, nothing else closes the gap). Else the networks that could be above 0 are listed position by
position, a part of one being dropped as soon as it falls to 0 or breaks a row; the
leaf is shown if none is left but forbidden networks and earlier answers.

Where many rows bind, one vector is not enough for all of a leaf, and a tree with one for each leaf is too long. A
leaf with a ``list`` replays a branch and bound over lists of parts of networks (``replay``):

    {"by": [v...], "groups": [p...], "pieces": [list...]}     the parts of a list are dropped by the named vectors and
                                                              by the rows; the others take every choice at the named
                                                              positions in turn, again dropped; what is left, cut into
                                                              as many pieces of equal length, goes on in these lists

A list of whole networks names nothing: each of them that may be above the bound is looked at. No list is longer than
``MOST_LISTED`` parts.

Half of the groups may be looked up (``lookup``). A leaf then lists first what networks above the bound may have chosen
in these, its ``endings``, by lists that take choices at their positions alone:

    {"groups": [p...], "list": list, "by": v, "rows": [i...], "widths": [w...]}

and lays them out by what they cost in some of the leaf's rows (``rows`` counts these), in cells of the widths, and by
what they lose by the vector v. A list with ``"look": [v...]``, whose parts after its positions have chosen everywhere
else, looks for endings beside them, every part by one of these vectors; its pieces are made of the parts that have too
many places to look at. The checker lists, joins and looks completely whatever rows, widths and vectors these are.

All numbers are integers (a decimal is what is printed) and nothing is rounded, but
for powers with a broken exponent, which are rounded against the claim at the 50th digit.
"""

import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, Inexact, localcontext
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nas_core.base.errors import NasError
from nas_core.program.lookup import WIDEST, Direction, Endings, Listed
from nas_core.program.replay import Parts, Search, TooLargeError, read_vectors

if TYPE_CHECKING:
    from nas_core.program.problem import SelectionProblem
    from nas_core.program.result import Selection

FORMAT = "mathnas certificate 1"
STATUSES = ("optimal", "feasible", "infeasible", "stopped")
OBJECTIVES = ("additive", "fractional", "ratio")
RULES = ("forbid", "require", "implies", "at_most", "equal")
MAX_STATES = 5_000_000  # parts of networks looked at together in one leaf
MOST_LISTED = 1_000_000  # parts of networks in one list
DIGITS = 60
LONGEST = 1_000  # digits that any sum of floats has at most
SAFE_DIGITS = Fraction(1, 10**50)  # relative: what a power is rounded by, against the claim
SAME_DIGITS = Fraction(1, 10**30)  # relative: values with a broken exponent that are called equal
INT64 = 1 << 62

Numbers = npt.NDArray[Any]  # int64, or Python integers where they do not fit
_Vectors = tuple[Numbers, Numbers]  # (unit [U], multipliers [U, K])


class UnverifiedSelectionError(NasError):
    """An answer contradicts the problem: the fault is ours, and the answer must not be used."""


class UnprovenError(NasError):
    """A certificate does not show what it claims."""


def exactly(number: float) -> Fraction:
    """The decimal that is printed for a number."""
    return Fraction(Decimal(repr(number)))


@dataclass(frozen=True)
class _Row:
    """sum of the entries of a network's blocks <= limit; entries [M][n_p]."""

    entries: list[list[Fraction]]
    limit: Fraction


class Checker:
    """One table of a problem, in its stored form."""

    def __init__(self, problem: Mapping[str, Any], resolution: int | None) -> None:
        tables = problem.get("resolutions") or [problem]
        self.table = next(table for table in tables if table.get("resolution") == resolution)
        self.problem, self.resolution = problem, resolution
        self.counts = [len(row) for row in self.table["score"]]
        self.objective = {"kind": "additive", "exponent": 1.0, **problem.get("objective", {})}
        self._check_words()

    def _check_words(self) -> None:
        """What a problem says in words and places; a word that is not known would be read as another."""
        exponent, kind = self.objective["exponent"], self.objective["kind"]
        if kind not in OBJECTIVES or (kind == "fractional" and not 0 <= exponent <= 1):
            raise UnprovenError("objective", f"{kind!r}, exponent {exponent}", f"{OBJECTIVES}, exponent 0 to 1")
        for rule in self.problem.get("rules", ()):
            if rule["kind"] not in RULES:
                raise UnprovenError("rule", repr(rule["kind"]), f"one of {RULES}")
        named = [rule.get("blocks", ()) for rule in self.problem.get("rules", ())]
        named += [pair["blocks"] for pair in self.problem.get("pairs", ())]
        for p, c in itertools.chain.from_iterable(named):
            if not (0 <= p < len(self.counts) and 0 <= c < self.counts[p]):
                raise UnprovenError("block", [p, c], f"a position and a choice below {self.counts}")

    # What one network is

    def choices(self, text: str) -> tuple[int, ...]:
        choices = tuple(map(int, text.partition("@")[0].split("-")))
        if len(choices) != len(self.counts) or any(not 0 <= c < n for c, n in zip(choices, self.counts, strict=True)):
            raise UnprovenError(f"network {text}", choices, f"one choice per position below {self.counts}")
        if text.partition("@")[0] != "-".join(map(str, choices)):  # else one network could be two answers
            raise UnprovenError(f"network {text}", "another spelling", "-".join(map(str, choices)))
        return choices

    def cost(self, resource: str, choices: Sequence[int]) -> Fraction:
        rows = self.table["costs"][resource]
        base = exactly(self.table.get("base_costs", {}).get(resource, 0.0))
        return base + _sum(row[c] for row, c in zip(rows, choices, strict=True))

    def gain(self, choices: Sequence[int]) -> Fraction:
        """Summed scores and pair terms."""
        rows = self.table["score"]
        gain = _sum(row[c] for row, c in zip(rows, choices, strict=True))
        for pair in self.problem.get("pairs", ()):
            (p, c), (q, d) = pair["blocks"]
            if choices[p] == c and choices[q] == d:
                gain += exactly(pair["value"])
        return gain

    def value(self, choices: Sequence[int]) -> Fraction:
        """The objective; rounded at the 60th digit where an exponent is broken."""
        base, gain = exactly(self.table.get("base_score", 0.0)), self.gain(choices)
        if self.is_additive:
            return base + gain
        total = self.cost(self.objective["resource"], choices)
        if self.objective["kind"] == "ratio":
            return (base + gain) / total
        return base + gain * power(exactly(self.objective["reference"]) / total, self._exponent)

    def broken(self, choices: Sequence[int]) -> list[str]:
        """What a network breaks, in words."""
        found = []
        for budget in self.problem.get("budgets", ()):
            total = self.cost(budget["resource"], choices)
            if budget.get("at_most") is not None and total > exactly(float(budget["at_most"])):
                found.append(f"{budget['resource']} <= {budget['at_most']!r} (is {float(total)!r})")
            if budget.get("at_least") is not None and total < exactly(float(budget["at_least"])):
                found.append(f"{budget['resource']} >= {budget['at_least']!r} (is {float(total)!r})")
        found += [f"rule {dict(rule)}" for rule in self.problem.get("rules", ()) if not _holds(rule, choices)]
        if any(tuple(choices) == other for other in self._forbidden()):
            found.append("the network is forbidden")
        return found

    @property
    def is_additive(self) -> bool:
        kind = self.objective["kind"]
        return kind == "additive" or (kind == "fractional" and float(self.objective["exponent"]) == 0)

    @property
    def is_exact(self) -> bool:
        """Whether values are fractions, and being above a bound is linear in the blocks: no broken exponent."""
        return self.is_additive or self.objective["kind"] == "ratio" or self._exponent == 1

    @property
    def _exponent(self) -> Fraction:
        return exactly(float(self.objective["exponent"]))

    def _forbidden(self) -> list[tuple[int, ...]]:
        found = []
        for text in self.problem.get("forbidden", ()):
            choices, at, resolution = text.partition("@")
            if not at or int(resolution) == self.resolution:
                found.append(tuple(map(int, choices.split("-"))))
        return found

    # What a tree claims

    def rows(self, earlier: Iterable[str], distance: int) -> list[_Row]:
        """Every row, in the order of the module's text."""
        rows = []
        for budget in self.problem.get("budgets", ()):
            costs = [[exactly(x) for x in row] for row in self.table["costs"][budget["resource"]]]
            base = exactly(self.table.get("base_costs", {}).get(budget["resource"], 0.0))
            if budget.get("at_most") is not None:
                rows.append(_Row(costs, exactly(float(budget["at_most"])) - base))
            if budget.get("at_least") is not None:
                negative = [[-x for x in row] for row in costs]
                rows.append(_Row(negative, base - exactly(float(budget["at_least"]))))
        rows += [self._rule_row(rule) for rule in self.problem.get("rules", ()) if rule["kind"] != "equal"]
        for text in earlier:
            least = distance - (_resolution(text) != self.resolution)
            if least > 1:
                rows.append(self._apart_row(self.choices(text), least))
        return rows

    def excluded(self, earlier: Iterable[str], distance: int) -> set[tuple[int, ...]]:
        """Whole networks that are not asked for: the forbidden ones and earlier answers."""
        same = {self.choices(text) for text in earlier if distance - (_resolution(text) != self.resolution) == 1}
        return same | set(self._forbidden())

    def _zeros(self) -> list[list[Fraction]]:
        return [[Fraction(0)] * n for n in self.counts]

    def _rule_row(self, rule: Mapping[str, Any]) -> _Row:
        entries, blocks = self._zeros(), [tuple(block) for block in rule.get("blocks", ())]
        if rule["kind"] == "at_most":
            for p, c in blocks:
                entries[p][c] += 1
            return _Row(entries, Fraction(rule.get("count", 1)))
        if rule["kind"] == "forbid":
            for p, c in set(blocks):
                entries[p][c] += 1
            return _Row(entries, Fraction(len(set(blocks)) - 1))
        if rule["kind"] == "implies":
            if blocks[0] not in blocks[1:]:
                entries[blocks[0][0]][blocks[0][1]] += 1
                for p, c in set(blocks[1:]):
                    entries[p][c] -= 1
            return _Row(entries, Fraction(0))
        for p, c in set(blocks):  # require
            entries[p][c] -= 1
        return _Row(entries, Fraction(-1))

    def _apart_row(self, other: Sequence[int], distance: int) -> _Row:
        entries = self._zeros()
        for p, c in enumerate(other):
            entries[p][c] += 1
        return _Row(entries, Fraction(len(self.counts) - distance))

    def ties(self) -> list[list[int]]:
        """Positions that ``equal`` rules join, each list in order."""
        joined: list[set[int]] = [{p} for p in range(len(self.counts))]
        for rule in self.problem.get("rules", ()):
            if rule["kind"] == "equal" and rule.get("positions"):
                union = set[int]().union(*(joined[p] for p in rule["positions"]))
                for p in union:
                    joined[p] = union
        return [list(group) for group in sorted({tuple(sorted(group)) for group in joined})]

    def check_tree(
        self, tree: Mapping[str, Any], bound: Fraction | None, earlier: Sequence[str], distance: int
    ) -> None:
        """Nothing, if the tree shows that no network of this table is within the rows and above the bound.

        Raises:
            UnprovenError: with the leaf that does not.
        """
        claim = Claim(self, bound, earlier, distance)
        self._descend(tree, claim, claim.everything())

    def _descend(self, tree: Mapping[str, Any], claim: "Claim", alive: list[list[int]]) -> None:
        todo = [(tree, alive)]
        while todo:
            node, alive = todo.pop()
            if "list" in node:
                claim.check_lists(node, alive)
                continue
            if "branches" not in node:
                claim.check_leaf(node, alive)
                continue
            group = claim.group_of[int(node["position"])]
            parts = [sorted(int(c) for c in choices) for choices, _ in node["branches"]]
            if sorted(itertools.chain(*parts)) != sorted(alive[group]):
                raise UnprovenError(f"branches at position {node['position']}", parts, f"the choices {alive[group]}")
            for part, (_, child) in zip(parts, node["branches"], strict=True):
                todo.append((child, [part if g == group else left for g, left in enumerate(alive)]))


class Claim:
    """No network of a table is above a bound: everything that its leaves share, as integers."""

    def __init__(
        self, checker: Checker, bound: Fraction | None, earlier: Sequence[str] = (), distance: int = 1
    ) -> None:
        self.checker, self.bound = checker, bound
        self.groups = checker.ties()
        self.group_of = {p: g for g, group in enumerate(self.groups) for p in group}
        rows = checker.rows(earlier, distance)
        self.excluded = checker.excluded(earlier, distance)
        self.rows = [_whole([self._grouped(row.entries), [[row.limit]]]) for row in rows]
        self.score, self.unit = self._grouped(_exact_rows(checker.table["score"])), Fraction(1)
        resource = checker.objective.get("resource")
        self.total = None if checker.is_additive else self._grouped(_exact_rows(checker.table["costs"][resource]))
        self.fixed = Fraction(0)
        if self.total is not None:
            self.fixed = exactly(checker.table.get("base_costs", {}).get(resource, 0.0))
            if self.fixed + sum(min(row) for row in self.total) <= 0:
                raise UnprovenError(f"total of {resource}", "a network at or below zero", "totals above zero")
        self.pairs: dict[tuple[int, int], list[tuple[int, int, Fraction]]] = {}
        for pair in checker.problem.get("pairs", ()):
            (p, c), (q, d) = sorted(map(tuple, pair["blocks"]))
            g, h = self.group_of[p], self.group_of[q]
            if g == h:
                if c == d and c < len(self.score[g]):
                    self.score[g][c] += exactly(pair["value"])
                continue
            self.pairs.setdefault((g, h), []).append((c, d, exactly(pair["value"])))
        self.pair_weights: dict[tuple[int, int], list[int]] = {}
        self._linear = self._whole_claim() if checker.is_exact else None

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
        base, objective = exactly(self.checker.table.get("base_score", 0.0)), self.checker.objective
        if self.bound is None:  # no network at all: nothing is asked of the value
            return Fraction(0), Fraction(0), Fraction(0)
        if self.checker.is_additive:
            return Fraction(0), base - self.bound, Fraction(1)
        if objective["kind"] == "ratio":
            return self.bound, base - self.bound * self.fixed, Fraction(1)
        reference, above = exactly(objective["reference"]), self.bound - base
        if self.checker._exponent == 1:  # gain reference / F > above
            return above, -above * self.fixed, reference
        assert alive is not None, "a broken exponent is looked at leaf by leaf"
        slope, at = self._line(alive, above, reference)  # gain > above (F / reference)^p
        return above * slope, -above * (slope * self.fixed + at), Fraction(1)

    def _line(self, alive: list[list[int]], above: Fraction, reference: Fraction) -> tuple[Fraction, Fraction]:
        """(slope, at): on a leaf, slope F + at is nowhere above (F / reference)^p, or nowhere below where above < 0."""
        assert self.total is not None, "the objective has a resource"
        p = self.checker._exponent
        ends = [[row[c] for c in left] for row, left in zip(self.total, alive, strict=True)]
        low, high = self.fixed + sum(map(min, ends)), self.fixed + sum(map(max, ends))
        if above >= 0:  # the chord of a concave function is below it
            at_low, at_high = (power(x / reference, p) * (1 - SAFE_DIGITS) for x in (low, high))
            slope = (at_high - at_low) / (high - low) if high > low else Fraction(0)
            return slope, at_low - slope * low
        middle = (low + high) / 2  # its tangent is above
        top = power(middle / reference, p) * (1 + SAFE_DIGITS)
        return p * top / middle, top * (1 - p)

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

    def _listing(self, leaf: Mapping[str, Any], alive: list[list[int]]) -> "_Listing":
        value, unit = int(leaf["value"]), int(leaf["unit"])
        prices = {int(k): int(n) for k, n in leaf["prices"].items()}
        multiples = {int(k): int(m) for k, m in leaf.get("multiples", {}).items()}
        if value not in (0, 1) or unit <= 0 or any(n < 0 for n in prices.values()) or (self.bound is None and value):
            raise UnprovenError("leaf", leaf, "multipliers of 0 or more")
        if any(not 0 <= unit * m <= value * prices.get(k, 0) for k, m in multiples.items()):
            raise UnprovenError("leaf", leaf, "multiples of 0 or more, each at most its row's multiplier")
        weights, constant = self.linear(alive)
        return _Listing(self, weights, constant, value, unit, prices, multiples, alive)

    def is_above(self, taken: Sequence[int]) -> bool:
        """Whether a network (one choice per group) is within the rows and above the bound, exactly."""
        choices = [0] * len(self.checker.counts)
        for group, choice in zip(self.groups, taken, strict=True):
            for p in group:
                choices[p] = choice
        for entries, limit in self.rows:
            if sum(row[c] for row, c in zip(entries, taken, strict=True)) > limit[0][0]:
                return False
        if tuple(choices) in self.excluded:
            return False
        return self.bound is None or self.checker.value(choices) > self.bound


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


class _Listing:
    """The networks of a leaf whose left side could be above 0."""

    def __init__(
        self,
        claim: Claim,
        weights: list[list[int]],
        constant: int,
        value: int,
        unit: int,
        prices: Mapping[int, int],
        multiples: Mapping[int, int],
        alive: list[list[int]],
    ) -> None:
        self.claim, self.alive, self.value = claim, alive, value
        self.prices = prices
        self.spare_prices = {k: price - unit * multiples.get(k, 0) for k, price in prices.items()}
        breakable = set(claim.breakable(alive))
        used = [k for k in range(len(claim.rows)) if prices.get(k) or k in breakable]
        self.side = [
            [value * unit * weights[g][c] - sum(prices.get(k, 0) * claim.rows[k][0][g][c] for k in used) for c in left]
            for g, left in enumerate(alive)
        ]
        if value and claim.pairs:
            self._add_pairs(unit)
        self.top = value * unit * constant + sum(prices.get(k, 0) * claim.rows[k][1][0][0] for k in used)
        self.top += sum(map(max, self.side))
        self.used = used
        # All of a leaf has this or more: the multiples' part is counted apart, so that ``top`` is the same without.
        self.needed = unit * self._least_above(weights, constant, multiples) if value else 0

    def _least_above(self, weights: list[list[int]], constant: int, multiples: Mapping[int, int]) -> int:
        """The least number above 0 that z can be; see the module."""
        rows = [(self.claim.rows[k], m) for k, m in multiples.items() if m]
        start = constant + sum(m * limit[0][0] for (_, limit), m in rows)
        step = math.gcd(*itertools.chain.from_iterable(self.claim.pair_weights.values())) if self.claim.pairs else 0
        for g, left in enumerate(self.alive):
            values = [weights[g][c] - sum(m * entries[g][c] for (entries, _), m in rows) for c in left]
            start += values[0]
            step = math.gcd(step, *(value - values[0] for value in values))
        if step == 0:
            return max(start, 1)
        return start % step or step

    def _add_pairs(self, unit: int) -> None:
        """A pair's terms counted at its first group, at their largest over what is left of the second."""
        for (g, h), terms in self.claim.pairs.items():
            values = dict.fromkeys(itertools.product(self.alive[g], self.alive[h]), 0)
            for (c, d, _), weight in zip(terms, self.claim.pair_weights[g, h], strict=True):
                if (c, d) in values:
                    values[c, d] += weight
            for i, c in enumerate(self.alive[g]):
                self.side[g][i] += unit * max(values[c, d] for d in self.alive[h])

    def networks(self, max_states: int, deadline: float) -> list[tuple[int, ...]] | None:
        """One choice per group; None if there are more parts than ``max_states`` at a time, or at the deadline."""
        if self.top < self.needed:
            return []
        order = sorted(range(len(self.alive)), key=lambda g: len(self._open(g)))
        rows = [self.claim.rows[k] for k in self.used]
        price_of = [self.prices.get(k, 0) for k in self.used]
        spare_of = [self.spare_prices.get(k, 0) for k in self.used]
        spread = sum(max(row) - min(row) for row in self.side) + abs(self.top)
        totals = [sum(max(abs(r[0][g][c]) for c in self.alive[g]) for g in order) + abs(r[1][0][0]) for r in rows]
        priced = sum(price * total for price, total in zip(price_of, totals, strict=True))
        kind: Any = np.int64 if 2 * (spread + 2 * priced + max(totals, default=0)) < INT64 else object
        loss = [np.array([max(self.side[g]) - x for x in self.side[g]], dtype=kind) for g in order]
        cost = [
            np.array([[r[0][g][c] for r in rows] for c in self.alive[g]], dtype=kind).reshape(
                len(self.alive[g]), len(rows)
            )
            for g in order
        ]
        limit = np.array([r[1][0][0] for r in rows], dtype=kind)
        least_after = _after([block.min(axis=0) for block in cost], len(rows), kind)
        most_after = _after([block.max(axis=0) for block in cost], len(rows), kind)
        spare_prices = np.array(spare_of, dtype=kind)
        lost, spent = np.zeros(1, dtype=kind), np.zeros((1, len(rows)), dtype=kind)
        trail: list[tuple[Numbers, Numbers]] = []
        merge = len(rows) == 1 and self._is_told_by_worth
        for i, g in enumerate(order):
            if len(lost) * len(self.alive[g]) > max_states or time.monotonic() > deadline:
                return None
            now = (lost[:, None] + loss[i][None, :]).ravel()
            then = (spent[:, None, :] + cost[i][None, :, :]).reshape(len(now), len(rows))
            spare = limit - then - most_after[i + 1]  # at least this slack is left at the end
            left = self.top - now - (np.maximum(spare, 0) * spare_prices).sum(axis=1)
            keep = (left >= self.needed) & (then + least_after[i + 1] <= limit).all(axis=1)
            kept = np.flatnonzero(keep)
            if merge and len(kept):
                kept = _best_by_cost(kept, now, then[:, 0], int(price_of[0]))
            lost, spent = now[kept], then[kept]
            trail.append((kept // len(self.alive[g]), kept % len(self.alive[g])))
            if not len(lost):
                return []
        return self._spell(order, trail, len(lost))

    @property
    def _is_told_by_worth(self) -> bool:
        """Whether the cheaper of two parts that is worth no less stands for both.

        Not where being above the bound is no matter of the worth: where the leaf leaves the value out,
        where a power makes the worth a mere limit, where networks are told apart one by one.
        """
        claim = self.claim
        is_value = claim.bound is None or (bool(self.value) and claim.checker.is_exact)
        return is_value and not claim.pairs and not claim.excluded

    def _open(self, g: int) -> list[int]:
        """Choices of a group that the whole bound does not exclude by themselves."""
        best = max(self.side[g])
        return [c for c, s in zip(self.alive[g], self.side[g], strict=True) if self.top - (best - s) >= self.needed]

    def _spell(self, order: list[int], trail: list[tuple[Numbers, Numbers]], count: int) -> list[tuple[int, ...]]:
        state, chosen = np.arange(count), {}
        for g, (parent, choice) in zip(reversed(order), reversed(trail), strict=True):
            chosen[g] = [self.alive[g][c] for c in choice[state].tolist()]
            state = parent[state]
        return list(zip(*(chosen[g] for g in range(len(order))), strict=True))


def _after(blocks: list[Numbers], width: int, kind: Any) -> list[Numbers]:
    """[G + 1] sums over this and all later groups."""
    sums = [np.zeros(width, dtype=kind)]
    for block in reversed(blocks):
        sums.append(sums[-1] + block)
    return sums[::-1]


def _best_by_cost(kept: Numbers, lost: Numbers, spent: Numbers, price: int) -> Numbers:
    """One row: of two parts the cheaper one that is worth no less is enough."""
    worth = price * spent[kept] - lost[kept]  # without what slack is worth
    order = np.lexsort((-worth, spent[kept])) if worth.dtype != object else np.argsort(spent[kept], kind="stable")
    sorted_worth = worth[order]
    before = np.maximum.accumulate(sorted_worth)
    is_best = np.concatenate([[True], sorted_worth[1:] > before[:-1]])
    best: Numbers = kept[order[is_best.astype(bool)]]
    return best


def power(base: Fraction, exponent: Fraction) -> Fraction:
    """base^exponent: exactly for a whole exponent, else to about 60 digits."""
    if exponent.denominator == 1:
        return base**exponent.numerator
    with localcontext() as context:
        context.prec = DIGITS
        return Fraction(_decimal(base) ** _decimal(exponent))


def _sum(numbers: Iterable[float]) -> Fraction:
    """The exact sum of the decimals that are printed."""
    with localcontext() as context:
        context.prec, context.traps[Inexact] = 2 * LONGEST, True
        return Fraction(sum(map(_printed, numbers), Decimal(0)))


@lru_cache(maxsize=1 << 16)
def _printed(number: float) -> Decimal:
    return Decimal(repr(number))


def _decimal(number: Fraction) -> Decimal:
    return Decimal(number.numerator) / Decimal(number.denominator)


def _exact_rows(rows: Sequence[Sequence[float]]) -> list[list[Fraction]]:
    return [[exactly(x) for x in row] for row in rows]


def _whole(tables: list[list[list[Fraction]]]) -> list[list[list[int]]]:
    """Numbers times their common denominator."""
    unit = 1
    for x in itertools.chain.from_iterable(row for table in tables for row in table):
        unit = math.lcm(unit, x.denominator)
    return [[[x.numerator * (unit // x.denominator) for x in row] for row in table] for table in tables]


def _holds(rule: Mapping[str, Any], choices: Sequence[int]) -> bool:
    taken = [choices[p] == c for p, c in rule.get("blocks", ())]
    match rule["kind"]:
        case "forbid":
            return not all(taken)
        case "require":
            return any(taken)
        case "implies":
            return not taken[0] or any(taken[1:])
        case "at_most":
            return bool(sum(taken) <= rule.get("count", 1))
    return len({choices[p] for p in rule.get("positions", ())}) <= 1


# Answers


def verify(problem: "SelectionProblem", selection: "Selection") -> "Selection":
    """The selection itself, if it is a network of the problem, allowed, and worth what it says.

    Raises:
        UnverifiedSelectionError: otherwise, naming every limit and rule it breaks.
    """
    return verifier(problem)(selection)


def verifier(problem: "SelectionProblem") -> Callable[["Selection"], "Selection"]:
    """``verify`` for many selections of one problem."""
    known = [table.resolution for table in problem.tables]
    checkers: dict[int | None, Checker] = {}

    def verify(selection: "Selection") -> "Selection":
        genotype, where = selection.genotype, f"selection {selection.genotype}"
        if genotype.resolution not in known:
            raise UnverifiedSelectionError(where, f"resolution {genotype.resolution}", f"one of {known}")
        if genotype.resolution not in checkers:
            checkers[genotype.resolution] = Checker(_Stored(problem), genotype.resolution)
        checker, counts = checkers[genotype.resolution], problem.num_choices
        choices = genotype.choices
        if len(choices) != len(counts) or any(not 0 <= c < n for c, n in zip(choices, counts, strict=True)):
            raise UnverifiedSelectionError(where, choices, f"one choice per position below {counts}")
        broken = checker.broken(choices)
        if broken:
            raise UnverifiedSelectionError(where, "; ".join(broken), "a network within every limit and rule")
        value = float(checker.value(choices))
        costs = {name: float(checker.cost(name, choices)) for name in problem.resources}
        if (selection.value, dict(selection.costs)) != (value, costs):
            raise UnverifiedSelectionError(where, selection, f"value {value!r}, costs {costs}")
        return selection

    return verify


class _Stored(dict[str, Any]):
    """A problem's stored form, its numbers left where they are."""

    def __init__(self, problem: "SelectionProblem") -> None:
        super().__init__(
            resolutions=[
                {
                    "resolution": table.resolution,
                    "score": table.score,
                    "base_score": table.base_score,
                    "costs": table.costs,
                    "base_costs": table.base_costs,
                }
                for table in problem.tables
            ],
            budgets=[{"resource": b.resource, "at_most": b.at_most, "at_least": b.at_least} for b in problem.budgets],
            rules=[rule.as_dict() for rule in problem.rules],
            objective={
                "kind": problem.objective.kind,
                "resource": problem.objective.resource,
                "reference": problem.objective.reference,
                "exponent": problem.objective.exponent,
            },
            forbidden=list(map(str, problem.forbidden)),
            pairs=[{"blocks": blocks, "value": value} for blocks, value in problem.pairs.items()],
        )


def check_certificate(data: Mapping[str, Any]) -> list[str]:
    """What a certificate shows, a line each; nothing in it is believed.

    Raises:
        UnprovenError: if anything it claims is not so.
    """
    if data.get("format") != FORMAT:
        raise UnprovenError("certificate", repr(data.get("format")), repr(FORMAT))
    problem, distance = data["problem"], int(data["min_distance"])
    if distance < 1:
        raise UnprovenError("min_distance", distance, "1 or more")
    lines, names = [], [answer["genotype"] for answer in data["answers"]]
    for i, answer in enumerate(data["answers"]):
        lines.append(_check_answer(problem, answer, names[:i], distance))
    lines += [_check_proof(problem, proof, names, distance) for proof in data["proofs"]]
    _check_status(data)
    return lines


def _check_answer(problem: Mapping[str, Any], answer: Mapping[str, Any], earlier: list[str], distance: int) -> str:
    name = answer["genotype"]
    checker = Checker(problem, _resolution(name))
    choices = checker.choices(name)
    broken = checker.broken(choices)
    broken += [f"{name} is too near to {other}" for other in earlier if not _is_apart(name, other, distance)]
    if broken:
        raise UnprovenError(f"answer {name}", "; ".join(broken), "an allowed network")
    value, claimed = checker.value(choices), Fraction(answer["value"])
    if abs(value - claimed) > rounded_by(problem, value, SAME_DIGITS):
        raise UnprovenError(f"answer {name}", f"value {answer['value']}", str(value))
    return f"{name} is allowed and worth {float(value)!r}"


def _check_proof(problem: Mapping[str, Any], proof: Mapping[str, Any], names: Sequence[str], distance: int) -> str:
    bound = None if proof["bound"] is None else Fraction(proof["bound"])
    earlier = names[: int(proof["beside"])]
    labels = [table.get("resolution") for table in problem.get("resolutions") or [{}]]
    trees = {tree["resolution"]: tree["tree"] for tree in proof["tables"]}
    if set(trees) != set(labels) or len(proof["tables"]) != len(labels):
        raise UnprovenError("proof", f"trees for {sorted(map(str, trees))}", f"one for each of {labels}")
    for label in labels:
        Checker(problem, label).check_tree(trees[label], bound, earlier, distance)
    beside = (
        f" beside {', '.join(earlier)}"
        if 0 < len(earlier) <= 3
        else f" beside the first {len(earlier)}" * bool(earlier)
    )
    if bound is None:
        return f"no network is allowed{beside}"
    return f"no allowed network{beside} is worth more than {float(bound)!r}"


def _check_status(data: Mapping[str, Any]) -> None:
    """Optimal: each answer attains a proof's bound. Infeasible: a proof that there is no network.

    Feasible claims an answer and nothing of others; stopped claims nothing.
    """
    answers, distance, status = data["answers"], int(data["min_distance"]), data["status"]
    if status not in STATUSES or bool(answers) != (status in ("optimal", "feasible")):
        raise UnprovenError(
            "status", f"{status!r} with {len(answers)} answers", f"one of {STATUSES}, answers if it has"
        )
    if status in ("feasible", "stopped"):
        return
    bounds = {int(proof["beside"]): proof["bound"] for proof in data["proofs"]}
    if status == "infeasible":
        if bounds.get(0, 0) is not None:
            raise UnprovenError("status infeasible", f"{len(answers)} answers", "a proof that no network is allowed")
        return
    values = [Fraction(answer["value"]) for answer in answers]
    if values != sorted(values, reverse=True):
        raise UnprovenError("status optimal", f"values {list(map(float, values))}", "answers, the best first")
    # Where networks need not be apart, all that is above the last answer being among the answers is enough.
    needed = [len(values) - 1] if distance == 1 else range(len(values))
    reached = [value + rounded_by(data["problem"], value, SAME_DIGITS) for value in values]
    for i in needed:
        if i not in bounds or (bounds[i] is not None and Fraction(bounds[i]) > reached[i]):
            raise UnprovenError(f"answer {answers[i]['genotype']}", f"bound {bounds.get(i, 'none')}", "its own value")


def rounded_by(problem: Mapping[str, Any], value: Fraction, digits: Fraction) -> Fraction:
    """How far off a value may be: nothing where values are fractions, else ``digits`` of what the power gives."""
    checkers = [Checker(problem, table.get("resolution")) for table in problem.get("resolutions") or [problem]]
    if all(checker.is_exact for checker in checkers):
        return Fraction(0)
    return digits * max(abs(value - exactly(checker.table.get("base_score", 0.0))) for checker in checkers)


def _resolution(name: str) -> int | None:
    _, at, text = name.partition("@")
    if at and text != str(int(text)):
        raise UnprovenError(f"network {name}", "another spelling", str(int(text)))
    return int(text) if at else None


def _is_apart(name: str, other: str, distance: int) -> bool:
    first, second = (text.partition("@")[0].split("-") for text in (name, other))
    return (
        sum(a != b for a, b in zip(first, second, strict=True)) + (_resolution(name) != _resolution(other)) >= distance
    )


def main(paths: Sequence[str]) -> int:
    """Print what the certificates in the given files show; 1 if one does not show what it claims."""
    if not paths or {"-h", "--help"} & set(paths):
        print("usage: python -m nas_core.program CERTIFICATE.json ...", file=sys.stdout if paths else sys.stderr)
        return 0 if paths else 2
    for path in paths:
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
            for line in check_certificate(data):
                print(line)
        except UnprovenError as error:
            print(f"{path}: REFUSED: {error}", file=sys.stderr)
            return 1
        except Exception as error:  # a file from anywhere may be wrong in any way
            print(f"{path}: not a certificate: {error!r}", file=sys.stderr)
            return 2
        print(f"{path}: {data['status']}, as shown")
    return 0
