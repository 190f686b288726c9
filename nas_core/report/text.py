"""Quantities in words: units a person reads, shared by the page, the figures and the command line."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Literal, get_args

from nas_core.base.units import unit_of
from nas_core.base.words import aligned
from nas_core.families.plain_choices import CHOICE
from nas_core.program import parse_limit
from nas_core.report.summary import Limit, StudySummary, SweepSummary, TrainedNetwork
from nas_core.space.genotypes import BlockSpec, Genotype
from nas_core.study.contestants import TrainedAs
from nas_core.study.outcome import Outcome
from nas_core.study.rounds import TELLS_APART
from nas_core.study.sweep import Point
from nas_core.workloads.metrics import Measure

_COUNT_PREFIXES = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))
_RESOURCE_NAMES = {
    "flops": "multiply-adds",
    "params": "parameters",
    "activation_bytes": "activation memory",
    "latency_ms": "latency",
}
TRAINED_NAMES = {  # what was found within the same limits by simpler means
    "depth": "fewer blocks",
    "greedy": "greedy swaps",
    "largest": "most FLOPs",
    "uniform": "uniform width",
    "torch_pruning": "Torch-Pruning",
    "sibling": "smaller sibling",
    "point": "at another limit",
}
_SPLITS = {"val": "validation", "test": "test", "train": "training"}


def resource_name(resource: str) -> str:
    """What a resource is called in a sentence: ``multiply-adds`` for ``flops``."""
    return _RESOURCE_NAMES.get(resource, resource.replace("_", " "))


def format_quantity(resource: str, value: float | None) -> str:
    """An amount of a resource with its unit: ``1.83 G multiply-adds``, ``2.4 M parameters``, ``12.3 ms``.

    None and NaN are written as an en dash. An unknown resource has the unit that its name states, if any.
    """
    if value is None or math.isnan(value):
        return "–"
    match resource:
        case "flops" | "params":
            return f"{_scaled(value)} {_RESOURCE_NAMES[resource]}"
        case _ if resource.endswith("_bytes"):
            return _bytes(value)
        case _ if resource.endswith("_ms"):
            return format_milliseconds(value)
        case _ if resource.endswith("_mj"):
            return f"{_significant(value)} mJ"
        case _ if (unit := unit_of(resource)) is not None:
            return f"{_significant(value)} {unit[0]}"
        case _:
            return _scaled(value)


def format_amount(resource: str, value: float | None) -> str:
    """``format_quantity`` where a heading already names the resource: ``1.83 G``, ``2.4 M``, ``12.3 ms``."""
    return format_quantity(resource, value).removesuffix(f" {resource_name(resource)}")


def axis_unit(resource: str, largest: float) -> tuple[float, str]:
    """(divisor, label) with which values up to ``largest`` are small numbers: ``(1e6, "multiply-adds, M")``."""
    name = resource_name(resource)
    if resource.endswith(("_ms", "_mj")):
        return 1.0, f"{name}, {'ms' if resource.endswith('_ms') else 'mJ'}"
    if resource.endswith("_bytes"):
        units: tuple[tuple[float, str], ...] = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
    else:
        units = tuple((size, prefix.strip()) for size, prefix in _COUNT_PREFIXES)
    return next(((size, f"{name}, {unit}") for size, unit in units if largest >= size), (1.0, name))


def format_limit(limit: Limit) -> str:
    """A limit in words: ``at most 61.8 M multiply-adds``, ``at most 12.3 ms latency (CPU)``."""
    place = f" ({limit.device})" if limit.device else ""
    bounds = (("at least", limit.at_least), ("at most", limit.at_most))
    words = [f"{bound} {format_amount(limit.resource, value)}" for bound, value in bounds if value is not None]
    return f"{' and '.join(words)} {resource_name(limit.resource)}{place}"


def short_genotype(genotype: str, longest: int = 41) -> str:
    """The genotype, its middle left out where it would not fit a table."""
    if len(genotype) <= longest:
        return genotype
    kept = longest // 2 - 2
    return f"{genotype[:kept].rsplit('-', 1)[0]}-…-{genotype[-kept:].split('-', 1)[1]}"


def format_milliseconds(value: float) -> str:
    """A latency: ``850 µs``, ``12.3 ms``, ``1.20 s``."""
    if 0 < abs(value) < 1:
        return f"{_significant(value * 1e3)} µs"
    return f"{_significant(value)} ms" if abs(value) < 1000 else f"{_significant(value / 1e3)} s"


def format_duration(seconds: float | None) -> str:
    """A wall or compute time: ``40 ms``, ``8.2 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds is None or math.isnan(seconds):
        return "–"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 0.0095 else f"{seconds * 1e3:.2g} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def metric_label(metric: Measure, split: str = "") -> str:
    """What a metric is called in a sentence: ``validation accuracy``, ``test macro F1``."""
    words = _SPLITS.get(split, split)
    return f"{words} {metric.label}" if words and words not in metric.label.split() else metric.label


