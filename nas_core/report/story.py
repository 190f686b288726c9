"""What a study found, in sentences: every claim with its conditions, and no better than the numbers.

Plain text; the page escapes it.
"""

import math
import statistics
from collections.abc import Sequence

from nas_core.base.words import counted
from nas_core.report.summary import (
    LEAST_SHARE,
    CalibrationSummary,
    Limit,
    MeasuredWhole,
    ResourceAdditivity,
    StudySummary,
    TrainedNetwork,
    plausible,
)
from nas_core.report.text import (
    best_predicted,
    chosen_network,
    failure_warning,
    format_amount,
    format_count,
    format_duration,
    format_limit,
    format_metric,
    format_metric_change,
    format_percent,
    format_space_size,
    format_tested,
    measured_of,
    metric_label,
    resource_name,
    short_genotype,
    trained_longer,
    trained_name,
)
from nas_core.space.genotypes import Genotype
from nas_core.study.contestants import RIVALS
from nas_core.study.rounds import TELLS_APART
from nas_core.workloads.metrics import Measure

SIGNIFICANT = 0.05
OTHER_PACE = 0.2  # by which all sums are off alike where it is the machine that was another


def headline(summary: StudySummary) -> str:
    """The answer in one line."""
    if summary.winner is not None:
        return f"The network found: {short_genotype(summary.winner)}"
    return "No network has been selected yet"


def answer(summary: StudySummary) -> list[tuple[str, str]]:
    """(question, answer): what it attains, within which limits, how sure we are, what it took."""
    rows = [("Chosen from", _family(summary)), ("It took", effort(summary))]
    if summary.winner is not None:
        rows = [
            ("It attains", _attains(summary, summary.winner)),
            ("Within limits", within_limits(summary, summary.winner)),
            ("How sure", certainty(summary)),
            ("Chosen from", _found(summary, summary.winner)),
            ("It took", effort(summary)),
        ]
    return [(question, text) for question, text in rows if text]


def _family(summary: StudySummary) -> str:
    space = summary.space
    size = format_space_size(space.num_choices, len(space.resolutions), space.num_networks)
    return f"The family {space.name} has {space.num_positions} positions and {size} networks."


def _found(summary: StudySummary, winner: str) -> str:
    distance = Genotype.parse(winner).distance(Genotype.parse(summary.base))
    same = "The chosen network is the base network itself." if winner == summary.base else ""
    swapped = (
        f"The chosen network differs from the base network at {distance} of {summary.space.num_positions} positions."
    )
    return f"{_family(summary)} {same or swapped}"


def _attains(summary: StudySummary, winner: str) -> str:
    trained = summary.trained("winner")
    if summary.training is None or not trained or trained[0].test is None:
        return _expected(summary, winner)
    examples = summary.training.num_test_examples
    on = f"{format_count(examples)} test examples" if examples else "the test examples"
    seen = (
        "the table that it was chosen by may rest on them"
        if summary.scorer.kind == "tabular"
        else "no earlier step had seen them"
    )
    many = len(trained[0].tests)
    value = format_tested(summary.training.metric, trained[0], trained[0].test)
    over = f", mean ± standard deviation of {many} trainings" if many > 1 else ""
    text = f"Fully trained, its {metric_label(summary.training.metric)} is {value} on {on}{over}; {seen}."
    return " ".join([text, *comparison(summary)])


def _expected(summary: StudySummary, winner: str) -> str:
    """The winner's metric before it is trained."""
    label = metric_label(summary.scorer.metric, summary.scorer.split)
    evaluated, selected = summary.evaluated(winner), summary.selected(winner)
    value = evaluated.metric if evaluated is not None else selected.evaluated if selected is not None else None
    if value is not None:
        known = f"The {summary.scorer.kind} scorer measured a {label} of {format_metric(summary.scorer.metric, value)}"
    elif selected is not None:
        known = f"Its predicted {label} is {format_metric(summary.scorer.metric, selected.predicted)}"
    else:
        known = f"Its {label} is not known"
    untrained = " It has not been fully trained, so how it does on test data is not known."
    return f"{known}.{untrained if summary.are_networks else ''}"


