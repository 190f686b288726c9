"""Verification: rounds that resume, the choice that stands, and the real table's best network found."""

import itertools
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nas_core.base.errors import PluginError
from nas_core.costs import profile_blocks
from nas_core.program import Budget, SelectionProblem, solve
from nas_core.records.evaluations import CostTable
from nas_core.space.genotypes import Genotype
from nas_core.study.choices import with_additive_limits
from nas_core.study.config import parse_config
from nas_core.study.rounds import (
    AIMS_AT,
    FINALISTS,
    MEASURED_WHOLE,
    finalists,
    leave_room,
    lowered_for,
    most_measured_whole,
    move_limits,
    next_round,
    record_finals,
    record_round,
    record_whole,
    to_rate_again,
    verification,
)
from nas_core.study.stages import VERIFICATION
from nas_core.study.study import Study
from tests.reference_data import reference_data
from tests.spaces import GivenChain


def scored(config, root):
    """A study whose design is evaluated, without a cluster, and its scorer."""
    study = Study.create(config, str(root))
    study.store.add_costs(profile_blocks(study.family, config.profile, ["flops", "params"]))
    scorer = study.scorer
    study.store.add_evaluations(scorer.evaluate(study.design.genotypes))
    study.refresh()
    return study, scorer


def verified(study, scorer):
    """All rounds, and the record they leave."""
    index = 0
    while proposed := next_round(study.snapshot, study.outputs, index):
        study.store.add_evaluations(scorer.evaluate([Genotype.parse(text) for text in proposed]))
        study.refresh()
        record_round(study.snapshot, study.outputs, index)
        index += 1
    return verification(study.outputs)


def test_rounds_find_networks_within_the_limits_and_stop(tabular_config, tmp_path):
    study, scorer = scored(tabular_config, tmp_path / "study")
    record = verified(study, scorer)
    budgets = study.budgets(tabular_config.select.limits)
    proposed = [Genotype.parse(text) for row in record["rounds"] for text in row["proposed"]]
    assert 0 < len(set(proposed)) == len(proposed) <= tabular_config.verify.evaluations
    assert all(study.within(genotype, budgets) for genotype in proposed)
    assert not set(proposed) & set(study.design.genotypes)
    assert record["winner"]
    assert record["reason"]


def test_networks_that_a_table_says_are_equal_are_never_evaluated_twice(tabular_config, macro_table, tmp_path):
    """Sorted choices are said to be the function: 45 functions in 6,561 networks."""
    table = pq.read_table(macro_table)
    names = ["".join(sorted(arch)) for arch in table["arch"].to_pylist()]
    pq.write_table(table.append_column("sorted", pa.array(names)), macro_table)
    scorer_config = tabular_config.scorer.model_copy(update={"same_function": "sorted"})
    verify = tabular_config.verify.model_copy(update={"evaluations": 40, "per_round": 10, "patience": 10})
    config = tabular_config.model_copy(update={"scorer": scorer_config, "verify": verify})
    study, scorer = scored(config, tmp_path / "study")
    verified(study, scorer)
    functions = ["".join(sorted(row.genotype.replace("-", ""))) for row in study.evaluations()]
    assert len(functions) == len(set(functions)) > len(study.design.genotypes)
    assert study.inputs_of("score") != Study(tabular_config, study.store).inputs_of("score")


def test_a_round_that_was_planned_is_the_round_that_is_evaluated(tabular_config, tmp_path):
    study, scorer = scored(tabular_config, tmp_path / "study")
    planned = next_round(study.snapshot, study.outputs, 0)
    study.store.add_evaluations(scorer.evaluate([Genotype.parse(planned[0])]))  # killed after one of them
    study.refresh()
    assert next_round(study.snapshot, study.outputs, 0) == planned


