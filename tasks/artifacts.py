"""What a stage leaves on Prefect's page when it ends: its table, its figure, links. Never a reason to fail.

Figures are embedded in markdown, so the page shows them; nothing is drawn where
nobody can look, which is what ``NO_PAGE`` says of the embedded server.
"""

import base64
import logging
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas_core.costs.profiler import ANY_DEVICE
from nas_core.records.evaluations import Evaluation
from nas_core.report.text import format_amount, format_metric, metric_label, outcome_lines, resource_name
from nas_core.study.analytic_project import DesignProject
from nas_core.study.brought import trained_metric
from nas_core.study.stages import FIGURES, REPORT, TRACKING, Stage
from nas_core.study.study import Study
from tasks.embedded_tracking import address
from tasks.environment import NO_PAGE

log = logging.getLogger(__name__)

FIGURES_OF: dict[Stage, tuple[str, ...]] = {
    "profile": ("additivity",),
    "score": ("block_effects",),
    "select": ("network", "frontier"),
    "verify": ("calibration",),
    "train": ("training", "confusion"),
}
SECTIONS_OF = {  # figure -> what of the report's summary it shows
    "additivity": ("additivity",),
    "block_effects": ("block_effects", "selection", "verification"),
    "network": ("selection", "verification", "networks", "cost_tables", "base_costs", "limits"),
    "frontier": ("selection", "verification", "networks", "cost_tables", "base_costs", "limits", "frontiers"),
    "calibration": ("selection", "verification", "networks", "calibration"),
    "training": ("training",),
    "confusion": ("training", "selection"),
}
MOST_ROWS = 50


@contextmanager
def asked_once() -> Iterator[None]:
    """Prefect's client asks a server that is away for over a minute; the page is not worth that."""
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield


def show_stage(study: Study, stage: Stage) -> None:
    """Publish the stage's table, figures and links in the present flow run."""
    if os.environ.get(NO_PAGE):
        return
    try:
        with asked_once():
            _publish_table(study, stage)
            _publish_figures(study, stage)
            if stage == "report":
                _publish_links(study)
    except Exception as error:  # the page may be away, or the study too young for a figure; the work is stored
        log.warning("artifacts of stage %s not shown: %s", stage, error)


def show_design(project: DesignProject) -> None:
    """Publish a design's structure, what its program proves and its figures in the present flow run."""
    if os.environ.get(NO_PAGE):
        return
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    answer, name = project.answer, project.config.name
    assert answer is not None
    rows = [{key: "" if value is None else value for key, value in row.items()} for row in answer["structure"]]
    words = (
        f"Design {name}: score {answer['score']:,.2f} ({answer['objective']}), bound {answer['bound']:,.2f} "
        f"({answer['bound_kind']}), gap {100 * answer['gap']:.3f} %, FLOPs {answer['flops']:,}, "
        f"parameters {answer['params']:,}, rho {answer['rho']:.4f}, {answer['cpu_s']:.1f} CPU s"
    )
    try:
        with asked_once():
            create_table_artifact(table=rows, key=_key(project, "structure"), description=words)
            blocks = [f"![{stem}]({_data_uri(png)})" for stem, png in _stored_figures(project).items()]
            create_markdown_artifact("\n\n".join(blocks), key=_key(project, "figures"), description=f"Design {name}")
    except Exception as error:  # the page may be away; the work is stored
        log.warning("artifacts of design %s not shown: %s", name, error)


