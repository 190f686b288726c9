"""Why no network is within limits on peak memory, in bytes, against every network of a small space."""

import pytest

from nas_core.base.errors import InfeasibleError
from nas_core.program import explain
from nas_core.study.peaks import as_asked
from nas_core.study.study import Study
from tasks.worker import profile_job, study_job
from tests.conftest import config_of

PEAK = "activation_bytes"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Costs of a small space, no evaluations; nothing changes it."""
    config = config_of(profile={"resources": ["flops", PEAK]}, select={"limits": []})
    study = Study.create(config, str(tmp_path_factory.mktemp("peaks")))
    profile_job(study_job(study), ["flops", PEAK], [], lambda *_: None)
    study.refresh()
    return study


def explained(study, *limits):
    """The explanation in the program's counts, and in bytes."""
    budgets = study.budgets(limits)
    counts = explain(study.snapshot.problem_of_most(None, budgets), time_limit_s=5)
    return counts, as_asked(study.snapshot, counts, budgets)


def within(study, *limits):
    budgets = study.budgets(limits)
    return [genotype for genotype in study.space.genotypes() if study.within(genotype, budgets)]


@pytest.mark.parametrize("others", [(), ("flops>=90%",), ("flops>=60%", "flops<=80%"), ("flops<=40%",)])
def test_the_least_that_is_attainable_is_said_in_bytes(study, others):
    peaks = [study.costs_of(genotype)[PEAK] for genotype in within(study, *others)]
    counts, found = explained(study, f"{PEAK}<=100", *others)
    assert found.least[PEAK] == min(study.costs_of(genotype)[PEAK] for genotype in study.space.genotypes())
    assert found.least_given_others[PEAK] == min(peaks)
    assert {name for name in (*found.least, *found.most) if "_over_" in name} == set()
    (relaxation,) = [each for each in found.relaxations if each.budget.resource == PEAK]
    assert relaxation.by == min(peaks) - 100
    assert "_over_" not in str(found) + repr(found.as_dict())
    assert "_over_" in repr(counts.as_dict())


def test_the_most_that_is_attainable_is_said_in_bytes(study):
    most = max(study.costs_of(genotype)[PEAK] for genotype in within(study, "flops<=40%"))
    _, found = explained(study, f"{PEAK}>=10 GB", "flops<=40%")
    (relaxation,) = [each for each in found.relaxations if each.budget.resource == PEAK]
    assert relaxation.by == pytest.approx(10e9 - most)
    assert found.most[PEAK] == max(study.costs_of(genotype)[PEAK] for genotype in study.space.genotypes())


def test_limits_on_other_resources_are_explained_as_they_were(study):
    counts, found = explained(study, "flops<=1%")
    assert found is counts


def test_a_limit_that_none_keeps_is_refused_in_bytes(study):
    config = study.config.model_copy(
        update={"select": study.config.select.model_copy(update={"limits": [f"{PEAK}<=1"]})}
    )
    with pytest.raises(InfeasibleError, match=rf"{PEAK} <= 1 cannot be met; attainable: least {PEAK} \d+;"):
        Study(config, study.store).snapshot.check_limits()
