"""What is handed over: files that load where only torch and timm are, with the outputs that were measured."""

import json
import resource
import shutil
import subprocess
from contextlib import contextmanager
from textwrap import dedent

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import nas_core
from nas_core.base.errors import ConfigError, NasError, StoreError
from nas_core.families import FAMILIES
from nas_core.families.member import Member
from nas_core.families.model import rebuild
from nas_core.records.store import Store
from nas_core.space.genotypes import Genotype
from nas_core.training.export import deployed, exported_bytes, load_exported
from nas_core.training.handover import (
    FORMATS,
    checked_onnx,
    files_of,
    formats_of,
    num_compared,
    onnx_file,
    outputs_of_file,
    prepared,
    remove,
    why_no_onnx,
    why_no_program,
    write,
)
from nas_core.training.settings import Recipe, TrainConfig
from nas_core.training.winner import load_deployed, train_network
from nas_core.workloads.images.digits import Digits
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.settings import ImageSettings
from nas_core.workloads.workload import Sample
from tests.fresh import fresh_python
from tests.nas_core.families import unusual
from tests.spaces import tiny

DATA = Digits(ImageSettings(validation_examples=300))
TRAIN = TrainConfig(recipe=Recipe(epochs=1, batch_size=64), train_examples=256)
SHAPE, NORMALISED = (1, 8, 8), Normalisation(mean=(0.3,), std=(0.4,))
LOADING = """
import importlib.util, sys
for name in ("nas_core", "flows", "tasks", "mathnas", "onnx", "ray", "mlflow"):
    assert importlib.util.find_spec(name) is None, name
import numpy as np, torch
for folder in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("load", folder + "/load.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    images = torch.from_numpy(np.load(folder + "/images.npy"))
    with torch.no_grad():
        np.save(folder + "/outputs.npy", loader.load(folder)(images).numpy())
    loader.main(folder, folder + "/image.png")
"""


def of_a_model(name):
    family = FAMILIES["model"]
    library = [{"kind": "narrower", "ratio": 0.5}, {"kind": "depthwise-separable"}, {"kind": "skip"}]
    settings = family.Settings(model=name, library=library)
    made = family(settings, DATA.sample)
    choices = tuple(index % count for index, count in enumerate(made.space.num_choices, start=1))
    return Member(family=made, genotype=Genotype(choices))


PROJECT = {  # as people write them; load.py is what the loader is called, too
    "load.py": """
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from parts.deep.blocks import Block

try:
    import broken
except SyntaxError:
    pass


@dataclass
class Shape:
    channels: int


def build(in_channels, num_outputs):
    torch.manual_seed(0)
    width = Shape(channels=8).channels
    blocks = [Block(width) for _ in range(4)]
    ends = nn.Conv2d(in_channels, width, 3, padding=1), nn.Linear(width, num_outputs)
    return nn.Sequential(ends[0], *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), ends[1])
""",
    "parts/deep/blocks.py": """
from torch import nn

from .sizes import KERNEL


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, KERNEL, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return x + self.second(self.first(x).relu())
""",
    "parts/deep/sizes.py": "KERNEL = 3",
    "broken.py": "def",
    "other.py": "",  # that nothing imports
}


def of_a_file(folder):
    for name, text in PROJECT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return of_a_model(f"{folder}/load.py:build")


def put(*given):
    """The files, written."""
    files = files_of(*given)
    write(files, "# a card")
    return files


def of_a_chain():
    space = tiny()
    return space.architecture(space.parse("1-0-1"))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return {kind: Store(tmp_path_factory.mktemp(kind)) for kind in ("model", "file", "chain")}


