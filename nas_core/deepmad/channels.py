"""CP-SAT over all channels with depths and kernels fixed: exact integer FLOPs and parameters.

Channels are counted in steps. Logs are integers rounded up at ``LOG_SCALE``,
so the model's optimum is an upper bound of the true one over these depths and
kernels; the answer itself is rated again by the exact evaluator.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ortools.sat.python import cp_model

from nas_core.base.interruptible import solve_interruptibly
from nas_core.deepmad.concave import Program
from nas_core.deepmad.domain import RHO_TOLERANCE
from nas_core.deepmad.formulas import Ints, squeeze_channels
from nas_core.deepmad.structure import LAYERS_PER_BLOCK

LOG_SCALE = 100_000
RATIO_SCALE = 100_000
LATENCY_SCALE = 1_000_000  # picoseconds, rounded down: what keeps the limit is not shut out


@dataclass(frozen=True, kw_only=True)
class ChannelAnswer:
    """The best channels found (a ``polish`` row; None without any) and a bound over these depths and kernels."""

    row: Ints | None
    bound: float
    proved: bool
    cpu_s: float


class ChannelModel:
    """Variables and rules of one choice of depths and kernels."""

    def __init__(self, program: Program, kernels: Sequence[int], depths: Sequence[int]) -> None:
        self.program, self.kernels, self.depths = program, tuple(kernels), tuple(depths)
        self.domain = program.domain
        self.step = self.domain.step
        self.model = cp_model.CpModel()
        self.ends: dict[int, tuple[int, int]] = {}  # of the channel variables, in steps
        self.out = [self._channels("stem", self.domain.stem)]
        self.bottleneck = []
        for i, block in enumerate(self.domain.blocks):
            self.out.append(self._channels(f"out{i}", block.out))
            self.bottleneck.append(self._channels(f"bottleneck{i}", block.bottleneck))
        self._add_ratios()
        self._add_products()
        self._add_limits()
        self._add_score()

    def _channels(self, name: str, ends: tuple[int, int]) -> cp_model.IntVar:
        low, high = self.domain.multiple_above(ends[0]) // self.step, self.domain.multiple_below(ends[1]) // self.step
        variable = self.model.new_int_var(low, high, name)
        self.ends[variable.index] = (low, high)
        return variable

    def _table(self, of: cp_model.IntVar, function: Callable[[int], int], name: str) -> cp_model.IntVar:
        """A variable equal to ``function`` of the channels ``of`` counts."""
        low, high = self.ends[of.index]
        values = [function(self.step * n) for n in range(low, high + 1)]
        result = self.model.new_int_var(min(values), max(values), name)
        self.model.add_element(of - low, values, result)
        return result

    def _product(self, a: cp_model.IntVar, b: cp_model.IntVar, name: str) -> cp_model.IntVar:
        top = self.ends[a.index][1] * self.ends[b.index][1]
        result = self.model.new_int_var(0, top, name)
        self.model.add_multiplication_equality(result, [a, b])
        return result

    def _add_ratios(self) -> None:
        """in <= out <= growth in, and the bottleneck's share of the output; ratios rounded outwards."""
        domain, model = self.domain, self.model
        narrow, wide = math.floor(RATIO_SCALE * domain.narrow + 1e-6), math.ceil(RATIO_SCALE * domain.wide - 1e-6)
        for i, b in enumerate(self.bottleneck):
            c, o = self.out[i], self.out[i + 1]
            if domain.monotone:
                model.add(o >= c)
            if domain.growth is not None:
                model.add(RATIO_SCALE * o <= math.ceil(RATIO_SCALE * domain.growth - 1e-6) * c)
            model.add(RATIO_SCALE * b >= narrow * o)
            model.add(RATIO_SCALE * b <= wide * o)

    def _add_products(self) -> None:
        S = len(self.bottleneck)
        self.cb = [self._product(self.out[i], self.bottleneck[i], f"cb{i}") for i in range(S)]
        self.ob = [self._product(self.out[i + 1], self.bottleneck[i], f"ob{i}") for i in range(S)]
        if self.domain.skeleton.family == "resnet":
            self.co = [self._product(self.out[i], self.out[i + 1], f"co{i}") for i in range(S)]
            self.bb = [self._product(b, b, f"bb{i}") for i, b in enumerate(self.bottleneck)]
        else:
            self.squeeze = [self._table(b, _squeeze_params, f"se{i}") for i, b in enumerate(self.bottleneck)]

    def _block_params(self, i: int) -> cp_model.LinearExpr:
        u, L, k = self.step, self.depths[i], self.kernels[i]
        c, o, b = u * self.out[i], u * self.out[i + 1], u * self.bottleneck[i]
        total = u * u * (self.cb[i] + (2 * L - 1) * self.ob[i]) + 2 * L * o
        if self.domain.skeleton.family == "resnet":
            del c
            return total + u * u * (self.co[i] + L * k * k * self.bb[i]) + 2 * o + 4 * L * b
        return total + L * (4 + k * k) * b + L * self.squeeze[i]

    def _block_flops(self, i: int) -> cp_model.LinearExpr:
        """Per output pixel; the MobileNet family's pooled shortcut (c = o only) is added by ``_add_limits``."""
        u, L, k = self.step, self.depths[i], self.kernels[i]
        c, o, b = u * self.out[i], u * self.out[i + 1], u * self.bottleneck[i]
        s2 = self.domain.skeleton.strides[i] ** 2
        total = u * u * (s2 * self.cb[i] + (2 * L - 1) * self.ob[i]) + (6 * L + 3 * s2 - 3) * b + 3 * L * o
        if self.domain.skeleton.family == "resnet":
            total = total + u * u * (self.co[i] + L * k * k * self.bb[i]) + 3 * o
            return total + (4 * c if s2 == 4 else 0)
        return total + L * k * k * b

    def _pooled(self, i: int) -> cp_model.LinearExpr | int:
        """4 c where a stride-2 super-block of the MobileNet family keeps its channels, else 0."""
        if self.domain.skeleton.family == "resnet" or self.domain.skeleton.strides[i] == 1:
            return 0
        c, o = self.out[i], self.out[i + 1]
        same = self.model.new_bool_var(f"same{i}")
        self.model.add(c == o).only_enforce_if(same)
        self.model.add(c != o).only_enforce_if(~same)
        pooled = self.model.new_int_var(0, 4 * self.step * self.ends[c.index][1], f"pooled{i}")
        self.model.add(pooled == 4 * self.step * c).only_enforce_if(same)
        self.model.add(pooled == 0).only_enforce_if(~same)
        return pooled

    def _add_limits(self) -> None:
        skeleton, limits, u = self.domain.skeleton, self.program.limits, self.step
        S = skeleton.num_blocks
        head = skeleton.head
        last = u * self.out[-1]
        if limits.params is not None:
            total = skeleton.stem_params * u * self.out[0] + sum(self._block_params(i) for i in range(S))
            self.model.add(total + (0 if head is None else head * last + 2 * head) <= limits.params)
        if limits.flops is not None:
            total = skeleton.stem_flops * u * self.out[0]
            for i, side in enumerate(skeleton.out_resolutions):
                total += side**2 * (self._block_flops(i) + self._pooled(i))
            area = skeleton.out_resolutions[-1] ** 2
            self.model.add(total + (0 if head is None else head * area * (last + 3)) <= limits.flops)
        if limits.latency_us is not None:
            self._add_latency()

    def _add_latency(self) -> None:
        """Only measured shapes, at their measured cost: one table per super-block."""
        table, limit = self.program.limits.latency_table, self.program.limits.latency_us
        assert table is not None
        assert limit is not None
        skeleton, total = self.domain.skeleton, []
        for i, stride in enumerate(skeleton.strides):
            side, k, L = skeleton.in_resolutions[i], self.kernels[i], self.depths[i]
            rows = []
            for (c, o, b, kernel, s, r), us in table.block_us.items():
                if (kernel, s, r) != (k, stride, side) or c % self.step or o % self.step or b % self.step:
                    continue
                rest = table.block_us.get((o, o, b, k, 1, skeleton.out_resolutions[i])) if L > 1 else 0.0
                if rest is not None:
                    cost = math.floor(LATENCY_SCALE * (us + (L - 1) * rest))
                    rows.append((c // self.step, o // self.step, b // self.step, cost))
            cost_var = self.model.new_int_var(0, max((row[3] for row in rows), default=0), f"latency{i}")
            columns = [self.out[i], self.out[i + 1], self.bottleneck[i], cost_var]
            self.model.add_allowed_assignments(columns, rows)
            total.append(cost_var)
        self.model.add(sum(total) + math.floor(LATENCY_SCALE * table.fixed_us) <= LATENCY_SCALE * limit)

    def _add_score(self) -> None:
        """The score at LOG_SCALE^2 over 2 (from 2 E_t), and the effectiveness of every stage."""
        skeleton, program = self.domain.skeleton, self.program
        logs_o = [self._table(o, _log, f"lo{i}") for i, o in enumerate(self.out)]
        logs_b = [self._table(b, _log, f"lb{i}") for i, b in enumerate(self.bottleneck)]
        dense = 2 if skeleton.family == "resnet" else 1
        terms, twice_E, layers, block = [], _up(math.log(skeleton.stem_width)), 1, 0
        for t in range(skeleton.num_stages):
            while block <= skeleton.last_block_of_stage(t):
                L, log_k = self.depths[block], _up(2 * math.log(self.kernels[block]))
                twice_E = twice_E + logs_o[block] + (L - 1) * logs_o[block + 1] + L * (dense * logs_b[block] + log_k)
                layers += LAYERS_PER_BLOCK * L
                block += 1
            at_head = t == skeleton.num_stages - 1 and skeleton.head is not None
            if at_head:
                twice_E, layers = twice_E + logs_o[-1], layers + 1
            if program.limits.rho is not None and t in program.rho_T:
                rho = program.limits.rho * (1.0 + RHO_TOLERANCE)
                self.model.add(twice_E >= math.floor(LOG_SCALE * layers * math.log(layers / rho)))
            terms.append(self._stage_score(t, twice_E, logs_o, at_head))
        self.score = sum(terms)
        self.model.maximize(self.score)

    def _stage_score(
        self, t: int, twice_E: cp_model.LinearExpr, logs_o: list[cp_model.IntVar], at_head: bool
    ) -> cp_model.LinearExpr:
        """alpha_t w_t 2 E_t at LOG_SCALE^2."""
        skeleton, objective = self.domain.skeleton, self.program.objective
        alpha = round(objective.weights(skeleton)[t])
        log_area = objective.stage_log_area(skeleton)[t]
        if at_head:
            assert skeleton.head is not None
            return alpha * _up(math.log(skeleton.head) + log_area) * twice_E
        height = logs_o[skeleton.last_block_of_stage(t) + 1] + _up(log_area)
        product = self.model.new_int_var(0, 10**16, f"score{t}")
        as_var = self.model.new_int_var(0, 10**9, f"E{t}")
        self.model.add(as_var == twice_E)
        self.model.add_multiplication_equality(product, [height, as_var])
        return alpha * product

    def hint(self, row: Ints) -> None:
        """Starts from a structure's channels."""
        S = len(self.bottleneck)
        for variable, value in zip([*self.out, *self.bottleneck], row[: 1 + 2 * S], strict=True):
            self.model.add_hint(variable, int(value) // self.step)


def _up(value: float) -> int:
    return math.ceil(LOG_SCALE * value - 1e-9)


def _log(channels: int) -> int:
    return _up(math.log(channels))


def _squeeze_params(bottleneck: int) -> int:
    """S = 2bq + 2q + 2b."""
    q = int(squeeze_channels(np.array([bottleneck]))[0])
    return 2 * bottleneck * q + 2 * q + 2 * bottleneck


def best_channels(
    program: Program,
    kernels: Sequence[int],
    depths: Sequence[int],
    *,
    above: float,
    hint: Ints | None,
    seconds: float,
    seed: int = 0,
) -> ChannelAnswer:
    """The best channels scoring more than ``above`` with these depths and kernels.

    ``seconds`` is CP-SAT's deterministic time (about CPU seconds), so the
    same call gives the same answer. Where nothing is above, ``row`` is None
    and, if ``proved``, ``bound`` is ``above``.
    """
    begin = time.process_time()
    built = ChannelModel(program, kernels, depths)
    penalty = _penalty(program, depths)
    if math.isfinite(above):
        built.model.add(built.score >= math.floor(2 * LOG_SCALE**2 * (above + penalty)))
    if hint is not None:
        built.hint(hint)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_deterministic_time = seconds
    status = solve_interruptibly(solver, built.model)
    cpu_s = time.process_time() - begin
    if status == cp_model.INFEASIBLE:
        return ChannelAnswer(row=None, bound=above, proved=True, cpu_s=cpu_s)
    bound = solver.best_objective_bound / (2 * LOG_SCALE**2) - penalty
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return ChannelAnswer(row=None, bound=bound, proved=False, cpu_s=cpu_s)
    channels = [program.domain.step * solver.value(v) for v in (*built.out, *built.bottleneck)]
    row = np.array([*channels, *kernels, *depths], dtype=np.int64)
    return ChannelAnswer(row=row, bound=bound, proved=status == cp_model.OPTIMAL, cpu_s=cpu_s)


def _penalty(program: Program, depths: Sequence[int]) -> float:
    """beta exp(spread) of these depths."""
    objective = program.objective
    chosen = np.array([depths[i] for i in objective.penalised(program.domain.skeleton)], dtype=float)
    if not len(chosen):
        return objective.beta
    spread = chosen.std() if objective.unevenness == "std" else chosen.var()
    return float(objective.beta * np.exp(min(spread, 700.0)))
