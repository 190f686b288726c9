"""Workloads from datasets: divided, loaded whole, trained on, measured by whatever metric; no image needed."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.linear_model import Ridge
from torch import nn
from torch.utils.data import TensorDataset

from nas_core.base.errors import ConfigError, DataError, PluginError
from nas_core.families.output_check import check_outputs
from nas_core.records.store import Store
from nas_core.testing.contracts import check
from nas_core.training import winner
from nas_core.training.export import load_exported
from nas_core.training.loop import measure_all, train
from nas_core.training.settings import FullTrainingConfig, Recipe
from nas_core.training.winner import load_deployed, train_network
from nas_core.workloads.classification import CLASSIFICATION
from nas_core.workloads.datasets import DatasetWorkload, as_metric, dataset_workload
from nas_core.workloads.settings import SplitSettings
from nas_core.workloads.targets import divergence, divergence_of_labels
from nas_core.workloads.workload import WORKLOADS, Sample, metric_of
from tests.nas_core.workloads.regression_study import diabetes

RECIPE = Recipe(epochs=10, batch_size=32, lr=0.02, augment="none")


def test_it_is_named_without_torch():
    code = "import sys; import nas_core.workloads.datasets; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_splits_are_of_the_settings():
    workload = diabetes(train_examples=200)
    splits = workload.load()
    assert workload.num_examples() == (200, 80)
    assert (len(splits.train[1]), len(splits.validation[1]), len(splits.load_test()[1])) == (200, 80, 100)
    assert splits.train[0].dtype == splits.train[1].dtype == torch.float32
    assert splits.train[1].shape == (200, 1)
    prepared = splits.prepare(splits.train[0])
    assert prepared.mean(0) == pytest.approx(torch.zeros(10).numpy(), abs=1e-5)
    assert prepared.std(0) == pytest.approx(torch.ones(10).numpy(), abs=1e-4)
    with pytest.raises(DataError, match=r"train.train_examples: found 300, expected at most 262"):
        workload.check(300)
    with pytest.raises(DataError, match="found 10, expected inputs of shape 3"):
        workload.load((3,))


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1))


def test_training_lowers_the_error():
    workload, network = diabetes(), mlp()
    splits = workload.load()
    before = measure_all(network, workload.metrics, splits.validation, splits.prepare, device="cpu")
    train(network, RECIPE, splits, workload, seed=0, device="cpu")
    after = measure_all(network, workload.metrics, splits.validation, splits.prepare, device="cpu")
    assert after["mean_absolute_error"] < 0.9 * before["mean_absolute_error"]
    assert after["rmse"] < before["rmse"]
    (inputs, targets), (seen, wanted) = splits.train, splits.validation
    linear = Ridge(0.1).fit(inputs.numpy(), targets.numpy()).score(seen.numpy(), wanted.numpy())
    assert after["r2"] > 0.7 * linear > before["r2"]


class Described:
    """An architecture of ten inputs: what a family of such networks will give."""

    resolution, in_channels, label = 1, 10, "mlp"

    def as_dict(self):
        return {"kind": "mlp"}


def test_a_full_training_is_stored_exported_and_loaded_back(tmp_path, monkeypatch):
    monkeypatch.setattr(winner, "build_network", lambda described, seed: mlp())
    monkeypatch.setattr(winner, "description_from_dict", lambda data: Described())
    store, workload = Store(tmp_path), diabetes()
    config = FullTrainingConfig(recipe=RECIPE)
    trained = train_network(
        Described(), config, workload, metric="rmse", seed=0, device="cpu", store=store, name="winner"
    )
    assert (trained.metric_name, trained.higher_is_better) == ("rmse", False)
    assert set(trained.metrics["test"]) == {"mean_absolute_error", "rmse", "r2"}
    inputs, targets = workload.load().load_test()
    program = load_exported(store.read_bytes(trained.program_path))
    module, _ = load_deployed(store, "winner")
    with torch.no_grad():
        outputs = module(inputs)
        assert torch.allclose(program(inputs[:7]), outputs[:7], atol=1e-5)
    assert metric_of(workload, "rmse").of(outputs, targets) == pytest.approx(trained.test_metric, abs=1e-5)


class Pictures:
    """Six images of PIL, of two classes."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return Image.fromarray(np.full((4, 4, 3), 40 * index, np.uint8)), index % 2


def pictures(settings):
    """Six pictures of two classes."""
    return Pictures(), Pictures()


@pytest.fixture
def registered():
    before = set(WORKLOADS)
    yield WORKLOADS
    for name in set(WORKLOADS) - before:
        WORKLOADS._entries.pop(name)


def share_right(outputs, targets):
    return (outputs.argmax(1) == targets).double().mean()


def share_wrong(outputs, targets):
    return 1 - share_right(outputs, targets)


