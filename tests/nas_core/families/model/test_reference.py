"""A trained model by its name: made, its weights read; what is wrong is one line before anything is computed."""

import io
import logging
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nas_core.base import fetching
from nas_core.base.errors import DataError, NasError
from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)
from nas_core.families.model import rebuild, source
from nas_core.families.model.reference import Reference, weights_hash
from nas_core.families.trained_model import TrainedModel
from nas_core.space.genotypes import Genotype
from nas_core.testing.example_model import small_network
from nas_core.workloads.workload import Sample

import timm  # isort: skip

SMALL = "nas_core.testing.example_model:small_network"


def _reference(model: str, checkpoint: Path | None = None, num_outputs: int = 5) -> Reference:
    path = str(checkpoint) if checkpoint else None
    return Reference(model=model, checkpoint=path, num_outputs=num_outputs, in_channels=3, side=64)


def test_makers_of_torchvisions_are_told_the_number_of_classes_that_they_pass_on():
    assert _reference("torchvision.models:resnet18", num_outputs=7).made_by["arguments"] == {"num_classes": 7}
    assert _reference("torchvision.models:alexnet", num_outputs=7).made_by["arguments"] == {"num_classes": 7}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    model = timm.create_model("test_resnet", num_classes=5)
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def test_a_checkpoints_weights_are_the_models(weights: Path) -> None:
    model = _reference("timm:test_resnet", weights).trained()
    again = _reference("timm:test_resnet", weights).trained()
    assert weights_hash(model) == weights_hash(again)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert _reference("timm:test_resnet", weights).code


@pytest.mark.parametrize(
    ("model", "outputs", "message"),
    [
        ("timm:test_vit", 5, "weights of timm:test_vit for 3 channels and 5 outputs"),  # another model's
        ("timm:test_resnet", 7, "weights of timm:test_resnet for 3 channels and 7 outputs"),  # another class count
        ("timm:resnet_none", 5, "expected a model of timm's"),
        ("resnet18", 5, "expected timm:NAME"),
        ("nowhere.to:be_found", 5, "ModuleNotFoundError"),
    ],
)
def test_what_does_not_fit_is_one_line(weights: Path, model: str, outputs: int, message: str) -> None:
    with pytest.raises(NasError) as caught:
        _reference(model, weights, outputs).trained()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_of_timms_needs_weights() -> None:
    with pytest.raises(DataError, match="no checkpoint"):
        _reference("timm:test_resnet").trained()


QUANTISED = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 5))
    return torch.ao.quantization.quantize_dynamic(network, {nn.Linear})

def can_be():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 5))
    network.add = torch.ao.nn.quantized.FloatFunctional()
    return network
"""


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")  # users' models have it
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_a_network_that_is_quantised_in_part_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(QUANTISED)
    with pytest.raises(NasError, match=r"a quantised network \(2\), expected the network as it was before"):
        _reference(f"{tmp_path / 'mine.py'}:build").trained()
    assert _reference(f"{tmp_path / 'mine.py'}:can_be").trained()[2].out_features == 5  # type: ignore[index]


def test_what_is_no_tensor_in_a_state_is_none_of_its_weights() -> None:
    class Told(nn.Linear):
        def get_extra_state(self) -> str:
            return "version 3"

        def set_extra_state(self, state: str) -> None:
            pass

    torch.manual_seed(0)
    told, plain = Told(3, 5), nn.Linear(3, 5)
    plain.load_state_dict({"weight": told.weight, "bias": told.bias})
    assert weights_hash(told) == weights_hash(plain)


def test_a_factory_in_a_file_is_given_channels_and_outputs(tmp_path: Path) -> None:
    source = (
        "from torch import nn\n\ndef build(in_chans, num_classes):\n    return nn.Conv2d(in_chans, num_classes, 1)\n"
    )
    (tmp_path / "mine.py").write_text(source)
    torch.save(nn.Conv2d(3, 5, 1).state_dict(), tmp_path / "mine.pth")
    model = replace(_reference(f"{tmp_path / 'mine.py'}:build"), checkpoint=str(tmp_path / "mine.pth")).trained()
    assert isinstance(model, nn.Conv2d)
    assert (model.in_channels, model.out_channels) == (3, 5)


BLOCKS = """
from torch import nn
from helper import Act

def build(act=Act):
    return nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), Act()) for _ in range(3)))
