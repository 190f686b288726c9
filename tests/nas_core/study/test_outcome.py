"""What is proven to be predicted best, what was chosen, why they differ, and what speaks against the predictor."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.cli import _print_outcome
from nas_core.base.errors import ConfigError, UnknownNameError
from nas_core.program import solve
from nas_core.records.evaluations import EvaluationTable
from nas_core.report import story
from nas_core.report.collect import figure, summarise
from nas_core.report.page import render_page, tiles
from nas_core.report.summary import Limit, MeasuredWhole, WholeNetwork
from nas_core.report.text import format_metric, outcome_lines, summary_table
from nas_core.space.genotypes import Genotype
from nas_core.study.choices import cautions_of, standing_of
from nas_core.study.outcome import outcome_of
from nas_core.study.rounds import record_whole, verification
from nas_core.study.study import Study
from tasks.artifacts import outcome_words
from tasks.selection import select
from tests.command import mathnas
from tests.nas_core.study.test_rounds import scored, verified

pytestmark = pytest.mark.situations
NO_FIGURES = {"light": {}, "dark": {}}


def noisy(path, noise, seed=0):
    """The table's metric with noise, so that the best predicted is not the best."""
    table = pq.read_table(path)
    metric = np.array(table["mean_acc"]) + np.random.default_rng(seed).normal(0, noise, len(table))
    pq.write_table(pa.table({"arch": table["arch"], "mean_acc": metric}), path)


def finished(config, root):
    study, scorer = scored(config, root)
    select.fn(study)
    study.outputs.record("select", wall_s=1.0, compute_s=1.0, num_new=0, num_reused=0, num_failed=0, device="")
    verified(study, scorer)
    return study


@pytest.fixture
def study(tabular_config, macro_table, tmp_path) -> Study:
    """Verified on a table so noisy that another network was chosen than the one predicted best."""
    noisy(macro_table, 0.6)
    return finished(tabular_config, tmp_path / "study")


def test_one_network_is_the_best_predicted_wherever_it_is_asked_for(study):
    """By the fit to all that is evaluated: in outcome, report and `select`, at the frontier, by the solver."""
    limits, outcome, summary = study.config.select.limits, study.outcome(), summarise(study)
    (answer,) = study.select(limits, top=1).selections
    (solved,) = solve(study.snapshot.problem(study.budgets(limits))).selections
    within = summary.limits[0].at_most
    frontier = [point for front in summary.frontiers for point in front.points if point.cost <= within]
    best = max(frontier, key=lambda point: point.predicted)
    assert {outcome.best_predicted, answer.genotype, str(solved.genotype), summary.outcome.best_predicted} == {
        best.genotype
    }
    assert summary.selection.networks[0].genotype == best.genotype
    for value in (answer.predicted, summary.selection.networks[0].predicted, summary.selection.bound, best.predicted):
        assert value == pytest.approx(outcome.predicted, rel=1e-9)
    assert outcome.proven


def test_the_proof_is_of_the_last_fit_and_not_of_the_first(study):
    first, last = study.output("selection.json"), study.output("verification.json")["answer"]
    assert (first["num_evaluations"], last["num_evaluations"]) == (
        len(study.design.genotypes),
        len(study.evaluations()),
    )
    assert first["selections"][0]["predicted"] != last["selections"][0]["predicted"]
    assert study.outcome().predicted == last["selections"][0]["predicted"]
    assert format_metric(study.scorer.measure, last["bound"]) in story.proof(summarise(study))


def test_the_chosen_one_is_the_best_evaluated_and_a_sentence_says_why_they_differ(study):
    outcome = study.outcome()
    within = [row for row in study.evaluations() if study.within(Genotype.parse(row.genotype), study.snapshot.limits)]
    assert outcome.chosen_evaluated == max(row.metric for row in within)
    assert outcome.chosen == study.winner != outcome.best_predicted
    assert outcome.why.startswith("The best predicted network was ")


