"""Makes the summary that a report shows from what a study's store holds. No torch, no solver but for frontiers."""

import contextlib
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import nas_core
from nas_core.base.errors import NasError
from nas_core.base.machine import installed_versions
from nas_core.base.registry import summary_of
from nas_core.costs import Additivity
from nas_core.prediction import Predictor
from nas_core.prediction.predictor import COVERAGE
from nas_core.program import Budget, Status, frontier
from nas_core.records.evaluations import CostTable, Evaluation
from nas_core.records.resources import resource_of
from nas_core.report.summary import (
    BlockEffect,
    BlockEffects,
    CalibrationSummary,
    Costs,
    CurvePoint,
    DataSummary,
    EvaluatedNetwork,
    FrontierPoint,
    FrontierSummary,
    Limit,
    MeasuredWhole,
    OutputsTable,
    Provenance,
    ResourceAdditivity,
    Scatter,
    ScorerSummary,
    SeedValue,
    SelectedNetwork,
    SelectionSummary,
    Shown,
    StageCost,
    StudySummary,
    SweepSummary,
    TrainedNetwork,
    TrainingSummary,
    VerificationRound,
    VerificationSummary,
    WholeNetwork,
)
from nas_core.report.text import trained_name
from nas_core.space.equivalence import function_id
from nas_core.space.genotypes import Genotype
from nas_core.study.as_given import as_given
from nas_core.study.brought import trained_metric
from nas_core.study.choices import with_additive_limits
from nas_core.study.contestants import REMADE
from nas_core.study.frames import role_of
from nas_core.study.outcome import Outcome, outcome_of
from nas_core.study.reasons import Reasons, reasons
from nas_core.study.rounds import last_answer
from nas_core.study.stages import STAGES, TRACKING
from nas_core.study.study import Study
from nas_core.study.sweep import Point
from nas_core.workloads.metrics import Measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NETWORKS_SHOWN = 2_000  # in figures; the counts are of all
FRONTIER_TIME_LIMIT_S = 10.0
PACKAGES = ("torch", "timm", "ortools", "ray", "prefect", "mlflow", "numpy", "pyarrow")


def figure(study: Study, name: str) -> "Figure":
    """A figure of the study's report, for a notebook: ``frontier``, ``block_effects``, ``calibration``, ``network``...

    Raises:
        NotYetRunError: if its stage has not run.
    """
    from nas_core.report.figures import drawn

    return drawn(summarise(study), name)


def summarise(study: Study, sections: Collection[str] | None = None) -> StudySummary:
    """All that the report shows, or only these ``sections`` of it; what was not run or asked for is None or empty."""
    rows = study.evaluations()
    last = cache(lambda: _last_answer(study))
    make: dict[str, Callable[[], Any]] = {
        "stages": lambda: _stages(study),
        "networks": lambda: _networks(study, rows, _predictor(study)),
        "cost_tables": lambda: _cost_tables(study),
        "base_costs": lambda: _costs(study, study.base) if study.has_flops else {},
        "block_effects": lambda: _effects(study.predictor(recalibrate=False) if _predictor(study) else None),
        "limits": lambda: _limits(study),
        "selection": lambda: _selection(study, last()),
        "outcome": lambda: _outcome(study, last()),
        "calibration": lambda: _calibration(study, _predictor(study)),
        "verification": lambda: _verification(study),
        "frontiers": lambda: _frontiers(study, _predictor(study)),
        "reasons": lambda: _reasons(study, _predictor(study)),
        "sweep": lambda: _sweep(study, _predictor(study)),
        "additivity": lambda: _additivity(study),
        "whole": lambda: _whole(study),
        "training": lambda: _training(study),
    }
    return StudySummary(
        name=study.config.name,
        seed=study.config.seed,
        space=study.space,
        base=str(study.base) if study.has_flops else "-".join("0" for _ in study.space.positions),
        data=_data(study),
        scorer=_scorer(study, rows),
        device=next((row.device for row in rows if row.device), ""),
        are_networks=study.family.are_networks,
        provenance=_provenance(study),
        num_evaluated=len({row.genotype for row in rows if row.status == "ok"}),
        num_failed=sum(row.status == "failed" for row in rows),
        first_failure=next((f"{row.genotype}: {row.message}" for row in rows if row.status == "failed"), ""),
        **{name: section() for name, section in make.items() if sections is None or name in sections},
    )


def _predictor(study: Study) -> Predictor | None:
    try:
        return study.predictor()
    except NasError:  # nothing to fit yet: the page says which command makes it
        return None


def _profiled(study: Study) -> bool:
    try:
        return bool(study.cost_tables)
    except NasError:
        return False


