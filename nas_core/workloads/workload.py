"""The protocol of workloads: data with a loss and metrics. No torch at import."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from nas_core.base.errors import DataError, UnknownNameError
from nas_core.base.registry import Registered, Registry
from nas_core.base.settings import Section
from nas_core.workloads.metrics import Metric, Metrics
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.targets import divergence

if TYPE_CHECKING:
    import torch

    from nas_core.workloads.examples import Examples

    Pair = tuple[torch.Tensor | Examples, torch.Tensor | Examples]  # inputs and targets, as many of each


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a family has to know of the data: shape of one input (without the batch axis), its type, outputs wanted.

    ``num_outputs`` is the number of classes of a classification, of numbers of
    a regression. ``dtype`` is of the inputs as a network takes them. ``dense``
    says that there are as many for every pixel: a network's outputs are then
    N num_outputs H W, of the sides of its inputs. ``outputs`` is the shape of an example's outputs where it is
    another one, such as (16, 4) for 4 classes of each of 16 words.
    """

    shape: tuple[int, ...]
    num_outputs: int
    dtype: str = "float32"
    dense: bool = False
    outputs: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; only what is dense says so, as ids are made of it."""
        known = {"shape": list(self.shape), "num_outputs": self.num_outputs, "dtype": self.dtype}
        more = {"dense": True} if self.dense else {}
        return {**known, **more, **({"outputs": list(self.outputs)} if self.outputs else {})}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Sample":
        return cls(**{**data, "shape": tuple(data["shape"]), "outputs": tuple(data.get("outputs", ()))})

    @property
    def is_image(self) -> bool:
        """Whether an input has channels, height and width, so that it can be had at other sizes."""
        return len(self.shape) == 3

    def outputs_for(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of an example's outputs, for an input of this shape."""
        return self.outputs or (self.num_outputs, *(shape[1:] if self.dense else ()))

    def shape_at(self, resolution: int, in_channels: int) -> tuple[int, ...]:
        """The shape of an input of a network made for this side and these channels; what is no image stays."""
        return (in_channels, resolution, resolution) if self.is_image else self.shape


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A workload's examples, with inputs of one shape: tensors, or what gives batches of them (``examples``).

    ``train`` and ``validation`` are disjoint parts of the training split: pairs
    (inputs, targets) whose first axes agree. The test split is not here:
    ``load_test()`` reads it, so nothing that scores networks can touch it by accident.
    ``prepare`` turns stored inputs (uint8 images, say) into what a network takes.
    """

    train: "Pair"
    validation: "Pair"
    load_test: "Callable[[], Pair]" = field(repr=False)
    prepare: Normalisation = field(default_factory=Normalisation)
    output_names: tuple[str, ...] = ()  # classes, or what the numbers are called


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that a set's inputs take: in each worker, in all of a node together, on its disk; and what is read anew.

    ``is_read_by`` says how often examples are made of what is stored: once a
    ``node``, once a ``worker`` for all that it does, or at each ``use``.
    """

    own_bytes: int = 0
    shared_bytes: int = 0
    disk_bytes: int = 0
    is_read_by: Literal["node", "worker", "use"] = "worker"


W = TypeVar("W", bound="Workload")


