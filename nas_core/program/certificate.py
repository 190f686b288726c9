"""Writes the proof of an answer, for ``checker`` to verify: a tree of Lagrangian bounds in whole numbers.

The best network is known, so what is left to show is that nothing is above it. A node
asks floats for the multipliers of what is left, and the checker's own leaf test whether they
are enough; if not, the node branches where the relaxation is undecided. Where that is not soon done, one leaf with
lists of parts of networks takes the place of the tree (``recording``): with two limits or more it gets much further.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from nas_core.program.checker import FORMAT, check_certificate, rounded_by
from nas_core.program.claim import MAX_STATES, Claim
from nas_core.program.exact_table import ExactTable, UnprovenError
from nas_core.program.linear import Floats, LinearProgram, float_program
from nas_core.program.problem import SelectionProblem
from nas_core.program.recording import OutOfTimeError, Recorder
from nas_core.program.relaxation import infeasible_weights, multipliers
from nas_core.program.result import SelectionResult, Status
from nas_core.program.stored import write_problem

ProofTree = dict[str, Any]
RANKS_SHARE = 0.6  # of the time left, for the proof of all ranks; then of a tenth of them, and so on
CLAIM_SHARE, WIDER_SHARE = 0.7, 0.3  # of the time left, for what is claimed, and then for every wider bound
WIDENINGS = [Fraction(1 << i, 1000) for i in range(8)]  # of a bound
TREE_SHARE = 0.02  # of the time of a proof, for a tree, where lists can show it too
QUICK_STATES = 30_000  # parts of networks that a leaf may list before it is branched instead
PRICE_BITS = 24
MAX_MULTIPLE = 4  # of a row, that a leaf is rounded with
WIDER = Fraction(1, 10**7)  # relative: by how much the bound shown of an unproven answer is above the solver's
SAFE = Fraction(1, 10**40)  # by which a bound is above a value that is rounded at the 60th digit


def certify(
    problem: SelectionProblem, result: SelectionResult, *, min_distance: int = 1, time_limit_s: float = 60.0
) -> dict[str, Any]:
    """The certificate of an answer, checked before it is returned.

    ``certified`` says whether the status is shown by it; where the time was too
    short, the answers and their values are still checked, and ``message`` says what is not.
    """
    deadline = time.monotonic() + time_limit_s
    names = [str(selection.genotype) for selection in result.selections]
    stored = write_problem(problem)
    tables = {table.resolution: ExactTable(stored, table.resolution) for table in problem.tables}
    values = [tables[s.genotype.resolution].value(s.genotype.choices) for s in result.selections]
    data: dict[str, Any] = {
        "format": FORMAT,
        "status": result.status.name.lower(),
        "certified": False,
        "message": "",
        "route": result.route,
        "min_distance": min_distance,
        "answers": [{"genotype": n, "value": str(v)} for n, v in zip(names, values, strict=True)],
        "proofs": [],
        "problem": stored,
    }

    def proof(beside: int, bound: Fraction | None, until: float) -> dict[str, Any]:
        provers = {n: _Prover(Claim(table, bound, names[:beside], min_distance), until) for n, table in tables.items()}
        trees = [{"resolution": label, "tree": prover.tree()} for label, prover in provers.items()]
        return {"beside": beside, "bound": None if bound is None else str(bound), "tables": trees}

    if min_distance == 1 and len(names) > 1 and result.num_proven:
        bounds = [value + rounded_by(stored, value, SAFE) for value in values[: result.num_proven]]
        for first in _fewer_and_fewer(result.num_proven):
            until = time.monotonic() + RANKS_SHARE * (deadline - time.monotonic())
            with contextlib.suppress(OutOfTimeError):
                data["proofs"] = [proof(first - 1, bounds[first - 1], until)]
                break
        _state_ranks(data, result)
        check_certificate(data)
        return data
    claims = _claims(problem, stored, result, values, min_distance)
    try:
        until = time.monotonic() + CLAIM_SHARE * (deadline - time.monotonic())
        for beside, bound in claims:
            data["proofs"].append(proof(beside, bound, until))
        data["certified"] = result.status.is_proven
        if not result.status.is_proven:
            shown = "its bound is shown" if data["proofs"] else "there is no bound to show"
            data["message"] = f"The solver did not prove its answer; {shown}."
    except OutOfTimeError:
        shown = f"the solver's own proof ({result.route})"
        data["message"] = f"{time_limit_s:g} s were too short for a proof; the status rests on {shown}."
        data["claimed"], data["status"] = data["status"], "feasible" if names else "stopped"
        for beside, wider in _wider(claims[-1]) if names else ():
            until = time.monotonic() + WIDER_SHARE * (deadline - time.monotonic())
            with contextlib.suppress(OutOfTimeError):
                data["proofs"].append(proof(beside, wider, until))
                data["message"] += f" That no other network is worth more than {float(wider):.10g} is shown."
                break
    check_certificate(data)
    return data


def _wider(claim: tuple[int, Fraction | None]) -> Iterator[tuple[int, Fraction]]:
    """The same claim with ever wider bounds, which take less to be shown."""
    beside, bound = claim
    if bound is not None:
        for share in WIDENINGS:
            yield beside, bound + share * (abs(bound) + 1)


def _fewer_and_fewer(count: int) -> Iterator[int]:
    """The count, a tenth of it, and so on down to one."""
    while count:
        yield count
        count = count // 10 or (0 if count == 1 else 1)


def _state_ranks(data: dict[str, Any], result: SelectionResult) -> None:
    """What the proof of a ranking shows: all of it, or its first ranks."""
    count, shown = len(data["answers"]), data["proofs"][0]["beside"] + 1 if data["proofs"] else 0
    if shown == count and result.status is Status.OPTIMAL:
        data["certified"] = True
        return
    data["claimed"], data["status"] = data["status"], "feasible"
    data["message"] = f"The first {shown} of {count} answers are shown to be the best."
    if shown < result.num_proven:
        solver = f"the solver's own proof ({result.route})"
        data["message"] += f" That ranks {shown + 1} to {result.num_proven} are the next best rests on {solver}."


def _claims(
    problem: SelectionProblem,
    stored: Mapping[str, Any],
    result: SelectionResult,
    values: Sequence[Fraction],
    min_distance: int,
) -> list[tuple[int, Fraction | None]]:
    """(how many answers stand before, bound) of every proof that the status needs."""
    if result.status is Status.INFEASIBLE:
        return [(0, None)]
    if result.status is not Status.OPTIMAL:
        is_known = math.isfinite(result.bound) and problem.objective.is_additive
        beside = max(len(values) - 1, 0)
        is_known &= beside == 0 or min_distance == 1
        return [(beside, Fraction(result.bound) + WIDER * Fraction(abs(result.bound) + 1))] if is_known else []
    bounds = [value + rounded_by(stored, value, SAFE) for value in values]
    needed = [len(values) - 1] if min_distance == 1 else range(len(values))
    return [(i, bounds[i]) for i in needed]


@dataclass(frozen=True)
class _Node:
    """What is left at a node, in floats: values and rows less the best and the least of each group, and clipped."""

    lp: LinearProgram
    units: list[Fraction]  # what one unit of a row of ``lp`` is in the claim's row, over the same of the value
    used: list[int]


class _Prover:
    def __init__(self, claim: Claim, deadline: float) -> None:
        self.claim, self.deadline = claim, deadline

    def tree(self) -> ProofTree:
        """A tree that the checker accepts.

        Raises:
            OutOfTimeError: at the deadline.
        """
        lists = Recorder(self.claim, self.claim.everything(), self.deadline)
        if not lists.fits:
            return self._branched(self.deadline)
        now = time.monotonic()
        with contextlib.suppress(OutOfTimeError):
            return self._branched(now + TREE_SHARE * (self.deadline - now))
        return lists.leaf() or self._branched(self.deadline)

    def _branched(self, until: float) -> ProofTree:
        """A tree of leaves with one vector each."""
        root: ProofTree = {}
        todo = [(root, self.claim.everything())]
        while todo:
            if time.monotonic() > until:
                raise OutOfTimeError
            place, alive = todo.pop()
            leaf, group, undecided = self._leaf_or_group(alive)
            if leaf is not None:
                place.update(leaf)
                continue
            branches: list[tuple[list[int], ProofTree]] = [([choice], {}) for choice in undecided]
            rest = [choice for choice in alive[group] if choice not in undecided]
            if rest:
                branches.append((rest, {}))
            place.update(position=self.claim.groups[group][0], branches=branches)
            for choices, child in branches:
                todo.append((child, [choices if g == group else left for g, left in enumerate(alive)]))
        return root

    def _leaf_or_group(self, alive: list[list[int]]) -> tuple[ProofTree | None, int, list[int]]:
        """A leaf that is shown, or the group to branch at and the choices that get a branch each."""
        node, top = self._node(alive)
        claims_value = 0 if self.claim.bound is None else 1
        if node is None or (claims_value and top <= 0):
            leaf = _leaf(claims_value, {}, 1)
            if self._is_shown(leaf, alive):
                return leaf, 0, []
        prices_K = self._prices(node) if node is not None and claims_value else None
        leaves = []
        if claims_value and prices_K is not None:
            assert node is not None, "it has prices"
            leaves.append(self._rounded(_leaf(1, *self._whole(node, prices_K)), alive))
        elif node is not None:
            weights = infeasible_weights(node.lp)
            if weights is not None:
                ray = np.zeros(len(node.used))
                ray[[k for k, _ in weights]] = [float(weight) for _, weight in weights]
                leaves.append(_leaf(0, *self._whole(node, ray / ray.max())))
        leaves.append(_leaf(claims_value, {}, 1))
        for leaf in leaves:
            if self._is_shown(leaf, alive):
                return leaf, 0, []
        if node is not None and len(node.used) == 1 and self._is_shown(leaves[0], alive, MAX_STATES):
            return leaves[0], 0, []  # with one row, parts of networks merge: sooner listed than branched
        return None, *self._branching(alive, node, prices_K)

    def _is_shown(self, leaf: ProofTree, alive: list[list[int]], max_states: int | None = None) -> bool:
        try:
            self.claim.check_leaf(leaf, alive, QUICK_STATES if max_states is None else max_states, self.deadline)
        except UnprovenError:
            return False
        return True

    def _node(self, alive: list[list[int]]) -> tuple[_Node | None, int]:
        """The node in floats (None where no row can break), and how far above the bound its best is without rows."""
        claim = self.claim
        weights, constant = claim.linear(alive)
        sizes = [len(left) for left in alive]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        value, top = [], constant
        for row, left in zip(weights, alive, strict=True):
            best = max(row[c] for c in left)
            top += best
            value += [best - row[c] for c in left]
        top += sum(max([0, *weights]) for weights in claim.pair_weights.values()) if claim.bound is not None else 0
        most = max(top, 1)
        value_C = -np.array([_share(x, most, 2) for x in value])  # what loses more is in no network above the bound
        rows, limits, units, used = [], [], [], []
        for k, (entries, (limit,), *_) in enumerate(claim.rows):
            least = [min(row[c] for c in left) for row, left in zip(entries, alive, strict=True)]
            room = limit[0] - sum(least)
            shifted = [row[c] - low for row, left, low in zip(entries, alive, least, strict=True) for c in left]
            if sum(max(shifted[a:b]) for a, b in itertools.pairwise(starts.tolist())) <= room:
                continue
            unit = max(room, 1)
            rows.append([_share(x, unit, 4) for x in shifted])
            limits.append(min(room / unit, 1.0) if room >= 0 else -1.0)
            units.append(Fraction(unit, most))
            used.append(k)
        if not used:
            return None, top
        lp = float_program(starts, value_C, np.array(rows), np.array(limits))
        return _Node(lp, units, used), top

    def _prices(self, node: _Node) -> Floats | None:
        if (node.lp.limits_K < 0).any():
            return None
        return multipliers(node.lp, np.arange(len(node.used)))

    def _whole(self, node: _Node, prices_K: Floats) -> tuple[dict[int, int], int]:
        """Prices of the claim's rows as whole numbers over one unit."""
        shares = zip(node.used, prices_K.tolist(), node.units, strict=True)
        prices = {k: Fraction(price) / unit for k, price, unit in shares if price > 0}
        if not prices:
            return {}, 1
        if len(prices) == 1:
            ((k, price),) = prices.items()
            near = price.limit_denominator(1 << PRICE_BITS)
            if near > 0 and abs(near - price) <= price / (1 << PRICE_BITS):
                return {k: near.numerator}, near.denominator
        least = min(prices.values())
        bits = max(0, PRICE_BITS - _log2(least))
        return {k: round(price * (1 << bits)) for k, price in prices.items()}, 1 << bits

    def _rounded(self, leaf: ProofTree, alive: list[list[int]]) -> ProofTree:
        """The leaf with the multiples that round it most; only of one row, so that few are to be tried."""
        if len(leaf["prices"]) != 1:
            return leaf
        ((row, price),) = leaf["prices"].items()
        tried = [{**leaf, "multiples": {row: m}} for m in range(1, min(price // leaf["unit"], MAX_MULTIPLE) + 1)]
        return min([leaf, *tried], key=lambda one: self.claim.margin(one, alive))

    def _branching(self, alive: list[list[int]], node: _Node | None, prices_K: Floats | None) -> tuple[int, list[int]]:
        """The group whose best two choices are nearest to each other, and the choices near its best."""
        open_groups = [g for g, left in enumerate(alive) if len(left) > 1]
        if not open_groups:
            network = [left[0] for left in alive]
            raise UnprovenError("the answer", f"network {network} above it", "no allowed network above it")
        if node is None or prices_K is None:
            group = max(open_groups, key=lambda g: len(alive[g]))
            return group, alive[group]
        reduced_C = node.lp.value_C - prices_K @ node.lp.rows_KC
        top = float(node.lp.limits_K @ prices_K) + float(np.maximum.reduceat(reduced_C, node.lp.starts_G1[:-1]).sum())
        gap = top + 1.0  # by the node's scale: its best without rows is 1 above the bound
        found: tuple[float, int, list[int]] | None = None
        for g in open_groups:
            part = reduced_C[node.lp.starts_G1[g] : node.lp.starts_G1[g + 1]]
            loss = part.max() - part
            order = np.argsort(loss, kind="stable")
            near = [alive[g][i] for i in order if loss[i] <= max(gap, 0.0)] or [alive[g][int(order[0])]]
            if len(near) == 1 and len(open_groups) > 1 and found is not None:
                continue
            key = float(loss[order[1]])
            if found is None or (len(found[2]) == 1, found[0]) > (len(near) == 1, key):
                found = (key, g, near)
        assert found is not None, "some group has several choices"
        return found[1], found[2]


def _leaf(value: int, prices: dict[int, int], unit: int) -> ProofTree:
    return {"value": value, "unit": unit, "prices": {str(k): n for k, n in prices.items()}}


def _share(number: int, whole: int, most: int) -> float:
    """number / whole, at most ``most``."""
    return float(most) if number >= most * whole else number / whole


def _log2(number: Fraction) -> int:
    return number.numerator.bit_length() - number.denominator.bit_length()