def test_terminal_json_page_and_artifact_say_the_same(study):
    outcome, summary = study.outcome(), summarise(study)
    metric = study.scorer.measure
    lines = [
        f"best predicted: {outcome.best_predicted} at {format_metric(metric, outcome.predicted)} (proven)",
        f"chosen: {outcome.chosen} at {format_metric(metric, outcome.chosen_evaluated)} (best evaluated)",
        outcome.why,
    ]
    root = study.store.root
    for text in (summary_table(summary), mathnas("status", root).stdout, "\n".join(outcome_words(study, "verify"))):
        assert all(line in text for line in lines)
    assert json.loads(mathnas("status", root, "--json").stdout)["outcome"] == outcome.as_dict()
    assert summary.to_dict()["outcome"] == outcome.as_dict()
    page = render_page(summary, NO_FIGURES)
    assert all(f"{line[0].upper()}{line[1:]}" in page for line in lines)
    (tile,) = [tile for tile in tiles(summary) if tile.label == "best predicted, proven"]
    assert tile.value == format_metric(metric, outcome.predicted)
    assert tile.note.startswith(f"{outcome.best_predicted}, not the chosen one.")


def test_before_verification_the_choice_is_by_prediction_alone(tabular_config, tmp_path):
    study, _ = scored(tabular_config, tmp_path / "study")
    assert study.outcome() is None
    select.fn(study)
    outcome = study.outcome()
    assert outcome.chosen == outcome.best_predicted
    assert not outcome.verified
    assert "by its prediction alone" in outcome.why
    known = outcome_of(study.last_answer(), None, study.snapshot)
    evaluated = study.evaluations()[0].genotype
    early = outcome_of({**study.last_answer(), "selections": [{**study.last_answer()["selections"][0],
                        "genotype": evaluated}]}, None, study.snapshot)  # fmt: skip
    assert (known.verified, early.verified) == (False, False)
    assert early.chosen_evaluated is not None
    assert "(best predicted, not verified)" in outcome_lines(early, study.scorer.measure)[1]


def test_a_chosen_network_whose_evaluation_is_gone_is_not_called_unverified(study):
    rest = replace(study.snapshot, evaluations=[r for r in study.evaluations() if r.genotype != study.winner])
    gone = outcome_of(study.last_answer(), study.winner, rest)
    assert "is no longer stored" in gone.why
    assert gone.verified


def test_a_block_that_no_evaluated_network_holds_is_said_to_be_guessed(study):
    known = study.snapshot
    largest = max(known.space.genotypes(), key=lambda genotype: known.costs_of(genotype)["flops"])
    limits = (f"flops>={known.costs_of(largest)['flops']:.0f}",)
    rows = [r for r in study.evaluations() if Genotype.parse(r.genotype).choices[2] != largest.choices[2]]
    answer = replace(known, evaluations=rows).answer(limits, top=1)
    assert answer.selections[0].genotype == str(largest)
    said = f"No evaluated network holds these blocks of the best one: {largest.choices[2]} at position 2; "
    assert answer.cautions[0].startswith(said)
    assert not [words for words in known.answer(limits, top=1).cautions if "No evaluated network" in words]


def test_what_is_not_asked_is_as_the_study_says(study):
    apart = study.config.model_copy(
        update={"select": study.config.select.model_copy(update={"top": 3, "min_distance": 2})}
    )
    found = Study(apart, study.store, study.sources).select(study.config.select.limits).selections
    networks = [Genotype.parse(choice.genotype) for choice in found]
    assert len(networks) == 3
    assert all(one.distance(other) >= 2 for one, other in itertools.combinations(networks, 2))


def test_from_python_a_limit_may_be_alone_and_what_is_wrong_is_one_line(study):
    limit = study.config.select.limits[0]
    assert study.select(limit).selections == study.select([limit], top=study.config.select.top).selections
    assert study.predict(study.winner) == study.predict([study.winner])
    for top in (0, -1, 10_001):
        with pytest.raises(ConfigError, match=r"top: found -?\d+, expected a number from 1 to 10,000"):
            study.select([limit], top=top)
    with pytest.raises(UnknownNameError, match=r"figure: found 'nope', expected one of: .*frontier"):
        figure(study, "nope")


def answer_with(study, genotype):
    """The last answer, as if the program had named this network first."""
    answer = study.output("verification.json")["answer"]
    return {**answer, "selections": [{**answer["selections"][0], "genotype": genotype}, *answer["selections"]]}