def test_a_round_whose_searcher_fails_says_so_and_loses_nothing(tabular_config, tmp_path, monkeypatch):
    study, _ = scored(tabular_config, tmp_path / "study")
    monkeypatch.setattr(type(study.snapshot.searcher), "next", lambda *_: ["0-0-0-0-0-0-0-0"])
    with pytest.raises(PluginError, match=r"searcher surrogate, next\(\): found '0-0-0-0-0-0-0-0' of type str"):
        next_round(study.snapshot, study.outputs, 0)
    monkeypatch.undo()
    assert verification(study.outputs)["rounds"] == []
    assert next_round(study.snapshot, study.outputs, 0)


def test_other_limits_begin_a_record_of_their_own(tabular_config, tmp_path):
    study, scorer = scored(tabular_config, tmp_path / "study")
    verified(study, scorer)
    changed = tabular_config.model_copy(
        update={"select": tabular_config.select.model_copy(update={"limits": ["flops<=40%"]})}
    )
    assert verification(Study(changed, study.store).outputs)["rounds"] == []


def with_select(config, **changes):
    return config.model_copy(update={"select": config.select.model_copy(update=changes)})


def test_a_winner_is_of_the_present_limits(tabular_config, tmp_path):
    """Verified under other limits, a network may break the present ones."""
    study, scorer = scored(tabular_config, tmp_path / "study")
    winner = verified(study, scorer)["winner"]
    other = Study(with_select(tabular_config, limits=["params<=1 M"]), study.store)
    assert other.winner is None
    verified(other, scorer)
    assert other.winner not in (None, winner)
    assert study.winner is None


def test_a_stage_cut_short_with_other_inputs_is_not_done_when_they_come_back(tabular_config, tmp_path):
    study, scorer = scored(tabular_config, tmp_path / "study")
    verified(study, scorer)
    took = {"wall_s": 1.0, "compute_s": 1.0, "num_new": 1, "num_reused": 0, "num_failed": 0, "device": "cpu"}
    study.outputs.record("verify", **took)
    assert study.status()["verify"].state == "done"
    study.outputs.begin("verify")
    assert study.status()["verify"].state == "done"
    other = Study(with_select(tabular_config, limits=["flops<=40%"]), study.store)
    other.outputs.begin("verify")
    assert study.status()["verify"].state == "partial"


def test_a_record_that_lost_its_winner_has_none(tabular_config, tmp_path):
    study, _ = scored(tabular_config, tmp_path / "study")
    study.store.write_json("verification.json", {"inputs": study.inputs_of("verify"), "rounds": [], "stands": False})
    assert study.winner is None


def test_how_many_networks_are_listed_verifies_nothing_again(tabular_config, tmp_path):
    study = Study.create(tabular_config, str(tmp_path / "study"))
    other = Study(with_select(tabular_config, top=4), study.store)
    assert other.inputs_of("select") != study.inputs_of("select")
    assert other.inputs_of("verify") == study.inputs_of("verify")


def test_closed_rounds_stay_as_they_were(tabular_config, tmp_path):
    study, scorer = scored(tabular_config, tmp_path / "study")
    before = verified(study, scorer)
    for index in range(len(before["rounds"])):
        record_round(study.snapshot, study.outputs, index)
    assert verification(study.outputs) == before


def macro_study(root, **sections):
    """A study on NAS-Bench-Macro, verified: its record, and how many networks were evaluated."""
    config = parse_config(
        {
            "name": "macro",
            "scorer": {"kind": "tabular", "path": str(reference_data("nasbench_macro/cifar10.parquet"))},
            "design": {"base": "2-2-2-2-2-2-2-2"},
            "profile": {"resources": ["flops", "params"]},
            **sections,
        },
        "test",
    )
    study, scorer = scored(config, root / "study")
    return verified(study, scorer), len(study.evaluations())


@pytest.mark.data
def test_the_best_of_nasbench_macro_is_found_within_49_evaluations(tmp_path):
    record, evaluated = macro_study(tmp_path, verify={"evaluations": 29, "patience": 8})
    assert record["winner_metric"] == pytest.approx(93.127, abs=5e-4)
    assert evaluated <= 49


