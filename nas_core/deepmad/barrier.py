"""Many concave relaxations at once: a batched interior-point method and the bounds its multipliers certify.

A primal-dual interior-point method with slacks. Every constraint g(x) <= 0 is
relaxed to g(x) <= z with z >= 0 priced at ``ELASTIC`` a unit, so multipliers
stay bounded and an infeasible node shows as a very low bound. The bound does
not depend on how well the method converged: for any multipliers lambda >= 0
the Lagrangian is concave, so its tangent at any point, maximised over the box,
is above every feasible value. Axes as in ``relaxation``; J constraints.
"""

from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from nas_core.deepmad.formulas import Floats
from nas_core.deepmad.relaxation import LINEAR_FROM, STD_SMOOTHING, Monomials, Nodes, Program, squeeze_line

ELASTIC = 2.0e5  # price of violating a constraint by one unit; scores are of order 1e4
CENTERING = 0.15  # next mu over the present average complementarity
TO_BOUNDARY = 0.95
RHO_SCALE, U_SCALE, SCORE_SCALE = 100.0, 10.0, 1000.0  # bring the constraints to like sizes
FIXED_WIDTH = 1e-9  # a range narrower than this is a constant
MAX_STEPS = 40
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
    """The relaxation's data for a batch of nodes, and its values and derivatives at a batch of points."""

    def __init__(self, program: Program, nodes: Nodes, goal: Goal) -> None:
        self.program, self.nodes, self.goal = program, nodes, goal
        self.size = program.layout.size
        self.resources = [self._log_monomials(resource) for resource in program.resources]
        self.rows_BMV, self.rows_BM = self._linear()
        self.chord_T = np.abs(program.w_TV).sum(axis=1) > 0  # stages whose product needs the chord
        self.num_constraints = (
            self.rows_BM.shape[1]
            + len(self.resources)
            + len(program.rho_T)
            + int(self.chord_T.sum())
            + (goal.at_least is not None)
        )

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
        part.nodes = self.nodes.take(index)
        part.resources = [(power[index], intercept[index]) for power, intercept in self.resources]
        part.rows_BMV, part.rows_BM = self.rows_BMV[index], self.rows_BM[index]
        if self.goal.row_BV is not None:
            part.goal = replace(self.goal, row_BV=self.goal.row_BV[index])
        return part

    def score(self, x_BV: Floats) -> tuple[Floats, Floats, Floats]:
        """The relaxed score, its gradient and its Hessian."""
        program, nodes = self.program, self.nodes
        w_BT = x_BV @ program.w_TV.T + program.w_T
        E_BT = x_BV @ program.E_TV.T + program.E_T
        value, gradient, hessian = self._penalty(x_BV)
        for t, alpha in enumerate(program.alpha_T):
            w, E = w_BT[:, t], E_BT[:, t]
            if not self.chord_T[t]:
                value = value + alpha * w * E
                gradient += alpha * program.w_T[t] * program.E_TV[t]
                continue
            low, high = nodes.u_low_BT[:, t], nodes.u_high_BT[:, t]
            u, slope, bend = self._root(t, w, E)
            value = value + alpha * ((low + high) * u - low * high)
            gradient += (alpha * (low + high))[:, None] * slope
            hessian += (alpha * (low + high))[:, None, None] * bend
        return value, gradient, hessian

    def _root(self, t: int, w: Floats, E: Floats) -> tuple[Floats, Floats, Floats]:
        """u_t = sqrt(w_t E_t), its gradient and its Hessian."""
        u = np.sqrt(np.maximum(w * E, 1e-12))
        by_w, by_E = self.program.w_TV[t] / w[:, None], self.program.E_TV[t] / E[:, None]
        gap = by_w - by_E
        return u, (0.5 * u)[:, None] * (by_w + by_E), (-0.25 * u)[:, None, None] * (gap[:, :, None] * gap[:, None, :])

    def _penalty(self, x_BV: Floats) -> tuple[Floats, Floats, Floats]:
        """Minus a convex lower bound of beta exp(spread); exact where the penalised depths are fixed."""
        program, B = self.program, len(self.nodes)
        index = program.penalised
        gradient, hessian = np.zeros((B, self.size)), np.zeros((B, self.size, self.size))
        beta = program.objective.beta
        if not index:
            return np.full(B, -beta), gradient, hessian
        L_BP = x_BV[:, index]
        spread, first, second = self._spread(L_BP)
        with np.errstate(over="ignore"):
            capped = np.exp(np.minimum(spread, LINEAR_FROM))
            fixed = (self.nodes.high_BV[:, index] - self.nodes.low_BV[:, index]).max(axis=1) < FIXED_WIDTH
            true = L_BP.std(axis=1) if program.objective.unevenness == "std" else L_BP.var(axis=1)
            height = np.where(fixed, np.exp(np.minimum(true, 60.0)), capped * (1 + np.maximum(spread - LINEAR_FROM, 0)))
        bend = np.where(spread < LINEAR_FROM, capped, 0.0)
        gradient[:, index] = -beta * capped[:, None] * first
        block = bend[:, None, None] * first[:, :, None] * first[:, None, :] + capped[:, None, None] * second
        hessian[np.ix_(range(B), index, index)] = -beta * block
        return -beta * height, gradient, hessian

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

    def constraints(self, x_BV: Floats, multipliers_BJ: Floats) -> tuple[Floats, Floats, Floats]:
        """g (B x J), its gradients (B x J x V), and the Hessian of lambda . g (B x V x V)."""
        program, B, linear = self.program, len(self.nodes), self.rows_BM.shape[1]
        g_BJ = np.empty((B, self.num_constraints))
        g_BJV = np.empty((B, self.num_constraints, self.size))
        hessian = np.zeros((B, self.size, self.size))
        g_BJ[:, :linear] = np.matmul(self.rows_BMV, x_BV[:, :, None])[:, :, 0] - self.rows_BM
        g_BJV[:, :linear] = self.rows_BMV
        j = linear
        for power_BKV, intercept_BK in self.resources:
            g_BJ[:, j], g_BJV[:, j], bend = _log_sum(power_BKV, intercept_BK, x_BV)
            hessian += multipliers_BJ[:, j, None, None] * bend
            j += 1
        E_BT, D_BT = x_BV @ program.E_TV.T + program.E_T, x_BV @ program.D_TV.T + program.D_T
        for t in program.rho_T:
            assert program.limits.rho is not None
            D = D_BT[:, t]
            log = np.log(D / program.limits.rho)
            g_BJ[:, j] = (D * log - 2.0 * E_BT[:, t]) / RHO_SCALE
            g_BJV[:, j] = ((log + 1.0)[:, None] * program.D_TV[t] - 2.0 * program.E_TV[t]) / RHO_SCALE
            outer = program.D_TV[t][:, None] * program.D_TV[t][None]
            hessian += (multipliers_BJ[:, j] / (RHO_SCALE * D))[:, None, None] * outer
            j += 1
        w_BT = x_BV @ program.w_TV.T + program.w_T
        for t in np.flatnonzero(self.chord_T):
            u, slope, bend = self._root(int(t), w_BT[:, t], E_BT[:, t])
            g_BJ[:, j], g_BJV[:, j] = (self.nodes.u_low_BT[:, t] - u) / U_SCALE, -slope / U_SCALE
            hessian -= (multipliers_BJ[:, j] / U_SCALE)[:, None, None] * bend
            j += 1
        if self.goal.at_least is not None:
            score, slope, bend = self.score(x_BV)
            g_BJ[:, j], g_BJV[:, j] = (self.goal.at_least - score) / SCORE_SCALE, -slope / SCORE_SCALE
            hessian -= (multipliers_BJ[:, j] / SCORE_SCALE)[:, None, None] * bend
        return g_BJ, g_BJV, hessian

    def goal_value(self, x_BV: Floats) -> tuple[Floats, Floats, Floats]:
        """The goal, its gradient and its Hessian."""
        if self.goal.score:
            value, gradient, hessian = self.score(x_BV)
            scale = self.goal.score
            value, gradient, hessian = scale * value, scale * gradient, scale * hessian
        else:
            B, n = x_BV.shape
            value, gradient, hessian = np.zeros(B), np.zeros((B, n)), np.zeros((B, n, n))
        if self.goal.row_BV is not None:
            value = value + (self.goal.row_BV * x_BV).sum(axis=1)
            gradient = gradient + self.goal.row_BV
        return value, gradient, hessian


