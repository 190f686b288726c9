"""The full training: stored whole, resumed, exported, loaded back."""

import hashlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from nas_core.base.errors import StoreError
from nas_core.deepmad.structure import DEFAULT_HEAD, DesignedNetwork, Skeleton, Structure, SuperBlock
from nas_core.families.member import Member
from nas_core.families.trained_model import TrainedModel
from nas_core.records.store import Store
from nas_core.space.genotypes import Genotype
from nas_core.study.stages import trained_files
from nas_core.training.export import deployed_for, load_exported
from nas_core.training.handover import files_of, why_no_program
from nas_core.training.settings import Recipe, TrainConfig
from nas_core.training.winner import check_files, load_deployed, train_network
from nas_core.workloads.classification import CLASSIFICATION
from nas_core.workloads.datasets import DatasetWorkload
from nas_core.workloads.images.digits import Digits
from nas_core.workloads.settings import ImageSettings, SplitSettings
from tests.nas_core.families import unusual
from tests.spaces import tiny

DATA = Digits(ImageSettings(validation_examples=300))
TRAIN = TrainConfig(
    recipe=Recipe(epochs=3, batch_size=64, ema_decay=0.9, label_smoothing=0.1, augment="crop-flip"),
    checkpoint_every_s=0,
)


def designed(family):
    head = DEFAULT_HEAD[family] and 32
    blocks = tuple(
        SuperBlock(out=16, bottleneck=8, kernel=kernel, depth=2, stride=stride) for kernel, stride in ((3, 1), (1, 2))
    )
    skeleton = Skeleton(family=family, resolution=8, strides=(1, 2), head=head)
    return DesignedNetwork(structure=Structure(skeleton=skeleton, stem=8, blocks=blocks), in_channels=1, num_classes=10)


@pytest.fixture(scope="module", params=["tiny", "resnet", "mobilenet"])
def architecture(request):
    if request.param != "tiny":
        return designed(request.param)
    space = tiny()
    return space.architecture(space.parse("1-0-1"))


@pytest.fixture(scope="module")
def store(tmp_path_factory, architecture):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def trained(store, architecture):
    return train_network(architecture, TRAIN, DATA, seed=1, device="cpu", store=store, name="winner")


def test_everything_is_in_the_store(store, trained):
    for path in (trained.weights_path, trained.architecture_path, trained.program_path):
        assert store.exists(path)
    assert not store.exists("winner/winner/checkpoint.safetensors")
    assert [row["epoch"] for row in trained.history] == [1, 2, 3]
    assert sum(map(sum, trained.details["confusion"])) == trained.num_test_examples
    right = sum(row[index] for index, row in enumerate(trained.details["confusion"]))
    assert right / trained.num_test_examples == trained.metrics["test"]["accuracy"]
    assert trained.examples_per_s > 0
    assert set(trained.metrics["validation"]) == set(trained.metrics["test"]) == set(CLASSIFICATION)
    assert {name: trained.history[-1][f"validation_{name}"] for name in CLASSIFICATION} == trained.metrics["validation"]


def test_every_file_is_known_by_its_hash(store, trained):
    result, files = "winner/winner/result.json", store.paths("winner/winner")
    kept = {path: hashlib.sha256(store.read_bytes(path)).hexdigest() for path in files if path != result}
    assert trained.sha256 == kept
    assert store.read_json(result)["sha256"] == kept


def test_loaded_program_and_weights_have_the_measured_test_accuracy(store, architecture, trained):
    images, labels = DATA.load().load_test()
    program = load_exported(store.read_bytes(trained.program_path))
    module, stored = load_deployed(store, "winner")
    assert stored == architecture
    assert stored.label == trained.genotype
    with torch.no_grad():
        from_program, from_weights = program(images.float() / 255), module(images)
    assert torch.allclose(from_program, from_weights, atol=1e-5)
    for name, metric in CLASSIFICATION.items():
        assert metric.of(from_program, labels) == pytest.approx(trained.metrics["test"][name], abs=1e-6), name
    assert trained.test_metric == trained.metrics["test"]["accuracy"]
    assert torch.allclose(program(images[:1].float() / 255), module(images[:1]), atol=1e-5)
    assert program(images[:1].float() / 255).shape == (1, 10)