share_right.higher_is_better, share_wrong.higher_is_better = True, False


def test_a_function_is_enough(registered):
    sample, metrics = Sample(shape=(3, 4, 4), num_outputs=2), [share_wrong, share_right]
    made = dataset_workload("pictures", sample=sample, loss=F.cross_entropy, metrics=metrics)(pictures)
    assert registered["pictures"] is made
    assert issubclass(made, DatasetWorkload)
    workload = made(SplitSettings(validation_examples=2))
    assert workload.identity["name"] == "pictures"
    splits = workload.load((1, 8, 8))
    assert splits.train[0].shape == (4, 1, 8, 8)
    assert splits.train[0].dtype == torch.uint8
    assert splits.train[1].dtype == torch.int64
    assert [(m.name, m.higher_is_better) for m in workload.metrics.values()] == [
        ("share_wrong", False),
        ("share_right", True),
    ]
    outputs, targets = torch.randn(4, 2), splits.train[1]
    smoothed = F.cross_entropy(outputs, targets, label_smoothing=0.2)
    assert torch.equal(workload.loss(outputs, targets, 0.2), smoothed)
    assert workload.gives_logits
    assert float(splits.prepare(splits.train[0]).mean()) == pytest.approx(0, abs=1e-5)
    with pytest.raises(DataError, match="found 2 channels, expected 3"):
        workload.load((2, 8, 8))


def squared(outputs, targets):
    return (outputs - targets).square().mean()


@pytest.mark.parametrize(
    ("loss", "targets", "wanted"),
    [
        (nn.MSELoss(), torch.randn(9, 2), squared),
        (squared, torch.randn(9, 2), squared),
        (nn.BCEWithLogitsLoss(), torch.ones(9, 2), lambda one, other: divergence_of_labels(one, other, 2.0)),
        (nn.CrossEntropyLoss(), torch.rand(9, 2), lambda one, other: divergence(one, other, 2.0)),
        (lambda outputs, targets: F.cross_entropy(outputs, targets), torch.arange(9) % 2, lambda one, other: divergence(
            one, other, 2.0)),
    ],
    ids=["numbers", "own loss of numbers", "labels", "shares of classes", "own loss of classes"],
)  # fmt: skip
def test_a_teacher_is_agreed_with_as_targets_are(registered, loss, targets, wanted):
    sets = TensorDataset(torch.randn(9, 2), targets)
    made = dataset_workload("nine", sample=Sample(shape=(2,), num_outputs=2), loss=loss, metrics=[share_right])

    def nine(settings):
        """Nine rows."""
        return sets, sets

    workload = made(nine)(SplitSettings(validation_examples=2))
    outputs, taught = torch.randn(2, 5, 2)
    torch.testing.assert_close(workload.agreement(outputs, taught, 2.0), wanted(outputs, taught))


def test_whole_numbers_that_one_output_gives_are_no_classes(registered):
    """Of one class every divergence is 0: a teacher would teach nothing."""
    sets = TensorDataset(torch.randn(9, 2), torch.arange(9))
    made = dataset_workload(
        "ages", sample=Sample(shape=(2,), num_outputs=1), loss=lambda out, true: (out[:, 0] - true).abs().mean(),
        metrics=[share_right],
    )  # fmt: skip

    def ages(settings):
        """Nine rows."""
        return sets, sets

    outputs, taught = torch.randn(2, 5, 1)
    agreement = made(ages)(SplitSettings(validation_examples=2)).agreement(outputs, taught, 2.0)
    torch.testing.assert_close(agreement, (outputs - taught).square().mean())


def test_two_metrics_of_one_name_are_refused(registered):
    sample = Sample(shape=(2,), num_outputs=2)
    twice = dataset_workload("twice", sample=sample, loss=F.cross_entropy, metrics=[share_right, share_right])

    def rows(settings):
        """Nine rows."""
        return [], []

    with pytest.raises(PluginError, match="metric share_right: found the name twice"):
        _ = twice(rows)(SplitSettings()).metrics