def _key(study: Study | DesignProject, *words: str) -> str:
    """Prefect allows small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join((study.config.name, *words)).lower()).strip("-")


def _publish_table(study: Study, stage: Stage) -> None:
    from prefect.artifacts import create_table_artifact

    rows = TABLES[stage](study)
    if rows:
        described = "\n\n".join([_table_words(study, stage, len(rows)), *outcome_words(study, stage)])
        create_table_artifact(table=rows[:MOST_ROWS], key=_key(study, stage), description=described)


def _table_words(study: Study, stage: Stage, num_rows: int) -> str:
    words = f"Study {study.config.name}, stage {stage}"
    return f"{words}: the first {MOST_ROWS} of {num_rows} rows" if num_rows > MOST_ROWS else words


def outcome_words(study: Study, stage: Stage) -> list[str]:
    """What is predicted best, what was chosen and why, from the stage that first says it."""
    if stage not in ("select", "verify", "report"):
        return []
    outcome = study.outcome()
    return [] if outcome is None else outcome_lines(outcome, study.scorer.measure)


def _publish_figures(study: Study, stage: Stage) -> None:
    from prefect.artifacts import create_markdown_artifact

    images = _stored_figures(study) if stage == "report" else _drawn_figures(study, FIGURES_OF[stage])
    if images:
        from nas_core.report.page import WORDS

        blocks = [f"## {WORDS[name][0]}\n\n![{name}]({_data_uri(png)})" for name, png in images.items()]
        key, words = _key(study, stage, "figures"), f"Study {study.config.name}, stage {stage}: figures"
        create_markdown_artifact("\n\n".join(blocks), key=key, description=words)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _stored_figures(study: Study | DesignProject) -> dict[str, bytes]:
    paths = [path for path in study.store.paths(FIGURES) if path.endswith(".png")]
    return {Path(path).stem: study.store.read_bytes(path) for path in paths}


def _drawn_figures(study: Study, names: Sequence[str]) -> dict[str, bytes]:
    from nas_core.report.collect import summarise
    from nas_core.report.drawing.canvas import NotYetRunError
    from nas_core.report.figures import render

    images: dict[str, bytes] = {}
    summary = summarise(study, {section for name in names for section in SECTIONS_OF[name]})
    for name in names:
        try:
            images[name] = render(summary, name)
        except NotYetRunError:
            continue
    return images


def _publish_links(study: Study) -> None:
    from prefect.artifacts import create_link_artifact, create_markdown_artifact

    page = study.store.uri(REPORT)
    lines = [f"The report, one self-contained page: `{page}`"]
    runs = study.output(TRACKING) or {}
    if str(runs.get("uri", "")).startswith("http"):
        link = f"{runs['uri']}/{runs['run_page']}"
        create_link_artifact(link, link_text="MLflow run", key=_key(study, "mlflow"), description="The study's run")
        lines.append(f"The MLflow run: [{runs['runs']['study']}]({link})")
    elif runs:
        page_there = f"http://127.0.0.1:5000/{runs['run_page']}"
        command = f"mlflow ui --backend-store-uri {shlex.quote(address(study.store, runs))}"
        lines.append(f"MLflow's pages: `{command}`, then {page_there}")
    if study.store.is_local:
        create_link_artifact(
            Path(page).as_uri(), link_text="report.html", key=_key(study, "report-link"), description="The report"
        )
    create_markdown_artifact("\n\n".join(lines), key=_key(study, "links"), description="Where the results are")


# one table per stage


def _profile_rows(study: Study) -> list[dict[str, Any]]:
    rows = []
    for resource in study.profiler_ids:
        values = [row.value for row in study.costs(resource) if row.status == "ok" and row.position >= 0]
        if values:
            least, most = min(map(float, values)), max(map(float, values))  # type: ignore[arg-type]
            device = study.costs(resource)[0].device
            rows.append(
                {
                    "resource": resource_name(resource),
                    "blocks": len(values),
                    "least": format_amount(resource, least),
                    "most": format_amount(resource, most),
                    "measured on": "" if device == ANY_DEVICE else device,
                }
            )
    return rows


def _score_rows(study: Study) -> list[dict[str, Any]]:
    def best_first(row: Evaluation) -> tuple[bool, float]:
        return row.metric is None, (row.metric or 0.0) * (-1 if row.higher_is_better else 1)

    done = sorted(study.evaluations(), key=best_first)
    return [
        {
            "network": row.genotype,
            row.metric_name: _rounded(row.metric),
            "split": row.split,
            "seconds": round(row.wall_s, 3),
            "failed": row.message,
        }
        for row in done
    ]


def _select_rows(study: Study) -> list[dict[str, Any]]:
    chosen = (study.current("select") or {"selections": []})["selections"]
    return [
        {"rank": rank, "network": row["genotype"], "predicted": _rounded(row["predicted"]), **_costs(row["costs"])}
        for rank, row in enumerate(chosen, start=1)
    ]


def _verify_rows(study: Study) -> list[dict[str, Any]]:
    rounds = (study.current("verify") or {"rounds": []})["rounds"]
    return [
        {"round": index, "network": network, "predicted": _rounded(predicted), "evaluated": _rounded(measured)}
        for index, row in enumerate(rounds, start=1)
        for network, predicted, measured in zip(
            row["proposed"], row["predicted"], row.get("measured") or [None] * len(row["proposed"]), strict=True
        )
    ]


def _train_rows(study: Study) -> list[dict[str, Any]]:
    networks = (study.current("train") or {"networks": []})["networks"]
    metric = trained_metric(study.config)
    return [
        {
            "name": row["name"],
            "network": row["genotype"],
            metric_label(metric, "test"): format_metric(metric, row["metrics"]["test"][metric.name]),
            **_costs(row["costs"]),
        }
        for row in networks
    ]


def _rounded(metric: float | None) -> float | None:
    """A number that a person compares with others, and not one of 16 digits."""
    return None if metric is None else float(f"{metric:.5g}")


def _costs(costs: Mapping[str, float]) -> dict[str, str]:
    return {resource_name(name): format_amount(name, value) for name, value in costs.items()}


def _report_rows(study: Study) -> list[dict[str, Any]]:
    return [
        {
            "stage": stage,
            "seconds": round(record["wall_s"], 1),
            "evaluated now": record["num_new"],
            "reused": record["num_reused"],
            "failed": record.get("num_failed", 0),
        }
        for stage, record in study.records().items()
    ]


TABLES = {
    "profile": _profile_rows,
    "score": _score_rows,
    "select": _select_rows,
    "verify": _verify_rows,
    "train": _train_rows,
    "report": _report_rows,
}
