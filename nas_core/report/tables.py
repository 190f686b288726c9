"""The report's tables, as text; each is made of a summary, None where there is nothing to list."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nas_core.report.summary import EvaluatedNetwork, Limit, StudySummary, TrainedNetwork
from nas_core.report.text import (
    compared_by,
    compared_networks,
    describe_block,
    format_amount,
    format_count,
    format_duration,
    format_metric,
    format_metric_change,
    format_percent,
    format_tested,
    measured_of,
    measured_resources,
    metric_axis,
    metric_label,
    resource_name,
    short_genotype,
    shown_resources,
    sweep_rows,
    trained_name,
)
from nas_core.space.genotypes import Genotype
from nas_core.study.reasons import Price, Reasons, Swap
from nas_core.workloads.metrics import Measure

FITTED = ("base", "design")  # what networks are evaluated for that the predictor is fitted to
MAX_NETWORK_ROWS = 100
MAX_SWAP_ROWS = 400
MAX_PLACES = 8  # in which two networks differ, listed in a cell
MOST_COLUMNS = 9  # of examples that are rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Headings and rows of text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    foot: tuple[str, ...] = ()
    marked: int | None = None  # row that holds the chosen network
    note: str = ""


def comparison_table(summary: StudySummary) -> Table:
    """The chosen network and what it is compared with: what was measured, and costs, the limits below."""
    resources, whole = shown_resources(summary), measured_resources(summary)
    base_costs = summary.costs_of(summary.base)
    networks = summary.training.networks if summary.training is not None else ()
    trained: dict[tuple[str, str], TrainedNetwork] = {(row.role, row.genotype): row for row in networks}
    own = measured_of(summary, "base", summary.base)
    rows = []
    compared = compared_networks(summary)
    for label, genotype, value in compared:
        row = trained.get((label, genotype))
        costs = summary.costs_of(genotype)
        rows.append(
            (
                "chosen" if label == "winner" else trained_name(label),
                short_genotype(genotype),
                format_tested(summary.metric, row, value),
                *([format_metric(summary.metric, row.validation if row is not None else None)] if networks else []),
                *[_amount_beside(name, costs.get(name), base_costs.get(name)) for name in resources],
                *[
                    _amount_beside(name, measured_of(summary, label, genotype).get(name), own.get(name))
                    for name in whole
                ],
                *([_took(row)] if networks else []),
            )
        )
    limits = _bounds(summary.limits)
    asked = _bounds(summary.limit_whole(limit, own.get(limit.resource)) for limit in summary.limits)
    head = (
        "network",
        "genotype",
        compared_by(summary),
        *([metric_label(summary.metric, "validation")] if networks else []),
        *map(resource_name, resources),
        *(f"{resource_name(name)}, measured whole" for name in whole),
        *(["training took"] if networks else []),
    )
    blank = [""] if networks else []
    foot = (
        (
            "limits",
            "",
            "",
            *blank,
            *(limits.get(name, "–") for name in resources),
            *(asked.get(name, "–") for name in whole),
            *blank,
        )
        if limits
        else ()
    )
    marked = next((index for index, (label, _, _) in enumerate(compared) if label == "winner"), None)
    return Table(head=head, rows=tuple(rows), foot=foot, marked=marked)


def _bounds(limits: Iterable[Limit]) -> dict[str, str]:
    """Resource -> ``≥ 1.2 M, ≤ 3 M``."""
    found: dict[str, str] = {}
    for limit in limits:
        for sign, bound in (("≥", limit.at_least), ("≤", limit.at_most)):
            if bound is not None:
                before = f"{found[limit.resource]}, " if limit.resource in found else ""
                found[limit.resource] = f"{before}{sign} {format_amount(limit.resource, bound)}"
    return found


def _took(row: TrainedNetwork | None) -> str:
    """How long a training took, and how fast its steps were."""
    if row is None:
        return "–"
    rate = f", {row.examples_per_s:,.0f} examples/s" if row.examples_per_s else ""
    many = f" for {len(row.tests)} trainings" if row.tests else ""
    return f"{format_duration(row.wall_s)}{many}{rate}"


def whole_table(summary: StudySummary) -> Table | None:
    """All that was measured whole after the choice, beside the sums that the program goes by."""
    if not summary.whole:
        return None
    points = summary.sweep.points if summary.sweep is not None else ()
    names = {each.genotype: "at another limit" for each in points}
    names |= {summary.base: "base", summary.winner: "chosen"}
    rows = tuple(
        (
            names.get(row.genotype, "finalist"),
            short_genotype(row.genotype),
            resource_name(each.resource),
            format_amount(each.resource, row.measured),
            format_amount(each.resource, 2 * row.spread),
            format_amount(each.resource, row.summed),
            format_percent(row.summed / row.measured - 1, 1, sign="+") if row.measured else "–",
        )
        for each in summary.whole
        for row in each.networks
    )
    head = (
        "network",
        "genotype",
        "resource",
        "measured whole",
        "middle 80 % of runs within",
        "sum of blocks",
        "sum is off by",
    )
    marked = next((index for index, row in enumerate(rows) if row[0] == "chosen"), None)
    return Table(head=head, rows=rows, marked=marked)


def _amount_beside(resource: str, cost: float | None, base: float | None) -> str:
    """An amount, with its share of the base network's."""
    text = format_amount(resource, cost)
    return f"{text} ({format_percent(cost / base)})" if cost is not None and base and cost != base else text