def test_weights_that_were_cut_off_are_named(store, trained, tmp_path):
    broken = Store(tmp_path)
    for name in ("architecture.json", "weights.safetensors"):
        data = store.read_bytes(f"winner/winner/{name}")
        broken.write_bytes(f"winner/winner/{name}", data[:1000] if name.startswith("weights") else data)
    with pytest.raises(StoreError, match=r"winner/winner/weights\.safetensors: found a damaged file"):
        load_deployed(broken, "winner")


@pytest.mark.situations
@pytest.mark.parametrize("name", ["weights.safetensors", "architecture.json", "program.pt2"])
def test_files_that_are_gone_or_others_than_were_trained_are_trained_again(tmp_path, name):
    store, short = Store(tmp_path), TrainConfig(recipe=Recipe(epochs=0.1, batch_size=64))
    space = tiny()

    def run(**given):
        network = space.architecture(space.parse("1-0-1"))
        return train_network(network, short, DATA, seed=1, device="cpu", store=store, name="winner", **given)

    row, path = run().as_dict(), f"winner/winner/{name}"
    whole = store.read_bytes(path)
    for damaged, found in ((None, "no such file"), (whole[:-1] + bytes([whole[-1] ^ 1]), "other bytes")):
        store.delete(path) if damaged is None else store.write_bytes(path, damaged)
        with pytest.raises(StoreError, match=rf"{name}: found {found}.*`--from train` trains it again"):
            check_files(store, row)
        steps = []
        again = run(on_progress=lambda done, *_, steps=steps: steps.append(done))
        assert steps
        check_files(store, again.as_dict())


def test_a_training_of_an_earlier_version_has_no_hashes_and_goes_on_as_it_is(tmp_path, store, architecture, trained):
    old = Store(tmp_path)
    for path in store.paths("winner"):
        old.write_bytes(path, store.read_bytes(path))
    row = old.read_json("winner/winner/result.json")
    del row["sha256"]
    old.write_json("winner/winner/result.json", row)
    old.write_bytes(trained.program_path, b"changed, which nobody can tell")

    def fail(*_):
        raise AssertionError("trained again")

    known = train_network(architecture, TRAIN, DATA, seed=1, device="cpu", store=old, name="winner", on_progress=fail)
    assert (known.metrics, known.sha256) == (trained.metrics, {})
    check_files(old, row)
    old.delete(trained.program_path)
    with pytest.raises(StoreError, match=r"program\.pt2: found no such file"):
        check_files(old, row)


