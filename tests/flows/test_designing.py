"""A designed network through the real engines: solved, trained, registered once; only what is missing is done again."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from nas_core.base.errors import InfeasibleError, StoreError
from nas_core.base.settings import read_as
from nas_core.deepmad.formulas import TINYNAS, rate
from nas_core.deepmad.structure import Structure
from nas_core.records.store import Store
from nas_core.study.analytic_config import AnalyticConfig
from nas_core.study.analytic_project import DesignProject
from nas_core.workloads import build_workload
from tasks.embedded_tracking import address
from tests.command import mathnas, mathnas_process, refused
from tests.conftest import config_of

EXAMPLE = Path(__file__).parents[2] / "flows/configs/deepmad.yaml"
PROGRAM = {
    "family": "mobilenet", "resolution": 16, "strides": [1, 2], "head": 32,
    "flops": "2 M", "params": 20_000, "rho": 0.6, "gap": 0.01, "cpu_s": 20,
}  # fmt: skip
RECIPE = {"epochs": 2, "batch_size": 64, "lr": 0.05, "augment": "none", "ema_decay": 0.9}


def config_with(**program):
    return AnalyticConfig.model_validate(
        {
            "name": "small",
            "program": {**PROGRAM, **program},
            "data": {"name": "digits", "validation_examples": 128},
            "train": {"recipe": RECIPE, "train_examples": 512},
            "cluster": {"training_cpus": 1},
        }
    )


@pytest.fixture(scope="module")
def finished(api, cluster, tmp_path_factory):
    """A small design, run to its end; a test that changes it works on a copy."""
    from flows.designing import design

    root = str(tmp_path_factory.mktemp("designs") / "small")
    design(config_with(), root)
    return root


@pytest.fixture
def project(finished):
    return DesignProject(config_with(), Store(finished))


def written(root):
    return {path: path.stat().st_mtime_ns for path in Path(root).rglob("*") if path.is_file()}


def test_the_answer_is_stored_with_what_is_proved(project):
    answer = project.answer
    rating = rate(Structure.from_dict(answer), TINYNAS)
    assert (answer["score"], answer["flops"], answer["params"]) == (rating.score, rating.flops, rating.params)
    assert answer["score"] <= answer["bound"]
    assert answer["gap"] <= 0.01
    assert project.store.paths("figures") == ["figures/entropy.png", "figures/structure.png"]


def test_the_designed_network_is_handed_over_as_any_winner_is(finished, project, tmp_path):
    done = mathnas("export", finished, "--to", tmp_path, "--format", "onnx,pt2")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        "architecture.json", "model.onnx", "model.pt2", "load.py", "README.md"
    }  # fmt: skip
    assert "agrees with torch on 360 test examples" in done.stdout
    accuracy = project.training["metrics"]["test"]["accuracy"]
    assert f"| {100 * accuracy:.2f} % |" in (tmp_path / "README.md").read_text()


def test_the_registered_model_has_the_measured_accuracy(project):
    import mlflow

    row, runs = project.training, project.output("tracking.json")
    mlflow.set_tracking_uri(address(project.store, runs))
    mlflow.set_registry_uri(address(project.store, runs))
    assert runs["model"]["uri"] == "models:/small@champion"
    model = mlflow.pytorch.load_model(runs["model"]["uri"])
    images, labels = build_workload(config_with().data).load((1, 16, 16)).load_test()
    with torch.no_grad():
        accuracy = float((model(images.float() / 255).argmax(1) == labels).float().mean())
    assert accuracy == pytest.approx(row["metrics"]["test"]["accuracy"], abs=0.002)
    assert project.output("registered.json")["test_accuracy"] == pytest.approx(
        row["metrics"]["test"]["accuracy"], abs=0.002
    )


def test_the_runs_say_what_was_proved_and_measured(project):
    import mlflow

    answer, runs = project.answer, project.output("tracking.json")
    client = mlflow.MlflowClient(tracking_uri=address(project.store, runs))
    found = {run.data.tags["mathnas.kind"]: run for run in map(client.get_run, runs["runs"].values())}
    assert set(found) == {"design", "winner"}
    parent, child = found["design"], found["winner"]
    for run in (parent, child):
        assert run.data.tags["mathnas.bound_kind"] == answer["bound_kind"]
        for name in ("score", "bound", "gap", "rho", "flops", "params"):
            assert run.data.metrics[name] == answer[name]
        assert run.data.metrics["solver_cpu_s"] == answer["cpu_s"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    tested = project.training["metrics"]["test"]
    assert {name: child.data.metrics[f"test_{name}"] for name in tested} == tested
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert names >= {"design.json", "design.yaml", "figures"}


def test_running_again_writes_nothing_but_its_lease(finished):
    from flows.designing import design

    before = written(finished)
    design(config_with(), finished)
    assert {path: at for path, at in written(finished).items() if ".lease" not in path.name} == {
        path: at for path, at in before.items() if ".lease" not in path.name
    }


def test_only_what_is_missing_is_done_again(finished, tmp_path):
    from flows.designing import design

    # without MLflow's database, whose paths lead to the original: the copy is logged and registered anew
    ignored = shutil.ignore_patterns("mlflow.db", "mlartifacts", "tracking.json")
    root = str(shutil.copytree(finished, tmp_path / "copy", ignore=ignored))
    store, kept = Store(root), ("design.json", "winner/winner/result.json")
    before = [store.read_bytes(path) for path in kept]
    store.delete("registered.json")
    store.delete("training.json")
    design(config_with(gap=0.5), root)  # the stored answer is closer than that
    assert [store.read_bytes(path) for path in kept] == before
    assert store.exists("registered.json")


def test_limits_that_nothing_keeps_stop_before_training(api, tmp_path):
    from flows.designing import design

    with pytest.raises(InfeasibleError, match="Not even the smallest structure keeps flops"):
        design(config_with(flops=1000, params=None, rho=None, cpu_s=1), str(tmp_path / "impossible"))


def test_a_study_and_a_design_do_not_share_a_root(tmp_path):
    from nas_core.study.study import Study

    Study.create(config_of(), str(tmp_path))
    with pytest.raises(StoreError, match="a root of its own"):
        DesignProject.create(config_with(), str(tmp_path))
    DesignProject.create(config_with(), str(tmp_path / "design"))
    with pytest.raises(StoreError, match="a root of its own"):
        Study.create(config_of(), str(tmp_path / "design"))


def test_its_status_is_said(finished, tmp_path):
    said = mathnas("status", finished)
    assert said.stdout.split() == ["design", "done", "train", "done", "register", "done"]
    DesignProject.create(config_with(), str(tmp_path))
    assert json.loads(mathnas("status", tmp_path, "--json").stdout) == {
        "stages": {"design": "missing", "train": "missing", "register": "missing"},
        "driver": None,
    }


def test_what_another_seed_trained_counts_as_missing(project):
    other = DesignProject(config_with().model_copy(update={"seed": 1}), project.store)
    assert other.status()["train"] == "missing"
    assert other.status()["register"] == "missing"


def test_the_example_is_valid():
    config = read_as(AnalyticConfig, EXAMPLE, {"program.flops": "1.5 M"})
    assert config.program.build_limits().flops == 1_500_000


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("program.flops=fast", "program.flops: found 'fast', expected"),
        ("program={rho: 0.5}", "without a limit the largest structure is the best"),
        ("program.strides=[3]", "program.strides.0"),
        ("program.colour=red", "expected one of the keys: family, resolution"),
        ("program.resolution=15", "a multiple of the total stride"),
        ("program.domain={growth: .nan}", "program.domain: growth"),
        ("program.latency_us=3", "a limit together with a latency table"),
        ("train.train_examples=5000", "train_examples"),
        ("space.name=tiny", "space"),
    ],
)
def test_a_wrong_design_is_one_clear_message(tmp_path, field, expected):
    assert expected in refused("run-design", EXAMPLE, "--root", tmp_path / "root", "--set", field)


def test_what_a_program_prints_for_programs(finished, tmp_path):
    path = tmp_path / "small.json"  # JSON is YAML
    path.write_text(config_with().model_dump_json())
    done = mathnas_process("run-design", path, "--root", finished, "--json")
    printed = json.loads(done.stdout)
    assert printed["score"] == DesignProject(config_with(), Store(finished)).answer["score"]
    assert printed["training"]["metric_name"] == "accuracy"
    assert 0 <= printed["training"]["test_accuracy"] <= 1