class Workload(Registered, ABC):
    """Data, a loss, metrics and an example of an input."""

    places: ClassVar[frozenset[str]] = frozenset()  # settings that only say where the data lie
    in_fractions: ClassVar[bool] = False  # whether inputs of floating point are fractions of full brightness

    def __init__(self, settings: Section) -> None:
        self.settings: Any = settings

    @property
    @abstractmethod
    def sample(self) -> Sample:
        """Shape and type of an input, number of outputs; cheap, and needs no torch."""

    @property
    @abstractmethod
    def metrics(self) -> Metrics:
        """The metrics by name; the first is the one that networks are compared by unless the study names another."""

    @property
    def label(self) -> str:
        """What reports call the data."""
        return self.name

    @property
    def identity(self) -> dict[str, Any]:
        """What of the data a score depends on (where they lie does not matter): part of scorers' ids."""
        if self.name in WORKLOADS:
            known = WORKLOADS.identity(self.name, self.settings, self.places)
        else:
            known = {"name": self.name, "version": self.version}
        return {**known, "settings": self.settings.model_dump(mode="json", exclude=set(self.places))}

    def fingerprint(self) -> str:
        """Content id of files that the identity knows by their place alone, as they are now; "" where it says all."""
        return ""

    def check(self, train_examples: int | None = None) -> None:
        """Raises DataError, with what to do, if data are missing or splits larger than the set; cheap.

        ``train_examples`` are those that a full training asks for.
        """

    @abstractmethod
    def num_examples(self) -> tuple[int, int]:
        """How many examples networks are trained on and validated on; cheap. Raises as ``check``."""

    @abstractmethod
    def load(self, shape: tuple[int, ...] | None = None) -> Splits:
        """The examples, as inputs of this shape; None: as ``sample`` says.

        Images are resized and get the channels asked for; a workload that has
        one shape only may ignore it.

        Raises:
            DataError: if data are missing, broken or too few.
        """

    def few(self, count: int, shape: tuple[int, ...] | None = None) -> Splits:
        """As ``load``, of each split ``count`` examples at most, in memory: for a trial of what a step takes."""
        splits = self.load(shape)
        train, validation = ((inputs[:count], targets[:count]) for inputs, targets in (splits.train, splits.validation))
        return replace(splits, train=train, validation=validation)

    def footprint(self, shape: tuple[int, ...] | None = None) -> "Footprint":
        """What inputs of this shape take beyond what ``few`` of them show; nothing where all are read for those."""
        return Footprint()

    @abstractmethod
    def loss(self, outputs: "torch.Tensor", targets: "torch.Tensor", label_smoothing: float = 0.0) -> "torch.Tensor":
        """The mean loss of a batch, a scalar with gradients."""

    def counted(self, targets: "torch.Tensor") -> "torch.Tensor | None":
        """How many values of these targets the mean ``loss`` is over, a scalar; None: as many of each example."""
        return None

    def agreement(self, outputs: "torch.Tensor", taught: "torch.Tensor", temperature: float) -> "torch.Tensor":
        """How far outputs are from a teacher's, with gradients: the divergence of classes, axis 1 (Hinton et al. 2015).

        Both are divided by the temperature; the divergence is multiplied by its square. Where axis 1 is not that of
        ``num_outputs`` classes, it is the mean square of the difference.
        """
        if self.sample.outputs and self.sample.outputs[0] != self.sample.num_outputs:
            return (outputs - taught).square().mean()
        return divergence(outputs, taught, temperature)

    @property
    def gives_logits(self) -> bool:
        """Whether outputs are logits of which ``loss`` is a cross-entropy.

        Times any number above 0 they give the same answers, more or less surely.
        """
        return False

    @property
    def output_scale(self) -> Normalisation:
        """Mean and deviation of which a network's outputs are multiples; what is handed over gives them undone.

        Metrics take outputs as the network gives them.
        """
        return Normalisation()

    @property
    def refused(self) -> Mapping[str, str]:
        """Settings of recipes that make no sense with these targets, by name, and why."""
        return {}

    def reduced(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """What metrics and details need of a batch's outputs, B ...; they take either.

        Whole maps of a split would fill the memory, counts per example do not.
        """
        return outputs

    def augment(self, inputs: "torch.Tensor", kind: str, generator: "torch.Generator") -> "torch.Tensor":
        """A changed copy of prepared inputs, by ``Recipe.augment``; as they are where a workload has none."""
        return inputs

    @property
    def augments(self) -> bool:
        """Whether ``Recipe.augment`` changes anything: where the class says how."""
        return any(getattr(type(self), name) is not getattr(Workload, name) for name in ("augment", "augment_both"))

    def augment_both(
        self, inputs: "torch.Tensor", targets: "torch.Tensor", kind: str, generator: "torch.Generator"
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """Prepared inputs changed as ``augment`` does, and their targets, which maps change with them."""
        return self.augment(inputs, kind, generator), targets

    def augment_stored(
        self, inputs: "torch.Tensor", policy: str, magnitude: int, mean: Sequence[float] = ()
    ) -> "torch.Tensor":
        """A changed copy of stored inputs, by ``Recipe.policy``, from torch's global generator, which is seeded.

        ``mean`` is that of the channels over the training split, as shares of full brightness; () where not known.

        Raises:
            DataError: where a workload has none, as this one.
        """
        raise DataError("recipe.policy", f"{policy} for the workload {self.name}", "none: it has no such augmentation")

    def untouched(self, inputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor | None":
        """Stored inputs of a batch taken for what a network would make of them, as ``reduced`` gives it.

        What trained networks are shown beside; None where an input is nothing of the kind.
        """
        return None

    def details(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> dict[str, Any]:
        """What is kept of a trained network's outputs on the test split beside the metrics; JSON-able.

        The report knows of ``confusion`` (examples of each class, in rows, by what they were taken for), ``table``
        (``head`` and ``rows`` of texts) and ``scatter`` (for each number ``name``, ``true`` and ``predicted``).
        """
        return {}

    def shown(
        self, inputs: "torch.Tensor", outputs: "torch.Tensor", targets: "torch.Tensor"
    ) -> Sequence[Mapping[str, Any]]:
        """Some examples of the test split as a report shows them, from stored inputs; JSON-able.

        Each has ``words``, and ``pictures``, pairs of a name and a PNG file in base64; or ``cells``, pairs of a
        column's name and a text.
        """
        return ()

    def describe(self) -> Sequence[tuple[str, str]]:
        """What the report says of the data: (what, value) rows."""
        return ()

    def notes(self) -> Sequence[str]:
        """What people should know of the data before they are used: sentences that a run begins with."""
        return ()

    def held(self, shape: tuple[int, ...] | None = None) -> str:
        """Where inputs of this shape are while networks are trained, in words; "" where there is nothing to say."""
        return ""

    def with_train_examples(self: W, count: int | None) -> W:
        """The same data with so many training examples (None: all but validation), where its settings know them."""
        if "train_examples" not in type(self.settings).model_fields:
            return self
        return type(self)(self.settings.model_copy(update={"train_examples": count}))


def metric_of(workload: Workload, name: str = "") -> Metric:
    """The metric of this name, or the workload's first; raises UnknownNameError if it has none of the name."""
    metrics = workload.metrics
    if not name:
        return next(iter(metrics.values()))
    if name not in metrics:
        raise UnknownNameError("metric", repr(name), f"one of: {', '.join(metrics)}")
    return metrics[name]


WORKLOADS = Registry[Workload]("workload", Workload)