@pytest.mark.parametrize("half", [True, False])
def test_weights_that_are_cut_off_or_gone_are_trained_again(tmp_path, architecture, half):
    store, short = Store(tmp_path), TrainConfig(recipe=Recipe(epochs=0.1, batch_size=64))
    first = train_network(architecture, short, DATA, seed=1, device="cpu", store=store, name="winner")
    weights = store.read_bytes(first.weights_path)
    if half:
        store.write_bytes(first.weights_path, weights[: len(weights) // 2])
    else:
        store.delete(first.weights_path)
    again = train_network(architecture, short, DATA, seed=1, device="cpu", store=store, name="winner")
    assert store.read_bytes(first.weights_path) == weights
    assert again.metrics == first.metrics


def test_a_finished_training_is_not_repeated(store, architecture, trained):
    def fail(*_):
        raise AssertionError("trained again")

    again = train_network(architecture, TRAIN, DATA, seed=1, device="cpu", store=store, name="winner", on_progress=fail)
    assert again == trained
    other = train_network(
        architecture, TRAIN, DATA, metric="cross_entropy", seed=1, device="cpu", store=store, name="winner",
        on_progress=fail,
    )  # fmt: skip
    assert (other.metric_name, other.higher_is_better) == ("cross_entropy", False)
    assert other.test_metric == trained.metrics["test"]["cross_entropy"]


def test_a_network_without_a_program_keeps_its_training(tmp_path):
    """Whether torch can write it down shows at the very end: results and weights are there, and files but that one."""
    sample = DATA.sample
    family = TrainedModel(TrainedModel.Settings(model=f"{unusual.__file__}:branching"), sample)
    base = Genotype((0,) * family.space.num_positions)
    assert "data-dependent" in why_no_program(family.module(base), sample)
    recipe = Recipe(epochs=1, batch_size=256, augment="none")
    store = Store(tmp_path / "study")
    member = Member(family=family, genotype=base)
    trained = train_network(member, TrainConfig(recipe=recipe), DATA, seed=0, device="cpu", store=store, name="winner")
    assert trained.program_path == ""
    row = trained.as_dict() | {"run_id": ""}
    assert all(map(store.exists, trained_files(row)))
    written = files_of(store, row, DATA, tmp_path / "out")
    assert "pt2" in written.refused
    assert {"model.safetensors", "architecture.json", "load.py"} <= set(written.files)


class Standardised(DatasetWorkload):
    """Images that the dataset itself has brought to mean 0 and deviation 1, as torchvision's ``Normalize`` does."""

    name = "standardised"
    sample = DATA.sample
    measured = (CLASSIFICATION["accuracy"],)

    def loss(self, outputs, targets, label_smoothing=0.0):
        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def datasets(self):
        (train, classes), (test, others) = DATA.load().train, DATA.load().load_test()
        return TensorDataset(self.given(train[:300]), classes[:300]), TensorDataset(self.given(test), others)

    def given(self, images):
        return (images / 255 - 0.1) / 0.2


class Bytes(Standardised):
    name = "bytes"

    def given(self, images):
        return images


def test_floats_in_the_place_of_bytes_are_fractions():
    data = Bytes(SplitSettings(validation_examples=50))
    module = deployed_for(data, nn.Flatten(), data.load(), data.sample.shape)
    images, _ = data.load().load_test()
    module(images / 255)
    with pytest.raises(RuntimeError, match="fractions from 0 to 1"):
        module(images.float())


def test_images_in_units_of_their_own_are_what_its_files_take(tmp_path):
    store, data = Store(tmp_path), Standardised(SplitSettings(validation_examples=50, normalise="none"))
    space, recipe = tiny(), Recipe(epochs=1, batch_size=64, augment="none")
    architecture = space.architecture(space.parse("1-0-1"))
    trained = train_network(architecture, TrainConfig(recipe=recipe), data, seed=0, device="cpu", store=store, name="w")
    images, targets = data.load().load_test()
    assert images.max() > 2
    with torch.no_grad():
        for network in (load_exported(store.read_bytes(trained.program_path)), load_deployed(store, "w")[0]):
            assert float((network(images).argmax(1) == targets).double().mean()) == trained.test_metric
    assert "own units" in store.read_json("winner/w/architecture.json")["input"]["values"]


def test_a_result_of_an_older_version_is_trained_again_and_not_misread(tmp_path, architecture, trained):
    store = Store(tmp_path)
    old = {"run_id": "0123", "name": "winner", "validation_accuracy": 0.99, "test_accuracy": 0.98}
    store.write_json("winner/winner/result.json", old)
    steps = []
    again = train_network(
        architecture, TRAIN, DATA, seed=1, device="cpu", store=store, name="winner",
        on_progress=lambda done, total, note: steps.append(done),
    )  # fmt: skip
    assert steps
    assert again.metrics == trained.metrics


class Killed(BaseException):
    pass


def test_a_killed_training_resumes_to_the_same_result(tmp_path, architecture, trained):
    store, seen = Store(tmp_path), []

    def kill(done, total, message):
        seen.append(done)
        if done == 20 and seen.count(20) == 1:
            raise Killed

    with pytest.raises(Killed):
        train_network(architecture, TRAIN, DATA, seed=1, device="cpu", store=store, name="winner", on_progress=kill)
    resumed = train_network(
        architecture, TRAIN, DATA, seed=1, device="cpu", store=store, name="winner", on_progress=kill
    )
    assert seen[20] == 20  # the step after the checkpoint, not step 1
    assert resumed.history == trained.history
    assert resumed.metrics == trained.metrics
