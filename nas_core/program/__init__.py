"""The selection program: the best network from scored blocks, proven, within limits.

``SelectionProblem`` is what the solver is given, ``solve`` and ``top_k`` answer
it, ``frontier`` sweeps a resource, ``explain`` says why nothing fits, ``certify``
writes the proof, ``checker`` verifies it and knows no solver. ``ROUTES.md`` says which
method serves which shape. OR-Tools and SciPy are imported when first needed, so that
importing this package is fast.
"""

from nas_core.program.certificate import certify
from nas_core.program.checker import verify
from nas_core.program.explanation import explain
from nas_core.program.frontiers import Frontier, frontier, frontier2
from nas_core.program.limits import ParsedLimit, format_amount, parse_limit
from nas_core.program.problem import Budget, Objective, SelectionProblem, Table
from nas_core.program.result import Explanation, Relaxation, Selection, SelectionResult, Status
from nas_core.program.selection import WhatIf, solve, top_k
from nas_core.program.stored import JSON_SCHEMA, read_problem, read_problem_file, write_problem

__all__ = [
    "JSON_SCHEMA",
    "Budget",
    "Explanation",
    "Frontier",
    "Objective",
    "ParsedLimit",
    "Relaxation",
    "Selection",
    "SelectionProblem",
    "SelectionResult",
    "Status",
    "Table",
    "WhatIf",
    "certify",
    "explain",
    "format_amount",
    "frontier",
    "frontier2",
    "parse_limit",
    "read_problem",
    "read_problem_file",
    "solve",
    "top_k",
    "verify",
    "write_problem",
]
