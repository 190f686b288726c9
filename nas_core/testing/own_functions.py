"""A study's own functions, called for a few of its networks and all of its blocks, as the run will call them."""

import tempfile

import numpy as np

from nas_core.costs import profiler_of
from nas_core.costs.function_resource import FunctionProfiler
from nas_core.records.store import Store
from nas_core.scoring.function_scorer import FunctionScorer
from nas_core.study.brought import family_of, scorer_of
from nas_core.study.config import StudyConfig
from nas_core.testing.contracts import Failure

TRIED = 4  # networks, some of which may be none that can be rated


def check_functions(config: StudyConfig) -> dict[tuple[str, str], list[Failure]]:
    """(kind, name) of the functions that the study is to be run with -> what fails; nothing where they can be called.

    A scorer fails where it rates none of the networks, a resource where a block has no value.
    """
    family = family_of(config)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        scorer = scorer_of(config, family, Store(folder))
        if isinstance(scorer, FunctionScorer):
            rng = np.random.default_rng(config.seed)
            genotypes = list(dict.fromkeys(scorer.family.space.sample(rng) for _ in range(TRIED)))
            rows = scorer.evaluate(genotypes)[: len(genotypes)]
            messages = [f"{row.genotype}: {row.message}" for row in rows if row.status == "failed"]
            wrong = messages if len(messages) == len(rows) else []
            found["scorer", scorer.name] = _first("scorer", scorer.name, "networks of the study can be rated", wrong)
    for resource in config.profile.resources:
        profiler = profiler_of(resource, config.profile)
        if isinstance(profiler, FunctionProfiler):
            costs = profiler.measure(family, [], [resource], blocks=True)
            wrong = [f"{cost.position}-{cost.choice}: {cost.message}" for cost in costs if cost.status == "failed"]
            name = profiler.name
            found["profiler", name] = _first("profiler", name, "every block of the study has a value", wrong)
    return found


def _first(kind: str, name: str, promise: str, wrong: list[str]) -> list[Failure]:
    more = f"; {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return [Failure(kind=kind, name=name, promise=promise, found=wrong[0] + more)] if wrong else []
