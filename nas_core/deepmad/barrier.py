"""Many concave relaxations at once: a batched interior-point method and the bounds its multipliers certify.

A primal-dual interior-point method with slacks. Every constraint g(x) <= 0 is
relaxed to g(x) <= z with z >= 0 priced at ``ELASTIC`` a unit, so multipliers
stay bounded and an infeasible node shows as a very low bound. The bound does
not depend on how well the method converged: for any multipliers lambda >= 0
the Lagrangian is concave, so its tangent at any point, maximised over the box,
is above every feasible value. Axes as in ``relaxation``; J constraints.
"""

import itertools
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from nas_core.deepmad.concave import LINEAR_FROM, STD_SMOOTHING, Monomials, Nodes, Program, squeeze_line
from nas_core.deepmad.formulas import Floats

ELASTIC = 2.0e5  # price of violating a constraint by one unit; scores are of order 1e4
CENTERING = 0.15  # next mu over the present average complementarity
TO_BOUNDARY = 0.95
RHO_SCALE, U_SCALE, SCORE_SCALE = 100.0, 10.0, 1000.0  # bring the constraints to like sizes
FIXED_WIDTH = 1e-9  # a range narrower than this is a constant
MAX_STEPS = 40
TINY = 1e-13  # least distance from a side of the box
CHUNK = 64  # nodes worked on at once: what fits the processor's cache
COMPACT_BELOW = 0.7  # the batch is cut to its unfinished nodes when they are fewer than this share


