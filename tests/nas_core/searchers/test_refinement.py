"""Proposals on small and large spaces, and when refinement stops."""

from dataclasses import replace

import numpy as np
import pytest

from nas_core.prediction.settings import PredictConfig
from nas_core.program import Budget
from nas_core.searchers.designs import make_design
from nas_core.searchers.refinement import Refinement, Round, propose
from nas_core.searchers.settings import DesignConfig, VerifyConfig
from nas_core.searchers.surrogate import balanced_rows
from nas_core.space.encoding import Encoding, all_codes
from nas_core.space.equivalence import equivalents, function_id, has_equivalents
from nas_core.space.genotypes import Genotype
from nas_core.space.rules import Rule, allowed
from tests.nas_core.prediction.examples import costs_of, pairwise_metric, plain_space, stage_space, table_of

CONFIG = PredictConfig()


def start(space):
    base = Genotype((0,) * space.num_positions, space.resolutions[0] if len(space.resolutions) > 1 else None)
    return base, [base, *space.neighbours(base)]


def test_proposals_are_new_distinct_and_repeatable():
    space = plain_space((3, 3, 3, 3))
    _base, evaluated = start(space)
    table = table_of(pairwise_metric(space), evaluated)
    avoid = {Genotype((2, 2, 2, 2))}
    chosen = propose(space, table, k=6, avoid=avoid, seed=1, round=2)
    assert len(set(chosen)) == 6
    assert not set(chosen) & (set(evaluated) | avoid)
    assert chosen == propose(space, table, k=6, avoid=avoid, seed=1, round=2)


def test_proposals_keep_budgets_and_rules():
    rule = Rule(kind="implies", blocks=((0, 2), (1, 1)))
    space = plain_space((3, 3, 3, 3), rules=(rule,))
    _base, evaluated = start(space)
    costs = costs_of(space)
    most = float(np.median([costs.total(genotype) for genotype in space.genotypes()]))
    table = table_of(pairwise_metric(space), evaluated)
    budgets = [Budget(resource="flops", at_most=most, at_least=most / 2)]
    chosen = propose(space, table, k=8, budgets=budgets, costs=[costs])
    assert len(chosen) == 8
    assert all(space.allows(genotype) and most / 2 <= costs.total(genotype) <= most for genotype in chosen)


def test_equal_functions_are_proposed_once():
    space = stage_space(3)
    base, _ = start(space)
    evaluated = [base, Genotype((1, 0, 0)), Genotype((2, 0, 0)), Genotype((1, 1, 0))]
    table = table_of(lambda genotype: sum(genotype.choices) / 10, evaluated)
    chosen = propose(space, table, k=100)
    functions = [function_id(space, genotype) for genotype in (*evaluated, *chosen)]
    assert len(set(functions)) == len(functions)
    assert set(functions) == {function_id(space, genotype) for genotype in space.genotypes()}


def test_nothing_left_is_nothing_proposed():
    space = plain_space((2, 2))
    _base, _ = start(space)
    table = table_of(pairwise_metric(space), list(space.genotypes()))
    assert propose(space, table, k=4) == []


def test_nothing_within_the_limits_of_a_large_space_is_nothing_proposed():
    space = plain_space((4,) * 10)
    _base, evaluated = start(space)
    table = table_of(pairwise_metric(space), evaluated)
    assert propose(space, table, k=4, budgets=[Budget(resource="flops", at_most=1)], costs=[costs_of(space)]) == []


def test_large_spaces_are_searched_by_program_and_climb():
    space = plain_space((4,) * 12)
    _base, evaluated = start(space)
    metric = pairwise_metric(space, strength=0.02)
    costs = costs_of(space)
    most = 0.95 * float(np.median([costs.total(genotype) for genotype in evaluated]))
    table = table_of(metric, evaluated)
    best = max(metric(genotype) for genotype in evaluated if costs.total(genotype) <= most)
    budgets = [Budget(resource="flops", at_most=most)]
    chosen = propose(space, table, k=4, budgets=budgets, costs=[costs])
    assert len(chosen) == 4
    assert all(costs.total(genotype) <= most for genotype in chosen)
    assert max(metric(genotype) for genotype in chosen) > best