def metric_column(metric: Measure, split: str = "") -> str:
    """The head of a column of values with their unit: what, and which way is better where it is not upwards."""
    return _directed(metric, metric_label(metric, split))


def metric_axis(metric: Measure, split: str = "") -> str:
    """The label of an axis: what, in which unit, and which way is better where it is not upwards."""
    unit = "%" if metric.is_fraction else metric.unit
    label = metric_label(metric, split)
    return _directed(metric, f"{label}, {unit}" if unit else label)


def _directed(metric: Measure, label: str) -> str:
    return label if metric.higher_is_better else f"{label} (lower is better)"


def format_percent(share: float, digits: int = 0, *, sign: Literal["", "+"] = "") -> str:
    """A share in [0, 1] as a percentage; a difference with ``sign="+"``."""
    return f"{share * 100:{sign}.{digits}f} %".replace("-", "−")


def format_metric(metric: Measure, value: float | None) -> str:
    """A metric's value: fractions as ``93.13 %``, anything else with four digits and its unit."""
    if value is None or math.isnan(value):
        return "–"
    value += 0.0  # no -0
    if metric.is_fraction:
        return f"{value * 100:.2f} %"
    return f"{value:.4g} {metric.unit}".rstrip()


def format_tested(metric: Measure, row: TrainedNetwork | None, value: float | None) -> str:
    """A network's metric on the test split; of several trainings their mean and standard deviation."""
    if row is None or len(row.tests) < 2:
        return format_metric(metric, value)
    return format_seeds(metric, [each.value for each in row.tests])


def format_seeds(metric: Measure, values: Sequence[float]) -> str:
    """What one network came to from each of several seeds: the mean, and of two or more the standard deviation."""
    text = format_metric(metric, statistics.fmean(values))
    if len(values) < 2:
        return text
    return f"{text} ± {format_metric_change(metric, statistics.stdev(values)).lstrip('+')}"


def format_metric_change(metric: Measure, change: float | None) -> str:
    """A signed difference of two values: ``+1.25 points`` for fractions."""
    if change is None or math.isnan(change):
        return "–"
    change += 0.0  # no -0
    text = f"{change * 100:+.2f} points" if metric.is_fraction else f"{change:+.3g} {metric.unit}".rstrip()
    return text.replace("-", "−")


def format_count(value: int) -> str:
    """A whole number, ``6,561``; of 10^15 and more three digits, rounded, and a power of ten."""
    if abs(value) < 10**15:
        return f"{value:,}"
    digits, exponent = f"{Decimal(value):.2e}".split("e+")  # integers beyond 10^308 do not fit a float
    return f"{digits} × 10{exponent.translate(_SUPERSCRIPTS)}"


_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def format_space_size(num_choices: Sequence[int], num_resolutions: int, num_networks: int) -> str:
    """The number of networks of a family as it comes about: ``3⁸ = 6,561``; of those that rules exclude, too."""
    counts, combinations = sorted(set(num_choices), reverse=True), math.prod(num_choices) * num_resolutions
    if combinations != num_networks:
        allowed = f" combinations, of which rules allow {format_count(num_networks)}"
        return format_space_size(num_choices, num_resolutions, combinations) + allowed
    if len(counts) > 4:
        return format_count(num_networks)
    powers = [f"{n}{_superscript(sum(c == n for c in num_choices))}" for n in counts if n > 1]
    if num_resolutions > 1:
        powers.append(f"{num_resolutions} resolutions")
    return f"{' × '.join(powers)} = {format_count(num_networks)}" if powers else format_count(num_networks)


