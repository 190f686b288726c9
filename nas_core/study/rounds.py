"""Solve, evaluate the best for real, refit, solve again, until the choice stands or a budget ends.

The record of rounds is ``verification.json``. A round's networks are written
before they are evaluated, so a run that is killed goes on with the same round.
A round is planned from one snapshot and closed from the next, which the next
round is planned from: one fit a round.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from nas_core.costs import is_measured_whole
from nas_core.program import solve
from nas_core.program.limits import parse_limit
from nas_core.program.result import Status
from nas_core.records.evaluations import Evaluation
from nas_core.scoring.scorer import SCORERS
from nas_core.searchers import Knowledge
from nas_core.searchers.refinement import Refinement, Round
from nas_core.searchers.searcher import next_networks
from nas_core.searchers.settings import VerifyConfig
from nas_core.space.equivalence import equivalents
from nas_core.space.genotypes import Genotype
from nas_core.study.choices import with_additive_limits
from nas_core.study.config import StudyConfig
from nas_core.study.contestants import has_whole_blocks, of_whole_blocks
from nas_core.study.outputs import Outputs, read_output
from nas_core.study.snapshot import AIMS_AT, Snapshot
from nas_core.study.stages import VERIFICATION
from nas_core.study.sweep import optima

Record = dict[str, Any]
MOST_MOVES = 4  # times that limits are moved
ROUNDS_OF_A_MOVE = 2
MEASURED_WHOLE = 8  # best evaluated networks that are
FINALISTS = 4  # of those that meet the limits then, the best that are rated once more
OF_WHOLE_BLOCKS = 2  # more of them, of whole blocks
TELLS_APART = 0.01  # share of a limit by which measured networks are told apart
MEETS = AIMS_AT + TELLS_APART  # share of a limit up to which a network measured whole is within it
USES_IT = 0.95  # share of a limit from which on a measured network uses it


def verification(outputs: Outputs) -> Record:
    """The record of rounds made from the present inputs; an empty one where there is none."""
    record, inputs = read_output(outputs.store, VERIFICATION), outputs.inputs_of("verify")
    if record is None or record["inputs"] != inputs:
        return {"inputs": inputs, "rounds": [], "winner": None, "winner_metric": None, "stands": False, "reason": ""}
    return record


def next_round(known: Snapshot, outputs: Outputs, index: int) -> list[str]:
    """The networks of round ``index`` (from 0); none when the choice stands or the budget is spent.

    The solver's best network comes first, if it was not evaluated yet; the
    others are those whose evaluation promises most, uncertainty counted.
    """
    record = verification(outputs)
    if index < len(record["rounds"]):
        return list(record["rounds"][index]["proposed"])
    refinement, config = _refinement(record), _budget_of(known.config.verify, record)
    count = refinement.num_next(config)
    proposed = _proposals(known, index, count) if count else []
    if not proposed:
        reason = refinement.stop_reason(config) or known.searcher.why_it_stops()
        ended = {"stands": _stands(record, count), "reason": reason, "answer": last_answer(known)}
        before = {name: value for name, value in record.items() if name != "finals"}  # of another choice, or made anew
        outputs.write(VERIFICATION, {**before, **_incumbent(known), **ended})
        return []
    predictions = known.predictor.predict(proposed)
    new_round = {
        "proposed": [str(genotype) for genotype in proposed],
        "predicted": [prediction.metric for prediction in predictions],
        "low": [prediction.low for prediction in predictions],
        "high": [prediction.high for prediction in predictions],
        "before": _incumbent(known)["winner_metric"],
    }
    outputs.write(VERIFICATION, {**record, "rounds": [*record["rounds"], new_round]})
    return list(new_round["proposed"])


def leave_room(known: Snapshot, outputs: Outputs) -> bool:
    """Hold limits on what is measured a little lower, before the first round; returns whether any is.

    Sums are as often too low as too high, and one measurement differs from the next: at the limit itself every
    second choice would be over it. Not where no network would be left within the limits.
    """
    record = verification(outputs)
    if record["rounds"] or record["winner"] or "held" in record:
        return False
    limited = sorted({budget.resource for budget in known.limits if budget.at_most is not None})
    held = {name: AIMS_AT for name in limited if is_measured_whole(name, known.config.profile)}
    if not held or solve(known.holding(held).problem_of_most(None)).status is Status.INFEASIBLE:
        return False
    outputs.write(VERIFICATION, {**record, "held": held})
    return True


def _budget_of(config: VerifyConfig, record: Record) -> VerifyConfig:
    """The settings, with another few rounds' evaluations for each time that limits were moved."""
    more = _of_moves(config, len(record.get("moved", ())))
    return config.model_copy(update={"evaluations": config.evaluations + more})


