"""What a winner is compared with is trained with as much work as its blocks have had before."""

import pytest

from nas_core.study.contestants import Candidate, trainings
from nas_core.study.head_start import more_epochs
from nas_core.study.study import Study
from nas_core.training.settings import TeacherConfig
from tasks.worker import prepare_job, profile_job, study_job, train_job
from tests.flows.test_export_command import model_config

EXAMPLES, DISTILLED, EPOCHS = 256, 320, 2
UNIFORM = Candidate(name="uniform", role="uniform", genotype="uniform 0.5", remade="rivals/uniform")


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return measured(tmp_path_factory.mktemp("study"))


def measured(root, *, train=True):
    config = model_config(data={"kind": "digits", "train_examples": DISTILLED, "validation_examples": 64})
    recipe = config.scorer.recipe.model_copy(update={"epochs": EPOCHS})
    sections = {
        "scorer": config.scorer.model_copy(update={"train": train, "recipe": recipe}),
        "profile": config.profile.model_copy(update={"resources": ["flops", "params"]}),
        "select": config.select.model_copy(update={"limits": ["flops<=90%"]}),
    }
    found = Study.create(config.model_copy(update=sections), str(root))
    profile_job(study_job(found), list(found.profiler_ids), [], quiet)
    found.refresh()
    return found


def candidates(study):
    """The winner, the model, a network of distilled blocks, one with a block left out, and one that is no network."""
    kinds = [[block.kind for block in position.blocks] for position in study.space.positions]
    place = next(place for place, blocks in enumerate(kinds) if "skip" in blocks)
    chosen = {kind: study.base.swap(place, kinds[place].index(kind)) for kind in ("linear", "skip")}
    return [
        Candidate(name="winner", role="winner", genotype=str(chosen["skip"])),
        Candidate(name="base", role="base", genotype=str(study.base)),
        Candidate(name="random-0", role="random", genotype=str(chosen["linear"])),
        Candidate(name="depth", role="depth", genotype=str(chosen["skip"])),
        UNIFORM,
    ]


def test_what_holds_no_distilled_block_is_trained_for_as_many_multiply_adds_more(study):
    found, own = candidates(study), study.flops.total(study.base)
    flops = {"winner": 0.0, "base": own, "random-0": 1.0, "depth": own / 2, "uniform": own / 4}
    more = more_epochs(study, found, {name: {"flops": value} for name, value in flops.items()})
    swaps = sum(sum(row[1:]) for row in study.flops.block)
    spent = EPOCHS * DISTILLED * (own + 3 * swaps)
    assert study.scorer.head_start(study.flops) == pytest.approx(spent)
    assert more == {name: round(spent / (EXAMPLES * 3 * flops[name]), 2) for name in ("base", "depth", "uniform")}


def test_a_teacher_that_is_asked_at_each_step_counts(study):
    recipe = study.config.train.recipe.model_copy(update={"teacher": TeacherConfig(model="own")})
    train = study.config.train.model_copy(update={"recipe": recipe})
    other = Study(study.config.model_copy(update={"train": train}), study.store)
    base, costs = candidates(study)[1:2], {"base": {"flops": study.flops.total(study.base)}}
    plain, asked = (more_epochs(each, base, costs)["base"] for each in (study, other))
    assert asked == pytest.approx(plain * 3 / 4, abs=0.01)


def test_without_distillation_all_are_trained_alike(tmp_path):
    assert more_epochs(measured(tmp_path, train=False), [UNIFORM], {"uniform": {"flops": 1.0}}) == {}


def test_a_longer_training_is_another_one(study):
    job, base = study_job(study), candidates(study)[1]
    prepare_job(job, (), quiet)
    (plain,), (longer,) = (trainings(study.snapshot, [base], more) for more in ({}, {"base": 1.5}))
    assert [train_job(job, each, quiet)["steps"] for each in (plain, longer)] == [4, 10]
    assert not train_job(job, longer, quiet)["new"]