def _cost_tables(study: Study) -> tuple[CostTable, ...]:
    return tuple(table for mine in study.cost_tables.values() for table in mine.values()) if _profiled(study) else ()


def _data(study: Study) -> DataSummary:
    if not study.scorer.needs_data:
        return DataSummary(name=study.scorer.name, description="the scorer looks at no data")
    notes = study.sources.data
    assert notes is not None, "what a scorer looks at is noted"
    trained = (study.current("train") or {"networks": [{}]})["networks"][0]
    num_train, num_validation = notes.num_examples or (None, None)
    return DataSummary(
        name=study.scorer.workload.label,
        num_train=num_train,
        num_validation=num_validation,
        num_test=trained.get("num_test_examples"),
        facts=dict(notes.facts),
    )


def _scorer(study: Study, rows: Sequence[Evaluation]) -> ScorerSummary:
    kind = study.config.scorer.kind
    first = next((row for row in rows if row.status == "ok"), None)
    return ScorerSummary(
        kind=kind,
        metric=study.scorer.measure,
        split=first.split if first else "validation",
        num_examples=first.num_examples if first else None,
        seeds=tuple(sorted({row.seed for row in rows})),
        description=" ".join([summary_of(type(study.scorer)), *_notes(study)]),
    )


def _notes(study: Study) -> list[str]:
    """What the scorer says of how it rates, where what it rates by is at hand."""
    with contextlib.suppress(NasError):
        return [f"{note}." for note in study.scorer.notes()]
    return []


def _own_metric(study: Study) -> Measure:
    """What trained networks are compared by."""
    return trained_metric(study.config).measure


def _provenance(study: Study) -> Provenance:
    records = study.records()
    tracking = study.output(TRACKING) or {}
    labels = {"MLflow": tracking.get("uri", ""), "study run": tracking.get("runs", {}).get("study", "")}
    labels["registered model"] = tracking.get("model", {}).get("uri", "")
    return Provenance(
        code_version=nas_core.__version__,
        space_id=study.space.space_id,
        scorer_id=study.scorer_id,
        profiler_id=", ".join(f"{name} {identity}" for name, identity in study.profiler_ids.items()),
        versions=installed_versions(PACKAGES),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        devices={stage: record["device"] for stage, record in records.items() if record["device"]},
        commands=("mathnas run study.yaml --root STUDY",),
        tracking={label: value for label, value in labels.items() if value},
    )


def _stages(study: Study) -> tuple[StageCost, ...]:
    records = study.records()
    return tuple(
        StageCost(
            stage=stage,
            wall_s=records[stage]["wall_s"],
            compute_s=records[stage]["compute_s"],
            num_evaluations=records[stage]["num_new"],
            num_failed=records[stage]["num_failed"],
            num_reused=records[stage]["num_reused"],
            device=records[stage]["device"],
        )
        for stage in STAGES
        if stage in records
    )


def _costs(study: Study, genotype: Genotype) -> Costs:
    return study.costs_of(genotype) if _profiled(study) else {}


def _best_first(study: Study, rows: Sequence[Evaluation]) -> list[Evaluation]:
    """The winner, then the others by their metric."""
    winner = study.winner
    done = [(row, row.metric) for row in rows if row.status == "ok" and row.metric is not None]
    ordered = sorted(
        done, key=lambda pair: (pair[0].genotype != winner, -pair[1] if pair[0].higher_is_better else pair[1])
    )
    return [row for row, _ in ordered]


def _networks(study: Study, rows: Sequence[Evaluation], predictor: Predictor | None) -> tuple[EvaluatedNetwork, ...]:
    """Evaluated networks with their predictions: those made before evaluation, where verification made one."""
    shown = _best_first(study, rows)[:MOST_NETWORKS_SHOWN]
    genotypes = [Genotype.parse(row.genotype) for row in shown]
    predictions = predictor.predict(genotypes) if predictor else [None] * len(shown)
    earlier = _predictions_before_evaluation(study)
    networks = []
    for row, genotype, now in zip(shown, genotypes, predictions, strict=True):
        predicted, low, high = earlier.get(row.genotype) or (
            (now.metric, now.low, now.high) if now else (None, None, None)
        )
        assert row.metric is not None
        networks.append(
            EvaluatedNetwork(
                genotype=row.genotype,
                metric=row.metric,
                role=role_of(genotype, study.snapshot),
                predicted=predicted,
                low=low,
                high=high,
                costs=_costs(study, genotype),
            )
        )
    return tuple(networks)


