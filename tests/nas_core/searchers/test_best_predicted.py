"""The searcher that trusts the predictor names functions that were not tried, each once."""

from dataclasses import replace

import pytest

from nas_core.prediction.settings import PredictConfig
from nas_core.searchers.best_predicted import BestPredicted
from nas_core.searchers.searcher import Knowledge
from nas_core.space.equivalence import function_id
from nas_core.space.genotypes import Genotype
from tests.nas_core.prediction.examples import additive_metric, plain_space, stage_space, table_of


def of_named_functions():
    """Networks with one number of 2s are said to be equal: 4 functions in 27 networks."""
    space = plain_space((3, 3, 3))
    return replace(space, same_function={each.choices: str(each.choices.count(2)) for each in space.genotypes()})


@pytest.mark.parametrize("space", [plain_space((3, 2, 3)), stage_space(), of_named_functions()])
def test_every_function_is_named_once_and_none_that_was_tried(space):
    everything = list(space.genotypes())
    metric = dict(zip(everything, map(additive_metric(space), everything), strict=True))
    first = list({function_id(space, each): each for each in everything}.values())[:3]
    known = Knowledge(
        space=space,
        base=first[0],
        table=table_of(metric.__getitem__, first),
        tried=tuple(first),
        costs=(),
        budgets=(),
        flops=None,
        predict=PredictConfig(pairs=False, link="identity"),
        seed=0,
        round=0,
    )
    functions = {function_id(space, each) for each in everything}
    searcher, tried = BestPredicted(BestPredicted.Settings()), {function_id(space, each) for each in first}
    named = [function_id(space, each) for each in searcher.next(known, 4)]
    assert len(named) == min(4, len(functions) - len(tried))
    assert len({*named} - tried) == len(named)
    rest = [function_id(space, each) for each in searcher.next(known, len(everything))]
    assert sorted(rest) == sorted(functions - tried)
    assert searcher.next(replace(known, tried=tuple(map(Genotype, (each.choices for each in everything)))), 2) == []
