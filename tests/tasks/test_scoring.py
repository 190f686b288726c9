"""What workers rated is stored as it comes; finalists are rated once more: once, whatever was cut off."""

import pytest

from nas_core.base.plugins import imported
from nas_core.scoring import SCORERS
from nas_core.scoring.function_scorer import scorer
from nas_core.scoring.train import TrainScorer
from nas_core.study.config import parse_config
from nas_core.study.contestants import has_whole_blocks, of_whole_blocks
from nas_core.study.rounds import (
    finalists,
    most_finalists,
    next_round,
    record_round,
    to_rate_again,
    verification,
)
from nas_core.study.study import Study
from tasks import worker
from tasks.scoring import prepare_scorer, rate_finalists
from tasks.worker import Evaluator, prepare_job, profile_job, study_job
from tests.conftest import config_of
from tests.flows.test_export_command import model_config
from tests.nas_core.scoring.studies import RECIPE, SUPERNET
from tests.nas_core.scoring.studies import study as digits_study
from tests.nas_core.study.test_rounds import without_answer


@pytest.fixture
def cut_off():
    """A scorer that is killed at the third network."""

    @scorer("cut-off", metric="number")
    def rated(genotype) -> float:
        """The first choice, and one."""
        if genotype.choices[0] == 2:
            raise KeyboardInterrupt
        return 1.0 + genotype.choices[0]

    yield
    SCORERS._entries.pop("cut-off")


def test_what_is_rated_one_by_one_is_stored_as_it_comes(cut_off, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "STORE_EVERY_S", 0.0)
    space = {"kind": "choices", "positions": {"a": [1, 2, 3], "b": [1, 2]}}
    config = parse_config({"space": space, "scorer": {"kind": "cut-off"}}, "test")
    study = Study.create(config, str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        Evaluator(study_job(study)).run(["0-0", "1-0", "2-0"])
    study.refresh()
    assert [row.genotype for row in study.evaluations()] == ["0-0", "1-0"]


IN_PIECES = """
import torch
from nas_core.base.settings import Section
from nas_core.scoring.scorer import SCORERS, Scorer

class Settings(Section):
    pass

@SCORERS.add
class Threads(Scorer):
    "Keeps with how many threads each of its pieces was made."

    name, Settings = "threads", Settings

    @property
    def pieces(self):
        return [piece for piece in "ab" if not self.store.exists(piece)]

    @property
    def num_pieces(self):
        return 2

    @property
    def prepared(self):
        return not self.pieces

    def prepare_pieces(self, pieces, on_progress):
        for piece in pieces:
            self.store.write_json(piece, torch.get_num_threads())

    def evaluate(self, genotypes):
        return []
"""


def test_a_piece_that_is_left_is_made_with_as_many_threads_as_among_all(cluster, tmp_path):
    """Its numbers depend on them, and so would what is found on where a run was interrupted."""
    plugin = tmp_path / "threads.py"
    plugin.write_text(IN_PIECES)
    try:
        config = config_of(plugins=[str(plugin)], scorer={"kind": "threads"})
        study = Study.create(config, str(tmp_path / "study"))
        prepare_scorer.fn(study)
        threads = study.store.read_json("a")
        study.store.delete("a")
        prepare_scorer.fn(study)
    finally:
        SCORERS.forget(imported.pop(str(plugin)).origin)
    assert study.store.read_json("a") == threads


def test_finalists_are_rated_once_and_a_second_run_chooses_the_same(cluster, tmp_path):
    study = Study.create(model_config(verify={"evaluations": 2, "per_round": 2}), str(tmp_path))
    job, quiet = study_job(study), lambda *_: None
    profile_job(job, ["flops", "params", "latency_ms"], [], quiet)
    prepare_job(job, (), quiet)
    Evaluator(job).run([str(each) for each in study.design.genotypes])
    study.refresh()
    plain = of_whole_blocks(study.snapshot)
    proposed = next_round(study.snapshot, study.outputs, 0)
    assert str(plain) in (*proposed, *map(str, study.design.genotypes))  # what is left to beat takes part
    Evaluator(job).run(proposed)
    study.refresh()
    record_round(study.snapshot, study.outputs, 0)
    assert next_round(study.snapshot, study.outputs, 1) == []
    assert any(has_whole_blocks(study.snapshot, each) for each in finalists(study.snapshot))
    first = without_answer(verification(study.outputs))
    last, *others = map(str, to_rate_again(study.snapshot, study.outputs))
    Evaluator(job, final=True).run(others)  # killed before the last
    assert rate_finalists.fn(study) == (1, 0)
    record = without_answer(verification(study.outputs))
    assert {row["genotype"] for row in record["finals"]} == {last, *others}
    assert record["winner"] == min(record["finals"], key=lambda row: row["metric"])["genotype"]
    assert len(study.evaluations()) == len(study.design.genotypes) + len(proposed)  # the longer ratings stay apart
    assert next_round(study.snapshot, study.outputs, 1) == []  # run again
    assert without_answer(verification(study.outputs)) == first
    assert rate_finalists.fn(study) == (0, 0)
    assert without_answer(verification(study.outputs)) == record


def test_finalists_of_shared_weights_are_trained_by_themselves_and_the_best_of_them_is_chosen(cluster, tmp_path):
    config = digits_study(
        {**SUPERNET, "final_recipe": RECIPE},
        profile={"resources": ["flops", "params"]},
        select={"limits": ["flops<=80%"]},
        verify={"evaluations": 0},
    )
    study = Study.create(config, str(tmp_path))
    job, quiet = study_job(study), lambda *_: None
    profile_job(job, ["flops", "params"], [], quiet)
    prepare_job(job, (), quiet)
    Evaluator(job).run([str(each) for each in study.design.genotypes])
    study.refresh()
    assert next_round(study.snapshot, study.outputs, 0) == []
    wanted = list(map(str, to_rate_again(study.snapshot, study.outputs)))
    assert len(wanted) == most_finalists(config) == 4
    assert rate_finalists.fn(study) == (4, 0)
    record = verification(study.outputs)
    alone = TrainScorer(TrainScorer.Settings(recipe=config.scorer.recipe), study.scorer.setting)
    trained = {row.genotype: row.metric for row in alone.evaluate(to_rate_again(study.snapshot, study.outputs))}
    assert {row["genotype"]: row["metric"] for row in record["finals"]} == trained  # not what shared weights say
    assert record["winner"] == max(trained, key=lambda genotype: trained[genotype])
    assert all(row.scorer_id == study.scorer_id for row in study.evaluations())
    assert rate_finalists.fn(study) == (0, 0)
