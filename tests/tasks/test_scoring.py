"""Finalists are rated once more on the cluster: once, whatever was cut off."""

from nas_core.study.contestants import has_whole_blocks, of_whole_blocks
from nas_core.study.rounds import finalists, next_round, record_round, to_rate_again, verification
from nas_core.study.study import Study
from tasks.scoring import rate_finalists
from tasks.worker import Evaluator, prepare_job, profile_job, study_job
from tests.flows.test_export_command import model_config
from tests.nas_core.study.test_rounds import without_answer


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
    assert rate_finalists.fn(study) == 1
    record = without_answer(verification(study.outputs))
    assert {row["genotype"] for row in record["finals"]} == {last, *others}
    assert record["winner"] == min(record["finals"], key=lambda row: row["metric"])["genotype"]
    assert len(study.evaluations()) == len(study.design.genotypes) + len(proposed)  # the longer ratings stay apart
    assert next_round(study.snapshot, study.outputs, 1) == []  # run again
    assert without_answer(verification(study.outputs)) == first
    assert rate_finalists.fn(study) == 0
    assert without_answer(verification(study.outputs)) == record
