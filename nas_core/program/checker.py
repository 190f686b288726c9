"""Checks answers and their proofs. Shares no code with the solver, and reads a certificate by itself.

``python -m nas_core.program CERTIFICATE.json`` verifies a written one.

A certificate is JSON: ``problem`` (the stored form), ``status``, ``min_distance``,
``answers`` (networks best first, with their exact values) and ``proofs``. A proof
claims ``bound``: no network allowed beside the first ``beside`` answers has a higher
value (null: there is none at all). It holds a tree for every table:

    {"position": p, "branches": [[[choices...], tree], ...]}  the choices left at p, each in one branch
                                                              (at all positions that ``equal`` ties to p)
    {"value": 1 or 0, "unit": D, "prices": {"k": n, ...}}     a leaf: row k has the multiplier n / D >= 0
                                                              (and, if it says so, "multiples": {"k": m, ...})
    {"rows": [k...], "vectors": [[D, n...]...], "list": ...}  a leaf with many vectors of multipliers: a search
                                                              over lists of parts of networks, for which see below

The rows, each of the form a . x <= b, are: the upper then the lower side of every
budget, every rule but ``equal``, every earlier answer where networks are to differ
in several places (at most M - distance positions agree with it). A leaf claims that no
network of it is within the rows and above the bound. For any multipliers u >= 0
and such a network x,

    value w(x) + u . (b - a . x) > 0    (>= 0 where ``value`` is 0, and nothing is asked of w)

with w(x) > 0 exactly where x is above the bound. The left side is a sum over
positions, so its largest value is found position by position. If that is not above
0, the leaf is shown. More: w(x) and the rows are whole numbers, and so is
z(x) = w(x) + m . (b - a . x) for the whole ``multiples`` m >= 0 of a leaf, with z(x) >= w(x) within the
rows. If the choices left at each position differ in z by multiples of g, all z(x) have one
remainder, so above the bound z(x) is at least the least number above 0 with this remainder
(without multiples too), and

    z(x) + (u - m) . (b - a . x) >= that number,        where u >= m

takes the place of 0 (rounding as in Chvatal's and Gomory's cuts: where the values are the costs
plus tens, nothing else closes the gap). Else the networks that could be above 0 are listed position by
position, a part of one being dropped as soon as it falls to 0 or breaks a row; the
leaf is shown if none is left but forbidden networks and earlier answers.

Where many rows bind, one vector is not enough for all of a leaf, and a tree with one for each leaf is too long. A
leaf with a ``list`` replays a branch and bound over lists of parts of networks (``replay``):

    {"by": [v...], "groups": [p...], "pieces": [list...]}     the parts of a list are dropped by the named vectors and
                                                              by the rows; the others take every choice at the named
                                                              positions in turn, again dropped; what is left, cut into
                                                              as many pieces of equal length, goes on in these lists

A list of whole networks names nothing: each of them that may be above the bound is looked at. No list is longer than
``MOST_LISTED`` parts.

Half of the groups may be looked up (``lookup``). A leaf then lists first what networks above the bound may have chosen
in these, its ``endings``, by lists that take choices at their positions alone:

    {"groups": [p...], "list": list, "by": v, "rows": [i...], "widths": [w...]}

and lays them out by what they cost in some of the leaf's rows (``rows`` counts these), in cells of the widths, and by
what they lose by the vector v. A list with ``"look": [v...]``, whose parts after its positions have chosen everywhere
else, looks for endings beside them, every part by one of these vectors; its pieces are made of the parts that have too
many places to look at. The table lists, joins and looks completely whatever rows, widths and vectors these are.

All numbers are integers (a decimal is what is printed) and nothing is rounded, but
for powers with a broken exponent, which are rounded against the claim at the 50th digit.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.base.errors import NasError
from nas_core.program.claim import Claim
from nas_core.program.exact_table import ExactTable, UnprovenError, exactly, resolution_of

if TYPE_CHECKING:
    from nas_core.program.problem import SelectionProblem
    from nas_core.program.result import Selection

FORMAT = "mathnas certificate 1"
STATUSES = ("optimal", "feasible", "infeasible", "stopped")
SAME_DIGITS = Fraction(1, 10**30)  # relative: values with a broken exponent that are called equal


class UnverifiedSelectionError(NasError):
    """An answer contradicts the problem: the fault is ours, and the answer must not be used."""


def verify(problem: "SelectionProblem", selection: "Selection") -> "Selection":
    """The selection itself, if it is a network of the problem, allowed, and worth what it says.

    Raises:
        UnverifiedSelectionError: otherwise, naming every limit and rule it breaks.
    """
    return verifier(problem)(selection)


def verifier(problem: "SelectionProblem") -> Callable[["Selection"], "Selection"]:
    """``verify`` for many selections of one problem."""
    known = [table.resolution for table in problem.tables]
    tables: dict[int | None, ExactTable] = {}

    def verify(selection: "Selection") -> "Selection":
        genotype, where = selection.genotype, f"selection {selection.genotype}"
        if genotype.resolution not in known:
            raise UnverifiedSelectionError(where, f"resolution {genotype.resolution}", f"one of {known}")
        if genotype.resolution not in tables:
            tables[genotype.resolution] = ExactTable(_Stored(problem), genotype.resolution)
        table, counts = tables[genotype.resolution], problem.num_choices
        choices = genotype.choices
        if len(choices) != len(counts) or any(not 0 <= c < n for c, n in zip(choices, counts, strict=True)):
            raise UnverifiedSelectionError(where, choices, f"one choice per position below {counts}")
        broken = table.broken(choices)
        if broken:
            raise UnverifiedSelectionError(where, "; ".join(broken), "a network within every limit and rule")
        value = float(table.value(choices))
        costs = {name: float(table.cost(name, choices)) for name in problem.resources}
        if (selection.value, dict(selection.costs)) != (value, costs):
            raise UnverifiedSelectionError(where, selection, f"value {value!r}, costs {costs}")
        return selection

    return verify


class _Stored(dict[str, Any]):
    """A problem's stored form, its numbers left where they are."""

    def __init__(self, problem: "SelectionProblem") -> None:
        super().__init__(
            resolutions=[
                {
                    "resolution": table.resolution,
                    "score": table.score,
                    "base_score": table.base_score,
                    "costs": table.costs,
                    "base_costs": table.base_costs,
                }
                for table in problem.tables
            ],
            budgets=[{"resource": b.resource, "at_most": b.at_most, "at_least": b.at_least} for b in problem.budgets],
            rules=[rule.as_dict() for rule in problem.rules],
            objective={
                "kind": problem.objective.kind,
                "resource": problem.objective.resource,
                "reference": problem.objective.reference,
                "exponent": problem.objective.exponent,
            },
            forbidden=list(map(str, problem.forbidden)),
            pairs=[{"blocks": blocks, "value": value} for blocks, value in problem.pairs.items()],
        )


