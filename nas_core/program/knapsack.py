"""One limit: dynamic programming over an expanding core (the multiple-choice knapsack problem; Pisinger 1995).

With the limit priced by lambda = p / q, every network's loss is, in integers,

    q loss(x) = constant + sum of r_j over its columns + p slack(x)

where r_j >= 0 is what column j loses against its group's best. The network that
loses nothing is the start. Groups are added by their least r, that is by how
soon changing them could pay; a state is what the changes cost and lose, and of two
states the cheaper one that loses no more stays. A state whose bound reaches the best
network found is dropped: unused slack costs p each, or as much as the columns of the
groups still to come ask for it; a limit still broken costs what these ask for savings. Values are whole, so a
better network loses q less at least. Once the next group loses more than that allows, the best
network is proven. All numbers are int64, so nothing is rounded.

G = groups, C = columns, S = states.
"""

import time
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from nas_core.program.halves import CoreTooLargeError
from nas_core.program.linear import Floats, Ints, LinearProgram
from nas_core.program.relaxation import Relaxation

MAX_STATES = 4_000_000  # of one group's extension
MAX_NUMBER = 1 << 61
MAX_PRICE = 1 << 24  # numerator and denominator of lambda are about this at most
MAX_MULTIPLE = 4  # of the cost, looked at in the values
CAUTION = 1e-9  # share by which float bounds are lowered


@dataclass(frozen=True)
class _Stage:
    """States after one group: where each came from, and the column it took there."""

    parent_S: Ints
    column_S: Ints


def best_columns(lp: LinearProgram, relaxation: Relaxation, deadline: float) -> Ints:
    """[G] columns of the network with the highest value.

    The program has one row, integer values, and some network within the row.

    Raises:
        CoreTooLargeError: if the numbers or the states do not fit, or at the deadline.
    """
    search = _Search(lp, relaxation, deadline)
    search.run()
    return search.columns()