def block_table(summary: StudySummary) -> Table | None:
    """The chosen network block by block, with effects and costs."""
    if summary.winner is None:
        return None
    winner = Genotype.parse(summary.winner)
    rows_of = summary.block_effects.effects if summary.block_effects is not None else ()
    effects = {(row.position, row.choice): row for row in rows_of}
    tables = [t for t in summary.cost_tables if winner.resolution in (None, t.resolution)]
    has_channels = any(position.out_channels for position in summary.space.positions)  # a trained model's say none
    rows = []
    for index, choice in enumerate(winner.choices):
        position = summary.space.positions[index]
        effect = effects.get((index, choice))
        rows.append(
            (
                _position(summary, index),
                str(choice),
                describe_block(position.blocks[choice]),
                *([f"{position.out_channels}, stride {position.stride}"] if has_channels else []),
                format_metric_change(summary.scorer.metric, effect.effect if effect is not None else None),
                *[format_amount(table.resource, table.block[index][choice]) for table in tables],
            )
        )
    turned = "effect" if summary.scorer.metric.higher_is_better else "effect (positive is better)"
    channels = ["channels"] if has_channels else []
    head = ("position", "choice", "block", *channels, turned, *[resource_name(table.resource) for table in tables])
    return Table(head=head, rows=tuple(rows))


def _position(summary: StudySummary, index: int) -> str:
    """A position's number, as in a genotype, and its name: ``3 layer2.0``."""
    return f"{index} {summary.space.positions[index].name}"


def classes_table(summary: StudySummary) -> Table | None:
    """The chosen network on the test examples of each class, the worst first; None where there are no classes."""
    winner = next(iter(summary.trained("winner")), None)
    if winner is None or not winner.confusion:
        return None
    counts_KK = np.array(winner.confusion)
    right_K, examples_K, guesses_K = np.diag(counts_KK), counts_KK.sum(1), counts_KK.sum(0)
    assert summary.training is not None
    names = summary.training.names_of(len(counts_KK))
    f1_K = 2 * right_K / np.maximum(examples_K + guesses_K, 1)
    rows = []
    for index in np.argsort(f1_K, kind="stable"):
        wrong = np.where(np.arange(len(counts_KK)) == index, 0, counts_KK[index])
        most = int(wrong.argmax())
        rows.append(
            (
                names[index],
                format_count(int(examples_K[index])),
                _share(right_K[index], examples_K[index]),
                _share(right_K[index], guesses_K[index]),
                format_percent(float(f1_K[index]), 1),
                f"{names[most]} ({_share(wrong[most], examples_K[index])})" if wrong[most] else "–",
            )
        )
    head = ("class", "test examples", "recognised (recall)", "right when guessed (precision)", "F1", "most taken for")
    shown = len(head) if right_K.sum() < counts_KK.sum() else len(head) - 1  # where nothing is mistaken, for nothing
    return Table(head=head[:shown], rows=tuple(row[:shown] for row in rows))


def outputs_table(summary: StudySummary) -> Table | None:
    """The chosen network on the test examples output by output, in the workload's words; None where it has none."""
    winner = next(iter(summary.trained("winner")), None)
    if winner is None or winner.outputs is None:
        return None
    return Table(head=winner.outputs.head, rows=winner.outputs.rows)


def shown_table(summary: StudySummary) -> Table | None:
    """Test examples that are rows of a table, with what the chosen network made of them; None where they are not."""
    winner = next(iter(summary.trained("winner")), None)
    cells = [each.cells for each in winner.shown if each.cells] if winner is not None else []
    if not cells:
        return None
    head = tuple(name for name, _ in cells[0][:MOST_COLUMNS])
    return Table(head=head, rows=tuple(tuple(text for _, text in row[:MOST_COLUMNS]) for row in cells))


def _share(part: int, whole: int) -> str:
    return format_percent(float(part / whole), 1) if whole else "–"