def check_certificate(data: Mapping[str, Any]) -> list[str]:
    """What a certificate shows, a line each; nothing in it is believed.

    Raises:
        UnprovenError: if anything it claims is not so.
    """
    if data.get("format") != FORMAT:
        raise UnprovenError("certificate", repr(data.get("format")), repr(FORMAT))
    problem, distance = data["problem"], int(data["min_distance"])
    if distance < 1:
        raise UnprovenError("min_distance", distance, "1 or more")
    lines, names = [], [answer["genotype"] for answer in data["answers"]]
    for i, answer in enumerate(data["answers"]):
        lines.append(_check_answer(problem, answer, names[:i], distance))
    lines += [_check_proof(problem, proof, names, distance) for proof in data["proofs"]]
    _check_status(data)
    return lines


def _check_answer(problem: Mapping[str, Any], answer: Mapping[str, Any], earlier: list[str], distance: int) -> str:
    name = answer["genotype"]
    table = ExactTable(problem, resolution_of(name))
    choices = table.choices(name)
    broken = table.broken(choices)
    broken += [f"{name} is too near to {other}" for other in earlier if not _is_apart(name, other, distance)]
    if broken:
        raise UnprovenError(f"answer {name}", "; ".join(broken), "an allowed network")
    value, claimed = table.value(choices), Fraction(answer["value"])
    if abs(value - claimed) > rounded_by(problem, value, SAME_DIGITS):
        raise UnprovenError(f"answer {name}", f"value {answer['value']}", str(value))
    return f"{name} is allowed and worth {float(value)!r}"