def _predictions_before_evaluation(study: Study) -> dict[str, tuple[float, float, float]]:
    rounds = (study.current("verify") or {"rounds": []})["rounds"]
    return {
        genotype: (predicted, low, high)
        for row in rounds
        for genotype, predicted, low, high in zip(
            row["proposed"], row["predicted"], row["low"], row["high"], strict=True
        )
    }


def _effects(predictor: Predictor | None) -> BlockEffects | None:
    if predictor is None:
        return None
    sign = predictor.table.sign
    effects = tuple(
        BlockEffect(
            position=row.position,
            choice=row.choice,
            effect=sign * row.effect,
            low=min(sign * row.low, sign * row.high),
            high=max(sign * row.low, sign * row.high),
            num_evaluations=row.num_evaluations,
        )
        for row in predictor.effects()
    )
    chosen = predictor.chosen
    sentence = (
        f"Of {len(predictor.selection)} settings, cross-validation chose link {chosen.link}, "
        f"FLOPs exponent {chosen.exponent:g}, {'with' if chosen.pairs else 'without'} pairwise terms "
        f"(R² {chosen.score:.2f} on networks left out of the fit)."
    )
    return BlockEffects(
        base=str(predictor.base),
        effects=effects,
        link=chosen.link,
        interval_level=COVERAGE,
        sentence=sentence,
        adds_up=chosen.link == "identity" and chosen.exponent == 0 and not chosen.pairs,
    )


def _limits(study: Study) -> tuple[Limit, ...]:
    texts = study.config.select.limits
    if not texts or not _profiled(study):
        return ()
    return tuple(
        Limit(
            resource=budget.resource,
            at_most=budget.at_most,
            at_least=budget.at_least,
            text=text,
            device=_device(study, budget),
        )
        for text, budget in zip(texts, study.budgets(texts), strict=True)
    )


def _device(study: Study, budget: Budget) -> str:
    is_measured = resource_of(budget.resource).measured
    return next((row.device for row in study.costs(budget.resource)), "") if is_measured else ""


def _last_answer(study: Study) -> dict[str, Any] | None:
    """The program's answer by the fit to all that is evaluated, so that nothing on the page is of an earlier one."""
    answer = study.last_answer()
    if answer is None or answer.get("num_evaluations") == len(study.evaluations()):
        return answer
    try:
        return last_answer(study.snapshot)
    except NasError:  # what it was fitted to is gone
        return answer


def _outcome(study: Study, answer: Mapping[str, Any] | None) -> Outcome | None:
    verified = study.current("verify") or {}
    if answer is None:
        return None
    again = [row["genotype"] for row in verified.get("finals", ())]
    return outcome_of(answer, verified.get("winner"), study.snapshot, verified.get("reason", ""), again)


def _selection(study: Study, answer: Mapping[str, Any] | None) -> SelectionSummary | None:
    if answer is None:
        return None
    evaluated = {row.genotype: row.metric for row in study.evaluations()}
    return SelectionSummary(
        status=answer["status"],
        sentence=answer["message"],
        networks=tuple(
            SelectedNetwork(
                genotype=row["genotype"],
                predicted=row["predicted"],
                low=row["interval"][0],
                high=row["interval"][1],
                evaluated=evaluated.get(row["genotype"]),
                costs=row["costs"],
            )
            for row in answer["selections"]
        ),
        bound=answer["bound"],
        gap=answer["gap"],
        solve_s=answer["solve_s"],
        route=answer["route"],
    )


def _calibration(study: Study, predictor: Predictor | None) -> CalibrationSummary | None:
    if predictor is None or not _profiled(study):
        return None
    try:
        found = study.snapshot.calibration
    except NasError:  # too few networks were held out
        return None
    if found is None:
        return None
    baseline = max(found.counts.items(), key=lambda item: item[1].kendall, default=None)
    return CalibrationSummary(
        num_networks=found.n,
        kendall=found.kendall,
        spearman=found.spearman,
        coverage=found.coverage_90,
        interval_level=COVERAGE,
        baseline_name=baseline[0] if baseline else "parameters",
        baseline_kendall=baseline[1].kendall if baseline else None,
        sentence=found.verdict,
    )


def _verification(study: Study) -> VerificationSummary | None:
    record = study.current("verify")
    if record is None or not record.get("winner"):
        return None
    closed = [row for row in record["rounds"] if row.get("incumbent")]
    rounds = tuple(
        VerificationRound(
            index=index,
            genotypes=tuple(row["proposed"]),
            best_genotype=row["incumbent"],
            best_metric=row["incumbent_metric"],
            predicted_metric=row["predicted"][0],
            num_evaluations=row["num_evaluations"],
        )
        for index, row in enumerate(closed, start=1)
    )
    return VerificationSummary(
        rounds=rounds, winner=record["winner"], stands=record["stands"], sentence=_capital(record["reason"])
    )


