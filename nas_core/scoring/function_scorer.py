"""A scorer from a Python function: ``(genotype, or blocks, or module, ...) -> number``.

The function is called once per network, in a Ray worker. What it is given is
read off the names of its parameters: ``genotype``, ``blocks`` (one mapping per
position: kind and parameters), ``values`` (a list with one value per position,
in their order, of a space of plain choices), ``module`` (the network, fresh weights), ``workload``,
``seed``; its keyword-only parameters are its settings in the study.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal

from nas_core.base.callables import settings_of, wanted_of
from nas_core.base.errors import PluginError, UnknownNameError
from nas_core.base.identity import evaluation_seed
from nas_core.records.evaluations import Evaluation
from nas_core.scoring.scorer import SCORERS, Rows, Scorer
from nas_core.space.genotypes import Genotype
from nas_core.workloads.metrics import Measure

Function = Callable[..., float | Mapping[str, float]]
OFFERED = ("genotype", "blocks", "values", "module", "workload", "seed")


class FunctionScorer(Scorer):
    """What ``scorer`` makes of a function."""

    function: ClassVar[Function]
    wanted: ClassVar[tuple[str, ...]]
    directions: ClassVar[Mapping[str, bool]]  # metric -> whether more is better; the first is the scorer's own
    split = "function"
    one_by_one = True

    @property
    def measure(self) -> Measure:
        name = self.setting.metric or next(iter(self.directions))
        if name not in self.directions:
            raise UnknownNameError("metric", repr(name), f"one of: {', '.join(self.directions)}")
        return Measure.called(name, self.directions[name])

    def check(self, stored: Sequence[Evaluation] = ()) -> None:
        self.measure  # an unknown one is said before compute  # noqa: B018

    def work(self) -> None:
        """A function may do anything."""

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Evaluation]:
        made = [self._evaluate(genotype) for genotype in genotypes]
        return [own for own, _ in made] + [row for _, others in made for row in others]

    def _evaluate(self, genotype: Genotype) -> tuple[Evaluation, list[Evaluation]]:
        """The row of the study's metric, and those of the others that the function gave."""
        began = time.perf_counter()
        try:
            given = {name: getattr(self, f"_{name}")(genotype) for name in self.wanted}
            result = type(self).function(**given, **self._own_settings)
            metric = self._number(self.metric_name, result)
        except (Exception, SystemExit) as error:  # whatever goes wrong with one network is that network's row
            return self.rows.failed(genotype, error, time.perf_counter() - began), []
        wall_s, others = time.perf_counter() - began, []
        for name, rows in self._other_rows.items():
            with contextlib.suppress(Exception):  # a study that names this metric asks again
                others.append(rows.ok(genotype, self._number(name, result), 0, wall_s))
        return self.rows.ok(genotype, metric, 0, wall_s), others

    @cached_property
    def _other_rows(self) -> dict[str, Rows]:
        """Rows of the metrics that the study does not name, as the scorer of a study that does would make them."""
        others = [name for name in self.directions if name != self.metric_name]
        return {
            name: type(self)(self.settings, replace(self.setting, metric=name, known_as="")).rows for name in others
        }

    @property
    def _own_settings(self) -> dict[str, Any]:
        names = type(self).Settings.model_fields
        return {name: getattr(self.settings, name) for name in names}

    def _number(self, metric_name: str, result: float | Mapping[str, float]) -> float:
        if len(self.directions) > 1 and not isinstance(result, Mapping):
            raise TypeError(f"returned {result!r}, expected a mapping with {', '.join(self.directions)}")
        number = float(result[metric_name] if isinstance(result, Mapping) else result)
        if not math.isfinite(number):
            raise ValueError(f"{metric_name} is {number}")
        return number

    # what the function may ask for

    def _genotype(self, genotype: Genotype) -> Genotype:
        return genotype

    def _blocks(self, genotype: Genotype) -> list[dict[str, Any]]:
        positions = self.family.space.positions
        return [place.blocks[choice].as_dict() for place, choice in zip(positions, genotype.choices, strict=True)]

    def _values(self, genotype: Genotype) -> list[Any]:
        return [block.get("value") for block in self._blocks(genotype)]

    def _module(self, genotype: Genotype) -> Any:
        import torch

        return self.family.module(genotype, torch.Generator().manual_seed(self._seed(genotype)))

    def _workload(self, genotype: Genotype) -> Any:
        return self.workload

    def _seed(self, genotype: Genotype) -> int:
        return evaluation_seed(self.setting.seed, genotype)


def scorer(
    name: str,
    *,
    metric: str = "score",
    higher_is_better: bool = True,
    metrics: Mapping[str, Literal["higher", "lower"]] | None = None,
    duration: Literal["seconds", "minutes"] = "seconds",
    version: int = 1,
) -> Callable[[Function], Function]:
    """Register the function under it as a scorer.

    A function that returns a mapping gives several metrics: ``metrics`` names
    them with their directions, and ``metric:`` of the study chooses one. All of
    them are stored, so a study that chooses another evaluates nothing again.

    >>> @scorer("size", metric="bytes", higher_is_better=False)
    ... def size(values):
    ...     '''Bytes of the compiled program.'''
    ...     return float(len(values))

    Raises:
        PluginError: if the function takes what no scorer is given, has no docstring, or a metric no direction.
    """
    directions = {each: word == "higher" for each, word in (metrics or {}).items()} or {metric: higher_is_better}

    def register(function: Function) -> Function:
        if not (function.__doc__ or "").strip():
            raise PluginError(f"scorer {name}", "no docstring", "a first line that says what it rates")
        if wrong := {each: word for each, word in (metrics or {}).items() if word not in ("higher", "lower")}:
            raise PluginError(f"scorer {name}", f"metrics {wrong}", "higher or lower, whichever is better")
        wanted, settings = wanted_of(function, OFFERED), settings_of(function, function.__name__)
        if "batch" in settings.model_fields:
            raise PluginError(f"scorer {name}", "a setting called `batch`", "another name: networks come one by one")
        made = type(
            function.__name__,
            (FunctionScorer,),
            {
                "__doc__": function.__doc__,
                "__module__": function.__module__,
                "name": name,
                "version": version,
                "Settings": settings,
                "function": staticmethod(function),
                "wanted": wanted,
                "directions": directions,
                "duration": duration,
                "needs_data": "workload" in wanted,
                "needs_torch": "module" in wanted,
            },
        )
        SCORERS.add(made)
        return function

    return register