def test_every_way_to_differ_has_its_sentence(study):
    known, winner = study.snapshot, study.winner
    metrics = {row.genotype: row.metric for row in known.evaluations}
    worse = min(metrics, key=metrics.__getitem__)
    never = next(str(g) for g in study.space.genotypes() if str(g) not in metrics)

    def why(genotype, snapshot=known, ended=""):
        return outcome_of(answer_with(study, genotype), winner, snapshot, ended).why

    assert why(winner) == "The best predicted network is also the best of those evaluated."
    assert why(worse).endswith("the chosen one did better.")
    assert why(never, ended="the budget is spent") == (
        "The best predicted network was not evaluated, since the budget is spent; only evaluated networks are chosen."
    )
    rows = [replace(row, status="failed", metric=None, message="loss is NaN") if row.genotype == worse else row
            for row in known.evaluations]  # fmt: skip
    assert "failed (loss is NaN)" in why(worse, known.with_evaluations(rows))
    alike = [replace(row, metric=metrics[winner]) if row.genotype == worse else row for row in known.evaluations]
    assert why(worse, known.with_evaluations(alike)).endswith("with the same result.")
    better = [replace(row, metric=200.0) if row.genotype == worse else row for row in known.evaluations]
    assert why(worse, known.with_evaluations(better)).endswith("after the choice was made, and did better.")
    over = f"the choice stood; {worse} was rated better, but measured whole it is over a limit"
    assert why(worse, known.with_evaluations(better), over).endswith("but measured whole it is over a limit.")
    near = over.replace("it is over a limit", "it takes 99.6 % of a limit, too much to keep it each time")
    assert "takes 99.6 % of a limit, too much" in why(worse, known.with_evaluations(better), f"{near}; told once more")
    again = outcome_of(answer_with(study, worse), winner, known.with_evaluations(better), "", [worse, winner])
    assert again.why == "The best predicted network was rated better at first, and worse with more work each."
    assert "(best of the finalists)" in outcome_lines(again, study.scorer.measure)[1]


def test_an_equal_network_that_was_evaluated_answers_for_the_best_predicted(study):
    """Identity is a no-op where shapes agree: of two such positions, 1-0 and 0-1 are one network."""
    chosen = Genotype.parse(study.winner)
    one, other = ("-".join(["0", "0", "0", *middle, "0", "0", "0"]) for middle in (("1", "0"), ("0", "1")))
    row = replace(study.evaluations()[0], genotype=other, metric=1.0)
    known = study.snapshot.with_evaluations([*study.evaluations(), row])
    outcome = outcome_of(answer_with(study, one), str(chosen), known)
    assert outcome.evaluated == 1.0
    assert f"(as {other}, which computes the same)" in outcome.why


def test_selecting_says_where_the_studys_winner_stands(study):
    limits = study.config.select.limits
    answer = study.select(limits, top=1)
    assert answer.winner.genotype == study.winner
    assert answer.winner.rank is None
    assert answer.winner.sentence.endswith("is not among the first 1 by its prediction.")
    many = study.select(limits, top=3)
    second = Genotype.parse(many.selections[1].genotype)
    standing = standing_of(second, many, study.predictor(), within=True, evaluated=None)
    assert (standing.rank, standing.predicted) == (2, many.selections[1].predicted)
    assert standing.sentence.endswith("is number 2 by its prediction.")
    outside = study.select(["params<=0.6 M"], top=1)
    if not outside.winner.within:
        assert outside.winner.sentence.endswith("is not within these limits.")
    printed = mathnas("select", study.store.root, "--top", "1").stdout
    assert f"Ranked by prediction. {answer.winner.sentence[:-1]}: predicted " in printed
    data = json.loads(mathnas("select", study.store.root, "--top", "1", "--json").stdout)
    assert data["winner"]["genotype"] == study.winner


def test_a_predictor_worse_than_the_mean_says_so_on_the_card(tabular_config, macro_table, tmp_path):
    """Nothing but noise: what is left out of the fit is predicted worse than by the mean, or all alike."""
    table = pq.read_table(macro_table)
    for seed in range(8):
        metric = np.random.default_rng(seed).normal(90, 1, len(table))
        pq.write_table(pa.table({"arch": table["arch"], "mean_acc": metric}), macro_table)
        study, _ = scored(tabular_config, tmp_path / f"noise{seed}")
        if study.snapshot.fitted.chosen.score < 0:
            break
    select.fn(study)
    (card,) = [tile for tile in tiles(summarise(study)) if tile.label.startswith("best predicted")]
    assert "does worse than guessing the mean" in card.note or "tells no networks apart" in card.note


