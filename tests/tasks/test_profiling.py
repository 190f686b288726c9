"""Which networks are measured whole to say how additive a measured cost is."""

from nas_core.space.genotypes import Genotype
from nas_core.study.study import Study
from tasks.profiling import additivity_sample
from tests.nas_core.scoring.studies import study as digits_study


def test_the_first_network_of_the_space_is_one_of_those_measured_whole(tmp_path):
    """Networks drawn may all take about as long: a line through them would say anything of the others."""
    config = digits_study({"kind": "train"})
    for number in (0, 1, 5):
        given = config.model_copy(update={"profile": config.profile.model_copy(update={"networks": number})})
        sample = additivity_sample(Study.create(given, str(tmp_path / str(number))))
        assert len(set(sample)) == len(sample) == number
        assert sample[:1] == [Genotype((0,) * len(each.choices)) for each in sample[:1]]