def _check_proof(problem: Mapping[str, Any], proof: Mapping[str, Any], names: Sequence[str], distance: int) -> str:
    bound = None if proof["bound"] is None else Fraction(proof["bound"])
    earlier = names[: int(proof["beside"])]
    labels = [table.get("resolution") for table in problem.get("resolutions") or [{}]]
    trees = {tree["resolution"]: tree["tree"] for tree in proof["tables"]}
    if set(trees) != set(labels) or len(proof["tables"]) != len(labels):
        raise UnprovenError("proof", f"trees for {sorted(map(str, trees))}", f"one for each of {labels}")
    for label in labels:
        Claim(ExactTable(problem, label), bound, earlier, distance).check_tree(trees[label])
    beside = (
        f" beside {', '.join(earlier)}"
        if 0 < len(earlier) <= 3
        else f" beside the first {len(earlier)}" * bool(earlier)
    )
    if bound is None:
        return f"no network is allowed{beside}"
    return f"no allowed network{beside} is worth more than {float(bound)!r}"


def _check_status(data: Mapping[str, Any]) -> None:
    """Optimal: each answer attains a proof's bound. Infeasible: a proof that there is no network.

    Feasible claims an answer and nothing of others; stopped claims nothing.
    """
    answers, distance, status = data["answers"], int(data["min_distance"]), data["status"]
    if status not in STATUSES or bool(answers) != (status in ("optimal", "feasible")):
        raise UnprovenError(
            "status", f"{status!r} with {len(answers)} answers", f"one of {STATUSES}, answers if it has"
        )
    if status in ("feasible", "stopped"):
        return
    bounds = {int(proof["beside"]): proof["bound"] for proof in data["proofs"]}
    if status == "infeasible":
        if bounds.get(0, 0) is not None:
            raise UnprovenError("status infeasible", f"{len(answers)} answers", "a proof that no network is allowed")
        return
    values = [Fraction(answer["value"]) for answer in answers]
    if values != sorted(values, reverse=True):
        raise UnprovenError("status optimal", f"values {list(map(float, values))}", "answers, the best first")
    # Where networks need not be apart, all that is above the last answer being among the answers is enough.
    needed = [len(values) - 1] if distance == 1 else range(len(values))
    reached = [value + rounded_by(data["problem"], value, SAME_DIGITS) for value in values]
    for i in needed:
        if i not in bounds or (bounds[i] is not None and Fraction(bounds[i]) > reached[i]):
            raise UnprovenError(f"answer {answers[i]['genotype']}", f"bound {bounds.get(i, 'none')}", "its own value")


def rounded_by(problem: Mapping[str, Any], value: Fraction, digits: Fraction) -> Fraction:
    """How far off a value may be: nothing where values are fractions, else ``digits`` of what the power gives."""
    tables = [ExactTable(problem, table.get("resolution")) for table in problem.get("resolutions") or [problem]]
    if all(table.is_exact for table in tables):
        return Fraction(0)
    return digits * max(abs(value - exactly(table.stored.get("base_score", 0.0))) for table in tables)


def _is_apart(name: str, other: str, distance: int) -> bool:
    first, second = (text.partition("@")[0].split("-") for text in (name, other))
    return (
        sum(a != b for a, b in zip(first, second, strict=True)) + (resolution_of(name) != resolution_of(other))
        >= distance
    )


def main(paths: Sequence[str]) -> int:
    """Print what the certificates in the given files show; 1 if one does not show what it claims."""
    if not paths or {"-h", "--help"} & set(paths):
        print("usage: python -m nas_core.program CERTIFICATE.json ...", file=sys.stdout if paths else sys.stderr)
        return 0 if paths else 2
    for path in paths:
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
            for line in check_certificate(data):
                print(line)
        except UnprovenError as error:
            print(f"{path}: REFUSED: {error}", file=sys.stderr)
            return 1
        except Exception as error:  # a file from anywhere may be wrong in any way
            print(f"{path}: not a certificate: {error!r}", file=sys.stderr)
            return 2
        print(f"{path}: {data['status']}, as shown")
    return 0