def _capital(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:]}." if reason else ""


def _frontiers(study: Study, predictor: Predictor | None) -> tuple[FrontierSummary, ...]:
    """The best predicted metric over every limit of each limited resource (of FLOPs where nothing is limited)."""
    if predictor is None or not _profiled(study):
        return ()
    budgets = study.budgets(study.config.select.limits)
    resources = dict.fromkeys(b.resource for b in budgets if b.at_most is not None) or {"flops": None}
    by_resolution, _ = with_additive_limits(study.cost_tables, ())
    tables = [table for mine in by_resolution.values() for table in mine.values()]
    evaluated = {row.genotype: row.metric for row in study.evaluations() if row.status == "ok"}
    found = []
    for resource in resources:
        if any(table.resource == resource for table in tables):
            front = frontier(predictor.problem(tables), resource, time_limit_s=FRONTIER_TIME_LIMIT_S)
            points = _points(predictor, front, resource, evaluated)
            complete = front.status is not Status.FEASIBLE
            found.append(FrontierSummary(resource=resource, points=points, complete=complete))
    return tuple(found)


def _points(
    predictor: Predictor, front: Any, resource: str, evaluated: dict[str, float | None]
) -> tuple[FrontierPoint, ...]:
    return tuple(
        FrontierPoint(
            cost=point.costs[resource],
            predicted=predictor.to_metric(point.value),
            genotype=str(point.genotype),
            evaluated=evaluated.get(str(point.genotype)),
        )
        for point in front.points
    )


def _reasons(study: Study, predictor: Predictor | None) -> Reasons | None:
    if predictor is None or study.winner is None or not _profiled(study):
        return None
    return reasons(study.snapshot, Genotype.parse(study.winner))


def _sweep(study: Study, predictor: Predictor | None) -> SweepSummary | None:
    """The sweep's points with what was measured of them, and the base network."""
    text = study.config.select.sweep
    if not text or predictor is None or not _profiled(study):
        return None
    (budget,) = study.budgets((text,))
    found = study.points()
    (prediction,) = predictor.predict([study.base])
    base = Point(
        limit="",
        at_most=study.costs_of(study.base)[budget.resource],
        recovered=True,
        genotype=str(study.base),
        predicted=prediction.metric,
        low=prediction.low,
        high=prediction.high,
        evaluated=study.snapshot.measured.get(str(study.base)),
        summed=study.costs_of(study.base)[budget.resource],
    )
    points = [_with_results(study, budget.resource, point) for point in (*found, base)]
    return SweepSummary(resource=budget.resource, text=text, points=tuple(points[:-1]), base=points[-1])


def _with_results(study: Study, resource: str, point: Point) -> Point:
    """The point with what it takes, measured whole, and its metric on test, where that is known."""
    if point.genotype is None:
        return point
    whole = (study.current("verify") or {}).get("whole") or ()
    rows = [row for row in whole if row["status"] == "ok" and row["resource"] == resource]
    trained = (study.current("train") or {"networks": []})["networks"]
    mine = function_id(study.space, Genotype.parse(point.genotype))
    known = (row for row in trained if row["role"] not in REMADE)
    alike = (row for row in known if function_id(study.space, Genotype.parse(row["genotype"])) == mine)
    tests = (row["metrics"]["test"][_own_metric(study).name] for row in alike)
    measured = (row["value"] for row in rows if row["genotype"] == point.genotype)
    return replace(point, measured=next(measured, None), test=next(tests, None))


def _additivity(study: Study) -> tuple[ResourceAdditivity, ...]:
    """Of every measured resource, how its sums agree with whole networks."""
    found = study.additivity if _profiled(study) else {}
    return tuple(_additivity_of(study, resource, agreement) for resource, agreement in found.items())


def _additivity_of(study: Study, resource: str, found: Additivity) -> ResourceAdditivity:
    rows = {row.genotype: row for row in study.costs(resource) if row.genotype and row.status == "ok"}
    pairs = tuple(
        WholeNetwork(genotype=genotype, summed=summed, measured=measured, spread=rows[genotype].spread)
        for genotype, summed, measured in zip(found.genotypes, found.predicted, found.measured, strict=True)
    )
    first, unit = rows[found.genotypes[0]], resource_of(resource).unit
    sign = "-" if found.intercept < 0 else "+"
    return ResourceAdditivity(
        resource=resource,
        unit=unit,
        pairs=pairs,
        device=first.device,
        batch_size=first.batch_size,
        num_threads=first.num_threads,
        num_repeats=first.num_repeats,
        r2=found.r2,
        kendall=found.kendall,
        worst_relative_error=found.worst_relative_error,
        correction=f"measured = {found.slope:.3f} x sum {sign} {abs(found.intercept):.3f} {unit}",
        is_corrected=found.usable,
    )


