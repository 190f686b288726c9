"""The report as one self-contained HTML page: no request leaves it, and it reads without JavaScript.

``page_context`` turns a summary into strings and rows; ``page.html`` only
arranges them. Everything is escaped by the template engine; the only markup
made here is none.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_core.records.resources import combine_of
from nas_core.report import story
from nas_core.report.figures import FIGURES, save_figures
from nas_core.report.strip import NO_OP_KIND, Strip, strips
from nas_core.report.style import THEMES, ThemeName
from nas_core.report.summary import ResourceAdditivity, StudySummary
from nas_core.report.tables import (
    alternatives_table,
    block_table,
    classes_table,
    comparison_table,
    evaluated_table,
    instead_table,
    outputs_table,
    prices_table,
    provenance_table,
    rounds_table,
    shown_table,
    swaps_table,
    sweep_table,
    whole_table,
)
from nas_core.report.text import (
    compared_by,
    format_amount,
    format_count,
    format_metric,
    format_percent,
    metric_label,
    resource_name,
    short_genotype,
    shown_resources,
    sweep_notes,
)
from nas_core.study.stages import REPORT, SUMMARY

HERE = Path(__file__).parent
MAX_FIGURE_BYTES = 3_500_000  # of all figures of a page, as PNG files: in it they take a third more
LARGE_FIGURE_BYTES = 200_000  # what is smaller always finds its place
INLINE = ("network",)  # figures that the page draws as SVG


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """A number a reader looks for first. ``share`` in [0, 1] is drawn as a bar."""

    label: str
    value: str
    note: str
    share: float | None = None
    exceeded: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureBlock:
    """A figure with how to read it and where its numbers come from, or the command that makes it."""

    name: str
    title: str
    paragraphs: tuple[str, ...]
    source: str
    images: Mapping[str, str]  # theme -> data URI; empty if the stage has not run
    beside: str = ""  # the figure's file, where it is too large for the page
    command: str
    narrow: bool = False

    @property
    def is_drawn(self) -> bool:
        return bool(self.images or self.beside)


Drawn = Mapping[ThemeName, Mapping[str, bytes]]  # theme -> figure -> PNG


def report_files(summary: StudySummary) -> dict[str, bytes]:
    """Everything a report consists of, by relative path: the page, ``report.json`` and ``figures/*.png``."""
    drawn = draw(summary)
    data = json.dumps(summary.to_dict(), allow_nan=False, indent=1)
    figures = {f"figures/{name}.png": png for name, png in drawn["light"].items()}
    return {REPORT: render_page(summary, drawn).encode(), SUMMARY: data.encode(), **figures}


def write_report(summary: StudySummary, folder: Path) -> Path:
    """Writes the files of a report, each whole or not at all, and returns the page's path."""
    for name, content in report_files(summary).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(content)
        temporary.replace(path)
    return folder / REPORT


def draw(summary: StudySummary) -> Drawn:
    """Every figure whose stage has run, in both themes."""
    return {theme: save_figures(summary, theme=theme) for theme in THEMES}


def render_page(summary: StudySummary, drawn: Drawn | None = None) -> str:
    """The page as text; ``drawn`` saves drawing the figures again."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    context = page_context(summary, draw(summary) if drawn is None else drawn)
    return environment.get_template("page.html").render(context)


def page_context(summary: StudySummary, drawn: Drawn) -> dict[str, Any]:
    """All the template needs, by name."""
    return {
        "css": _style_sheet(),
        "summary": summary,
        "base": short_genotype(summary.base),
        "headline": story.headline(summary),
        "answer": story.answer(summary),
        "tiles": tiles(summary),
        "comparison": comparison_table(summary),
        "comparison_source": story.training_source(summary),
        "peaks": ", ".join(resource_name(name) for name in shown_resources(summary) if combine_of(name) == "max"),
        "strips": _drawn_strips(summary),
        "blocks": block_table(summary),
        "figures": {block.name: block for block in figure_blocks(summary, drawn)},
        "proof": story.proof(summary),
        "classes": classes_table(summary),
        "outputs": outputs_table(summary),
        "shown": shown_table(summary),
        "alternatives": alternatives_table(summary),
        "instead": instead_table(summary),
        "better_swaps": story.better_swaps(summary),
        "swaps": swaps_table(summary),
        "prices": prices_table(summary),
        "sweep": sweep_table(summary),
        "sweep_notes": sweep_notes(summary) if summary.sweep is not None else [],
        "sweep_is_measured": summary.sweep is not None
        and any(each.resource == summary.sweep.resource for each in summary.whole),
        "rounds": rounds_table(summary),
        "evaluated": evaluated_table(summary),
        "provenance": provenance_table(summary),
        "glossary": GLOSSARY,
        "metric": metric_label(summary.scorer.metric, summary.scorer.split),
        "made": _made(summary),
        "whole": whole_table(summary),
        "whole_source": story.whole_source(summary),
        "pace": story.pace(summary),
        "frontier_note": _frontier_note(summary),
    }


def _made(summary: StudySummary) -> str:
    """When the report was made, by which version."""
    known = summary.provenance
    when = f" on {known.created[:16].replace('T', ' ')} UTC" if known.created else ""
    return f"made{when} by mathnas {known.code_version}"


def _frontier_note(summary: StudySummary) -> str:
    cut = [resource_name(front.resource) for front in summary.frontiers if not front.complete]
    return f"Of {', '.join(cut)} only a part of the frontier is shown: the time for it ran out." if cut else ""


def _style_sheet() -> str:
    """page.css with the figures' colours as variables, so that page and figures agree."""
    import markupsafe

    parts = []
    for name, theme in THEMES.items():
        colours = {
            "paper": theme.paper,
            "ink": theme.ink,
            "faint": theme.faint,
            "rule": theme.rule,
            "winner": theme.winner,
            "frontier": theme.frontier,
            "no-op": theme.no_op,
            **{f"kind{index}": colour for index, colour in enumerate(theme.kinds)},
        }
        rules = ":root{" + "".join(f"--{key}:{colour};" for key, colour in colours.items()) + "}"
        parts.append(rules if name == "light" else f"@media (prefers-color-scheme: dark){{{rules}}}")
    # Both are this package's own files; no user's text is in them.
    return markupsafe.Markup("\n".join([*parts, (HERE / "page.css").read_text(encoding="utf-8")]))


# --- numbers first -------------------------------------------------------------


def tiles(summary: StudySummary) -> list[Tile]:
    """The chosen network's metric and costs, what is proven, what it took."""
    return [*_metric_tile(summary), *_limit_tiles(summary), *_proof_tile(summary), *_effort_tile(summary)]


def _metric_tile(summary: StudySummary) -> list[Tile]:
    winner = summary.winner
    if winner is None:
        return []
    trained = next(iter(summary.trained("winner")), None)
    if trained is not None and trained.test is not None:
        value = format_metric(summary.metric, trained.test)
        many = len(trained.tests)
        note = f"mean of {many} trainings" if many > 1 else "measured once, after training"
        return [Tile(label=f"chosen: {compared_by(summary)}", value=value, note=note)]
    metric = summary.scorer.metric
    label = metric_label(metric, summary.scorer.split)
    evaluated, selected = summary.evaluated(winner), summary.selected(winner)
    if evaluated is not None:
        return [
            Tile(
                label=f"chosen: {label}",
                value=format_metric(metric, evaluated.metric),
                note=f"by the {summary.scorer.kind} scorer, the best evaluated",
            )
        ]
    if selected is not None:
        note = "predicted, not yet evaluated"
        return [Tile(label=f"chosen: {label}", value=format_metric(metric, selected.predicted), note=note)]
    return []


def _limit_tiles(summary: StudySummary) -> list[Tile]:
    if summary.winner is None:
        return []
    costs, found = summary.costs_of(summary.winner), []
    for limit in summary.limits:
        cost = costs.get(limit.resource)
        if cost is None or limit.at_most is None:
            continue
        share = cost / limit.at_most if limit.at_most else 1.0
        whole = story.whole_in_words(summary, summary.winner, limit)
        beside = f"; {whole}" if whole else ""
        is_asked = summary.limit_whole(limit).at_most == limit.at_most
        most = f"{'the limit, ' if is_asked else ''}{format_amount(limit.resource, limit.at_most)}"
        held = "" if is_asked else ", which sums over blocks are held to"
        found.append(
            Tile(
                label=resource_name(limit.resource),
                value=format_amount(limit.resource, cost),
                note=f"{format_percent(share)} of {most}{held}{beside}",
                share=min(share, 1.0),
                exceeded=not limit.is_kept_by(cost),
            )
        )
    return found


def _proof_tile(summary: StudySummary) -> list[Tile]:
    """What is proven, of which network, and what speaks against it."""
    selection, outcome = summary.selection, summary.outcome
    if selection is None:
        return []
    if outcome is None:
        return [Tile(label="selection", value=selection.status, note=selection.sentence)]
    proven = "proven" if outcome.proven else "not proven"
    gap = "" if outcome.proven or selection.gap is None else f"Gap {selection.gap:.2g}."
    also = "the chosen one" if outcome.best_predicted == outcome.chosen else "not the chosen one"
    note = f"{short_genotype(outcome.best_predicted)}, {also}. {gap} {' '.join(outcome.cautions)}"
    value = format_metric(summary.scorer.metric, outcome.predicted)
    return [Tile(label=f"best predicted, {proven}", value=value, note=" ".join(note.split()))]


def _effort_tile(summary: StudySummary) -> list[Tile]:
    of_all = format_count(summary.space.num_networks)
    return [Tile(label="networks evaluated", value=format_count(summary.num_evaluated), note=f"of {of_all}")]


# --- figures -------------------------------------------------------------------


def figure_blocks(summary: StudySummary, drawn: Drawn) -> list[FigureBlock]:
    """Every figure with its words; those whose stage has not run name the command instead."""
    fitting = _fitting(drawn)
    return [_figure_block(summary, name, fitting, is_drawn=name in drawn.get("light", {})) for name in FIGURES]


def _fitting(drawn: Drawn) -> Drawn:
    """The figures that a page holds: where all are too many, large ones have one theme only, then none."""
    kept = {theme: {name: png for name, png in images.items() if name not in INLINE} for theme, images in drawn.items()}
    for theme in sorted(kept, key="light".__eq__):  # which is shown in the dark, too, comes last
        for name in sorted(kept[theme], key=lambda name: -len(drawn[theme][name])):
            too_many = sum(len(png) for images in kept.values() for png in images.values()) > MAX_FIGURE_BYTES
            if too_many and len(kept[theme][name]) > LARGE_FIGURE_BYTES:
                del kept[theme][name]
    return kept


def _trust(summary: StudySummary) -> str:
    verdict = story.calibration_verdict(summary.calibration) if summary.calibration is not None else ""
    return " ".join(filter(None, (verdict, story.wild_predictions(summary))))


def _figure_block(summary: StudySummary, name: str, drawn: Drawn, *, is_drawn: bool) -> FigureBlock:
    title, reading, command, narrow = WORDS[name]
    reading = _reading(summary, name, reading)
    verdicts = {
        "calibration": _trust(summary),
        "block_effects": summary.block_effects.sentence if summary.block_effects is not None else "",
        "additivity": _additivity(summary),
    }
    sources = {
        "additivity": story.additivity_source(summary),
        "training": story.curves_source(summary),
        "comparison": story.training_source(summary),
        "confusion": story.training_source(summary, first=True),
        "scatter": story.training_source(summary, first=True),
        "shown": story.training_source(summary, first=True),
        "study_cost": "; ".join(filter(None, ("wall-clock times of this study's stages", summary.device))),
        "network": story.metric_source(summary),
    }
    images: dict[str, str] = {theme: _data_uri(pngs[name]) for theme, pngs in drawn.items() if name in pngs}
    return FigureBlock(
        name=name,
        title=title,
        paragraphs=tuple(text for text in (verdicts.get(name, ""), reading) if text),
        source=sources.get(name) or story.metric_source(summary),
        images=images,
        beside=f"figures/{name}.png" if is_drawn and not images and name not in INLINE else "",
        command=command,
        narrow=narrow,
    )


def _reading(summary: StudySummary, name: str, words: str) -> str:
    """How to read a figure, with the metric's name and direction where they matter."""
    if name == "training":
        label = metric_label(summary.metric, "validation")
        words = words.format(metric=label[:1].upper() + label[1:])
    if name == "block_effects" and not summary.scorer.metric.higher_is_better:
        words += " Lower values of the metric are better; effects are turned, so that a positive one is an improvement."
    if name == "block_effects" and summary.block_effects is not None and not summary.block_effects.adds_up:
        words += (
            " By this fit effects of single blocks do not add up: what the chosen blocks do together is not their sum."
        )
    if name == "frontier" and not summary.scorer.metric.higher_is_better:
        words += " Lower is better here: the steps go down as the limit is raised."
    return words


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _additivity(summary: StudySummary) -> str:
    """How far the sums of every measured resource can be trusted."""
    return " ".join(_additivity_of(each) for each in summary.additivity)


def _additivity_of(result: ResourceAdditivity) -> str:
    used = (
        f"The program goes by what was fitted to them: {result.correction}."
        if result.is_corrected
        else "No straight line through them does better, so sums are taken as they are."
    )
    return f"On {len(result.pairs)} whole networks, {_agreement_of(result)}. {used}"


def _agreement_of(result: ResourceAdditivity) -> str:
    name = resource_name(result.resource)
    if result.r2 is not None and result.r2 < 0:
        return _all_off(name, [pair.summed / pair.measured for pair in result.pairs])
    parts = []
    if result.r2 is not None and math.isfinite(result.r2):
        parts.append(f"the sum over blocks explains {format_percent(result.r2)} of the variance of {name}")
    if result.worst_relative_error is not None:
        parts.append(f"the worst error is {format_percent(result.worst_relative_error, 1)}")
    return " and ".join(parts)


def _all_off(name: str, ratios: Sequence[float]) -> str:
    """Of sums that are further from what was measured than networks are from each other: how far, and by one factor."""
    least, most = (format_percent(abs(ratio - 1), 1) for ratio in sorted((min(ratios), max(ratios))))
    further = "which is further off than networks are from each other"
    if min(ratios) < 1 < max(ratios):
        return f"sums of {name} are between {least} less and {most} more than what was measured, {further}"
    factor, way = sum(ratios) / len(ratios), "more" if max(ratios) > 1 else "less"
    rest = format_percent(max(abs(ratio / factor - 1) for ratio in ratios), 1)
    ends = f"{least} to {most}" if way == "more" else f"{most} to {least}"
    said = f"sums of {name} are {ends} {way} than what was measured, {further}"
    return f"{said}; divided by {factor:.3f}, they are within {rest}"


def _drawn_strips(summary: StudySummary) -> list[dict[str, Any]]:
    """Chosen and base network, each with its title and the colours it uses."""
    if summary.winner is None:
        return []
    names = [summary.winner] if summary.winner == summary.base else [summary.winner, summary.base]
    drawn = strips(summary, names)
    titles = ("Chosen network", "Base network")
    return [
        {
            "title": title,
            "genotype": short_genotype(strip.genotype, 61),
            "strip": strip,
            "legend": _legend(strip),
            "resource": resource_name(strip.resource or ""),
        }
        for title, strip in zip(titles, drawn, strict=False)
    ]


def _legend(strip: Strip) -> list[tuple[int, str]]:
    used = sorted({block.kind for block in strip.blocks})
    return [(kind, "identity or absent" if kind == NO_OP_KIND else strip.kinds[kind]) for kind in used]


WORDS: dict[str, tuple[str, str, str, bool]] = {
    # name: title, how to read it, command that makes it, whether the figure is narrow
    "network": ("The network", "", "mathnas select", False),
    "block_effects": (
        "What each block does",
        "Each column is a position of the network, each row a block that can stand there. The number is what happens "
        "to the metric when this block replaces the base network's block at that position alone: blue helps, orange "
        "hurts. Framed cells joined by a line are the chosen network. The chosen path need not pass through the best "
        "cell of every column, because the blocks also have costs.",
        "mathnas score",
        False,
    ),
    "ladder": (
        "Why these blocks",
        "Each position has a rung for every block that can stand there, as high as the block costs. Pink rungs joined "
        "by a line are the chosen network. The colour of another rung, and the number beside it, is what the predicted "
        "metric would change if that block alone took the chosen one's place: blue would help, orange would hurt. "
        "Dotted rungs would break a limit or rule.",
        "mathnas select",
        False,
    ),
    "sweep": (
        "One study, many limits",
        "Every point is the best network at its limit, solved from the same evaluations and costs. Diamonds are "
        "predictions, at the sum of the blocks' costs, with their intervals; dots are the same networks as they were "
        "evaluated and measured whole. On the right those that were trained, if any: alike, as all are.",
        "mathnas run",
        False,
    ),
    "calibration": (
        "Can the predictions be trusted?",
        "Each point is a network that was really evaluated. On the dashed line, prediction and evaluation agree. "
        "Only the held-out networks (squares) test the predictor: it is not fitted to them. Horizontal bars are the "
        "predictor's own intervals; the share inside counts each of them by the interval that the others alone make. "
        "τ and ρ are 1 when the order is right throughout, 0 when it is chance.",
        "mathnas score",
        True,
    ),
    "frontier": (
        "The selection, and what the limits cost",
        "Left of the dashed line is within the limit. The green steps show the best predicted value attainable at "
        "each amount of the resource; the dots are networks that were really evaluated, so they may lie off the "
        "predicted steps. Each panel looks at one resource; the chosen network has to keep within all limits at once.",
        "mathnas select",
        False,
    ),
    "additivity": (
        "Do measured costs add up?",
        "The program adds what single blocks take. Here whole networks were measured too. On the dashed line, "
        "the sum is exact; points below it take less than the sum says.",
        "mathnas profile",
        True,
    ),
    "comparison": (
        "Beside others, trained alike",
        "The base is as it is, the others were found within the limits. Left what each attains on the test split, "
        "right what it takes, measured whole in turns with the others where that was done; dashed is the limit.",
        "mathnas train",
        False,
    ),
    "training": (
        "Training",
        "{metric} and training loss after each epoch. All networks were trained by the same recipe.",
        "mathnas train",
        False,
    ),
    "confusion": (
        "Class by class",
        "Each row is a class, its test examples spread over what the chosen network took them for; on the diagonal it "
        "was right.",
        "mathnas train",
        True,
    ),
    "scatter": (
        "Predicted and true",
        "Each dot is a test example: the number as it is, and as the chosen network predicted it. On the dashed line "
        "it was right.",
        "mathnas train",
        True,
    ),
    "shown": (
        "Test examples",
        "Examples of the test split, evenly spread over it and not picked by how well they went, with what the chosen "
        "network made of them.",
        "mathnas train",
        False,
    ),
    "study_cost": (
        "What the study cost",
        "Networks handled and wall time by stage. Results found in the store are not computed again.",
        "mathnas run",
        False,
    ),
}

GLOSSARY: tuple[tuple[str, str], ...] = (
    ("block", "a piece of the network, such as a convolution with its normalisation; one stands at each position"),
    ("genotype", "the network written as one number per position: which of the blocks there it takes"),
    ("base network", "the network that others are compared with; blocks are swapped into it one at a time"),
    ("scorer", "what rates a network without training it fully, so that many can be compared"),
    ("block effect", "what taking a block instead of the base network's block does to the metric"),
    ("prediction", "the metric expected of a network from the effects of its blocks; it costs no evaluation"),
    (
        "held-out network",
        "evaluated to test the predictor (or to choose its settings, where others cannot), not to fit it",
    ),
    ("Kendall τ", "agreement of two orders: the share of pairs in the same order minus the share in opposite order"),
    ("Spearman ρ", "correlation of two rankings; 1 is the same order"),
    ("interval", "the range in which the predictor expects the true metric"),
    ("limit", "a bound on a resource of the whole network, such as latency on one device"),
    ("multiply-adds", "multiplications with additions that one input takes in convolutions and linear layers"),
    ("frontier", "the best predicted networks over a range of limits"),
    ("bound and gap", "the best value any network could still have by the proof, and its distance to the one found"),
    (
        "verification",
        "the best predicted networks are really evaluated, the predictor is refitted, and the program "
        "is solved again until the choice stands",
    ),
    ("validation and test", "validation examples guide the study; test examples are used once, for the final numbers"),
)
