"""Checks an answer against the unscaled tables. Knows no solver."""

from nas_core.errors import NasError
from nas_core.program.exact import evaluate, selection_of, violations
from nas_core.program.problem import SelectionProblem
from nas_core.program.result import Selection
from nas_core.space import Genotype


class UnverifiedSelectionError(NasError):
    """An answer contradicts the problem: the fault is ours, and the answer must not be used."""


def verify(problem: SelectionProblem, selection: Selection) -> Selection:
    """The selection itself, if it is a network of the problem, allowed, and worth what it says.

    Raises:
        UnverifiedSelectionError: otherwise, naming every limit and rule it breaks.
    """
    genotype, where = selection.genotype, f"selection {selection.genotype}"
    known = [table.resolution for table in problem.tables]
    if genotype.resolution not in known:
        raise UnverifiedSelectionError(where, f"resolution {genotype.resolution}", f"one of {known}")
    counts = problem.num_choices
    fits = len(genotype.choices) == len(counts) and all(
        0 <= choice < count for choice, count in zip(genotype.choices, counts, strict=True)
    )
    if not fits:
        raise UnverifiedSelectionError(where, genotype.choices, f"one choice per position below {counts}")
    broken = violations(problem, genotype, evaluate(problem, genotype).costs)
    if broken:
        raise UnverifiedSelectionError(where, "; ".join(broken), "a network within every limit and rule")
    if selection != selection_of(problem, genotype):
        raise UnverifiedSelectionError(where, selection, f"{selection_of(problem, genotype)}")
    return selection