def comparison(summary: StudySummary) -> list[str]:
    """How the trained winner stands beside base and random networks; says so when it does not win."""
    winner = next((row.test for row in summary.trained("winner")), None)
    if winner is None:
        return []
    metric = summary.metric
    sentences = []
    base = next((row.test for row in summary.trained("base")), None)
    if base is not None and summary.base != summary.winner:
        sentences.append(
            f"The base network, trained alike, reaches {_beside(metric, base, winner)}{_base_outside(summary)}."
        )
    if summary.training is not None and summary.training.as_given is not None:
        sentences.append(f"The model as it was given reaches {_beside(metric, summary.training.as_given, winner)}.")
    random = [row.test for row in summary.trained("random") if row.test is not None]
    if random:
        sentences.append(_random_sentence(metric, random, winner))
    sentences += _rivals(summary, winner)
    sentences += _over_when_measured(summary)
    if longer := trained_longer(summary):
        sentences.append(longer)
    for row in summary.training.diverged if summary.training is not None else ():
        sentences.append(f"Not compared, as its training diverged: {row}.")
    if len(tests := paired_tests(summary)):
        return [*sentences, *tests]
    noise = test_noise(summary)
    rivals = [row.test for role in RIVALS for row in summary.trained(role)]
    others = [value for value in (base, *random, *rivals) if value is not None]
    if noise is not None and any(abs(winner - value) < noise for value in others):
        sentences.append(
            f"Differences under {noise * 100:.1f} points may be chance: that is the 95 % margin of a difference "
            "on so many test examples, and training once more moves the numbers too."
        )
    return sentences


def _rivals(summary: StudySummary, winner: float) -> list[str]:
    """How the winner stands beside what else was found within the limits, and what has to be said of that."""
    rows = [row for role in RIVALS for row in summary.trained(role) if row.test is not None]
    remarks = [f"{text[:1].upper()}{text[1:]}" for text in (summary.training.remarks if summary.training else ())]
    if not rows:
        return remarks
    sign = 1 if summary.metric.higher_is_better else -1
    beaten = sum(sign * (row.test or 0.0) < sign * winner for row in rows)
    named = [f"{trained_name(row.role)} {_beside(summary.metric, row.test or 0.0, winner)}" for row in rows]
    text = f"Others at the same limits, trained alike: {'; '.join(named)}. The chosen network beats {beaten} of them."
    return [text, *remarks]


def _over_when_measured(summary: StudySummary) -> list[str]:
    """Which networks that the limits were held for are over one as they were measured with the others."""
    base, found = measured_of(summary, "base", summary.base), []
    for limit in summary.limits:
        most = summary.limit_whole(limit, base.get(limit.resource)).at_most
        over = [
            trained_name(row.role)
            for role in ("winner", "random", *RIVALS)
            for row in summary.trained(role)
            if most is not None and row.measured.get(limit.resource, 0.0) > most * (1 + TELLS_APART)
        ]
        if over:
            found.append(f"Over the limit on {resource_name(limit.resource)} when measured whole: {_joined(over)}.")
    return found


def _beside(metric: Measure, value: float, winner: float) -> str:
    change = format_metric_change(metric, value - winner)
    if not any(digit in change for digit in "123456789"):
        return f"{format_metric(metric, value)}, the same"
    more = "more" if value > winner else "less"
    return f"{format_metric(metric, value)}, {change.lstrip('+−')} {more}"


def _base_outside(summary: StudySummary) -> str:
    costs = summary.costs_of(summary.base)
    broken = [
        limit for limit in summary.limits if limit.resource in costs and not limit.is_kept_by(costs[limit.resource])
    ]
    return "; it does not keep within the limits" if broken else ""


def _random_sentence(metric: Measure, random: list[float], winner: float) -> str:
    median, sign = statistics.median(random), 1 if metric.higher_is_better else -1
    beaten = sum(sign * value < sign * winner for value in random)
    many = len(random) > 1
    who = f"The median of {len(random)} random networks" if many else "A random network"
    text = f"{who} within the same limits reaches {_beside(metric, median, winner)}"
    if sign * winner <= sign * median:
        return f"{text}: the chosen network does not beat {'that median' if many else 'it'} here."
    return f"{text}; the chosen one beats {beaten} of {len(random)}." if many else f"{text}."


def paired_tests(summary: StudySummary) -> list[str]:
    """Whether the winner's differences are more than chance, where networks were trained from several seeds.

    Paired by seed: what a seed does to all of them (order of the examples, augmentation) is not noise. Student's
    t-test of the differences, two-sided; random networks count by their mean.
    """
    winner = next((_by_seed(row) for row in summary.trained("winner")), {})
    sentences = []
    named = {"base": "the base network", "random": "the random networks"}
    for role, who in (named | {rival: trained_name(rival) for rival in RIVALS}).items():
        others = [found for row in summary.trained(role) if (found := _by_seed(row))]
        seeds = [seed for seed in winner if all(seed in other for other in others)] if others else []
        if len(seeds) > 1:
            differences = [winner[seed] - statistics.fmean(other[seed] for other in others) for seed in seeds]
            name = who.replace("networks", "network") if len(others) == 1 else who
            least = LEAST_SHARE * max(map(abs, winner.values()))
            sentences.append(_paired(summary.metric, name, differences, least))
    if sentences:
        sentences.append("The test is about other seeds of the same trainings, on these test examples.")
    return sentences


