"""The authors' evolution on the closed forms, many restarts side by side: the peer that the solver is measured against.

Written from the behaviour of the authors' code (TinyNAS, Apache-2.0): a
population of 256, parents drawn uniformly, two mutations per child, children
within the limits kept, the best 256 distinct ones survive. As released it
never mutates the last part of the list (``fixed=False``). Children of one
generation (256 per restart) all come from the population at its start, as they
do between two synchronisations of the authors' parallel launcher.

Axes: P = restarts x population, flattened; V' = columns of ``polish`` rows.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas_core.deepmad.domain import Domain, Limits, within
from nas_core.deepmad.formulas import Floats, Ints, Objective
from nas_core.deepmad.polish import to_batch
from nas_core.deepmad.structure import Structure

POPULATION = 256
ROUND_TO = 8
MUTATIONS_PER_CHILD = 2
CHANNEL_SCALES = {"resnet": np.array([1.5, 1.25, 0.8, 0.6, 0.5]), "mobilenet": np.arange(0.5, 2.01, 0.1)}
BOTTLENECK_RATIOS = np.arange(1.5, 6.01, 0.1)  # MobileNet family
DEPTH_CHANGES = np.array([-2, -1, 1, 2])
OUT, KERNEL, BOTTLENECK, DEPTH = range(4)


@dataclass(frozen=True, kw_only=True)
class Evolved:
    """``best_R``: final best score of every restart; ``rows``: its structures; ``curve``: CPU seconds, best of all."""

    best_R: Floats
    rows: Ints
    curve: tuple[tuple[float, float], ...]
    cpu_s: float


def smart_round(value: Floats) -> Ints:
    """To the nearest multiple of 8, at least 8, halves to even."""
    return np.maximum(ROUND_TO, np.rint(value / ROUND_TO).astype(np.int64) * ROUND_TO)


def to_row(structure: Structure) -> Ints:
    """The structure as integers: stem, outs, bottlenecks, kernels, depths."""
    blocks = structure.blocks
    fields = ("out", "bottleneck", "kernel", "depth")
    return np.array([structure.stem, *(getattr(b, f) for f in fields for b in blocks)], dtype=np.int64)


class Evolution:
    """The evolution's rules for one domain, start and variant."""

    def __init__(self, domain: Domain, limits: Limits, objective: Objective, start: Structure, *, fixed: bool) -> None:
        self.domain, self.limits, self.objective = domain, limits, objective
        self.S = domain.skeleton.num_blocks
        self.family = domain.skeleton.family
        self.start = to_row(start)
        self.top = domain.blocks[0].out[1]
        parts = 1 + self.S + (domain.skeleton.head is not None)
        self.num_choices = parts if fixed else parts - 1  # the released code's upper end is exclusive twice
        self.kernels = [np.array(block.kernels) for block in domain.blocks]
        self.all_kernels = np.array([3, 5] if self.family == "resnet" else [3, 5, 7])

    def run(
        self, restarts: int, candidates: int, seed: int, report: Callable[[float, float], None] | None = None
    ) -> Evolved:
        """``candidates`` children per restart; the same seed gives the same answer."""
        rng = np.random.default_rng(seed)
        begin, curve = time.process_time(), []
        rows = np.tile(self.start, (restarts, POPULATION, 1))
        score = np.full((restarts, POPULATION), -np.inf)
        score[:, 0] = self._rate(rows[:1, 0])[0]
        for _ in range(-(-candidates // POPULATION)):
            alive = np.isfinite(score).sum(axis=1)
            parent = (rng.random((restarts, POPULATION)) * alive[:, None]).astype(np.int64)
            children = np.take_along_axis(rows, parent[:, :, None], axis=1).reshape(-1, rows.shape[2])
            for _ in range(MUTATIONS_PER_CHILD):
                self._mutate(children, rng)
            rated = self._rate(children).reshape(restarts, POPULATION)
            rows, score = _survive(rows, score, children.reshape(rows.shape), rated)
            curve.append((time.process_time() - begin, float(score.max())))
            if report is not None:
                report(*curve[-1])
        return Evolved(best_R=score[:, 0], rows=rows[:, 0], curve=tuple(curve), cpu_s=time.process_time() - begin)

    def _rate(self, rows: Ints) -> Floats:
        """Scores; -inf over a limit."""
        batch = to_batch(self.domain, rows)
        return np.where(within(batch, self.limits), self.objective.score(batch), -np.inf)

    def _mutate(self, rows: Ints, rng: np.random.Generator) -> None:
        """One mutation of every row, in place: a part drawn uniformly, then a field of it."""
        part = rng.integers(self.num_choices, size=len(rows))
        field = rng.integers(4, size=len(rows))
        self._mutate_stem(rows, np.flatnonzero(part == 0), rng)
        for i in range(self.S):
            mine = part == i + 1
            for kind, change in (
                (OUT, self._out),
                (KERNEL, self._kernel),
                (BOTTLENECK, self._bottleneck),
                (DEPTH, self._depth),
            ):
                chosen = np.flatnonzero(mine & (field == kind))
                if len(chosen):
                    change(rows, chosen, i, rng)
            if self.family == "resnet":
                self._lift_bottleneck(rows, np.flatnonzero(mine), i)
        for i, allowed in enumerate(self.kernels):  # 1.5 kernel <= input side
            column = rows[:, 1 + 2 * self.S + i]
            np.minimum(column, allowed[-1], out=column)

    def _scaled(self, channels: Ints, rng: np.random.Generator) -> Ints:
        scale = rng.choice(CHANNEL_SCALES[self.family], size=len(channels))
        return np.minimum(self.top, smart_round(scale * channels))

    def _mutate_stem(self, rows: Ints, at: NDArray[np.int64], rng: np.random.Generator) -> None:
        value = np.minimum(self.domain.stem[1], self._scaled(rows[at, 0], rng))
        if self.family == "mobilenet":
            value = np.maximum(self.domain.stem[0], value)
        rows[at, 0] = np.minimum(rows[at, 1], value)

    def _out(self, rows: Ints, at: NDArray[np.int64], i: int, rng: np.random.Generator) -> None:
        before, now = rows[at, i], rows[at, 1 + i]
        value = self._scaled(now, rng)
        last = i == self.S - 1
        if self.family == "resnet":
            value = np.minimum(4 * before, value)
            if not last:
                value = np.maximum(value, smart_round(rows[at, 2 + i] / 4))
            rows[at, 1 + i] = value
            return
        ratio = self._ratio(rows, at, i)
        value = np.maximum(before, value)
        value = np.minimum(value, self.domain.skeleton.head or value) if last else np.minimum(value, rows[at, 2 + i])
        rows[at, 1 + i] = value
        rows[at, 1 + self.S + i] = smart_round(value * ratio)

    def _ratio(self, rows: Ints, at: NDArray[np.int64], i: int) -> Floats:
        """bottleneck / out at the nearest ratio of the list."""
        ratio = rows[at, 1 + self.S + i] / rows[at, 1 + i]
        nearest = np.abs(ratio[:, None] - BOTTLENECK_RATIOS).argmin(axis=1)
        return np.asarray(BOTTLENECK_RATIOS[nearest])

    def _bottleneck(self, rows: Ints, at: NDArray[np.int64], i: int, rng: np.random.Generator) -> None:
        column = 1 + self.S + i
        if self.family == "resnet":
            rows[at, column] = np.minimum(rows[at, 1 + i], self._scaled(rows[at, column], rng))
        else:
            rows[at, column] = smart_round(rows[at, 1 + i] * rng.choice(BOTTLENECK_RATIOS, size=len(at)))

    def _lift_bottleneck(self, rows: Ints, at: NDArray[np.int64], i: int) -> None:
        """The bottleneck is at least a tenth of the output, rounded."""
        out, column = rows[at, 1 + i], 1 + self.S + i
        low = rows[at, column] < out / 10
        rows[at[low], column] = smart_round(out[low] / 10)

    def _kernel(self, rows: Ints, at: NDArray[np.int64], i: int, rng: np.random.Generator) -> None:
        column = 1 + 2 * self.S + i
        now = rows[at, column].copy()
        value = now.copy()
        for _ in range(len(self.all_kernels)):  # the authors draw again while nothing changes, so many times
            same = value == now
            value[same] = rng.choice(self.all_kernels, size=int(same.sum()))
        rows[at, column] = value

    def _depth(self, rows: Ints, at: NDArray[np.int64], i: int, rng: np.random.Generator) -> None:
        column = 1 + 3 * self.S + i
        now = rows[at, column].copy()
        value = now.copy()
        for _ in range(len(DEPTH_CHANGES)):
            same = value == now
            value[same] = np.maximum(1, now[same] + rng.choice(DEPTH_CHANGES, size=int(same.sum())))
        rows[at, column] = np.minimum(3, value) if i == 0 else value


def _survive(rows: Ints, score: Floats, children: Ints, rated: Floats) -> tuple[Ints, Floats]:
    """The best distinct structures of both generations; equal scores count as the same structure."""
    every = np.concatenate([score, rated], axis=1)
    order = np.argsort(-every, axis=1, kind="stable")
    ranked = np.take_along_axis(every, order, axis=1)
    repeated = np.zeros_like(ranked, dtype=bool)
    repeated[:, 1:] = ranked[:, 1:] == ranked[:, :-1]
    ranked[repeated] = -np.inf
    again = np.argsort(-ranked, axis=1, kind="stable")[:, :POPULATION]
    kept = np.take_along_axis(order, again, axis=1)
    both = np.concatenate([rows, children], axis=1)
    return np.take_along_axis(both, kept[:, :, None], axis=1), np.take_along_axis(ranked, again, axis=1)
