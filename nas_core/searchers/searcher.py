"""The protocol of searchers: which networks to evaluate first, and which next. No torch here."""

import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nas_core.base.errors import NasError, PluginError, SpaceError
from nas_core.base.registry import Registered, Registry
from nas_core.base.settings import Section
from nas_core.prediction.settings import PredictConfig
from nas_core.program import Budget
from nas_core.records.evaluations import CostTable, EvaluationTable
from nas_core.searchers.designs import Design, make_design
from nas_core.searchers.settings import DesignConfig
from nas_core.space.genotypes import Genotype, SearchSpace


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What a searcher is given: the space, what was evaluated, what networks cost, and the limits.

    ``table`` has the evaluated networks that may be fitted (higher is better,
    whatever the metric's direction); ``tried`` are all that were evaluated,
    failed and held-out ones too. ``costs`` has a table per resource and
    resolution, in which every resource adds up; ``budgets`` are bounds on them.
    ``round`` counts from 0.
    """

    space: SearchSpace
    base: Genotype
    table: EvaluationTable
    tried: tuple[Genotype, ...]
    costs: Sequence[CostTable]
    budgets: Sequence[Budget]
    flops: CostTable | None
    predict: PredictConfig
    seed: int
    round: int


def within_limits(known: Knowledge, genotype: Genotype) -> bool:
    """Whether a network satisfies the budgets and the space's rules."""
    resolution = known.space.resolution_of(genotype)
    totals = {table.resource: table.total(genotype) for table in known.costs if table.resolution == resolution}
    return all(b.is_kept_by(totals[b.resource]) for b in known.budgets) and known.space.allows(genotype)


class Searcher(Registered, ABC):
    """Names the networks to evaluate: the first ones (the design), then some more, round by round."""

    needs_torch = False
    checks_the_optimum: ClassVar[bool] = True  # whether each round evaluates the program's best network first

    def __init__(self, settings: Section) -> None:
        self.settings: Any = settings

    def first(self, space: SearchSpace, design: DesignConfig, seed: int, flops: CostTable | None) -> Design:
        """The networks to evaluate before the first selection; the study's ``design:`` unless overridden."""
        return make_design(space, design, seed, flops)

    @abstractmethod
    def next(self, known: Knowledge, number: int) -> list[Genotype]:
        """At most ``number`` networks of the space, within rules and budgets, that were not tried; none: it stops."""

    def why_it_stops(self) -> str:
        """Why ``next`` gave none."""
        return "every network within the limits is evaluated"


SEARCHERS = Registry[Searcher]("searcher", Searcher)


def next_networks(searcher: Searcher, known: Knowledge, number: int) -> list[Genotype]:
    """What the searcher names next, the first ``number`` of it.

    Raises:
        PluginError: naming the searcher, where it fails or names what is no network of the space.
    """
    try:
        found = list(searcher.next(known, number))[:number]
    except Exception as error:
        if isinstance(error, NasError) and not isinstance(error, SpaceError):  # says itself what to do
            raise
        words = " ".join(str(error).split())[:300]
        raise _refused(searcher, f"{type(error).__name__}: {words}{_line_of(error, searcher)}") from error
    return [_checked(each, searcher, known.space) for each in found]


def _checked(given: Any, searcher: Searcher, space: SearchSpace) -> Genotype:
    if not isinstance(given, Genotype):
        raise _refused(searcher, f"{given!r:.100} of type {type(given).__name__}")
    try:
        return space.check(given)
    except SpaceError as error:
        raise _refused(searcher, f"{error.where}: {error.found}, not {error.expected}") from None


def _refused(searcher: Searcher, found: str) -> PluginError:
    expected = "a list of `Genotype`, networks of the study's space"
    advice = "What was evaluated is kept: mend the searcher and run again."
    return PluginError(f"searcher {searcher.name}, next()", found, expected, advice)


def _line_of(error: Exception, searcher: Searcher) -> str:
    """Where in the searcher's own file the error arose."""
    file = getattr(sys.modules.get(type(searcher).__module__), "__file__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(file).name} line {lines[-1]})" if file and lines else ""
