"""The concave relaxation of the DeepMAD program over a box, as data for the barrier method.

Variables, per structure (n = 1 + 5 S): the logs of the stem's channels and of
every super-block's output, bottleneck and kernel; the depths L; and the
half-log widths e. In these variables

- FLOPs, parameters and the latency bound are sums of monomials with
  coefficients p + q L. ln(p + q L) is concave in L, so its chord over the
  node's depth range bounds it from below, exactly at both ends: the log of the
  sum is a convex function;
- rho <= rho0 is D ln(D / rho0) - 2 E <= 0, convex in the depths;
- e = (ln c - ln o) / 2 + L a with a = d ln b + ln k + (ln o) / 2 is bounded
  from above by McCormick's two planes, exact at the ends of the depth range;
- the score is a sum of products w E of affine functions. With u = sqrt(w E),
  concave, and u in [u_low, u_high], u^2 <= (u_low + u_high) u - u_low u_high;
- exp(spread of the depths) is convex.

So the relaxation is concave, and any multipliers certify an upper bound of it
(``barrier.certificate``), whatever the quality of the numerical solution.

Axes: B nodes, V variables, T stages, K monomials, M linear rows, R resources, S super-blocks.
"""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from nas_core.deepmad.domain import Domain, Limits
from nas_core.deepmad.formulas import Floats, Ints, Objective, squeeze_channels
from nas_core.deepmad.structure import LAYERS_PER_BLOCK

STD_SMOOTHING = 0.05  # sqrt(var + eps^2) - eps <= std, smooth and convex
LINEAR_FROM = 6.0  # exp(spread) goes on as its tangent from here: convex, below exp, and tame


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each variable stands in a row of V = 1 + 5 S values."""

    num_blocks: int

    @property
    def size(self) -> int:
        return 1 + 5 * self.num_blocks

    def out(self, i: int) -> int:
        """ln o of super-block i; the stem's ln c0 for i = -1."""
        return 1 + i

    def bottleneck(self, i: int) -> int:
        return 1 + self.num_blocks + i

    def kernel(self, i: int) -> int:
        return 1 + 2 * self.num_blocks + i

    def depth(self, i: int) -> int:
        return 1 + 3 * self.num_blocks + i

    def entropy(self, i: int) -> int:
        return 1 + 4 * self.num_blocks + i

    @property
    def depths(self) -> slice:
        return slice(1 + 3 * self.num_blocks, 1 + 4 * self.num_blocks)

    @property
    def channels(self) -> slice:
        """Logs of stem, outputs and bottlenecks."""
        return slice(0, 1 + 2 * self.num_blocks)

    @property
    def kernels(self) -> slice:
        return slice(1 + 2 * self.num_blocks, 1 + 3 * self.num_blocks)


@dataclass(frozen=True, kw_only=True)
class Monomials:
    """sum_k (p_k + q_k L_k) exp(power_k . x) <= limit; ``squeeze_K`` marks an extra factor q(b) (SE channels)."""

    name: str
    power_KV: Floats
    p_K: Floats
    q_K: Floats
    block_K: Ints  # whose depth L_k is; -1 for none
    squeeze_K: Ints  # super-block whose squeeze channels multiply the monomial; -1 for none
    limit: float


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """Boxes of the search: ranges of the variables, of the slopes a_i, and of u_t = sqrt(w_t E_t).

    Ranges of a and u may also be narrowed to what can still beat a known score.
    """

    low_BV: Floats
    high_BV: Floats
    a_low_BS: Floats
    a_high_BS: Floats
    u_low_BT: Floats
    u_high_BT: Floats

    def __len__(self) -> int:
        return len(self.low_BV)

    def take(self, index: Ints | slice | np.ndarray) -> "Nodes":
        return Nodes(
            low_BV=self.low_BV[index],
            high_BV=self.high_BV[index],
            a_low_BS=self.a_low_BS[index],
            a_high_BS=self.a_high_BS[index],
            u_low_BT=self.u_low_BT[index],
            u_high_BT=self.u_high_BT[index],
        )

    def copy(self) -> "Nodes":
        return Nodes(**{name: getattr(self, name).copy() for name in self.__dataclass_fields__})