@dataclass(frozen=True, kw_only=True)
class Relaxed:
    """Per node: a certified upper bound of the goal, and the point and multipliers it comes from."""

    bound_B: Floats
    x_BV: Floats
    violation_B: Floats


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the relaxation maximises: ``score`` times the relaxed score plus ``row_BV . x``.

    ``at_least`` adds the cut relaxed score >= at_least, None for no cut.
    """

    score: float = 1.0
    row_BV: Floats | None = None
    at_least: float | None = None


class NodeProblem:
    """The relaxation's data for a batch of nodes, and its values and derivatives at a batch of points.

    ``rows`` (B x R x (V + 1), last column z) holds every row that enters a
    gradient or a Hessian, in this order: monomials, D_t, the differences
    grad ln w_t - grad ln E_t, gradients of the log-sums, then the J
    constraints (linear ones first). Only the parts that move are rewritten.
    """

    def __init__(self, program: Program, nodes: Nodes, goal: Goal) -> None:
        self.program, self.nodes, self.goal = program, nodes, goal
        self.size = program.layout.size
        self.chord_T = program.chord_T
        resources = [self._log_monomials(resource) for resource in program.resources]
        linear_BMV, self.bound_BM = self._linear()
        self.intercept_BK = np.concatenate([np.zeros((len(nodes), 0)), *(r[1] for r in resources)], axis=1)
        ends = np.cumsum([0, *(r[1].shape[1] for r in resources)])
        self.parts = [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]
        num_rho, num_chords = len(program.rho_T), len(self.chord_T)
        nonlinear = len(resources) + num_rho + num_chords + (goal.at_least is not None)
        sizes = [int(ends[-1]), num_rho, num_chords, len(resources), linear_BMV.shape[1], nonlinear]
        starts = np.cumsum([0, *sizes])
        names = ("monomials", "layers", "gaps", "sums", "linear", "nonlinear")
        self.at = {name: slice(int(a), int(b)) for name, a, b in zip(names, starts, starts[1:], strict=False)}
        self.at["constraints"] = slice(int(starts[4]), int(starts[6]))
        self.num_constraints = linear_BMV.shape[1] + nonlinear
        self.rows = np.zeros((len(nodes), int(starts[-1]), self.size + 1))
        for part, (power_BKV, _) in zip(self.parts, resources, strict=True):
            self.rows[:, part, :-1] = power_BKV
        self.rows[:, self.at["layers"], :-1] = program.D_TV[program.rho_T]
        self.rows[:, self.at["linear"], :-1] = linear_BMV
        self.rows[:, self.at["constraints"], -1] = -1.0

    def _log_monomials(self, r: Monomials) -> tuple[Floats, Floats]:
        """Exponent rows B x K x V and intercepts B x K of the log-monomials below those of the resource."""
        nodes, layout = self.nodes, self.program.layout
        power_BKV = np.repeat(r.power_KV[None], len(nodes), axis=0)
        depth_K = np.where(r.block_K >= 0, 1 + 3 * layout.num_blocks + r.block_K, 0)
        low_BK, high_BK = nodes.low_BV[:, depth_K], nodes.high_BV[:, depth_K]
        p_K, q_K = r.p_K, r.q_K
        at_low, at_high = np.log(p_K + q_K * low_BK), np.log(p_K + q_K * high_BK)
        width = high_BK - low_BK
        varies = (q_K != 0) & (width > FIXED_WIDTH)
        slope = np.where(varies, (at_high - at_low) / np.where(varies, width, 1.0), 0.0)
        intercept_BK = at_low - slope * low_BK - np.log(r.limit)
        rows = np.arange(len(r.p_K))
        power_BKV[:, rows, depth_K] += np.where(varies, slope, 0.0)
        for k in np.flatnonzero(r.squeeze_K >= 0):
            b = layout.bottleneck(int(r.squeeze_K[k]))
            ends = np.rint(np.exp(nodes.low_BV[:, b])), np.rint(np.exp(nodes.high_BV[:, b]))
            lines = [squeeze_line(int(lo), int(hi), self.program.domain.step) for lo, hi in zip(*ends, strict=True)]
            line_B2 = np.array(lines)
            power_BKV[:, k, b] += line_B2[:, 0]
            intercept_BK[:, k] += line_B2[:, 1]
        return power_BKV, intercept_BK

    def _linear(self) -> tuple[Floats, Floats]:
        """Rows of the domain's ratios and of McCormick's two planes over every L a."""
        program, nodes, layout = self.program, self.nodes, self.program.layout
        B, S = len(nodes), layout.num_blocks
        static = len(program.rows_M)
        rows_BMV = np.zeros((B, static + 2 * S, self.size))
        rows_BM = np.zeros((B, static + 2 * S))
        rows_BMV[:, :static], rows_BM[:, :static] = program.rows_MV, program.rows_M
        for i in range(S):
            a, base = program.slope_row(i), program.base_row(i)
            a_low, a_high = nodes.a_low_BS[:, i], nodes.a_high_BS[:, i]
            L, e = layout.depth(i), layout.entropy(i)
            L_low, L_high = nodes.low_BV[:, L], nodes.high_BV[:, L]
            # L a <= L_high a + a_low L - L_high a_low, and L_low a + a_high L - L_low a_high
            for j, (depth, slope) in enumerate(((L_high, a_low), (L_low, a_high))):
                m = static + 2 * i + j
                rows_BMV[:, m] -= base + depth[:, None] * a
                rows_BMV[:, m, e] += 1.0
                rows_BMV[:, m, L] -= slope
                rows_BM[:, m] = -depth * slope
        return rows_BMV, rows_BM

    def take(self, index: np.ndarray) -> "NodeProblem":
        """The same data for some of the nodes."""
        part = copy(self)
        part.nodes, part.rows = self.nodes.take(index), self.rows[index]
        part.intercept_BK, part.bound_BM = self.intercept_BK[index], self.bound_BM[index]
        if self.goal.row_BV is not None:
            part.goal = replace(self.goal, row_BV=self.goal.row_BV[index])
        return part

    def linearise(self, x_BV: Floats) -> "Linearised":
        """Goal and constraints at ``x_BV``: values, gradients (``rows`` is brought up to date), curvatures."""
        program, rows, at = self.program, self.rows, self.at
        B, num_r, num_rho, num_c = len(x_BV), len(self.parts), len(program.rho_T), len(self.chord_T)
        g = np.empty((B, self.num_constraints))
        linear = at["linear"].stop - at["linear"].start
        g[:, :linear] = np.matmul(rows[:, at["linear"], :-1], x_BV[:, :, None])[:, :, 0] - self.bound_BM
        share = np.matmul(rows[:, at["monomials"], :-1], x_BV[:, :, None])[:, :, 0] + self.intercept_BK
        first = at["nonlinear"].start
        for r, part in enumerate(self.parts):
            y = share[:, part]
            top = y.max(axis=1, keepdims=True)
            y = np.exp(y - top)
            total = y.sum(axis=1, keepdims=True)
            share[:, part] = y / total
            g[:, linear + r] = top[:, 0] + np.log(total[:, 0])
            gradient = np.matmul(share[:, None, part], rows[:, part, :-1])[:, 0]
            rows[:, at["sums"].start + r, :-1] = rows[:, first + r, :-1] = gradient
        E_BT, D_BT = x_BV @ program.E_TV.T + program.E_T, x_BV @ program.D_TV.T + program.D_T
        w_BT = x_BV @ program.w_TV.T + program.w_T
        D = D_BT[:, program.rho_T]
        if num_rho:
            assert program.limits.rho is not None
            log = np.log(D / program.limits.rho)
            g[:, linear + num_r : linear + num_r + num_rho] = (D * log - 2.0 * E_BT[:, program.rho_T]) / RHO_SCALE
            pull = (log + 1.0)[:, :, None] * program.D_TV[program.rho_T] - 2.0 * program.E_TV[program.rho_T]
            rows[:, first + num_r : first + num_r + num_rho, :-1] = pull / RHO_SCALE
        w, E = w_BT[:, self.chord_T], E_BT[:, self.chord_T]
        u = np.sqrt(np.maximum(w * E, 1e-12))
        by_w, by_E = program.w_TV[self.chord_T] / w[:, :, None], program.E_TV[self.chord_T] / E[:, :, None]
        rows[:, at["gaps"], :-1] = by_w - by_E
        slope_u = (0.5 * u)[:, :, None] * (by_w + by_E)
        low_u, high_u = self.nodes.u_low_BT[:, self.chord_T], self.nodes.u_high_BT[:, self.chord_T]
        start = num_r + num_rho
        g[:, linear + start : linear + start + num_c] = (low_u - u) / U_SCALE
        rows[:, first + start : first + start + num_c, :-1] = -slope_u / U_SCALE
        # the score: chords over the products, plain products where w is a constant, minus the penalty
        penalty, slope, bend = self._penalty(x_BV)
        chord = program.alpha_T[self.chord_T] * (low_u + high_u)
        flat_T = np.setdiff1d(np.arange(len(program.alpha_T)), self.chord_T)
        # where w or E is a constant the product is affine, and only the constant's side has no gradient
        flat_slope_V = program.alpha_T[flat_T] @ (
            program.w_T[flat_T, None] * program.E_TV[flat_T] + program.E_T[flat_T, None] * program.w_TV[flat_T]
        )
        score = (chord * u - program.alpha_T[self.chord_T] * low_u * high_u).sum(axis=1) - penalty
        score = score + (w_BT * E_BT)[:, flat_T] @ program.alpha_T[flat_T]
        gradient = np.matmul(chord[:, None], slope_u)[:, 0] + flat_slope_V
        gradient[:, program.penalised] -= slope
        if self.goal.at_least is not None:
            g[:, -1] = (self.goal.at_least - score) / SCORE_SCALE
            rows[:, -1, :-1] = -gradient / SCORE_SCALE
        value, total_slope = self.goal.score * score, self.goal.score * gradient
        if self.goal.row_BV is not None:
            value = value + (self.goal.row_BV * x_BV).sum(axis=1)
            total_slope = total_slope + self.goal.row_BV
        return Linearised(
            value=value, slope=total_slope, g=g, share=share, inverse_D=1.0 / D, u=u, chord=chord, penalty_bend=bend
        )

    def hessian(self, at_x: "Linearised", dual: Floats, ratio: Floats) -> Floats:
        """Hessian of dual . g - goal plus the rows' outer products weighed by ``ratio``, in (x, z)."""
        num_r, num_rho, num_c = len(self.parts), len(self.program.rho_T), len(self.chord_T)
        linear = self.at["linear"].stop - self.at["linear"].start
        of_sums = dual[:, linear : linear + num_r]
        of_rho = dual[:, linear + num_r : linear + num_r + num_rho]
        of_u = dual[:, linear + num_r + num_rho : linear + num_r + num_rho + num_c]
        per_score = np.full(len(dual), self.goal.score)
        if self.goal.at_least is not None:
            per_score = per_score + dual[:, -1] / SCORE_SCALE
        counts = [part.stop - part.start for part in self.parts]
        weights = np.concatenate(
            [
                at_x.share * np.repeat(of_sums, counts, axis=1),
                of_rho * at_x.inverse_D / RHO_SCALE,
                0.25 * at_x.u * (per_score[:, None] * at_x.chord + of_u / U_SCALE),
                -of_sums,
                ratio,
            ],
            axis=1,
        )
        hessian: Floats = np.matmul((self.rows * weights[:, :, None]).transpose(0, 2, 1), self.rows)
        index = self.program.penalised
        if index:
            first = index[0]  # the penalised depths are neighbours
            block = slice(first, first + len(index))
            hessian[:, block, block] += per_score[:, None, None] * at_x.penalty_bend
        return hessian

    def _penalty(self, x_BV: Floats) -> tuple[Floats, Floats, Floats]:
        """A convex lower bound of beta exp(spread), exact where the penalised depths are fixed; its derivatives."""
        program, B = self.program, len(self.nodes)
        index = program.penalised
        beta = program.objective.beta
        if not index:
            return np.full(B, beta), np.zeros((B, 0)), np.zeros((B, 0, 0))
        L_BP = x_BV[:, index]
        spread, first, second = self._spread(L_BP)
        capped = np.exp(np.minimum(spread, LINEAR_FROM))
        fixed = (self.nodes.high_BV[:, index] - self.nodes.low_BV[:, index]).max(axis=1) < FIXED_WIDTH
        true = L_BP.std(axis=1) if program.objective.unevenness == "std" else L_BP.var(axis=1)
        height = np.where(fixed, np.exp(np.minimum(true, 60.0)), capped * (1 + np.maximum(spread - LINEAR_FROM, 0)))
        bend = np.where(spread < LINEAR_FROM, capped, 0.0)
        block = bend[:, None, None] * first[:, :, None] * first[:, None, :] + capped[:, None, None] * second
        return beta * height, beta * capped[:, None] * first, beta * block

    def _spread(self, L_BP: Floats) -> tuple[Floats, Floats, Floats]:
        """A smooth convex lower bound of the spread of the depths, its gradient and its Hessian."""
        m = L_BP.shape[1]
        centred = L_BP - L_BP.mean(axis=1, keepdims=True)
        var = (centred**2).mean(axis=1)
        projector = (np.eye(m) - 1.0 / m) / m
        if self.program.objective.unevenness == "var":
            return var, 2.0 * centred / m, np.repeat(2.0 * projector[None], len(L_BP), axis=0)
        smooth = np.sqrt(var + STD_SMOOTHING**2)
        first = centred / (m * smooth[:, None])
        return smooth - STD_SMOOTHING, first, (projector - first[:, :, None] * first[:, None]) / smooth[:, None, None]


