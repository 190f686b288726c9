"""What a study says in the end: what is proven to be predicted best, what was chosen, and why these differ.

Two networks are told apart everywhere a person or a program reads: the *best
predicted* one is the optimum of the selection program under the last fit, and
that is what a proof is about; the *chosen* one is the best that was really evaluated.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas_core.records.evaluations import Evaluation
from nas_core.space.equivalence import equivalents
from nas_core.space.genotypes import Genotype
from nas_core.study.snapshot import Snapshot

PROVEN = "optimal"  # the status of a selection that is
UNVERIFIED = "The best predicted network is chosen by its prediction alone: nothing has been verified yet."


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The best predicted network and the chosen one; metrics in the metric's own unit.

    ``evaluated`` and ``chosen_evaluated`` are None for a network that was not
    evaluated; before anything is ``verified`` the best predicted one is the
    choice. ``why`` says in a sentence why the two are one network or not,
    ``cautions`` what of the predictor has to be known beside its best.
    """

    best_predicted: str
    predicted: float
    interval: tuple[float, float]
    evaluated: float | None
    proven: bool
    chosen: str
    chosen_evaluated: float | None
    verified: bool
    why: str
    cautions: tuple[str, ...] = ()
    rated_again: bool = False  # the chosen one is the best of the finalists, which were rated once more

    @property
    def same(self) -> bool:
        """Whether the best predicted network is the chosen one."""
        return self.best_predicted == self.chosen

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "interval": list(self.interval), "cautions": list(self.cautions)}


def outcome_of(
    answer: Mapping[str, Any], chosen: str | None, known: Snapshot, ended: str = "", finalists: Collection[str] = ()
) -> Outcome | None:
    """The outcome by the program's last answer (``Answer.as_dict``); None where it names no network.

    ``chosen`` is None where nothing was verified: then the best predicted
    network is the choice. ``ended`` says why verification ended, ``finalists``
    were rated once more.
    """
    if not answer["selections"]:
        return None
    best = answer["selections"][0]
    mine = chosen or best["genotype"]
    rows = {row.genotype: row for row in known.evaluations}
    seen = _evaluation(best["genotype"], rows, known)
    low, high = best["interval"]
    return Outcome(
        best_predicted=best["genotype"],
        predicted=best["predicted"],
        interval=(low, high),
        evaluated=seen.metric if seen else None,
        proven=answer["status"] == PROVEN,
        chosen=mine,
        chosen_evaluated=known.measured.get(mine),
        verified=chosen is not None,
        why=_why(best["genotype"], seen, rows.get(chosen), ended, finalists) if chosen else UNVERIFIED,
        cautions=tuple(answer.get("cautions", ())),
        rated_again=mine in finalists,
    )


def _evaluation(genotype: str, rows: Mapping[str, Evaluation], known: Snapshot) -> Evaluation | None:
    """The evaluation of the network, or of one that computes the same."""
    if genotype in rows:
        return rows[genotype]
    alike = map(str, equivalents(known.space, Genotype.parse(genotype)))
    return next((rows[each] for each in alike if each in rows), None)


def _why(best: str, seen: Evaluation | None, chosen: Evaluation | None, ended: str, again: Collection[str]) -> str:
    """Why the best predicted network is the chosen one, or is not."""
    if chosen is None or chosen.metric is None:
        return "The evaluation of the chosen network is no longer stored; the same `mathnas run` makes it again."
    if chosen.genotype == best:
        of = "of the finalists, which were rated once more" if best in again else "of those evaluated"
        return f"The best predicted network is also the best {of}."
    if seen is None:
        cause = f", since {ended}" if ended else ""
        return f"The best predicted network was not evaluated{cause}; only evaluated networks are chosen."
    if seen.metric is None:
        return f"The evaluation of the best predicted network failed ({seen.message[:200]}), so another was chosen."
    other = "" if seen.genotype == best else f" (as {seen.genotype}, which computes the same)"
    ahead = chosen.metric - seen.metric if chosen.higher_is_better else seen.metric - chosen.metric
    if ahead > 0:
        return f"The best predicted network was evaluated, too{other}, and the chosen one did better."
    if ahead == 0:
        return f"The best predicted network was evaluated, too{other}, with the same result."
    told = f"; {seen.genotype} was rated better, but measured whole"
    if told in ended:
        why = ended.partition(told)[2].partition("; ")[0]
        return f"The best predicted network was rated better{other}, but measured whole{why}."
    if seen.genotype in again:
        return f"The best predicted network was rated better{other} at first, and worse with more work each."
    return f"The best predicted network was evaluated{other} after the choice was made, and did better."
