"""The science of mathnas: block scoring, prediction, selection, verification. Knows no prefect, ray or mlflow.

What people import stands here, and loads when it is first asked for; torch only
with what needs it::

    from nas_core import Study, figure
    study = Study.open("studies/mine")
    study.evaluations_frame(), study.select(["flops<=60%"], top=5), figure(study, "frontier")
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> module that has it
FRONT = {
    # studies
    "Study": "nas_core.study.study",
    "Snapshot": "nas_core.study.snapshot",
    "StudyConfig": "nas_core.study.config",
    "read_config": "nas_core.study.config",
    "parse_config": "nas_core.study.config",
    "figure": "nas_core.report.collect",
    "load": "nas_core.training.handover",
    # the program
    "SelectionProblem": "nas_core.program",
    "Budget": "nas_core.program",
    "solve": "nas_core.program",
    "top_k": "nas_core.program",
    "frontier": "nas_core.program",
    # what can be brought: classes to derive from, registries to file them in, shortcuts
    "Section": "nas_core.base.settings",
    "PathText": "nas_core.base.settings",
    "Family": "nas_core.families.family",
    "Chain": "nas_core.families.chain_family",
    "Part": "nas_core.families.family",
    "BlockKind": "nas_core.families.blocks",
    "StemKind": "nas_core.families.blocks",
    "HeadKind": "nas_core.families.blocks",
    "Alternative": "nas_core.families.model.alternatives",
    "Workload": "nas_core.workloads.workload",
    "DatasetWorkload": "nas_core.workloads.datasets",
    "Sample": "nas_core.workloads.workload",
    "Splits": "nas_core.workloads.workload",
    "Metric": "nas_core.workloads.metrics",
    "Scorer": "nas_core.scoring.scorer",
    "Profiler": "nas_core.costs.profiler",
    "Resource": "nas_core.records.resources",
    "Searcher": "nas_core.searchers.searcher",
    "Knowledge": "nas_core.searchers.searcher",
    "within_limits": "nas_core.searchers.searcher",
    "FAMILIES": "nas_core.families",
    "BLOCKS": "nas_core.families",
    "STEMS": "nas_core.families",
    "HEADS": "nas_core.families",
    "ALTERNATIVES": "nas_core.families.model.alternatives",
    "WORKLOADS": "nas_core.workloads",
    "SCORERS": "nas_core.scoring",
    "PROFILERS": "nas_core.costs",
    "SEARCHERS": "nas_core.searchers",
    "block": "nas_core.families.module_block",
    "scorer": "nas_core.scoring.function_scorer",
    "resource": "nas_core.costs.function_resource",
    "dataset_workload": "nas_core.workloads.datasets",
    # plain data
    "SearchSpace": "nas_core.space.genotypes",
    "Position": "nas_core.space.genotypes",
    "BlockSpec": "nas_core.space.genotypes",
    "Genotype": "nas_core.space.genotypes",
    "Rule": "nas_core.space.rules",
}

__all__ = ["__version__", *FRONT]


def __getattr__(name: str) -> Any:
    """What the front offers, imported when it is first asked for."""
    if name not in FRONT:
        raise AttributeError(f"module 'nas_core' has no attribute {name!r}")
    value = getattr(importlib.import_module(FRONT[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from nas_core.base.settings import PathText as PathText
    from nas_core.base.settings import Section as Section
    from nas_core.program import Budget as Budget
    from nas_core.program import SelectionProblem as SelectionProblem
    from nas_core.program import frontier as frontier
    from nas_core.program import solve as solve
    from nas_core.program import top_k as top_k
    from nas_core.study.config import StudyConfig as StudyConfig
    from nas_core.study.study import Study as Study