def _by_seed(row: TrainedNetwork) -> dict[int, float]:
    return {each.seed: each.value for each in row.tests}


def _paired(metric: Measure, who: str, differences: list[float], least: float) -> str:
    mean, spread = statistics.fmean(differences), statistics.stdev(differences)
    change = format_metric_change(metric, mean)
    text = f"The chosen network's {metric_label(metric)} less that of {who} is {change} over {len(differences)} seeds"
    if spread <= least:
        return f"{text}, the same from each."
    from scipy.stats import ttest_1samp  # half a second, which only several seeds are worth

    p = float(ttest_1samp(differences, 0.0).pvalue)
    verdict = "more than chance" if p < SIGNIFICANT else "which may be chance"
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    spread_shown = format_metric_change(metric, spread).lstrip("+")
    return f"{text}, standard deviation {spread_shown} (paired t-test, {shown}): {verdict}."


def test_noise(summary: StudySummary) -> float | None:
    """95 % margin of the difference of two shares of test examples, from their number alone.

    None for metrics that are no such share: their chance is not known.
    """
    examples = summary.training.num_test_examples if summary.training is not None else None
    value = next((row.test for row in summary.trained("winner")), None)
    if not examples or value is None or not summary.metric.counts_examples or not 0 <= value <= 1:
        return None
    share = (value * examples + 2) / (examples + 4)  # Agresti and Coull: no margin of 0 where all are right
    return 1.96 * math.sqrt(2 * share * (1 - share) / examples)


def within_limits(summary: StudySummary, winner: str) -> str:
    """The winner's cost beside each limit."""
    costs = summary.costs_of(winner)
    if not summary.limits:
        known = [_named_amount(name, costs[name]) for name in costs]
        return f"No limits were set. It takes {_joined(known)}." if known else "No limits were set."
    parts, broken = [], []
    for limit in summary.limits:
        cost = costs.get(limit.resource)
        if cost is None:
            parts.append(f"{format_limit(limit)} (its own cost is not known)")
            continue
        parts.append(f"{format_amount(limit.resource, cost)} of {format_limit(limit)}")
        if not limit.is_kept_by(cost):
            broken.append(resource_name(limit.resource))
        if whole := whole_in_words(summary, winner, limit):
            parts[-1] += f" ({whole})" if summary.keeps_whole(winner, limit) else f" ({whole}, which is outside)"
    verdict = f"It does not keep the limit on {_joined(broken)}" if broken else "It keeps within the limits"
    return f"{verdict}: {_joined(parts)}."


def limits_measured_whole(summary: StudySummary) -> str:
    """``within_limits`` of the winner where it was measured whole, which its sum is not; "" elsewhere."""
    winner = summary.winner
    if winner is None or not any(whole_in_words(summary, winner, limit) for limit in summary.limits):
        return ""
    return within_limits(summary, winner)


def whole_in_words(summary: StudySummary, genotype: str, limit: Limit) -> str:
    """What a network takes measured whole, of what the limit then is; "" where it was not measured."""
    whole = summary.measured_whole(genotype, limit.resource)
    if whole is None:
        return ""
    most = summary.limit_whole(limit).at_most
    of = "" if most in (None, limit.at_most) else f", of at most {format_amount(limit.resource, most)} then"
    return f"{format_amount(limit.resource, whole)} measured whole{of}"


def _named_amount(resource: str, value: float) -> str:
    """An amount that always names its resource: ``12.3 ms latency``."""
    return f"{format_amount(resource, value)} {resource_name(resource)}"


