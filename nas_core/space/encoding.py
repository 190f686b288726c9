"""Genotypes as arrays: integer codes, one-hot rows, whole spaces enumerated, rules as masks.

Axes: N networks, P places (the M positions, then the input resolution if the
space has several), D = all choices of all places, one one-hot column each.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from nas_core.records.evaluations import CostTable
from nas_core.space.genotypes import Genotype, Rule, SearchSpace


@dataclass(frozen=True)
class Encoding:
    """The places of a space, how many choices each has, and which choices are the same block.

    ``labels`` numbers the distinct blocks, one entry per one-hot column of the
    positions; empty where all are distinct.
    """

    num_choices: tuple[int, ...]
    resolutions: tuple[int, ...] = ()  # empty unless the space has several
    labels: tuple[int, ...] = ()

    @classmethod
    def of(cls, space: SearchSpace) -> "Encoding":
        several = space.resolutions if len(space.resolutions) > 1 else ()
        blocks = [block for position in space.positions for block in position.blocks]
        number = {block: index for index, block in enumerate(dict.fromkeys(blocks))}
        return cls(space.num_choices, several, tuple(number[block] for block in blocks))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Choices per place."""
        return (*self.num_choices, len(self.resolutions)) if self.resolutions else self.num_choices

    @cached_property
    def offsets(self) -> np.ndarray:
        """First one-hot column of each place."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)

    @cached_property
    def place_of_column(self) -> np.ndarray:
        """Place of each one-hot column."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @cached_property
    def label_rows(self) -> np.ndarray:
        """One-hot rows of each column's distinct block; each resolution is a block of its own."""
        labels = list(self.labels) or list(range(sum(self.num_choices)))
        labels += [max(labels) + 1 + index for index in range(len(self.resolutions))]
        return np.asarray(np.eye(max(labels) + 1)[labels])

    @property
    def shares_blocks(self) -> bool:
        """Whether one block is offered at several positions."""
        return len(set(self.labels)) < len(self.labels)

    @property
    def num_columns(self) -> int:
        return sum(self.sizes)

    @property
    def num_networks(self) -> int:
        return math.prod(self.sizes)

    def encode(self, genotypes: Iterable[Genotype]) -> np.ndarray:
        rows = [
            (*g.choices, self.resolutions.index(g.resolution)) if self.resolutions else g.choices for g in genotypes
        ]
        return np.array(rows, dtype=np.int16).reshape(-1, len(self.sizes))

    def genotype(self, code_P: Sequence[int] | np.ndarray) -> Genotype:
        numbers = tuple(int(choice) for choice in code_P)
        if self.resolutions:
            return Genotype(numbers[:-1], self.resolutions[numbers[-1]])
        return Genotype(numbers)

    def one_hot(self, codes_NP: np.ndarray) -> np.ndarray:
        x_ND = np.zeros((len(codes_NP), self.num_columns))
        np.put_along_axis(x_ND, codes_NP.astype(np.int64) + self.offsets, 1.0, axis=1)
        return x_ND


@lru_cache(maxsize=4)
def all_codes(sizes: tuple[int, ...]) -> np.ndarray:
    """Every combination of choices, in lexicographic order; read-only since it is shared."""
    grids = np.meshgrid(*(np.arange(size, dtype=np.int16) for size in sizes), indexing="ij")
    codes_NP = np.stack([grid.ravel() for grid in grids], axis=1)
    codes_NP.setflags(write=False)
    return codes_NP


def allowed(rules: Sequence[Rule], codes_NP: np.ndarray) -> np.ndarray:
    """Which networks satisfy every rule; the vectorised twin of ``Rule.allows``."""
    mask_N = np.ones(len(codes_NP), dtype=bool)
    for rule in rules:
        mask_N &= _rule_mask(rule, codes_NP)
    return mask_N


def _rule_mask(rule: Rule, codes_NP: np.ndarray) -> np.ndarray:
    blocks_B2 = np.array(rule.blocks, dtype=np.int64).reshape(-1, 2)
    taken_NB = codes_NP[:, blocks_B2[:, 0]] == blocks_B2[:, 1]
    match rule.kind:
        case "forbid":
            mask_N = ~taken_NB.all(axis=1)
        case "require":
            mask_N = taken_NB.any(axis=1)
        case "implies":
            mask_N = ~taken_NB[:, 0] | taken_NB[:, 1:].any(axis=1)
        case "at_most":
            mask_N = taken_NB.sum(axis=1) <= rule.count
        case "equal":
            mask_N = (codes_NP[:, list(rule.positions)] == codes_NP[:, [rule.positions[0]]]).all(axis=1)
    return np.asarray(mask_N)


def totals(costs: CostTable, codes_NP: np.ndarray) -> np.ndarray:
    """Cost of every network, in the resource's unit; equal to ``costs.total`` of each."""
    total_N = np.full(len(codes_NP), costs.fixed)
    for position, prices in enumerate(costs.block):
        total_N += np.asarray(prices)[codes_NP[:, position]]
    return total_N