@pytest.mark.parametrize("kind", ["balanced", "one-swap"])
def test_proposals_find_the_best_of_a_small_space(kind):
    space = plain_space((3,) * 5)
    metric = pairwise_metric(space, 4)
    design = make_design(space, DesignConfig(kind=kind), seed=0)
    evaluated = list(design.genotypes)
    while len(evaluated) < 45:
        table = table_of(metric, evaluated)
        evaluated += propose(space, table, k=min(4, 45 - len(evaluated)))
    assert len(set(evaluated)) == 45
    assert max(space.genotypes(), key=metric) in evaluated


def test_functions_a_table_names_are_proposed_once():
    """Networks with one number of 2s are said to be equal: 4 functions in 27 networks."""
    space = plain_space((3, 3, 3))
    names = {genotype.choices: str(genotype.choices.count(2)) for genotype in space.genotypes()}
    space = replace(space, same_function=names)
    assert has_equivalents(space)
    assert len(equivalents(space, Genotype((0, 0, 0)))) == 8
    assert function_id(space, Genotype((0, 2, 1))) == function_id(space, Genotype((1, 1, 2)))
    evaluated = [Genotype((0, 0, 0)), Genotype((0, 0, 2)), Genotype((2, 0, 2))]
    chosen = propose(space, table_of(lambda g: g.choices.count(2), evaluated), k=9)
    assert [names[genotype.choices] for genotype in chosen] == ["3"]
    design = make_design(space, DesignConfig(), seed=0)
    assert len(design.genotypes) == 4


def test_balanced_design_measures_every_block_about_equally():
    space = plain_space((4,) * 5)
    encoding = Encoding.of(space)
    codes_NP = all_codes(encoding.sizes)
    rows = balanced_rows(encoding, codes_NP, [0], 12)
    counts = encoding.one_hot(codes_NP[rows]).sum(axis=0)
    assert len(set(rows)) == 12
    assert counts.min() >= 2
    assert counts.max() <= 4


def rounds_of(*improved, networks=4):
    genotypes = tuple(Genotype((index,)) for index in range(networks))
    known = {"predicted": (0.5,) * networks, "measured": (0.5,) * networks, "incumbent_metric": 0.5}
    made = [Round(proposed=genotypes, incumbent=genotypes[0], improved=each, **known) for each in improved]
    return Refinement(rounds=tuple(made))


def test_refinement_stops_by_patience_or_budget():
    config = VerifyConfig(evaluations=10, per_round=4, patience=2)
    assert rounds_of().num_next(config) == 4
    assert rounds_of(False).stop_reason(config) is None
    assert "stood for 2" in (rounds_of(False, False).stop_reason(config) or "")
    assert rounds_of(False, True).num_next(config) == 2
    spent = rounds_of(False, True, networks=5)
    assert "budget" in (spent.stop_reason(config) or "")
    assert spent.num_next(config) == 0


def test_equivalents_are_those_of_one_function():
    space = stage_space(3)
    assert has_equivalents(space)
    assert not has_equivalents(plain_space())
    by_function: dict[str, set[Genotype]] = {}
    for genotype in space.genotypes():
        by_function.setdefault(space.architecture(genotype).function_id, set()).add(genotype)
    for genotype in space.genotypes():
        assert set(equivalents(space, genotype)) == by_function[function_id(space, genotype)]


@pytest.mark.parametrize(
    "rule",
    [
        Rule(kind="forbid", blocks=((0, 1), (1, 0))),
        Rule(kind="require", blocks=((0, 1), (2, 3))),
        Rule(kind="implies", blocks=((0, 1), (1, 0), (2, 2))),
        Rule(kind="at_most", blocks=((0, 1), (1, 0), (2, 2)), count=1),
        Rule(kind="equal", positions=(0, 1)),
    ],
)
def test_rules_as_masks(rule):
    space = plain_space((3, 2, 4))
    codes_NP = all_codes(space.num_choices)
    expected = [rule.allows([int(choice) for choice in code_P]) for code_P in codes_NP]
    assert allowed((rule,), codes_NP).tolist() == expected