def stack(parts: list[Nodes]) -> Nodes:
    """The nodes of all parts."""
    names = Nodes.__dataclass_fields__
    return Nodes(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


class _Terms:
    """Collects the monomials of one resource."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.rows: list[tuple[Floats, float, float, int, int]] = []

    def add(self, powers: dict[int, float], p: float, q: float = 0.0, block: int = -1, squeeze: int = -1) -> None:
        row = np.zeros(self.layout.size)
        for index, power in powers.items():
            row[index] += power
        if p or q:
            self.rows.append((row, p, q, block, squeeze))

    def monomials(self, name: str, limit: float) -> Monomials:
        power, p, q, block, squeeze = zip(*self.rows, strict=True)
        return Monomials(
            name=name,
            power_KV=np.array(power),
            p_K=np.array(p),
            q_K=np.array(q),
            block_K=np.array(block),
            squeeze_K=np.array(squeeze),
            limit=limit,
        )


def params_monomials(domain: Domain, layout: Layout, limit: float) -> Monomials:
    """``formulas.params`` term by term."""
    skeleton, terms = domain.skeleton, _Terms(layout)
    terms.add({layout.out(-1): 1}, skeleton.stem_params)
    for i in range(skeleton.num_blocks):
        c, o, b, k = layout.out(i - 1), layout.out(i), layout.bottleneck(i), layout.kernel(i)
        terms.add({c: 1, b: 1}, 1)
        terms.add({o: 1, b: 1}, -1, 2, i)
        if skeleton.family == "resnet":
            terms.add({b: 1}, 0, 4, i)
            terms.add({b: 2, k: 2}, 0, 1, i)
            terms.add({o: 1}, 2, 2, i)
            terms.add({c: 1, o: 1}, 1)
        else:
            terms.add({b: 1}, 0, 6, i)
            terms.add({b: 1, k: 2}, 0, 1, i)
            terms.add({o: 1}, 0, 2, i)
            terms.add({b: 1}, 0, 2, i, squeeze=i)
            terms.add({}, 0, 2, i, squeeze=i)
    if skeleton.head is not None:
        terms.add({layout.out(skeleton.num_blocks - 1): 1}, skeleton.head)
        terms.add({}, 2 * skeleton.head)
    return terms.monomials("params", limit)


def flops_monomials(
    domain: Domain, layout: Layout, limit: float, scale_S: Floats | None = None, fixed: float | None = None
) -> Monomials:
    """``formulas.flops`` term by term; the pooled shortcut of the MobileNet family (c = o only) is left out.

    With ``scale_S`` super-block i counts ``scale_S[i]`` times, and stem and head are the constant ``fixed``.
    """
    skeleton, terms = domain.skeleton, _Terms(layout)
    if fixed is None:
        terms.add({layout.out(-1): 1}, skeleton.stem_flops)
    else:
        terms.add({}, fixed)
    for i, side in enumerate(skeleton.out_resolutions):
        c, o, b, k = layout.out(i - 1), layout.out(i), layout.bottleneck(i), layout.kernel(i)
        area = side**2 * (1.0 if scale_S is None else float(scale_S[i]))
        s2 = skeleton.strides[i] ** 2
        dense = 2 if skeleton.family == "resnet" else 1
        terms.add({c: 1, b: 1}, area * s2)
        terms.add({b: 1}, area * (3 * s2 - 3), area * 6, i)
        terms.add({b: dense, k: 2}, 0, area, i)
        terms.add({o: 1, b: 1}, -area, 2 * area, i)
        if skeleton.family == "resnet":
            terms.add({o: 1}, 3 * area, 3 * area, i)
            terms.add({c: 1, o: 1}, area)
            terms.add({c: 1}, area * s2 if s2 == 4 else 0)
        else:
            terms.add({o: 1}, 0, 3 * area, i)
    if skeleton.head is not None and fixed is None:
        area = skeleton.head * skeleton.out_resolutions[-1] ** 2
        terms.add({layout.out(skeleton.num_blocks - 1): 1}, area)
        terms.add({}, 3 * area)
    return terms.monomials("flops", limit)


@lru_cache(maxsize=100_000)
def squeeze_line(low: int, high: int, step: int) -> tuple[float, float]:
    """Slope and intercept of a line in ln b below ln q(b) at every multiple of ``step`` in [low, high]."""
    b = np.arange(low, high + 1, step)
    log_b, log_q = np.log(b), np.log(squeeze_channels(b))
    slope = 0.0 if len(b) == 1 else max(0.0, float((log_q[-1] - log_q[0]) / (log_b[-1] - log_b[0])))
    return slope, float((log_q - slope * log_b).min())


@dataclass(frozen=True)
class Program:
    """The relaxation's fixed data: one per domain, limits and objective."""

    domain: Domain
    limits: Limits
    objective: Objective
    layout: Layout = field(init=False)
    resources: tuple[Monomials, ...] = field(init=False)
    E_TV: Floats = field(init=False)  # E_t = E_TV x + E_T
    E_T: Floats = field(init=False)
    D_TV: Floats = field(init=False)
    D_T: Floats = field(init=False)
    w_TV: Floats = field(init=False)  # ln C_t + 2 ln R_t = w_TV x + w_T
    w_T: Floats = field(init=False)
    alpha_T: Floats = field(init=False)
    rows_MV: Floats = field(init=False)  # rows_MV x <= rows_M
    rows_M: Floats = field(init=False)
    rho_T: Ints = field(init=False)  # stages whose effectiveness is limited

    def __post_init__(self) -> None:
        layout = Layout(num_blocks=self.domain.skeleton.num_blocks)
        E_TV, E_T, D_TV, D_T = _sums(self.domain, layout)
        w_TV, w_T = _heights(self.domain, layout, self.objective)
        rows = _ratio_rows(self.domain, layout)
        values = {
            "layout": layout,
            "resources": _resources(self.domain, self.limits, layout),
            "E_TV": E_TV,
            "E_T": E_T,
            "D_TV": D_TV,
            "D_T": D_T,
            "w_TV": w_TV,
            "w_T": w_T,
            "alpha_T": np.array(self.objective.weights(self.domain.skeleton)),
            "rows_MV": rows[0],
            "rows_M": rows[1],
            "rho_T": np.flatnonzero(np.abs(D_TV).sum(axis=1) > 0) if self.limits.rho is not None else np.zeros(0, int),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @cached_property
    def chord_T(self) -> Ints:  # noqa: N802
        """Stages where both w_t and E_t vary, so that their product needs the chord."""
        return np.flatnonzero(np.abs(self.w_TV).any(axis=1) & np.abs(self.E_TV).any(axis=1))

    @property
    def half_dense(self) -> float:
        """d in a = d ln b + ln k + (ln o) / 2."""
        return 1.0 if self.domain.skeleton.family == "resnet" else 0.5

    @property
    def penalised(self) -> list[int]:
        """Variables of the depths that the objective penalises."""
        return [self.layout.depth(i) for i in self.objective.penalised(self.domain.skeleton)]

    def slope_row(self, i: int) -> Floats:
        """a_i as a row over the variables."""
        row = np.zeros(self.layout.size)
        row[self.layout.out(i)] = 0.5
        row[self.layout.bottleneck(i)] = self.half_dense
        row[self.layout.kernel(i)] = 1.0
        return row

    def base_row(self, i: int) -> Floats:
        """(ln c_i - ln o_i) / 2 as a row over the variables."""
        row = np.zeros(self.layout.size)
        row[self.layout.out(i - 1)] += 0.5
        row[self.layout.out(i)] -= 0.5
        return row


def _resources(domain: Domain, limits: Limits, layout: Layout) -> tuple[Monomials, ...]:
    found = []
    if limits.flops is not None:
        found.append(flops_monomials(domain, layout, limits.flops))
    if limits.params is not None:
        found.append(params_monomials(domain, layout, limits.params))
    if limits.latency_us is not None and limits.latency_table is not None:
        scale_S = limits.latency_table.least_us_per_flop(domain.skeleton)
        fixed = limits.latency_table.fixed_us
        found.append(flops_monomials(domain, layout, limits.latency_us, scale_S, fixed))
    return tuple(found)


def _sums(domain: Domain, layout: Layout) -> tuple[Floats, Floats, Floats, Floats]:
    """Rows and constants of E_t and D_t."""
    skeleton = domain.skeleton
    T = skeleton.num_stages
    E_TV, D_TV = np.zeros((T, layout.size)), np.zeros((T, layout.size))
    E_T, D_T = np.full(T, 0.5 * np.log(skeleton.stem_width)), np.ones(T)
    for t in range(T):
        for i in range(skeleton.last_block_of_stage(t) + 1):
            E_TV[t, layout.entropy(i)] = 1.0
            D_TV[t, layout.depth(i)] = LAYERS_PER_BLOCK
    if skeleton.head is not None:
        E_TV[-1, layout.out(skeleton.num_blocks - 1)] = 0.5
        D_T[-1] += 1
    return E_TV, E_T, D_TV, D_T


def _heights(domain: Domain, layout: Layout, objective: Objective) -> tuple[Floats, Floats]:
    """Rows and constants of w_t = ln C_t + 2 ln R_t."""
    skeleton = domain.skeleton
    w_T = np.array(objective.stage_log_area(skeleton))
    w_TV = np.zeros((skeleton.num_stages, layout.size))
    for t in range(skeleton.num_stages):
        if skeleton.head is not None and t == skeleton.num_stages - 1:
            w_T[t] += np.log(skeleton.head)
        else:
            w_TV[t, layout.out(skeleton.last_block_of_stage(t))] = 1.0
    return w_TV, w_T


def _ratio_rows(domain: Domain, layout: Layout) -> tuple[Floats, Floats]:
    """The domain's ratios between channels as rows over the logs."""
    rows, bounds = [], []

    def at_most(plus: int, minus: int, ratio: float) -> None:
        row = np.zeros(layout.size)
        row[plus], row[minus] = 1.0, -1.0
        rows.append(row)
        bounds.append(np.log(ratio))

    for i in range(domain.skeleton.num_blocks):
        c, o, b = layout.out(i - 1), layout.out(i), layout.bottleneck(i)
        if domain.monotone:
            at_most(c, o, 1.0)
        if domain.growth is not None:
            at_most(o, c, domain.growth)
        at_most(o, b, 1.0 / domain.narrow)
        at_most(b, o, domain.wide)
    return np.array(rows), np.array(bounds)


def root(program: Program) -> Nodes:
    """The whole domain as one node."""
    domain, layout = program.domain, program.layout
    low, high = np.zeros(layout.size), np.zeros(layout.size)

    def channels(index: int, value: tuple[int, int]) -> None:
        low[index] = np.log(domain.multiple_above(value[0]))
        high[index] = np.log(domain.multiple_below(value[1]))

    channels(layout.out(-1), domain.stem)
    for i, block in enumerate(domain.blocks):
        channels(layout.out(i), block.out)
        channels(layout.bottleneck(i), block.bottleneck)
        low[layout.kernel(i)], high[layout.kernel(i)] = np.log(block.kernels[0]), np.log(block.kernels[-1])
        low[layout.depth(i)], high[layout.depth(i)] = block.depth
        high[layout.entropy(i)] = np.inf
        low[layout.entropy(i)] = -np.inf
    T = domain.skeleton.num_stages
    nodes = Nodes(
        low_BV=low[None],
        high_BV=high[None],
        a_low_BS=np.full((1, layout.num_blocks), -np.inf),
        a_high_BS=np.full((1, layout.num_blocks), np.inf),
        u_low_BT=np.zeros((1, T)),
        u_high_BT=np.full((1, T), np.inf),
    )
    return tighten(program, nodes)


def tighten(program: Program, nodes: Nodes) -> Nodes:
    """Rigorous tightening by intervals: ratios between channels, whole multiples, kernels, depths, then e and u."""
    nodes = nodes.copy()
    low_BV, high_BV = nodes.low_BV, nodes.high_BV
    layout, domain = program.layout, program.domain
    for _ in range(2):
        _propagate_slopes(program, nodes)
        _propagate_ratios(program, low_BV, high_BV)
        _round(domain, layout, low_BV, high_BV)
    for i in range(layout.num_blocks):
        a_low, a_high = interval(program.slope_row(i), low_BV, high_BV)
        a_low = nodes.a_low_BS[:, i] = np.maximum(a_low, nodes.a_low_BS[:, i])
        a_high = nodes.a_high_BS[:, i] = np.minimum(a_high, nodes.a_high_BS[:, i])
        base_low, base_high = interval(program.base_row(i), low_BV, high_BV)
        L, e = layout.depth(i), layout.entropy(i)
        low_BV[:, e] = np.maximum(low_BV[:, e], base_low + low_BV[:, L] * a_low)
        high_BV[:, e] = np.minimum(high_BV[:, e], base_high + high_BV[:, L] * a_high)
    for t in range(len(program.alpha_T)):
        w_low, w_high = interval(program.w_TV[t], low_BV, high_BV)
        E_low, E_high = interval(program.E_TV[t], low_BV, high_BV)
        w_low, w_high = w_low + program.w_T[t], w_high + program.w_T[t]
        E_low, E_high = E_low + program.E_T[t], E_high + program.E_T[t]
        nodes.u_low_BT[:, t] = np.maximum(nodes.u_low_BT[:, t], np.sqrt(np.maximum(w_low * E_low, 0.0)))
        nodes.u_high_BT[:, t] = np.minimum(nodes.u_high_BT[:, t], np.sqrt(np.maximum(w_high * E_high, 0.0)))
    return nodes


def interval(row: Floats, low_BV: Floats, high_BV: Floats) -> tuple[Floats, Floats]:
    """Least and greatest value of ``row . x`` over every box."""
    used = np.flatnonzero(row)
    plus, minus = np.maximum(row[used], 0.0), np.minimum(row[used], 0.0)
    low, high = low_BV[:, used], high_BV[:, used]
    return low @ plus + high @ minus, high @ plus + low @ minus


def _propagate_ratios(program: Program, low_BV: Floats, high_BV: Floats) -> None:
    """x_p - x_m <= h: x_p is at most h over x_m's high, x_m at least h under x_p's low."""
    for row, bound in zip(program.rows_MV, program.rows_M, strict=True):
        p, m = int(np.argmax(row)), int(np.argmin(row))
        np.minimum(high_BV[:, p], high_BV[:, m] + bound, out=high_BV[:, p])
        np.maximum(low_BV[:, m], low_BV[:, p] - bound, out=low_BV[:, m])


def _propagate_slopes(program: Program, nodes: Nodes) -> None:
    """a = d ln b + ln k + (ln o) / 2 within its range: every part given the others."""
    for i in range(program.layout.num_blocks):
        row = program.slope_row(i)
        total_low, total_high = interval(row, nodes.low_BV, nodes.high_BV)
        for v in np.flatnonzero(row):
            low, high = nodes.low_BV[:, v].copy(), nodes.high_BV[:, v].copy()
            others_low, others_high = total_low - row[v] * low, total_high - row[v] * high
            nodes.low_BV[:, v] = np.maximum(low, (nodes.a_low_BS[:, i] - others_high) / row[v])
            nodes.high_BV[:, v] = np.minimum(high, (nodes.a_high_BS[:, i] - others_low) / row[v])


def _round(domain: Domain, layout: Layout, low_BV: Floats, high_BV: Floats) -> None:
    """Ends moved in to multiples of the step, kernels of the domain, and whole depths."""
    channels = layout.channels
    step = domain.step
    low_BV[:, channels] = np.log(
        step * np.maximum(1, np.ceil(np.exp(np.minimum(low_BV[:, channels], 30.0)) / step - 1e-6))
    )
    high = np.floor(np.exp(np.minimum(high_BV[:, channels], 30.0)) / step + 1e-6)
    high_BV[:, channels] = np.log(step * np.maximum(high, 0.5))
    for i, block in enumerate(domain.blocks):
        logs = np.log(np.array(block.kernels))
        k = layout.kernel(i)
        up = np.searchsorted(logs, low_BV[:, k] - 1e-9)
        down = np.searchsorted(logs, high_BV[:, k] + 1e-9, side="right") - 1
        low_BV[:, k] = np.where(up < len(logs), logs[np.minimum(up, len(logs) - 1)], low_BV[:, k])
        high_BV[:, k] = np.where(down >= 0, logs[np.maximum(down, 0)], high_BV[:, k])
    depths = layout.depths
    low_BV[:, depths] = np.ceil(low_BV[:, depths] - 1e-6)
    high_BV[:, depths] = np.floor(high_BV[:, depths] + 1e-6)


def nonempty(nodes: Nodes) -> np.ndarray:
    """Which boxes hold a point."""
    boxes = (nodes.low_BV <= nodes.high_BV + 1e-12).all(axis=1)
    boxes &= (nodes.a_low_BS <= nodes.a_high_BS + 1e-12).all(axis=1)
    return np.asarray(boxes & (nodes.u_low_BT <= nodes.u_high_BT + 1e-12).all(axis=1))