def _superscript(power: int) -> str:
    return "" if power == 1 else str(power).translate(_SUPERSCRIPTS)


def _significant(value: float) -> str:
    """Three digits without an exponent, zero as 0."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    rounded = float(f"{value:.3g}")  # first, as rounding may add a digit: 0.9999 is 1.00
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{min(decimals, 6)}f}"


def _scaled(value: float) -> str:
    # The limits sit just under 1000 so that 999.9 k is written as 1.00 M.
    for size, prefix in _COUNT_PREFIXES:
        if abs(value) >= size * 0.9995:
            return _significant(value / size) + prefix
    return f"{value:.0f}" if float(value).is_integer() else _significant(value)


def _bytes(value: float) -> str:
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= size:
            return f"{_significant(value / size)} {unit}"
    return f"{value:.0f} B"


def describe_block(spec: BlockSpec) -> str:
    """A block in a few words: ``mbconv, kernel 5, expansion 6``; a plain choice is its value."""
    if spec.kind == CHOICE:
        value = dict(spec.params)["value"]
        return str(value).lower() if isinstance(value, bool) else str(value)  # as YAML writes it
    parts = [spec.kind.replace("_", " "), *[f"{name.replace('_', ' ')} {value}" for name, value in spec.params]]
    return ", ".join(parts)


def summary_table(summary: StudySummary, compared: Sequence[str] | None = None) -> str:
    """The end of ``mathnas run``: winner, base and random networks side by side, as plain text.

    ``compared`` are the lines of another table of these networks.
    """
    lines = [*(_compared_table(summary) if compared is None else compared)]
    lines += [f"not compared, diverged: {row}" for row in (summary.training.diverged if summary.training else ())]
    lines += [f"not all as asked for, {row}" for row in (summary.training.remarks if summary.training else ())]
    lines.append(trained_longer(summary))
    if summary.limits:
        lines.append(f"limits: {', '.join(_asked(summary, limit) for limit in summary.limits)}")
    if summary.sweep is not None:
        lines += [f"over the range {summary.sweep.text}:", *aligned(sweep_rows(summary)), *sweep_notes(summary)]
    if summary.outcome is not None:
        lines += outcome_lines(summary.outcome, summary.scorer.metric)
    elif summary.selection is not None:
        lines.append(summary.selection.sentence)
    lines.append(_values_of_winner(summary))
    space = summary.space
    size = format_space_size(space.num_choices, len(space.resolutions), space.num_networks)
    lines.append(f"evaluated: {format_count(summary.num_evaluated)} networks of {size}")
    lines.append(failure_warning(summary))
    return "\n".join(line.rstrip() for line in lines if line)


def _values_of_winner(summary: StudySummary) -> str:
    """``winner: optimise O2, inline true`` of plain choices; nothing of networks, whose blocks the report draws."""
    positions = summary.space.positions
    if summary.winner is None or any(block.kind != CHOICE for each in positions for block in each.blocks):
        return ""
    chosen = zip(positions, Genotype.parse(summary.winner).choices, strict=True)
    return f"winner: {', '.join(f'{each.name} {describe_block(each.blocks[choice])}' for each, choice in chosen)}"


def _asked(summary: StudySummary, limit: Limit) -> str:
    """A limit as it was asked for, and what sums over blocks are held to for it where that is something else."""
    asked = summary.limit_whole(limit)
    if limit.at_most in (None, asked.at_most) or "%" in limit.text:  # of the base's sum, as it stands in the table
        return format_limit(limit)
    return f"{format_limit(asked)} (of sums over blocks {format_amount(limit.resource, limit.at_most)})"


def _compared_table(summary: StudySummary) -> list[str]:
    resources, whole = shown_resources(summary), measured_resources(summary)
    names = [*map(resource_name, resources), *(f"{resource_name(name)}, whole" for name in whole)]
    header = ["", "genotype", compared_by(summary), *names]
    rows = [
        [
            trained_name(label),
            short_genotype(genotype),
            format_tested(summary.metric, trained_as(summary, label, genotype), value),
        ]
        + [format_amount(r, summary.costs_of(genotype).get(r)) for r in resources]
        + [format_amount(r, measured_of(summary, label, genotype).get(r)) for r in whole]
        for label, genotype, value in compared_networks(summary)
    ]
    return aligned([header, *rows])


def sweep_rows(summary: StudySummary) -> list[list[str]]:
    """A sweep as a table: every point, the base network last; columns that nothing is known for are left out."""
    sweep, metric = summary.sweep, summary.scorer.metric
    assert sweep is not None, "there is a sweep to show"
    name, label = resource_name(sweep.resource), metric_column(metric, summary.scorer.split)
    whole = sweep.base.measured
    head = ["limit", "network", name, "measured whole", "of the base", f"predicted {label}", "evaluated"]
    several = any(len(row.tests) > 1 for row in summary.training.networks) if summary.training is not None else False
    rows = [[*head, metric_column(summary.metric, "test") + (", first training" if several else "")]]
    for point in (*sweep.points, sweep.base):
        share = format_percent(point.measured / whole, 1) if point.measured is not None and whole else ""
        rows.append(
            [
                point.limit or "base",
                "none" if point.genotype is None else short_genotype(point.genotype),
                _known(sweep.resource, point.summed),
                _known(sweep.resource, point.measured),
                share,
                "" if point.predicted is None else format_metric(metric, point.predicted),
                "" if point.evaluated is None else format_metric(metric, point.evaluated),
                "" if point.test is None else format_metric(summary.metric, point.test),
            ]
        )
    kept = [column for column, cells in enumerate(zip(*rows[1:], strict=True)) if any(cells)]
    return [[row[column] for column in kept] for row in rows]


def sweep_notes(summary: StudySummary) -> list[str]:
    """Why there is no network at a limit, and at which limits the best predicted one is shown."""
    assert summary.sweep is not None, "there is a sweep to show"
    points = summary.sweep.points
    notes = [f"{point.limit}: {point.note}" for point in points if point.genotype is None]
    notes += [_over(summary.sweep, point) for point in points]
    notes = [note for note in notes if note]
    found = [point for point in points if point.genotype is not None]
    proven = sum(point.proven for point in found)
    if proven == len(found):
        return [*notes, "At every limit this is the best predicted network, which is proven."] if found else notes
    first = f"At {proven} of {len(found)} limits this is the best predicted network, which is proven; elsewhere" if (
        proven
    ) else "At every limit"  # fmt: skip
    return [*notes, f"{first} it is the best of those evaluated that keep to it, or its proof is open."]


def _over(sweep: SweepSummary, point: Point) -> str:
    """That a point's network, measured whole, is over its limit, if it is by more than a measurement can tell."""
    if point.measured is None or (sweep.base.measured is None and "%" in point.limit):
        return ""
    allowed = parse_limit(point.limit).resolve({sweep.resource: sweep.base.measured or 0.0}).at_most
    if not allowed or point.measured <= allowed * (1 + TELLS_APART):
        return ""
    excess = format_percent(point.measured / allowed - 1, 1)
    return f"{point.limit}: measured whole the network is {excess} over the limit."


