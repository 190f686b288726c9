"""One table of a stored problem as the checker reads it: fractions, of the decimals that are printed."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, Inexact, localcontext
from fractions import Fraction
from functools import lru_cache
from typing import Any

from nas_core.base.errors import NasError

OBJECTIVES = ("additive", "fractional", "ratio")
RULES = ("forbid", "require", "implies", "at_most", "equal")
DIGITS = 60
LONGEST = 1_000  # digits that any sum of floats has at most


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


class ExactTable:
    """What one network is worth and costs, and what it must hold to, in a table of a stored problem."""

    def __init__(self, problem: Mapping[str, Any], resolution: int | None) -> None:
        tables = problem.get("resolutions") or [problem]
        self.stored = next(table for table in tables if table.get("resolution") == resolution)
        self.problem, self.resolution = problem, resolution
        self.counts = [len(row) for row in self.stored["score"]]
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
        rows = self.stored["costs"][resource]
        base = exactly(self.stored.get("base_costs", {}).get(resource, 0.0))
        return base + _sum(row[c] for row, c in zip(rows, choices, strict=True))

    def gain(self, choices: Sequence[int]) -> Fraction:
        """Summed scores and pair terms."""
        rows = self.stored["score"]
        gain = _sum(row[c] for row, c in zip(rows, choices, strict=True))
        for pair in self.problem.get("pairs", ()):
            (p, c), (q, d) = pair["blocks"]
            if choices[p] == c and choices[q] == d:
                gain += exactly(pair["value"])
        return gain

    def value(self, choices: Sequence[int]) -> Fraction:
        """The objective; rounded at the 60th digit where an exponent is broken."""
        base, gain = exactly(self.stored.get("base_score", 0.0)), self.gain(choices)
        if self.is_additive:
            return base + gain
        total = self.cost(self.objective["resource"], choices)
        if self.objective["kind"] == "ratio":
            return (base + gain) / total
        return base + gain * power(exactly(self.objective["reference"]) / total, self.power_exponent)

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
        return self.is_additive or self.objective["kind"] == "ratio" or self.power_exponent == 1

    @property
    def power_exponent(self) -> Fraction:
        return exactly(float(self.objective["exponent"]))

    def _forbidden(self) -> list[tuple[int, ...]]:
        found = []
        for text in self.problem.get("forbidden", ()):
            choices, at, resolution = text.partition("@")
            if not at or int(resolution) == self.resolution:
                found.append(tuple(map(int, choices.split("-"))))
        return found

    # What networks must hold to

    def rows(self, earlier: Iterable[str], distance: int) -> list[_Row]:
        """Every row, in the order of the module's text."""
        rows = []
        for budget in self.problem.get("budgets", ()):
            costs = [[exactly(x) for x in row] for row in self.stored["costs"][budget["resource"]]]
            base = exactly(self.stored.get("base_costs", {}).get(budget["resource"], 0.0))
            if budget.get("at_most") is not None:
                rows.append(_Row(costs, exactly(float(budget["at_most"])) - base))
            if budget.get("at_least") is not None:
                negative = [[-x for x in row] for row in costs]
                rows.append(_Row(negative, base - exactly(float(budget["at_least"]))))
        rows += [self._rule_row(rule) for rule in self.problem.get("rules", ()) if rule["kind"] != "equal"]
        for text in earlier:
            least = distance - (resolution_of(text) != self.resolution)
            if least > 1:
                rows.append(self._apart_row(self.choices(text), least))
        return rows

    def excluded(self, earlier: Iterable[str], distance: int) -> set[tuple[int, ...]]:
        """Whole networks that are not asked for: the forbidden ones and earlier answers."""
        same = {self.choices(text) for text in earlier if distance - (resolution_of(text) != self.resolution) == 1}
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


def resolution_of(name: str) -> int | None:
    """The part of a network's name behind ``@``."""
    _, at, text = name.partition("@")
    if at and text != str(int(text)):
        raise UnprovenError(f"network {name}", "another spelling", str(int(text)))
    return int(text) if at else None
