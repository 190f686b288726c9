"""What MLflow's pages say of a run and of a model, in Markdown: the figures people look for, and where the rest is."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nas_core.base.errors import without_passwords
from nas_core.records.resources import resource_of, units
from nas_core.report.text import (
    format_amount,
    format_metric,
    format_quantity,
    metric_label,
    outcome_lines,
    resource_name,
)
from nas_core.study.analytic_project import DesignProject
from nas_core.study.brought import trained_metric
from nas_core.study.stages import REPORT, run_again
from nas_core.study.study import Study

MOST_NAMES = 100  # of classes in a text; all of them are in the tag, as far as it takes them
MOST_TAG_LETTERS = 5000  # MLflow's own limit


def describe_study(study: Study, report_link: str) -> str:
    """The study's run: winner and base with metric and costs, limits, how many were evaluated, the report."""
    training = (study.current("train") or {"networks": []})["networks"]
    limits = ", ".join(f"`{limit}`" for limit in study.config.select.limits) or "none"
    rows = study.evaluations()
    failed = sum(row.status == "failed" for row in rows)
    outcome = study.outcome()
    found = outcome_lines(outcome, study.scorer.measure) if outcome else []
    lines = [
        (f"**Winner** `{study.winner}`" if study.winner else "No winner yet") + f", [{REPORT}]({report_link})",
        _table(study, training),
        *_sums(study, training),
        *(f"- {line}" for line in found),
        f"- limits: {limits}",
        f"- evaluated: {len(rows)} of {study.space.num_networks:,} networks, {failed} failed",
        f"- scorer `{study.config.scorer.kind}`, data `{study.config.data.kind}`, space `{study.space.name}`",
        f"- report: {without_passwords(study.store.uri(REPORT))}",
        f"- the same study again: `{run_again(without_passwords(study.store.root))}`",
    ]
    return "\n".join(line for line in lines if line)


def measured_whole(study: Study, genotype: str) -> dict[str, float]:
    """What the network takes as it was measured whole, by resource; nothing of one that was not."""
    rows = (study.current("verify") or {}).get("whole") or ()
    return {row["resource"]: row["value"] for row in rows if row["genotype"] == genotype and row["status"] == "ok"}


def _is_sum(resource: str) -> bool:
    """Whether a network's total of it is less than a measurement of the whole: the sum of its blocks' measurements."""
    return resource in units() and resource_of(resource).measured


def _sums(study: Study, training: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which columns of the table are sums, and what the winner takes whole."""
    whole = measured_whole(study, study.winner or "")
    lines = []
    for name in filter(_is_sum, training[0]["costs"] if training else ()):
        winners = f"; measured whole, the winner takes {format_quantity(name, whole[name])}" if name in whole else ""
        lines.append(f"- {resource_name(name)}: sums over blocks{winners}")
    return lines


def describe_design(project: DesignProject) -> str:
    """The design's run: what the program proves, the trained network."""
    answer, row = project.answer or {}, project.training
    lines = [
        f"**{answer['objective']} {answer['score']:,.2f}**, bound {answer['bound']:,.2f} ({answer['bound_kind']}), "
        f"gap {100 * answer['gap']:.3f} %, {answer['cpu_s']:.1f} CPU s",
        f"- FLOPs {answer['flops']:,}, parameters {answer['params']:,}, rho {answer['rho']:.4f}",
    ]
    if row is not None:
        lines.append(f"- trained: {', '.join(_metrics(row))} ({row['num_test_examples']:,} examples)")
    return "\n".join(lines)


def describe_model(name: str, row: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The registered model: what it rates at, what it takes, what it gives, how to load it.

    ``row`` is of a trained network, ``given`` the input that its architecture states.
    """
    names = list(row["output_names"])
    shown = ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
    costs = ", ".join(
        format_quantity(key, value) + (" (sum over blocks)" if _is_sum(key) else "")
        for key, value in row["costs"].items()
    )
    whole = ", ".join(format_quantity(key, value) for key, value in row.get("measured", {}).items())
    return "\n".join(
        [
            f"Network `{row['genotype']}`: {', '.join(_metrics(row))} "
            f"({row['num_test_examples']:,} test examples, seed {row['seed']}).",
            f"- costs: {costs}" if costs else "- costs: not counted",
            *([f"- measured whole: {whole}"] if whole else []),
            f"- input: N x {' x '.join(map(str, given['shape']))}, {given['values']}",
            f"- preprocessing: inside the model; {_preprocessing(given)}",
            f"- outputs, by number: {shown or 'without names'}",
            f"- trained on {row['num_train_examples']:,} examples in {row['wall_s']:.0f} s on {row['device']}",
            "",
            f'```python\nmodel = mlflow.pytorch.load_model("models:/{name}@ALIAS")\n```',
        ]
    )


def input_of_model(given: Mapping[str, Any]) -> dict[str, Any]:
    """The input that a trained network's architecture states, as MLflow's own export takes it: images of one size."""
    if len(given["shape"]) != 3:
        return dict(given)
    units = "in the data's own units" if given.get("own_units") else "in [0, 1]"
    return {**given, "values": f"images of this size as floats {units}"}


def tags_of_model(row: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """What a program asks of the model: its outputs' names, what its input has to be, its metrics."""
    tested = {f"mathnas.test_{key}": f"{value:.6g}" for key, value in row["metrics"]["test"].items()}
    facts = {
        "mathnas.genotype": row["genotype"],
        "mathnas.class_names": json.dumps(list(row["output_names"]), ensure_ascii=False),
        "mathnas.preprocessing": json.dumps(dict(given), ensure_ascii=False),
        **tested,
    }
    return {key: value for key, value in facts.items() if len(value) <= MOST_TAG_LETTERS}


def _table(study: Study, training: Sequence[Mapping[str, Any]]) -> str:
    """The trained networks beside one another; where none is trained, what the winner was evaluated at."""
    if not training:
        rated = next((row for row in study.evaluations() if row.genotype == study.winner), None)
        known = rated is not None and rated.metric is not None
        return f"evaluated: {rated.metric_name.replace('_', ' ')} {rated.metric:.4f}" if rated and known else ""
    own = trained_metric(study.config)
    resources = list(training[0]["costs"])
    head = ["network", metric_label(own, "test"), *map(resource_name, resources)]
    lines = [_table_row(head), _table_row(["---"] * len(head))]
    for row in training:
        value = format_metric(own, row["metrics"]["test"][own.name])
        costs = [format_amount(name, row["costs"].get(name)) for name in resources]
        lines.append(_table_row([f"{row['name']} `{row['genotype']}`", value, *costs]))
    return "\n" + "\n".join(lines) + "\n"


def _table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _metrics(row: Mapping[str, Any]) -> list[str]:
    """The metrics on test, the one that it is compared by first."""
    tested, own = row["metrics"]["test"], row["metric_name"]
    names = sorted(tested, key=lambda name: name != own)
    return [f"test {name.replace('_', ' ')} {tested[name]:.4f}" for name in names]


def _preprocessing(given: Mapping[str, Any]) -> str:
    words = {
        key: value for key, value in given.items() if key not in ("shape", "values") and value not in ([], None, "")
    }
    return ", ".join(f"{key.replace('_', ' ')} {_short(value)}" for key, value in words.items()) or "none"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return str(value)
