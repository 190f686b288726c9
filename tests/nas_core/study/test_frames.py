"""What a study knows as frames: each as far as it is known."""

from nas_core.costs import profile_blocks
from nas_core.study.study import Study

COSTS = {"flops", "params"}


def test_evaluations_have_their_costs_once_all_are_known(tabular_config, tmp_path):
    study = Study.create(tabular_config, str(tmp_path))
    study.store.add_costs(profile_blocks(study.family, study.config.profile, ["flops"]))
    genotypes = study.design.genotypes[:3]
    study.store.add_evaluations(study.scorer.evaluate(genotypes))
    study.refresh()
    frame = study.evaluations_frame()
    assert sorted(frame["genotype"]) == sorted(map(str, genotypes))
    assert not COSTS & set(frame.columns)
    study.store.add_costs(profile_blocks(study.family, study.config.profile, ["params"]))
    study.refresh()
    assert set(study.evaluations_frame().columns) >= COSTS