def _known(resource: str, value: float | None) -> str:
    return "" if value is None else format_amount(resource, value)


def outcome_lines(outcome: Outcome, metric: Measure) -> list[str]:
    """The best predicted network and the chosen one, why they differ, and what to be careful about."""
    return [
        f"best predicted: {best_predicted(outcome, metric)}",
        f"chosen: {chosen_network(outcome, metric)}",
        outcome.why,
        *outcome.cautions,
    ]


def best_predicted(outcome: Outcome, metric: Measure) -> str:
    """``2-0-2 at 93.10 % (proven)``."""
    proven = "proven" if outcome.proven else "not proven"
    return f"{short_genotype(outcome.best_predicted)} at {format_metric(metric, outcome.predicted)} ({proven})"


def chosen_network(outcome: Outcome, metric: Measure) -> str:
    """``0-0-0 at 93.40 % (best evaluated)``; by its prediction alone where nothing was verified."""
    name = short_genotype(outcome.chosen)
    if not outcome.verified:
        return f"{name} (best predicted, not verified)"
    best = "best of the finalists" if outcome.rated_again else "best evaluated"
    return f"{name} at {format_metric(metric, outcome.chosen_evaluated)} ({best})"


def failure_warning(summary: StudySummary) -> str:
    """What a reader has to know where more than a tenth of the evaluations failed; else nothing."""
    tried = summary.num_evaluated + summary.num_failed
    if summary.num_failed * 10 <= tried:
        return ""
    failed, tried_in_all = format_count(summary.num_failed), format_count(tried)
    first = f" The first: {summary.first_failure}" if summary.first_failure else ""
    return f"warning: {failed} of {tried_in_all} evaluations failed, and nothing was learnt from them.{first}"