"""


def test_what_computes_with_the_weights_is_part_of_the_space(tmp_path: Path) -> None:
    """The same checkpoint in a model that was edited is another model; so are other arguments."""
    (tmp_path / "mine.py").write_text(BLOCKS)
    (tmp_path / "helper.py").write_text("from torch import nn\nAct = nn.ReLU\n")
    torch.save(nn.Sequential(*(nn.Sequential(nn.Linear(8, 8)) for _ in range(3))).state_dict(), tmp_path / "mine.pth")

    def space_id(**more: Any) -> str:
        settings = {"model": f"{tmp_path}/mine.py:build", "checkpoint": f"{tmp_path}/mine.pth", **more}
        return TrainedModel(TrainedModel.Settings(**settings), Sample(shape=(8,), num_outputs=8)).space.space_id

    first = space_id()
    assert space_id() == first
    (tmp_path / "helper.py").write_text("from torch import nn\nAct = nn.Tanh\n")
    edited = space_id()
    assert edited != first
    assert space_id(arguments={"act": None}) != edited
    (tmp_path / "helper.py").write_text("from torch import nn\nAct = nn.ReLU\n")
    assert space_id() == first


def test_an_edited_file_of_the_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BLOCKS)
    (tmp_path / "helper.py").write_text("from torch import nn\nAct = nn.ReLU\n")
    network = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8)) for _ in range(3)))
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    settings = TrainedModel.Settings(model=f"{tmp_path}/mine.py:build", checkpoint=f"{tmp_path}/mine.pth")
    code = dict(TrainedModel(settings, Sample(shape=(8,), num_outputs=8)).space.code)
    assert settings.what_was_edited(code) == ""
    torch.save(nn.Sequential(*map(nn.Sequential, network)).state_dict(), tmp_path / "mine.pth")
    assert settings.what_was_edited(code) == f"{tmp_path}/mine.pth was edited"
    (tmp_path / "helper.py").write_text("from torch import nn\nAct = nn.Tanh\n")
    assert settings.what_was_edited(code) == f"{tmp_path}/mine.py or what it imports was edited"
    (tmp_path / "mine.py").unlink()
    (tmp_path / "mine.pth").unlink()
    assert settings.what_was_edited(code) == ""


def test_the_folder_of_sources_has_one_name() -> None:
    assert source.SOURCE == rebuild.SOURCE


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own use of what it deprecates
def test_a_program_is_known_by_its_graph(tmp_path: Path) -> None:
    def computation(act: nn.Module, name: str) -> str:
        network = nn.Sequential(nn.Linear(4, 4), act)
        torch.export.save(torch.export.export(network, (torch.zeros(2, 4),)), tmp_path / name)
        return _reference(str(tmp_path / name)).computation

    assert computation(nn.ReLU(), "one.pt2") == computation(nn.ReLU(), "again.pt2")
    assert computation(nn.ReLU(), "one.pt2") != computation(nn.Tanh(), "other.pt2")


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own use of what it deprecates
def test_a_program_is_a_model_with_positions(tmp_path: Path) -> None:
    batch = {0: torch.export.Dim("batch", min=1)}
    inputs = torch.randn(2, 1, 8, 8)
    network = small_network(1, 10).eval()
    program = torch.export.export(network, (inputs,), dynamic_shapes={"input": batch})
    torch.export.save(program, tmp_path / "model.pt2")
    kind = TrainedModel.Settings(model=str(tmp_path / "model.pt2"))
    family = TrainedModel(kind, Sample(shape=(1, 8, 8), num_outputs=10))
    own = Genotype((0,) * family.space.num_positions)
    with torch.no_grad():
        torch.testing.assert_close(family.module(own).eval()(inputs), network(inputs))
        assert family.module(Genotype((1,) * len(own.choices))).eval()(inputs).shape == (2, 10)


def _zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(f"model/{name}", "{}")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"no program", "a text file that begins with 'no program'"),
        (b"", "an empty file"),
        (_zipped("data.pkl", "constants.pkl"), "a TorchScript archive"),
        (_zipped("archive_format", "models/model.json"), "an exported program that is damaged, or that torch .*"),
        (_zipped("archive_format")[:-9], "a file that is cut short"),
    ],
    ids=["text", "empty", "TorchScript", "damaged", "cut short"],
)
def test_a_broken_program_is_one_line(
    content: bytes, found: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model.pt2").write_bytes(content)
    with pytest.raises(DataError, match=rf"found {found}, expected a program that torch\.export\.save wrote$"):
        _reference(str(tmp_path / "model.pt2")).fresh()
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")
    assert logging.getLogger("torch.export").isEnabledFor(logging.ERROR)


def test_a_program_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no file"):
        _reference(str(tmp_path / "model.pt2")).fresh()


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own use of what it deprecates
def test_of_a_folder_that_was_handed_over_the_file_that_is_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "load.py").write_text("def load(folder): ...")
    for name in ("model.pt2", "model.safetensors"):
        (tmp_path / name).write_bytes(b"")
    for beside in ("", ".", "model.safetensors", "load.py:load"):
        with pytest.raises(NasError) as found:
            _reference(f"{tmp_path}/{beside}").fresh()
        assert not found.value.advice  # these files may be anything's
    (tmp_path / "architecture.json").write_text("{}")
    for beside in ("", ".", "model.safetensors", "architecture.json", "load.py:load"):
        with pytest.raises(NasError) as found:
            _reference(f"{tmp_path}/{beside}").fresh()
        assert found.value.advice == f"Name {tmp_path / 'model.pt2'}, which lies there."


def test_a_program_has_finite_weights(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    nn.init.constant_(network.bias, torch.nan)
    torch.export.save(torch.export.export(network, (torch.ones(1, 2),)), tmp_path / "model.pt2")
    with pytest.raises(DataError, match=r"model\.pt2: found weights that are NaN or infinite \(bias\)"):
        _reference(str(tmp_path / "model.pt2")).fresh()


def test_a_model_of_mlflows_is_fetched_by_who_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fetching.FETCHERS, "models", lambda uri: {"models:/mine@champion": small_network(3, 5)}[uri])
    assert weights_hash(_reference("mlflow:mine@champion").trained()) == weights_hash(small_network(3, 5))