def _log_sum(power_BKV: Floats, intercept_BK: Floats, x_BV: Floats) -> tuple[Floats, Floats, Floats]:
    """ln sum_k exp(power_k . x + intercept_k), its gradient and its Hessian."""
    y = np.matmul(power_BKV, x_BV[:, :, None])[:, :, 0] + intercept_BK
    top = y.max(axis=1)
    share = np.exp(y - top[:, None])
    total = share.sum(axis=1)
    share /= total[:, None]
    gradient = np.matmul(share[:, None], power_BKV)[:, 0]
    hessian = np.matmul(power_BKV.transpose(0, 2, 1), power_BKV * share[:, :, None])
    return top + np.log(total), gradient, hessian - gradient[:, :, None] * gradient[:, None]


def relax(program: Program, nodes: Nodes, goal: Goal | None = None, *, precision: float, prune: float) -> Relaxed:
    """Certified upper bounds of the goal over every node, and points where they are nearly attained.

    A node is finished when its bound is within ``precision`` of its point's
    goal, or below ``prune``.
    """
    problem = NodeProblem(program, nodes, goal or Goal())
    B, n = len(nodes), problem.size
    bound_B, x_out, violation_B = np.full(B, np.inf), np.zeros((B, n)), np.zeros(B)
    live = np.arange(B)
    state = _Iterate.start(problem)
    for step in range(MAX_STEPS):
        certified, gap = state.linearise()
        bound_B[live] = np.fmin(bound_B[live], certified)
        x_out[live], violation_B[live] = state.x, state.z
        finished = (bound_B[live] < prune) | (gap < precision) | (step == MAX_STEPS - 1)
        if finished.all():
            break
        if (~finished).mean() < COMPACT_BELOW:
            live, state = live[~finished], state.take(~finished)
            state.linearise()
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
        B, J = len(nodes), problem.num_constraints
        x = 0.5 * (nodes.low_BV + nodes.high_BV)
        g, _, _ = problem.constraints(x, np.ones((B, J)))
        z = np.full(B, 0.1)
        slack = np.maximum(z[:, None] - g, 0.1)
        half = np.maximum(0.5 * (nodes.high_BV - nodes.low_BV), FIXED_WIDTH)
        mu = 200.0
        return cls(problem, x=x, z=z, slack=slack, dual=mu / slack, below=mu / half, above=mu / half, floor=mu / z)

    def take(self, index: np.ndarray) -> "_Iterate":
        return _Iterate(self.problem.take(index), **{name: getattr(self, name)[index] for name in self.NAMES})

    def linearise(self) -> tuple[Floats, Floats]:
        """Values and derivatives at the point; returns the certified bound and the method's own gap."""
        problem, nodes = self.problem, self.problem.nodes
        self.value, self.slope, self.bend = problem.goal_value(self.x)
        self.g, self.g_V, self.curved = problem.constraints(self.x, self.dual)
        gradient = self.slope - np.matmul(self.dual[:, None], self.g_V)[:, 0]
        reach = np.maximum(gradient * (nodes.low_BV - self.x), gradient * (nodes.high_BV - self.x)).sum(axis=1)
        weighted = self.dual * self.g
        bound = self.value - weighted.sum(axis=1) + reach
        # round-off of sums of terms of this size
        bound = bound + 1e-11 * (np.abs(self.value) + np.abs(weighted).sum(axis=1) + np.abs(reach))
        return bound, bound - (self.value - ELASTIC * self.z)

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
        room_low = np.where(self.fixed, 1.0, self.x - nodes.low_BV)
        room_high = np.where(self.fixed, 1.0, nodes.high_BV - self.x)
        residual = self.g - self.z[:, None] + self.slack
        ratio = self.dual / self.slack
        pull = mu[:, None] / self.slack + ratio * residual
        gradient = np.empty((len(nodes), n + 1))
        gradient[:, :n] = -self.slope + np.matmul(pull[:, None], self.g_V)[:, 0]
        gradient[:, :n] += mu[:, None] / room_high - mu[:, None] / room_low
        gradient[:, n] = ELASTIC - pull.sum(axis=1) - mu / self.z
        step = self._solve(gradient, ratio, self.below / room_low + self.above / room_high)
        dx, dz = step[:, :n], step[:, n]
        dslack = -residual - np.matmul(self.g_V, dx[:, :, None])[:, :, 0] + dz[:, None]
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
        n, B = self.problem.size, len(gradient)
        scaled = self.g_V * ratio[:, :, None]
        hessian = np.empty((B, n + 1, n + 1))
        hessian[:, :n, :n] = np.matmul(self.g_V.transpose(0, 2, 1), scaled) + self.curved - self.bend
        cross = -scaled.sum(axis=1)
        hessian[:, :n, n], hessian[:, n, :n] = cross, cross
        hessian[:, n, n] = ratio.sum(axis=1) + self.floor / self.z
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
        return np.asarray(-scale * np.linalg.solve(matrix, (gradient * scale)[:, :, None])[:, :, 0])


def _longest(*pairs: tuple[Floats, Floats]) -> Floats:
    """The longest step up to 1 that keeps every value positive, with a margin."""
    length = np.ones(len(pairs[0][0]))
    for value, change in pairs:
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(change < 0, -value / change, np.inf).min(axis=1)
        length = np.minimum(length, TO_BOUNDARY * room)
    return length
