"""Branch and bound over depths, kernels and channels, with certified bounds and polished answers.

Nodes are boxes (``relaxation``); a batch of the most promising ones is split
at a time, where the relaxation is loosest: at a depth (McCormick's planes and
the chords of ln L), at a product's range, at a kernel or at a channel that is
no multiple of the step. Ranges of outputs, slopes and entropies are narrowed
by maximising and minimising them over the relaxation with the cut score >=
the best known. Randomness is only in the first local search and in CP-SAT, both from the seed.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from nas_core.deepmad.barrier import Goal, relax
from nas_core.deepmad.channels import best_channels
from nas_core.deepmad.concave import Nodes, Program, interval, nonempty, root, stack, tighten
from nas_core.deepmad.formulas import Floats, Ints
from nas_core.deepmad.polish import Polisher, round_point

BATCH = 64  # nodes split at a time
NARROW_FROM = 0.3  # ranges are narrowed once a node's bound is within this share of the best known score,
NARROW_AGAIN = 0.4  # and again when its distance has fallen to this share of what it was
CHANNEL_SECONDS, CHANNEL_SHARE = 3.0, 0.35  # of one CP-SAT call; of the search's CPU time
SHAKES = 60  # random restarts of the local search before the tree
DEPTH_REACH, MAX_NEIGHBOURS, POLISHED_NEIGHBOURS = 1, 1000, 24
POLISH_EVERY = 3  # batches between attempts to improve the best structure


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a search stands: best score and proven bound (inf, -inf before any), nodes and CPU seconds."""

    score: float
    bound: float
    open_nodes: int
    solved_nodes: int
    cpu_s: float


@dataclass(kw_only=True)
class _Open:
    """The open nodes with their bounds, relaxed points and the bound when they were last narrowed."""

    nodes: Nodes
    bound_B: Floats
    x_BV: Floats
    narrowed_B: Floats

    def __len__(self) -> int:
        return len(self.bound_B)

    def take(self, index: Ints | np.ndarray) -> "_Open":
        return _Open(
            nodes=self.nodes.take(index),
            bound_B=self.bound_B[index],
            x_BV=self.x_BV[index],
            narrowed_B=self.narrowed_B[index],
        )

    def join(self, other: "_Open") -> "_Open":
        return _Open(
            nodes=stack([self.nodes, other.nodes]),
            bound_B=np.concatenate([self.bound_B, other.bound_B]),
            x_BV=np.concatenate([self.x_BV, other.x_BV]),
            narrowed_B=np.concatenate([self.narrowed_B, other.narrowed_B]),
        )