def _joined(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def certainty(summary: StudySummary) -> str:
    """What is proven, and how far predictions can be trusted."""
    parts = []
    if summary.outcome is not None:
        metric = summary.scorer.metric
        parts.append(f"Best predicted: {best_predicted(summary.outcome, metric)}.")
        parts.append(f"Chosen: {chosen_network(summary.outcome, metric)}.")
        parts += [summary.outcome.why, *summary.outcome.cautions]
    elif summary.selection is not None:
        parts.append(summary.selection.sentence)
    if summary.verification is not None and not _is_said(summary.verification.sentence, parts):
        parts.append(summary.verification.sentence)
    if summary.calibration is not None:
        parts.append(calibration_verdict(summary.calibration))
    elif summary.outcome is None:  # whose cautions say it
        parts.append("Predictions were not compared with held-out networks, so how far to trust them is not known.")
    return " ".join(part for part in parts if part)


def _is_said(sentence: str, parts: Sequence[str]) -> bool:
    """Whether one of the parts has the sentence within one of its own."""
    return any(sentence[1:].removesuffix(".") in part for part in parts)


def calibration_verdict(result: CalibrationSummary) -> str:
    """How well the predictor orders unseen networks, in words, with the baseline beside it."""
    if result.kendall is None:
        return f"The rank agreement on {result.num_networks} held-out networks could not be computed."
    text = (
        f"On {result.num_networks} networks it had not seen, the predictor's order agrees with the measured one by a "
        f"Kendall τ of {result.kendall:.2f} (1: the same order, 0: chance)"
    )
    if result.sentence:
        return f"{text}. {result.sentence}"
    if result.baseline_kendall is None:
        return f"{text}."
    better = result.kendall > result.baseline_kendall
    verdict = "does better than" if better else "does no better than"
    return f"{text}; it {verdict} counting {result.baseline_name} (τ {result.baseline_kendall:.2f})."


def wild_predictions(summary: StudySummary) -> str:
    """How many predictions are far beyond all that was evaluated, and what such a number is worth."""
    rows = [row for row in summary.networks if row.predicted is not None]
    low, high = plausible(rows) if rows else (0.0, 0.0)
    wild = [row.predicted for row in rows if row.predicted is not None and not low <= row.predicted <= high]
    if not wild:
        return ""
    furthest = max(wild, key=lambda value: max(low - value, value - high))
    beyond = "lies" if len(wild) == 1 else "lie"
    return (
        f"Of {counted(len(rows), 'prediction')} {len(wild)} {beyond} beyond all evaluations by more than these differ "
        f"among themselves (to {format_metric(summary.scorer.metric, furthest)}): such a number only says on which "
        "side a network is."
    )


def proof(summary: StudySummary) -> str:
    """The optimality statement: status, bound, gap, time and route."""
    selection, outcome = summary.selection, summary.outcome
    if selection is None:
        return ""
    metric = summary.scorer.metric
    parts = [f"Status: {selection.status}."]
    if outcome is not None:
        parts.append(f"Best predicted: {best_predicted(outcome, metric)}, by the fit to all evaluated networks.")
    if selection.bound is not None:
        parts.append(
            f"No network within the limits has a better predicted value than {format_metric(metric, selection.bound)}."
        )
    if selection.gap is not None:
        parts.append(f"The gap is {selection.gap:.3g}{_scale_of_gap(summary)}.")
    if selection.solve_s is not None:
        parts.append(f"Solving took {format_duration(selection.solve_s)}.")
    if selection.route:
        parts.append(f"Route: {selection.route}.")
    parts.append("The proof is about predicted values: it is only as good as the predictions are.")
    if outcome is not None and outcome.best_predicted != outcome.chosen:
        parts.append(f"Chosen: {chosen_network(outcome, metric)}. {outcome.why}")
    return " ".join(parts)


def _scale_of_gap(summary: StudySummary) -> str:
    effects, selection = summary.block_effects, summary.selection
    is_open = selection is not None and bool(selection.gap)
    return f" on the scale of the {effects.link} link" if effects is not None and is_open else ""


def better_swaps(summary: StudySummary) -> str:
    """What to make of other blocks that are predicted to do better within the limits; "" where none are."""
    swaps = summary.reasons.swaps if summary.reasons is not None else ()
    better = sum(swap.change > summary.least_change and not swap.breaks for swap in swaps)
    if not better:
        return ""
    others = f"{counted(better, 'other block')} {'are' if better > 1 else 'is'}"
    return (
        f"{others} predicted to do better within the limits: the network was chosen as the best of those really "
        "evaluated, not by its prediction alone."
    )


def effort(summary: StudySummary) -> str:
    """How many networks were really evaluated, and how long all of it took."""
    if summary.num_evaluated == 0:
        return "Nothing has been evaluated yet."
    space = summary.space
    share = summary.num_evaluated / space.num_networks if space.num_networks < 10**300 else 0.0
    percent = f" ({format_percent(share, 2)})" if share >= 1e-4 else ""
    failed = f"; {format_count(summary.num_failed)} more failed" if summary.num_failed else ""
    warning = failure_warning(summary)
    seconds = sum(stage.wall_s for stage in summary.stages)
    on = "" if summary.scorer.kind == "tabular" or not summary.device else f" on {summary.device}"
    took = f" The study took {format_duration(seconds)}{on}." if seconds else ""
    evaluated = format_count(summary.num_evaluated)
    of_all = format_count(space.num_networks)
    text = f"{evaluated} of {of_all} networks{percent} were evaluated{failed}.{took}"
    return f"{text} {warning[0].upper()}{warning[1:]}" if warning else text


def metric_source(summary: StudySummary) -> str:
    """Where the metric of an evaluation comes from."""
    scorer = summary.scorer
    parts = [f"{metric_label(scorer.metric, scorer.split)} by the {scorer.kind} scorer"]
    if scorer.num_examples:
        parts.append(f"{format_count(scorer.num_examples)} {scorer.split} examples of {summary.data.name}")
    if scorer.seeds:
        parts.append(f"seed{'s' if len(scorer.seeds) > 1 else ''} {', '.join(map(str, scorer.seeds))}")
    parts.append(f"{format_count(summary.num_evaluated)} networks evaluated")
    return "; ".join([*parts, *_stage_source(summary, "score")])


def _stage_source(summary: StudySummary, stage: str) -> list[str]:
    rows = [row for row in summary.stages if row.stage == stage]
    devices = [row.device or summary.device for row in rows]
    return [
        format_duration(row.wall_s) + (f" on {device}" if device else "")
        for row, device in zip(rows, devices, strict=True)
    ]


def training_source(summary: StudySummary, first: bool = False) -> str:
    """Where the metrics on the test split come from; ``first``: of the first seed's trainings alone."""
    if summary.training is None:
        return ""
    examples = summary.training.num_test_examples
    counted = [f"{format_count(examples)} examples"] if examples else []
    split = f"test split of {summary.data.name}, touched once per network"
    return "; ".join([split, *counted, *_training_conditions(summary, first)])


def curves_source(summary: StudySummary) -> str:
    """Where the curves of a training come from."""
    if summary.training is None:
        return ""
    examples = summary.data.num_validation
    counted = [f"{format_count(examples)} validation examples"] if examples else []
    split = f"training and validation splits of {summary.data.name}"
    several = any(row.curves for row in summary.training.networks)
    bands = ["bands from the least to the most of all seeds"] if several else []
    return "; ".join([split, *counted, *bands, *_training_conditions(summary)])


def _training_conditions(summary: StudySummary, first: bool = False) -> list[str]:
    training = summary.training
    assert training is not None
    epochs = {row.num_epochs for row in training.networks if row.num_epochs}
    repeats = [each.seed for row in training.networks for each in row.tests if not first]
    every = [*(row.seed for row in training.networks), *repeats]
    seeds = list(dict.fromkeys(seed for seed in every if seed is not None))
    many = f"mean ± standard deviation of {len(seeds)} trainings each, seeds"
    parts = [f"{many if len(seeds) > 1 else 'one training each, seed'} {', '.join(map(str, seeds))}"] if seeds else []
    if len(epochs) == 1:
        parts.append(counted(epochs.pop(), "epoch"))
    device = training.device or summary.device
    seconds = sum(row.wall_s or 0.0 for row in training.networks)
    return [*parts, f"{format_duration(seconds)} on {device}" if seconds else device]


def additivity_source(summary: StudySummary) -> str:
    """How measured resources were measured."""
    return "; ".join(dict.fromkeys(_measuring(each) for each in summary.additivity))


def whole_source(summary: StudySummary) -> str:
    """How the chosen network, the base and a sweep's points were measured whole."""
    return "; ".join(dict.fromkeys(f"all in turns, {_measuring(each)}" for each in summary.whole))


def pace(summary: StudySummary) -> str:
    """That all sums of blocks are off alike, which says nothing of how well costs add up; "" where they are not."""
    return " ".join(filter(None, map(_pace_of, summary.whole)))


def _pace_of(known: MeasuredWhole) -> str:
    off = [row.summed / row.measured - 1 for row in known.networks if row.measured]
    if len(off) < 2 or (min(off) < OTHER_PACE and max(off) > -OTHER_PACE):
        return ""
    shares = dict.fromkeys(format_percent(abs(each)) for each in sorted((min(off), max(off)), key=abs))
    way = "more" if off[0] > 0 else "less"
    return (
        f"All sums of {resource_name(known.resource)} are {' to '.join(shares)} {way} than what "
        "was measured here: the machine ran at another pace while blocks were measured. Limits relative to the base "
        "are not touched by that; with limits in the resource's own unit, what was measured whole is what counts."
    )


def _measuring(known: ResourceAdditivity | MeasuredWhole) -> str:
    threads = counted(known.num_threads, "thread")
    return f"faster half of {known.num_repeats} runs after warm-up; batch {known.batch_size}, {threads}; {known.device}"