def of_words(outputs, targets):
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def test_outputs_may_have_any_shape_that_the_loss_takes(registered):
    sample = Sample(shape=(6,), num_outputs=4, dtype="int64", outputs=(6, 4))

    def share(outputs, targets):
        return (outputs.argmax(-1) == targets).double().mean()

    share.higher_is_better = True

    @dataset_workload("words", sample=sample, loss=of_words, metrics=[share], example={"validation_examples": 4})
    def words(settings):
        """Sentences of six words, each of one of four classes."""
        sentences = torch.randint(0, 16, (20, 6), generator=torch.Generator().manual_seed(0))
        return TensorDataset(sentences, sentences // 4), TensorDataset(sentences, sentences // 4)

    assert Sample.from_dict(sample.as_dict()) == sample
    assert check("workload", "words") == []
    workload = words(SplitSettings(validation_examples=4))
    network = nn.Sequential(nn.Embedding(16, 32), nn.Linear(32, 4))
    check_outputs(network, sample, (6,), "words", "outputs")
    with pytest.raises(ConfigError, match="found N x 6 x 32, expected N x 6 x 4, as data of kind words want"):
        check_outputs(network[:1], sample, (6,), "words", "outputs")
    outputs, taught = torch.randn(2, 3, 6, 4)
    assert torch.equal(workload.agreement(outputs, taught, 2.0), (outputs - taught).square().mean())
    recipe = RECIPE.model_copy(update={"epochs": 40, "batch_size": 8, "lr": 0.3})
    train(network, recipe, workload.load(), workload, seed=0, device="cpu")
    splits = workload.load()
    assert measure_all(network, workload.metrics, splits.validation, splits.prepare, device="cpu")["share"] > 0.9


def test_a_loss_of_one_number_and_a_function_without_words(registered):
    sets = TensorDataset(torch.randn(9, 2), torch.randn(9))
    make = dataset_workload(
        "nine-rows", sample=Sample(shape=(2,), num_outputs=1), loss=nn.MSELoss(), metrics=[share_right]
    )

    def rows(settings):
        """Nine rows."""
        return sets, sets

    workload = make(rows)(SplitSettings(validation_examples=2))
    targets = workload.load().train[1]
    assert not workload.gives_logits
    assert float(workload.loss(torch.zeros(7, 1), targets, 0.1)) == pytest.approx(float(targets.square().mean()))
    with pytest.raises(PluginError, match="no docstring"):
        make(lambda settings: (sets, sets))


def test_examples_of_several_shapes_are_named():
    class Ragged(DatasetWorkload):
        """Rows of several lengths."""

        name = "ragged"
        sample = Sample(shape=(2,), num_outputs=1)

        def datasets(self):
            rows = [(np.zeros(2 + index), 0.0) for index in range(4)]
            return rows, rows

        def loss(self, outputs, targets, label_smoothing=0.0):
            return F.mse_loss(outputs, targets)

    with pytest.raises(DataError, match=r"data: ragged, train inputs.*of one shape"):
        Ragged(SplitSettings(validation_examples=1)).load()


@pytest.mark.parametrize("thing", [3, lambda outputs, targets: 0.0, "accuracy"])
def test_what_is_no_metric_is_refused(thing):
    with pytest.raises(PluginError, match="a Metric, a named function"):
        as_metric(thing)


def test_a_function_that_does_not_say_which_way_is_better_is_refused():
    def score(outputs, targets):
        return 0.0

    with pytest.raises(PluginError, match="metric score: found no direction"):
        as_metric(score)


def test_metrics_of_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics")
    error, explained = as_metric(torchmetrics.MeanSquaredError()), as_metric(torchmetrics.R2Score())
    assert (error.name, error.higher_is_better) == ("mean_squared_error", False)
    assert (explained.name, explained.higher_is_better) == ("r2_score", True)
    outputs, targets = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[1.0], [2.0], [3.0]])
    assert error.of(outputs, targets) == pytest.approx(1 / 3)
    assert error.of(targets, targets) == 0  # nothing is left of the first split
    assert explained.of(outputs, targets) == pytest.approx(0.5)


def test_an_error_in_ones_own_code_is_one_line_that_says_where(registered):
    @dataset_workload("away", sample=Sample(shape=(2,), num_outputs=2), loss=F.cross_entropy, metrics=[share_right])
    def away(settings):
        """Photographs."""
        return {}["photos"]

    with pytest.raises(DataError, match=r"data: away: found KeyError: 'photos' \(line \d+ of .*test_datasets.py\)"):
        away(SplitSettings()).check()


def test_a_set_that_is_none_and_examples_of_another_shape_than_is_said_are_told():
    images, labels = torch.zeros(20, 3, 9, 9), torch.zeros(20, dtype=torch.long)
    sample = Sample(shape=(1, 8, 8), num_outputs=2)
    for name, first, message in (
        ("no-training-set", None, "found NoneType, expected a training set and a test set"),
        ("other-shape", TensorDataset(images, labels), "found 3 x 9 x 9, expected inputs of shape 1 x 8 x 8"),
    ):

        @dataset_workload(name, sample=sample, loss=nn.CrossEntropyLoss(), metrics=[CLASSIFICATION["accuracy"]])
        def sets(settings, first=first):
            """Wrong in one way."""
            return first, TensorDataset(images, labels)

        workload = WORKLOADS[name](WORKLOADS[name].Settings(validation_examples=5))
        WORKLOADS._entries.pop(name)
        with pytest.raises(DataError, match=message):
            workload.load()
