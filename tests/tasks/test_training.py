"""The winner's training and its comparisons: what diverges is named, and the others go on."""

import pytest

from nas_core.base.errors import IncompleteTableError
from nas_core.costs import profile_blocks
from nas_core.study.contestants import Candidate, Training
from nas_core.study.stages import SELECTION
from nas_core.study.study import Study
from tasks.training import parted, train
from tasks.worker import study_job, train_job
from tests.conftest import config_of

pytestmark = pytest.mark.situations

WINNER, BASE = (
    Training(candidate=Candidate(name=role, role=role, genotype=text), name=role, seed=0)
    for role, text in (("winner", "1-2-1"), ("base", "2-2-2"))
)
AGAIN = Training(candidate=WINNER.candidate, name="winner-s1", seed=7)
DIVERGES = {
    "epochs": 20,
    "batch_size": 64,
    "lr": 100.0,
    "weight_decay": 1.0,
    "augment": "none",
}  # weights times -99, 20 times


def test_a_comparison_that_diverges_is_named_and_left_out():
    results = [{"metrics": {}}, {"diverged": "epoch 1: found loss nan"}]
    trained, diverged = parted([WINNER, BASE], results)
    assert trained == [(WINNER, results[0])]
    assert diverged == [{"role": "base", "genotype": "2-2-2", "message": "epoch 1: found loss nan"}]


def test_a_winner_that_diverges_stops_the_stage_by_name():
    with pytest.raises(IncompleteTableError, match=r"training of the winner 1-2-1: found epoch 1: .*train\.recipe"):
        parted([WINNER, BASE], [{"diverged": "epoch 1: found loss nan"}, {"metrics": {}}])


def test_a_winner_that_diverges_from_another_seed_is_named():
    trained, diverged = parted([WINNER, AGAIN], [{"metrics": {}}, {"diverged": "epoch 2: found loss nan"}])
    assert [item for item, _ in trained] == [WINNER]
    assert diverged[0]["message"] == "from seed 7: epoch 2: found loss nan"


def test_trainings_that_are_there_already_are_counted_as_reused(cluster, tmp_path):
    """Each seed's is one, though all of a network's are one row."""
    recipe = {"epochs": 1, "batch_size": 64, "augment": "none"}
    alone = {"recipe": recipe, "train_examples": 64, "seeds": 3, "compare_base": False, "compare_random": 0}
    study = Study.create(config_of(train=alone), str(tmp_path))
    study.store.add_costs(profile_blocks(study.family, study.config.profile, ["flops", "params"]))
    chosen = {"genotype": WINNER.candidate.genotype, "predicted": 0.5, "costs": {}}
    answer = {"status": "optimal", "limits": [], "selections": [chosen], "solve_s": 0.0}
    study.outputs.write(SELECTION, {**answer, "inputs": study.inputs_of("select")})
    first, again = train.fn(study), train.fn(study)
    assert (first["num_new"], first["num_reused"]) == (3, 0)
    assert (again["num_new"], again["num_reused"]) == (0, 3)


def test_a_worker_says_that_a_training_diverged(tmp_path):
    train = {"recipe": DIVERGES, "train_examples": 64, "compare_random": 0}
    study = Study.create(config_of(train=train), str(tmp_path))
    result = train_job(study_job(study), BASE, lambda *_: None)
    assert "no finite numbers" in result["diverged"] or "expected a finite" in result["diverged"]