def alternatives_table(summary: StudySummary) -> Table | None:
    """What the solver returned, best first."""
    if summary.selection is None or not summary.selection.networks:
        return None
    metric, resources = summary.scorer.metric, shown_resources(summary)
    rows = tuple(
        (
            str(rank),
            short_genotype(row.genotype),
            _interval(metric, row.predicted, row.low, row.high),
            format_metric(metric, row.evaluated),
            *[format_amount(resource, summary.costs_of(row.genotype).get(resource)) for resource in resources],
            _differs(row.genotype, summary.winner),
        )
        for rank, row in enumerate(summary.selection.networks, 1)
    )
    genotypes = [row.genotype for row in summary.selection.networks]
    marked = genotypes.index(summary.winner) if summary.winner in genotypes else None
    differs = "differs from the chosen at"
    head = ("rank", "genotype", "predicted (interval)", "evaluated", *map(resource_name, resources), differs)
    return Table(head=head, rows=rows, marked=marked)


def _differs(genotype: str, chosen: str | None) -> str:
    """Where a network has other choices than the chosen one: ``3: 2, 7: 0``."""
    if chosen is None:
        return "–"
    mine, other = Genotype.parse(genotype), Genotype.parse(chosen)
    pairs = zip(mine.choices, other.choices, strict=True)
    places = [f"{index}: {one}" for index, (one, two) in enumerate(pairs) if one != two]
    places += [f"resolution {mine.resolution}"] * (mine.resolution != other.resolution)
    shown = places if len(places) <= MAX_PLACES else [*places[:MAX_PLACES], f"and {len(places) - MAX_PLACES} more"]
    return ", ".join(shown) or "nowhere: it is the chosen one"


def _interval(metric: Measure, value: float, low: float | None, high: float | None) -> str:
    text = format_metric(metric, value)
    if low is None or high is None:
        return text
    return f"{text} ({format_metric(metric, low)} to {format_metric(metric, high)})"


def instead_table(summary: StudySummary) -> Table | None:
    """Position by position the chosen block, the other that is predicted best, and the one that saves at least loss."""
    reasons = summary.reasons
    if reasons is None or not reasons.swaps:
        return None
    chosen, first = Genotype.parse(reasons.genotype), next(iter(reasons.resources), "")
    rows = []
    for index, choice in enumerate(chosen.choices):
        mine = sorted((s for s in reasons.swaps if s.position == index), key=lambda swap: -swap.change)
        savers = [swap for swap in mine if swap.costs.get(first, 0.0) < 0]
        blocks = summary.space.positions[index].blocks
        best, saver = (_swap_cell(summary, reasons, found[0]) if found else "–" for found in (mine, savers))
        saver = "the same" if savers[:1] == mine[:1] and savers else saver
        rows.append((_position(summary, index), describe_block(blocks[choice]), best, saver))
    saving = f"saves {resource_name(first)} and loses least" if first else "saves and loses least"
    head = ("position", "chosen block", "best other block", saving)
    note = "" if summary.scorer.metric.higher_is_better else "Of the metric, positive is better."
    return Table(head=head, rows=tuple(rows), note=note)


def _swap_cell(summary: StudySummary, reasons: Reasons, swap: Swap) -> str:
    block = describe_block(summary.space.positions[swap.position].blocks[swap.choice])
    changes = [
        format_metric_change(summary.scorer.metric, swap.change),
        *(_change(name, swap.costs[name]) for name in reasons.resources),
    ]
    breaks = f"; breaks {' and '.join(swap.breaks)}" if swap.breaks else ""
    return f"{block}: {', '.join(changes)}{breaks}"


def _change(resource: str, value: float) -> str:
    """A signed amount with its resource's name: ``+0.31 ms latency``."""
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    return f"{sign}{format_amount(resource, abs(value))} {resource_name(resource)}"


def swaps_table(summary: StudySummary) -> Table | None:
    """Every other block at every position, what it would change, which limits it would break."""
    reasons = summary.reasons
    if reasons is None or not reasons.swaps:
        return None
    rows = [
        (
            _position(summary, swap.position),
            describe_block(summary.space.positions[swap.position].blocks[swap.choice]),
            format_metric_change(summary.scorer.metric, swap.change),
            *(_change(name, swap.costs[name]).removesuffix(f" {resource_name(name)}") for name in reasons.resources),
            " and ".join(swap.breaks) or "none",
        )
        for swap in reasons.swaps[:MAX_SWAP_ROWS]
    ]
    head = ("position", "block instead", _turned(summary), *map(resource_name, reasons.resources), "limits it breaks")
    count = len(reasons.swaps)
    note = f"The first {len(rows)} of {format_count(count)}." if len(rows) < count else ""
    return Table(head=head, rows=tuple(rows), note=note)


def _turned(summary: StudySummary) -> str:
    better = "" if summary.scorer.metric.higher_is_better else " (positive is better)"
    return f"predicted change{better}"