@dataclass(frozen=True, kw_only=True)
class Linearised:
    """Values at a point, and what the Hessian needs besides ``NodeProblem.rows``."""

    value: Floats
    slope: Floats
    g: Floats
    share: Floats
    inverse_D: Floats
    u: Floats
    chord: Floats
    penalty_bend: Floats


def relax(program: Program, nodes: Nodes, goal: Goal | None = None, *, precision: float, prune: float) -> Relaxed:
    """Certified upper bounds of the goal over every node, and points where they are nearly attained.

    A node is finished when its bound is within ``precision`` of its point's
    goal, or below ``prune``.
    """
    found = [
        _relax(program, nodes.take(slice(i, i + CHUNK)), _part(goal or Goal(), i), precision, prune)
        for i in range(0, len(nodes), CHUNK)
    ]
    if not found:
        return Relaxed(bound_B=np.zeros(0), x_BV=np.zeros((0, program.layout.size)), violation_B=np.zeros(0))
    return Relaxed(
        bound_B=np.concatenate([part.bound_B for part in found]),
        x_BV=np.concatenate([part.x_BV for part in found]),
        violation_B=np.concatenate([part.violation_B for part in found]),
    )


def _part(goal: Goal, start: int) -> Goal:
    return goal if goal.row_BV is None else replace(goal, row_BV=goal.row_BV[start : start + CHUNK])


