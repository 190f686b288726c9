"""A snapshot works out what follows from its rows once, and keeps what other rows do not change."""

from dataclasses import FrozenInstanceError, replace

import pytest

from nas_core.base.errors import IncompleteTableError
from nas_core.scoring import SCORERS
from nas_core.study import snapshot as module
from nas_core.study.snapshot import FROM_COSTS, FROM_FLOPS_AND_EVALUATIONS, Snapshot, _rounded_up
from tests.nas_core.study.test_rounds import scored


@pytest.fixture
def known(tabular_config, tmp_path) -> Snapshot:
    study, _ = scored(tabular_config, tmp_path / "study")
    return study.snapshot


@pytest.fixture
def fits(monkeypatch):
    """The tables that predictors were fitted to."""
    tables, real = [], module.fit

    def counted(space, table, *given, **named):
        tables.append(table)
        return real(space, table, *given, **named)

    monkeypatch.setattr(module, "fit", counted)
    return tables


def test_the_predictor_is_fitted_once_whoever_asks(known, fits):
    assert known.predictor.table is known.fitted.table
    known.problem(known.limits)
    known.answer(("params<=2 M",), top=2)
    assert known.calibration is not None
    assert len(fits) == 1


def test_all_that_failed_are_counted_where_none_succeeded(known):
    rows = [replace(row, status="failed", metric=None, message="no compiler") for row in known.evaluations]
    assert set(map(str, known.design.held_out)) & {row.genotype for row in rows}
    with pytest.raises(IncompleteTableError, match=rf"found {len(rows)} rows, no success \(no compiler\)"):
        _ = known.with_evaluations(rows).table


def test_more_evaluations_keep_what_costs_say(known, fits):
    costs = (known.cost_tables, known.design, known.flops, known.limits)
    _ = known.fitted
    more = known.with_evaluations([*known.evaluations, replace(known.evaluations[0], genotype="2-2-2-2-2-2-2-2")])
    assert all(new is old for new, old in zip((more.cost_tables, more.design, more.flops), costs, strict=False))
    assert more.limits is costs[3]
    assert len(more.fitted.table) == len(known.fitted.table) + 1
    assert len(fits) == 2


def test_costs_of_another_resource_keep_the_predictor(known, fits):
    _ = known.predictor
    dearer = [replace(row, value=2 * row.value) if row.resource == "params" else row for row in known.costs]
    changed = known.with_costs(dearer)
    assert changed.predictor is known.predictor
    assert changed.design is known.design
    assert changed.costs_of(known.base)["params"] == 2 * known.costs_of(known.base)["params"]
    assert changed.limits == known.limits
    assert changed.answer(("params<=2 M",), top=1) != known.answer(("params<=2 M",), top=1)


def test_other_flops_make_another_design(known):
    dearer = [replace(row, value=2 * row.value) if row.resource == "flops" else row for row in known.costs]
    changed = known.with_costs(dearer)
    assert known.design is not changed.design
    assert changed.flops.total(known.base) == 2 * known.flops.total(known.base)


def test_the_same_rows_are_the_same_snapshot(known):
    assert known.with_evaluations(known.evaluations).with_costs(known.costs) is known


def test_what_was_grown_predicts_as_what_was_read_at_once(known):
    first = known.with_evaluations(known.evaluations[:-3])
    _ = first.predictor
    grown = first.with_evaluations(known.evaluations)
    genotypes = list(known.design.genotypes)
    assert grown.predictor.predict(genotypes) == known.predictor.predict(genotypes)


def test_an_answer_is_worked_out_once_for_each_question(known):
    first = known.answer(("params<=2 M",), top=2)
    assert known.answer(("params<=2 M",), top=2) is first
    assert len(known.answer(("params<=2 M",), top=1).selections) == 1


def test_a_snapshot_does_not_change(known):
    with pytest.raises(FrozenInstanceError):
        known.evaluations = ()


@pytest.mark.parametrize("name", [*FROM_COSTS, *FROM_FLOPS_AND_EVALUATIONS])
def test_what_is_kept_is_there(name):
    assert hasattr(Snapshot, name) or hasattr(Snapshot, name.removeprefix("_"))


@pytest.mark.situations
def test_a_table_that_lacks_networks_is_not_asked_again(known):
    """`--retry-failed` would look up the same rows."""
    failed = [replace(row, status="failed", metric=None, message="not in the table") for row in known.evaluations]
    with pytest.raises(IncompleteTableError, match=r"no success.*take a base \(`design\.base`\).*balanced") as refused:
        _ = known.with_evaluations(failed).table
    assert "--retry-failed" not in str(refused.value)
    config = known.config.model_copy(update={"scorer": SCORERS.section("train")()})
    with pytest.raises(
        IncompleteTableError, match=r"Mend the cause, then run `mathnas score 'my study' --retry-failed`"
    ):
        _ = replace(known.with_evaluations(failed), config=config, root="my study").table


@pytest.mark.parametrize(
    ("percent", "said"),
    [
        (100 * 1738 / 115_546, "1.51"),
        (0.0123456, "0.0124"),
        (60.0, "60.0"),
        (33.31, "33.4"),
        (1234.5, "1240"),
        (0, "0"),
    ],
)
def test_the_least_share_is_said_in_three_digits_as_a_limit_that_can_be_met(percent, said):
    assert _rounded_up(percent) == said