def prices_table(summary: StudySummary) -> Table | None:
    """What a little more of each limit would buy, all others as they are."""
    if summary.reasons is None or not summary.reasons.prices:
        return None
    rows = tuple(_price_cells(summary, price) for price in summary.reasons.prices)
    gain = "best predicted gains" + ("" if summary.scorer.metric.higher_is_better else " (positive is better)")
    return Table(head=("limit", "raised by", gain, "best predicted then", "which is", "proven"), rows=rows)


def _price_cells(summary: StudySummary, price: Price) -> tuple[str, ...]:
    metric = summary.scorer.metric
    return (
        f"{format_amount(price.resource, price.at_most)} {resource_name(price.resource)}",
        f"{format_amount(price.resource, price.by)} ({format_percent(price.by / price.at_most, 1)})",
        format_metric_change(metric, price.gain),
        format_metric(metric, price.predicted),
        short_genotype(price.genotype),
        "yes" if price.proven else "no",
    )


def sweep_table(summary: StudySummary) -> Table | None:
    """The networks over a range of limits."""
    if summary.sweep is None:
        return None
    head, *rows = sweep_rows(summary)
    networks = [point.genotype for point in summary.sweep.points]
    marked = networks.index(summary.winner) if summary.winner in networks else None
    return Table(head=tuple(head), rows=tuple(map(tuple, rows)), marked=marked)


def rounds_table(summary: StudySummary) -> Table | None:
    """The verification rounds."""
    if summary.verification is None:
        return None
    metric = summary.scorer.metric
    rows = tuple(
        (
            str(row.index),
            str(len(row.genotypes)),
            format_metric(metric, row.predicted_metric),
            format_metric(metric, row.best_metric),
            short_genotype(row.best_genotype),
            format_count(row.num_evaluations),
        )
        for row in summary.verification.rounds
    )
    head = (
        "round",
        "evaluated",
        "first choice, predicted",
        "best evaluated",
        "which is",
        "evaluations so far",
    )
    return Table(head=head, rows=rows)


def evaluated_table(summary: StudySummary) -> Table | None:
    """The best evaluated networks; at most MAX_NETWORK_ROWS, and the note says so."""
    rows = summary.networks
    if not rows:
        return None
    metric, resources = summary.scorer.metric, shown_resources(summary)
    best = sorted(rows, key=lambda row: row.metric, reverse=metric.higher_is_better)[:MAX_NETWORK_ROWS]
    notes = [f"The best {len(best)} of {format_count(len(rows))}."] if len(best) < len(rows) else []
    if any(row.role in FITTED and row.predicted is not None for row in best):
        notes.append("What is predicted of the base and of the design is the fit to them; of the others it is not.")
    cells = tuple(_evaluated_cells(summary, row, metric, resources) for row in best)
    head = ("genotype", "evaluated for", "evaluated", "predicted", *map(resource_name, resources))
    marked = next((index for index, row in enumerate(best) if row.genotype == summary.winner), None)
    return Table(head=head, rows=cells, marked=marked, note=" ".join(notes))


def _evaluated_cells(
    summary: StudySummary, row: EvaluatedNetwork, metric: Measure, resources: list[str]
) -> tuple[str, ...]:
    costs = summary.costs_of(row.genotype)
    return (
        short_genotype(row.genotype),
        row.role,
        format_metric(metric, row.metric),
        format_metric(metric, row.predicted),
        *[format_amount(resource, costs.get(resource)) for resource in resources],
    )


def provenance_table(summary: StudySummary) -> Table:
    """Ids, versions, seeds and devices."""
    known = summary.provenance
    rows = [
        ("study", f"{summary.name}, seed {summary.seed}"),
        ("made", known.created),
        ("mathnas", known.code_version),
        ("chosen network", summary.winner or ""),
        ("base network", summary.base),
        ("space", f"{summary.space.name}, id {known.space_id}"),
        ("scorer", f"{summary.scorer.kind}, id {known.scorer_id}. {summary.scorer.description}"),
        ("profiler", known.profiler_id),
        ("data", _data_sentence(summary)),
        *summary.data.facts.items(),
        ("metric", metric_axis(summary.scorer.metric, summary.scorer.split)),
        ("training", summary.training.recipe if summary.training is not None else ""),
        ("device", summary.device),
        *[(f"device of {stage}", device) for stage, device in known.devices.items()],
        *known.tracking.items(),
        ("versions", ", ".join(f"{name} {version}" for name, version in known.versions.items())),
    ]
    return Table(head=("what", "value"), rows=tuple((key, value) for key, value in rows if value))


def _data_sentence(summary: StudySummary) -> str:
    data = summary.data
    counts = (("train", data.num_train), ("validation", data.num_validation), ("test", data.num_test))
    parts = [f"{format_count(number)} {split}" for split, number in counts if number is not None]
    sizes = f": {', '.join(parts)} examples" if parts else ""
    return f"{data.name}{sizes}. {data.description}".strip()
