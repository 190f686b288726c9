"""What a study's configuration names, made: its family, workload, scorer, searcher. No torch at import."""

from typing import TYPE_CHECKING

from nas_core.families.family import FAMILIES, Family
from nas_core.families.member import Member
from nas_core.records.store import Store
from nas_core.scoring.scorer import SCORERS, Scorer, Setting
from nas_core.searchers.searcher import SEARCHERS, Searcher
from nas_core.space.genotypes import Architecture, Genotype, SearchSpace
from nas_core.study.config import StudyConfig
from nas_core.workloads import Workload, build_workload
from nas_core.workloads.metrics import Metric
from nas_core.workloads.workload import Sample, metric_of

if TYPE_CHECKING:
    from nas_core.study.analytic_config import AnalyticConfig


def workload_of(config: StudyConfig) -> Workload:
    """The data, loss and metrics; nothing is loaded yet."""
    return build_workload(config.data)


def family_of(config: StudyConfig, sample: Sample | None = None) -> Family:
    """The family of networks, made for the workload's sample where the scorer looks at data, else for its own.

    ``sample`` is the workload's where it is known already, so that the data need not be at hand.
    """
    family = FAMILIES[config.space.kind]
    if not SCORERS[config.scorer.kind].needs_data:
        return family(config.space, None)
    return family(config.space, sample or workload_of(config).sample)


def space_of(config: StudyConfig, family: Family) -> SearchSpace:
    """The family's space, with what the scorer knows of it: which networks compute the same function, say."""
    return SCORERS[config.scorer.kind].known_space(config.scorer, family.space)


def scorer_of(
    config: StudyConfig, family: Family, store: Store | None, device: str = "auto", known_as: str = ""
) -> Scorer:
    """What rates networks; ``device`` is ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.

    ``known_as`` is its id where that is known already.
    """
    setting = Setting(
        family=family,
        workload=workload_of(config),
        store=store,
        seed=config.seed,
        metric=config.metric,
        device=device,
        known_as=known_as,
    )
    return SCORERS[config.scorer.kind](config.scorer, setting)


def searcher_of(config: StudyConfig) -> Searcher:
    """What names the networks to evaluate."""
    return SEARCHERS[config.searcher.kind](config.searcher)


def described(family: Family, genotype: Genotype) -> Architecture | Member:
    """The network as something to train: its blocks and shapes where it is a chain, else a member of its family."""
    if family.space.is_chain:
        return family.space.architecture(genotype)
    return Member(family=family, genotype=family.space.check(genotype))


def trained_metric(config: "StudyConfig | AnalyticConfig") -> Metric:
    """What trained networks are compared by: the study's metric, where the data have it, else the data's first.

    A table's column, or a function's number, says nothing of trained networks.
    """
    workload = build_workload(config.data)
    return metric_of(workload, config.metric if config.metric in workload.metrics else "")