def test_a_predictor_that_tells_nothing_apart_says_so(tabular_config, macro_table, tmp_path):
    table = pq.read_table(macro_table)
    pq.write_table(pa.table({"arch": table["arch"], "mean_acc": [90.0] * len(table)}), macro_table)
    study, _ = scored(tabular_config, tmp_path / "flat")
    assert study.snapshot.cautions(())[0] == "The predictor tells no networks apart: all of them are predicted alike."
    select.fn(study)
    assert "tells no networks apart" in mathnas("select", study.store.root).stdout


@pytest.mark.parametrize(("count", "words"), [(0, "No held-out networks were"), (1, "Only 1 held-out network was"),
                                              (7, "Only 7 held-out networks were")])  # fmt: skip
def test_too_few_held_out_networks_are_said(study, count, words):
    (found,) = [words for words in cautions_of(study.snapshot.fitted, count) if "held-out" in words]
    assert found.startswith(words)
    assert not [words for words in cautions_of(study.snapshot.fitted, 8) if "held-out" in words]


def test_a_loss_is_chosen_downwards(study):
    known = study.snapshot
    rows = [replace(row, higher_is_better=False) for row in known.evaluations]
    turned = known.with_evaluations(rows)
    best = EvaluationTable.from_rows(rows).genotypes[int(EvaluationTable.from_rows(rows).metric_K.argmax())]
    worst = max(rows, key=lambda row: row.metric).genotype
    assert outcome_of(answer_with(study, worst), str(best), turned).why.endswith("the chosen one did better.")


def test_a_frontier_that_was_cut_short_is_not_called_whole(study):
    summary = summarise(study)
    cut = replace(summary, frontiers=tuple(replace(front, complete=False) for front in summary.frontiers))
    assert "only a part of the frontier is shown" in render_page(cut, NO_FIGURES)
    assert "only a part of the frontier" not in render_page(summary, NO_FIGURES)


@pytest.mark.parametrize(("text", "share", "words"), [
    ("params<=60%", 0.59, "(2.36 M measured whole, of at most 2.40 M then)"),
    ("params<=60%", 0.61, "(2.44 M measured whole, of at most 2.40 M then, which is outside)"),
    ("params<=3 M", 0.61, "(2.44 M measured whole, of at most 3.00 M then)"),  # the base takes 4 M
    ("params<=2 M", 0.61, "(2.44 M measured whole, of at most 2.00 M then, which is outside)"),
    ("params<=1.5 M", 0.61, "(2.44 M measured whole, which is outside)"),
])  # fmt: skip
def test_a_percentage_is_of_the_base_as_it_was_measured_whole(study, text, share, words):
    """Sums of blocks may take less than the whole of them, of the base as of the chosen network."""
    summary = summarise(study)
    networks = tuple(
        WholeNetwork(genotype=genotype, summed=1e6, measured=4e6 * of_base, spread=1e4)
        for genotype, of_base in ((study.winner, share), (str(study.base), 1.0))
    )
    whole = MeasuredWhole(
        resource="params", networks=networks, device="a board", batch_size=1, num_threads=1, num_repeats=9
    )
    limit = Limit(resource="params", at_most=1.5e6, text=text)
    summary = replace(summary, whole=(whole,), limits=(limit,))
    assert words in story.within_limits(summary, study.winner)


def test_what_was_measured_whole_stands_beside_the_sum(study, capsys):
    """Also where it breaks the limit that the sum keeps."""
    summed = study.costs_of(Genotype.parse(study.winner))["params"]
    conditions = {"num_repeats": 9, "batch_size": 1, "num_threads": 1, "device": "a board", "message": ""}
    row = {"genotype": study.winner, "resource": "params", "resolution": 32, "status": "ok", **conditions}
    row |= {"value": 2.4e6, "spread": 1e4}
    assert story.limits_measured_whole(summarise(study)) == ""
    record_whole(study.outputs, [row])
    assert verification(study.outputs)["whole"][0]["value"] == 2.4e6
    summary = summarise(study)
    assert summary.whole[0].networks[0].summed == summed
    words = story.within_limits(summary, study.winner)
    assert "(2.40 M measured whole, which is outside)" in words
    _print_outcome(study, as_json=False)
    assert words in capsys.readouterr().out.splitlines()
    page = render_page(summary, NO_FIGURES)
    assert "Networks measured whole" in page
    assert "2.40 M" in page
