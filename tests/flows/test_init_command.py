"""The configuration to begin with: made of what is registered."""

import yaml

from flows.init_command import commented_config
from nas_core.base.registry import summary_of
from nas_core.families import FAMILIES
from nas_core.scoring import SCORERS
from nas_core.searchers import SEARCHERS
from nas_core.workloads import WORKLOADS

SECTIONS = {"space": FAMILIES, "data": WORKLOADS, "scorer": SCORERS, "searcher": SEARCHERS}


def test_kinds_come_first_and_all_of_them_are_described():
    text = " ".join(commented_config().replace("#", " ").split())
    read = yaml.safe_load(commented_config())
    for section, registry in SECTIONS.items():
        assert next(iter(read[section])) == "kind"
        for name in registry:
            assert f"{name} {summary_of(registry[name])}" in text


def test_what_a_profiler_can_be_told_is_there():
    assert yaml.safe_load(commented_config())["profile"]["profilers"]["latency"]["repeats"] == 30