def _of_moves(config: VerifyConfig, moves: int) -> int:
    return ROUNDS_OF_A_MOVE * config.per_round * moves


def most_of_moves(config: VerifyConfig) -> int:
    """Networks that are evaluated at most beyond the budget, where limits are on what is measured whole."""
    return _of_moves(config, MOST_MOVES)


def last_answer(known: Snapshot) -> dict[str, Any]:
    """The program's answer by the fit to all that is known, and how many evaluations that is."""
    config = known.config.select
    asked = {"top": config.top, "min_distance": config.min_distance, "time_limit_s": config.time_limit_s}
    answer = known.answer(tuple(config.limits), **asked)  # type: ignore[arg-type]
    return {**answer.as_dict(), "num_evaluations": len(known.evaluations)}


def record_round(known: Snapshot, outputs: Outputs, index: int) -> Record:
    """Note what the networks of round ``index`` were measured at, and the best network so far; once."""
    record = verification(outputs)
    if "measured" in record["rounds"][index]:  # gone through again after an interruption: later rounds are known by now
        return record
    incumbent = _incumbent(known)
    before, after = record["rounds"][index]["before"], incumbent["winner_metric"]
    closed = {
        **record["rounds"][index],
        "measured": [known.measured.get(genotype) for genotype in record["rounds"][index]["proposed"]],
        "incumbent": incumbent["winner"],
        "incumbent_metric": after,
        "improved": after is not None and (before is None or _sign(known) * (after - before) > 0),
        "num_evaluations": len(known.evaluations),
    }
    rounds = [*record["rounds"][:index], closed, *record["rounds"][index + 1 :]]
    record = {**record, **incumbent, "rounds": rounds}
    outputs.write(VERIFICATION, record)
    return record


OTHERWISE = 0.1  # of a time, beyond which another measurement of the same network says something else


def record_whole(outputs: Outputs, rows: Sequence[Mapping[str, Any]]) -> None:
    """Record what whole networks (base, finalists, a sweep's points) were measured at, beside verification."""
    kept = ("genotype", "resource", "resolution", "status", "value", "spread", "num_repeats", "batch_size")
    measured = [{name: row[name] for name in (*kept, "num_threads", "device", "message")} for row in rows]
    outputs.write(VERIFICATION, {**verification(outputs), "whole": measured})


def retract_moves(outputs: Outputs, rows: Sequence[Mapping[str, Any]]) -> None:
    """Forget how limits were moved by measurements of which these rows say otherwise."""
    record = verification(outputs)
    before = {row["genotype"]: row["value"] for row in record.get("whole", ()) if row["status"] == "ok"}
    told = set(lowered_for(record))
    now = {row["genotype"]: row["value"] for row in rows if row["status"] == "ok"}
    again = told & before.keys() & now.keys()
    if any(abs(now[each] - before[each]) > OTHERWISE * before[each] for each in again):
        outputs.write(VERIFICATION, {**record, "held": {}, "moved": []})


def chosen_in_words(known: Snapshot, outputs: Outputs) -> str:
    """How the chosen network stands to the limits on what was measured of it whole."""
    record = verification(outputs)
    whole = _wholes(known, record).get(str(record["winner"]))
    if whole is None:
        return f"no limit from above is on their latency; {record['winner']} stays the chosen one."
    return f"the chosen one, {record['winner']}, {'is within the limits' if whole.meets else whole.in_words}."


