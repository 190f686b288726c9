"""Local search over whole structures with the exact evaluator: turns a relaxed point into a good feasible structure."""

import itertools
import time

import numpy as np

from nas_core.deepmad.concave import Layout
from nas_core.deepmad.domain import Domain, Limits, limit_values, usages, within
from nas_core.deepmad.formulas import Batch, Floats, Ints, Objective

VIOLATION_PRICE = 1.0e6  # score per unit of relative violation while no feasible structure is at hand
CHANNEL_MOVES = (-3, -2, -1, 1, 2, 3)  # steps
DEPTH_MOVES = (-2, -1, 1, 2)
SINGLE_ROUNDS = 60
SHAKE_MOVES = 6  # at most, per change

# A structure as one row of integers: stem, outs, bottlenecks, kernels, depths (V' = 1 + 4 S).


def to_batch(domain: Domain, rows: Ints) -> Batch:
    """Rows of integers (R x V') as a batch."""
    S = domain.skeleton.num_blocks
    columns = np.ascontiguousarray(rows.T)
    return Batch(
        skeleton=domain.skeleton,
        stem_B=columns[0],
        out_SB=columns[1 : 1 + S],
        bottleneck_SB=columns[1 + S : 1 + 2 * S],
        kernel_SB=columns[1 + 2 * S : 1 + 3 * S],
        depth_SB=columns[1 + 3 * S :],
    )


def least_row(domain: Domain) -> Ints:
    """The row none of whose numbers can be smaller in any structure of the domain.

    Every rule says that one number is at least a growing function of another,
    so raising what breaks a rule ends in this row, or above a range, where the
    domain has no structure.
    """
    S, above = domain.skeleton.num_blocks, domain.multiple_above
    ranges = [domain.stem, *(b.out for b in domain.blocks), *(b.bottleneck for b in domain.blocks)]
    row = [above(low) for low, _ in ranges]
    before: list[int] = []
    while row != before and all(value <= high for value, (_, high) in zip(row, ranges, strict=True)):
        before = list(row)
        for i in range(S):
            c, o, b = i, 1 + i, 1 + S + i
            row[o] = max(row[o], row[c] if domain.monotone else 0, above(row[b] / domain.wide))
            row[b] = max(row[b], above(domain.narrow * row[o]))
            row[c] = max(row[c], above(row[o] / domain.growth) if domain.growth is not None else 0)
    row += [block.kernels[0] for block in domain.blocks] + [block.depth[0] for block in domain.blocks]
    return np.array(row, dtype=np.int64)


def round_point(domain: Domain, layout: Layout, x_V: Floats, low_V: Floats, high_V: Floats) -> Ints:
    """A relaxed point as integers: everything to the nearest value of the domain and the box."""
    S = layout.num_blocks
    x = np.clip(x_V, low_V, high_V)
    channels = np.maximum(1, np.rint(np.exp(x[: 1 + 2 * S]) / domain.step)).astype(np.int64) * domain.step
    kernels = []
    for i, block in enumerate(domain.blocks):
        value = np.exp(x[layout.kernel(i)])
        kernels.append(min(block.kernels, key=lambda k: abs(np.log(k) - np.log(value))))
    depths = np.rint(x[layout.depths]).astype(np.int64)
    return np.concatenate([channels, np.array(kernels, dtype=np.int64), depths])