def _whole(study: Study) -> tuple[MeasuredWhole, ...]:
    """The chosen network and the base as they were measured whole, by resource."""
    rows = [row for row in (study.current("verify") or {}).get("whole") or () if row["status"] == "ok"]
    by_resource: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_resource.setdefault(row["resource"], []).append(row)
    return tuple(
        MeasuredWhole(
            resource=resource,
            networks=tuple(_whole_network(study, row) for row in mine),
            **{name: mine[0][name] for name in ("device", "batch_size", "num_threads", "num_repeats")},
        )
        for resource, mine in by_resource.items()
    )


def _whole_network(study: Study, row: Mapping[str, Any]) -> WholeNetwork:
    summed = study.costs_of(Genotype.parse(row["genotype"]))[row["resource"]]
    return WholeNetwork(genotype=row["genotype"], summed=summed, measured=row["value"], spread=row["spread"])


def _details(details: Mapping[str, Any], is_shown: bool) -> dict[str, Any]:
    """What a workload kept of a network's outputs on the test split; single examples of the one that is shown."""
    table = details.get("table")
    return {
        "confusion": tuple(map(tuple, details.get("confusion", ()) if is_shown else ())),
        "outputs": OutputsTable(head=tuple(table["head"]), rows=tuple(map(tuple, table["rows"]))) if table else None,
        "scatter": tuple(
            Scatter(name=each["name"], true=tuple(each["true"]), predicted=tuple(each["predicted"]))
            for each in (details.get("scatter", ()) if is_shown else ())
        ),
        "shown": tuple(
            Shown(
                words=each.get("words", ""),
                pictures=tuple((name, picture) for name, picture in each.get("pictures", ())),
                cells=tuple((name, text) for name, text in each.get("cells", ())),
            )
            for each in (details.get("shown", ()) if is_shown else ())
        ),
    }


def _training(study: Study) -> TrainingSummary | None:
    output = study.current("train")
    if output is None:
        return None
    metric = _own_metric(study)
    epochs = study.config.train.recipe.epochs
    networks = tuple(_trained(row, metric.name, epochs) for row in output["networks"])
    winner = output["networks"][0]
    return TrainingSummary(
        networks=networks,
        metric=metric,
        num_test_examples=winner["num_test_examples"],
        output_names=tuple(winner["output_names"]),
        recipe=study.config.train.recipe.applied_to(study.scorer.workload).in_words,
        device=winner["device"],
        diverged=tuple(f"{row['role']} {row['genotype']}: {row['message']}" for row in output.get("diverged", ())),
        remarks=tuple(f"{trained_name(row['role'])}: {row['text']}" for row in output.get("remarks", ())),
        as_given=as_given(study).get(metric.name),
    )


def _trained(row: Mapping[str, Any], metric: str, epochs: float) -> TrainedNetwork:
    """A row of the training's output; ``epochs`` are the recipe's, of which an early stop leaves some out."""
    repeats = row.get("repeats", [])
    every, epochs = [row, *repeats], epochs + row.get("more_epochs", 0.0)
    test, validation = ([each["metrics"][split][metric] for each in every] for split in ("test", "validation"))
    return TrainedNetwork(
        role=row["role"],
        genotype=row["genotype"],
        test=statistics.fmean(test),
        validation=statistics.fmean(validation),
        costs=row["costs"],
        measured=row.get("measured", {}),
        curve=_curve(row, metric, epochs),
        wall_s=sum(each["wall_s"] for each in every),
        seed=row["seed"],
        tests=tuple(SeedValue(seed=each["seed"], value=value) for each, value in zip(every, test, strict=True))
        if repeats
        else (),
        curves=tuple(_curve(each, metric, epochs) for each in repeats),
        num_epochs=min(len(row["history"]), epochs),
        more_epochs=row.get("more_epochs", 0.0),
        examples_per_s=row.get("examples_per_s"),
        **_details(row.get("details", {}), is_shown=row["role"] == "winner"),
    )


def _curve(row: Mapping[str, Any], metric: str, epochs: float) -> tuple[CurvePoint, ...]:
    """A point after each epoch, of ``epochs`` the last of which may be a part of one."""
    return tuple(
        CurvePoint(epoch=min(at["epoch"], epochs), train_loss=at.get("loss"), validation=at.get(f"validation_{metric}"))
        for at in row["history"]
    )
