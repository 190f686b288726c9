"""The whole study through the real engines: Prefect, Ray, MLflow; what is done is not done again."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nas_core.base.errors import IncompleteTableError, InfeasibleError, StoreError
from nas_core.records.evaluations import Evaluation
from nas_core.records.lease import hold
from nas_core.records.store import Store
from nas_core.study.config import parse_config
from nas_core.study.rounds import next_round
from nas_core.study.stages import STAGES
from nas_core.study.study import Study
from nas_core.workloads.metrics import Metric
from tasks.embedded_tracking import address
from tests.command import mathnas, mathnas_process, refused
from tests.conftest import config_of
from tests.nas_core.families import unusual


@pytest.fixture(scope="module")
def finished(api, cluster, tmp_path_factory):
    """A tiny study on real images, run to its end; tests that change it take ``copied``."""
    from flows.study import run_study

    root = str(tmp_path_factory.mktemp("study") / "tiny")
    run_study(config_of(), root)
    return root


@pytest.fixture
def copied(finished, tmp_path):
    """The finished study in a folder of its own, without MLflow's database, whose paths lead to the original."""
    root = shutil.copytree(finished, tmp_path / "copy", ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    return str(root)


def parts(root):
    return set(Study.open(root).store.paths("evaluations"))


def test_every_stage_is_done(finished):
    assert {stage: row.state for stage, row in Study.open(finished).status().items()} == dict.fromkeys(STAGES, "done")


def test_the_design_is_evaluated_once_each(finished):
    study = Study.open(finished)
    rows = study.evaluations()
    assert len({row.genotype for row in rows}) == len(rows)
    assert {str(genotype) for genotype in study.design.genotypes} <= {row.genotype for row in rows}
    assert all(row.status == "ok" and 0 <= row.metric <= 1 and row.split == "validation" for row in rows)


def test_the_winner_is_within_the_limits_and_evaluated(finished):
    study = Study.open(finished)
    from nas_core.space.genotypes import Genotype

    winner = Genotype.parse(study.winner)
    assert study.within(winner, study.budgets(study.config.select.limits))
    assert study.winner in {row.genotype for row in study.evaluations()}


def test_the_winner_is_registered_and_loads_back_the_same(finished):
    study = Study.open(finished)
    registered = study.output("registered.json")
    assert registered["test_accuracy"] == pytest.approx(registered["trained_test_accuracy"], abs=0.002)
    runs = study.output("tracking.json")
    assert runs["model"]["uri"] == "models:/tiny@champion"
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=address(study.store, runs))
    parent = client.get_run(runs["runs"]["study"])
    assert parent.data.params["space.kind"] == "tiny"
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} >= {"report.html", "figures", "study.yaml"}
    children = [client.get_run(run) for key, run in runs["runs"].items() if key != "study"]
    assert {run.data.tags["mathnas.kind"] for run in children} == {"winner", "base"}
    assert all("test_accuracy" in run.data.metrics for run in children)


@pytest.mark.situations
def test_mlflows_pages_say_what_was_found(finished):
    import mlflow

    study = Study.open(finished)
    runs = study.output("tracking.json")
    where = address(study.store, runs)
    client = mlflow.MlflowClient(tracking_uri=where, registry_uri=where)
    parent = client.get_run(runs["runs"]["study"])
    said = parent.data.tags["mlflow.note.content"]
    [winner, base] = study.output("training.json")["networks"]
    assert f"**Winner** `{winner['genotype']}`" in said
    link = f"#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}/artifacts/report.html"
    assert link in said
    assert all(f"{100 * row['metrics']['test']['accuracy']:.2f} %" in said for row in (winner, base))
    assert "| network | test accuracy | multiply-adds | parameters |" in said
    took = {
        run.info.run_name: run.info.end_time - run.info.start_time
        for run in client.search_runs([parent.info.experiment_id])
    }
    assert took[f"winner {winner['genotype']}"] == pytest.approx(1000 * winner["wall_s"], abs=1)  # not the logging
    stages = study.records()
    worked_s = sum(stages[stage]["wall_s"] for stage in stages if stage != "report")
    assert took["tiny"] == pytest.approx(1000 * worked_s, abs=1)
    experiment = client.get_experiment(parent.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert runs["page"] == f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    version = client.get_model_version_by_alias("tiny", "champion")
    assert json.loads(version.tags["mathnas.class_names"]) == [str(digit) for digit in range(10)]
    given = study.store.read_json(winner["architecture_path"])["input"]
    of_one_size = {"values": "images of this size as floats in [0, 1]"}  # MLflow exports it anew; the files take any
    assert json.loads(version.tags["mathnas.preprocessing"]) == {**given, **of_one_size}
    assert f"test accuracy {winner['metrics']['test']['accuracy']:.4f}" in version.description
    assert client.get_registered_model("tiny").description == version.description


def test_the_registered_model_may_teach_another(finished, monkeypatch):
    import torch

    import tasks.worker  # noqa: F401 (says how models of MLflow's are fetched)
    from nas_core.training.settings import TeacherConfig
    from nas_core.training.teacher import load_teacher
    from nas_core.training.winner import load_deployed
    from nas_core.workloads.normalisation import Normalisation

    store = Study.open(finished).store
    given = TeacherConfig(model=store.read_json("tracking.json")["model"]["uri"])
    module, _ = load_deployed(store, "winner")
    images = torch.rand(4, *module.input_shape)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished}/mlflow.db")
    teach = load_teacher(given, 10, module.input_shape, Normalisation(), torch.device("cpu"))
    with torch.no_grad():
        assert torch.allclose(teach(images), module(images), atol=1e-4)