@pytest.mark.data
def test_default_settings_find_one_of_the_two_best_functions_of_nasbench_macro(tmp_path):
    """They differ by 0.02 points, a tenth of what trainings of one network do."""
    record, evaluated = macro_study(tmp_path)
    assert record["winner_metric"] >= 93.106
    assert evaluated <= 52


def test_a_lower_limit_on_memory_is_kept(tabular_config, tmp_path):
    """The largest of its blocks says what a network needs: one of them has to reach the limit."""
    space = Study.create(tabular_config, str(tmp_path / "study")).space
    rows = profile_blocks(GivenChain(space), tabular_config.profile, ["activation_bytes"])
    table = CostTable.from_rows(rows, "activation_bytes", space.num_choices, space.resolutions[0])
    totals = sorted({table.total(genotype) for genotype in space.genotypes()})
    low = totals[len(totals) // 2]
    tables, budgets = with_additive_limits(
        {None: {"activation_bytes": table}}, [Budget(resource="activation_bytes", at_least=low)]
    )
    (count,) = tables[None].values()
    cheapest = tuple(tuple(-value for value in block) for block in table.block)
    problem = SelectionProblem(
        score=cheapest, costs={count.resource: count.block}, base_costs={count.resource: count.fixed}, budgets=budgets
    )
    assert table.total(solve(problem).selections[0].genotype) >= low > totals[0]


def _whole(study, genotype, over, resource="flops"):
    """Rows of a whole network and the base, measured to take ``over`` times what their blocks add up to."""
    rows = []
    for text, factor in ((genotype, over), (str(study.base), 1.0)):
        value = study.costs_of(Genotype.parse(text))[resource] * factor
        known = {"genotype": text, "resource": resource, "resolution": 32, "status": "ok", "value": value}
        rows.append(
            {**known, "spread": 0.0, "num_repeats": 9, "batch_size": 1, "num_threads": 1, "device": "", "message": ""}
        )
    return rows


@pytest.mark.parametrize("limit", ["flops<=300%", "flops<=60 M"])
def test_a_choice_that_is_over_its_limit_when_measured_whole_is_made_again(tabular_config, tmp_path, limit):
    """The limit is held lower by as much as the sum says too little; what is chosen then is within it, as measured."""
    select = tabular_config.select.model_copy(update={"limits": [limit]})
    study, scorer = scored(tabular_config.model_copy(update={"select": select}), tmp_path / "study")
    first = verified(study, scorer)["winner"]
    (budget,) = study.budgets([limit])
    cost = study.costs_of(Genotype.parse(first))["flops"]
    over = 1.1 * budget.at_most / cost
    record_whole(study.outputs, _whole(study, first, over))
    assert move_limits(study.snapshot, study.outputs)
    study.refresh()
    assert study.snapshot.limits[0].at_most == pytest.approx(AIMS_AT * budget.at_most / over)
    index = before = len(verification(study.outputs)["rounds"])
    while proposed := next_round(study.snapshot, study.outputs, index):
        study.store.add_evaluations(scorer.evaluate([Genotype.parse(text) for text in proposed]))
        study.refresh()
        record_round(study.snapshot, study.outputs, index)
        index += 1
    assert index > before  # there are evaluations for it, though the budget was spent
    second = str(verification(study.outputs)["winner"])
    assert study.costs_of(Genotype.parse(second))["flops"] <= AIMS_AT * budget.at_most / over
    record_whole(study.outputs, _whole(study, second, 1.0))
    assert not move_limits(study.snapshot, study.outputs)
    answer = study.select([limit], top=1)
    assert any(f"held {100 * (1 - AIMS_AT / over):.1f} % lower" in caution for caution in answer.cautions)
    again = Study.open(study.store.root)
    assert again.snapshot.limits == study.snapshot.limits


def test_a_choice_that_is_within_its_limit_stands(tabular_config, tmp_path):
    study, scorer = scored(tabular_config, tmp_path / "study")
    winner = verified(study, scorer)["winner"]
    record_whole(study.outputs, _whole(study, winner, 1.0))
    before = verification(study.outputs)
    assert not move_limits(study.snapshot, study.outputs)
    assert verification(study.outputs) == before


def test_what_a_sum_over_blocks_leaves_unused_of_a_limit_is_used(tabular_config, tmp_path):
    """Where the whole takes less than its blocks add up to, the limit is held higher, once."""
    select = tabular_config.select.model_copy(update={"limits": ["flops<=300%"]})
    study, scorer = scored(tabular_config.model_copy(update={"select": select}), tmp_path / "study")
    first = verified(study, scorer)["winner"]
    budget = study.snapshot.limits[0].at_most
    record_whole(study.outputs, _whole(study, first, 0.8))
    assert move_limits(study.snapshot, study.outputs)
    study.refresh()
    assert study.snapshot.limits[0].at_most == pytest.approx(AIMS_AT * budget / 0.8)
    cautions = study.select(["flops<=300%"], top=1).cautions
    assert any(f"held {100 * (AIMS_AT / 0.8 - 1):.1f} % higher" in caution for caution in cautions)
    record_whole(study.outputs, _whole(study, first, 0.5))
    assert not move_limits(study.snapshot, study.outputs)
    over = 1.1 * budget / study.costs_of(Genotype.parse(first))["flops"]
    record_whole(study.outputs, _whole(study, first, over))
    assert move_limits(study.snapshot, study.outputs)  # over it now: as low as that network says
    study.refresh()
    assert study.snapshot.limits[0].at_most == pytest.approx(AIMS_AT * budget / over)


def test_a_limit_that_was_lowered_by_mistake_is_what_was_asked_for_again(tabular_config, tmp_path):
    """The network for which it was lowered is measured once more, in turns with the one chosen instead."""
    select = tabular_config.select.model_copy(update={"limits": ["flops<=300%"]})
    study, scorer = scored(tabular_config.model_copy(update={"select": select}), tmp_path / "study")
    first = verified(study, scorer)["winner"]
    budget = study.snapshot.limits[0].at_most
    over = 1.5 * budget / study.costs_of(Genotype.parse(first))["flops"]
    record_whole(study.outputs, _whole(study, first, over))
    assert move_limits(study.snapshot, study.outputs)
    study.refresh()
    assert study.snapshot.limits[0].at_most < 0.7 * budget
    second = str(finalists(study.snapshot)[0])
    study.outputs.write(VERIFICATION, {**verification(study.outputs), "winner": second})
    assert lowered_for(verification(study.outputs)) == [first]
    rows = _whole(study, second, 1.0)
    record_whole(study.outputs, [*rows, _whole(study, first, over)[0]])
    assert not move_limits(study.snapshot, study.outputs)  # it is over the limit, as before
    record_whole(study.outputs, [*rows, _whole(study, first, 0.6 * over)[0]])
    assert move_limits(study.snapshot, study.outputs)
    study.refresh()
    assert study.snapshot.limits[0].at_most == budget
    study.outputs.write(VERIFICATION, {**verification(study.outputs), "winner": first})
    assert not move_limits(study.snapshot, study.outputs)


def test_one_network_that_takes_more_than_its_sum_makes_way_for_the_next(tabular_config, tmp_path):
    """Where the sums are right for the other finalists the limit stays."""
    select = tabular_config.select.model_copy(update={"limits": ["flops<=300%"]})
    study, scorer = scored(tabular_config.model_copy(update={"select": select}), tmp_path / "study")
    verified(study, scorer)
    best = list(map(str, finalists(study.snapshot)))
    assert len(best) == MEASURED_WHOLE == most_measured_whole(study.config)
    assert best[0] == verification(study.outputs)["winner"]
    over = 1.1 * study.snapshot.limits[0].at_most / study.costs_of(Genotype.parse(best[0]))["flops"]
    rows = [row for genotype in best for row in _whole(study, genotype, over if genotype == best[0] else 1.0)[:1]]
    record_whole(study.outputs, [*rows, _whole(study, best[0], 1.0)[1]])
    assert not move_limits(study.snapshot, study.outputs)
    assert verification(study.outputs)["winner"] == best[1]
    assert verification(study.outputs)["winner_metric"] == study.snapshot.measured[best[1]]
    assert not verification(study.outputs).get("moved")
    assert f"{best[0]} was rated better, but measured whole it is over a limit" in verification(study.outputs)["reason"]


def test_a_choice_so_near_its_limit_that_it_may_not_keep_it_is_made_again(tabular_config, tmp_path):
    """Sums are right, but no finalist leaves what a file takes more at one time than at another."""
    select = tabular_config.select.model_copy(update={"limits": ["flops<=300%"]})
    study, scorer = scored(tabular_config.model_copy(update={"select": select}), tmp_path / "study")
    first = verified(study, scorer)["winner"]
    near = 0.995 * study.snapshot.limits[0].at_most
    record_whole(study.outputs, _whole(study, first, near / study.costs_of(Genotype.parse(first))["flops"]))
    assert move_limits(study.snapshot, study.outputs)
    assert study.snapshot.held == ()  # until the study takes note of it
    study.refresh()
    assert 0.9 < dict(study.snapshot.held)["flops"] <= AIMS_AT / 0.995
    (told,) = [each for each in study.snapshot.cautions(study.snapshot.limits) if "is held" in each]
    assert not [each for each in study.snapshot.cautions(()) if "is held" in each]
    assert "% lower, as room for what the whole network takes" in told


def timed(config, limits, root):
    """A study whose design is evaluated and whose latencies are what its FLOPs say, in milliseconds per million."""
    profile = config.profile.model_copy(update={"resources": ["flops", "params", "latency_ms"]})
    select = config.select.model_copy(update={"limits": limits})
    study, scorer = scored(config.model_copy(update={"profile": profile, "select": select}), root)
    known = {"profiler_id": study.profiler_ids["latency_ms"], "resource": "latency_ms"}
    study.store.add_costs([replace(row, value=row.value / 1e6, **known) for row in study.costs("flops")])
    study.refresh()
    return study, scorer


@pytest.mark.parametrize(("limits", "held"), [
    (["latency_ms<=300%", "flops<=400%"], {"latency_ms": AIMS_AT}),
    (["latency_ms>=110%"], {}),
    (["flops<=300%"], {}),  # counted, not measured
])  # fmt: skip
def test_room_is_left_below_limits_on_what_is_measured(tabular_config, tmp_path, limits, held):
    """Before the first round, once."""
    study, scorer = timed(tabular_config, limits, tmp_path / "study")
    assert leave_room(study.snapshot, study.outputs) == bool(held)
    study.refresh()
    assert dict(study.snapshot.held) == held
    assert not leave_room(study.snapshot, study.outputs)
    record = verified(study, scorer)
    assert record.get("held", {}) == held
    assert study.snapshot.within(Genotype.parse(record["winner"]), study.snapshot.limits)


def test_no_room_is_left_where_no_network_would_be_within_the_limit(tabular_config, tmp_path):
    study, _ = timed(tabular_config, ["flops<=100%"], tmp_path / "study")
    every = itertools.product(*(range(count) for count in study.space.num_choices))
    least = min(study.costs_of(Genotype(choices))["latency_ms"] for choices in every)
    near, _ = timed(tabular_config, [f"latency_ms<={1.01 * least!r}"], tmp_path / "near")
    assert not leave_room(near.snapshot, near.outputs)
    near, _ = timed(tabular_config, [f"latency_ms<={1.05 * least!r}"], tmp_path / "less near")
    assert leave_room(near.snapshot, near.outputs)


def test_only_the_resource_that_is_over_its_limit_is_held_lower(tabular_config, tmp_path):
    select = tabular_config.select.model_copy(update={"limits": ["flops<=400%", "params<=2 M"]})
    study, scorer = scored(tabular_config.model_copy(update={"select": select}), tmp_path / "study")
    first = verified(study, scorer)["winner"]
    costs = study.costs_of(Genotype.parse(first))
    limits = {budget.resource: budget.at_most for budget in study.snapshot.limits}
    over = 1.1 * limits["params"] / costs["params"]
    rows = [*_whole(study, first, 1.0), *_whole(study, first, over, "params")]
    record_whole(study.outputs, rows)
    assert move_limits(study.snapshot, study.outputs)
    study.refresh()
    held = {budget.resource: budget.at_most for budget in study.snapshot.limits}
    assert held == {"flops": limits["flops"], "params": pytest.approx(AIMS_AT * limits["params"] / over)}


def without_answer(record):
    """The record without the program's answer, which says how long it took."""
    return {name: value for name, value in record.items() if name != "answer"}


def rated_again(study, genotypes, metrics):
    """Rows as the scorer's final rating would write them."""
    return [replace(study.evaluations()[0], genotype=str(g), metric=m) for g, m in zip(genotypes, metrics, strict=True)]


def test_the_best_of_the_finalists_when_rated_once_more_is_chosen(tabular_config, tmp_path):
    study, scorer = scored(tabular_config, tmp_path / "study")
    before = verified(study, scorer)
    best = to_rate_again(study.snapshot, study.outputs)
    assert best == finalists(study.snapshot)[:FINALISTS]
    failed = replace(rated_again(study, best[:1], [0.0])[0], status="failed", metric=None)
    record_finals(study.snapshot, study.outputs, [failed, *rated_again(study, best[1:], [91.0, 93.0, 92.0])])
    record = verification(study.outputs)
    assert [row["metric"] for row in record["finals"]] == [93.0, 92.0, 91.0]
    assert record["winner"] == study.winner == str(best[2])
    assert record["winner_metric"] == study.snapshot.measured[str(best[2])]
    assert f"of the 3 best, rated once more by more work each (93, 92, 91), {best[2]} is the best" in record["reason"]
    assert without_answer(verified(study, scorer)) == without_answer(
        before
    )  # run again, it comes to the same finalists
    record_finals(study.snapshot, study.outputs, [replace(failed, message="TypeError: no such thing")])
    told = f"{before['reason']}; 1 of the 1 best could not be rated once more (TypeError: no such thing)"
    assert without_answer(verification(study.outputs)) == {**without_answer(before), "reason": told}


def test_where_no_evaluated_network_is_within_the_limits_there_are_no_finalists(tabular_config, tmp_path):
    config = with_select(tabular_config, limits=["flops<=40%"])
    study, _ = scored(config, tmp_path / "study")
    assert not finalists(study.snapshot)
    assert verification(study.outputs)["winner"] is None
    assert to_rate_again(study.snapshot, study.outputs) == []


def test_finalists_that_are_over_a_limit_when_measured_whole_make_way_for_the_next(tabular_config, tmp_path):
    select = tabular_config.select.model_copy(update={"limits": ["flops<=300%"]})
    study, scorer = scored(tabular_config.model_copy(update={"select": select}), tmp_path / "study")
    verified(study, scorer)
    best = list(map(str, finalists(study.snapshot)))
    over = 1.1 * study.snapshot.limits[0].at_most / study.costs_of(Genotype.parse(best[1]))["flops"]
    rows = [row for genotype in best for row in _whole(study, genotype, over if genotype == best[1] else AIMS_AT)[:1]]
    record_whole(study.outputs, [*rows, _whole(study, best[0], 1.0)[1]])
    assert not move_limits(study.snapshot, study.outputs)
    assert list(map(str, to_rate_again(study.snapshot, study.outputs))) == [best[0], *best[2 : 1 + FINALISTS]]