@pytest.fixture(scope="module")
def written(stores, tmp_path_factory):
    """Folder, files and the trained network by the kind of network."""
    found = {}
    project = tmp_path_factory.mktemp("project")
    kinds = {"model": of_a_model("timm:test_resnet"), "file": of_a_file(project), "chain": of_a_chain()}
    for kind, described in kinds.items():
        store = stores[kind]
        trained = train_network(described, TRAIN, DATA, seed=1, device="cpu", store=store, name="winner")
        folder = tmp_path_factory.mktemp("files") / kind
        found[kind] = put(store, trained.as_dict(), DATA, folder), load_deployed(store, "winner")[0], trained
    shutil.rmtree(project)
    return found


@pytest.fixture(scope="module")
def images():
    return DATA.load().load_test()[0][:40]


def test_a_file_that_is_not_as_it_was_trained_is_refused_before_anything_is_written(written, tmp_path):
    row, store = written["chain"][2].as_dict(), Store(tmp_path / "store")
    for path in row["sha256"]:
        store.write_bytes(path, b"something else")
    with pytest.raises(StoreError, match=r"weights\.safetensors: found other bytes than were trained"):
        put(store, row, DATA, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@torch.no_grad()
def test_files_load_where_only_torch_timm_and_safetensors_are(written, images, tmp_path):
    folders = [str(files.folder) for files, _, _ in written.values()]
    for folder in folders:
        np.save(f"{folder}/images.npy", images.numpy() / np.float32(255))
        Image.fromarray(images[0, 0].numpy()).save(f"{folder}/image.png")
    python = fresh_python(tmp_path / "venv", ["torch", "timm", "safetensors"])
    done = subprocess.run([python, "-c", LOADING, *folders], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    for (files, module, _), line in zip(written.values(), done.stdout.splitlines(), strict=True):
        expected = module(images)
        assert np.abs(np.load(files.folder / "outputs.npy") - expected.numpy()).max() < 1e-5
        assert line.startswith(f"{files.folder}/image.png  {int(expected[0].argmax())}: ")


@pytest.mark.parametrize("kind", ["model", "file", "chain"])
@torch.no_grad()
def test_the_front_loads_a_folder_in_one_line(written, images, kind):
    files, module, _ = written[kind]
    network = nas_core.load(files.folder).eval()  # a program too, which of itself refuses
    assert torch.allclose(network(images.float() / 255), module(images), atol=1e-5)
    assert torch.allclose(network(images), module(images), atol=1e-5)  # bytes


@pytest.mark.parametrize("kind", ["model", "chain"])
def test_the_onnx_file_is_compared_on_real_images_in_other_batches(written, kind):
    files, _, trained = written[kind]
    assert (files.check.num_examples, files.check.batch_size) == (360, 25)
    assert files.check.worst < 1e-5
    assert files.check.way == "trace"
    assert files.check.metrics["accuracy"] == pytest.approx((trained.test_metric, trained.test_metric))
    assert set(files.files) == {"model.safetensors", "architecture.json", "model.onnx", "model.pt2", "load.py"}
    assert all((files.folder / name).stat().st_size == size for name, size in files.files.items())


@pytest.mark.parametrize("kind", ["model", "chain"])
@pytest.mark.parametrize("formats", [["safetensors"], ["onnx"], ["pt2"], ["safetensors", "pt2"]], ids=",".join)
def test_a_loader_is_written_where_it_can_load(written, stores, tmp_path, kind, formats):
    files = put(stores[kind], written[kind][2].as_dict(), DATA, tmp_path, formats).files
    assert ("load.py" in files) == ("pt2" in formats or (kind == "model" and "safetensors" in formats))
    if "load.py" in files:
        rebuild.load(tmp_path)


def test_the_file_that_makes_a_model_lies_apart_with_what_it_imports(written):
    files, _, _ = written["file"]
    assert "def load(" in (files.folder / "load.py").read_text()
    sources = {path.relative_to(files.folder / "source").as_posix() for path in files.folder.rglob("source/**/*.py")}
    assert sources == set(PROJECT) - {"other.py"}
    assert {f"source/{name}" for name in sources} <= set(files.files)


@torch.no_grad()
def test_a_maker_that_reads_its_weights_beside_itself_is_done_without(tmp_path, images):
    text = """
        from pathlib import Path
        import torch
        from tests.nas_core.families.unusual import in_place

        def build(num_classes=10, in_chans=1):
            model = in_place(num_classes, in_chans)
            model.load_state_dict(torch.load(Path(__file__).parent / "weights.pth"))
            return model
        """
    (tmp_path / "mine.py").write_text(dedent(text))
    torch.save(unusual.in_place(10, 1).state_dict(), tmp_path / "weights.pth")
    member, store = of_a_model(f"{tmp_path}/mine.py:build"), Store(tmp_path / "store")
    with torch.enable_grad():
        row = train_network(member, TRAIN, DATA, seed=1, device="cpu", store=store, name="winner").as_dict()
    module, _ = load_deployed(store, "winner")
    put(store, row, DATA, tmp_path / "out")
    put(store, row, DATA, tmp_path / "bare", ["safetensors"])
    (tmp_path / "weights.pth").unlink()
    assert torch.allclose(rebuild.load(tmp_path / "out")(images.float() / 255), module(images), atol=1e-5)
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        rebuild.load(tmp_path / "bare")
    with pytest.raises(StoreError, match=r"source: found FileNotFoundError: .*weights\.pth"):
        load_deployed(store, "winner")


def test_a_folder_holds_files_of_one_network(written, tmp_path):
    folder, (files, _, _) = tmp_path / "shared", written["file"]
    for name in files.files:  # other tests leave more there
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(files.folder / name, folder / name)
    (folder / "notes.txt").write_text("mine")
    kept = [name for name in files.files if name not in ("model.safetensors", "architecture.json", "load.py")]
    assert {"model.onnx", "model.pt2", "source/load.py"} <= set(kept)
    store = Store(tmp_path / "store")
    trained = train_network(of_a_chain(), TRAIN, DATA, seed=1, device="cpu", store=store, name="winner").as_dict()
    put(store, trained, DATA, folder, ["safetensors"])
    assert not any((folder / name).exists() for name in kept)  # of the network that was there before
    put(store, trained, DATA, folder, ["onnx"])
    assert all((folder / name).exists() for name in ("model.safetensors", "model.onnx", "notes.txt"))
    remove(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@contextmanager
def no_file_larger_than(size):
    """As on a full disk: the system refuses to write more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.situations
def test_a_full_disk_leaves_the_earlier_network_whole(written, stores, tmp_path):
    row = {kind: written[kind][2].as_dict() for kind in ("model", "chain")}
    put(stores["model"], row["model"], DATA, tmp_path, ["safetensors"])
    before = contents_of(tmp_path)
    files = files_of(stores["chain"], row["chain"], DATA, tmp_path, ["safetensors", "pt2"])
    refused = pytest.raises(ConfigError, match=r"File too large, expected a folder that can be written")
    with no_file_larger_than(files.files["model.safetensors"] - 1), refused:
        write(files, "# another card")
    assert contents_of(tmp_path) == before
    rebuild.load(tmp_path)
    write(files, "# another card")
    assert set(contents_of(tmp_path)) == {*files.files, "README.md"}


@pytest.mark.situations
def test_a_folder_in_a_files_place_leaves_the_earlier_network_whole(written, stores, tmp_path):
    row = {kind: written[kind][2].as_dict() for kind in ("model", "chain")}
    put(stores["model"], row["model"], DATA, tmp_path, ["safetensors"])
    (tmp_path / "model.pt2").mkdir()
    before = contents_of(tmp_path)
    files = files_of(stores["chain"], row["chain"], DATA, tmp_path, ["safetensors", "pt2"])
    with pytest.raises(ConfigError, match=r"found model\.pt2 is a folder there, expected a folder that can be written"):
        write(files, "# another card")
    assert contents_of(tmp_path) == before
    rebuild.load(tmp_path)


def test_what_a_network_is_made_of_is_said(written):
    description = json.loads((written["model"][0].folder / "architecture.json").read_text())
    assert description["model"] == {"name": "timm:test_resnet", "arguments": {"num_classes": 10, "in_chans": 1}}
    assert description["changes"]


class Branching(nn.Module):
    """A network that no program follows, as its path depends on numbers; ``tied`` to the batch that it first saw."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.layer, self.tied = nn.Linear(64, 10), tied

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = int(x.shape[0]) if self.tied else -1
        return self.layer(x.reshape(size, 64)) if float(x.detach().abs().sum()) >= 0 else x.flatten(1)


class BySize(nn.Module):
    """A network whose outputs depend on how many examples there are, which a trace takes for a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1)) + torch.sym_float(x.shape[0])


class Unknown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x[:, 0]).real


def test_where_one_way_fails_another_is_taken_and_that_is_said():
    _, check = checked_onnx(deployed(BySize(), NORMALISED, SHAPE), DATA, "accuracy")
    assert check.way == "program"
    assert "differ from torch's" in check.passed_over["trace"]
    assert check.worst < 1e-5


def test_a_network_that_no_program_follows_is_traced():
    _, check = checked_onnx(deployed(Branching(tied=False), NORMALISED, SHAPE), DATA, "accuracy")
    assert check.way == "trace"
    assert check.worst < 1e-5


def test_a_file_that_serves_its_own_batch_only_is_not_handed_over():
    with pytest.raises(NasError, match=r"model\.onnx: found"):
        checked_onnx(deployed(Branching(tied=True), NORMALISED, SHAPE), DATA, "accuracy")


@torch.no_grad()
def test_whole_numbers_reach_the_network_as_they_are():
    """Words by their numbers, say: in torch, in the ONNX file, in the program."""
    network = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(96, 3)).eval()
    module = deployed(network, Normalisation(), (12,), dtype="int64")
    words = torch.randint(0, 50, (5, 12))
    expected = network(words)
    assert torch.equal(module(words), expected)
    assert torch.equal(prepared(module)(words), expected)
    assert torch.allclose(outputs_of_file(onnx_file(module, "trace"), [words]), expected, atol=1e-5)
    assert torch.allclose(load_exported(exported_bytes(module))(words), expected, atol=1e-6)
    sample = Sample(shape=(12,), num_outputs=3, dtype="int64")
    assert why_no_onnx(network, sample) == why_no_program(network, sample) == ""


class Casting(nn.Module):
    """Computes in half precision, which no kernel of ONNX Runtime's does on a CPU."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.layer(x).float().mean((2, 3))


def test_a_file_that_cannot_be_run_is_known_before_it_is_wanted():
    why = why_no_onnx(Casting().eval(), Sample(shape=(3, 8, 8), num_outputs=4))
    assert "ONNX Runtime's" in why
    assert len(why.splitlines()) == 1


def test_an_operator_that_onnx_does_not_have_is_one_line():
    with pytest.raises(NasError, match=r"found the operator aten.*linalg_eig") as caught:
        checked_onnx(deployed(Unknown(), NORMALISED, SHAPE), DATA, "accuracy")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("side", "num_outputs", "dense", "available", "count"),
    [(224, 1000, False, 5000, 400), (224, 1000, False, 60, 60), (128, 21, True, 5000, 290), (512, 21, True, 5000, 25)],
)
def test_of_large_maps_fewer_are_compared(side, num_outputs, dense, available, count):
    """100 million values at most, or a batch."""
    sample = Sample(shape=(3, 32, 32), num_outputs=num_outputs, dense=dense)
    assert num_compared((3, side, side), sample, available) == count


def test_formats():
    assert formats_of("onnx, safetensors") == ("safetensors", "onnx")
    assert formats_of("") == FORMATS
    with pytest.raises(ConfigError, match="--format: found 'tflite', expected one or more of: safetensors, onnx, pt2"):
        formats_of("onnx,tflite")
