"""Rules between choices: what each means, for all who ask.

A rule is one linear row over blocks, or positions that are tied to each other;
whether a network satisfies it, whether a partial network still can, and which
of many networks do, all follow from ``Rule.row`` and ``Rule.tied``.
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from nas_core.base.errors import SpaceError

MOST_COUNTED = 100_000  # combinations of a set of positions that are gone through to count those allowed

BlockId = tuple[int, int]  # (position, choice)
RuleKind = Literal["forbid", "require", "implies", "at_most", "equal"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A linear rule between choices.

    ``forbid``: not all of ``blocks`` together (one block: never that block).
    ``require``: at least one of ``blocks``.
    ``implies``: if ``blocks[0]`` is taken, then one of ``blocks[1:]`` is.
    ``at_most``: at most ``count`` of ``blocks``; one named twice counts twice.
    ``equal``: every position in ``positions`` takes the same choice index.
    """

    kind: RuleKind
    blocks: tuple[BlockId, ...] = ()
    count: int = 1
    positions: tuple[int, ...] = ()

    @cached_property
    def row(self) -> tuple[Mapping[BlockId, int], int]:
        """(weights, limit): the weights of the blocks that are taken add up to the limit at most."""
        distinct = dict.fromkeys(self.blocks, 1)
        match self.kind:
            case "forbid":
                return distinct, len(distinct) - 1
            case "require":
                return dict.fromkeys(distinct, -1), -1
            case "implies":
                needed = dict.fromkeys(self.blocks[1:], -1)
                return ({}, 0) if self.blocks[0] in needed else ({self.blocks[0]: 1, **needed}, 0)
            case "at_most":
                return Counter(self.blocks), self.count
            case "equal":
                return {}, 0

    @cached_property
    def spans(self) -> frozenset[int]:
        """The positions that it is about."""
        return frozenset((*self.positions, *(position for position, _ in self.blocks)))

    @property
    def tied(self) -> tuple[int, ...]:
        """Positions that take the same choice."""
        return self.positions if self.kind == "equal" else ()

    def allows(self, choices: Sequence[int]) -> bool:
        """Whether a network satisfies the rule; of the first positions only, whether it still can, whatever follows."""
        known, (weights, limit) = len(choices), self.row
        least = sum(w for (p, choice), w in weights.items() if (choices[p] == choice if p < known else w < 0))
        return least <= limit and len({choices[p] for p in self.tied if p < known}) <= 1

    def check(self, num_choices: Sequence[int], where: str) -> None:
        """Raises SpaceError for a block or a position that a space of so many choices per position does not have."""
        where, last = f"{where}, rule {self.kind}", len(num_choices) - 1
        for position, choice in self.blocks:
            if not 0 <= position <= last:
                raise SpaceError(where, (position, choice), f"a position from 0 to {last} of the space")
            if not 0 <= choice < num_choices[position]:
                expected = f"a choice from 0 to {num_choices[position] - 1} at position {position} of the space"
                raise SpaceError(where, (position, choice), expected)
        if any(not 0 <= position <= last for position in self.positions):
            raise SpaceError(where, self.positions, f"positions from 0 to {last} of the space")

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "blocks": [list(block) for block in self.blocks],
            "count": self.count,
            "positions": list(self.positions),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Rule":
        blocks = tuple((int(p), int(c)) for p, c in data.get("blocks", ()))
        positions = tuple(int(p) for p in data.get("positions", ()))
        return cls(kind=data["kind"], blocks=blocks, count=int(data.get("count", 1)), positions=positions)


def allowed(rules: Sequence[Rule], codes_NP: np.ndarray) -> np.ndarray:
    """Which of N networks, a row of choices each, satisfy every rule; columns beyond the positions are ignored."""
    mask_N = np.ones(len(codes_NP), dtype=bool)
    for rule in rules:
        weights, limit = rule.row
        total_N = np.zeros(len(codes_NP), dtype=np.int64)
        for (position, choice), weight in weights.items():
            total_N += weight * (codes_NP[:, position] == choice)
        mask_N &= total_N <= limit
        for one, other in itertools.pairwise(rule.tied):
            mask_N &= codes_NP[:, one] == codes_NP[:, other]
    return mask_N


def count_allowed(rules: Sequence[Rule], num_choices: Sequence[int]) -> list[int]:
    """How many combinations of each set of positions that rules tie together are allowed: their product is the space's.

    Where there are more than MOST_COUNTED in a set, all are.
    """
    sets = [{position} for position in range(len(num_choices))]
    for rule in rules:
        joined = set().union(*(each for each in sets if each & rule.spans))
        sets = [each for each in sets if not each & rule.spans] + ([joined] if joined else [])
    found = []
    for each in sets:
        positions, counts = sorted(each), [num_choices[position] for position in sorted(each)]
        if math.prod(counts) > MOST_COUNTED:
            found.append(math.prod(counts))
            continue
        codes_NP = np.zeros((math.prod(counts), len(num_choices)), dtype=np.int64)
        codes_NP[:, positions] = np.indices(counts).reshape(len(counts), -1).T
        within = [rule for rule in rules if rule.spans <= each]
        found.append(int(allowed(within, codes_NP).sum()))
    return found


def absent_to_end(blocks: Sequence[BlockId]) -> tuple[Rule, ...]:
    """Rules that make depth optional: once absent, absent to the end of ``blocks`` (MathNAS Eq. 9).

    ``blocks`` are the absent blocks of consecutive positions, in order.
    """
    return tuple(Rule(kind="implies", blocks=pair) for pair in itertools.pairwise(blocks))
