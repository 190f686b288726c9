"""A workload from any ``torch.utils.data.Dataset``: train and test set, a loss, metrics. No torch at import.

The short way is a function that gives both sets::

    @dataset_workload("diabetes", sample=Sample(shape=(10,), num_outputs=1), loss=mse_loss, metrics=[mae, R2Score()])
    def diabetes(settings):
        '''Progression of the disease of 442 patients, from ten measurements.'''
        return train_set, test_set

and the long one a class derived from `DatasetWorkload`, which may have settings
of its own. Both are divided into train and validation by their settings.

The sets are read once into tensors, since the training loop keeps them on the
device. A dataset yields (input, target); numbers, arrays and tensors are
understood, and images as PIL gives them become uint8 C H W. A target that is
one number of floating point becomes N 1, as outputs are.
"""

import inspect
import re
import sys
import traceback
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from nas_core.base.errors import DataError, NasError, PluginError
from nas_core.workloads.metrics import Measure, Metric, Metrics, by_name
from nas_core.workloads.normalisation import KNOWN, Normalisation, known_normalisation
from nas_core.workloads.settings import SplitSettings
from nas_core.workloads.targets import divergence_of_labels
from nas_core.workloads.workload import WORKLOADS, Sample, Splits, Workload

if TYPE_CHECKING:
    import torch

OF_CLASSES = frozenset({"cross_entropy", "CrossEntropyLoss"})  # torch's losses, as functions and as modules
OF_LABELS = frozenset({"binary_cross_entropy_with_logits", "BCEWithLogitsLoss"})  # each true or not


