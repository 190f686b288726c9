"""Models that MLflow has, fetched: as modules whose blocks can be changed, whatever they were logged as."""

import mlflow
import pytest
import torch
from mlflow.models import infer_signature

import tasks.worker  # noqa: F401 (knows how to fetch a model of MLflow's)
from nas_core.families.model.reference import Reference
from nas_core.families.trained_model import TrainedModel
from nas_core.space.genotypes import Genotype
from nas_core.testing.example_model import small_network
from nas_core.training.settings import TeacherConfig
from nas_core.training.teacher import load_teacher
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.workload import Sample

INPUTS = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def logged(tmp_path, monkeypatch):
    """A network, logged as MLflow does unless told otherwise, under the alias `prod`."""
    server = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    network = small_network(1, 10).eval()
    mlflow.set_tracking_uri(server)
    mlflow.set_registry_uri(server)
    mlflow.create_experiment("theirs", artifact_location=str(tmp_path / "artifacts"))
    mlflow.set_experiment("theirs")
    with mlflow.start_run():
        signature = infer_signature(INPUTS.numpy(), network(INPUTS).detach().numpy())
        mlflow.pytorch.log_model(
            network, name="m", signature=signature, input_example=INPUTS.numpy(), registered_model_name="plain"
        )
    mlflow.MlflowClient().set_registered_model_alias("plain", "prod", 1)
    return network


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own use of what it deprecates
def test_a_model_that_mlflow_logged_has_positions(logged):
    family = TrainedModel(TrainedModel.Settings(model="mlflow:plain@prod"), Sample(shape=(1, 8, 8), num_outputs=10))
    own = Genotype((0,) * family.space.num_positions)
    with torch.no_grad():
        torch.testing.assert_close(family.teacher(INPUTS), logged(INPUTS))
        assert family.module(Genotype((1,) * len(own.choices))).eval()(INPUTS).shape == (2, 10)
    again = Reference(model="mlflow:plain@prod", num_outputs=10, in_channels=1, side=8)
    assert again.identity == family.reference.identity


def test_a_model_that_mlflow_logged_teaches(logged):
    taught = load_teacher(
        TeacherConfig(model="models:/plain@prod"), 10, (1, 8, 8), Normalisation(), torch.device("cpu")
    )
    with torch.no_grad():
        torch.testing.assert_close(taught(INPUTS), logged(INPUTS))
