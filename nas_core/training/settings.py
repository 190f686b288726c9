"""How networks are trained: the recipe, and what is trained in full."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from nas_core.base.errors import DataError
from nas_core.base.settings import Distinct, PathText, Section, resolved_path, wrong_field
from nas_core.base.words import counted
from nas_core.training.recipes import RECIPES

if TYPE_CHECKING:
    from nas_core.workloads.workload import Workload

TRAINING_VERSION = 3  # raised when a full training is done differently: results of another version are not reused

WARMUP = r"^ *([0-9]+(?:\.[0-9]+)?) *(%|epochs?|steps?) *$"
Optimizer = Literal[
    "sgd", "momentum", "sgdw", "adam", "adamw", "nadamw", "adopt", "adanw", "lamb", "lars", "lion", "muon", "nadamuon",
    "madgradw", "rmsproptf",
]  # fmt: skip
POLICIES = (
    "none", "rand-augment", "trivial-augment", "auto-augment-imagenet", "auto-augment-cifar10", "auto-augment-svhn",
)  # fmt: skip
TIMMS_POLICY = r"rand(-(m|n|mmax)[0-9]{1,3}|-(p|mstd)[0-9]+(\.[0-9]+)?|-inc[01])+"
RecipeName = Annotated[str, WithJsonSchema({"type": "string", "enum": [*RECIPES]})]


OWN = "own"  # the teacher that is the trained model which the study's networks are made of


class TeacherConfig(Section):
    """A trained network that the one in training shall agree with (Hinton et al. 2015).

    It sees what the student sees, augmented and mixed (Beyer et al. 2022).
    """

    model: str = Field(
        description="Name of one of timm's models, whose weights are in `checkpoint`; or a program (.pt2) as trained "
        "networks are stored; or a model logged in MLflow, such as models:/study@champion; or `own`: the trained model "
        "that the study's networks are made of."
    )
    checkpoint: PathText | None = Field(None, description="File with the weights of timm's model.")
    resolution: int | None = Field(None, ge=1, description="Side of its images, pixels; empty: the student's.")
    weight: float = Field(0.5, gt=0, le=1, description="Share of the loss that is agreement; the rest is the labels'.")
    temperature: float = Field(
        1.0, gt=0, le=100, description="Both outputs are divided by it before they are compared."
    )
    features: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Weight, beside that loss, of what blocks give against what the model's blocks give in their "
        "places: the squared error over the variance, mean over the blocks. Of the teacher `own` alone.",
    )

    @field_validator("model")
    @classmethod
    def _is_beside_the_study(cls, model: str, info: ValidationInfo) -> str:
        return resolved_path(model, info) if model.endswith(".pt2") else model

    @model_validator(mode="after")
    def _has_weights(self) -> "TeacherConfig":
        if self.checkpoint is None and not self.files and ":" not in self.model and self.model != OWN:
            raise wrong_field("TeacherConfig", "checkpoint", None, f"a file with the weights of {self.model}")
        if self.features and self.model != OWN:
            raise wrong_field("TeacherConfig", "features", self.features, f"0: blocks of {self.model} stand elsewhere")
        return self

    @property
    def files(self) -> dict[str, str]:
        """Paths of the files that it is read from, by field."""
        named = {"model": self.model if self.model.endswith(".pt2") else None, "checkpoint": self.checkpoint}
        return {field: path for field, path in named.items() if path is not None}


class Recipe(Section):
    """How a network is trained. What timm has is timm's: optimizers, schedules, averages, mixing, erasing."""

    name: RecipeName | None = Field(
        None,
        description=f"Published recipe ({', '.join(RECIPES)}) that all fields are taken from but those that stand "
        "beside it; empty: none.",
    )
    epochs: float = Field(10, gt=0, le=10_000, description="Passes over the training images.")
    batch_size: int = Field(128, ge=1, le=65_536, description="Images per step.")
    accumulate: int = Field(
        1, ge=1, le=1024, description="Parts that a batch is run in, so that it fits; gradients are of the whole batch."
    )

    optimizer: Optimizer = Field("sgd", description="Optimizer of timm's.")
    lr: float = Field(0.1, gt=0, le=100, description="Peak learning rate, for the batch size given.")
    lr_batch_size: int | None = Field(
        None,
        ge=1,
        description="Batch size that the rates are stated for: they are scaled to the one used, by the root of the "
        "ratio where rates adapt (Adam, LAMB, ...), else by the ratio; empty: rates are as stated.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum (Nesterov's with sgd).")
    betas: tuple[float, ...] | None = Field(None, description="Decays of the moments; empty: the optimizer's own.")
    eps: float | None = Field(None, gt=0, description="Summand of the denominator; empty: the optimizer's own.")
    weight_decay: float = Field(
        5e-4, ge=0, le=1, description="Decay of convolution and linear weights (not of norms and biases)."
    )
    layer_decay: float | None = Field(
        None, gt=0, le=1, description="Factor of the rate from one layer to the one before it; empty: one rate."
    )

    schedule: Literal["cosine", "linear", "step", "wsd", "constant", "plateau"] = Field(
        "cosine", description="How the rate falls after the warm-up; plateau: where the metric stops getting better."
    )
    warmup: str = Field(
        "10 %",
        json_schema_extra={"pattern": WARMUP},
        description='Linear rise of the rate, such as "10 %" of the steps, "5 epochs", "500 steps".',
    )
    warmup_lr: float | None = Field(
        None, ge=0, le=100, description="Rate that the rise starts from; empty: the first step's share of it."
    )
    min_lr: float = Field(0.0, ge=0, le=100, description="Rate that it falls to.")
    decay_epochs: float = Field(30, gt=0, le=10_000, description="Epochs from step to step; of the fall (wsd).")
    decay_rate: float = Field(0.1, gt=0, lt=1, description="Factor of the rate at each step, or at each plateau.")
    patience_epochs: int = Field(10, ge=0, le=10_000, description="Epochs without improvement that make a plateau.")
    stop_after_epochs: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Stop after so many epochs without improvement of the metric on the validation split, or of the "
        "training loss where a training is not validated, and keep the best epoch's weights; empty: never, the last "
        "weights are kept.",
    )

    loss: Literal["workload", "bce"] = Field(
        "workload", description="The workload's own loss, or binary cross-entropy of each class."
    )
    target_threshold: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of a mixed image above which a class counts as present (bce); empty: shares.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing.")
    teacher: TeacherConfig | None = Field(None, description="Trained network to learn from; empty: none.")

    augment: Literal["none", "crop", "crop-flip", "crop-flip-cutout", "resized-crop", "resized-crop-flip"] = Field(
        "crop",
        description="On-device augmentation of images; crop pads and shifts by an eighth of the side, resized-crop "
        "enlarges a part of 8 to 100 % of the area.",
    )
    policy: str = Field(
        "none",
        description=f"Operations drawn for each image, after crop and flip: {', '.join(POLICIES)}; or RandAugment as "
        "timm's command line has it, such as rand-m9-mstd0.5-inc1.",
    )
    magnitude: int = Field(9, ge=0, le=30, description="Strength of the two operations of `policy: rand-augment`.")
    erase: float = Field(0.0, ge=0, le=1, description="Probability that a rectangle of an image becomes noise.")
    mixup: float = Field(0.0, ge=0, le=10, description="Mixup's alpha; 0: none.")
    cutmix: float = Field(0.0, ge=0, le=10, description="CutMix's alpha; 0: none. With both, each batch draws one.")
    mix_probability: float = Field(1.0, ge=0, le=1, description="Share of the batches that are mixed.")
    repeats: int = Field(
        1, ge=1, le=64, description="Augmented copies of an image in its epoch, which has fewer images."
    )

    drop_path: float = Field(
        0.0, ge=0, lt=1, description="Probability that the last residual block is left out; it rises with the depth."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the last linear layer.")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="Decay of the weights' moving average; empty: none.")
    clip_norm: float | None = Field(5.0, gt=0, description="Gradient clip; empty: none.")
    clip_mode: Literal["norm", "value", "agc"] = Field(
        "norm", description="What is clipped: the gradients' norm, each value, or the norm relative to the weights'."
    )

    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of the forward pass (float16 with scaled losses); auto: bfloat16 on a GPU, else float32."
    )
    channels_last: bool = Field(True, description="Images and weights with channels last, as convolutions like them.")
    compile: bool = Field(False, description="torch.compile the network (pays for long trainings on a GPU).")

    @model_validator(mode="before")
    @classmethod
    def _from_its_name(cls, data: Any) -> Any:
        """``rsb-a3``, or ``{name: rsb-a3, epochs: 20}``; what earlier versions wrote is understood."""
        given = {"name": data} if isinstance(data, str) else data
        if not isinstance(given, Mapping):
            return given
        given = _written_before(given)
        name = given.get("name")
        if name is None:
            return given
        if not isinstance(name, str) or name not in RECIPES:
            raise wrong_field("Recipe", "name", name, f"one of: {', '.join(RECIPES)}")
        return {**RECIPES[name](), **given}

    @field_validator("policy")
    @classmethod
    def _is_known(cls, policy: str) -> str:
        if policy not in POLICIES and not re.fullmatch(TIMMS_POLICY, policy):
            timms = "timm's rand-... of the parts m, n, p, mstd, mmax and inc, such as rand-m9-mstd0.5-inc1"
            raise ValueError(f"one of: {', '.join(POLICIES)}; or {timms}")
        return policy

    @field_validator("warmup")
    @classmethod
    def _is_an_amount(cls, warmup: str) -> str:
        amount = re.match(WARMUP, warmup)
        if amount is None or (amount[2] == "%" and float(amount[1]) > 100):
            raise ValueError('an amount such as "10 %", "5 epochs" or "500 steps", at most 100 % of the steps')
        return warmup

    @model_validator(mode="after")
    def _can_be_watched(self) -> "Recipe":
        if self.compile and self.teacher is not None and self.teacher.features:
            raise wrong_field("Recipe", "compile", True, "False with `teacher.features`: no block is seen by itself")
        return self

    @field_validator("betas")
    @classmethod
    def _are_decays(cls, betas: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if betas is not None and not all(0 <= beta < 1 for beta in betas):
            raise ValueError("numbers from 0 to below 1")
        return betas

    def check(self, where: str) -> None:
        """Raises DataError if a file that it names is not there; ``where`` is what the recipe is called."""
        for field, path in self.teacher.files.items() if self.teacher is not None else ():
            if not os.path.isfile(path):
                raise DataError(f"{where}.teacher.{field}", path, "a file that is there")

    @model_serializer(mode="wrap")
    def _as_written(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A named recipe is its name and what was changed of it: all fields beside a name are what a form fills in."""
        known: dict[str, Any] = plain(self)
        if self.name is None or "name" not in known:
            return known
        named = Recipe.model_validate(self.name)
        changed = {key for key in known if getattr(self, key) != getattr(named, key)} | {"name"}
        return {key: value for key, value in known.items() if key in changed}

    @property
    def values(self) -> dict[str, Any]:
        """Every field but the name, JSON-able."""
        return self.model_copy(update={"name": None}).model_dump(mode="json", exclude={"name"})

    @property
    def identity(self) -> dict[str, Any]:
        """What a training depends on: the values, whatever they are called; files by what they hold.

        A file that is not there is known by its path.
        """
        known = self.values
        if self.stop_after_epochs is not None:
            known["keeps"] = "best"  # earlier versions kept the last weights
        if self.policy != "none":
            known["policy_follows"] = "augment"  # in earlier versions it came first
        if self.teacher is not None and not self.teacher.features:
            del known["teacher"]["features"]  # earlier versions had none
        for field, path in self.teacher.files.items() if self.teacher is not None else ():
            if os.path.isfile(path):
                known["teacher"][field] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        return known

    def completed(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """As of any section; a named recipe leaves nothing out.

        A form sends every field: those that are as it filled them in, from
        this recipe, give way to the name. A person writes beside a name what counts.
        """
        if given.get("name") is None:
            return super().completed(given)
        filled_in = self.values
        if not {key for key, value in filled_in.items() if value is not None} <= given.keys():
            return given
        return {key: value for key, value in given.items() if key == "name" or value != filled_in.get(key, given)}

    def applied_to(self, workload: "Workload") -> "Recipe":
        """What of it has an effect on these data: of inputs that are never augmented, no augmentation."""
        return self if workload.augments else self.model_copy(update={"augment": "none"})

    @property
    def in_words(self) -> str:
        """What a person is told of it, on one line."""
        name = f"{self.name}: " if self.name else ""
        rates = f"{self.optimizer}, peak rate {self.lr:g} ({self.schedule})"
        used = [self.augment, self.policy, *(what for what in ("mixup", "cutmix", "erase") if getattr(self, what))]
        more = ["taught"] if self.teacher is not None else []
        changes = [each for each in used if each != "none"] + more
        return ", ".join([f"{name}{counted(self.epochs, 'epoch')}", f"batch {self.batch_size}", rates, *changes])

    @property
    def watches_metric(self) -> bool:
        """Whether rates, or when to stop, follow from what was measured at the ends of epochs."""
        return self.schedule == "plateau" or self.stop_after_epochs is not None

    @property
    def mixes(self) -> bool:
        """Whether images, and with them targets, are mixed."""
        return self.mixup > 0 or self.cutmix > 0


def _written_before(data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe in the words of today: ``amp`` and ``warmup_fraction`` are of earlier ones."""
    known = dict(data)
    if isinstance(amp := known.get("amp"), bool):
        del known["amp"]
        known.setdefault("precision", "auto" if amp else "float32")
    fraction = known.get("warmup_fraction")
    if isinstance(fraction, int | float) and 0 <= fraction < 1:
        del known["warmup_fraction"]
        known.setdefault("warmup", f"{100 * fraction:.10g} %")
    return known


def warmup_steps(text: str, num_steps: int, steps_per_epoch: int) -> int:
    """Steps of a warm-up such as ``5 epochs``, at most all but the last."""
    found = re.match(WARMUP, text)
    assert found is not None, text
    number, unit = float(found[1]), found[2]
    per_unit = {"%": num_steps / 100, "epoch": steps_per_epoch, "step": 1}[unit.rstrip("s")]
    return min(round(number * per_unit), num_steps - 1)


FULL_RECIPE = Recipe(epochs=30, label_smoothing=0.1, augment="crop-flip", ema_decay=0.998)


class FullTrainingConfig(Section):
    """The full training of one network."""

    recipe: Recipe = Field(FULL_RECIPE, description="The full recipe.")
    train_examples: int | None = Field(None, ge=1, description="Images to train on; empty: all but validation.")
    checkpoint_every_s: float = Field(30, ge=0, description="Time between checkpoints of a training.")
    workers: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Processes that train a network together, on as many GPUs or shares of CPUs, of any nodes. Batch "
        "and rate are the whole's, each takes its share of each batch; another number goes on from a checkpoint.",
    )
    sync_norm: bool = Field(
        False,
        description="Batch normalisation over whole batches, whatever the number of workers; else over each one's "
        "share.",
    )

    @property
    def inputs(self) -> dict[str, Any]:
        """All settings that a result depends on, a named recipe with its values: what is trained is known by these."""
        known = self.model_dump(mode="json", exclude={"workers", "checkpoint_every_s"})
        if not self.sync_norm:  # as it was before there were several workers
            del known["sync_norm"]
        return {**known, "recipe": {"name": self.recipe.name, **self.recipe.identity}}


Baseline = Literal["depth", "greedy", "largest", "uniform", "torch_pruning", "sibling"]


class TrainConfig(FullTrainingConfig):
    """The winner's full training, and what it is compared with."""

    compare_base: bool = Field(True, description="Train the base network alike.")
    compare_random: int = Field(1, ge=0, le=100, description="Random networks within the limits to train alike.")
    seeds: int = Field(
        1,
        ge=1,
        le=100,
        description="Trainings of the winner and of each network that it is compared with, from as many seeds: the "
        "report gives their mean, their spread and a paired test. The first one's weights are handed over.",
    )
    compare: Distinct[Baseline] = Field(
        default_factory=list,
        description="What else to find within the limits and to train alike. depth: blocks left out, the others as in "
        "the base; greedy: swap by swap, each the one that loses least for what it saves; largest: most FLOPs; of a "
        "trained model also uniform: every block as much narrower; torch_pruning: Torch-Pruning's magnitude pruner; "
        "sibling: the next smaller model of its family in timm, with fresh weights.",
    )

    @property
    def inputs(self) -> dict[str, Any]:
        """As of any full training; what is not compared with, and a single seed, are not named."""
        known = super().inputs
        if not self.compare:
            del known["compare"]
        if self.seeds == 1:
            del known["seeds"]
        return known


TRAINING_PASSES = 3  # a training step is a forward pass and a backward pass of twice its work
