"""Which networks are measured whole to say how additive a measured cost is, and when that is done."""

from dataclasses import replace

from nas_core.costs import profile
from nas_core.space.genotypes import Genotype
from nas_core.study.profiled import additivity_sample, is_profiled
from nas_core.study.study import Study
from tests.nas_core.scoring.studies import study as digits_study


def test_the_first_network_of_the_space_is_one_of_those_measured_whole(tmp_path):
    """Networks drawn may all take about as long: a line through them would say anything of the others."""
    config = digits_study({"kind": "train"})
    for number in (0, 1, 5):
        given = config.model_copy(update={"profile": config.profile.model_copy(update={"networks": number})})
        sample = additivity_sample(Study.create(given, str(tmp_path / str(number))).snapshot)
        assert len(set(sample)) == len(sample) == number
        assert sample[:1] == [Genotype((0,) * len(each.choices)) for each in sample[:1]]


def test_more_networks_that_are_to_be_measured_whole_leave_the_stage_partial(tmp_path):
    latency = {"resources": ["flops", "latency_ms"], "profilers": {"latency": {"repeats": 3, "warmup": 1}}}
    config = digits_study({"kind": "train"}, profile={**latency, "networks": 3})
    study = Study.create(config, str(tmp_path / "study"))
    rows = profile(study.family, additivity_sample(study.snapshot), config.profile, list(study.profiler_ids))
    study.store.replace_costs([replace(row, profiler_id=study.profiler_ids[row.resource]) for row in rows])
    assert Study.create(config, study.store.root).status_of("profile").state == "done"
    more = digits_study({"kind": "train"}, profile={**latency, "networks": 5})
    again = Study.create(more, study.store.root)
    assert again.status_of("profile").state == "partial"
    assert [is_profiled(again.snapshot, name) for name in ("flops", "latency_ms")] == [True, False]