@dataclass
class Tree:
    """One search: ``run`` until the gap, the CPU time or the nodes are used up.

    ``row`` is the best structure (``polish`` rows; None while there is none),
    ``score`` its exact score, ``bound`` an upper bound of every structure's.
    """

    program: Program
    gap: float
    seed: int = 0
    row: Ints | None = None
    score: float = -np.inf
    solved_nodes: int = 0
    history: list[Progress] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.polisher = Polisher(self.program.domain, self.program.limits, self.program.objective)
        self.polished: set[bytes] = set()
        self.channel_bounds: dict[tuple[int, ...], float] = {}  # by kernels and depths
        self.channel_s = 0.0
        self.open = self._solve(root(self.program), np.array([np.inf]), np.array([np.inf]))

    @property
    def threshold(self) -> float:
        """Only structures above this are still looked for."""
        return self.score * (1.0 + self.gap) if np.isfinite(self.score) else -np.inf

    @property
    def bound(self) -> float:
        """No structure of the domain within the limits scores above this."""
        return max(float(self.open.bound_B.max(initial=-np.inf)), self.threshold)

    @property
    def done(self) -> bool:
        return not len(self.open)

    def offer(self, row: Ints) -> None:
        """Takes the row as the best known structure if it is feasible and better."""
        if self.polisher.feasible(row):
            score = float(self.polisher.values(row[None])[0])
            if score > self.score:
                self.row, self.score = row, score

    def polish(self, x_V: Floats, low_V: Floats, high_V: Floats) -> None:
        """Rounds a relaxed point and climbs from there."""
        start = round_point(self.program.domain, self.program.layout, x_V, low_V, high_V)
        if start.tobytes() in self.polished:
            return
        self.polished.add(start.tobytes())
        row, _, feasible = self.polisher.climb(start)
        if feasible:
            self.offer(row)

    def solve_channels(self, chosen: _Open, seconds: float) -> None:
        """CP-SAT over the channels of the most promising depths and kernels that it has not had yet."""
        layout = self.program.layout
        for j in range(len(chosen)):
            low, high = chosen.nodes.low_BV[j], chosen.nodes.high_BV[j]
            if (high[layout.depths] - low[layout.depths] > 0.5).any():
                continue
            start = round_point(self.program.domain, layout, chosen.x_BV[j], low, high)
            S = layout.num_blocks
            fixed = tuple(int(v) for v in start[1 + 2 * S :])
            if fixed in self.channel_bounds:
                continue
            found = best_channels(
                self.program, fixed[:S], fixed[S:], above=self.threshold, hint=None, seconds=seconds, seed=self.seed
            )
            self.channel_bounds[fixed] = found.bound
            if found.row is not None:
                row, _, _ = self.polisher.climb(found.row)
                self.offer(found.row)
                self.offer(row)
            return

    def _closed(self, nodes: Nodes) -> Floats:
        """What CP-SAT proved for each node's depths and kernels; inf where they are open or unproved."""
        layout = self.program.layout
        bound_B = np.full(len(nodes), np.inf)
        if not self.channel_bounds:
            return bound_B
        ends = slice(layout.kernels.start, layout.depths.stop)
        for j in np.flatnonzero((nodes.high_BV[:, ends] - nodes.low_BV[:, ends] < 1e-6).all(axis=1)):
            kernels = np.rint(np.exp(nodes.low_BV[j, layout.kernels])).astype(int)
            depths = np.rint(nodes.low_BV[j, layout.depths]).astype(int)
            bound_B[j] = self.channel_bounds.get((*kernels.tolist(), *depths.tolist()), np.inf)
        return bound_B

    def run(self, until_cpu_s: float, report: Callable[[Progress], None] | None = None) -> None:
        """Splits nodes until none is open above the threshold or ``process_time`` passes ``until_cpu_s``."""
        begin, batches = time.process_time(), 0
        if self.row is None:
            self._first(until_cpu_s)
        while len(self.open) and time.process_time() < until_cpu_s:
            order = np.argsort(-self.open.bound_B, kind="stable")
            chosen = self.open.take(order[:BATCH])
            rest = self.open.take(order[BATCH:])
            if batches % POLISH_EVERY == 0:
                for j in range(min(4, len(chosen))):
                    self.polish(chosen.x_BV[j], chosen.nodes.low_BV[j], chosen.nodes.high_BV[j])
            if self.channel_s < CHANNEL_SHARE * (time.process_time() - begin):
                spent = time.process_time()
                self.solve_channels(chosen, min(CHANNEL_SECONDS, until_cpu_s - spent))
                self.channel_s += time.process_time() - spent
                self.open.bound_B = np.minimum(self.open.bound_B, self._closed(self.open.nodes))
                chosen.bound_B = np.minimum(chosen.bound_B, self._closed(chosen.nodes))
                rest.bound_B = np.minimum(rest.bound_B, self._closed(rest.nodes))
            chosen = self._narrow(chosen)
            self.open = self._keep(rest.join(self._split(chosen)))
            batches += 1
            progress = Progress(
                score=self.score,
                bound=self.bound,
                open_nodes=len(self.open),
                solved_nodes=self.solved_nodes,
                cpu_s=time.process_time() - begin,
            )
            self.history.append(progress)
            if report is not None:
                report(progress)

    def _first(self, until_cpu_s: float) -> None:
        """A first structure, made better while there is time.

        Searches begin at the root's relaxed point and at the smallest structure of the domain.
        """
        nodes = self.open.nodes
        for j in range(min(1, len(nodes))):
            self.polish(self.open.x_BV[j], nodes.low_BV[j], nodes.high_BV[j])
        row, _, feasible = self.polisher.climb(self.polisher.low.copy())
        if feasible:
            self.offer(row)
        if self.row is not None and len(self.polisher.singles):
            self.offer(self.polisher.shake(self.row, SHAKES, np.random.default_rng(self.seed), until_cpu_s))
            before = -np.inf
            while self.score > before and time.process_time() < until_cpu_s:
                before = self.score
                self._neighbours(until_cpu_s)

    def _neighbours(self, until_cpu_s: float) -> None:
        """Relaxes every choice of depths within one of the best structure's; rounds and climbs from the highest."""
        assert self.row is not None
        program, S = self.program, self.program.layout.num_blocks
        depths = self.row[1 + 3 * S :]
        ends = [block.depth for block in program.domain.blocks]
        choices = [
            [L for L in range(int(d) - DEPTH_REACH, int(d) + DEPTH_REACH + 1) if low <= L <= high]
            for d, (low, high) in zip(depths, ends, strict=True)
        ]
        every = np.array(list(itertools.islice(itertools.product(*choices), MAX_NEIGHBOURS)), dtype=float)
        nodes = root(program).take(np.zeros(len(every), dtype=int))
        nodes.low_BV[:, program.layout.depths] = every
        nodes.high_BV[:, program.layout.depths] = every
        nodes = tighten(program, nodes)
        nodes = nodes.take(np.flatnonzero(nonempty(nodes)))
        found = relax(program, nodes, precision=0.002 * abs(self.score), prune=self.score)
        self.solved_nodes += len(nodes)
        for j in np.argsort(-found.bound_B, kind="stable")[:POLISHED_NEIGHBOURS]:
            if time.process_time() > until_cpu_s:
                return
            self.polish(found.x_BV[j], nodes.low_BV[j], nodes.high_BV[j])

    def _keep(self, nodes: _Open) -> _Open:
        return nodes.take(np.flatnonzero(nodes.bound_B > self.threshold))

    def _solve(self, nodes: Nodes, parent_B: Floats, narrowed_B: Floats) -> _Open:
        """Bounds of the nodes, never above their parents'."""
        alive = np.flatnonzero(nonempty(nodes))
        nodes = nodes.take(alive)
        precision = 0.5 + 1e-4 * abs(self.score) if np.isfinite(self.score) else 5.0
        found = relax(self.program, nodes, precision=precision, prune=self.threshold)
        self.solved_nodes += len(nodes)
        bound_B = np.minimum(np.fmin(found.bound_B, parent_B[alive]), self._closed(nodes))
        return _Open(nodes=nodes, bound_B=bound_B, x_BV=found.x_BV, narrowed_B=narrowed_B[alive])

    def _narrow(self, chosen: _Open) -> _Open:
        """Narrows the ranges of those nodes whose bound is near enough; solves them again."""
        if not np.isfinite(self.score):
            return chosen
        size = abs(self.score)
        distance = chosen.bound_B - self.threshold
        need = (distance < NARROW_FROM * size) & (distance < NARROW_AGAIN * (chosen.narrowed_B - self.threshold))
        need &= distance > 2e-4 * size
        if not need.any():
            return chosen
        near = chosen.take(np.flatnonzero(need))
        nodes = narrow(self.program, near.nodes, self.threshold)
        self.solved_nodes += 2 * (2 * self.program.layout.num_blocks + len(self.program.alpha_T)) * len(near)
        return chosen.take(np.flatnonzero(~need)).join(self._solve(nodes, near.bound_B, near.bound_B))

    def _split(self, chosen: _Open) -> _Open:
        chosen = self._keep(chosen)
        looseness = self._looseness(chosen)
        pick = looseness.argmax(axis=1)
        leaf = looseness.max(axis=1) <= 0.0
        for j in np.flatnonzero(leaf).tolist():  # a single structure: its own score is its bound
            self.polish(chosen.x_BV[j], chosen.nodes.low_BV[j], chosen.nodes.high_BV[j])
        stay = np.flatnonzero(~leaf)
        chosen, pick = chosen.take(stay), pick[stay]
        left, right = chosen.nodes.copy(), chosen.nodes.copy()
        for j in range(len(pick)):
            self._cut(left, right, j, int(pick[j]), chosen.x_BV[j])
        children = tighten(self.program, stack([left, right]))
        return self._solve(children, np.tile(chosen.bound_B, 2), np.tile(chosen.narrowed_B, 2))

    def _looseness(self, chosen: _Open) -> Floats:
        """Estimated cost in score of every thing to split: S depths, T products, S kernels, 1 + 2 S channels."""
        program, layout, nodes, x = self.program, self.program.layout, chosen.nodes, chosen.x_BV
        S, T = layout.num_blocks, len(program.alpha_T)
        w_BT, E_BT = x @ program.w_TV.T + program.w_T, x @ program.E_TV.T + program.E_T
        worth_BT = np.cumsum((program.alpha_T * w_BT)[:, ::-1], axis=1)[:, ::-1]
        stage = program.domain.skeleton.stage_of_block
        out = np.zeros((len(chosen), S + T + S + 1 + 2 * S))
        for i in range(S):
            worth = worth_BT[:, stage[i]]
            v = layout.depth(i)
            L, low, high = x[:, v], nodes.low_BV[:, v], nodes.high_BV[:, v]
            gap = np.maximum(
                worth * (x[:, layout.entropy(i)] - x @ program.base_row(i) - L * (x @ program.slope_row(i))), 0
            )
            chord = np.log(L) - np.log(low) - np.log(high / low) * (L - low) / np.maximum(high - low, 1e-9)
            gap = gap + 0.5 * worth * np.maximum(x[:, layout.entropy(i)], 0) * np.maximum(chord, 0)
            out[:, i] = np.where(high - low > 0.5, gap + 1e-3 * (high - low), 0.0)
            out[:, S + T + i] = self._lattice(i, x, nodes, worth * L)
            channels = ((layout.bottleneck(i), program.half_dense), (layout.out(i), 0.5))
            for v, power in channels:
                position = S + T + S + v
                out[:, position] = (
                    0.3 * power * worth * L * self._off_multiple(x[:, v], nodes.low_BV[:, v], nodes.high_BV[:, v])
                )
        v = layout.out(-1)
        out[:, S + T + S + v] = (
            0.15 * worth_BT[:, 0] * self._off_multiple(x[:, v], nodes.low_BV[:, v], nodes.high_BV[:, v])
        )
        for t in range(T):
            if t in program.chord_T:
                low, high = nodes.u_low_BT[:, t], nodes.u_high_BT[:, t]
                u = np.sqrt(np.maximum(w_BT[:, t] * E_BT[:, t], 0))
                gap = program.alpha_T[t] * ((low + high) * u - low * high - u * u)
                out[:, S + t] = np.where(gap > 0.05, gap, 0.0)
        if program.domain.skeleton.family == "mobilenet" and program.limits.params is not None:
            self._add_squeeze(out, chosen, worth_BT)
        return out

    def _add_squeeze(self, out: Floats, chosen: _Open, worth_BT: Floats) -> None:
        """The squeeze channels' line lies under their steps by more, the wider the bottleneck's range."""
        layout, nodes = self.program.layout, chosen.nodes
        S, T = layout.num_blocks, len(self.program.alpha_T)
        stage = self.program.domain.skeleton.stage_of_block
        for i in range(S):
            v = layout.bottleneck(i)
            width = nodes.high_BV[:, v] - nodes.low_BV[:, v]
            cost = 0.02 * worth_BT[:, stage[i]] * chosen.x_BV[:, layout.depth(i)] * width**2
            out[:, S + T + S + v] += np.where(width > 1e-6, cost, 0.0)

    def _lattice(self, i: int, x: Floats, nodes: Nodes, worth: Floats) -> Floats:
        """How far a kernel is from an allowed one, priced; tiny but positive while its range is open."""
        v = self.program.layout.kernel(i)
        logs = np.log(np.array(self.program.domain.blocks[i].kernels))
        distance = np.abs(x[:, v][:, None] - logs).min(axis=1)
        is_open = nodes.high_BV[:, v] - nodes.low_BV[:, v] > 1e-6
        return np.where(is_open, 0.3 * worth * distance + 1e-4, 0.0)

    def _off_multiple(self, x: Floats, low: Floats, high: Floats) -> Floats:
        """Distance in the log from a multiple of the step; tiny but positive while the range is open."""
        step = self.program.domain.step
        value = np.exp(x) / step
        below, above = np.maximum(np.floor(value + 1e-9), 1), np.ceil(value - 1e-9)
        distance = np.minimum(np.log(value / below), np.log(np.maximum(above, 1) / value))
        return np.where(high - low > 1e-6, np.maximum(distance, 0.0) + 1e-6, 0.0)

    def _cut(self, left: Nodes, right: Nodes, j: int, pick: int, x_V: Floats) -> None:
        """Splits node j of both copies at the picked thing."""
        program, layout = self.program, self.program.layout
        S, T = layout.num_blocks, len(program.alpha_T)
        if pick < S:
            v = layout.depth(pick)
            low, high = left.low_BV[j, v], left.high_BV[j, v]
            inner = np.clip(x_V[v], low + 0.2 * (high - low), high - 0.2 * (high - low))
            middle = float(np.clip(np.floor(inner), low, high - 1))
            left.high_BV[j, v], right.low_BV[j, v] = middle, middle + 1
        elif pick < S + T:
            t = pick - S
            low, high = left.u_low_BT[j, t], left.u_high_BT[j, t]
            u = np.sqrt(max(0.0, (x_V @ program.w_TV[t] + program.w_T[t]) * (x_V @ program.E_TV[t] + program.E_T[t])))
            middle = float(np.clip(u, low + 0.2 * (high - low), high - 0.2 * (high - low)))
            left.u_high_BT[j, t], right.u_low_BT[j, t] = middle, middle
        else:
            v = layout.kernel(pick - S - T) if pick < S + T + S else pick - S - T - S
            values = self._values(v, left.low_BV[j, v], left.high_BV[j, v])
            cut = int(np.clip(np.searchsorted(values, x_V[v]), 1, len(values) - 1))
            wide = len(values) > 6 and self.program.domain.skeleton.family == "mobilenet"
            if wide:  # the squeeze's line wants even halves as much as the point wants cutting off
                cut = int(np.clip(cut, len(values) // 5, len(values) - len(values) // 5))
            left.high_BV[j, v], right.low_BV[j, v] = values[cut - 1], values[cut]

    def _values(self, v: int, low: float, high: float) -> Floats:
        """The logs a kernel or channel variable may take in its range."""
        layout, domain = self.program.layout, self.program.domain
        if layout.kernels.start <= v < layout.kernels.stop:
            every = np.log(np.array(domain.blocks[v - layout.kernels.start].kernels))
        else:
            first, last = round(float(np.exp(low)) / domain.step), round(float(np.exp(high)) / domain.step)
            every = np.log(domain.step * np.arange(first, last + 1))
        return np.asarray(every[(every >= low - 1e-9) & (every <= high + 1e-9)])


def narrow(program: Program, nodes: Nodes, at_least: float) -> Nodes:
    """Ranges of outputs, slopes a and entropies E cut to what a structure scoring ``at_least`` can have there."""
    layout, chords = program.layout, program.chord_T
    S, B = layout.num_blocks, len(nodes)
    unit = np.eye(layout.size)
    rows_QV = np.array(
        [program.slope_row(i) for i in range(S)]
        + [unit[layout.out(i)] for i in range(S)]
        + [program.E_TV[t] for t in chords]
    )
    ends = [interval(row, nodes.low_BV, nodes.high_BV) for row in rows_QV]
    low_BQ, high_BQ = np.array([e[0] for e in ends]).T, np.array([e[1] for e in ends]).T
    low_BQ[:, :S], high_BQ[:, :S] = nodes.a_low_BS, nodes.a_high_BS
    scale_BQ = 2000.0 / np.maximum(high_BQ - low_BQ, 1e-3)
    both = np.array([1.0, -1.0])
    goals = rows_QV[None, :, None] * scale_BQ[:, :, None, None] * both[None, None, :, None]
    index = np.repeat(np.arange(B), 2 * len(rows_QV))
    goal = Goal(score=0.0, row_BV=goals.reshape(-1, layout.size), at_least=at_least)
    bounds = relax(program, nodes.take(index), goal, precision=100.0, prune=-np.inf).bound_B
    bounds = bounds.reshape(B, len(rows_QV), 2)
    high_BQ = np.minimum(high_BQ, bounds[:, :, 0] / scale_BQ)
    low_BQ = np.maximum(low_BQ, -bounds[:, :, 1] / scale_BQ)
    nodes = nodes.copy()
    nodes.a_low_BS[:], nodes.a_high_BS[:] = low_BQ[:, :S], high_BQ[:, :S]
    outs = [layout.out(i) for i in range(S)]
    nodes.low_BV[:, outs] = np.maximum(nodes.low_BV[:, outs], low_BQ[:, S : 2 * S])
    nodes.high_BV[:, outs] = np.minimum(nodes.high_BV[:, outs], high_BQ[:, S : 2 * S])
    for q, t in enumerate(chords):
        w_low, w_high = interval(program.w_TV[t], nodes.low_BV, nodes.high_BV)
        E_low, E_high = low_BQ[:, 2 * S + q] + program.E_T[t], high_BQ[:, 2 * S + q] + program.E_T[t]
        u_low = np.sqrt(np.maximum(E_low * (w_low + program.w_T[t]), 0.0))
        u_high = np.sqrt(np.maximum(E_high * (w_high + program.w_T[t]), 0.0))
        nodes.u_low_BT[:, t] = np.maximum(nodes.u_low_BT[:, t], u_low)
        nodes.u_high_BT[:, t] = np.minimum(nodes.u_high_BT[:, t], u_high)
    return tighten(program, nodes)
