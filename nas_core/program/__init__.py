"""The selection program: the best network from scored blocks, proven, within limits.

``SelectionProblem`` is what the solver is given, ``solve`` and ``top_k`` answer
it, ``frontier`` sweeps a resource, ``explain`` says why nothing fits, ``verify``
and ``brute_force`` know no solver. Solvers are imported when first needed, so
that importing this package is fast.
"""

from nas_core.program.explanation import explain
from nas_core.program.frontiers import Frontier, frontier, frontier2
from nas_core.program.limits import ParsedLimit, format_amount, parse_limit
from nas_core.program.oracle import brute_force
from nas_core.program.problem import Budget, Objective, SelectionProblem, Table
from nas_core.program.result import Explanation, Relaxation, Selection, SelectionResult, Status
from nas_core.program.selection import solve, top_k
from nas_core.program.stored import JSON_SCHEMA
from nas_core.program.verification import verify
from nas_core.program.whatif import WhatIf

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
    "brute_force",
    "explain",
    "format_amount",
    "frontier",
    "frontier2",
    "parse_limit",
    "solve",
    "top_k",
    "verify",
]