class _Search:
    def __init__(self, lp: LinearProgram, relaxation: Relaxation, deadline: float) -> None:
        value_C, cost_C, limit = lp.integers_C, lp.rows_KC[0], int(lp.limits_K[0])
        assert value_C is not None, "the caller looks"
        self.lp, self.deadline = lp, deadline
        p, q = _price(float(relaxation.duals_K[0]) / float(lp.unit), -value_C, cost_C, lp.num_groups)
        starts, group_C = lp.starts_G1[:-1], lp.columns.group_C
        priced_C = p * cost_C - q * value_C
        self.loss_C: Ints = priced_C - np.minimum.reduceat(priced_C, starts)[group_C]
        self.best_G = _near_limit(lp, self.loss_C, cost_C, limit)
        self.change_C: Ints = cost_C - cost_C[self.best_G][group_C]
        self.p, self.q, self.slack = p, q, limit - int(cost_C[self.best_G].sum())
        self.floor = _least_loss(value_C, cost_C, limit, starts, group_C, p, q)
        self._order_groups(starts, group_C)
        self.stages: list[_Stage] = []
        self.cost_S = np.zeros(1, dtype=np.int64)  # change of the cost
        self.lost_S = np.zeros(1, dtype=np.int64)
        self.least = MAX_NUMBER  # loss of the best network so far, and where it stands
        self.goal = MAX_NUMBER  # a better network loses less than this
        self.found: tuple[int, int] | None = None

    def _order_groups(self, starts: Ints, group_C: Ints) -> None:
        """Groups by the least loss of changing them, and what the later ones ask at least for a unit of cost."""
        others = np.ones(len(group_C), dtype=bool)
        others[self.best_G] = False
        loss_C = np.where(others, self.loss_C, MAX_NUMBER)
        least_G = np.minimum.reduceat(loss_C, starts)
        self.order = np.argsort(least_G, kind="stable")
        self.least_G = least_G
        with np.errstate(divide="ignore", invalid="ignore"):
            ask_C = np.where(others, self.loss_C / np.abs(self.change_C), np.inf)
        more_G = np.minimum.reduceat(np.where(self.change_C > 0, ask_C, np.inf), starts)[self.order]
        less_G = np.minimum.reduceat(np.where(self.change_C < 0, ask_C, np.inf), starts)[self.order]
        self.more_G, self.less_G = _from_here_on(more_G), _from_here_on(less_G)

    def run(self) -> None:
        self._note()
        for i, group in enumerate(self.order.tolist()):
            if self.least <= self.floor or self.least_G[group] >= self.goal or not len(self.cost_S):
                return
            if time.monotonic() > self.deadline:
                raise CoreTooLargeError
            self._add(group, i)

    def _add(self, group: int, i: int) -> None:
        low, high = int(self.lp.starts_G1[group]), int(self.lp.starts_G1[group + 1])
        alive = low + np.flatnonzero(self.loss_C[low:high] < self.goal)
        alive = alive[alive != self.best_G[group]]
        if len(self.cost_S) * (len(alive) + 1) > MAX_STATES:
            raise CoreTooLargeError
        columns = np.concatenate([[-1], alive])
        changes = np.concatenate([[0], self.change_C[alive]])
        losses = np.concatenate([[0], self.loss_C[alive]])
        cost = (self.cost_S[:, None] + changes).ravel()
        lost = (self.lost_S[:, None] + losses).ravel()
        kept = np.flatnonzero(self._may_win(cost, lost, i + 1))
        kept = kept[np.lexsort((lost[kept], cost[kept]))]
        true_loss = lost[kept] - self.p * cost[kept]  # without the price of slack: what decides at equal cost
        before = np.concatenate([[MAX_NUMBER], np.minimum.accumulate(true_loss)[:-1]])
        kept = kept[true_loss < before]
        self.cost_S, self.lost_S = cost[kept], lost[kept]
        self.stages.append(_Stage(kept // len(columns), columns[kept % len(columns)]))
        self._note()

    def _may_win(self, cost: Ints, lost: Ints, i: int) -> "np.typing.NDArray[np.bool_]":
        """Whether a state's bound is below the best network; group ``i`` of the order comes next."""
        slack = self.slack - cost
        spare = min(float(self.p), self.more_G[i]) * (1 - CAUTION)
        ask = np.where(slack >= 0, spare * slack, 0.0)
        if (slack < 0).any():
            save = self.less_G[i] * (1 - CAUTION)
            ask = np.where(slack < 0, np.inf if np.isinf(save) else -save * slack, ask)
        return (lost < self.goal) & ((lost + ask) * (1 - CAUTION) < self.goal)

    def _note(self) -> None:
        """The best network that ends here, nothing more being changed."""
        slack = self.slack - self.cost_S
        total = np.where(slack >= 0, self.lost_S + self.p * np.maximum(slack, 0), MAX_NUMBER)
        if len(total) and total.min() < self.least:
            at = int(total.argmin())
            self.least, self.found = int(total[at]), (len(self.stages), at)
            self.goal = self.least - self.q + 1  # values are whole numbers

    def columns(self) -> Ints:
        assert self.found is not None, "some network is within the row"
        columns_G = self.best_G.copy()
        stage, state = self.found
        for group, step in zip(self.order[:stage][::-1].tolist(), self.stages[:stage][::-1], strict=True):
            if step.column_S[state] >= 0:
                columns_G[group] = step.column_S[state]
            state = int(step.parent_S[state])
        return columns_G


def _from_here_on(ask_G: Floats) -> Floats:
    """[G + 1] least of this and all later entries; infinite after the last."""
    return np.append(np.minimum.accumulate(ask_G[::-1])[::-1], np.inf)


def _near_limit(lp: LinearProgram, loss_C: Ints, cost_C: Ints, limit: int) -> Ints:
    """[G] of the columns that lose nothing, the cheapest, then dearer ones in turn as far as the limit allows."""
    starts, group_C = lp.starts_G1[:-1], lp.columns.group_C
    cost = np.where(loss_C == 0, cost_C, MAX_NUMBER)
    at = np.flatnonzero(cost == np.minimum.reduceat(cost, starts)[group_C])
    best_G: Ints = at[np.searchsorted(at, starts)]
    slack = limit - int(cost_C[best_G].sum())
    for group in np.flatnonzero(np.add.reduceat((loss_C == 0).astype(np.int64), starts) > 1).tolist():
        if slack <= 0:
            break
        part = np.arange(lp.starts_G1[group], lp.starts_G1[group + 1])
        more = cost_C[part] - cost_C[best_G[group]]
        fits = part[(loss_C[part] == 0) & (more <= slack)]
        dearest = fits[np.argmax(cost_C[fits])]
        slack -= int(cost_C[dearest] - cost_C[best_G[group]])
        best_G[group] = dearest
    return best_G


def _least_loss(value_C: Ints, cost_C: Ints, limit: int, starts: Ints, group_C: Ints, p: int, q: int) -> int:
    """What every network loses at least, since values are whole: also beside a multiple of the cost.

    Let v - m a of all columns differ within their group by multiples of g. Then v(x) = m a(x) + D + g J for a
    whole J. With v(x) <= bound - lambda (limit - a(x)) and m <= lambda, D + g J <= bound - m limit, which J
    rounds down, and v(x) <= m limit + D + g J. With strongly correlated costs (v = a + 10 j) nothing else
    closes the gap.
    """
    priced_C = q * value_C - p * cost_C
    bound = int(np.maximum.reduceat(priced_C, starts).sum()) + p * limit  # q times the largest value
    least = 0
    for m in range(min(p // q, MAX_MULTIPLE) + 1):
        rest_C = value_C - m * cost_C
        apart_C = rest_C - rest_C[starts][group_C]
        g = int(np.gcd.reduce(apart_C))
        if g == 0:
            continue
        fixed = int(rest_C[starts].sum())
        whole = fixed + g * (((bound - q * m * limit) // q - fixed) // g)
        least = max(least, bound - q * (m * limit + whole))
    return least


def _price(dual: float, value_loss_C: Ints, cost_C: Ints, num_groups: int) -> tuple[int, int]:
    """lambda as p / q whose sums fit: the slope of two columns where it is that."""
    largest_loss, largest_cost = int(value_loss_C.max(initial=0)), int(cost_C.max(initial=0))
    room = MAX_NUMBER // 4 // num_groups
    for bound in (MAX_PRICE, 1 << 16, 1 << 10, 1 << 5, 1):
        price = Fraction(dual).limit_denominator(bound)
        p, q = price.numerator, price.denominator
        if p * largest_cost + q * largest_loss < room:
            return p, q
    raise CoreTooLargeError