class Polisher:
    """Steepest ascent over single moves, then pairs, within the domain; counts violations while infeasible."""

    def __init__(self, domain: Domain, limits: Limits, objective: Objective) -> None:
        self.domain, self.limits, self.objective = domain, limits, objective
        S = domain.skeleton.num_blocks
        self.num_channels = 1 + 2 * S
        blocks = domain.blocks
        ranges = [domain.stem, *(b.out for b in blocks), *(b.bottleneck for b in blocks)]
        ends = [(domain.multiple_above(lo), domain.multiple_below(hi)) for lo, hi in ranges]
        ends += [(b.kernels[0], b.kernels[-1]) for b in blocks] + [b.depth for b in blocks]
        self.low, self.high = np.array([e[0] for e in ends]), np.array([e[1] for e in ends])
        self.kernels = [np.array(b.kernels) for b in blocks]
        self.singles = self._singles()
        pairs = [a + b for a, b in itertools.combinations(self.singles, 2) if not (a * b).any()]
        self.pairs = np.array(pairs)

    def _singles(self) -> Ints:
        size, rows = len(self.low), []
        for v in range(size):
            is_kernel = self.num_channels <= v < self.num_channels + len(self.kernels)
            moves: tuple[int, ...]
            if v < self.num_channels:
                moves = tuple(m * self.domain.step for m in CHANNEL_MOVES)
            else:
                moves = (-2, 2) if is_kernel else DEPTH_MOVES
            if self.low[v] == self.high[v]:
                continue
            for move in moves:
                row = np.zeros(size, dtype=np.int64)
                row[v] = move
                rows.append(row)
        return np.array(rows).reshape(-1, size)

    def repair(self, row: Ints) -> Ints:
        """The nearest row whose ranges and ratios hold, channel by channel from the stem on."""
        domain, S = self.domain, self.domain.skeleton.num_blocks
        row = np.clip(row, self.low, self.high)
        for i in range(S):
            c, o, b = row[i], row[1 + i], row[1 + S + i]
            if domain.monotone:
                o = max(o, c)
            if domain.growth is not None:
                o = min(o, domain.multiple_below(domain.growth * c))
            row[1 + i] = o = int(np.clip(o, self.low[1 + i], self.high[1 + i]))
            b = min(max(b, domain.multiple_above(domain.narrow * o)), domain.multiple_below(domain.wide * o))
            row[1 + S + i] = int(np.clip(b, self.low[1 + S + i], self.high[1 + S + i]))
        return row

    def values(self, rows: Ints) -> Floats:
        """Score minus priced violations of the limits; -inf outside the domain."""
        inside = ((rows >= self.low) & (rows <= self.high)).all(axis=1)
        S = self.domain.skeleton.num_blocks
        for i, allowed in enumerate(self.kernels):
            inside &= np.isin(rows[:, 1 + 2 * S + i], allowed)
        value = np.full(len(rows), -np.inf)
        batch = to_batch(self.domain, rows[inside])
        found = self.objective.score(batch)
        limit = limit_values(self.limits)
        for name, used_B in usages(batch, self.limits).items():
            with np.errstate(invalid="ignore"):
                over = np.maximum(used_B / limit[name] - 1.0, 0.0)
            found = found - VIOLATION_PRICE * np.where(over > (1e-12 if name == "rho" else 0.0), over + 1e-3, 0.0)
        value[inside] = np.where(self.domain.inside(batch), found, -np.inf)
        return value

    def climb(self, row: Ints) -> tuple[Ints, float, bool]:
        """The best row found from ``row``, its value, and whether it keeps every limit."""
        row = self.repair(row)
        best = float(self.values(row[None])[0])
        if not len(self.singles):
            return row, best, self.feasible(row)
        for _ in range(SINGLE_ROUNDS):
            moved = False
            for moves in (self.singles, self.pairs):
                trial = row + moves
                value = self.values(trial) if len(trial) else np.array([-np.inf])
                top = int(np.argmax(value))
                if value[top] > best + 1e-9:
                    row, best, moved = trial[top], float(value[top]), True
                    break
            if not moved:
                break
        return row, best, self.feasible(row)

    def shake(self, row: Ints, rounds: int, rng: np.random.Generator, until_cpu_s: float = np.inf) -> Ints:
        """The best feasible row of ``rounds`` climbs from random changes of the best so far; fewer if time is up."""
        best, value = row, float(self.values(row[None])[0])
        for _ in range(rounds):
            if time.process_time() > until_cpu_s:
                break
            moves = self.singles[rng.integers(len(self.singles), size=int(rng.integers(2, SHAKE_MOVES + 1)))]
            found, score, feasible = self.climb(best + moves.sum(axis=0))
            if feasible and score > value:
                best, value = found, score
        return best

    def feasible(self, row: Ints) -> bool:
        """Whether the row is in the domain and within every limit, exactly."""
        batch = to_batch(self.domain, row[None])
        return bool(self.values(row[None])[0] > -np.inf and within(batch, self.limits)[0])