def _relax(program: Program, nodes: Nodes, goal: Goal, precision: float, prune: float) -> Relaxed:
    """``relax`` for one chunk."""
    B = len(nodes)
    bound_B, x_out, violation_B = np.full(B, np.inf), np.zeros((B, program.layout.size)), np.zeros(B)
    live = np.arange(B)
    state = _Iterate.start(NodeProblem(program, nodes, goal))
    for step in range(MAX_STEPS):
        certified, gap = state.certify()
        bound_B[live] = np.fmin(bound_B[live], certified)
        x_out[live], violation_B[live] = state.x, state.z
        finished = (bound_B[live] < prune) | (gap < precision) | (step == MAX_STEPS - 1)
        if finished.all():
            break
        if (~finished).mean() < COMPACT_BELOW:
            live, state = live[~finished], state.take(~finished)
            state.certify()
        state.advance()
    return Relaxed(bound_B=bound_B, x_BV=x_out, violation_B=violation_B)


class _Iterate:
    """Primal and dual variables of the method for a batch of nodes."""

    NAMES = ("x", "z", "slack", "dual", "below", "above", "floor")

    def __init__(self, problem: NodeProblem, **values: Floats) -> None:
        self.problem = problem
        self.fixed = problem.nodes.high_BV - problem.nodes.low_BV < FIXED_WIDTH
        self.x, self.z, self.slack = values["x"], values["z"], values["slack"]
        self.dual = values["dual"]  # of g <= z
        self.below, self.above = values["below"], values["above"]  # of the box's two sides
        self.floor = values["floor"]  # of z >= 0

    @classmethod
    def start(cls, problem: NodeProblem) -> "_Iterate":
        """The middle of every box, with all complementarities alike."""
        nodes = problem.nodes
        B = len(nodes)
        x = 0.5 * (nodes.low_BV + nodes.high_BV)
        g = problem.linearise(x).g
        z = np.full(B, 0.1)
        slack = np.maximum(z[:, None] - g, 0.1)
        half = np.maximum(0.5 * (nodes.high_BV - nodes.low_BV), FIXED_WIDTH)
        mu = 200.0
        return cls(problem, x=x, z=z, slack=slack, dual=mu / slack, below=mu / half, above=mu / half, floor=mu / z)

    def take(self, index: np.ndarray) -> "_Iterate":
        return _Iterate(self.problem.take(index), **{name: getattr(self, name)[index] for name in self.NAMES})

    def certify(self) -> tuple[Floats, Floats]:
        """Linearises at the point; returns the bound the multipliers certify there and the method's own gap."""
        problem, nodes = self.problem, self.problem.nodes
        self.at_x = problem.linearise(self.x)
        self.pulls = problem.rows[:, problem.at["constraints"]]
        gradient = self.at_x.slope - np.matmul(self.dual[:, None], self.pulls)[:, 0, :-1]
        reach = np.maximum(gradient * (nodes.low_BV - self.x), gradient * (nodes.high_BV - self.x)).sum(axis=1)
        weighted = self.dual * self.at_x.g
        bound = self.at_x.value - weighted.sum(axis=1) + reach
        # round-off of sums of terms of this size
        bound = bound + 1e-11 * (np.abs(self.at_x.value) + np.abs(weighted).sum(axis=1) + np.abs(reach))
        return bound, bound - (self.at_x.value - ELASTIC * self.z)

    def _target(self) -> Floats:
        """Next mu per node: a share of the average complementarity."""
        nodes, free = self.problem.nodes, ~self.fixed
        total = (self.slack * self.dual).sum(axis=1) + self.z * self.floor
        total += np.where(free, (self.x - nodes.low_BV) * self.below + (nodes.high_BV - self.x) * self.above, 0).sum(
            axis=1
        )
        return np.asarray(CENTERING * total / (self.dual.shape[1] + 1 + 2 * free.sum(axis=1)))

    def advance(self) -> None:
        """One Newton step on the perturbed optimality conditions, cut to stay positive."""
        nodes, n = self.problem.nodes, self.problem.size
        mu = self._target()
        room_low = np.where(self.fixed, 1.0, np.maximum(self.x - nodes.low_BV, TINY))
        room_high = np.where(self.fixed, 1.0, np.maximum(nodes.high_BV - self.x, TINY))
        residual = self.at_x.g - self.z[:, None] + self.slack
        ratio = self.dual / self.slack
        pull = mu[:, None] / self.slack + ratio * residual
        gradient = np.matmul(pull[:, None], self.pulls)[:, 0]
        gradient[:, :n] += mu[:, None] / room_high - mu[:, None] / room_low - self.at_x.slope
        gradient[:, n] += ELASTIC - mu / self.z
        step = self._solve(gradient, ratio, self.below / room_low + self.above / room_high)
        dx, dz = step[:, :n], step[:, n]
        dslack = -residual - np.matmul(self.pulls, step[:, :, None])[:, :, 0]
        ddual = mu[:, None] / self.slack - self.dual - ratio * dslack
        dbelow = mu[:, None] / room_low - self.below - self.below / room_low * dx
        dabove = mu[:, None] / room_high - self.above + self.above / room_high * dx
        dfloor = mu / self.z - self.floor - self.floor / self.z * dz
        free = np.where(self.fixed, 0.0, dx)
        primal = _longest((self.slack, dslack), (room_low, free), (room_high, -free), (self.z[:, None], dz[:, None]))
        dual = _longest(
            (self.dual, ddual), (self.below, dbelow), (self.above, dabove), (self.floor[:, None], dfloor[:, None])
        )
        self.x = self.x + primal[:, None] * free
        self.z = self.z + primal * dz
        self.slack = self.slack + primal[:, None] * dslack
        self.dual = self.dual + dual[:, None] * ddual
        self.below, self.above = self.below + dual[:, None] * dbelow, self.above + dual[:, None] * dabove
        self.floor = self.floor + dual * dfloor

    def _solve(self, gradient: Floats, ratio: Floats, box: Floats) -> Floats:
        """-H^-1 gradient in (x, z), B x (V + 1); fixed variables do not move."""
        n = self.problem.size
        hessian = self.problem.hessian(self.at_x, self.dual, ratio)
        hessian[:, n, n] += self.floor / self.z
        index = np.arange(n)
        hessian[:, index, index] += box
        node, variable = np.nonzero(self.fixed)
        hessian[node, variable, :], hessian[node, :, variable] = 0.0, 0.0
        hessian[node, variable, variable] = 1.0
        gradient[node, variable] = 0.0
        # scaling by the diagonal keeps slacks of very different size from spoiling the solve
        scale = 1.0 / np.sqrt(np.maximum(np.einsum("bii->bi", hessian), 1e-300))
        matrix = hessian * scale[:, :, None] * scale[:, None, :]
        every = np.arange(n + 1)
        matrix[:, every, every] += 1e-12
        # a node whose numbers have run away stays where it is; its bound is what was certified before
        lost = ~(np.isfinite(matrix).all(axis=(1, 2)) & np.isfinite(gradient).all(axis=1))
        matrix[lost], gradient[lost], scale[lost] = np.eye(n + 1), 0.0, 1.0
        return np.asarray(-scale * np.linalg.solve(matrix, (gradient * scale)[:, :, None])[:, :, 0])


def _longest(*pairs: tuple[Floats, Floats]) -> Floats:
    """The longest step up to 1 that keeps every value positive, with a margin."""
    length = np.ones(len(pairs[0][0]))
    for value, change in pairs:
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(change < 0, -value / change, np.inf).min(axis=1)
        length = np.minimum(length, TO_BOUNDARY * room)
    return length