class SizedDataset(Protocol):
    """What is needed of a ``torch.utils.data.Dataset``: its length, and (input, target) by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class DatasetWorkload(Workload):
    """Base of workloads whose data are two datasets, one to train on and one to test on.

    ``measured`` lists what is measured, the study's own metric first: ``Metric``
    objects, plain functions ``(outputs, targets) -> number`` whose attribute
    ``higher_is_better`` says which way is better, or metrics of torchmetrics.
    ``normalise`` brings inputs to mean 0 and deviation 1 per channel or feature
    of the training inputs, where the settings do not say otherwise.
    """

    Settings = SplitSettings
    settings: SplitSettings
    measured: ClassVar[Sequence[Any]] = ()
    normalise: ClassVar[bool] = True
    output_names: ClassVar[tuple[str, ...]] = ()
    loss_name: ClassVar[str] = ""  # of torch's losses, where it is one

    @abstractmethod
    def datasets(self) -> tuple[SizedDataset, SizedDataset]:
        """The training set, which is divided into train and validation, and the test set.

        Raises:
            DataError: if they are not there.
        """

    @cached_property
    def metrics(self) -> Metrics:
        return by_name(*map(as_metric, self.measured))

    @cached_property
    def _sets(self) -> tuple[SizedDataset, SizedDataset]:
        try:
            return self.datasets()
        except NasError:
            raise
        except Exception as error:  # of a user's own code
            words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{self._line_of(error)}"
            raise DataError(f"data: {self.name}", words, "a training set and a test set") from error

    def _line_of(self, error: Exception) -> str:
        """Where in the class's own file it came from."""
        own = getattr(sys.modules.get(type(self).__module__), "__file__", None)
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
        return f" (line {lines[-1]} of {own})" if lines else ""

    def check(self, train_examples: int | None = None) -> None:
        train, test = self._sets
        if unsized := [type(each).__name__ for each in (train, test) if not hasattr(each, "__len__")]:
            raise DataError(f"data: {self.name}", unsized[0], "a training set and a test set, each with a length")
        if not len(test):
            raise DataError(f"data: {self.name}", "an empty test set", "one test example at least")
        self.settings.check_sizes(len(train), train_examples)
        if self.settings.normalise in KNOWN.keys() - {"none"} and not self.sample.is_image:
            expected = "data, none or {mean: [...], std: [...]} for inputs that are no images"
            raise DataError("data.normalise", self.settings.normalise, expected)

    def num_examples(self) -> tuple[int, int]:
        return self.settings.num_examples(len(self._sets[0]))

    def agreement(self, outputs: "torch.Tensor", taught: "torch.Tensor", temperature: float) -> "torch.Tensor":
        """As the loss is one of classes or of labels; of another loss, classes are whole numbers for several outputs.

        Of any other targets the mean squared difference; numbers have no temperature.
        """
        if self.loss_name in OF_LABELS:
            return divergence_of_labels(outputs, taught, temperature)
        if self.loss_name in OF_CLASSES or (self._are_targets_whole and self.sample.num_outputs > 1):
            return super().agreement(outputs, taught, temperature)
        return (outputs - taught).square().mean()

    @cached_property
    def _are_targets_whole(self) -> bool:
        first = _tensor(self._sets[0][0][1])
        return not first.is_floating_point()

    def load(self, shape: tuple[int, ...] | None = None) -> Splits:
        """All examples as tensors; images (``sample`` of three axes) resized where another side is asked for.

        Raises:
            DataError: if an example is of another shape than ``sample`` says, or the splits exceed the set.
        """
        import torch

        self.check()
        train, test = self._sets
        inputs, targets = self._tensors(train, "train", shape)
        train_index, validation_index = self.settings.divided(len(targets))
        chosen = inputs[train_index]
        is_number = chosen.ndim > 1 and (chosen.dtype.is_floating_point or chosen.dtype == torch.uint8)
        return Splits(
            train=(chosen, targets[train_index]),
            validation=(inputs[validation_index], targets[validation_index]),
            load_test=lambda: self._tensors(test, "test", shape),
            prepare=self._preparation(chosen) if is_number else Normalisation(),
            output_names=self.output_names,
        )

    def _preparation(self, inputs: "torch.Tensor") -> Normalisation:
        """How training inputs are brought to a common scale: as the settings say, else as the class does."""
        said = self.settings.normalise
        if said == "data":
            return Normalisation.of(inputs) if self.normalise else Normalisation()
        return known_normalisation(said, inputs.shape[1])

    @property
    def identity(self) -> dict[str, Any]:
        known = super().identity
        if known["settings"].get("normalise") == "data":  # as it always was: ids stay what they were
            known["settings"].pop("normalise")
        return known

    def _tensors(
        self, dataset: SizedDataset, split: str, shape: tuple[int, ...] | None
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """Inputs and targets of a whole set."""
        from nas_core.workloads.images.tensors import resized, with_channels

        examples = [dataset[index] for index in range(len(dataset))]
        inputs = _stacked([example[0] for example in examples], f"data: {self.name}, {split} inputs")
        targets = _stacked([example[1] for example in examples], f"data: {self.name}, {split} targets")
        wanted = shape or self.sample.shape
        own = self.sample.shape if self.sample.is_image else wanted  # images are resized
        if tuple(inputs.shape[1:]) != own:
            found, expected = (" x ".join(map(str, each)) or "a number" for each in (inputs.shape[1:], own))
            raise DataError(f"data: {self.name}, {split} inputs", found, f"inputs of shape {expected}")
        if own != wanted:
            inputs = resized(with_channels(inputs, wanted[0]), wanted[1]).contiguous()
        return inputs, targets[:, None] if targets.ndim == 1 and targets.is_floating_point() else targets


def _stacked(values: "list[Any]", where: str) -> "torch.Tensor":
    """One tensor of all examples; numbers of 64 bits become float32, which networks take."""
    import torch

    try:
        tensors = [_tensor(value) for value in values]
        stacked = torch.stack(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(where, str(error)[:200], "numbers, arrays or tensors of one shape") from None
    return stacked.float() if stacked.dtype == torch.float64 else stacked


def _tensor(value: Any) -> "torch.Tensor":
    import torch

    if isinstance(value, torch.Tensor):
        return value
    if hasattr(value, "getbands"):  # an image of PIL
        array = np.asarray(value)
        return torch.from_numpy(np.array(array[None] if array.ndim == 2 else array.transpose(2, 0, 1)))
    return torch.as_tensor(np.asarray(value))


def dataset_workload(
    name: str,
    *,
    sample: Sample,
    loss: Callable[..., "torch.Tensor"],
    metrics: Sequence[Any],
    settings: type[SplitSettings] = SplitSettings,
    normalise: bool = True,
    output_names: tuple[str, ...] = (),
    version: int = 1,
    example: Mapping[str, Any] | None = None,
) -> Callable[[Callable[[Any], tuple[SizedDataset, SizedDataset]]], type[DatasetWorkload]]:
    """Decorator that registers ``function(settings) -> (train set, test set)`` as a workload.

    Its docstring is the workload's; ``loss`` takes (outputs, targets), and
    ``label_smoothing`` where it has such an argument; ``metrics`` as
    `DatasetWorkload.measured`. ``example`` are settings that it can be tested
    with, where the defaults do not fit, such as a small set's ``validation_examples``.
    """

    loss_name = getattr(loss, "__name__", type(loss).__name__)

    def register(function: Callable[[Any], tuple[SizedDataset, SizedDataset]]) -> type[DatasetWorkload]:
        def datasets(self: DatasetWorkload) -> tuple[SizedDataset, SizedDataset]:
            return function(self.settings)

        body = {
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "__qualname__": function.__qualname__,
            "name": name,
            "version": version,
            "example": dict(example or {}),
            "sample": sample,
            "Settings": settings,
            "measured": tuple(metrics),
            "normalise": normalise,
            "output_names": output_names,
            "datasets": datasets,
            "loss": _loss_method(loss),
            "loss_name": loss_name,
            "gives_logits": loss_name in OF_CLASSES | OF_LABELS,
        }
        made = type(function.__name__, (DatasetWorkload,), body)
        WORKLOADS.add(made)
        return made

    return register


def _loss_method(loss: Callable[..., "torch.Tensor"]) -> Callable[..., "torch.Tensor"]:
    smooths = "label_smoothing" in inspect.signature(loss).parameters

    def method(
        self: DatasetWorkload, outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0
    ) -> "torch.Tensor":
        return loss(outputs, targets, label_smoothing=label_smoothing) if smooths else loss(outputs, targets)

    return method


def as_metric(thing: Any) -> Metric:
    """A metric from a ``Metric``, from a function of (outputs, targets), or from a metric of torchmetrics.

    Raises:
        PluginError: for anything else, or for a metric of torchmetrics that does not say which way is better.
    """
    if isinstance(thing, Metric):
        return thing
    if hasattr(thing, "update") and hasattr(thing, "compute"):
        return _of_torchmetrics(thing)
    name = getattr(thing, "__name__", "")
    if not callable(thing) or not name.isidentifier():
        expected = "a Metric, a named function of (outputs, targets) or a metric of torchmetrics"
        raise PluginError("metric", f"{thing!r:.100}", expected)
    if not isinstance(getattr(thing, "higher_is_better", None), bool):
        advice = f"Write `{name}.higher_is_better = False` (or True) below it."
        raise PluginError(f"metric {name}", "no direction", "a function that says which way is better", advice)
    return _metric(
        Measure.called(name, thing.higher_is_better), lambda outputs, targets: float(thing(outputs, targets))
    )


def _of_torchmetrics(metric: Any) -> Metric:
    """torchmetrics accumulates over batches; here it is given a whole split at once, on the split's device."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(metric).__name__).lower()
    if metric.higher_is_better is None:
        raise PluginError("metric", type(metric).__name__, "a metric that says which way is better")

    def of(outputs: "torch.Tensor", targets: "torch.Tensor") -> float:
        mine = metric.to(outputs.device)
        mine.reset()
        mine.update(outputs, targets)
        value = float(mine.compute())
        mine.reset()
        return value

    return _metric(Measure.called(name, bool(metric.higher_is_better)), of)


def _metric(known: Measure, of: Callable[["torch.Tensor", "torch.Tensor"], float]) -> Metric:
    return Metric(name=known.name, label=known.label, higher_is_better=known.higher_is_better, of=of)