def test_the_report_is_one_page(finished):
    page = Study.open(finished).store.read_bytes("report.html")
    assert len(page) < 5_000_000
    assert Study.open(finished).winner.encode() in page


def test_what_programs_parse(finished):
    status = json.loads(mathnas_process("status", finished, "--json").stdout)
    assert status["stages"]["score"] == {"state": "done", "done": 7, "total": 7, "failed": 0}
    answer = json.loads(mathnas("select", finished, "--limit", "flops<=60%", "--top", "3", "--json").stdout)
    assert answer["status"] == "optimal"
    assert len(answer["selections"]) == 3
    assert answer["gap"] == 0
    for row in answer["selections"]:
        assert row["interval"][0] <= row["predicted"] <= row["interval"][1]
        assert row["costs"]["flops"] > 0
    predicted = [row["predicted"] for row in answer["selections"]]
    assert predicted == sorted(predicted, reverse=True)
    assert answer["bound"] == pytest.approx(predicted[0])


def test_running_again_evaluates_and_trains_nothing(finished):
    from flows.study import run_study

    before, trained = parts(finished), Study.open(finished).output("training.json")
    run_study(config_of(), finished)
    assert parts(finished) == before
    assert Study.open(finished).output("training.json") == trained


def test_running_a_finished_study_starts_no_engine(finished, tmp_path):
    """It answers as quickly as `mathnas status`, with what the report says."""
    config = tmp_path / "study.yaml"
    config.write_bytes(config_of().as_yaml())
    code = (
        "import sys\nfrom flows.cli import main\ntry:\n    main()\nfinally:\n"
        "    print(*{'prefect', 'ray', 'torch', 'mlflow'} & {name.partition('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", code, "run", str(config), "--root", finished, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    printed, end = json.JSONDecoder().raw_decode(done.stdout)
    assert not done.stdout[end:].strip(), "engines were imported"
    assert printed == Study.open(finished).output("report.json")


def test_a_finished_study_that_is_driven_is_refused_all_the_same(finished, tmp_path):
    config = tmp_path / "study.yaml"
    config.write_bytes(config_of().as_yaml())
    with hold(Store(finished)):
        assert "process" in refused("run", config, "--root", finished, call=mathnas_process)


def test_a_model_is_registered_once_though_the_server_went_away(copied, monkeypatch):
    """Its run is finished, the study's is not: the next report goes on there."""
    import mlflow

    from tasks import tracking

    study = Study.open(copied)
    study.store.delete("tracking.json")
    with monkeypatch.context() as away:
        away.setattr(mlflow.MlflowClient, "set_terminated", gone_after(1, mlflow.MlflowClient.set_terminated))
        with pytest.raises(ConnectionError):
            tracking.log_study(study)
    assert tracking.log_study(study)["model"]["version"] == "1"
    assert tracking.registered_model(study.store) is not None


def test_a_server_that_fails_is_not_taken_for_one_without_the_run(copied, monkeypatch):
    """A new run would be logged beside the one that is there."""
    import mlflow
    from mlflow.exceptions import MlflowException

    from tasks import tracking

    study = Study.open(copied)
    runs = tracking.log_study(study)["runs"]

    def busy(*_):
        raise MlflowException("the database is locked")

    with monkeypatch.context() as away:
        away.setattr(mlflow.MlflowClient, "get_run", busy)
        with pytest.raises(MlflowException, match="locked"):
            tracking.log_study(study)
    assert tracking.log_study(study)["runs"] == runs


@pytest.mark.parametrize(
    ("is_fraction", "trained", "off", "is_same"),
    [(True, 0.93, 0.004, True), (True, 0.93, 0.02, False), (False, 5e-4, 1e-3, False), (False, 5e-4, 1e-5, True)],
)
def test_a_registered_model_is_held_to_its_metrics_own_size(is_fraction, trained, off, is_same):
    from tasks.reporting import _tolerance

    metric = Metric(
        name="m", label="m", higher_is_better=True, is_fraction=is_fraction, counts_examples=is_fraction, of=max
    )
    assert (off <= _tolerance(metric, trained, num_examples=400)) == is_same


def gone_after(calls, method):
    left = [calls]

    def answering(*arguments, **words):
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionError("the server is away")
        return method(*arguments, **words)

    return answering


def test_files_of_a_trained_network_that_are_gone_are_noticed(copied):
    study = Study.open(copied)
    assert study.status()["train"].state == "done"
    study.store.delete("winner/winner/weights.safetensors")
    assert study.status()["train"].state == "partial"


def test_a_changed_limit_scores_nothing_again(copied):
    from flows.study import run_study

    changed = config_of(select={"limits": ["params<=80%"], "top": 1}, verify={"evaluations": 0})
    before = parts(copied)
    run_study(changed, copied, until="verify")
    assert parts(copied) == before
    assert Study.open(copied).output("selection.json")["limits"] == ["params<=80%"]


def test_a_deleted_output_is_made_again(copied):
    from flows.study import run_study

    study = Study.open(copied)
    before = parts(copied)
    study.outputs.forget("select")
    assert study.status()["select"].state == "missing"
    run_study(study.config, copied, until="select")
    assert Study.open(copied).status()["select"].state == "done"
    assert parts(copied) == before


def test_after_a_failed_selection_nothing_is_evaluated_again(copied):
    """Something stands where the answer belongs; once it is gone, the same command selects and evaluates nothing."""
    from flows.study import run_study

    study = Study.open(copied)
    config = study.config.model_copy(update={"select": study.config.select.model_copy(update={"top": 1})})
    answer = Path(copied) / "selection.json"
    answer.unlink()
    (answer / "in the way").mkdir(parents=True)
    before = parts(copied)
    with pytest.raises(StoreError):
        run_study(config, copied, until="select")
    (answer / "in the way").rmdir()
    answer.rmdir()
    run_study(config, copied, until="select")
    assert parts(copied) == before
    assert Study.open(copied).status()["select"].state == "done"


def test_impossible_limits_stop_before_anything_is_evaluated(api, cluster, tmp_path):
    from flows.study import run_study

    root = str(tmp_path / "impossible")
    with pytest.raises(InfeasibleError, match=r"select.limits: found flops<=1.*attainable: least flops"):
        run_study(config_of(select={"limits": ["flops<=1"]}), root)
    assert not parts(root)


def failed_rows(study, genotypes):
    return [
        Evaluation(
            space_id=study.space.space_id, scorer_id=study.scorer_id, genotype=str(genotype), seed=0, status="failed",
            metric=None, metric_name="mean_acc", higher_is_better=True, split="table", num_examples=0, wall_s=0.0,
            device="", message="loss is NaN",
        )
        for genotype in genotypes
    ]  # fmt: skip


def test_a_position_whose_alternatives_all_failed_is_named(api, cluster, tabular_config, tmp_path):
    from flows.study import run_study

    root = str(tmp_path / "failed")
    run_study(tabular_config, root, until="profile")
    study = Study.open(root)
    lost = [genotype for genotype in study.design.fit_genotypes if genotype.choices[2] != 0]
    study.store.add_evaluations(failed_rows(study, lost))
    with pytest.raises(IncompleteTableError, match=r"position 2 .*loss is NaN"):
        run_study(tabular_config, root, until="select")


def test_failures_that_are_retried_change_the_answer(api, cluster, tabular_config, tmp_path):
    """The failed network comes back good: selection, verification and what follows are of it, too."""
    from flows.study import run_study

    root = str(tmp_path / "mended")
    run_study(tabular_config, root, until="profile")
    study = Study.open(root)
    failed = failed_rows(study, study.design.fit_genotypes[-1:])
    study.store.add_evaluations([*failed, replace(failed[0], seed=7)])
    run_study(tabular_config, root, until="verify")
    assert Study.open(root).status()["score"].failed == 1
    assert study.records()["score"]["num_failed"] == 1
    done = mathnas("score", root, "--retry-failed", "--json")
    assert done.returncode == 0, done.stderr
    stages = json.loads(done.stdout)["stages"]
    assert (stages["score"]["failed"], stages["select"]["state"], stages["verify"]["state"]) == (
        0,
        "missing",
        "missing",
    )
    everything = study.store.evaluations(study.space.space_id, study.scorer_id)
    assert [row.status for row in everything if row.seed == 7] == ["failed"]


def test_what_verification_could_not_rate_is_counted(api, cluster, tabular_config, tmp_path):
    from flows.study import run_study

    root = str(tmp_path / "study")
    run_study(tabular_config, root, until="select")
    study = Study.open(root)
    proposed = next_round(study.snapshot, study.outputs, 0)
    study.store.add_evaluations(failed_rows(study, proposed[:1]))
    run_study(tabular_config, root, until="verify")
    record = study.records()["verify"]
    assert (record["num_failed"], record["num_reused"]) == (1, 1)
    assert record["num_new"] >= len(proposed) - 1


def test_a_block_that_could_not_be_measured_is_measured_again_when_asked(api, cluster, tabular_config, tmp_path):
    from flows.study import FLOWS, run_study

    root = str(tmp_path / "profile")
    run_study(tabular_config, root, until="profile")
    study = Study.open(root)
    rows = study.costs("params")
    lost = replace(rows[3], status="failed", value=None, message="out of memory")
    study.store.replace_costs([*rows[:3], lost, *rows[4:]])
    with pytest.raises(IncompleteTableError, match="mathnas profile"):
        Study.open(root).cost_tables  # noqa: B018
    FLOWS["profile"](tabular_config, root)
    assert Study.open(root).cost_tables


def test_a_network_that_is_no_program_goes_to_the_end_without_one(api, cluster, tmp_path):
    """It is found, trained, reported; its registered model alone is missing, as MLflow holds programs."""
    from flows.study import run_study

    config = parse_config(
        {
            "name": "no-program",
            "space": {"kind": "model", "model": f"{unusual.__file__}:fixed_size"},
            "data": {"kind": "digits", "train_examples": 200, "validation_examples": 100},
            "scorer": {"kind": "distil", "train": False, "recovery_steps": 0, "final_steps": 0, "samples": 32},
            "profile": {"resources": ["flops", "params"]},
            "select": {"limits": ["flops<=70%"]},
            "verify": {"evaluations": 0},
            "train": {"recipe": {"epochs": 1}, "compare": [], "compare_random": 0},
        },
        "no-program",
    )
    run_study(config, str(tmp_path / "study"))
    study = Study.open(str(tmp_path / "study"))
    winner = study.output("training.json")["networks"][0]
    assert winner["program_path"] == ""
    assert {stage: row.state for stage, row in study.status().items()} == dict.fromkeys(STAGES, "done")
    runs = study.output("tracking.json")
    assert "model" not in runs
    assert len(runs["runs"]) >= 2
    assert study.store.exists("report.html")
    assert not study.store.exists("registered.json")


def test_the_environment_is_left_as_it_was(finished):
    assert "RAY_ADDRESS" not in os.environ


@pytest.mark.situations
@pytest.mark.parametrize(
    ("path", "stage", "deleted"),
    [
        ("selection.json", "select", True),
        ("stages/report.json", "report", True),
        ("training.json", "train", False),
        ("report.json", "report", False),
    ],
)
def test_an_output_that_was_cut_short_is_said_alike_and_made_again(
    api, cluster, copied, tmp_path, path, stage, deleted
):
    config, file = tmp_path / "study.yaml", Path(copied) / path
    config.write_bytes(config_of().as_yaml())
    before, study = parts(copied), Study.open(copied)
    verified, networks = study.output("verification.json"), study.output("training.json")["networks"]
    cut = file.read_bytes()[:100]
    file.write_bytes(cut)
    said = refused("status", copied)
    assert said == refused("run", config, "--root", copied)
    assert said.startswith(f"mathnas: {file}: found a damaged file (")
    assert f"repeats stage {stage}; `--from {stage}` repeats those after it" in said
    assert file.read_bytes() == cut
    if deleted:
        file.unlink()
    done = mathnas("run", config, "--root", copied, *(() if deleted else ("--from", stage)))
    assert done.returncode == 0, done.stderr
    study = Study.open(copied)
    assert {row.state for row in study.status().values()} == {"done"}
    assert (parts(copied), study.output("verification.json")) == (before, verified)
    again = study.output("training.json")["networks"]
    assert [row["sha256"] for row in again] == [row["sha256"] for row in networks], "nothing is trained again"