def finalists(known: Snapshot) -> list[Genotype]:
    """The best evaluated networks within the limits: those that are measured whole, the best first.

    They are more than are rated once more, since some of them may be over a limit then.
    """
    return _best_of(known, _evaluated_within(known), MEASURED_WHOLE)


def _best_of(known: Snapshot, ordered: Sequence[Genotype], count: int) -> list[Genotype]:
    """The first ``count`` networks of an order.

    Where the scorer cuts blocks from a trained base and rates the best networks twice, the best of those made of
    whole blocks are added: they gain most from the second rating.
    """
    whole = [each for each in ordered if has_whole_blocks(known, each)] if _favours_whole_blocks(known) else []
    return list(dict.fromkeys((*ordered[:count], *whole[:OF_WHOLE_BLOCKS])))


def _evaluated_within(known: Snapshot) -> list[Genotype]:
    """The evaluated networks whose sums are within the limits, the best first."""
    metrics = {Genotype.parse(text): metric for text, metric in known.measured.items() if metric is not None}
    within = (genotype for genotype in metrics if known.within(genotype, known.limits))
    return sorted(within, key=lambda genotype: -_sign(known) * metrics[genotype])


def most_finalists(config: StudyConfig) -> int:
    """How many networks are rated once more, at most."""
    rates_again = SCORERS[config.scorer.kind].rates_again(config.scorer)
    return FINALISTS + _more_of_whole_blocks(config) if rates_again else 0


def most_measured_whole(config: StudyConfig) -> int:
    """How many networks are measured whole at a time, at most, the base left out."""
    return MEASURED_WHOLE + _more_of_whole_blocks(config)


def _more_of_whole_blocks(config: StudyConfig) -> int:
    scorer = SCORERS[config.scorer.kind]
    return OF_WHOLE_BLOCKS if scorer.cuts_off_blocks and scorer.rates_again(config.scorer) else 0


def _favours_whole_blocks(known: Snapshot) -> bool:
    return _more_of_whole_blocks(known.config) > 0


def to_rate_again(known: Snapshot, outputs: Outputs) -> list[Genotype]:
    """The finalists among which a longer rating chooses: the best that, where they were measured whole, meet limits.

    None where there is no choice among them.
    """
    record = verification(outputs)
    wholes = _wholes(known, record)
    meeting = [each for each in finalists(known) if (whole := wholes.get(str(each))) is None or whole.meets]
    found = _best_of(known, meeting, FINALISTS)
    return found if len(found) > 1 and record["winner"] in map(str, found) else []


def record_finals(known: Snapshot, outputs: Outputs, rows: Sequence[Evaluation]) -> None:
    """Note how the finalists were rated once more; the best of them is the winner, if any could be."""
    record, sign = verification(outputs), _sign(known)
    metrics = {row.genotype: row.metric for row in rows if row.metric is not None}
    failed = [row for row in rows if row.metric is None]
    best = sorted(metrics, key=lambda genotype: -sign * metrics[genotype])
    told, chosen = [record["reason"]] if record["reason"] else [], dict[str, Any]()
    if best:
        values = ", ".join(f"{metrics[genotype]:.4g}" for genotype in best)
        beside = "" if best[0] == record["winner"] else f", where {record['winner']} was before"
        told.append(
            f"of the {len(best)} best, rated once more by more work each ({values}), {best[0]} is the best{beside}"
        )
        finals = [{"genotype": genotype, "metric": metrics[genotype]} for genotype in best]
        chosen = {"winner": best[0], "winner_metric": known.measured[best[0]], "finals": finals}
    if failed:
        told.append(f"{len(failed)} of the {len(rows)} best could not be rated once more ({failed[0].message})")
    outputs.write(VERIFICATION, {**record, **chosen, "reason": "; ".join(told)})