def compared_by(summary: StudySummary) -> str:
    """What ``compared_networks`` are compared by: on the test split once they are trained, else as evaluated."""
    if summary.training is not None:
        return metric_column(summary.training.metric, "test")
    return f"evaluated {metric_column(summary.scorer.metric, summary.scorer.split)}"


def compared_networks(summary: StudySummary) -> list[tuple[str, str, float | None]]:
    """(role, genotype, metric or None) of winner, base, and what else it is compared with within the limits."""
    rows: list[tuple[str, str, float | None]] = []
    trained = summary.training.networks if summary.training is not None else ()
    if summary.winner is not None and not summary.trained("winner"):
        rows.append(("winner", summary.winner, _evaluated(summary, summary.winner)))
    if not summary.trained("base"):
        same = summary.trained("winner") if summary.base == summary.winner else ()
        rows.append(("base", summary.base, same[0].test if same else _evaluated(summary, summary.base)))
    rows += [(row.role, row.genotype, row.test) for row in trained if row.role != "point"]
    order = get_args(TrainedAs)
    return sorted(rows, key=lambda row: order.index(row[0]))


def trained_name(role: str) -> str:
    """What a network is called that the chosen one is compared with."""
    return TRAINED_NAMES.get(role, role)


def longer_in_words(more_epochs: Iterable[tuple[str, float]]) -> str:
    """Which networks were trained beyond the recipe's epochs, and why; "" where none was.

    ``more_epochs`` has role and epochs of each network: of a role there may be several.
    """
    told = dict.fromkeys(f"{trained_name(role)} {epochs:.3g}" for role, epochs in more_epochs if epochs)
    if not told:
        return ""
    return (
        "What holds no alternative was trained longer, by as many multiply-adds as distilling took: "
        f"{', '.join(told)} epochs more."
    )


def trained_longer(summary: StudySummary) -> str:
    """As ``longer_in_words``, of the networks that a study trained."""
    networks = summary.training.networks if summary.training is not None else ()
    return longer_in_words((row.role, row.more_epochs) for row in networks)


def measured_of(summary: StudySummary, role: str, genotype: str) -> Mapping[str, float]:
    """What a trained network takes, measured whole in turns with the others; empty where it was not."""
    return next((row.measured for row in summary.trained(role) if row.genotype == genotype), {})


def measured_resources(summary: StudySummary) -> list[str]:
    """Resources that trained networks were measured by, whole."""
    networks = summary.training.networks if summary.training is not None else ()
    return list(dict.fromkeys(name for row in networks for name in row.measured))


def trained_as(summary: StudySummary, role: str, genotype: str) -> TrainedNetwork | None:
    """The trained network of this role and genotype."""
    return next((row for row in summary.trained(role) if row.genotype == genotype), None)


def _evaluated(summary: StudySummary, genotype: str) -> float | None:
    """The scorer's value, where that is what networks are compared by."""
    row = summary.evaluated(genotype)
    return row.metric if row is not None and summary.training is None else None


def shown_resources(summary: StudySummary) -> list[str]:
    """Resources worth a column: the limited ones first, then the others known for the base network."""
    limited = [limit.resource for limit in summary.limits]
    known = ["flops", "params", "latency_ms", "activation_bytes"]
    costs = dict(summary.costs_of(summary.base))
    if costs.get("flops") == 0:  # of plain choices, which are no networks
        del costs["flops"]
    return list(dict.fromkeys([*limited, *[r for r in known if r in costs], *sorted(costs)]))
