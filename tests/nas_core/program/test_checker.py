from dataclasses import replace

import pytest

from nas_core.program import Budget, SelectionProblem, verify
from nas_core.program.checker import UnverifiedSelectionError
from nas_core.program.exact import selection_of
from nas_core.space.genotypes import Genotype, Rule

PROBLEM = SelectionProblem(
    score=((0.0, 1.0), (0.0, 2.0)),
    costs={"ms": ((1.0, 2.0), (1.0, 5.0))},
    budgets=(Budget(resource="ms", at_most=6.0),),
    rules=(Rule(kind="forbid", blocks=((0, 0), (1, 0))),),
    forbidden=((1, 0),),
)


def test_a_true_answer_passes() -> None:
    selection = selection_of(PROBLEM, Genotype((0, 1)))
    assert verify(PROBLEM, selection) is selection
    assert (selection.value, selection.costs) == (2.0, {"ms": 6.0})


@pytest.mark.parametrize(
    ("choices", "says"),
    [((1, 1), "ms <= 6"), ((0, 0), "rule"), ((1, 0), "forbidden"), ((0, 2), "below"), ((0,), "below")],
)
def test_a_network_that_breaks_something_does_not(choices: tuple[int, ...], says: str) -> None:
    selection = replace(selection_of(PROBLEM, Genotype((0, 1))), genotype=Genotype(choices))
    with pytest.raises(UnverifiedSelectionError, match=says):
        verify(PROBLEM, selection)


def test_a_wrong_value_or_resolution_does_not() -> None:
    selection = selection_of(PROBLEM, Genotype((0, 1)))
    with pytest.raises(UnverifiedSelectionError):
        verify(PROBLEM, replace(selection, value=2.1))
    with pytest.raises(UnverifiedSelectionError, match="resolution"):
        verify(PROBLEM, replace(selection, genotype=Genotype((0, 1), 192)))