def move_limits(known: Snapshot, outputs: Outputs) -> bool:
    """Adjust the limits that the program uses, so that networks meet the real ones measured whole; returns whether any.

    A whole network does not take just the sum of its blocks' costs. If the best
    one is over a limit, the program's limit is lowered; if it leaves room, it
    is raised, once, before any is lowered. The network for which one was lowered is measured again with the next, and
    where it meets the limits then, they are what they were asked for. The correction is the median of the
    finalists' ratios of whole to sum, less a margin (``AIMS_AT``), since a file
    takes more at one time than at another. If the sums are right but for the
    winner's, the best finalist that meets the limits becomes the winner.
    """
    record = verification(outputs)
    if record["winner"] is None:
        return False
    history, wholes = record.get("moved", ()), _wholes(known, record)
    best = wholes.get(str(record["winner"]))
    again = best is not None and best.meets and _meets_again(history, wholes)
    if best is None or (best.meets and (best.used >= USES_IT or history) and not again):
        return False
    held = dict(known.held)
    if len(history) >= MOST_MOVES:
        moved = {}
    else:
        moved = dict.fromkeys(held, 1.0) if again else _moved(held, list(wholes.values()), lower=not best.meets)
    if not moved:
        winner = next((genotype for genotype, whole in wholes.items() if whole.meets), record["winner"])
        if winner != record["winner"]:
            reason = f"{record['reason']}; {record['winner']} was rated better, but measured whole it {best.in_words}"
            chosen = {"winner": winner, "winner_metric": known.measured[winner], "reason": reason}
            outputs.write(VERIFICATION, {**record, **chosen})
        return False
    told = {"winner": record["winner"], "held": moved}
    held = {} if again else {**held, **moved}
    changed = {"held": held, "moved": [*history, told], "stands": False}
    *before, last = record["rounds"] or [None]
    if last is not None:  # within other limits it starts anew to be patient
        changed["rounds"] = [*before, {**last, "improved": True}]
    outputs.write(VERIFICATION, {**record, **changed})
    return True


def _meets_again(history: Sequence[Mapping[str, Any]], wholes: "Mapping[str, _Whole]") -> bool:
    """Whether the last limit was lowered for a network that meets the limits, measured once more."""
    if not history or not any(share < 1 for share in history[-1]["held"].values()):
        return False
    whole = wholes.get(str(history[-1]["winner"]))
    return whole is not None and whole.meets


def lowered_for(record: Record) -> list[str]:
    """The networks for which limits were moved: they are measured again with those chosen afterwards."""
    return [str(move["winner"]) for move in record.get("moved", ())]


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """A network measured whole, by resource: the share of the limit that it uses, and what it takes over its sum."""

    shares: Mapping[str, float]
    ratios: Mapping[str, float]

    @property
    def used(self) -> float:
        return max(self.shares.values())

    @property
    def meets(self) -> bool:
        """Whether its file keeps the limits, each time it is measured."""
        return self.used <= MEETS

    @property
    def in_words(self) -> str:
        near = f"takes {100 * self.used:.1f} % of a limit, too much to keep it each time"
        return "is over a limit" if self.used > 1 else near


def _wholes(known: Snapshot, record: Record) -> dict[str, _Whole]:
    """The finalists that were measured whole, the best first. Percentages are of the base as measured with them."""
    rows: dict[str, dict[str, float]] = {}  # genotype -> resource -> value
    for row in record.get("whole", ()):
        if row["status"] == "ok":
            rows.setdefault(row["genotype"], {})[row["resource"]] = row["value"]
    base, costs = rows.get(str(known.base), {}), known.costs_of(known.base)
    found = {}
    chosen = [record["winner"]] if record["winner"] is not None else []
    again = [row["genotype"] for row in record.get("finals", ())]  # the best of those first
    for genotype in dict.fromkeys((*chosen, *again, *map(str, finalists(known)), *lowered_for(record))):
        own, shares, ratios = known.costs_of(Genotype.parse(genotype)), dict[str, float](), dict[str, float]()
        for limit in map(parse_limit, known.config.select.limits):
            budget = limit.resolve(costs)
            name, value = budget.resource, rows.get(genotype, {}).get(budget.resource)
            if value is None or name not in base or budget.at_most is None or limit.at_most is None:
                continue
            scale = base[name] / costs[name] if limit.at_most.unit == "%" else 1.0
            shares[name] = max(shares.get(name, 0.0), value / (budget.at_most * scale))
            ratios[name] = value / (own[name] * scale)
        if shares:
            found[genotype] = _Whole(shares=shares, ratios=ratios)
    return found


