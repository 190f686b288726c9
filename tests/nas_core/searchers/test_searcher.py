"""What a searcher names is looked at before it is evaluated: one that fails is told by its name."""

import pytest

from nas_core.base.errors import InfeasibleError, PluginError
from nas_core.prediction.settings import PredictConfig
from nas_core.searchers.searcher import Knowledge, Searcher, next_networks
from nas_core.space.genotypes import Genotype
from tests.nas_core.prediction.examples import costs_of, pairwise_metric, plain_space, table_of

SPACE = plain_space((3, 3, 2))


class Mine(Searcher):
    """Names what it is told to."""

    name = "mine"

    def __init__(self, answer):
        self.answer = answer

    def next(self, known, number):
        return self.answer()


def asked(answer, number=2):
    networks = list(SPACE.genotypes())
    known = Knowledge(
        space=SPACE,
        base=networks[0],
        table=table_of(pairwise_metric(SPACE), networks[:4]),
        tried=tuple(networks[:4]),
        costs=[costs_of(SPACE)],
        budgets=(),
        flops=None,
        predict=PredictConfig(),
        seed=0,
        round=0,
    )
    return next_networks(Mine(answer), known, number)


def test_no_more_networks_are_taken_than_were_asked_for():
    networks = list(SPACE.genotypes())[4:8]
    assert asked(lambda: networks) == networks[:2]
    assert asked(lambda: iter(networks)) == networks[:2]
    assert asked(list) == []


@pytest.mark.situations
@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda: {}["best"], r"KeyError: 'best' \(test_searcher\.py line \d+\)"),
        (lambda: [Genotype((0, 0, 0, 0))], "genotype 0-0-0-0: 4 choices, not 3, one per position"),
        (lambda: [Genotype((0, 9, 0))], "genotype 0-9-0, position 1: 9, not 0 to 2"),
        (lambda: [SPACE.parse("0-9-0")], r"SpaceError: genotype 0-9-0, position 1: found 9"),
        (lambda: ["0-0-0"], "'0-0-0' of type str"),
        (lambda: None, "TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_a_searcher_that_fails_is_named_in_one_line(answer, found):
    expected = "expected a list of `Genotype`, networks of the study's space"
    with pytest.raises(PluginError, match=rf"^searcher mine, next\(\): found {found}.*{expected}") as refused:
        asked(answer)
    assert len(str(refused.value).splitlines()) == 1


def test_what_says_itself_what_to_do_is_left_as_it_is():
    def answer():
        raise InfeasibleError("limits", "none", "a network", "Raise one.")

    with pytest.raises(InfeasibleError, match=r"Raise one\."):
        asked(answer)