def _moved(held: Mapping[str, float], wholes: Sequence[_Whole], *, lower: bool) -> dict[str, float]:
    """What resources are to be held at, as shares of their limits; empty where the sums are right as they are."""
    moved, nearest = {}, min(wholes, key=lambda whole: whole.used)
    for name in wholes[0].shares:
        before, fits = held.get(name, 1.0), 1 / median(whole.ratios[name] for whole in wholes if name in whole.ratios)
        aimed, none_meets = AIMS_AT * fits, nearest.shares.get(name, 0.0) > MEETS
        if lower and none_meets:
            aimed = min(aimed, AIMS_AT * before / nearest.shares[name])
        too_high = none_meets or aimed < min(before, AIMS_AT) * (1 - TELLS_APART)
        if too_high if lower else (aimed > before * (1 + TELLS_APART)):
            moved[name] = aimed
    return moved


def _sign(known: Snapshot) -> int:
    return 1 if all(row.higher_is_better for row in known.evaluations) else -1


def _stands(record: Record, count: int) -> bool:
    """Whether refinement ended because nothing better was found, not because the budget did."""
    rounds = record["rounds"]
    return count > 0 or (bool(rounds) and not rounds[-1]["improved"])


def _refinement(record: Record) -> Refinement:
    rounds = [
        Round(
            proposed=tuple(map(Genotype.parse, row["proposed"])),
            predicted=tuple(row["predicted"]),
            measured=tuple(row["measured"]),
            incumbent=Genotype.parse(row["incumbent"] or row["proposed"][0]),
            incumbent_metric=math.nan if row["incumbent_metric"] is None else row["incumbent_metric"],
            improved=row["improved"],
        )
        for row in record["rounds"]
    ]
    return Refinement(rounds=tuple(rounds))


def _incumbent(known: Snapshot) -> dict[str, Any]:
    """The best network that was really evaluated and is within the limits."""
    found = known.best_evaluated(known.limits)
    if found is None:
        return {"winner": None, "winner_metric": None}
    return {"winner": str(found[0]), "winner_metric": found[1]}


def _proposals(known: Snapshot, index: int, count: int) -> list[Genotype]:
    tables, additive = with_additive_limits(known.cost_tables, known.limits)
    tried = [Genotype.parse(row.genotype) for row in known.evaluations]
    first = _solvers_best(known, tried)[:count] if known.searcher.checks_the_optimum else []
    if _favours_whole_blocks(known) and (whole := of_whole_blocks(known)) and whole not in (*tried, *first):
        first = [*first[: count - 1], whole]
    knowledge = Knowledge(
        space=known.space,
        base=known.base,
        table=known.whole_table,
        tried=(*tried, *first),
        costs=[table for mine in tables.values() for table in mine.values()],
        budgets=additive,
        flops=known.flops,
        predict=known.config.predict,
        seed=known.config.seed,
        round=index,
    )
    return [*first, *next_networks(known.searcher, knowledge, count - len(first))]


def _solvers_best(known: Snapshot, tried: Sequence[Genotype]) -> list[Genotype]:
    """The program's optimum and those of a sweep, but for what (or what computes the same as what) was tried."""
    result = solve(known.problem(known.limits), time_limit_s=known.config.select.time_limit_s)
    best = [*(choice.genotype for choice in result.selections[:1]), *optima(known)]
    done = {alike for genotype in tried for alike in equivalents(known.space, genotype)}
    new = []
    for genotype in best:
        if genotype not in done:
            new.append(genotype)
            done |= set(equivalents(known.space, genotype))
    return new
